"""Schedules of blocks, for processors whose compiler shares a block out to threads.

    %y = region(%x) over i:4096, j:1000 { … reduce j … store %y [i, j] }

    grid   i in 1s                  one program for each row
    tile   j = reg 1024             which it holds as one block, a power of two long

A program holds what it sweeps, if that is known and short enough; a longer row it walks
block by block. Blocks have whole lines of memory, along the axis that most accesses
count along one by one; where some count along another, they are squares. Short axes
share a program with what lies around them. Which extents fill a block well, how many
warps take part and what that costs is told by the size of the block alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from fusec.analysis.accesses import Accesses
from fusec.analysis.affine import axes_of
from fusec.analysis.block_products import multiplies, power, product_blocks, split
from fusec.analysis.contraction import contraction
from fusec.analysis.cost import Work, likely, weigh
from fusec.analysis.schedule import Schedule
from fusec.ir.dims import Dim, Symbol, product
from fusec.ir.ops.loop import Write
from fusec.ir.types import Axis
from fusec.target import Target

ELEMENTS = 1024
"""Elements of a block: eight for each of the threads of four warps."""
HELD = 8192
"""Elements of the longest row that a program holds at once."""
WALKED = 2048
"""Elements of a block of a longer row."""
SQUARE = 32
"""Elements along each side of a block that is transposed."""
TURNED = 4
"""How many times as much is moved along another axis before squares do not pay."""
COLUMNS = 64
"""Columns of a block whose rows are reduced: lines of memory."""
WARPS = (1, 8)
"""Warps of a program, at least and at most."""
EACH = 8
"""Elements for each thread."""


def blocks(accesses: Accesses, target: Target, hints: Mapping[Symbol, int]) -> Schedule:
    """The schedule of a region in blocks."""
    c = contraction(accesses)
    if c is not None and c.along is None and multiplies(c, target):
        return product_blocks(c, accesses, target, hints)
    return _Blocks(accesses, target, hints).schedule()


def block_work(
    accesses: Accesses, schedule: Schedule, hints: Mapping[Symbol, int]
) -> Work:
    """What a region does in blocks, places that do not exist included."""
    waste = 1.0
    for each in schedule.tile:
        extent = max(1, likely(each.extent, hints))
        waste *= likely(each.trips, hints) * each.chunk / extent
    operations = 0.0
    for op in accesses.region.body.ops:
        axes = accesses.merged(
            a for v in (*op.operands, *op.results) for a in axes_of(v)
        )
        operations += weigh(op) * likely(product(a.extent for a in axes), hints)
    moved, programs = likely(accesses.bytes, hints), likely(schedule.programs, hints)
    return Work(moved, 0, operations * waste, programs)


class _Blocks:
    """The choice for one region."""

    def __init__(
        self, accesses: Accesses, target: Target, hints: Mapping[Symbol, int]
    ) -> None:
        self.accesses = accesses
        self.target = target
        self.hints = hints

    def schedule(self) -> Schedule:
        """Blocks of all that is swept, and of as many free axes as fill them."""
        accesses = self.accesses
        extents: dict[Axis, int] = {}
        if accesses.swept:
            self.sweep(extents)
        for axis in self.free():
            self.fill(extents, axis)
        return self.made(extents)

    def sweep(self, extents: dict[Axis, int]) -> None:
        """How much of each swept axis is in a block: all of the inner ones, as far as a
        program can hold them."""
        swept = self.accesses.swept
        inner = max(swept, key=self.contiguous)
        down = self.columns()
        order = [inner, *(a for a in reversed(swept) if a is not inner)]
        room = HELD if down is None else ELEMENTS // COLUMNS
        held = all(isinstance(a.extent, int) for a in swept)
        whole = prod(power(self.size(a.extent)) for a in swept)
        if not held or whole > room:
            room = min(room, WALKED)
        for axis in order:
            extents[axis] = min(power(self.size(axis.extent)), room)
            room //= extents[axis]
            room = max(1, room)
        if down is not None:
            extents[down] = min(power(self.size(down.extent)), COLUMNS)

    def columns(self) -> Axis | None:
        """The free axis that memory is read along, where rows of it are reduced."""
        swept = max(map(self.contiguous, self.accesses.swept))
        best = max(self.accesses.grid, key=self.contiguous, default=None)
        if best is None or self.contiguous(best) <= swept:
            return None
        return best

    def free(self) -> list[Axis]:
        """The axes that programs share out, those to fill a block with first."""
        grid = self.accesses.grid
        order = sorted(grid, key=lambda a: -self.contiguous(a))
        return order if not self.accesses.swept else [*reversed(grid)]

    def fill(self, extents: dict[Axis, int], axis: Axis) -> None:
        """Put as much of an axis into a block as makes it large enough; a square, where
        another axis of it is counted along one by one as well."""
        if axis in extents:
            return
        room = ELEMENTS // prod(extents.values())
        first = next(iter(extents), None)
        both = first and self.contiguous(first) <= TURNED * self.contiguous(axis)
        if first and both and not self.accesses.swept:
            extents[first] = min(extents[first], SQUARE)
            room = ELEMENTS // prod(extents.values())
        wide = min(power(self.size(axis.extent)), room)
        if wide > 1:
            extents[axis] = wide

    def contiguous(self, axis: Axis) -> int:
        """How many bits are read and written along an axis one by one; stores count
        twice, for those who write wait for lines that they fill."""
        total = 0
        for access in self.accesses.all:
            if access.address.stride(axis) in (1, -1):
                weight = 2 if isinstance(access.op, Write) else 1
                met = self.size(product(a.extent for a in access.address.axes))
                total += weight * met * access.buffer.dtype.bits
        return total

    def size(self, dim: Dim) -> int:
        return max(1, likely(dim, self.hints))

    def made(self, extents: Mapping[Axis, int]) -> Schedule:
        """The schedule with blocks of these extents, dimensions in memory's order."""
        accesses = self.accesses
        tile = tuple(
            split(axis, extents[axis], axis in accesses.swept)
            for axis in accesses.axes
            if axis in extents
        )
        grid = tuple(axis for axis in accesses.grid if axis not in extents)
        warps = _warps(prod(extents.values()), self.target)
        return Schedule(grid, tile, warps=warps)


def _warps(elements: int, target: Target) -> int:
    least, most = WARPS
    return max(least, min(most, elements // (target.lanes(32) * EACH)))
