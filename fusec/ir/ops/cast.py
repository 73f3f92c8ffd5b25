"""Changes of element type."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusec.ir.core import Block, Level, Op, Values
from fusec.ir.dtypes import DType
from fusec.ir.opdef import attr, operand
from fusec.ir.ops.pointwise import LEVELS
from fusec.ir.types import Element, Type, with_dtype


class Cast(Op, name="cast", levels=LEVELS):
    """The same number in another dtype, as torch converts.

    To a narrower float: nearest, ties to even. Float to integer: toward zero (out of
    range is unspecified, as in torch). To bool: x != 0. Integers wrap.
    """

    x = operand()
    dtype = attr(DType)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return (with_dtype(_element(operands[0].type), attrs[0]),)

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        (x,), (dtype,) = operands, attrs
        # cast x : its own dtype -> x
        if x.type.dtype is dtype:
            return (x,)
        # cast (const c) -> const c
        value = builder.constant(x)
        if value is not None:
            return (builder.const(_convert(value, x.type.dtype, dtype), dtype),)
        return None


class Bitcast(Op, name="bitcast", levels=(Level.GRAPH, Level.LOOP, Level.TILE)):
    """The same bits read as another dtype of equal width."""

    x = operand()
    dtype = attr(DType)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        type_ = _element(operands[0].type)
        if type_.dtype.bits != attrs[0].bits:
            raise TypeError(
                f"bitcast of {type_.dtype.name} to {attrs[0].name}: widths differ"
            )
        return (with_dtype(type_, attrs[0]),)


def _element(type_: Any) -> Element:
    if not hasattr(type_, "dtype"):
        raise TypeError(f"no elements in {type_}")
    return type_


def convert(x: Any, source: DType, target: DType) -> Any:
    """An array of `source`'s carrier as `target`'s, the reference of `Cast`."""
    if target.is_bool:
        return x != 0
    with np.errstate(all="ignore"):
        if source.is_float and target.is_int:
            return target.quantize(np.trunc(x).astype(np.int64))
        return target.quantize(x)


def _convert(value: float | int | bool, source: DType, target: DType) -> Any:
    array = np.asarray(value).astype(source.carrier)
    return convert(array, source, target).item()
