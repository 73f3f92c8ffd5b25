"""How the call of an extern is written down, without what it is about.

    aten.pad($0, (1, 2), dtype float32)     (Slot(0), (1, 2), Named("dtype", "float32"))

A program that is kept holds such calls; to read one takes nothing else of the IR.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of an operand among the arguments of a call."""

    index: int


@dataclass(frozen=True, slots=True)
class Named:
    """A constant that torch knows by name: `Named("dtype", "float32")`."""

    kind: str
    name: str
