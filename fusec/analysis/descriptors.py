"""Which factors of a product can be brought by tensor descriptors.

    %x [i, k] of bf16, i:4000, k:2000      rows are 4000 bytes apart, 250 times 16:
                                           a descriptor of 128 rows by 2000 columns,
                                           of which blocks of 128 by 32 are brought

A descriptor is what a GPU's copying hardware is told of a matrix: where it begins, its
extents and strides. Then one thread asks for a block, whose elements come to shared
memory, with zeros in place of those that lie beyond the extents: no thread computes
addresses or masks, or has elements in registers. Every program makes descriptors of its
own part of a matrix, and so of one matrix of a batch, in scratch memory.

Hardware asks for much: elements in a row along one dimension, all else at multiples of
16 bytes, blocks of at most 256 by 256 elements. Factors that are computed, or masked,
are loaded.
"""

from __future__ import annotations

from fusec.analysis.accesses import Access, Accesses
from fusec.analysis.schedule import Schedule, Split
from fusec.ir.core import Function, walk
from fusec.ir.dims import Dim, Facts
from fusec.ir.ops.loop import Load
from fusec.ir.ops.tile import DESCRIPTOR, FetchTile
from fusec.target import Target

UNIT = 16
"""Bytes at whose multiples matrices and their rows begin; a row of a block has no
fewer."""
LONGEST = 256
"""Elements along a side of a block, at most."""
FARTHEST = 1 << 31
"""Elements along a side of a matrix, fewer than those."""
SHARE = 32
"""A program writes so many times as many bytes as its descriptors take, at least: so
scratch memory is a small part of what results take, whatever the sizes."""


def may_describe(schedule: Schedule, accesses: Accesses, target: Target) -> bool:
    """Whether to think of descriptors: there are factors for them if sizes that are not
    known are as good as can be."""
    if schedule.dot is None or not target.has("descriptors"):
        return False
    found = fetched(schedule, accesses, None)
    rows, columns = schedule.tile[0].chunk, schedule.tile[-1].chunk
    written = rows * columns * _narrowest(accesses) // 8
    return bool(found) and SHARE * DESCRIPTOR * len(found) <= written


def fetched(
    schedule: Schedule, accesses: Accesses, facts: Facts | None
) -> list[Access]:
    """The loads of factors that descriptors can replace; without facts, those that some
    sizes do not rule out."""
    dot, unit = schedule.dot, schedule.instruction
    if dot is None or unit is None:
        return []
    factors = {*dot.narrow.values()}
    return [
        access
        for access in accesses.all
        if isinstance(access.op, Load)
        and access.op.result in factors
        and access.buffer.dtype is unit.factor
        and not access.op.masked
        and not access.computed
        and _fits(access, schedule, accesses, facts)
    ]


def _fits(
    access: Access, schedule: Schedule, accesses: Accesses, facts: Facts | None
) -> bool:
    """Whether what a load reads is a matrix as hardware wants it."""
    address, width = access.address, access.buffer.dtype.itembytes
    held = accesses.merged(access.op.result.axes)
    sides = [split for split in schedule.tile if split.axis in held]
    inner = [split for split in sides if address.stride(split.axis) == 1]
    if len(sides) != 2 or len(inner) != 1:
        return False
    (row,) = inner
    if not all(_is_side(split, accesses, facts) for split in sides):
        return False
    strides = [stride for axis, stride in address.terms if axis is not row.axis]
    begins = [address.const]
    if row.blocked and isinstance(row.axis.extent, int):
        begins.append(row.axis.extent)  # the last block may begin early
    return (
        row.chunk * width >= UNIT
        and all(_is_whole(n * width, facts) for n in (*strides, *begins))
        and all(_is_at_least(1, stride, facts) for stride in strides)
    )


def _is_side(split: Split, accesses: Accesses, facts: Facts | None) -> bool:
    """Whether a dimension of the tile can be a side of blocks of a matrix."""
    if split.run is not None or not 1 < split.chunk <= LONGEST or split.extent == 1:
        return False
    walked = split.axis in accesses.swept
    return not walked or _is_at_least(split.extent, FARTHEST - 1, facts)


def _is_whole(nbytes: Dim, facts: Facts | None) -> bool:
    if isinstance(nbytes, int):
        return nbytes % UNIT == 0
    return facts is None or facts.divides(UNIT, nbytes)


def _is_at_least(low: Dim, high: Dim, facts: Facts | None) -> bool:
    if isinstance(low, int) and isinstance(high, int):
        return low <= high
    return facts is None or facts.proves_le(low, high)


def _narrowest(accesses: Accesses) -> int:
    """Bits of an element of the narrowest result."""
    stored = [a for a in accesses.all if not isinstance(a.op, Load)]
    return min(a.buffer.dtype.bits for a in stored)


def scratch_at(kernel: Function) -> int | None:
    """Which parameter of a kernel is the scratch memory of its descriptors, if it has
    any."""
    found = {op.scratch for op in walk(kernel.body) if isinstance(op, FetchTile)}
    places = [k for k, param in enumerate(kernel.params) if param in found]
    return next(iter(places), None)


def descriptor_bytes(kernel: Function) -> int:
    """Scratch memory for the descriptors of each program."""
    fetched = [op for op in walk(kernel.body) if isinstance(op, FetchTile)]
    return DESCRIPTOR * len(fetched)
