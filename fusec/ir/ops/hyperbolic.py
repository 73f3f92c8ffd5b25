"""Hyperbolic functions and their inverses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusec.ir.core import Value
from fusec.ir.ops.exponential import Exp, Log1p, exp
from fusec.ir.ops.formula import Term, expand_in_double, expand_with
from fusec.ir.ops.pointwise import Unary, floating, in_double
from fusec.ir.ops.polynomials import LN2, SINH, TANH


class Sinh(Unary, name="sinh"):
    """(eˣ − e⁻ˣ) / 2: −0 at −0, ±inf at ±inf."""

    cost = 45.0
    takes = staticmethod(floating)
    aten = ("aten.sinh.default",)
    ulps = (1.65, 1.7)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.sinh, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(sinh, b, *xs)


class Cosh(Unary, name="cosh"):
    """(eˣ + e⁻ˣ) / 2: inf at ±inf."""

    cost = 32.0
    takes = staticmethod(floating)
    aten = ("aten.cosh.default",)
    ulps = (1.55, 1.55)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.cosh, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(cosh, b, *xs)


class Tanh(Unary, name="tanh"):
    """sinh x / cosh x: −0 at −0, ±1 at ±inf."""

    cost = 48.0
    takes = staticmethod(floating)
    aten = ("aten.tanh.default",)
    ulps = (1.5, 1.5)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.tanh, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(tanh, b, *xs)


class Asinh(Unary, name="asinh"):
    """The number whose sinh is x: −0 at −0, ±inf at ±inf."""

    cost = 68.0
    takes = staticmethod(floating)
    aten = ("aten.asinh.default",)
    ulps = (0.51, 1.7)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.arcsinh, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_in_double(asinh, b, *xs)


class Acosh(Unary, name="acosh"):
    """The number not below 0 whose cosh is x; NaN below 1."""

    cost = 63.0
    takes = staticmethod(floating)
    aten = ("aten.acosh.default",)
    ulps = (0.51, 1.95)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.arccosh, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_in_double(acosh, b, *xs)


class Atanh(Unary, name="atanh"):
    """The number whose tanh is x: ±inf at ±1, NaN beyond, −0 at −0."""

    cost = 66.0
    takes = staticmethod(floating)
    aten = ("aten.atanh.default",)
    ulps = (0.51, 1.6)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.arctanh, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_in_double(atanh, b, *xs)


def sinh(x: Term) -> Term:
    """x + x³·P(x²) up to 1; then h − 1/4h with h = eˣ/2, which overflows no earlier."""
    size = abs(x)
    square = x * x
    near = (size * square).fma(square.horner(SINH[x.dtype]), size)
    half = exp(size, shift=-1)
    far = half - 0.25 / half
    return (size < 1.0).select(near, far).with_sign(x)


def cosh(x: Term) -> Term:
    """h + 1/4h with h = eˣ/2, which overflows no earlier."""
    half = exp(abs(x), shift=-1)
    return half + 0.25 / half


def tanh(x: Term) -> Term:
    """x + x³·P(x²) up to 0.55; then 1 − 2 / (e²ˣ + 1)."""
    size = abs(x)
    square = x * x
    near = (size * square).fma(square.horner(TANH[x.dtype]), size)
    far = 1.0 - 2.0 / ((size + size).emit(Exp) + 1.0)
    return (size < 0.55).select(near, far).with_sign(x)


def asinh(x: Term) -> Term:
    """log(1 + (x + x² / (1 + √(x² + 1)))), and log 2x where x² would overflow."""
    size = abs(x)
    large = size > 2.0**500
    square = size * size
    near = size + square / ((square + 1.0).sqrt() + 1.0)
    return _log1p_or_double(large, size, near).with_sign(x)


def acosh(x: Term) -> Term:
    """log(1 + (t + √(2t + t²))) with t = x − 1, and log 2x where x² would overflow."""
    t = x - 1.0
    near = t + t.fma(t, t + t).sqrt()
    result = _log1p_or_double(x > 2.0**500, x, near)
    return (x < 1.0).select(x.like(math.nan), result)


def _log1p_or_double(large: Term, x: Term, near: Term) -> Term:
    """log 2x for large x, else log(1 + near)."""
    result = large.select(x, near).emit(Log1p)
    return result + large.select(x.like(sum(LN2[x.dtype])), 0.0)


def atanh(x: Term) -> Term:
    """½·log(1 + 2x / (1 − x))."""
    size = abs(x)
    double = size + size
    near = size.fma(double / (1.0 - size), double)
    argument = (size < 0.5).select(near, double / (1.0 - size))
    return (argument.emit(Log1p) * 0.5).with_sign(x)
