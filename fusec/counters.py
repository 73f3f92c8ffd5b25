"""What this process compiled so far."""

from __future__ import annotations

import os
import threading
from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class Statistics:
    """What was compiled."""

    compilations: int = 0
    regions: int = 0
    """Loop nests before fusion."""
    kernels: int = 0
    """Launches after fusion."""
    distinct: int = 0
    """Kernels that had to be generated."""
    externs: int = 0
    kept_bytes: int = 0
    """Memory for what is made of frozen parameters once: that of all programs, gone or
    not."""


_total = Statistics()
_counting = threading.Lock()


def statistics() -> Statistics:
    """What this process compiled so far."""
    return _total


def count(made: Statistics) -> None:
    """Add to what was compiled."""
    global _total
    with _counting:
        pairs = zip(astuple(_total), astuple(made), strict=True)
        _total = Statistics(*(before + new for before, new in pairs))


def _renew_lock() -> None:
    """In the child of a fork: whoever held the lock is not there to release it."""
    global _counting
    _counting = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
