"""How the axes of a region are spread over programs, loops, registers and lanes.

    %y = region(%x) over i:4096, j:1000 { … reduce j … store %y [i, j] }

    grid   i                    one program for each row
    tile   j = time 16 × reg 4 × lane 16      a program sweeps its row 64 at a time

`grid` axes are those that every store has and nothing reduces. The rest is swept
within a program. Lanes lie along the axis on which most of the memory traffic is
contiguous. The choice depends on shapes and target only, never on threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusec.analysis.accesses import Accesses
from fusec.analysis.cost import likely
from fusec.ir.core import Value
from fusec.ir.dims import Dim, Symbol, ceil_div, product
from fusec.ir.types import Axis
from fusec.target import Target

REGISTERS = 4
"""Registers of one tile: enough independent chains to hide latency."""
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


@dataclass(frozen=True, slots=True)
class Schedule:
    """The whole choice for one region."""

    grid: tuple[Axis, ...]
    """Axes with a program for each point, outermost first."""
    tile: tuple[Split, ...]
    """Dimensions of the tile of a program, outermost first."""
    blocked: bool = False
    """The last dimension of the tile is cut into blocks, a program for each."""
    keep: frozenset[Value] = frozenset()
    """Points that sweeps hand on through scratch memory instead of recomputing."""
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


def choose(accesses: Accesses, target: Target, hints: Mapping[Symbol, int]) -> Schedule:
    """The schedule that is expected to be fast."""
    free = [a for a in accesses.grid if a not in accesses.swept]
    lane = _lane_axis(accesses)
    if lane is None:
        return Schedule(tuple(free), ())
    others = [axis for axis in accesses.swept if axis is not lane]
    lanes = target.lanes(32 if accesses.narrowest < 64 else 64)
    split = _split(lane, lane.extent, lanes, hints)
    blocked = lane in free
    if blocked:
        trips = 1 if others else BLOCK_TRIPS
        if likely(lane.extent, hints) > split.chunk * trips:
            split = _split(lane, split.chunk * trips, lanes, hints)
        else:
            blocked = not isinstance(lane.extent, int)
            extent = lane.extent if not blocked else split.chunk * trips
            split = _split(lane, extent, lanes, hints)
    footprint = likely(accesses.bytes, hints)
    sweeps = [Split(axis, axis.extent) for axis in others]
    return Schedule(
        tuple(axis for axis in free if axis is not lane),
        (*sweeps, split),
        blocked,
        prefetch=footprint > target.l2_bytes,
        streaming=target.nontemporal and footprint > target.l3_bytes,
    )


def _split(axis: Axis, extent: Dim, lanes: int, hints: Mapping[Symbol, int]) -> Split:
    vectors = ceil_div(extent, lanes)
    if isinstance(vectors, int):
        return Split(axis, extent, max(1, min(REGISTERS, vectors)), lanes)
    return Split(axis, extent, REGISTERS, lanes)


def _lane_axis(accesses: Accesses) -> Axis | None:
    """The axis along which most accesses step by one element."""
    best: tuple[float, int, Axis] | None = None
    for order, axis in enumerate(accesses.axes):
        score = sum(_benefit(access.address.stride(axis)) for access in accesses.all)
        if best is None or (score, order) >= best[:2]:
            best = (score, order, axis)
    return best[2] if best else None


def _benefit(stride: Dim) -> float:
    """What lanes along an axis of that stride are worth to one access."""
    if stride == 1:
        return 1.0
    return 0.25 if stride == 0 else -0.5
