"""Comparisons, and the choice between two values.

NaN compares unequal to everything, itself included; −0 equals 0.
"""

from __future__ import annotations

from typing import Any

from fusec.ir.core import Value
from fusec.ir.dtypes import bool_
from fusec.ir.opdef import operand
from fusec.ir.ops.bitwise import Not
from fusec.ir.ops.pointwise import (
    Comparison,
    Elementwise,
    constant,
    dtype_of,
    keep,
    operand_of,
    overloads,
    where,
)
from fusec.ir.types import IllTyped


class Eq(Comparison, name="eq"):
    """x = y."""

    commutes = True
    aten = overloads("eq")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x == y

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x = true -> x; x = false -> not x
        if (known := b.constant(y)) is not None and dtype_of(x).is_bool:
            return keep(x, xs) if known else b(Not, x)
        return reflexive(b, True, *xs)


class Ne(Comparison, name="ne"):
    """x ≠ y; true if either is NaN."""

    commutes = True
    aten = overloads("ne")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x != y

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x ≠ false -> x; x ≠ true -> not x
        if (known := b.constant(y)) is not None and dtype_of(x).is_bool:
            return b(Not, x) if known else keep(x, xs)
        return reflexive(b, False, *xs)


class Lt(Comparison, name="lt"):
    """x < y."""

    aten = overloads("lt")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x < y

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        # c < x -> x > c
        return mirrored(b, Gt, *xs) or reflexive(b, False, *xs)


class Le(Comparison, name="le"):
    """x ≤ y."""

    aten = overloads("le")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x <= y

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        # c ≤ x -> x ≥ c
        return mirrored(b, Ge, *xs) or reflexive(b, True, *xs)


class Gt(Comparison, name="gt"):
    """x > y."""

    aten = overloads("gt")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x > y

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        # c > x -> x < c
        return mirrored(b, Lt, *xs) or reflexive(b, False, *xs)


class Ge(Comparison, name="ge"):
    """x ≥ y."""

    aten = overloads("ge")

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return x >= y

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        # c ≥ x -> x ≤ c
        return mirrored(b, Le, *xs) or reflexive(b, True, *xs)


class Select(Elementwise, name="select"):
    """x where `cond`, else y. What is not chosen has no influence, NaN neither."""

    cond = operand()
    x = operand()
    y = operand()

    aten = ("aten.where.self",)

    @classmethod
    def typed(cls, types: list[Any]) -> list[Any]:
        if types[0].dtype is not bool_:
            raise IllTyped(f"select by {types[0].dtype.name}, not by bool")
        return types[1:]

    @staticmethod
    def numpy(cond: Any, x: Any, y: Any) -> Any:
        return where(cond, x, y)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        cond, x, y = xs
        # select(true, x, y) -> x; select(false, x, y) -> y
        if (known := b.constant(cond)) is not None:
            return keep(x if known else y, xs)
        # select(c, x, x) -> x
        if x is y:
            return keep(x, xs)
        # select(not c, x, y) -> select(c, y, x)
        if (negated := operand_of(b, Not, cond)) is not None:
            return b(Select, negated, y, x)
        # select(c, select(c, x, y), z) -> select(c, x, z)
        inner = b.definition(x)
        if isinstance(inner, Select) and inner.cond is cond:
            return b(Select, cond, inner.x, y)
        # select(c, x, select(c, y, z)) -> select(c, x, z)
        inner = b.definition(y)
        if isinstance(inner, Select) and inner.cond is cond:
            return b(Select, cond, x, inner.y)
        return _boolean(b, *xs) if dtype_of(x).is_bool else None


def mirrored(b: Any, op: Any, x: Value, y: Value) -> Value | None:
    """`y op x` where only x is a constant."""
    if b.constant(x) is None or b.constant(y) is not None:
        return None
    return b(op, y, x)


def reflexive(b: Any, holds: bool, x: Value, y: Value) -> Value | None:
    """What a comparison of a value with itself says, unless it may be NaN."""
    # x = x, x ≤ x, x ≥ x -> true; x ≠ x, x < x, x > x -> false
    if x is not y or dtype_of(x).is_float:
        return None
    return constant(b, holds, (x, y), bool_)


def _boolean(b: Any, cond: Value, x: Value, y: Value) -> Value | None:
    """A choice between constants of bool."""
    choice = (b.constant(x), b.constant(y))
    # select(c, true, false) -> c
    if choice == (True, False):
        return cond
    # select(c, false, true) -> not c
    return b(Not, cond) if choice == (False, True) else None
