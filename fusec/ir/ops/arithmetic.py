"""Arithmetic on integers and floats.

Integers wrap: two's complement, modulo 2^width. Dividing an integer by zero, for
which torch raises, gives 0 here for every quotient and remainder; the least integer
divided by −1 wraps. Floats follow IEEE 754: one rounding, NaN for NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusec.ir.dtypes import int_
from fusec.ir.opdef import operand
from fusec.ir.ops.fused import fused_multiply_add
from fusec.ir.ops.pointwise import (
    Binary,
    Elementwise,
    Unary,
    floating,
    numeric,
    ordered,
    overloads,
    where,
)


class Add(Binary, name="add"):
    """x + y."""

    takes = staticmethod(numeric)
    commutes = True
    aten = overloads("add")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x + y


class Sub(Binary, name="sub"):
    """x − y."""

    takes = staticmethod(numeric)
    aten = overloads("sub")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x - y


class Mul(Binary, name="mul"):
    """x · y."""

    takes = staticmethod(numeric)
    commutes = True
    aten = overloads("mul")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x * y


class Fma(Elementwise, name="fma"):
    """x · y + z with one rounding."""

    x = operand()
    y = operand()
    z = operand()

    takes = staticmethod(floating)
    commutes = True

    @staticmethod
    def numpy(x: Any, y: Any, z: Any) -> Any:
        return fused_multiply_add(x, y, z)


class Div(Binary, name="div"):
    """x / y, of floats: ±inf for a number over ±0, NaN for 0/0 and inf/inf."""

    takes = staticmethod(floating)
    aten = overloads("div")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.true_divide(x, y)


class FloorDiv(Binary, name="floor_div"):
    """⌊x / y⌋, as Python's `//`: the quotient whose remainder has y's sign.

    Floats: x / 0 is ±inf or NaN as `Div`; NaN for infinite x; 0 and −0 by the sign
    of x / y.
    """

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


class Rem(Binary, name="rem"):
    """x − y · ⌊x / y⌋, as Python's `%`: the remainder with y's sign.

    Floats: NaN for infinite x and for y = 0; an exact zero has x's sign; a finite x
    with infinite y is x where the signs agree, else y.
    """

    takes = staticmethod(numeric)
    aten = overloads("remainder")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        if np.asarray(x).dtype.kind in "iu":
            return np.remainder(x, y)
        mod = np.fmod(x, y)
        apart = (mod != 0) & ((mod < 0) != (y < 0))
        return where(apart, mod + y, mod)


class TruncDiv(Binary, name="trunc_div"):
    """x / y rounded toward zero, as C's integer `/`."""

    takes = staticmethod(numeric)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        if np.asarray(x).dtype.kind not in "iu":
            return np.trunc(x / y)
        floor = np.floor_divide(x, y)
        inexact = (np.remainder(x, y) != 0) & ((x < 0) != (y < 0))
        return floor + inexact.astype(floor.dtype)


class Fmod(Binary, name="fmod"):
    """x − y · trunc(x / y), as C's `%` and `fmod`: the remainder with x's sign.

    Floats: exact; NaN for infinite x and for y = 0; x for infinite y.
    """

    takes = staticmethod(numeric)
    aten = overloads("fmod")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.fmod(x, y)


class Neg(Unary, name="neg"):
    """−x; floats flip the sign bit, of zeros too."""

    takes = staticmethod(numeric)
    aten = ("aten.neg.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.negative(x)


class Abs(Unary, name="abs"):
    """|x|; the least integer stays itself, floats clear the sign bit."""

    takes = staticmethod(numeric)
    aten = ("aten.abs.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.abs(x)


class Sign(Unary, name="sign"):
    """−1, 0 or 1; 0 for ±0 and, as torch, for NaN."""

    takes = staticmethod(numeric)
    aten = ("aten.sign.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        x = np.asarray(x)
        return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)


class Reciprocal(Unary, name="reciprocal"):
    """1 / x, rounded once."""

    takes = staticmethod(floating)
    aten = ("aten.reciprocal.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.ones_like(x) / x


class Sqrt(Unary, name="sqrt"):
    """√x, rounded once; NaN below zero, −0 at −0."""

    takes = staticmethod(floating)
    aten = ("aten.sqrt.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.sqrt(x)


class Rsqrt(Unary, name="rsqrt"):
    """1 / √x in two roundings, as torch: NaN below zero, ±inf at ±0."""

    takes = staticmethod(floating)
    aten = ("aten.rsqrt.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.ones_like(x) / np.sqrt(x)


class Maximum(Binary, name="maximum"):
    """The larger; NaN if either is NaN. Of two zeros either one, as torch."""

    takes = staticmethod(ordered)
    commutes = True
    aten = ("aten.maximum.default",)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.maximum(x, y)


class Minimum(Binary, name="minimum"):
    """The smaller; NaN if either is NaN. Of two zeros either one, as torch."""

    takes = staticmethod(ordered)
    commutes = True
    aten = ("aten.minimum.default",)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.minimum(x, y)


class Fmax(Binary, name="fmax"):
    """The larger; the other one where one is NaN. Of two zeros either one."""

    takes = staticmethod(ordered)
    commutes = True
    aten = ("aten.fmax.default",)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.fmax(x, y)


class Fmin(Binary, name="fmin"):
    """The smaller; the other one where one is NaN. Of two zeros either one."""

    takes = staticmethod(ordered)
    commutes = True
    aten = ("aten.fmin.default",)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.fmin(x, y)


class Copysign(Binary, name="copysign"):
    """|x| with y's sign bit, whatever x and y are."""

    takes = staticmethod(floating)
    aten = overloads("copysign")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.copysign(x, y)


class Nextafter(Binary, name="nextafter"):
    """The neighbour of x toward y; y if they are equal, NaN if either is NaN."""

    takes = staticmethod(floating)
    aten = ("aten.nextafter.default",)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.nextafter(x, y)


class Ldexp(Elementwise, name="ldexp"):
    """x · 2ⁿ with one rounding; `n` is the signed integer as wide as x."""

    x = operand()
    n = operand()

    takes = staticmethod(floating)

    @classmethod
    def typed(cls, types: list[Any]) -> list[Any]:
        x, n = types
        if n.dtype is not int_(x.dtype.bits):
            raise TypeError(f"ldexp of {x.dtype.name} by {n.dtype.name}: widths differ")
        return [x]

    @staticmethod
    def numpy(x: Any, n: Any) -> Any:
        return np.ldexp(x, np.minimum(np.maximum(n, -5000), 5000).astype(np.int32))
