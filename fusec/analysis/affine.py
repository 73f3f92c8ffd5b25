"""Questions about affine indices: digits and coverage.

split(64*h + d, (12, 64))       == [h, d]        as h < 12, d < 64
within(2*i + 1, 100)            if i < 50
covers([i, 64*h + d], (5, 768)) if i < 5, h < 12, d < 64
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fusec.ir.core import Affine, Value
from fusec.ir.dims import Dim, exact_div, product
from fusec.ir.types import Axis, Points


def axes_of(value: Value) -> tuple[Axis, ...]:
    """The axes that a value has: none but of points."""
    return value.type.axes if isinstance(value.type, Points) else ()


def index_axes(index: Iterable[object]) -> dict[Axis, None]:
    """The axes that the affine entries of an index walk, in their order."""
    entries = (entry for entry in index if isinstance(entry, Affine))
    return dict.fromkeys(axis for entry in entries for axis in entry.axes)


def split(linear: Affine, extents: Sequence[Dim]) -> list[Affine] | None:
    """An affine number as digits of these extents, where no digit can carry.

    Each term must belong to one digit as a whole: its stride a multiple of what lies
    below the digit, its reach within the digit. None where that is not so.
    """
    digits: list[Affine] = []
    below: Dim = product(extents)
    rest = linear
    for extent in extents:
        above, below = below, _exact(below, extent)
        mine = [(a, s) for a, s in rest.terms if _belongs(s, below, above)]
        digit = Affine(tuple((a, _exact(s, below)) for a, s in mine))
        const = rest.const // below if isinstance(rest.const, int) else 0
        if isinstance(below, int) and const:
            digit = digit + const
        rest = Affine(tuple(t for t in rest.terms if t not in mine), rest.const) + (
            -1 * const * below if const else 0
        )
        if not within(digit, extent):
            return None
        digits.append(digit)
    return None if rest.terms or rest.const != 0 else digits


def _exact(a: Dim, b: Dim) -> Dim:
    quotient = exact_div(a, b)
    assert quotient is not None
    return quotient


def _belongs(stride: Dim, below: Dim, above: Dim) -> bool:
    """Whether a stride steps on the digit between `below` and `above`."""
    if exact_div(stride, below) is None:
        return False
    if isinstance(stride, int) and isinstance(above, int):
        return abs(stride) < above
    return stride != above and exact_div(above, stride) is not None


def within(digit: Affine, extent: Dim) -> bool:
    """Whether a digit is never negative and never reaches its extent."""
    low = high = digit.const
    for axis, stride in digit.terms:
        reach = (axis.extent - 1) * stride
        if isinstance(stride, int) and stride < 0:
            low = low + reach
        else:
            high = high + reach
    if isinstance(low, int) and isinstance(high, int) and isinstance(extent, int):
        return low >= 0 and high < extent
    gap = extent - 1 - high
    return low == 0 and isinstance(gap, int) and gap >= 0


def covers(index: Sequence[Affine], shape: Sequence[Dim]) -> bool:
    """Whether an index meets every element of a shape exactly once."""
    axes = [axis for coord in index for axis in coord.axes]
    if len(set(axes)) != len(axes):
        return False
    return all(
        _counts(turned(coord, extent) or coord, extent)
        for coord, extent in zip(index, shape, strict=True)
    )


def turned(coord: Affine, extent: Dim) -> Affine | None:
    """A coordinate that counts down from the end, as counted from there.

    extent - 1 - (64*h + d)  →  64*h + d        None for one that does not count down.
    """
    if not coord.terms or coord.const != extent - 1:
        return None
    from_end = coord * -1 + (extent - 1)
    down = all(isinstance(s, int) and s < 0 for _, s in coord.terms)
    return from_end if down else None


def _counts(coord: Affine, extent: Dim) -> bool:
    """Whether the terms of a coordinate are digits that count up to its extent."""
    if coord.const != 0:
        return False
    below: Dim = 1
    for axis, stride in sorted(coord.terms, key=lambda t: _rank(t[1])):
        if stride != below:
            return False
        below = below * axis.extent
    return below == extent


def _rank(stride: Dim) -> tuple[int, int, str]:
    """Constants by size, then what is symbolic by its length."""
    if isinstance(stride, int):
        return (0, stride, "")
    return (1, len(stride.terms), str(stride))
