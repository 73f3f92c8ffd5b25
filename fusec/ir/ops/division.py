"""Quotients and remainders that are made from the processor's, and reciprocals.

For integers `arithmetic` says what division by zero gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusec.ir.core import Value
from fusec.ir.ops.bitwise import And, Shr
from fusec.ir.ops.encoding import Copysign
from fusec.ir.ops.formula import Term
from fusec.ir.ops.pointwise import (
    Binary,
    Unary,
    dtype_of,
    floating,
    is_number,
    keep,
    numeric,
    overloads,
    power_of_two_exponent,
    where,
)


class FloorDiv(Binary, name="floor_div"):
    """⌊x / y⌋, as Python's `//`: the quotient whose remainder has y's sign.

    Floats: x / 0 is ±inf or NaN as `Div`; NaN for infinite x; 0 and −0 by the sign
    of x / y.
    """

    cost = 20.0
    takes = staticmethod(numeric)
    aten = ("aten.floor_divide.default", "aten.floor_divide.Scalar")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        if np.asarray(x).dtype.kind in "iu":
            return np.floor_divide(x, y)
        mod = np.fmod(x, y)
        apart = (mod != 0) & (np.signbit(mod) != np.signbit(y))
        near = (x - mod) / y - apart.astype(mod.dtype)
        floor = np.floor(near)
        floor = where(near - floor > 0.5, floor + 1, floor)
        floor = where(near == 0, np.copysign(0, x / y), floor)
        return where(y == 0, x / y, floor).astype(mod.dtype)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        if not dtype_of(x).is_int:
            return None
        # x // 1 -> x, of integers
        if is_number(b, y, 1):
            return keep(x, xs)
        # x // 2^k -> x >> k, of integers
        shift = power_of_two_exponent(b, y)
        return b(Shr, x, b.const(shift, dtype_of(x))) if shift else None

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        x, y = (Term(b, v) for v in xs)
        if x.dtype.is_float:
            return _floor_div(x, y).value
        quotient = x.trunc_div(y)
        if not x.dtype.is_signed:
            return quotient.value
        apart = _signs_differ(x - quotient * y, y) & y.differs(0)
        return apart.select(quotient - 1, quotient).value


class Rem(Binary, name="rem"):
    """x − y · ⌊x / y⌋, as Python's `%`: the remainder with y's sign.

    Floats: NaN for infinite x and for y = 0; an exact zero has x's sign; a finite x
    with infinite y is x where the signs agree, else y.
    """

    cost = 10.0
    takes = staticmethod(numeric)
    aten = overloads("remainder")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        if np.asarray(x).dtype.kind in "iu":
            return where(y == 0, x, np.remainder(x, y))
        mod = np.fmod(x, y)
        apart = (mod != 0) & ((mod < 0) != (y < 0))
        return where(apart, mod + y, mod)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x % 2^k -> x & (2^k - 1), of integers
        shift = power_of_two_exponent(b, y)
        if shift is None:
            return None
        return b(And, x, b.const((1 << shift) - 1, dtype_of(x)))

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        x, y = (Term(b, v) for v in xs)
        rest = x.emit(Fmod, y)
        if not x.dtype.is_signed:
            return rest.value
        return _signs_differ(rest, y).select(rest + y, rest).value


class Fmod(Binary, name="fmod"):
    """x − y · trunc(x / y), as C's `%` and `fmod`: the remainder with x's sign.

    Floats: exact; NaN for infinite x and for y = 0; x for infinite y. They have no
    expansion, for that takes a loop as long as the quotient.
    """

    cost = 10.0
    takes = staticmethod(numeric)
    aten = overloads("fmod")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        rest = np.fmod(x, y)
        return where(y == 0, x, rest) if np.asarray(x).dtype.kind in "iu" else rest

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        x, y = (Term(b, v) for v in xs)
        return None if x.dtype.is_float else (x - x.trunc_div(y) * y).value


class Reciprocal(Unary, name="reciprocal"):
    """1 / x, rounded once."""

    cost = 4.0
    takes = staticmethod(floating)
    aten = ("aten.reciprocal.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.ones_like(x) / x

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        x = Term(b, xs[0])
        return (1.0 / x).value


class Rsqrt(Unary, name="rsqrt"):
    """1 / √x in two roundings, as torch: NaN below zero, ±inf at ±0."""

    cost = 5.0
    takes = staticmethod(floating)
    aten = ("aten.rsqrt.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.ones_like(x) / np.sqrt(x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        x = Term(b, xs[0])
        return (1.0 / x.sqrt()).value


def _signs_differ(rest: Term, y: Term) -> Term:
    """Whether a remainder is not 0 and has another sign than the divisor."""
    if rest.dtype.is_float:
        return rest.differs(0.0) & (rest < 0.0).differs(y < 0.0)
    return rest.differs(0) & ((rest ^ y) < 0)


def _floor_div(x: Term, y: Term) -> Term:
    """(x − x mod y) / y is nearly whole; rounding it repairs the division's error."""
    rest = x.emit(Fmod, y)
    near = (x - rest) / y
    near = _signs_differ(rest, y).select(near - 1.0, near)
    floor = near.floor()
    whole = (near - floor > 0.5).select(floor + 1.0, floor)
    quotient = x / y
    zero = near.equals(0.0)
    whole = zero.select(x.like(0.0).emit(Copysign, quotient), whole)
    return y.equals(0.0).select(quotient, whole)
