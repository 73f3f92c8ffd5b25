"""How a product of matrices is cut into blocks for caches, registers and cores.

    s[i, j] = Σ x[i, k]·y[k, j]      a program has a block of i and j, and all of k

    for a run of k                       as long as a packed panel of y fits L1 or L2
      pack x                             the block's rows of that run
      for a panel of j                   a few registers wide
        pack y                           the run of that panel
        for a panel of i                 a few rows high
          for k: sums += x·y             one sum in each lane of rows × registers

These are the five loops around the micro-kernel of K. Goto, R. van de Geijn, 2008:
Anatomy of high-performance matrix multiplication, but for y being packed by the panel,
right before it is read. What is worth packing, the sizes and which factor lies in the
lanes are what the cost model decides, by counting cycles of one core.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from fusec.analysis.accesses import Access, Accesses
from fusec.analysis.contraction import Contraction, contraction
from fusec.analysis.cost import bandwidth, likely
from fusec.analysis.instructions import DotInstruction, instructions
from fusec.analysis.schedule import Ahead, Schedule, Split
from fusec.ir.core import Op, Value
from fusec.ir.dims import Dim, Symbol, ceil_div, exact_div, product
from fusec.ir.dtypes import DType
from fusec.ir.ops.loop import Coordinate, Load, Write
from fusec.ir.types import Axis
from fusec.target import Target

RUN = 320
"""Places of the summed axis in a run, more or less: 20 KB of f32 in panels of 16. So
many additions, or twice that, are made one after the other at most."""
ROWS, COLUMNS = 528, 1040
"""Extents of a program's block: its packed rows fit L2, its sums L3."""
SHORT = (16, 32, 64)
"""Places of a run where rows of y are fetched from far apart."""
PAGE = 4096
"""Bytes apart from which on rows are in pages of their own."""
READ, PACK, PACK_FAR, PACK_ACROSS = 0.5, 2.0, 6.0, 5.0
"""Cycles to read a register of y, and to pack one: from near, from far memory, or where
elements lie across it."""
TRACKED, LOST = ((16, 0.0), (32, 1.0), (64, 1.5)), 5.0
"""Cycles that it is waited for, by how many rows are read side by side."""
CLASH, MISS = 1.5, 0.3
"""Cycles that it takes again for each panel of rows, if its lines share few sets of the
first cache, or just do not fit it."""
WAYS = 8
"""Lines that one set holds."""
WIDTHS = (1, 2, 3, 4)
"""Registers across a panel."""
COPIED = 4
"""Rows, or places of the summed axis, that are packed at each step."""
SETS = 2048
"""Bytes apart at which lines meet in few sets of a cache."""
LATENCY = 4.0
"""Cycles from a sum to the next one in its register."""


class Step(NamedTuple):
    """What a place of the summed axis takes in registers of some width."""

    element: float
    """Cycles that an element of x adds to those of the sums."""
    register: float
    """Cycles that a register of y adds."""
    places: tuple[int, ...]
    """How many places one trip of the innermost loop may have: the first number that
    makes all trips alike."""
    spare: int
    """Registers that have to be free beside a panel's, for what the compiler reads
    ahead of its use: else it keeps sums in memory."""


NARROW, WIDE = Step(0.05, 0.3, (1,), 0), Step(0.2, 0.1, (4, 2, 1), 3)
"""In registers of 256 bits or less, and of 512, as Zen 3 and Sapphire Rapids showed: a
line of memory holds one wide register, so that y is read from the second cache as fast
as from the first, but x, row by row, is not."""
SUM, SUM_FAR = 2.0, 8.0
"""Cycles to bring a register of sums from memory and back, from near and far."""
AGAIN, AGAIN_FAR = 6.0, 18.0
"""Cycles to keep a register of the result and to read it twice, near and far."""
PANEL = 12.0
"""Cycles that a panel takes to begin and end, besides its sums."""
START = 2000.0
"""Cycles that a program, or a core that joins in, costs."""


