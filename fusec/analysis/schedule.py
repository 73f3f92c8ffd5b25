"""How the axes of a region are spread over programs, loops, registers and lanes.

    %y = region(%x) over i:4096, j:1000 { … reduce j … store %y [i, j] }

    grid   i                    one program for each row
    tile   j = time 16 × reg 4 × lane 16      a program sweeps its row 64 at a time

`grid` axes are those that every store has and nothing reduces. The rest is swept
within a program. For lanes along each axis there is a schedule; the cost model that
fusion asks says which to take. It depends on shapes and target only, never on threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fusec.analysis.accesses import Accesses
from fusec.analysis.cost import Work, likely, seconds, weigh
from fusec.ir.core import Op, Value
from fusec.ir.dims import Dim, Symbol, ceil_div, format_dim, product
from fusec.ir.ops.reduction import Reduce
from fusec.ir.types import Axis, Points
from fusec.target import Target

REGISTERS = 4
"""Registers of one tile: enough independent chains to hide latency."""
GATHER = 6.0
"""Operations that an element costs which does not lie beside its neighbour."""
LANE_FOLD = 12.0
"""Vector operations that fold the lanes of a register into one element."""
PROGRAM = 10.0
"""Vector operations that a program spends before and after its loops."""
BLOCK_TRIPS = 64
"""Trips of the loop of an elementwise program: long enough to hide its start."""


@dataclass(frozen=True, slots=True)
class Split:
    """One dimension of a tile: `extent` elements as time × registers × lanes."""

    axis: Axis
    extent: Dim
    registers: int = 1
    lanes: int = 1

    @property
    def chunk(self) -> int:
        """Elements that one trip of the loop handles."""
        return self.registers * self.lanes

    @property
    def trips(self) -> Dim:
        return ceil_div(self.extent, self.chunk)

    def __str__(self) -> str:
        parts = (("time", self.trips), ("reg", self.registers), ("lane", self.lanes))
        digits = [f"{format_dim(n)}:{axis}" for axis, n in parts if n != 1]
        size = format_dim(self.extent)
        return f"{self.axis.name}:{size} = {' '.join(digits) or '1'}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """The whole choice for one region."""

    grid: tuple[Axis, ...]
    """Axes with a program for each point, outermost first."""
    tile: tuple[Split, ...]
    """Dimensions of the tile of a program, outermost first."""
    blocked: bool = False
    """The last dimension of the tile is cut into blocks, a program for each."""
    prefetch: bool = False
    """Bring the next row near while this one is computed."""
    streaming: bool = False
    """Results bypass the caches."""

    @property
    def programs(self) -> Dim:
        """How many programs a launch runs."""
        counts: Dim = product(axis.extent for axis in self.grid)
        if not self.blocked:
            return counts
        last = self.tile[-1]
        return counts * ceil_div(last.axis.extent, last.extent)

    @property
    def grid_text(self) -> str:
        """The grid for people: `i:64 = 64 programs`."""
        axes = ", ".join(f"{a.name}:{format_dim(a.extent)}" for a in self.grid)
        return f"{axes or 'no axis'} = {format_dim(self.programs)} programs"

    @property
    def tile_text(self) -> str:
        """The tile for people: `j:1000 = 16:time 4:reg 16:lane; prefetched`."""
        marks = {
            "in blocks": self.blocked,
            "prefetched": self.prefetch,
            "stores bypass the caches": self.streaming,
        }
        tile = ", ".join(map(str, self.tile)) or "one element"
        return "; ".join([tile, *(text for text, holds in marks.items() if holds)])

    def __str__(self) -> str:
        return f"grid {self.grid_text}; tile {self.tile_text}"


def choose(accesses: Accesses, target: Target, hints: Mapping[Symbol, int]) -> Schedule:
    """The schedule that the cost model expects to be the fastest."""
    found = [_along(accesses, axis, target, hints) for axis in accesses.axes]
    if not found:
        return Schedule((), ())
    # Of equals the one whose lanes lie along the innermost axis.
    return min(
        reversed(found),
        key=lambda schedule: seconds(work(accesses, schedule, hints), target),
    )


def _along(
    accesses: Accesses, lane: Axis, target: Target, hints: Mapping[Symbol, int]
) -> Schedule:
    """The schedule that has its lanes along one axis."""
    free = accesses.grid
    others = [axis for axis in accesses.swept if axis is not lane]
    lanes = target.lanes(32 if accesses.narrowest < 64 else 64)
    split = _split(lane, lane.extent, lanes)
    blocked = lane in free
    if blocked:
        trips = 1 if others else BLOCK_TRIPS
        block = split.chunk * trips
        blocked = not isinstance(lane.extent, int) or lane.extent > block
        split = _split(lane, block, lanes) if blocked else split
    footprint = likely(accesses.bytes, hints)
    return Schedule(
        tuple(axis for axis in free if axis is not lane),
        (*(Split(axis, axis.extent) for axis in others), split),
        blocked,
        prefetch=footprint > target.l2_bytes,
        streaming=target.nontemporal and footprint > target.l3_bytes,
    )


def _split(axis: Axis, extent: Dim, lanes: int) -> Split:
    vectors = ceil_div(extent, lanes)
    if isinstance(vectors, int):
        return Split(axis, extent, max(1, min(REGISTERS, vectors)), lanes)
    return Split(axis, extent, REGISTERS, lanes)


def work(accesses: Accesses, schedule: Schedule, hints: Mapping[Symbol, int]) -> Work:
    """What a region does under a schedule, waste included.

    Lanes beyond an extent compute for nothing, elements that do not lie in a row are
    fetched one by one, lanes that are reduced are folded in steps, and each program
    takes a while to find its place.
    """
    *_, split = schedule.tile
    lane = split.axis

    def points(axes: Iterable[Axis]) -> int:
        return likely(product(axis.extent for axis in axes), hints)

    used = likely(lane.extent, hints)
    waste = likely(split.trips, hints) * split.chunk / likely(split.extent, hints)
    operations = sum(
        weigh(op) * points(accesses.merged(_axes(op)))
        for op in accesses.region.body.ops
    )
    for access in accesses.all:
        computed = (accesses.merged(_axes_of(value)) for value, _ in access.computed)
        axes = set(access.address.axes).union(*computed)
        alone = access.computed or access.address.stride(lane) != 1
        if lane in axes:
            operations += points(axes) * (GATHER if alone else 1.0)
        else:
            operations += points({*axes, lane}) / used
    programs = likely(schedule.programs, hints)
    folds = programs * LANE_FOLD * split.lanes if lane in accesses.swept else 0.0
    total = operations * waste + folds + programs * PROGRAM * split.lanes
    moved = likely(accesses.bytes, hints)
    return Work(moved, 0, total, programs)


def _axes(op: Op) -> tuple[Axis, ...]:
    """The axes of the points that an op computes at, those it reduces included."""
    values = (*op.operands, *op.results) if isinstance(op, Reduce) else op.results
    return tuple(axis for value in values for axis in _axes_of(value))


def _axes_of(value: Value) -> tuple[Axis, ...]:
    return value.axes if isinstance(value.type, Points) else ()
