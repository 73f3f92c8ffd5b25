"""Digits: the mixed-radix numerals that layouts are made of, and their arithmetic.

A coordinate below 12 written with digits of extent 3 and 4 (major to minor) is
c = 4*a + b. Each digit has a *weight*, what it counts in the coordinate (here 4
and 1), and a *stride*, what it counts in the place. Everything here is a function
of a tuple of digits alone; `Layout` puts one such tuple on each dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from fusec.ir.dims import Dim, exact_div, product

GRID, TIME, WARP, LANE, REG, MEM = "grid", "time", "warp", "lane", "reg", "mem"
AXES = (GRID, TIME, WARP, LANE, REG, MEM)
_SYMBOLIC_EXTENT = (GRID, TIME, MEM)
_SYMBOLIC_STRIDE = (MEM, TIME, GRID)


class NotRepresentable(Exception):
    """The exact answer exists as no layout, or is not known to. Says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Digit:
    """A value below `extent` that adds `stride` times itself to the place on `axis`.

    The stride of a memory axis counts bits. A stride of 0 is a broadcast: the value
    makes no difference to the place.
    """

    extent: Dim
    stride: Dim
    axis: str

    def __post_init__(self) -> None:
        if not self.axis.isidentifier():
            raise ValueError(f"not the name of an axis: {self.axis!r}")
        if isinstance(self.extent, int):
            if self.extent < 1:
                raise ValueError(f"a digit's extent is at least 1: {self.extent}")
        elif self.axis not in _SYMBOLIC_EXTENT:
            raise NotRepresentable(f"symbolic extent {self.extent} on {self.axis}")
        if isinstance(self.stride, int):
            if self.stride < 0:
                raise ValueError(f"a digit's stride is not negative: {self.stride}")
        elif self.axis not in _SYMBOLIC_STRIDE:
            raise NotRepresentable(f"symbolic stride {self.stride} on {self.axis}")

    @property
    def moves(self) -> bool:
        """Whether the digit makes any difference to the place."""
        return self.extent != 1 and self.stride != 0


Digits = tuple[Digit, ...]


@dataclass(frozen=True, slots=True)
class Shear:
    """Xor `width` bits of a place, from bit `source` up, into those from `target` up.

    The two windows are disjoint, so a shear is its own inverse.
    """

    width: int
    source: int
    target: int
    axis: str = MEM

    def __post_init__(self) -> None:
        if self.width < 1 or min(self.source, self.target) < 0:
            raise ValueError(f"not a window of bits: {self}")
        if abs(self.source - self.target) < self.width:
            raise ValueError(f"the windows of a shear are disjoint: {self}")

    @property
    def top(self) -> int:
        """Places move within aligned blocks of 2**top."""
        return max(self.source, self.target) + self.width

    @property
    def bottom(self) -> int:
        """Aligned runs of 2**bottom places move as one."""
        return min(self.source, self.target)

    def apply(self, place: int) -> int:
        """The place after the shear."""
        return place ^ (place >> self.source & (1 << self.width) - 1) << self.target

    def raised(self, span: int) -> Shear:
        """The shear of places that are scaled by a span."""
        bits = span.bit_length() - 1
        if span != 1 << bits:
            raise NotRepresentable(f"a swizzle of steps of {span}, no power of two")
        return Shear(self.width, self.source + bits, self.target + bits, self.axis)

    def lowered(self, span: int) -> Shear:
        """The shear that `raised` makes this one of."""
        bits = span.bit_length() - 1
        if self.bottom < bits:
            raise NotRepresentable(f"the swizzle looks into the span of {span}")
        return Shear(self.width, self.source - bits, self.target - bits, self.axis)


class Step(NamedTuple):
    """A digit in its position: `weight` is what it counts in the coordinate."""

    digit: Digit
    weight: Dim
    dim: int | None = None  # None: no coordinate feeds it


# ------------------------------------------------------------------ questions


