"""Scalars that are known when the function is compiled or called."""

from __future__ import annotations

from typing import Any

from fusec.ir.core import Block, Level, Op, Values
from fusec.ir.dims import Dim
from fusec.ir.dtypes import DType, i64
from fusec.ir.opdef import attr
from fusec.ir.types import IllTyped, Scalar, Type

EVERYWHERE = (Level.GRAPH, Level.LOOP, Level.TILE, Level.HOST)


class Const(Op, name="const", levels=EVERYWHERE):
    """A number. `value` is representable in `dtype` (a builder rounds it)."""

    value = attr("number")
    dtype = attr(DType)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        value, dtype = attrs
        if dtype.is_int and not dtype.min <= value <= dtype.max:
            raise IllTyped(f"{value} is beyond {dtype.name}")
        if dtype.is_float:
            float(value)  # of a number that is no float, an OverflowError
        return (Scalar(dtype),)


class SizeOf(Op, name="size", levels=EVERYWHERE):
    """The value of a dim, as i64."""

    dim = attr(Dim)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return (Scalar(i64),)

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        # size 4 -> const 4
        (dim,) = attrs
        return (builder.const(dim, i64),) if isinstance(dim, int) else None