def blocked(
    c: Contraction, accesses: Accesses, target: Target, hints: Mapping[Symbol, int]
) -> Schedule:
    """The schedule of a product of matrices that takes the fewest cycles."""
    by, block = _best(c, accesses, target, hints)
    return by.schedule(block)


def predicted(
    c: Contraction, accesses: Accesses, target: Target, hints: Mapping[Symbol, int]
) -> float:
    """The seconds that a kernel of it takes: those of its cycles, or of memory."""
    by, block = _best(c, accesses, target, hints)
    moved = likely(accesses.bytes, hints)
    memory = moved / bandwidth(moved, target.cores, target)
    return target.launch + max(by.cycles(block) / target.hertz, memory)


def ranked(
    c: Contraction, accesses: Accesses, target: Target, hints: Mapping[Symbol, int]
) -> list[tuple[float, Schedule]]:
    """The schedules worth trying and their seconds, the fastest first: of each
    instruction, panel, run and packing the fastest extents; and all of the best."""
    moved = likely(accesses.bytes, hints)
    memory = moved / bandwidth(moved, target.cores, target)
    found = _all(c, accesses, target, hints)
    found.sort(key=lambda pair: pair[0].cycles(pair[1]))
    first, seen = _kind(*found[0]), set[tuple[object, ...]]()
    chosen: list[tuple[float, Schedule]] = []
    for by, block in found:
        kind = _kind(by, block)
        if kind == first or kind not in seen:
            compute = by.cycles(block) / target.hertz
            seconds = target.launch + max(compute, memory)
            chosen.append((seconds, by.schedule(block)))
        seen.add(kind)
    return chosen


def _kind(by: _Blocks, block: _Block) -> tuple[object, ...]:
    """All that a choice is but for the extents of a program's block."""
    return by.instruction, replace(block, height=0, width=0)


@dataclass(frozen=True, slots=True)
class Panels:
    """How a factor may lie in memory that is packed before a call:

    [columns / width, places / depth, width, depth], the axes of batches around them.
    """

    width: int
    """Columns of a panel: whole registers."""
    depth: int
    """Places of the sum that lie side by side: those that an instruction adds up."""
    dtype: DType
    """What its instruction takes."""


def packings(
    c: Contraction, accesses: Accesses, target: Target
) -> tuple[Contraction, tuple[Panels, ...]]:
    """The product as it would be cut into blocks, rows told from columns, and the
    panels that its columns may be packed in, before it is."""
    best = _oriented(c, accesses)
    if not target.packs:
        return best, ()
    columns, lanes = best.columns[-1].extent, target.lanes(max(32, c.dtype.bits))
    kinds = [(1, c.dtype)]
    kinds += [(i.depth, i.factor) for i in _instructions(best, accesses, target)]
    widths = [count * lanes for count in WIDTHS]
    whole = [width for width in widths if exact_div(columns, width) is not None]
    return best, tuple(Panels(width, *kind) for kind in kinds for width in whole)


def _best(
    c: Contraction, accesses: Accesses, target: Target, hints: Mapping[Symbol, int]
) -> tuple[_Blocks, _Block]:
    """The fastest choice, of all instructions."""
    found = _all(c, accesses, target, hints)
    return min(found, key=lambda pair: pair[0].cycles(pair[1]))


def _all(
    c: Contraction, accesses: Accesses, target: Target, hints: Mapping[Symbol, int]
) -> list[tuple[_Blocks, _Block]]:
    """The choices of all instructions."""
    best = _oriented(c, accesses)
    choices = [_Blocks(best, accesses, target, hints, None)]
    for each in _instructions(best, accesses, target):
        deep = accesses
        if not _in_groups(best, each):
            deep = accesses.split(best.summed[-1], each.depth)
        again = contraction(deep)
        assert again is not None
        turned = again.products[0].x is not best.products[0].x
        again = again.turned() if turned else again
        choices.append(_Blocks(again, deep, target, hints, each))
    return [(each, block) for each in choices for block in each.all()]


def _oriented(c: Contraction, accesses: Accesses) -> Contraction:
    """The product with the columns where lanes lie best."""
    return min((c, c.turned()), key=lambda each: _scattered(each, accesses))


