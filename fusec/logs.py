"""Logs: one standard logger per category, all under "fusec".

    FUSEC_LOGS=fusion,kernels python train.py

Warnings are always shown. What a category says below that is shown once the category
is enabled. A program that configures `logging` itself keeps its own handlers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

CATEGORIES = {
    "graph": "each graph: its kernels, its calls to torch and why, how long it took",
    "fusion": "which ops were not fused, and why",
    "kernels": "each kernel and the schedule it follows",
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
    """Show everything that these categories log, on stderr unless handlers exist."""
    loggers = [logger(category) for category in categories]
    top = logging.getLogger("fusec")
    if loggers and not top.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("[%(name)s] %(message)s"))
        top.addHandler(handler)
    for each in loggers:
        each.setLevel(logging.DEBUG)
