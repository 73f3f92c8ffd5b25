"""What commands print: results on standard output, progress on standard error."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusec.errors import UserError

_PATIENCE = 1.0
"""Seconds that pass in silence."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a command found, for people and, as JSON, for programs."""

    text: str
    data: Any = field(default_factory=dict[str, Any])
    status: int = 0


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """Say what is being done, if it takes over a second and someone is looking."""
    timer = threading.Timer(_PATIENCE, lambda: _tell(doing))
    if sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tell(doing: str) -> None:
    note(f"{doing} …")


def note(text: str) -> None:
    """Something beside the result that the user should know."""
    print(f"fusec: {text}", file=sys.stderr, flush=True)


def written(text: str, path: str | None) -> str:
    """The text, or nothing once it is in the file `path`."""
    if path is None:
        return text
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    return ""


def table(rows: list[tuple[str, ...]], indent: str = "") -> str:
    """Rows with their columns aligned."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        (
            indent
            + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
