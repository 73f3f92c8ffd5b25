"""Arithmetic on integers and floats: what processors have instructions for.

Integers wrap: two's complement, modulo 2^width. Dividing an integer by zero, for
which torch raises, gives quotient 0 and remainder x here, so that x = q·y + r; the
least integer divided by −1 wraps. Floats follow IEEE 754: one rounding, NaN for NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusec.ir.core import Value
from fusec.ir.dtypes import DType
from fusec.ir.opdef import operand
from fusec.ir.ops.bitwise import Shr
from fusec.ir.ops.fused import fused_multiply_add
from fusec.ir.ops.pointwise import (
    Binary,
    Elementwise,
    Unary,
    constant,
    dtype_of,
    floating,
    is_number,
    keep,
    numeric,
    operand_of,
    overloads,
    power_of_two_exponent,
)
from fusec.ir.ops.rounding import Trunc


class Add(Binary, name="add"):
    """x + y."""

    takes = staticmethod(numeric)
    commutes = True
    aten = overloads("add")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x + y

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x + 0 -> x; of floats x + -0.0 -> x
        if is_number(b, y, -0.0 if dtype_of(y).is_float else 0):
            return keep(x, xs)
        # x + -y -> x - y
        if (negated := operand_of(b, Neg, y)) is not None:
            return b(Sub, x, negated)
        # -x + y -> y - x
        if (negated := operand_of(b, Neg, x)) is not None:
            return b(Sub, y, negated)
        return None


class Sub(Binary, name="sub"):
    """x − y."""

    takes = staticmethod(numeric)
    aten = overloads("sub")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x - y

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x - 0 -> x
        if is_number(b, y, 0):
            return keep(x, xs)
        # 0 - x -> -x; of floats -0.0 - x -> -x
        if is_number(b, x, -0.0 if dtype_of(x).is_float else 0):
            return b(Neg, y)
        # x - -y -> x + y
        if (negated := operand_of(b, Neg, y)) is not None:
            return b(Add, x, negated)
        # x - x -> 0, of integers
        if x is y and dtype_of(x).is_int:
            return constant(b, 0, xs)
        return None


class Mul(Binary, name="mul"):
    """x · y."""

    takes = staticmethod(numeric)
    commutes = True
    aten = overloads("mul")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x * y

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x * 1 -> x
        if is_number(b, y, 1):
            return keep(x, xs)
        # x * -1 -> -x
        if is_number(b, y, -1):
            return b(Neg, x) if keep(x, xs) else None
        # x * 0 -> 0, of integers
        if is_number(b, y, 0) and dtype_of(x).is_int:
            return constant(b, 0, xs)
        # -x * -y -> x * y
        left, right = operand_of(b, Neg, x), operand_of(b, Neg, y)
        return b(Mul, left, right) if left is not None and right is not None else None


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

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y, z = xs
        # x * 1 + z -> x + z
        if is_number(b, y, 1):
            return b(Add, x, z)
        # x * y + -0.0 -> x * y
        if is_number(b, z, -0.0):
            return b(Mul, x, y)
        return None


class Div(Binary, name="div"):
    """x / y, of floats: ±inf for a number over ±0, NaN for 0/0 and inf/inf."""

    cost = 4.0
    takes = staticmethod(floating)
    aten = overloads("div")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.true_divide(x, y)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x / 1 -> x
        if is_number(b, y, 1):
            return keep(x, xs)
        # x / 2^k -> x * 2^-k
        inverse = _exact_inverse(b.constant(y), dtype_of(y))
        return None if inverse is None else b(Mul, x, b.const(inverse, dtype_of(y)))


class TruncDiv(Binary, name="trunc_div"):
    """x / y rounded toward zero, as C's integer `/`; the division of a processor.

    A backend guards the processor's: x / 0 is 0 and the least integer over −1 wraps,
    where an instruction may trap.
    """

    cost = 10.0
    takes = staticmethod(numeric)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        if np.asarray(x).dtype.kind not in "iu":
            return np.trunc(x / y)
        floor = np.floor_divide(x, y)
        inexact = (np.remainder(x, y) != 0) & ((x < 0) != (y < 0))
        return floor + inexact.astype(floor.dtype)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x / 1 -> x, of integers
        if dtype_of(x).is_int and is_number(b, y, 1):
            return keep(x, xs)
        # x / 2^k -> x >> k, of unsigned integers
        shift = power_of_two_exponent(b, y)
        if shift and not dtype_of(x).is_signed:
            return b(Shr, x, b.const(shift, dtype_of(x)))
        return None

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        return b(Trunc, b(Div, x, y)) if dtype_of(x).is_float else None


class Neg(Unary, name="neg"):
    """−x; floats flip the sign bit, of zeros too."""

    takes = staticmethod(numeric)
    aten = ("aten.neg.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.negative(x)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        (x,) = xs
        # --x -> x
        if (inner := operand_of(b, Neg, x)) is not None:
            return inner
        # -(x - y) -> y - x, of integers: of floats x - x is 0.0 both ways
        made = b.definition(x)
        if isinstance(made, Sub) and dtype_of(x).is_int:
            return b(Sub, made.y, made.x)
        return None


class Abs(Unary, name="abs"):
    """|x|; the least integer stays itself, floats clear the sign bit."""

    takes = staticmethod(numeric)
    aten = ("aten.abs.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.abs(x)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        (x,) = xs
        # ||x|| -> |x|
        if operand_of(b, Abs, x) is not None:
            return x
        # |x| -> x, of unsigned integers: their -x is no mirror image
        if not dtype_of(x).is_signed:
            return x
        # |-x| -> |x|
        if (negated := operand_of(b, Neg, x)) is not None:
            return b(Abs, negated)
        return None


class Sqrt(Unary, name="sqrt"):
    """√x, rounded once; NaN below zero, −0 at −0."""

    cost = 4.0
    takes = staticmethod(floating)
    aten = ("aten.sqrt.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.sqrt(x)


def _exact_inverse(divisor: float | None, dtype: DType) -> float | None:
    """1 / divisor where it is a normal power of two, so that it rounds alike."""
    if not divisor or math.frexp(divisor)[0] not in (0.5, -0.5):
        return None
    inverse = 1.0 / divisor
    least = 2.0 ** (1 - dtype.bias)
    return inverse if least <= abs(inverse) <= dtype.max else None
