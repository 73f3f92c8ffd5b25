"""How often a kernel walks its tiles: loops, and the sweeps that they make.

    %x = load_tile : tile<[1000], 16:time 4:reg 16:lane>      sweep 0
    %s = reduce_tile %x sum                                   sweep 0, ends it
    %y = sub %x, %s                                           sweep 1

Each digit on `time` is a loop. What combines along a dimension with loops is known only
when they have ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from fusec.ir.core import Function, Op, Value, Values
from fusec.ir.dims import Dim, evaluate, symbols
from fusec.ir.layout import TIME, Layout
from fusec.ir.layout.digits import Digit
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.types import Tile

SAMPLE = (1 << 20) + 7
"""A size to compare strides at that are not known: larger ones are so at most sizes."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A time digit: a loop over a dimension, `step` elements at each trip."""

    dim: int
    step: int


Loops = frozenset[Loop]


def loops_of(value: Value) -> Loops:
    """The loops that walk a value."""
    if not isinstance(value.type, Tile) or value.type.layout is None:
        return frozenset()
    return frozenset(_strides(value.type.layout))


@lru_cache(maxsize=1024)
def _strides(layout: Layout) -> dict[Loop, Dim]:
    """The stride in time of every loop that walks a layout."""
    found: dict[Loop, Dim] = {}
    for dim, digits in enumerate(layout.dims):
        step: Dim = 1
        for digit in reversed(digits):
            if digit.axis == TIME:
                assert isinstance(step, int)
                found[Loop(dim, step)] = digit.stride
            step = step * digit.extent
    return found


class Order:
    """Which loops of a kernel stand around which: those whose strides are larger."""

    def __init__(self, function: Function) -> None:
        self._rank: dict[Loop, int] = {}
        for op in function.body.ops:
            for value in op.results:
                if isinstance(value.type, Tile) and value.type.layout is not None:
                    for loop, stride in _strides(value.type.layout).items():
                        known = self._rank.get(loop, 0)
                        self._rank[loop] = max(known, _sampled(stride))

    def __call__(self, loops: Iterable[Loop]) -> list[Loop]:
        """Loops from the outermost to the innermost."""
        return sorted(loops, key=lambda x: (-self._rank[x], x.dim, -x.step))


def _sampled(stride: Dim) -> int:
    if isinstance(stride, int):
        return stride
    return evaluate(stride, dict.fromkeys(symbols(stride), SAMPLE))


def timed(digits: tuple[Digit, ...]) -> bool:
    """Whether a loop walks a dimension of these digits."""
    return any(digit.axis == TIME for digit in digits)


Combining = ReduceTile | DotTile | ScanTile
"""Ops that combine elements, maybe from one trip of a loop to the next."""


def walked(op: Combining) -> Loops:
    """The loops that walk what an op combines."""
    if isinstance(op, DotTile):
        return loops_of(op.x) | loops_of(op.y)
    return loops_of(op.values[0])


def along(op: Combining) -> Loops:
    """The loops whose trips an op combines."""
    dims = (op.dim,) if isinstance(op, ScanTile) else op.dims
    return frozenset(loop for loop in walked(op) if loop.dim in dims)


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
    if isinstance(op, (ReduceTile, DotTile)) and along(op):
        return op.results
    if isinstance(op, ScanTile) and along(op):
        return op.totals
    return ()