def known(dim: Dim) -> int:
    """The dim as an int. Raises NotRepresentable if it is symbolic."""
    if not isinstance(dim, int):
        raise NotRepresentable(f"{dim} is symbolic: its value is not known")
    return dim


def extent(digits: Digits) -> Dim:
    """How many coordinates the digits tell apart."""
    return product(digit.extent for digit in digits)


def steps(digits: Digits, dim: int | None = None) -> list[Step]:
    """Each digit with its weight, major to minor."""
    result: list[Step] = []
    weight: Dim = 1
    for digit in reversed(digits):
        result.append(Step(digit, weight, dim))
        weight = weight * digit.extent
    return result[::-1]


def values(digits: Digits, coordinate: Dim) -> Iterator[tuple[Digit, Dim]]:
    """Each digit with its value in the coordinate, minor to major."""
    for digit in digits[:0:-1]:
        yield digit, coordinate % digit.extent
        coordinate = coordinate // digit.extent
    if digits:
        yield digits[0], coordinate


def rising(digits: Iterable[Step], axis: str) -> list[Step]:
    """The digits that move on `axis`, by rising stride; they must not overlap.

    Each stride exceeds all that the smaller ones reach together, so a place tells
    every digit's value. Raises NotRepresentable where that cannot be seen.
    """
    found = [s for s in digits if s.digit.axis == axis and s.digit.moves]
    found.sort(key=lambda step: known(step.digit.stride))
    reach = 0
    for digit, _, _ in found:
        if known(digit.stride) <= reach:
            raise NotRepresentable(f"the digits on {axis} overlap at {digit.stride}")
        reach += known(digit.stride) * (known(digit.extent) - 1)
    return found


def ordered(axes: Iterable[str]) -> tuple[str, ...]:
    """Axes in the order of `AXES`, then others by name: d2 before d10."""
    return tuple(sorted(axes, key=_axis_order))


def _axis_order(axis: str) -> tuple[int, int, str]:
    return (AXES.index(axis) if axis in AXES else len(AXES), len(axis), axis)


