"""Comparisons, tests of floats, and the choice between two values.

NaN compares unequal to everything, itself included; −0 equals 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusec.ir.dtypes import bool_
from fusec.ir.opdef import operand
from fusec.ir.ops.pointwise import (
    Comparison,
    Elementwise,
    Unary,
    floating,
    overloads,
    where,
)


class Eq(Comparison, name="eq"):
    """x = y."""

    commutes = True
    aten = overloads("eq")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x == y


class Ne(Comparison, name="ne"):
    """x ≠ y; true if either is NaN."""

    commutes = True
    aten = overloads("ne")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x != y


class Lt(Comparison, name="lt"):
    """x < y."""

    aten = overloads("lt")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x < y


class Le(Comparison, name="le"):
    """x ≤ y."""

    aten = overloads("le")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x <= y


class Gt(Comparison, name="gt"):
    """x > y."""

    aten = overloads("gt")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x > y


class Ge(Comparison, name="ge"):
    """x ≥ y."""

    aten = overloads("ge")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x >= y


class IsNan(Unary, name="is_nan"):
    """Whether x is NaN."""

    takes = staticmethod(floating)
    gives = bool_
    aten = ("aten.isnan.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.isnan(x)


class IsInf(Unary, name="is_inf"):
    """Whether x is inf or −inf."""

    takes = staticmethod(floating)
    gives = bool_
    aten = ("aten.isinf.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.isinf(x)


class SignBit(Unary, name="sign_bit"):
    """Whether the sign bit is set: of −0 and of such a NaN too."""

    takes = staticmethod(floating)
    gives = bool_
    aten = ("aten.signbit.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.signbit(x)


class Select(Elementwise, name="select"):
    """x where `cond`, else y. What is not chosen has no influence, NaN neither."""

    cond = operand()
    x = operand()
    y = operand()

    aten = ("aten.where.self",)

    @classmethod
    def typed(cls, types: list[Any]) -> list[Any]:
        if types[0].dtype is not bool_:
            raise TypeError(f"select by {types[0].dtype.name}, not by bool")
        return types[1:]

    @staticmethod
    def numpy(cond: Any, x: Any, y: Any) -> Any:
        return where(cond, x, y)
