"""Exponentials, logarithms and powers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusec.ir.ops.pointwise import Binary, Unary, floating, in_double, numeric


class Exp(Unary, name="exp"):
    """eˣ: 0 at −inf, inf at inf."""

    takes = staticmethod(floating)
    aten = ("aten.exp.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.exp, x)


class Exp2(Unary, name="exp2"):
    """2ˣ: 0 at −inf, inf at inf."""

    takes = staticmethod(floating)
    aten = ("aten.exp2.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.exp2, x)


class Expm1(Unary, name="expm1"):
    """eˣ − 1 without cancellation: −1 at −inf, −0 at −0."""

    takes = staticmethod(floating)
    aten = ("aten.expm1.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.expm1, x)


class Log(Unary, name="log"):
    """The natural logarithm: −inf at ±0, NaN below zero."""

    takes = staticmethod(floating)
    aten = ("aten.log.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.log, x)


class Log2(Unary, name="log2"):
    """The logarithm to base 2: −inf at ±0, NaN below zero."""

    takes = staticmethod(floating)
    aten = ("aten.log2.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.log2, x)


class Log10(Unary, name="log10"):
    """The logarithm to base 10: −inf at ±0, NaN below zero."""

    takes = staticmethod(floating)
    aten = ("aten.log10.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.log10, x)


class Log1p(Unary, name="log1p"):
    """log(1 + x) without cancellation: −inf at −1, NaN below, −0 at −0."""

    takes = staticmethod(floating)
    aten = ("aten.log1p.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.log1p, x)


class Pow(Binary, name="pow"):
    """xʸ.

    Floats as C's `pow`: 1 for y = 0 and for x = 1, NaN or not; NaN for finite x < 0
    and y not whole. Integers wrap; a negative y gives 0, but for x = 1 and −1.
    """

    takes = staticmethod(numeric)
    aten = ("aten.pow.Tensor_Tensor", "aten.pow.Tensor_Scalar")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return (
            _integer_power(x, y)
            if np.asarray(x).dtype.kind in "iu"
            else in_double(np.power, x, y)
        )


class Sigmoid(Unary, name="sigmoid"):
    """1 / (1 + e⁻ˣ): 0 at −inf, 1 at inf."""

    takes = staticmethod(floating)
    aten = ("aten.sigmoid.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(_logistic, x)


def _logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _integer_power(x: Any, y: Any) -> Any:
    """Square and multiply, modulo 2^width."""
    base, power = np.broadcast_arrays(x, y)
    minus_one = np.where(power % 2 == 0, 1, -1)
    below = np.where(base == 1, 1, np.where(base == -1, minus_one, 0))
    result = np.ones_like(base)
    rest = np.maximum(power, 0)
    while np.any(rest > 0):
        result = np.where(rest % 2 == 1, result * base, result)
        base, rest = base * base, rest // 2
    return np.where(power < 0, below.astype(result.dtype), result)
