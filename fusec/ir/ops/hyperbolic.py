"""Hyperbolic functions and their inverses."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusec.ir.ops.pointwise import Unary, floating, in_double


class Sinh(Unary, name="sinh"):
    """(eˣ − e⁻ˣ) / 2: −0 at −0, ±inf at ±inf."""

    takes = staticmethod(floating)
    aten = ("aten.sinh.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.sinh, x)


class Cosh(Unary, name="cosh"):
    """(eˣ + e⁻ˣ) / 2: inf at ±inf."""

    takes = staticmethod(floating)
    aten = ("aten.cosh.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.cosh, x)


class Tanh(Unary, name="tanh"):
    """sinh x / cosh x: −0 at −0, ±1 at ±inf."""

    takes = staticmethod(floating)
    aten = ("aten.tanh.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.tanh, x)


class Asinh(Unary, name="asinh"):
    """The number whose sinh is x: −0 at −0, ±inf at ±inf."""

    takes = staticmethod(floating)
    aten = ("aten.asinh.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.arcsinh, x)


class Acosh(Unary, name="acosh"):
    """The number not below 0 whose cosh is x; NaN below 1."""

    takes = staticmethod(floating)
    aten = ("aten.acosh.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.arccosh, x)


class Atanh(Unary, name="atanh"):
    """The number whose tanh is x: ±inf at ±1, NaN beyond, −0 at −0."""

    takes = staticmethod(floating)
    aten = ("aten.atanh.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.arctanh, x)
