"""Where in the arena each tensor lives: offsets shared by what never lives together.

Greedy by lifetime: an allocation takes the lowest gap that fits among the tensors
alive at that moment, and gives it back at its `free`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusec.ir.core import Function, Value
from fusec.ir.dims import product
from fusec.ir.ops.host import Alloc, Free
from fusec.ir.types import Tensor

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""


@dataclass(frozen=True, slots=True)
class ArenaPlan:
    """Byte offsets of the tensors in the arena, and its size."""

    offsets: Mapping[Value, int]
    nbytes: int


def plan_arena(function: Function) -> ArenaPlan:
    """Place every tensor that does not escape and whose size is known."""
    offsets: dict[Value, int] = {}
    alive: dict[Value, tuple[int, int]] = {}
    top = 0
    for op in function.body.ops:
        if isinstance(op, Alloc) and not op.escapes:
            size = _bytes(op.type)
            if size is None:
                continue
            start = _lowest_gap(list(alive.values()), size)
            offsets[op.result] = start
            alive[op.result] = start, start + size
            top = max(top, start + size)
        elif isinstance(op, Free):
            alive.pop(op.x, None)
    return ArenaPlan(offsets, top)


def _bytes(type_: Tensor) -> int | None:
    """Whole cache lines that a tensor takes; None where sizes are symbolic."""
    count = product(type_.shape)
    if not isinstance(count, int) or type_.strides is not None:
        return None
    return -(-count * type_.dtype.itembytes // ALIGNMENT) * ALIGNMENT


def _lowest_gap(taken: list[tuple[int, int]], size: int) -> int:
    start = 0
    for first, last in sorted(taken):
        if first - start >= size:
            return start
        start = max(start, last)
    return start
