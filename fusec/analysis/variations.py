"""Schedules that differ in one respect from one that is known to be right.

    grid i     tile j:4096 = 64:time 4:reg 16:lane
      ─▶  2 or 8 registers    4 rows for each program    other blocks, if it has some
          rows fetched from twice as far ahead           results past the caches

What is varied is what no rule of `choices` and `blocks` needs for a result to be right:
how many elements are under way at a time, how many a program has, what is fetched when.
Which axes have lanes, and which are swept, stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import prod

from fusec.analysis.accesses import Accesses
from fusec.analysis.block_products import (
    LEAST,
    LEAST_BITS,
    MOST_AREA,
    RESERVED,
    SIDES,
    STAGES,
    STEPS,
)
from fusec.analysis.blocks import HELD, WARPS
from fusec.analysis.cost import likely
from fusec.analysis.descriptors import may_describe
from fusec.analysis.schedule import Schedule, Split
from fusec.ir.dims import Symbol
from fusec.ir.types import Axis
from fusec.target import Target

MOST_REGISTERS = 16
"""Registers along one dimension of a tile, at most: more would be spilled."""
FACTORS = (2.0, 0.5, 4.0, 0.25)
"""What the extent of a block is varied by."""
ROWS = (4, 16)
"""Rows that a program may have instead of one."""


def variations(
    schedule: Schedule,
    accesses: Accesses,
    target: Target,
    hints: Mapping[Symbol, int],
) -> Iterator[Schedule]:
    """What a schedule becomes by one change. Of products, only those of a GPU's: those
    of a CPU are `blocking`'s."""
    if target.is_gpu:
        yield from _of_blocks(schedule, accesses, target)
        return
    swept = {*accesses.swept}
    for tile in (*_registers(schedule.tile), *_extents(schedule.tile, swept)):
        yield replace(schedule, tile=tile)
    if schedule.tile and swept:
        yield from _rows(schedule)
    yield from _memory(schedule, accesses, target, hints)


# On a CPU


def _registers(tile: tuple[Split, ...]) -> Iterator[tuple[Split, ...]]:
    """Twice or half as many registers along a dimension; a block is no shorter."""
    for d, split in enumerate(tile):
        if d < len(tile) - 1 and split.registers == 1:
            continue  # a loop around, not rows
        for registers in (2 * split.registers, split.registers // 2):
            chunk = registers * split.lanes
            known = split.axis.extent
            fits = not isinstance(known, int) or chunk < known + split.lanes
            if not 1 <= registers <= MOST_REGISTERS or not fits:
                continue
            extent = split.extent
            if split.blocked and isinstance(extent, int):
                extent = _shared(split, max(extent, chunk))
            yield _with(tile, d, replace(split, extent=extent, registers=registers))


def _extents(tile: tuple[Split, ...], swept: set[Axis]) -> Iterator[tuple[Split, ...]]:
    """A longer or shorter part of an axis for each program, in whole chunks."""
    for d, split in enumerate(tile):
        if split.axis in swept or not isinstance(split.extent, int):
            continue
        for factor in FACTORS:
            chunks = max(1, int(split.extent * factor) // split.chunk)
            extent = _shared(split, chunks * split.chunk)
            if extent not in (1, split.extent):  # one is what the grid is for
                yield _with(tile, d, replace(split, extent=extent))


def _shared(split: Split, extent: int) -> int:
    """So long a part of an axis, or all of it where it is no longer."""
    whole = split.axis.extent
    return min(extent, whole) if isinstance(whole, int) else extent


def _rows(schedule: Schedule) -> Iterator[Schedule]:
    """Several points of the innermost axis of the grid for each program."""
    if not schedule.grid:
        return
    *grid, row = schedule.grid
    for count in ROWS:
        if not isinstance(row.extent, int) or row.extent > count:
            tile = (Split(row, count), *schedule.tile)
            yield replace(schedule, grid=tuple(grid), tile=tile)


def _memory(
    schedule: Schedule,
    accesses: Accesses,
    target: Target,
    hints: Mapping[Symbol, int],
) -> Iterator[Schedule]:
    """Fetched from further ahead, or not at all; stores that bypass the caches or not.

    Results that the last cache has room for are read from there by whoever comes next,
    which who measures one kernel does not see: they never bypass it.
    """
    if schedule.ahead is not None:
        axis, far = schedule.ahead
        yield replace(schedule, ahead=(axis, 2 * far))
        yield replace(schedule, ahead=None)
    if schedule.streaming:
        yield replace(schedule, streaming=False)
    elif target.nontemporal and likely(accesses.bytes, hints) > target.llc_bytes // 2:
        yield replace(schedule, streaming=True)


def _with(tile: tuple[Split, ...], d: int, split: Split) -> tuple[Split, ...]:
    return (*tile[:d], split, *tile[d + 1 :])


# On a GPU


def _of_blocks(
    schedule: Schedule, accesses: Accesses, target: Target
) -> Iterator[Schedule]:
    """Blocks twice or half as long, more or fewer warps, more or fewer stages, factors
    brought the other way."""
    swept = {*accesses.swept}
    for d, split in enumerate(schedule.tile):
        for block in (2 * split.registers, split.registers // 2):
            longer = _with(schedule.tile, d, _block(split, block, swept))
            if block and split.registers > 1:
                yield from _fitting([replace(schedule, tile=longer)], target)
    least, most = (4 if schedule.dot else WARPS[0]), WARPS[1]
    for warps in (2 * schedule.warps, schedule.warps // 2):
        if least <= warps <= most:
            yield replace(schedule, warps=warps)
    stages = (schedule.stages + 1, schedule.stages - 1)
    others = (replace(schedule, stages=n) for n in stages if 1 <= n <= STAGES[-1])
    yield from _fitting(others, target)
    if may_describe(schedule, accesses, target):
        yield replace(schedule, descriptors=not schedule.descriptors)


def _block(split: Split, block: int, swept: set[Axis]) -> Split:
    """An axis in other blocks, walked or shared as it was."""
    whole = split.axis.extent
    held = split.axis in swept or (isinstance(whole, int) and whole <= block)
    return Split(split.axis, whole if held else block, block)


def _fitting(schedules: Iterable[Schedule], target: Target) -> Iterator[Schedule]:
    """Those whose blocks registers and shared memory have room for."""
    for schedule in schedules:
        c, unit = schedule.dot, schedule.instruction
        if c is None:
            if prod(split.registers for split in schedule.tile) <= 2 * HELD:
                yield schedule
            continue
        rows, step, columns = (schedule.tile[d].registers for d in (0, -2, -1))
        least = max(LEAST, LEAST_BITS // unit.factor.bits if unit else 0)
        bits = max(value.dtype.bits for value in c.narrow.values())
        trip = step * (rows * len(c.xs) + columns * len(c.ys)) * bits // 8
        sides = LEAST <= min(rows, columns) <= max(rows, columns) <= SIDES[-1]
        area = rows * columns * len(c.products) <= MOST_AREA
        room = schedule.stages * trip <= target.l2_bytes - RESERVED
        if sides and area and room and least <= step <= STEPS[-1]:
            yield schedule
