"""Bits: logical on bool, bitwise on integers; shifts of integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusec.ir.ops.pointwise import Binary, Unary, bitwise, integral, overloads, where


class And(Binary, name="and"):
    """x ∧ y, bit by bit."""

    takes = staticmethod(bitwise)
    commutes = True
    aten = overloads("bitwise_and")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x & y


class Or(Binary, name="or"):
    """x ∨ y, bit by bit."""

    takes = staticmethod(bitwise)
    commutes = True
    aten = overloads("bitwise_or")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x | y


class Xor(Binary, name="xor"):
    """x ⊕ y, bit by bit."""

    takes = staticmethod(bitwise)
    commutes = True
    aten = overloads("bitwise_xor")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x ^ y


class Not(Unary, name="not"):
    """Every bit flipped."""

    takes = staticmethod(bitwise)
    aten = ("aten.bitwise_not.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return ~np.asarray(x)


class Shl(Binary, name="shl"):
    """x · 2^y, wrapping; 0 where y is negative or not below the width."""

    takes = staticmethod(integral)
    aten = ("aten.bitwise_left_shift.Tensor", "aten.bitwise_left_shift.Tensor_Scalar")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        width = 8 * np.asarray(x).dtype.itemsize
        inside = (y >= 0) & (y < width)
        return where(inside, np.left_shift(x, where(inside, y, 0)), 0)


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