def _instructions(
    c: Contraction, accesses: Accesses, target: Target
) -> list[DotInstruction]:
    """The dot instructions that can do it: they add up whole groups of places."""
    dtypes = {value.dtype for value in c.narrow.values()}
    inner, ops = c.summed[-1], accesses.region.body.ops
    told_apart = any(
        isinstance(op, Coordinate) and inner in accesses.merged([op.axis]) for op in ops
    )
    if told_apart:
        return []
    first, *others = (instructions(dtype, c.dtype, target) for dtype in dtypes)
    found = [each for each in first if all(each in other for other in others)]
    return [each for each in found if exact_div(inner.extent, each.depth) is not None]


def _in_groups(c: Contraction, instruction: DotInstruction) -> bool:
    """Whether an axis of the sums is what the instruction adds up, and no more."""
    return len(c.summed) > 1 and c.summed[-1].extent == instruction.depth


def _scattered(c: Contraction, accesses: Accesses) -> int:
    """How many stores, then loads, have the columns not in a row."""
    lane = c.columns[-1]
    apart = 0
    for access in accesses.all:
        stride = access.address.stride(lane)
        weight = 16 if isinstance(access.op, Write) else 1
        apart += weight * (stride not in (0, 1))
    return apart


@dataclass(frozen=True, slots=True)
class _Factor:
    """What matters of how one factor lies in memory."""

    along: Dim
    """Stride along the axis of its own, in groups of elements that an instruction
    takes."""
    summed: Dim
    """Stride along the summed axis."""
    bytes: int
    """Size of an element."""
    plain: bool
    """It is just read: neither computed nor cast."""


@dataclass(frozen=True, slots=True)
class _Block:
    """One choice of sizes."""

    rows: int
    """Rows of a panel."""
    vectors: int
    """Registers of a panel's rows."""
    height: int
    """Rows of a program's block, as `width` is its columns."""
    width: int
    run: int
    packed_rows: tuple[bool, ...]
    """Which of the factors with rows are packed."""
    packed_columns: tuple[bool, ...]
    """Which of those with columns."""


