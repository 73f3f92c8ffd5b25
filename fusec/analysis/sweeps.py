"""How often a kernel walks its tiles: sweeps, and which dimensions they walk.

    %x = load_tile : tile<[1000], 16:time 4:reg 16:lane>      sweep 0
    %s = reduce_tile %x sum                                   sweep 0, ends it
    %y = sub %x, %s                                           sweep 1

A dimension with a digit on `time` is walked by a loop, so what combines along it is
known only when the loop has ended.
"""

from __future__ import annotations

from fusec.ir.core import Function, Op, Value, Values
from fusec.ir.layout import TIME
from fusec.ir.layout.digits import Digit
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.types import Tile

Dims = frozenset[int]


def time_dims(value: Value) -> Dims:
    """The dimensions of a value that are swept in time."""
    if not isinstance(value.type, Tile) or value.type.layout is None:
        return frozenset()
    dims = value.type.layout.dims
    return frozenset(d for d, digits in enumerate(dims) if timed(digits))


def timed(digits: tuple[Digit, ...]) -> bool:
    """Whether a loop walks a dimension of these digits."""
    return any(digit.axis == TIME for digit in digits)


def number_sweeps(function: Function) -> dict[Op, int]:
    """For each op, the longest chain of reductions over time before it."""
    sweeps: dict[Op, int] = {}
    ready: dict[Value, int] = {}
    for op in function.body.ops:
        sweeps[op] = max((ready.get(v, 0) for v in op.operands), default=0)
        ready.update(dict.fromkeys(op.results, sweeps[op]))
        ready.update(dict.fromkeys(ending(op), sweeps[op] + 1))
    return sweeps


def ending(op: Op) -> Values:
    """The results of an op that exist only when a loop has ended."""
    if isinstance(op, ReduceTile) and time_dims(op.values[0]) & {*op.dims}:
        return op.results
    if isinstance(op, ScanTile) and op.dim in time_dims(op.values[0]):
        return op.totals
    return ()
