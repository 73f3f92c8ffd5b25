"""A compiled graph as data: everything that a process needs to run it.

    compile_module ─▶ Artifact(recipe, image) ─load─▶ Program

An artifact can be pickled, and loading one takes neither the compiler nor LLVM. It is
right for the machine that it was made for, and for the sources that made it; both
belong in the key of whatever keeps it (see `salt`).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fusec.logs import logger
from fusec.runtime.cache import Cache, cache_key
from fusec.runtime.devices import CPU, Device
from fusec.runtime.gpus import driver_of
from fusec.runtime.image import Code
from fusec.runtime.launcher_cpu import Linked, load
from fusec.runtime.launcher_gpu import Gpu, GpuKernel
from fusec.runtime.launcher_keeping import Keeping
from fusec.runtime.launcher_torch import Program, exported_shims
from fusec.runtime.recipe import Recipe

_BEFORE = "compiled before, which was the time to tell; cache=0 compiles it anew"


@dataclass(frozen=True, slots=True)
class GpuProgram:
    """What a program has besides if it runs on a GPU."""

    device: str
    """As torch names it: cuda:0."""
    kernels: tuple[GpuKernel, ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a host function does, and the code of its kernels and segments."""

    recipe: Recipe
    image: Linked
    callables: Mapping[str, Callable[..., Any]]
    """What externs call that has no name in torch. Some of it only this process has:
    then the artifact cannot be pickled."""
    threads: int | None
    told: tuple[str, ...] = ()
    """For the log: what the graph runs, then each fallback."""
    once: Artifact | None = None
    """What makes, once, what the program is given besides its arguments."""
    gpu: GpuProgram | None = None

    def load(self) -> Program | Keeping:
        """The program, bound to addresses of this process.

        Raises `InternalError` where something that the code needs is not there.
        """
        code = load(self.image, exported_shims())
        logger("cache").debug("hit, in torch's cache: %s", self.recipe.name)
        if self.told:
            tell(self.told, "loaded from torch's cache")
        for category in ("fusion", "kernels"):
            logger(category).info("%s: %s", self.recipe.name, _BEFORE)
        program = self.bound(code)
        if self.once is None:
            return program
        return Keeping(
            program, self.once.bound(load(self.once.image, exported_shims()))
        )

    def bound(self, code: Code) -> Program:
        """The program on its code, where its tensors are."""
        device: Device = CPU
        if self.gpu is not None:
            driver = driver_of(self.gpu.device)
            device = Gpu(self.gpu.device, self.gpu.kernels, driver)
        return Program(self.recipe, code, self.callables, self.threads, device)


def tell(told: Sequence[str], how: str) -> None:
    """Log what a graph runs, and how it came to be in this process."""
    what, *fallbacks = told
    logger("graph").info("%s, %s", what, how)
    for fallback in fallbacks:
        logger("graph").info("  through ATen: %s", fallback)


def salt(kept: Cache, *facts: object) -> str | None:
    """What tells artifacts apart that torch's own key does not: a text for that key.

    It changes with fusec's sources and with `facts`, by their `repr`; and it holds a
    secret of the cache's folder, so that to clear this cache is to forget what torch
    keeps. None where the folder cannot hold a secret.
    """
    secret = _secret(kept)
    if secret is None:
        return None
    return cache_key("artifact", _sources(), secret, *map(repr, facts))


def _secret(kept: Cache) -> bytes | None:
    key = cache_key("artifact", "secret")
    found = kept.get(key)
    if found is None and kept.put(key, secrets.token_bytes(32), "secret"):
        found = kept.get(key)  # another process may have been quicker
    return found


@cache
def _sources() -> bytes:
    """What changes with fusec itself: where its files are, how long, and how new."""
    root = Path(__file__).parents[1]
    paths = sorted(root.rglob("*.py"))
    files = [(str(p), s.st_size, s.st_mtime_ns) for p in paths if (s := p.stat())]
    return hashlib.sha256(repr(files).encode()).digest()
