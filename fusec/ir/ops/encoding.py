"""What the bits of a float say: its kind, its sign, its exponent, its neighbours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusec.ir.core import Value
from fusec.ir.dtypes import DType, Specials, bool_, f32, f64, int_
from fusec.ir.opdef import operand
from fusec.ir.ops.comparison import Ne
from fusec.ir.ops.formula import Term, power_of_two
from fusec.ir.ops.pointwise import (
    Binary,
    Elementwise,
    Unary,
    dtype_of,
    floating,
    overloads,
)
from fusec.ir.types import IllTyped


class IsNan(Unary, name="is_nan"):
    """Whether x is NaN."""

    takes = staticmethod(floating)
    gives = bool_
    aten = ("aten.isnan.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.isnan(x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return b(Ne, xs[0], xs[0])


class IsInf(Unary, name="is_inf"):
    """Whether x is inf or −inf."""

    takes = staticmethod(floating)
    gives = bool_
    aten = ("aten.isinf.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.isinf(x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        if dtype_of(xs[0]).specials is not Specials.IEEE:
            return None
        return abs(Term(b, xs[0])).equals(math.inf).value


class SignBit(Unary, name="sign_bit"):
    """Whether the sign bit is set: of −0 and of such a NaN too."""

    takes = staticmethod(floating)
    gives = bool_
    aten = ("aten.signbit.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.signbit(x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        if dtype_of(xs[0]).specials is not Specials.IEEE:
            return None
        return (Term(b, xs[0]).bits() < 0).value


class Copysign(Binary, name="copysign"):
    """|x| with y's sign bit, whatever x and y are."""

    takes = staticmethod(floating)
    aten = overloads("copysign")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.copysign(x, y)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        if dtype_of(xs[0]).specials is not Specials.IEEE:
            return None
        x, y = (Term(b, v) for v in xs)
        return x.with_sign(y).value


class Nextafter(Binary, name="nextafter"):
    """The neighbour of x toward y; y if they are equal, NaN if either is NaN."""

    cost = 20.0
    takes = staticmethod(floating)
    aten = ("aten.nextafter.default",)
    widens = False

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.nextafter(x, y)

    @classmethod
    def reference(cls, dtype: DType, *arrays: Any) -> Any:
        """The neighbour among the numbers of the type itself, which may have a wider
        carrier: their codes are in the order of magnitudes."""
        x, y = np.broadcast_arrays(*arrays)
        if dtype in (f32, f64):  # numpy's of halves takes the sign of the wrong zero
            return cls.numpy(x, y)
        codes = dtype.encode(x)
        one = np.ones((), codes.dtype)
        away = (y > x) == (x > 0)
        stepped = dtype.decode(np.where(away, codes + one, codes - one))
        least = np.copysign(dtype.decode(one), y)
        found = np.where(x == y, y, np.where(x == 0, least, stepped))
        return np.where(np.isnan(x) | np.isnan(y), np.nan, found).astype(dtype.carrier)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        if dtype_of(xs[0]).specials is not Specials.IEEE:
            return None
        return _next_after(*(Term(b, x) for x in xs)).value


class Ldexp(Elementwise, name="ldexp"):
    """x · 2ⁿ with one rounding; `n` is the signed integer as wide as x."""

    x = operand()
    n = operand()

    takes = staticmethod(floating)

    @classmethod
    def typed(cls, types: list[Any]) -> list[Any]:
        x, n = types
        if n.dtype is not int_(x.dtype.bits):
            raise IllTyped(f"ldexp of {x.dtype.name} by {n.dtype.name}: widths differ")
        return [x]

    @staticmethod
    def numpy(x: Any, n: Any) -> Any:
        return np.ldexp(x, np.minimum(np.maximum(n, -5000), 5000).astype(np.int32))

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        x, n = (Term(b, v) for v in xs)
        return _scaled(x, n).value if x.dtype in (f32, f64) else None


def _next_after(x: Term, y: Term) -> Term:
    """One up or down in the bits, which order floats of one sign by magnitude."""
    bits = x.bits()
    away = (x < y).equals(bits >= 0)
    stepped = away.select(bits + 1, bits - 1).bitcast(x.dtype)
    least = bits.like(1).bitcast(x.dtype)
    stepped = x.equals(0.0).select(least.with_sign(y), stepped)
    result = x.equals(y).select(y, stepped)
    return (x.is_nan() | y.is_nan()).select(x + y, result)


def _scaled(x: Term, n: Term) -> Term:
    """x · 2ⁿ, taking large steps while n is beyond a normal power of two.

    A step down stops a mantissa short of the least power, so what it rounds is too
    small to matter: the last product alone rounds.
    """
    dtype = x.dtype
    top, bottom = dtype.bias, 1 - dtype.bias
    down = bottom + dtype.mantissa_bits + 1
    for _ in range(2):
        high, low = n > top, n < bottom
        x = x * high.select(x.like(2.0**top), low.select(x.like(2.0**down), 1.0))
        n = n - high.select(n.like(top), low.select(n.like(down), 0))
    return x * power_of_two(n.clamp(bottom, top), dtype)
