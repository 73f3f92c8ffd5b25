"""Interval arithmetic on integers that may be unbounded.

An interval is (lowest, highest), both included.  A bound is an int, however large,
or an infinity; ints are never made floats, so bounds stay exact.

    >>> over((-7, inf), (2, 3))
    (-4, inf)
    >>> remainder((0, 5), (8, 8))
    (0, 5)
"""

from __future__ import annotations

from math import inf
from typing import TypeAlias

Bound: TypeAlias = int | float  # an int, inf or -inf
Interval: TypeAlias = tuple[Bound, Bound]


def plus(a: Interval, b: Interval) -> Interval:
    """Where x + y lies for x in a and y in b."""
    return _sum(a[0], b[0]), _sum(a[1], b[1])


def times(a: Interval, b: Interval) -> Interval:
    """Where x * y lies for x in a and y in b."""
    corners = [_product(x, y) for x in a for y in b]
    return min(corners), max(corners)


def over(numerator: Interval, divisor: Interval) -> Interval:
    """Where x // d lies for d >= 1: monotone in x, and in d for x of one sign."""
    low, high = numerator
    return (
        min(_quotient(low, d) for d in divisor),
        max(_quotient(high, d) for d in divisor),
    )


def remainder(numerator: Interval, divisor: Interval) -> Interval:
    """Where x % d lies for d >= 1."""
    low, high = numerator
    least, most = divisor
    if low >= 0 and high < least:
        return numerator
    if least == most and inf not in (-low, high, most):
        first, last = _quotient(low, most), _quotient(high, most)
        if first == last:  # within one period
            return low - first * most, high - last * most
    top = _sum(most, -1)
    return 0, min(top, high) if low >= 0 else top


def _sum(a: Bound, b: Bound) -> Bound:
    """a + b, never of infinities with opposite signs."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    return b if isinstance(a, int) else a


def _product(a: Bound, b: Bound) -> Bound:
    """a * b with 0 * inf = 0."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    if a == 0 or b == 0:
        return 0
    return inf if (a > 0) == (b > 0) else -inf


def _quotient(x: Bound, d: Bound) -> Bound:
    """x // d for d > 0, and its limit where d grows without end."""
    if not isinstance(x, int):
        return x
    if not isinstance(d, int):
        return -1 if x < 0 else 0
    return x // d
