"""Which values a kernel hands from sweep to sweep through scratch memory.

    softmax: sweep 1 adds up e = exp(x - m), sweep 2 divides e by the sum

Computing e twice costs two exponentials an element; writing it to the first-level
cache and reading it back costs a tenth. Kept is what is dear to compute and fits.
"""

from __future__ import annotations

from collections.abc import Mapping

from fusec.analysis.cost import weigh
from fusec.analysis.sweeps import loops_of, number_sweeps
from fusec.ir.core import Function, Op, Value, definitions
from fusec.ir.dims import product
from fusec.ir.ops.reduction import ReduceTile
from fusec.ir.ops.tile import StoreTile
from fusec.ir.types import Tile
from fusec.target import Target

DEAR = 8.0
"""Simple operations from which on a value is worth a store and a load."""


def kept(function: Function, target: Target) -> list[Value]:
    """The values to keep in scratch memory, in program order: none where registers
    hold them or nothing does."""
    if not target.scratch:
        return []
    sweeps, made = number_sweeps(function), definitions(function.body)
    wanted: dict[Value, None] = {}
    for op in function.body.ops:
        if isinstance(op, (StoreTile, ReduceTile)) and sweeps[op] > 0:
            wanted.update(_dear_before(op, made, sweeps))
    room = target.l2_bytes // 2
    chosen: list[Value] = []
    for value in made:
        if value in wanted and (size := _bytes(value)) is not None and size <= room:
            room -= size
            chosen.append(value)
    return chosen


def _dear_before(
    sink: Op, made: Mapping[Value, Op], sweeps: Mapping[Op, int]
) -> dict[Value, None]:
    """Dear values of earlier sweeps that a sink needs at every point."""
    found: dict[Value, None] = {}
    seen: set[Value] = set()
    stack = list(sink.operands)
    while stack:
        value = stack.pop()
        op = made.get(value)
        if value in seen or op is None or not loops_of(value):
            continue
        seen.add(value)
        if sweeps[op] < sweeps[sink] and weigh(op) >= DEAR:
            found[value] = None
        else:
            stack.extend(op.operands)
    return found


def _bytes(value: Value) -> int | None:
    """The size of a value, if its extents are known."""
    type_ = value.type
    if not isinstance(type_, Tile) or type_.layout is None:
        return None
    size = product(type_.layout.padded_shape)
    return size * type_.dtype.itembytes if isinstance(size, int) else None
