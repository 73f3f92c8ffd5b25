"""The layouts that compilers start from: strided memory and tiles split over axes."""

from __future__ import annotations

from collections.abc import Sequence

from fusec.ir.dims import Dim
from fusec.ir.layout.core import Layout, coordinate_axes
from fusec.ir.layout.digits import MEM, Digit, Digits

Splits = Sequence[Sequence[tuple[str, Dim]]]


def identity(shape: Sequence[int]) -> Layout:
    """The layout whose places are the coordinates: the unit of composition."""
    return Layout(
        [
            (Digit(size, 1, axis),) if size > 1 else ()
            for size, axis in zip(shape, coordinate_axes(len(shape)), strict=True)
        ],
        shape,
    )


def strided(shape: Sequence[Dim], strides: Sequence[Dim], bits: int) -> Layout:
    """Memory whose strides count elements of `bits` bits, as torch's do."""
    sized = zip(shape, strides, strict=True)
    return Layout([_strided_dim(n, stride * bits) for n, stride in sized], shape)


def _strided_dim(size: Dim, stride: Dim) -> Digits:
    return () if size in (0, 1) or stride == 0 else (Digit(size, stride, MEM),)


def row_major(shape: Sequence[Dim], bits: int) -> Layout:
    """Dense memory, the last dimension contiguous, elements of `bits` bits."""
    strides: list[Dim] = []
    count: Dim = 1
    for size in reversed(shape):
        strides.append(count)
        count = count * (size if size != 0 else 1)
    return strided(shape, strides[::-1], bits)


def tile_layout(shape: Sequence[Dim], splits: Splits) -> Layout:
    """A tile, each dimension split over axes: (axis, extent) pairs, major to minor.

    The last dimension is the minor one on every axis: its registers, lanes and
    times are numbered first. An extent of 1 needs no digit. A row of 229 that four
    registers of 16 lanes sweep four times:

        >>> splits = [("reg", 2)], [("time", 4), ("reg", 4), ("lane", 16)]
        >>> print(tile_layout((2, 229), splits))
        (2:reg@4, 4:time 4:reg 16:lane < 229)
    """
    counts: dict[str, Dim] = {}
    dims: list[Digits] = []
    for split in reversed(splits):
        digits: list[Digit] = []
        for axis, size in reversed(split):
            if size == 1:
                continue
            digits.append(Digit(size, counts.get(axis, 1), axis))
            counts[axis] = counts.get(axis, 1) * size
        dims.append(tuple(reversed(digits)))
    return Layout(reversed(dims), shape)
