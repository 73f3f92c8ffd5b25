"""Products of matrices in blocks, for GPUs: sides, steps and stages by predicted time.

    a program has 128 rows and 256 columns of the sums, and walks the summed axis

    for a step of 64, three under way       64·(128 + 256) elements come from the caches
        sums += x·y                         tensor cores add up 128·256·64 products

What a core takes for a step is the longest of three: to multiply, to bring the factors
from the second-level cache, and to wait for memory, which the stages under way share.
Programs come in waves, as many as the cores have room for; the last one takes as long
as a full one. Before its first step a program waits for memory once, after its last it
writes. All of it takes no less than memory does to give every element once.

The terms are those by which analytical choices come within 5% or so of the best that
exhaustive search finds; rates and latencies are the target's, or below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product as pairs
from math import prod, sqrt

from fusec.analysis.accesses import Accesses
from fusec.analysis.contraction import Contraction
from fusec.analysis.cost import bandwidth, likely
from fusec.analysis.instructions import DotInstruction, instructions
from fusec.analysis.schedule import Schedule, Split
from fusec.ir.dims import Symbol, product
from fusec.ir.types import Axis
from fusec.target import Target

LEAST, LEAST_BITS = 16, 256
"""Extents of the smallest factors that a tensor core takes, and bits of what it sums up
of each row at a time."""
SIDES = (16, 32, 64, 128, 256)
"""Rows and columns of a program's sums."""
MOST_AREA = 128 * 256
"""Sums of a program: with 256 threads they take half of the registers."""
STEPS, STEPS_OF_VECTORS = (32, 64, 128), (16, 32)
"""Elements of the summed axis in a step; vector units keep both factors of one in
registers."""
STAGES = (1, 2, 3, 4)
"""Steps whose factors are under way at a time."""
RESERVED = 3 << 10
"""Bytes of a program's shared memory for what else needs some."""
WARPS = (4, 8)
"""Warps of a program: it takes four to feed a tensor core of Hopper."""
EACH = 64
"""Sums for each thread, more or less."""
BESIDE = 48
"""Registers of a thread besides its sums."""
TOGETHER = 0.6
"""The share of what programs ask of the second-level cache that it has to give: cores
which work on the same rows or columns ask for them at about the same time."""
HELD = 64
"""Sums of a thread at which vector units multiply as fast as shared memory feeds them:
each element that is read is multiplied by as many as are held along a side."""
NARROW, SHARE = 64, 0.6
"""Rows and columns below which tensor cores do so much of what they could."""
OURS = 0.85
"""What Triton's products reach of the vendor's library."""


def product_blocks(
    c: Contraction, accesses: Accesses, target: Target, hints: Mapping[Symbol, int]
) -> Schedule:
    """The schedule of a product that is predicted to take the least time; of those that
    take as long, the one that asks the caches for the least."""
    found = _Products(c, accesses, target, hints)

    def price(schedule: Schedule) -> tuple[float, float]:
        return float(f"{found.seconds(schedule):.2g}"), found.asked(schedule)

    return min(found.all(), key=price)


def block_seconds(
    c: Contraction,
    accesses: Accesses,
    target: Target,
    hints: Mapping[Symbol, int],
    schedule: Schedule | None = None,
) -> float:
    """The seconds that a product takes, by its own schedule or another one."""
    if schedule is None:
        schedule = product_blocks(c, accesses, target, hints)
    return _Products(c, accesses, target, hints).seconds(schedule)


def multiplies(c: Contraction, target: Target) -> bool:
    """Whether there are units that multiply matrices of these, or floats as wide as the
    sums."""
    return c.dtype.is_float or _unit(c, target) is not None


def _unit(c: Contraction, target: Target) -> DotInstruction | None:
    """What multiplies the factors, as narrow as they are."""
    dtypes = {value.dtype for value in c.narrow.values()}
    first, *others = (instructions(dtype, c.dtype, target) for dtype in dtypes)
    return next((i for i in first if all(i in other for other in others)), None)