def peak(weighted: Sequence[tuple[int, int]], limit: int) -> int:
    """The largest sum of value*factor over the coordinates below `limit` > 0.

    `weighted` has (extent, factor) of each digit, major to minor, factors >= 0. The
    best coordinate agrees with the last one, limit - 1, down to some digit, is one
    less there, and has the largest values below.
    """
    rest = [0]  # rest[i]: the most that the i minor digits can give
    for size, factor in reversed(weighted):
        rest.append(rest[-1] + (size - 1) * factor)
    weight = prod(size for size, _ in weighted)
    last, prefix, best = limit - 1, 0, 0
    for i, (size, factor) in enumerate(weighted):
        weight //= size
        value = min(last // weight, size - 1)
        if value > 0:
            below = (value - 1) * factor + rest[len(weighted) - 1 - i]
            best = max(best, prefix + below)
        prefix += value * factor
        last -= value * weight
    return max(best, prefix)


# ------------------------------------------------------------------ rewriting


def merge(digits: Iterable[Digit]) -> Digits:
    """The same function with as few digits as can be; one form for each function.

    Neighbours that count on together become one: 4:reg@2 2:reg@1 -> 8:reg@1.
    """
    result: list[Digit] = []
    for digit in digits:
        if digit.extent == 1:
            continue
        if digit.stride == 0:
            digit = Digit(digit.extent, 0, MEM)  # moves on no axis: name one
        if result and _runs_on(result[-1], digit):
            outer = result.pop()
            digit = Digit(outer.extent * digit.extent, digit.stride, digit.axis)
        result.append(digit)
    return tuple(result)


def _runs_on(outer: Digit, inner: Digit) -> bool:
    return outer.axis == inner.axis and outer.stride == inner.stride * inner.extent


def merge_copies(replicas: Digits) -> Digits:
    """The same set of copies with as few digits as can be, by falling stride."""
    order = sorted(replicas, key=lambda d: (d.axis, -known(d.stride)))
    return merge(order)


def split(digits: Digits, size: Dim) -> tuple[Digits, Digits]:
    """(outer, inner) digits, merged, where the inner ones count exactly `size`."""
    outer, inner = list(merge(digits)), list[Digit]()
    rest = size
    while rest != 1 and outer:
        digit = outer.pop()
        whole = exact_div(rest, digit.extent)
        part = exact_div(digit.extent, rest)
        if whole is not None:
            inner.append(digit)
            rest = whole
        elif part is not None:
            outer.append(Digit(part, digit.stride * rest, digit.axis))
            inner.append(Digit(rest, digit.stride, digit.axis))
            rest = 1
        else:
            break
    if rest != 1:
        shown = " ".join(f"{digit.extent}" for digit in digits) or "1"
        raise NotRepresentable(f"digits of extent {shown} do not split at {size}")
    return tuple(outer), tuple(inner[::-1])


def scaled(digits: Digits, factors: Mapping[str, int]) -> Digits:
    """The digits with the strides of each axis multiplied."""
    return tuple(
        Digit(d.extent, d.stride * factors.get(d.axis, 1), d.axis) for d in digits
    )


def divided(digits: Digits, divisors: Mapping[str, int]) -> Digits:
    """The digits with the strides of each axis divided, exactly."""
    return tuple(
        Digit(d.extent, quotient(d.stride, divisors.get(d.axis, 1)), d.axis)
        for d in digits
    )


def quotient(a: Dim, b: Dim) -> Dim:
    """a / b. Raises NotRepresentable unless the division is exact."""
    result = exact_div(a, b)
    if result is None:
        raise NotRepresentable(f"{a} is no multiple of {b}")
    return result


def grown(digits: Digits, least: Dim) -> Digits:
    """The digits with the outermost one enlarged so that they count `least`."""
    if not digits or extent(digits) == least:
        return digits
    first, *rest = digits
    inner = known(extent(tuple(rest)))
    size = max(known(first.extent), -(-known(least) // inner))
    return (Digit(size, first.stride, first.axis), *rest)


def split_copies(whole: Digits, part: Digits, keep: int) -> Digits:
    """The replicas of a factor: what remains when the other factor's are taken.

    `keep` is 0 for those of the outer factor (`part` being the inner's), 1 for those
    of the inner.
    """
    result: Digits = ()
    merged = merge_copies(whole)
    for axis in sorted({digit.axis for digit in whole}):
        digits = tuple(d for d in merged if d.axis == axis)
        taken = extent(tuple(d for d in part if d.axis == axis))
        inner = taken if keep == 0 else quotient(extent(digits), taken)
        result += split(digits, inner)[keep]
    return result


def bridge(climbed: list[Digit], reached: int, stride: int) -> None:
    """Step over the places from `reached` up to `stride`, which hold nothing."""
    gap, rest = divmod(stride, reached)
    if rest == 0:
        climbed.append(Digit(gap, 0, MEM))
        return
    last = climbed.pop()
    size = quotient(stride * last.extent, reached)  # the last digit counts on
    climbed.append(Digit(size, last.stride, last.axis))


def cancelled(shears: tuple[Shear, ...]) -> tuple[Shear, ...]:
    """Shears without neighbours that undo each other."""
    result: list[Shear] = []
    for shear in shears:
        if result and result[-1] == shear:
            result.pop()
        else:
            result.append(shear)
    return tuple(result)


def regroup(
    old: Sequence[Dim], new: Sequence[Dim]
) -> Iterator[tuple[list[int], list[int]]]:
    """The shortest runs of old and new dimensions that have the same size."""
    i = j = 0
    while i < len(old) and j < len(new):
        left, right = [i], [j]
        a, b = old[i], new[j]
        while a != b:
            if known(a) < known(b):
                left.append(left[-1] + 1)
                a = a * old[left[-1]]
            else:
                right.append(right[-1] + 1)
                b = b * new[right[-1]]
        i, j = left[-1] + 1, right[-1] + 1
        yield left, right
    if i < len(old) or j < len(new):
        yield list(range(i, len(old))), list(range(j, len(new)))
