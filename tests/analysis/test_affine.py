"""Digits and coverage of affine indices, against enumeration."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fusec.analysis.affine import covers, split, within
from fusec.ir.core import Affine
from fusec.ir.dims import Symbol
from fusec.ir.types import Axis

EXTENTS = st.integers(1, 5)
n = Symbol("n")


def values(index: Affine, axes: Sequence[Axis]) -> list[int]:
    """What an index is at every point, in one order of the points."""
    points = product(*(range(axis.extent) for axis in axes))  # type: ignore[arg-type]
    strides = [index.stride(axis) for axis in axes]
    return [
        index.const + sum(s * x for s, x in zip(strides, point, strict=True))
        for point in points
    ]  # type: ignore[return-value]


@st.composite
def affines(draw: st.DrawFn, axes: Sequence[Axis]) -> Affine:
    strides = st.sampled_from([-6, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 20])
    terms = [(axis, draw(strides)) for axis in axes]
    const = draw(st.integers(-3, 12))
    return Affine(tuple((a, s) for a, s in terms if s), const)


@st.composite
def axes_and(draw: st.DrawFn, count: int) -> tuple[list[Axis], list[Affine]]:
    axes = [Axis(name, draw(EXTENTS)) for name in "ijk"[: draw(st.integers(1, 3))]]
    return axes, [draw(affines(axes)) for _ in range(count)]


@given(axes_and(1), st.lists(EXTENTS, min_size=1, max_size=3))
def test_split_gives_the_digits_or_declines(
    drawn: tuple[list[Axis], list[Affine]], extents: list[int]
) -> None:
    axes, (linear,) = drawn
    digits = split(linear, extents)
    if digits is None:
        return
    known = values(linear, axes)
    assert all(0 <= v < prod(extents) for v in known)
    wanted = np.unravel_index(known, extents)
    for digit, want in zip(digits, wanted, strict=True):
        assert values(digit, axes) == list(want)


@given(st.lists(st.integers(2, 4), min_size=1, max_size=3), st.randoms())
def test_split_finds_digits_that_are_there(extents: list[int], random: object) -> None:
    """Row-major counting by axes of the extents themselves, or of their factors."""
    axes = [Axis(f"a{k}", extent) for k, extent in enumerate(extents)]
    linear, below = Affine(), 1
    for axis in reversed(axes):
        linear = linear + Affine(((axis, below),))
        below *= axis.extent  # type: ignore[operator]
    assert split(linear, extents) is not None
    assert split(linear, [prod(extents)]) == [linear]


def test_split_declines_what_carries() -> None:
    i, j = Axis("i", 4), Axis("j", 3)
    assert split(Affine(((i, 1),)), (2, 2)) is None  # i is both digits
    assert split(Affine(((i, 3), (j, 1))), (3, 4)) is None  # 3 does not divide 4
    assert split(Affine(((i, 1), (j, 1))), (6,)) is not None
    assert split(Affine(((i, 1), (j, 1))), (5,)) is None  # reaches 5
    assert split(Affine(((i, 1),), -1), (4,)) is None  # begins below 0


def test_split_of_symbolic_sizes() -> None:
    i, j = Axis("i", n), Axis("j", 64)
    digits = split(Affine(((i, 64), (j, 1))), (n, 64))
    assert digits == [Affine(((i, 1),)), Affine(((j, 1),))]
    assert split(Affine(((i, 1),)), (n, 64)) is None


@given(axes_and(1), st.integers(1, 40))
def test_within_is_never_wrong(
    drawn: tuple[list[Axis], list[Affine]], extent: int
) -> None:
    axes, (index,) = drawn
    if within(index, extent):
        assert all(0 <= v < extent for v in values(index, axes))


@given(st.permutations([2, 3, 4]), st.permutations([1, 2, 3, 4, 6, 8, 12]))
def test_covers_is_never_wrong(extents: list[int], strides: list[int]) -> None:
    """Against enumeration, of one dimension that three axes count together."""
    axes = [Axis(f"a{k}", extent) for k, extent in enumerate(extents)]
    index = Affine(tuple(zip(axes, strides, strict=False)))
    counted = sorted(values(index, axes)) == list(range(24))
    assert covers([index], (24,)) == counted


def test_covers_whole_dimensions() -> None:
    i, h, d = Axis("i", 5), Axis("h", 12), Axis("d", 64)
    row, column = Affine(((i, 1),)), Affine(((h, 64), (d, 1)))
    assert covers([row, column], (5, 768))
    assert not covers([row, column], (5, 769))
    assert not covers([row, row], (5, 5))  # the diagonal
    assert not covers([row + 1, column], (6, 768))
    k = Axis("k", n)
    assert covers([Affine(((k, 64), (d, 1)))], (n * 64,))
    assert not covers([Affine(((k, 1),))], (n + 1,))
