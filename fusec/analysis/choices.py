"""Which schedule a region has: the choices that there are, and what each costs.

Axes that every store has and nothing reduces or scans are *free*: programs share them
out, point by point (grid) or in blocks. The others are swept within a program. There is
a schedule for lanes along each axis, and for registers along another one, where that
lets memory be read in whole lines; the cost model that fusion asks says which to take.
Products of matrices are `blocking`'s. It depends on shapes and target only, never on
threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod

from fusec.analysis.accesses import Access, Accesses
from fusec.analysis.affine import axes_of
from fusec.analysis.block_products import block_seconds
from fusec.analysis.blocking import blocked, predicted
from fusec.analysis.blocks import block_work, blocks
from fusec.analysis.coalesce import Extents, coalesced
from fusec.analysis.contraction import Contraction, contraction
from fusec.analysis.cost import Work, combining, likely, seconds, weigh
from fusec.analysis.schedule import Ahead, Schedule, Split
from fusec.ir.core import Op
from fusec.ir.dims import Symbol, ceil_div, product
from fusec.ir.ops.loop import Coordinate
from fusec.ir.ops.reduction import Reduce, Scan
from fusec.ir.types import Axis
from fusec.target import Target

REGISTERS = 4
"""Registers of one tile: enough independent chains to hide latency."""
GATHER = 6.0
"""Operations that an element costs which does not lie beside its neighbour."""
SHUFFLE = 0.7
"""Operations that one step of bringing elements beside one another costs."""
DEAR = 16.0
"""Operations of a combination from which on a scan is worth turning squares for: they
are read and written in rows that lie far apart."""
LANE_FOLD = 12.0
"""Vector operations that fold the lanes of a register into one element."""
ALONE = 8.0
"""Vector operations' worth of an element that is computed by itself."""
PROGRAM = 10.0
"""Vector operations that a program spends before and after its loops."""
BLOCK_TRIPS = 64
"""Trips of the loop of an elementwise program: long enough to hide its start."""
LINE = 64
"""Bytes of a cache line."""
NEAR = 1024
"""Bytes ahead that are fetched along a long row."""
STREAMS = 8
"""Rows that are read side by side where reading is all there is to do: the processor
fetches each ahead by itself, more of them at a time than it would of one."""
LIGHT = 8.0
"""Operations on an element up to which reading it is all there is to do."""
SHARES = 4
"""Programs for each core: enough that none waits long for the last one."""
NARROWEST = 64
"""Columns that a program takes at least, where there are as many."""
SQUARE = 64
"""Elements along each side of a program's part of a matrix that is transposed; where
one side is shorter, the other is longer."""


def choose(accesses: Accesses, target: Target, hints: Mapping[Symbol, int]) -> Schedule:
    """The schedule that the cost model expects to be the fastest."""
    if target.is_gpu:
        return blocks(accesses, target, hints)
    products = contraction(accesses)
    if products is not None:
        return blocked(products, accesses, target, hints)
    return next(iter(ways(accesses, target, hints)), Schedule((), ()))


def ways(
    accesses: Accesses, target: Target, hints: Mapping[Symbol, int]
) -> list[Schedule]:
    """The schedule for each way that lanes and rows can lie on a CPU, the fastest
    first; none for a region without axes."""

    def price(schedule: Schedule) -> tuple[float, float]:
        """What memory hides still takes power, and the price may be wrong."""
        found = work(accesses, schedule, hints)
        return seconds(found, target), found.operations

    found = list(_Choices(accesses, target, hints).all())
    found.reverse()  # of equals first the one whose lanes lie along the innermost axis
    return sorted(found, key=price)


def product_seconds(
    c: Contraction, accesses: Accesses, target: Target, hints: Mapping[Symbol, int]
) -> float:
    """The seconds that a kernel of a product of matrices is predicted to take."""
    if target.is_gpu:
        return block_seconds(c, accesses, target, hints)
    return predicted(c, accesses, target, hints)


