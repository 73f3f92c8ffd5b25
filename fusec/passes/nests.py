"""Loop nests: which loops stand around one another, and what each is there for.

    c[i, j] = Σ_k x·y, k in runs of 512:      for k by 512, for j, for i, for k by 1

Where the state of `c` begins, which loops it is combined along, which chunks it has a
state for and where that is finished follows from the loops of its operands and their
order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fusec.analysis.sweeps import Combining, Loop, Loops, along, loops_of, walked
from fusec.ir.core import Monoid, Value
from fusec.ir.layout import LANE, Digit, Layout
from fusec.ir.monoids import monoid
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.ops.tile import Stage, StoreTile
from fusec.ir.types import Tile
from fusec.passes.chunks import chunk_type

Reduction = ReduceTile | DotTile


@dataclass(slots=True, eq=False)
class Nest:
    """What one loop nest is there for."""

    loops: list[Loop]
    """What it walks, outermost first."""
    reductions: list[Reduction] = field(default_factory=list[Reduction])
    scans: list[ScanTile] = field(default_factory=list[ScanTile])
    stores: list[StoreTile] = field(default_factory=list[StoreTile])
    kept: list[Value] = field(default_factory=list[Value])
    stages: list[Stage] = field(default_factory=list[Stage])

    @property
    def sinks(self) -> list[Value]:
        """What has to be computed at every trip."""
        ops = [*self.stores, *self.reductions]
        return [*self.kept, *(v for op in ops for v in op.operands)]

    def start(self, op: Combining) -> int:
        """The loop before which the state of an op begins, by its position."""
        return min(map(self.loops.index, along(op)))

    def inside(self, op: Combining) -> Loops:
        """The loops inside that one which the op does not combine along.

        For each of their chunks there is a state, so memory holds them.
        """
        further = frozenset(self.loops[self.start(op) :])
        return further & walked(op) - along(op)

    def chunks(self, op: Combining) -> list[Loop]:
        """Those loops, from the outermost."""
        inside = self.inside(op)
        return [loop for loop in self.loops if loop in inside]

    def opened(self, k: int) -> list[Reduction | ScanTile]:
        """The ops whose states begin before loop number k."""
        return [op for op in (*self.reductions, *self.scans) if self.start(op) == k]

    def resumed(self, k: int) -> list[Reduction]:
        """The ops with states in memory that combine in registers from loop k on."""
        return [op for op in self.reductions if self.inside(op) and self.run(op) == k]

    def run(self, op: Combining) -> int:
        """The loop from which on there are none but those that an op combines along."""
        return 1 + max(map(self.loops.index, self.inside(op)))

    def is_split(self, k: int) -> bool:
        """Whether loops inside walk what there is of each chunk of loop number k."""
        return any(loop.dim == self.loops[k].dim for loop in self.loops[k + 1 :])

    def finishes(self, op: Combining) -> bool:
        """Whether what an op comes to in runs is finished where the last run ends: then
        what follows need not go by way of memory."""
        if not isinstance(op, DotTile) or not self.inside(op):
            return False
        run = self.run(op)
        outer = [k for k in range(run) if self.loops[k] in along(op)]
        short = (self.loops[k].step == 1 or self.is_split(k) for k in outer)
        return run < len(self.loops) and all(short)

    def ends(self, k: int) -> bool:
        """Whether the last trip of loop number k finishes something."""
        ops = (op for op in self.reductions if self.loops[k] in along(op))
        return any(self.finishes(op) and k < self.run(op) for op in ops)

    def staged(self, k: int) -> list[Stage]:
        """What is made before loop number k: the first that does not walk it, in steps
        as it is made in. Where there is none, that is inside all of them."""
        found: list[Stage] = []
        for op in self.stages:
            shared = loops_of(op.x) & loops_of(op.result)
            places = (n for n, loop in enumerate(self.loops) if loop not in shared)
            if next(places, len(self.loops)) == k:
                found.append(op)
        return found


def monoid_of(op: Reduction) -> Monoid:
    """What an op combines with."""
    return monoid("sum", op.state.dtype) if isinstance(op, DotTile) else op.monoid


def inexact(nest: Nest) -> list[ReduceTile]:
    """The reductions whose error grows with the number of elements, but for products:
    their schedules bound it."""
    found = (op for op in nest.reductions if isinstance(op, ReduceTile))
    return [op for op in found if op.monoid.rounds]


def in_register(op: DotTile) -> Tile:
    """The type of a product's state in registers: where x and y have lanes along what
    is summed over, each lane adds up its own, but for narrow factors, which an
    instruction adds up itself."""
    state = chunk_type(op.state.type)
    assert state.layout is not None
    if op.x.dtype is not op.state.dtype:
        return state
    own: dict[int, tuple[Digit, ...]] = {}
    for part in (op.x, op.y):
        assert isinstance(part.type, Tile)
        assert part.type.layout is not None
        for d in op.dims:
            lanes = tuple(g for g in part.type.layout.dims[d] if g.axis == LANE)
            own.update({d: lanes} if lanes else {})
    if not own:
        return state
    layout = Layout([own.get(d, g) for d, g in enumerate(state.layout.dims)])
    return Tile(state.dtype, layout.shape, layout)
