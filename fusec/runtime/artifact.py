"""A compiled graph as data: everything that a process needs to run it.

    compile_module ─▶ Artifact(plan, object code) ─load─▶ Program

An artifact can be pickled. It is right for the machine that it was made for, and for
the sources that made it; both belong in the key of whatever keeps it (see `salt`).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fusec.runtime.cache import Cache, cache_key
from fusec.runtime.launcher_cpu import Code, load
from fusec.runtime.launcher_torch import Program, exported_shims
from fusec.runtime.plan import HostPlan


@dataclass(frozen=True, slots=True)
class Artifact:
    """A host function's plan, the object code of its kernels, and of its segments."""

    plan: HostPlan
    kernels: Mapping[str, bytes]
    """Object code by the name of the kernel in it."""
    segments: bytes
    """Object code of all segments; empty where there are none."""
    callables: Mapping[str, Callable[..., Any]]
    """What externs call that has no name in torch. Some of it only this process has:
    then the artifact cannot be pickled."""
    threads: int | None

    def load(self) -> Program:
        """The program, bound to addresses of this process.

        Raises `InternalError` where the object code is damaged.
        """
        code = [load(image, (name,)) for name, image in self.kernels.items()]
        if self.segments:
            names = [segment.name for segment in self.plan.segments]
            imports = {**addresses_of(code), **exported_shims()}
            code.append(load(self.segments, names, imports))
        return self.bound(code)

    def bound(self, code: Sequence[Code]) -> Program:
        """The program on object code that is loaded already."""
        plan, addresses = self.plan, addresses_of(code)
        program = Program(plan.function, addresses, self.callables, self.threads, plan)
        program.code = code
        return program


def addresses_of(code: Iterable[Code]) -> dict[str, int]:
    """The functions of several objects, by name."""
    return {name: at for each in code for name, at in each.addresses.items()}


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
