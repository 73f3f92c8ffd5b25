"""Bits: logical on bool, bitwise on integers; shifts of integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusec.ir.core import Value
from fusec.ir.ops.pointwise import (
    Binary,
    Unary,
    bitwise,
    constant,
    dtype_of,
    integral,
    is_number,
    keep,
    operand_of,
    overloads,
    where,
)


class And(Binary, name="and"):
    """x ∧ y, bit by bit."""

    takes = staticmethod(bitwise)
    commutes = True
    aten = overloads("bitwise_and")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x & y

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x & x -> x
        if x is y:
            return x
        # x & 11…1 -> x
        if is_number(b, y, _ones(x)):
            return keep(x, xs)
        # x & 0 -> 0
        return keep(y, xs) if is_number(b, y, 0) else None


class Or(Binary, name="or"):
    """x ∨ y, bit by bit."""

    takes = staticmethod(bitwise)
    commutes = True
    aten = overloads("bitwise_or")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x | y

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x | x -> x
        if x is y:
            return x
        # x | 0 -> x
        if is_number(b, y, 0):
            return keep(x, xs)
        # x | 11…1 -> 11…1
        return keep(y, xs) if is_number(b, y, _ones(x)) else None


class Xor(Binary, name="xor"):
    """x ⊕ y, bit by bit."""

    takes = staticmethod(bitwise)
    commutes = True
    aten = overloads("bitwise_xor")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x ^ y

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x ^ 0 -> x
        if is_number(b, y, 0):
            return keep(x, xs)
        # x ^ 11…1 -> ~x
        if is_number(b, y, _ones(x)):
            return b(Not, x)
        # x ^ x -> 0
        return constant(b, 0, xs) if x is y else None


class Not(Unary, name="not"):
    """Every bit flipped."""

    takes = staticmethod(bitwise)
    aten = ("aten.bitwise_not.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return ~np.asarray(x)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        (x,) = xs
        # ~~x -> x
        return operand_of(b, Not, x)


class Shl(Binary, name="shl"):
    """x · 2^y, wrapping; 0 where y is negative or not below the width."""

    takes = staticmethod(integral)
    aten = ("aten.bitwise_left_shift.Tensor", "aten.bitwise_left_shift.Tensor_Scalar")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        width = 8 * np.asarray(x).dtype.itemsize
        inside = (y >= 0) & (y < width)
        return where(inside, np.left_shift(x, where(inside, y, 0)), 0)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x << 0 -> x
        return keep(x, xs) if is_number(b, y, 0) else None


class Shr(Binary, name="shr"):
    """⌊x / 2^y⌋: signs fill signed integers, zeros unsigned ones.

    Where y is negative or not below the width: −1 for negative x, else 0.
    """

    takes = staticmethod(integral)
    aten = (
        "aten.bitwise_right_shift.Tensor",
        "aten.bitwise_right_shift.Tensor_Scalar",
    )

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        width = 8 * np.asarray(x).dtype.itemsize
        inside = (y >= 0) & (y < width)
        sign = where(x < 0, -1, 0).astype(np.asarray(x).dtype)
        return where(inside, np.right_shift(x, where(inside, y, 0)), sign)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x >> 0 -> x
        return keep(x, xs) if is_number(b, y, 0) else None


def _ones(x: Value) -> int:
    """The number whose bits are all set."""
    dtype = dtype_of(x)
    return -1 if dtype.is_signed else int(dtype.max)
