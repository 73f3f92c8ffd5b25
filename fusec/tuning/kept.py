"""What was found out, kept in the cache: which schedule a region follows.

    kept = kept_choices(options, target, "cuda:0")
    kept(fingerprint)           Choice("grid 0; 1 whole 1 64; warps 4 stages 1", 1.3)

What a choice depends on is its key: the region, the target's figures, how many threads
run on a CPU, which GPU it is and what compiles for it, and fusec's own sources.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from fusec.analysis.candidates import Choice, Choices, no_choices
from fusec.build import cache_of
from fusec.files import locked
from fusec.logs import warn_once
from fusec.options import Options
from fusec.runtime.artifact import sources
from fusec.runtime.cache import Cache, cache_key
from fusec.runtime.devices import CPU
from fusec.runtime.gpus import identity_of
from fusec.target import Target

LOCK = "tuning.lock"
"""A file in the cache's folder, which who measures holds."""


class Kept:
    """The choices that are known, by the fingerprints of regions; in the cache, where
    there is one."""

    def __init__(self, cache: Cache | None, where: tuple[str, ...]) -> None:
        """`where` tells the device on which the choices are the fastest."""
        self.cache = cache
        self.where = where
        self._here: dict[str, Choice] = {}

    def __call__(self, fingerprint: str) -> Choice | None:
        """What was found out about a region."""
        if fingerprint in self._here or self.cache is None:
            return self._here.get(fingerprint)
        payload = self.cache.get(self.key(fingerprint))
        if payload is None:
            return None
        try:
            return Choice.parse(payload.decode())
        except ValueError as error:
            warn_once("tuning", f"a kept schedule is ignored: {error}")
            return None

    def put(self, fingerprint: str, choice: Choice) -> None:
        """Keep what was found out."""
        self._here[fingerprint] = choice
        if self.cache is not None:
            self.cache.put(self.key(fingerprint), choice.text.encode(), "schedule")

    def alone(self, is_late: Callable[[], bool]) -> AbstractContextManager[None]:
        """While nobody else finds out anything, who would disturb the measurements."""
        if self.cache is None or not self.cache.is_usable():
            return nullcontext()
        return locked(self.cache.root / LOCK, is_late)

    def key(self, fingerprint: str) -> str:
        """What a choice depends on."""
        return cache_key("schedule", sources(), fingerprint, *self.where)


def kept_choices(options: Options, target: Target, device: str) -> Choices:
    """The choices for a target on a device, as torch names it; on a CPU, for as many
    threads as programs run on. None where code for a GPU is not for one that is here.
    """
    if not target.is_gpu:
        where = (str(CPU.word(options.threads)),)
    elif not (where := identity_of(device)):
        return no_choices
    return Kept(cache_of(options), (repr(target), *where))