class _Choices:
    """The schedules that there are for one region."""

    def __init__(
        self, accesses: Accesses, target: Target, hints: Mapping[Symbol, int]
    ) -> None:
        self.accesses = accesses
        self.target = target
        self.hints = hints
        self.lanes = target.lanes(32 if accesses.narrowest < 64 else 64)
        self.footprint = likely(accesses.bytes, hints)
        ops = accesses.region.body.ops
        self.told_apart = {op.axis for op in ops if isinstance(op, Coordinate)}
        """Axes whose points compute differently, as the parts of a concatenation do."""
        self.dear = {op.axis for op in ops if isinstance(op, Scan) and _is_dear(op)}
        """Axes that are scanned with much to compute at each step."""
        scans = [op for op in ops if isinstance(op, Scan)]
        self.ordered = {op.axis for op in scans if op.monoid.ordered}
        """Axes that are scanned one element after the other."""
        light = sum(map(weigh, ops)) <= LIGHT and not scans and not accesses.again
        beyond = self.footprint > target.l2_bytes
        self.streams = bool(accesses.reduced) and light and beyond
        """Memory is read once, and reduced at once."""

    def all(self) -> Iterator[Schedule]:
        for lane in self.accesses.axes:
            rows = [axis for axis in self.accesses.axes if self.has_rows(axis, lane)]
            # The plain one last: of equals the last is taken.
            for row in (*rows, None):
                yield self.schedule(lane, row)

    def has_rows(self, axis: Axis, lane: Axis) -> bool:
        """Whether registers along an axis spare memory work that lanes along another
        one make.

        Where an access is contiguous along that axis only, or where a column is
        reduced: then several rows are combined before they meet what others gave. A
        scan across lanes takes as many steps as lanes have digits; down a column, one.
        """
        if axis is lane:
            return False
        down = axis in self.accesses.swept and lane in self.accesses.grid
        if down and axis not in self.dear:
            return axis in self.accesses.reduced
        return any(
            a.address.stride(axis) == 1 and lane in a.address.axes
            for a in self.accesses.all
        )

    def schedule(self, lane: Axis, row: Axis | None) -> Schedule:
        """The schedule with lanes along one axis and registers along another."""
        swept, free = self.accesses.swept, self.accesses.grid
        tile: list[Split] = []
        for axis in (a for a in swept if a is not lane and a is not row):
            tile.append(Split(axis, axis.extent))
        if row is not None:
            tile.append(self.row(row, lane))
        tile.append(self.last(lane, row, tile))
        tile = [*self.rows_around(tile, lane), *tile]
        held = {split.axis for split in tile}
        grid = tuple(axis for axis in free if axis not in held)
        abreast = self.streams and (lane in free or self.rows_abreast(lane))
        far = self.footprint > self.target.l2_bytes and not abreast
        bypassing = self.target.nontemporal and self.footprint > self.target.llc_bytes
        return Schedule(
            grid,
            tuple(tile),
            ahead=self.ahead(grid, tile) if far else None,
            streaming=bypassing,
        )

    def rows_around(self, tile: list[Split], lane: Axis) -> list[Split]:
        """Rows that are read side by side, of those that the lanes are reduced of.
        Loops over further axes, the innermost first, where the tile of a program
        would be too small to be worth its start; and few points that compute
        differently, written out, each with what concerns it alone."""
        held = {split.axis for split in tile}
        trips = likely(product(split.trips for split in tile), self.hints)
        around: list[Split] = []
        rows = self.rows_abreast(lane)
        if rows and len(tile) == 1:
            return [self.block(self.whole(rows[-1], STREAMS), SQUARE)]
        if self.accesses.swept:
            return around
        for axis in reversed(self.accesses.axes):
            if axis in held:
                continue
            few = isinstance(axis.extent, int) and axis.extent <= REGISTERS
            if few and axis in self.told_apart:
                split = Split(axis, axis.extent, axis.extent)  # type: ignore[arg-type]
                around.insert(0, split)
            elif trips * 2 <= BLOCK_TRIPS:
                split = self.block(Split(axis, axis.extent), BLOCK_TRIPS // trips)
                around.insert(0, split)
                trips *= likely(split.extent, self.hints)
        return around

    def rows_abreast(self, lane: Axis) -> list[Axis]:
        """The free axes whose points share something that is reduced along with their
        own rows, as those of a matrix share the vector that it is multiplied by."""
        if not self.streams or lane not in self.accesses.reduced:
            return []
        swept = [a.address.axes for a in self.accesses.all if lane in a.address.axes]
        return [
            axis
            for axis in self.accesses.grid
            if axis.extent != 1 and 0 < sum(axis in axes for axes in swept) < len(swept)
        ]

    def ahead(self, grid: Sequence[Axis], tile: Sequence[Split]) -> Ahead | None:
        """What to fetch from far memory meanwhile: the rows that the program walks
        next; further elements of a row that is too long to have the next one fetched;
        or what the program after it begins with."""
        first, last = tile[0], tile[-1]
        if first is not last and first.trips != 1:
            return first.axis, first.chunk
        row = self.column_bytes(last.axis) * likely(last.extent, self.hints)
        if row > self.target.l2_bytes // 2:
            trip = last.chunk * self.accesses.narrowest // 8
            return last.axis, last.chunk * max(1, NEAR // max(1, trip))
        if last.blocked:
            return last.axis, last.extent
        return (grid[-1], 1) if grid else None

    def row(self, row: Axis, lane: Axis) -> Split:
        """The dimension that gives a tile several rows."""
        if row in self.accesses.swept and lane in self.accesses.grid:
            rows = STREAMS if self.streams else REGISTERS
            return self.whole(row, self.lanes if row in self.dear else rows)
        most = max(2, LINE * 8 // self.accesses.narrowest)
        split = self.whole(row, min(most, 16))
        return self.block(split, SQUARE) if row in self.accesses.grid else split

    def last(self, lane: Axis, row: Axis | None, others: list[Split]) -> Split:
        """The dimension along which the lanes lie."""
        rows = others[-1].registers if row is not None else 1
        line = max(1, LINE * 8 // (self.lanes * self.accesses.narrowest))
        most = REGISTERS if rows == 1 else max(1, min(line, REGISTERS // rows))
        if row is not None and row in self.accesses.swept:
            most = 1 if self.streams else line
        if self.rows_abreast(lane):
            most = max(1, LINE * 4 // (self.lanes * self.accesses.narrowest))
        split = self.whole(lane, most, 1 if lane in self.ordered else self.lanes)
        if lane not in self.accesses.grid:
            return split
        if not others:
            return self.block(split, split.chunk * BLOCK_TRIPS)
        if row is not None and row in self.accesses.grid:
            side = likely(others[-1].extent, self.hints)
            return self.block(split, SQUARE * max(1, SQUARE // max(1, side)))
        return self.block(split, self.columns(split))

    def columns(self, split: Split) -> int:
        """How many columns a program sweeps side by side.

        Where the caches hold everything, as many as registers hold. Memory is read
        fastest along rows: there as many as the second-level cache holds, if they are
        swept several times, or the first-level cache holds results of, but no more
        than leaves every core its share.
        """
        accesses, target = self.accesses, self.target
        if self.footprint <= target.l2_bytes:
            return split.chunk
        room = target.l1_bytes // 4 // 8
        if self.streams:  # long runs of a row are worth more than results in L1
            room = target.l2_bytes // 2 // 4
        if accesses.again:
            room = min(room, target.l2_bytes // 2 // self.column_bytes(split.axis))
        others = product(a.extent for a in accesses.grid)
        shares = 1 if self.streams else SHARES
        share = likely(others, self.hints) // (shares * target.cores)
        room = min(room, max(share, NARROWEST))
        return max(1, room // split.chunk) * split.chunk

    def column_bytes(self, lane: Axis) -> int:
        """What a program reads and writes for each element along its lanes."""
        total = 0
        for access in self.accesses.all:
            axes = access.address.axes
            swept = [a.extent for a in self.accesses.swept if a in axes]
            if lane in axes:
                size = likely(product(swept), self.hints)
                total += size * access.buffer.dtype.itembytes
        return max(1, total)

    def whole(self, axis: Axis, registers: int, lanes: int = 1) -> Split:
        """All of an axis, in chunks that are no longer than it is."""
        vectors = ceil_div(axis.extent, lanes)
        if isinstance(vectors, int):
            registers = max(1, min(registers, vectors))
        return Split(axis, axis.extent, registers, lanes)

    def block(self, split: Split, extent: int) -> Split:
        """As many elements for each program, where the axis has more."""
        if isinstance(split.extent, int) and split.extent <= extent:
            return split
        return Split(split.axis, extent, split.registers, split.lanes)


def work(accesses: Accesses, schedule: Schedule, hints: Mapping[Symbol, int]) -> Work:
    """What a region does under a schedule, waste included.

    Lanes beyond an extent compute for nothing, elements that do not lie in a row are
    fetched one by one or moved into place, lanes that are reduced are folded in steps,
    and each program takes a while to find its place. Blocks are shared out evenly.
    """
    if schedule.warps:
        return block_work(accesses, schedule, hints)
    *_, split = schedule.tile
    lane = split.axis

    def points(axes: Iterable[Axis]) -> int:
        return likely(product(axis.extent for axis in axes), hints)

    body = accesses.region.body.ops
    used = max(1, likely(lane.extent, hints))
    waste = 1.0
    if split.lanes == 1 and used > 1:
        waste = ALONE
    for each in schedule.tile:
        extent = likely(each.extent, hints)
        waste *= likely(each.trips, hints) * each.chunk / extent if extent else 1.0
    operations = sum(
        _weight(op, lane) * points(accesses.merged(_axes(op))) for op in body
    )
    for access in accesses.all:
        computed = (accesses.merged(axes_of(value)) for value, _ in access.computed)
        across = {axis for axes in computed for axis in axes}
        axes = across | set(access.address.axes)
        if lane in axes:
            operations += points(axes) * _reach(access, schedule, lane in across)
        else:
            operations += points({*axes, lane}) / used
    programs = likely(schedule.programs, hints)
    folds = programs * LANE_FOLD * split.lanes if lane in accesses.reduced else 0.0
    if lane not in accesses.swept and split.trips != 1:
        operations += sum(_states(op, accesses, schedule, points) for op in body)
    total = operations * waste + folds + programs * PROGRAM * split.lanes
    moved = likely(accesses.bytes, hints)
    return Work(moved, 0, total, programs)


def _weight(op: Op, lane: Axis) -> float:
    """The operations of an element: across lanes, a dear scan combines it once."""
    if isinstance(op, Scan) and op.axis is not lane and _is_dear(op):
        return combining(op.monoid)
    return weigh(op)


def _is_dear(op: Scan) -> bool:
    """Whether there is so much to compute at each step that memory matters less."""
    return combining(op.monoid) >= DEAR


def _states(
    op: Op, accesses: Accesses, schedule: Schedule, points: Callable[..., int]
) -> float:
    """Operations to bring what columns have come to from memory and back, for each
    chunk of rows."""
    if not isinstance(op, (Reduce, Scan)):
        return 0.0
    rows = [s.registers for s in schedule.tile if s.axis in accesses.swept]
    met = points(accesses.merged(_axes(op)))
    return 2.0 * len(op.values) * met / prod(rows)


def _reach(access: Access, schedule: Schedule, across: bool) -> float:
    """Operations that an access costs for each element."""
    *_, split = schedule.tile
    if across:
        return GATHER
    strides = [access.address.stride(each.axis) for each in schedule.tile]
    if strides[-1] in (1, -1):
        return 1.0
    chunk: Extents = [(each.registers, each.lanes) for each in schedule.tile]
    if coalesced(chunk, strides) is None:
        return GATHER
    return 1.0 + SHUFFLE * (split.lanes.bit_length() - 1)


def _axes(op: Op) -> tuple[Axis, ...]:
    """The axes of the points that an op computes at, those it reduces included."""
    values = (*op.operands, *op.results) if isinstance(op, Reduce) else op.results
    return tuple(axis for value in values for axis in axes_of(value))
