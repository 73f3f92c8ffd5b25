"""Intervals hold every result of the integers in them."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusec.ir.intervals import Bound, Interval, over, plus, remainder, times

Member = tuple[int, Interval]


@st.composite
def _members(draw: st.DrawFn, least: int = -30) -> Member:
    """An integer, and an interval that holds it and nothing below `least`."""
    value = draw(st.integers(least, 30))
    open_below = st.just(-inf) if least < 0 else st.nothing()
    low: Bound = draw(st.integers(least, value) | open_below)
    high: Bound = draw(st.integers(value, 40) | st.just(inf))
    return value, (low, high)


def _holds(interval: Interval, value: int) -> bool:
    low, high = interval
    return low <= value <= high


@given(_members(), _members())
def test_ring_operations_hold(a: Member, b: Member) -> None:
    (x, of_x), (y, of_y) = a, b
    assert _holds(plus(of_x, of_y), x + y)
    assert _holds(times(of_x, of_y), x * y)


@given(_members(), _members(least=1))
def test_divisions_hold(a: Member, b: Member) -> None:
    (x, of_x), (d, of_d) = a, b
    assert _holds(over(of_x, of_d), x // d)
    assert _holds(remainder(of_x, of_d), x % d)


@pytest.mark.parametrize(
    ("found", "limits"),
    [
        (times((0, inf), (0, 0)), (0, 0)),
        (times((-2, 3), (-5, inf)), (-inf, inf)),
        (over((-7, inf), (2, 3)), (-4, inf)),
        (over((5, 9), (1, inf)), (0, 9)),
        (over((-5, -1), (2, inf)), (-3, -1)),
        (remainder((0, 5), (8, 8)), (0, 5)),
        (remainder((-3, -1), (8, 8)), (5, 7)),
        (remainder((9, 12), (8, 8)), (1, 4)),
        (remainder((0, 20), (8, inf)), (0, 20)),
        (remainder((-inf, inf), (1, 8)), (0, 7)),
    ],
)
def test_limits_are_tight(found: Interval, limits: Interval) -> None:
    assert found == limits


def test_bounds_too_large_for_a_float_stay_exact() -> None:
    huge = 10**400
    assert times((huge, inf), (huge, huge)) == (huge * huge, inf)
    assert plus((huge, inf), (1, 1)) == (huge + 1, inf)
