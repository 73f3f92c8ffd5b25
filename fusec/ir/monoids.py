"""The monoids that reductions combine with, each with its combine as IR.

    sum, prod, max, min       one component; max and min propagate NaN, as torch
    any, all                  bool
    argmax, argmin            (value, index): the first extreme wins, NaN over all
    lastmax, lastmin          (value, index): the last extreme or NaN wins, in order
    logsumexp                 (max, Σ exp (x − max)): log Σ exp x, the log taken apart
    welford                   (mean, m2, count): Chan's parallel variance

`monoid(name, dtype)` gives one object per name and dtype, so monoids compare by
identity, and a text form `max<f32>` finds the same one again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from fusec.ir.builder import Builder
from fusec.ir.core import Level, Monoid, Value, Values
from fusec.ir.dtypes import DType, i64
from fusec.ir.ops.elementwise import (
    Add,
    And,
    Div,
    Eq,
    Exp,
    Ge,
    Gt,
    IsNan,
    Le,
    Lt,
    Maximum,
    Minimum,
    Mul,
    Not,
    Or,
    Select,
    Sub,
)
from fusec.ir.types import Scalar

Combine = Callable[[Builder, Values, Values], Values]


@cache
def monoid(name: str, dtype: DType) -> Monoid:
    """The monoid of that name over elements of `dtype`.

    Raises `ValueError` for a name that does not exist.
    """
    if name not in MAKERS:
        raise ValueError(f"no monoid {name!r}; there are {', '.join(sorted(MAKERS))}")
    identity, dtypes, combine = MAKERS[name](dtype)
    b = Builder(Level.TILE)
    left = tuple(b.param(Scalar(d), f"a{k}") for k, d in enumerate(dtypes))
    right = tuple(b.param(Scalar(d), f"b{k}") for k, d in enumerate(dtypes))
    function = b.function(name, combine(b, left, right))
    rounds = dtype.is_float and name in ("sum", "prod", "logsumexp", "welford")
    commutes = name not in ("lastmax", "lastmin")
    # ATen's sums begin with 0: of nothing but −0 they are 0.
    start = (0.0,) if dtype.is_float and name == "sum" else ()
    ordered = dtype.is_float and name == "prod"
    full = f"{name}<{dtype.name}>"
    return Monoid(full, identity, function, commutes, rounds, start, ordered)


def combine(b: Builder, m: Monoid, left: Values, right: Values) -> Values:
    """Emit the product of two states."""
    return b.inline(m.combine.body, (*left, *right))


Number = float | int | bool
Parts = tuple[tuple[Number, ...], tuple[DType, ...], Combine]
Maker = Callable[[DType], Parts]


def _single(op: type, identity: Callable[[DType], Number]) -> Maker:
    def make(dtype: DType) -> Parts:
        def emit(b: Builder, left: Values, right: Values) -> Values:
            return (b(op, left[0], right[0]),)

        return (identity(dtype),), (dtype,), emit

    return make


def _lowest(dtype: DType) -> Number:
    return -math.inf if dtype.is_float else dtype.min


def _highest(dtype: DType) -> Number:
    return math.inf if dtype.is_float else dtype.max


def _zero(dtype: DType) -> Number:
    """Of floats −0: with 0, −0 would come to 0."""
    return -0.0 if dtype.is_float else 0


def _one(dtype: DType) -> Number:
    return 1.0 if dtype.is_float else 1


def _arg(better: type, worst: Callable[[DType], Number]) -> Maker:
    def make(dtype: DType) -> Parts:
        def emit(b: Builder, left: Values, right: Values) -> Values:
            keep = _keeps_left(b, better, left, right, dtype)
            return (
                b(Select, keep, left[0], right[0]),
                b(Select, keep, left[1], right[1]),
            )

        return (worst(dtype), i64.max), (dtype, i64), emit

    return make


def _keeps_left(
    b: Builder, better: type, left: Values, right: Values, dtype: DType
) -> Value:
    """Whether the left element wins: it is better, or as good and earlier."""
    (x, i), (y, j) = left, right
    wins = b(better, x, y)
    ties = b(Eq, x, y)
    if dtype.is_float:
        x_nan, y_nan = b(IsNan, x), b(IsNan, y)
        wins = b(Or, wins, b(And, x_nan, b(Not, y_nan)))
        ties = b(Or, ties, b(And, x_nan, y_nan))
    return b(Or, wins, b(And, ties, b(Lt, i, j)))


def _last(as_good: type, worst: Callable[[DType], Number]) -> Maker:
    """Does not commute: of elements that are as good, the right one wins."""

    def make(dtype: DType) -> Parts:
        def emit(b: Builder, left: Values, right: Values) -> Values:
            wins = b(as_good, right[0], left[0])
            if dtype.is_float:
                wins = b(And, wins, b(Not, b(IsNan, left[0])))
                wins = b(Or, wins, b(IsNan, right[0]))
            return (
                b(Select, wins, right[0], left[0]),
                b(Select, wins, right[1], left[1]),
            )

        return (worst(dtype), 0), (dtype, i64), emit

    return make


def _logsumexp(dtype: DType) -> Parts:
    """The largest element, and the sum of exponentials of distances to it: no element
    is lost below a large one, nor do digits go where the logarithm grows. Two
    infinities of one sign are no distance apart."""

    def emit(b: Builder, left: Values, right: Values) -> Values:
        (x, x_sum), (y, y_sum) = left, right
        top = b(Maximum, x, y)
        distance = b(Sub, b(Minimum, x, y), top)
        distance = b(Select, b(Eq, x, y), b.const(0.0, dtype), distance)
        less = b(Lt, x, y)
        lower = b(Mul, b(Select, less, x_sum, y_sum), b(Exp, distance))
        return top, b(Add, b(Select, less, y_sum, x_sum), lower)

    return (-math.inf, 0.0), (dtype, dtype), emit


def _welford(dtype: DType) -> Parts:
    """T. F. Chan, G. H. Golub, R. J. LeVeque, 1979: updating sample variances."""

    def emit(b: Builder, left: Values, right: Values) -> Values:
        (mean_a, m2_a, n_a), (mean_b, m2_b, n_b) = left, right
        n = b(Add, n_a, n_b)
        zero = b.const(0.0, dtype)
        share = b(Select, b(Eq, n, zero), zero, b(Div, n_b, n))
        delta = b(Sub, mean_b, mean_a)
        mean = b(Add, mean_a, b(Mul, delta, share))
        cross = b(Mul, b(Mul, delta, delta), b(Mul, n_a, share))
        return mean, b(Add, b(Add, m2_a, m2_b), cross), n

    return (0.0, 0.0, 0.0), (dtype, dtype, dtype), emit


MAKERS: dict[str, Maker] = {
    "sum": _single(Add, _zero),
    "prod": _single(Mul, _one),
    "max": _single(Maximum, _lowest),
    "min": _single(Minimum, _highest),
    "any": _single(Or, lambda dtype: False),
    "all": _single(And, lambda dtype: True),
    "argmax": _arg(Gt, _lowest),
    "argmin": _arg(Lt, _highest),
    "lastmax": _last(Ge, _lowest),
    "lastmin": _last(Le, _highest),
    "logsumexp": _logsumexp,
    "welford": _welford,
}

VALUES_ONLY = {"lastmax": "max", "lastmin": "min"}
"""What finds the same extremes without their places; of equals, the right one."""