class _Products:
    """The choices for one product."""

    def __init__(
        self,
        c: Contraction,
        accesses: Accesses,
        target: Target,
        hints: Mapping[Symbol, int],
    ) -> None:
        assert target.gpu is not None
        self.c = c
        self.accesses = accesses
        self.target = target
        self.core = target.gpu
        self.hints = hints
        self.unit = _unit(c, target)
        self.row, self.column, self.inner = c.rows[-1], c.columns[-1], c.summed[-1]
        self.bits = max(value.dtype.bits for value in c.narrow.values())

    # The choices

    def all(self) -> Iterator[Schedule]:
        """Blocks that registers and shared memory have room for, the smaller ones
        first; there is one at least."""
        area = max(LEAST * LEAST, self.area())
        for high, wide in pairs(self.sides(self.row), self.sides(self.column)):
            if high * wide > area:
                continue
            for step in self.steps():
                fitting = [n for n in STAGES if self.fits(high, wide, step, n)]
                for stages in fitting or STAGES[:1]:
                    yield self.made(high, wide, step, stages)

    def area(self) -> int:
        """Sums of each product, at most: several leave room for what becomes of them
        together, vector units for the factors of a step."""
        count = len(self.c.products)
        alone = MOST_AREA if self.unit else MOST_AREA // 4
        return alone if count == 1 else alone // (2 * count)

    def sides(self, axis: Axis) -> list[int]:
        """Extents that are no longer than it takes to have all of an axis."""
        whole = max(LEAST, power(self.size([axis])))
        return [side for side in SIDES if side <= whole]

    def steps(self) -> list[int]:
        """Parts of the summed axis, likewise."""
        least = max(LEAST, LEAST_BITS // self.unit.factor.bits if self.unit else 0)
        whole = max(least, power(self.size([self.inner])))
        steps = STEPS if self.unit else STEPS_OF_VECTORS
        steps = steps if self.unit or len(self.c.products) == 1 else steps[:1]
        return [step for step in steps if least <= step <= whole] or [least]

    def fits(self, high: int, wide: int, step: int, stages: int) -> bool:
        """Whether a program may have so much shared memory."""
        room = self.core.shared_of_program - RESERVED
        return stages * self.trip(high, wide, step) <= room

    def trip(self, high: int, wide: int, step: int) -> int:
        """Bytes of the factors of a step."""
        rows, columns = high * len(self.c.xs), wide * len(self.c.ys)
        return step * (rows + columns) * self.bits // 8

    def made(self, high: int, wide: int, step: int, stages: int) -> Schedule:
        tiled = {self.row, self.column, *self.c.summed}
        tile = (
            split(self.row, high, False),
            *(Split(axis, axis.extent) for axis in self.c.summed[:-1]),
            split(self.inner, step, True),
            split(self.column, wide, False),
        )
        least, most = WARPS
        sums = high * wide * len(self.c.products)
        warps = max(least, min(most, sums // (self.target.lanes(32) * EACH)))
        return Schedule(
            tuple(axis for axis in self.accesses.axes if axis not in tiled),
            tile,
            dot=self.c,
            accesses=self.accesses,
            instruction=self.unit,
            warps=warps,
            stages=stages,
        )

    # What they cost

    def seconds(self, schedule: Schedule) -> float:
        """Waves of programs, or memory."""
        high, step, wide = (schedule.tile[d].chunk for d in (0, -2, -1))
        programs = likely(schedule.programs, self.hints)
        trips = prod(self.size([axis]) for axis in self.c.summed[:-1])
        trips *= -(-self.size([self.inner]) // step)
        there = self.there(high * wide, self.trip(high, wide, step), schedule)
        waves = -(-programs // (self.target.cores * there))
        sums = high * wide * len(self.c.products)
        multiply = sums * step / self.rate(high, wide)
        if self.unit is None:
            each_thread = sums / (schedule.warps * self.target.lanes(32))
            multiply *= max(1.0, sqrt(HELD / each_thread))
        bring = TOGETHER * self.trip(high, wide, step) / self.target.llc_rate
        wait, ahead = self.target.latency, schedule.stages - 1
        if ahead:
            work = max(trips * there * max(multiply, bring), (trips - 1) * wait / ahead)
        else:  # one after the other, for each program
            alone = trips * (multiply + bring) + (trips - 1) * wait
            work = max(trips * there * (multiply + bring), alone)
        write = there * sums * self.c.dtype.itembytes / self.target.llc_rate
        moved = likely(self.accesses.bytes, self.hints)
        memory = moved / bandwidth(moved, self.target.cores, self.target)
        return self.target.launch + max(waves * (wait + work + write), memory)

    def asked(self, schedule: Schedule) -> float:
        """Bytes that programs ask the second-level cache for."""
        high, step, wide = (schedule.tile[d].chunk for d in (0, -2, -1))
        inner = prod(self.size([axis]) for axis in self.c.summed)
        programs = likely(schedule.programs, self.hints)
        return programs * inner / step * self.trip(high, wide, step)

    def there(self, area: int, trip: int, schedule: Schedule) -> int:
        """How many programs a core has at a time."""
        threads = schedule.warps * self.target.lanes(32)
        each = area * len(self.c.products) // threads + BESIDE
        shared = schedule.stages * trip + self.core.reserved
        rooms = (
            self.core.registers // (each * threads),
            self.core.shared // shared,
            self.core.threads // threads,
            self.core.programs,
        )
        return max(1, min(rooms))

    def rate(self, high: int, wide: int) -> float:
        """Multiply-adds per second of a core."""
        dtypes = {value.dtype.name for value in self.c.narrow.values()}
        (name,) = dtypes if len(dtypes) == 1 else {"f32"}
        rate = dict(self.target.library).get(name, 1.0) * OURS
        if self.unit and min(high, wide) < NARROW:
            rate *= SHARE
        lanes = self.target.lanes(32) * self.target.vector_pipes
        return lanes * rate * self.target.hertz

    def size(self, axes: Iterable[Axis]) -> int:
        return max(1, likely(product(axis.extent for axis in axes), self.hints))


def split(axis: Axis, block: int, swept: bool) -> Split:
    """An axis in blocks: walked by a program, or shared by programs."""
    whole = swept or (isinstance(axis.extent, int) and axis.extent <= block)
    return Split(axis, axis.extent if whole else block, block)


def power(extent: int) -> int:
    """The least power of two that is no less."""
    return 1 << max(0, extent - 1).bit_length()
