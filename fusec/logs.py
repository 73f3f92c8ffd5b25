"""Logs: one standard logger per category, all under "fusec".

    FUSEC_LOGS=fusion,kernels python train.py

Warnings are always shown. What a category says below that is shown once the category
is enabled, by whichever compile asks for it first: loggers belong to the process. A
program that configures `logging` itself keeps its own handlers.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from functools import cache

CATEGORIES = {
    "graph": "each graph: its kernels, its calls to torch and why, how long it took",
    "fusion": "which ops were not fused, and why",
    "kernels": "each kernel and the schedule it follows",
    "tuning": "which schedules were measured, and which of them won",
    "cache": "hits, misses, and entries that were thrown away",
}


def logger(category: str) -> logging.Logger:
    """The logger of a category."""
    if category not in CATEGORIES:
        raise ValueError(f"no log category {category!r} among {', '.join(CATEGORIES)}")
    return logging.getLogger(f"fusec.{category}")


def counted(n: int, one: str, many: str = "") -> str:
    """`1 call`, `2 calls`; `many` is the plural where an s is not enough."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def enable(categories: Iterable[str]) -> None:
    """Show everything that these categories log from now on, in all of the process."""
    for each in [logger(category) for category in categories]:
        each.setLevel(logging.DEBUG)


@cache
def warn_once(category: str, message: str) -> None:
    """Warn, unless the process has been told so."""
    logger(category).warning("%s", message)


def forget_warnings() -> None:
    """Say again what was said."""
    warn_once.cache_clear()


class _Unhandled(logging.Handler):
    """Prints on stderr, and says who speaks, where the program has no handler."""

    def emit(self, record: logging.LogRecord) -> None:
        if any(handler is not self for handler in _handlers(record.name)):
            return
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except (OSError, ValueError):  # nobody reads it any more
            self.handleError(record)


def _handlers(name: str) -> Iterator[logging.Handler]:
    """All that a record of a logger goes to."""
    each: logging.Logger | None = logging.getLogger(name)
    while each:
        yield from each.handlers
        each = each.parent if each.propagate else None


_unhandled = _Unhandled()
_unhandled.setFormatter(logging.Formatter("[%(name)s] %(message)s"))
logging.getLogger("fusec").addHandler(_unhandled)


def sized(count: int) -> str:
    """A number of bytes, for people: `12 B`, `3.4 MiB`."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
