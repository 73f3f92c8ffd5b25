"""Changes of element type: the same number, or the same bits, in another dtype."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusec.ir.core import Block, Level, Op, Value, Values
from fusec.ir.dtypes import DType, Specials
from fusec.ir.opdef import attr, operand
from fusec.ir.ops.pointwise import LEVELS, dtype_of
from fusec.ir.types import Element, IllTyped, Type, computed, with_dtype


class Cast(Op, name="cast", levels=LEVELS):
    """The same number in another dtype, as torch converts.

    To a narrower float: nearest, ties to even. Float to integer: toward zero (out of
    range is unspecified, as in torch). To bool: x != 0, so NaN is true. Integers wrap.
    """

    x = operand()
    dtype = attr(DType)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return (with_dtype(computed(_element(operands[0].type)), attrs[0]),)

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        (x,), (dtype,) = operands, attrs
        # cast x : its own dtype -> x
        if dtype_of(x) is dtype:
            return (x,)
        # cast (const c) -> const c
        if builder.constant(x) is not None:
            value = convert(_array(builder, x), dtype_of(x), dtype).item()
            return (builder.const(value, dtype),)
        # cast (cast x : a dtype with every value of x's) -> cast x
        inner = builder.definition(x)
        if isinstance(inner, Cast) and contains(dtype_of(x), dtype_of(inner.x)):
            return (builder(Cast, inner.x, dtype=dtype),)
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
            raise IllTyped(
                f"bitcast of {type_.dtype.name} to {attrs[0].name}: widths differ"
            )
        return (with_dtype(computed(type_), attrs[0]),)

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        (x,), (dtype,) = operands, attrs
        # bitcast x : its own dtype -> x
        if dtype_of(x) is dtype:
            return (x,)
        # bitcast (bitcast x) -> bitcast x, but not through bool, which has two codes
        inner = builder.definition(x)
        if isinstance(inner, Bitcast) and not dtype_of(x).is_bool:
            return (builder(Bitcast, inner.x, dtype=dtype),)
        # bitcast (const c) -> const c, but for NaN: constants do not keep its bits
        value = builder.constant(x)
        if value is None or math.isnan(value) or dtype_of(x).bits != dtype.bits:
            return None
        result = reinterpret(_array(builder, x), dtype_of(x), dtype).item()
        return None if math.isnan(result) else (builder.const(result, dtype),)


def convert(x: Any, source: DType, target: DType) -> Any:
    """The reference of `Cast`: an array in `source`'s carrier, in `target`'s."""
    return x != 0 if target.is_bool else target.quantize(x)


def reinterpret(x: Any, source: DType, target: DType) -> Any:
    """The reference of `Bitcast`: an array in `source`'s carrier, in `target`'s.

    A bool is the byte 0 or 1. The bits of a NaN survive where the carrier is the
    dtype itself.
    """
    return target.decode(source.encode(x))


def contains(wide: DType, narrow: DType) -> bool:
    """Whether every value of `narrow`, specials included, is one of `wide`."""
    if wide is narrow:
        return True
    if narrow.table or wide.table or wide.is_bool:
        return False
    if wide.is_int:
        return not narrow.is_float and wide.min <= narrow.min <= narrow.max <= wide.max
    if not narrow.is_float:
        exact = min(2 ** (wide.mantissa_bits + 1), wide.max)
        return max(-narrow.min, narrow.max) <= exact
    return (
        wide.specials is Specials.IEEE
        and wide.mantissa_bits >= narrow.mantissa_bits
        and wide.max >= narrow.max
        and _least(wide) <= _least(narrow)
    )


def _least(dtype: DType) -> float:
    """The smallest positive number of a float type."""
    return math.ldexp(1.0, 1 - dtype.bias - dtype.mantissa_bits)


def _element(type_: Type) -> Element:
    if not hasattr(type_, "dtype"):
        raise IllTyped(f"no elements in {type_}")
    return type_  # type: ignore[return-value]


def _array(builder: Any, x: Value) -> Any:
    """A constant as an array in its carrier."""
    return np.asarray(builder.constant(x)).astype(dtype_of(x).carrier)