class _Blocks:
    """The choices for one product."""

    def __init__(
        self,
        c: Contraction,
        accesses: Accesses,
        target: Target,
        hints: Mapping[Symbol, int],
        instruction: DotInstruction | None,
    ) -> None:
        self.c = c
        self.instruction = instruction
        self.depth = instruction.depth if instruction else 1
        self.count = len(c.products)
        self.accesses = accesses
        self.target = target
        self.lanes = target.lanes(max(32, c.dtype.bits))
        self.figures = WIDE if target.vector_bits == 512 else NARROW
        self.row, self.column = c.rows[-1], c.columns[-1]
        self.over = self._panels()
        summed = c.summed[:-1] if instruction else c.summed
        self.around, self.inner = summed[:-1], summed[-1]

        def size(axes: Iterable[Axis]) -> int:
            return max(1, likely(product(axis.extent for axis in axes), hints))

        self.m, self.n = size([self.row]), size(self.across)
        self.k = size([self.inner])
        self.outer = size(self.around)
        self.chained = self.outer * self.k <= 2 * RUN
        """All that is summed up may be so in one run."""
        tiled = {self.row, self.column, self.over, *c.summed}
        self.grid = tuple(axis for axis in accesses.axes if axis not in tiled)
        self.again = c.along is not None
        """Rows of the result are kept, to be read again with what they come to."""
        self.points = size(self.grid)
        self.xs = [self._factor(x, self.row) for x in c.xs]
        self.ys = [self._factor(y, self.column) for y in c.ys]

    @property
    def across(self) -> tuple[Axis, ...]:
        """The axes that a program's columns lie along."""
        return (self.column,) if self.over is None else (self.over, self.column)

    def _panels(self) -> Axis | None:
        """The axis around the last one of the columns, where that is one panel."""
        outer, extent = self.c.columns[:-1], self.column.extent
        if not outer:
            return None
        fits = (n for n in WIDTHS if n * self.lanes == extent and self.rows(n))
        return outer[-1] if any(fits) else None

    def rows(self, vectors: int) -> int:
        """How many rows a panel may have beside so many registers across: there is
        room for their sums, a register of y for each product, and one of x."""
        across = vectors * self.count
        room = self.target.registers - self.figures.spare - across - 1
        return max(0, room) // across

    def _factor(self, value: Value, own: Axis) -> _Factor:
        loads = _loads(self.accesses, value)
        main = max(loads, key=lambda a: len(a.address.axes), default=None)
        if main is None:
            return _Factor(0, 0, value.dtype.itembytes, False)
        address = main.address
        wanted = self.instruction.factor if self.instruction else self.c.dtype
        held = self.c.narrow[value] if self.instruction else value
        plain = main.op.results == (held,) and held.dtype is wanted
        along, together = address.stride(own), address.stride(self.c.summed[-1])
        if self.instruction and (along, together) == (self.depth, 1):
            along = 1  # as the instruction takes it
        return _Factor(
            along,
            address.stride(self.inner),
            main.buffer.dtype.itembytes,
            plain,
        )

    # The choices

    def all(self) -> Iterator[_Block]:
        for rows, vectors in self.panels():
            for height in self.extents(self.row, self.m, rows, ROWS):
                step = vectors * self.lanes
                for width in self.extents(self.across[0], self.n, step, COLUMNS):
                    for run in self.runs():
                        for packed in (False, True):
                            yield self.block(rows, vectors, height, width, run, packed)

    def panels(self) -> Iterator[tuple[int, int]]:
        """Rows and registers across that leave room for a factor of each."""
        most = ceil_div(self.n, self.lanes)
        assert isinstance(most, int)
        for vectors in WIDTHS:
            whole = self.over is None or vectors * self.lanes == self.column.extent
            if vectors > most or not whole:
                continue
            if vectors == 3 and any(y.along != 1 for y in self.ys):
                continue  # squares are turned by halves, of powers of two
            rows = self.rows(vectors)
            if rows:
                yield min(rows, self.m), vectors

    def extents(self, axis: Axis, size: int, step: int, most: int) -> Iterator[int]:
        """Extents of a program's share of an axis: equal parts, in whole panels."""
        if axis in self.accesses.swept:
            yield size
            return
        fewest = max(1, -(-size // most))
        limit = max(1, size // step)
        for parts in sorted(
            {fewest, fewest + 1, 2 * fewest, 4 * fewest, 4, 8, 2 * self.target.cores}
        ):
            if fewest <= parts <= max(limit, fewest):
                part = -(-size // parts)
                yield min(-(-part // step) * step, size)

    def runs(self) -> Iterator[int]:
        """Parts of the summed axis: few places where rows of y lie far apart."""
        if any(self.is_tracked(y) for y in self.ys):
            yield from (run for run in SHORT if run < self.k)
        if self.k <= 2 * RUN and isinstance(self.inner.extent, int):
            yield self.k
            return
        count = max(1, round(self.k / RUN))
        yield _rounded(self.k / count, 16)

    def is_tracked(self, y: _Factor) -> bool:
        """Whether rows of y come from far memory and lie pages apart: the processor
        fetches only so many of them ahead at a time."""
        step = y.summed * y.bytes if isinstance(y.summed, int) else PAGE
        far = self.k * self.outer * self.n * y.bytes > self.target.l2_bytes
        return y.along == 1 and far and step >= PAGE

    def block(
        self,
        rows: int,
        vectors: int,
        height: int,
        width: int,
        run: int,
        packed: bool,
    ) -> _Block:
        """A choice of sizes; columns that must be packed are so in any case."""
        down, across = -(-height // rows), -(-width // (vectors * self.lanes))
        packed_rows = [across > 1 and self.is_far(x, down) for x in self.xs]
        packed_columns = [
            y.along != 1 or (packed and down > 1) or not (y.plain or down == 1)
            for y in self.ys
        ]
        return _Block(
            rows,
            vectors,
            height,
            width,
            run,
            tuple(packed_rows),
            tuple(packed_columns),
        )

    def is_far(self, x: _Factor, down: int) -> bool:
        """Whether rows are better copied before they are read again and again: where
        they do not lie in a row, fall into the same sets of the cache, or are computed.
        """
        bytes_ = x.along * x.bytes if isinstance(x.along, int) else 1
        return (
            x.summed != self.depth or not x.plain or (bytes_ % SETS == 0 and down > 4)
        )

    # What they cost

    def cycles(self, block: _Block) -> float:
        """Cycles until the last core is done."""
        programs = self.points * -(-self.m // block.height) * -(-self.n // block.width)
        rounds = -(-programs // self.target.cores)
        return rounds * (self.program(block) + START)

    def program(self, block: _Block) -> float:
        """Cycles of one program."""
        k = self.k * self.outer
        runs = -(-self.k // block.run) * (1 if self.chained else self.outer)
        down, rest = divmod(block.height, block.rows)
        across, left = divmod(block.width, block.vectors * self.lanes)
        narrow = -(-left // self.lanes)
        sums = block.height * block.width * self.count * self.c.dtype.itembytes
        far = runs > 1 and sums > self.target.l2_bytes
        total = 0.0
        for columns, vectors in ((across, block.vectors), (1, narrow)):
            for count, rows in ((down, block.rows), (1, rest)):
                if rows and vectors:
                    wide = vectors * self.count
                    ends = self.ends(rows, wide, far)
                    each = k * self.step(rows, wide) + runs * ends
                    total += columns * count * each
        if self.again:
            kept = block.height * block.width / self.lanes * self.count
            near = sums <= self.target.l2_bytes // 2
            total += kept * (AGAIN if near else AGAIN_FAR)
        height = down + bool(rest)
        for y, packed in zip(self.ys, block.packed_columns, strict=True):
            moved = self.moved(y, packed, block.run, height)
            total += k * block.width / self.lanes * moved
        for x, packed in zip(self.xs, block.packed_rows, strict=True):
            moved = PACK if x.summed == self.depth else PACK_ACROSS
            total += k * block.height / self.lanes * moved * packed
        return total

    def moved(self, y: _Factor, packed: bool, run: int, down: int) -> float:
        """Cycles for each register of columns, to fetch it and maybe to pack it."""
        tracked = self.is_tracked(y)
        waiting = next((c for n, c in TRACKED if run <= n), LOST) if tracked else 0.0
        if packed and y.along == 1:
            return waiting + (PACK_FAR if tracked else PACK)
        if packed:
            return PACK_ACROSS
        step = y.summed * y.bytes if isinstance(y.summed, int) else PAGE
        clash = step % SETS == 0 and run > WAYS
        missed = CLASH if clash else MISS if step * run > self.target.l1_bytes else 0.0
        return waiting + READ + missed * down

    def step(self, rows: int, vectors: int) -> float:
        """Cycles for one place of the summed axis."""
        sums = rows * vectors / self.target.vector_pipes
        loads = (rows * len(self.xs) + vectors) / 2
        sums *= self.instruction.operations if self.instruction else 1
        waits = self.figures.element * rows + self.figures.register * vectors
        return max(sums, loads, LATENCY) + waits

    def ends(self, rows: int, vectors: int, far: bool) -> float:
        """Cycles to begin and end a panel: its sums come from memory and go there."""
        return PANEL + (SUM_FAR if far else SUM) * rows * vectors

    # What they come to

    def schedule(self, block: _Block) -> Schedule:
        outer = tuple(Split(axis, axis.extent) for axis in self.around)
        extent = self.inner.extent
        run = None if block.run >= self.k and isinstance(extent, int) else block.run
        tile = (
            _part(self.row, block.height, block.rows, 1),
            *outer,
            Split(self.inner, extent, self.places, 1, run),
            *self.columns(block),
        )
        deep: tuple[Split, ...] = ()
        if self.instruction is not None:
            deep = (Split(self.c.summed[-1], self.depth, 1, self.depth),)
        packing: dict[Value, tuple[Split, ...]] = {}
        for value, x, packed in zip(self.c.xs, self.xs, block.packed_rows, strict=True):
            if packed:
                packing[value] = (*self.rows_packed(tile, x), *deep)
        for value, packed in zip(self.c.ys, block.packed_columns, strict=True):
            if packed:
                packing[value] = (*self.columns_packed(tile), *deep)
        return Schedule(
            self.grid,
            (*tile, *deep),
            ahead=self.ahead(block),
            nest=self.nest(run),
            dot=self.c,
            accesses=self.accesses,
            instruction=self.instruction,
            packing=packing,
        )

    def ahead(self, block: _Block) -> Ahead | None:
        """The next panel of columns, if it is to be brought near while one is
        multiplied by several of rows: where they come from far memory. What is turned
        takes longer for that than the processor needs to fetch it."""
        count = self.k * self.outer * self.n
        far = any(count * y.bytes > self.target.l2_bytes for y in self.ys)
        plain = all(y.along == 1 for y in self.ys)
        if not (far and plain and block.height > block.rows):
            return None
        panels = self.columns(block)[0]
        return panels.axis, panels.chunk

    def columns(self, block: _Block) -> tuple[Split, ...]:
        """A program's columns: one axis of them, or panels."""
        if self.over is None:
            return (_part(self.column, block.width, block.vectors, self.lanes),)
        width = block.vectors * self.lanes
        panel = Split(self.column, width, block.vectors, self.lanes)
        return (_part(self.over, -(-block.width // width), 1, 1), panel)

    @property
    def places(self) -> int:
        """Places of the summed axis that each trip takes: all trips alike."""
        extent = self.inner.extent
        alike = (n for n in self.figures.places if exact_div(extent, n) is not None)
        return next(alike)

    @property
    def depth_dim(self) -> int:
        """The dimension of a tile along which sums are made, the innermost of them."""
        return 1 + len(self.around)

    def nest(self, run: int | None) -> tuple[tuple[int, int], ...]:
        """The loops, from the outermost; those of a run stand in the middle."""
        k = self.depth_dim
        around = [(d, 0) for d in range(1, k)]
        runs, steps = ([], [(k, 0)]) if run is None else ([(k, 0)], [(k, 1)])
        panels = [*((k + 1 + n, 0) for n in range(len(self.across))), (0, 0)]
        if self.chained:
            return (*runs, *panels, *around, *steps)
        return (*around, *runs, *panels, *steps)

    def rows_packed(self, tile: tuple[Split, ...], x: _Factor) -> tuple[Split, ...]:
        """Rows are copied along the summed axis; a square of them at a time, where they
        lie across it."""
        splits, k = [*tile], self.depth_dim
        height = COPIED if x.summed == self.depth else self.lanes
        splits[0] = replace(splits[0], registers=min(height, self.m))
        splits[k] = replace(splits[k], registers=1, lanes=self.lanes)
        return tuple(splits)

    def columns_packed(self, tile: tuple[Split, ...]) -> tuple[Split, ...]:
        """Columns are copied panel by panel, in squares where they lie across it."""
        splits, k = [*tile], self.depth_dim
        squares = any(y.along != 1 for y in self.ys)
        registers = self.lanes if squares else COPIED
        if tile[k].run is None:  # else they divide it
            registers = min(registers, self.k)
        splits[k] = replace(splits[k], registers=registers)
        return tuple(splits)


def _part(axis: Axis, extent: int, registers: int, lanes: int) -> Split:
    """A program's share of an axis."""
    whole = isinstance(axis.extent, int) and axis.extent <= extent
    return Split(axis, axis.extent if whole else extent, registers, lanes)


def _rounded(size: float, step: int) -> int:
    return -(-int(size + 0.999) // step) * step


def _loads(accesses: Accesses, value: Value) -> list[Access]:
    """The loads that a value is computed from."""
    made: dict[Value, Op] = {
        v: op for op in accesses.region.body.ops for v in op.results
    }
    found: dict[int, Access] = {}
    seen: set[Value] = set()
    stack = [value]
    while stack:
        op = made.get(stack.pop())
        if op is None or op.results[0] in seen:
            continue
        seen.add(op.results[0])
        if isinstance(op, Load):
            found[id(op)] = accesses.of(op)
        stack.extend(op.operands)
    return list(found.values())
