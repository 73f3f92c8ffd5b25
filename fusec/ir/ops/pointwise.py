"""The elementwise family's common ground: one element in, one out, at every point.

A class states its operands, which dtypes it takes and gives, its meaning in numpy
(NaN, ±inf and −0.0 included), the ATen overloads it stands for where name and
arguments agree, and, where a backend may lack it, its expansion into simpler ops:

    class Rsqrt(Unary, name="rsqrt"):
        '''1 / √x: NaN below zero, ±inf at ±0.'''

        takes = staticmethod(floating)
        aten = ("aten.rsqrt.default",)

        @staticmethod
        def numpy(x):
            return np.ones_like(x) / np.sqrt(x)

        @classmethod
        def expand(cls, b, *xs):
            x = Term(b, xs[0])             # operators that emit ops, see `formula`
            return (1.0 / x.sqrt()).value

A reference computes on arrays in the *carrier* of the dtype (see `dtypes`); who
calls it quantizes the result. `rules` never go to worse code, are exact in every
bit, and take and give a NaN for a NaN whatever its payload and sign. Constants of
ops that commute stand on the right, so rules look for them only there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fusec.ir.core import Block, Level, Op, Value, Values
from fusec.ir.dtypes import DType, bool_
from fusec.ir.opdef import operand
from fusec.ir.ops.constant import Const
from fusec.ir.ops.space import common_space
from fusec.ir.types import IllTyped, Scalar, Type, with_dtype

where: Callable[..., Any] = np.where  # its stubs are partly unknown to a checker

LEVELS = (Level.GRAPH, Level.LOOP, Level.TILE, Level.HOST)


def any_dtype(dtype: DType) -> bool:
    return True


def numeric(dtype: DType) -> bool:
    return dtype.is_float or dtype.is_int


def ordered(dtype: DType) -> bool:
    return numeric(dtype) or dtype.is_bool


def floating(dtype: DType) -> bool:
    return dtype.is_float


def integral(dtype: DType) -> bool:
    return dtype.is_int


def bitwise(dtype: DType) -> bool:
    return dtype.is_int or dtype.is_bool


class Elementwise(Op):
    """Operands of one dtype; the result has it too unless `gives` says otherwise."""

    levels = LEVELS
    takes: ClassVar[Callable[[DType], bool]] = staticmethod(any_dtype)
    gives: ClassVar[DType | None] = None
    aten: ClassVar[tuple[str, ...]] = ()
    """ATen overloads that map here argument by argument, once dtypes are promoted."""
    commutes: ClassVar[bool] = False
    cost: ClassVar[float] = 1.0
    """Vector instructions that an f32 takes, or as many as take that long."""
    ulps: ClassVar[tuple[float, float] | None] = None
    """The largest error of an expansion that rounds, in units of the last place of f32
    and f64, as tests measure it; None for one that is exact."""
    widens: ClassVar[bool] = True
    """Whether narrow floats may compute in f32 and round: not where the result depends
    on their own width."""
    numpy: ClassVar[Callable[..., Any]]
    """The reference, on arrays in the carriers of their dtypes."""

    @classmethod
    def reference(cls, dtype: DType, *arrays: Any) -> Any:
        """The result, which has this dtype, of arrays in the carriers of theirs."""
        return dtype.quantize(np.asarray(cls.numpy(*arrays)))

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        types = [value.type for value in operands]
        space = common_space(types)
        dtypes = {_dtype(t) for t in cls.typed(types)}
        if len(dtypes) != 1:
            names = " and ".join(sorted(d.name for d in dtypes))
            raise IllTyped(f"{cls.name} of {names}; cast first")
        (dtype,) = dtypes
        if not cls.takes(dtype):
            raise IllTyped(f"{cls.name} does not take {dtype.name}")
        return (with_dtype(space, cls.gives or dtype),)

    @classmethod
    def typed(cls, types: list[Type]) -> list[Type]:
        """The operand types whose dtypes must agree.

        Raises `IllTyped` where another operand has a dtype that does not fit.
        """
        return types

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        """The op in simpler ops, or None where it is one already.

        Floats expand in f32 and f64 only, unless the op does not widen.
        """
        return None

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        folded = fold(cls, builder, operands)
        if folded is not None:
            return folded
        swapped = constant_right(cls, builder, operands)
        found = swapped if swapped is not None else cls.rules(builder, *operands)
        return None if found is None else (found,)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        """Algebraic identities; each exact in every bit of the result."""
        return None


class Unary(Elementwise):
    x = operand()


class Binary(Elementwise):
    x = operand()
    y = operand()


class Comparison(Binary):
    takes = staticmethod(ordered)
    gives = bool_


def in_double(function: Callable[..., Any], *xs: Any) -> Any:
    """`function` computed in float64, rounded to the dtype of `xs`."""
    dtype = np.result_type(*xs)
    wide = [np.asarray(x, np.float64) for x in xs]
    return np.asarray(function(*wide)).astype(dtype)


def overloads(name: str) -> tuple[str, ...]:
    """The overloads of a binary ATen op whose second argument may be a number."""
    return (f"aten.{name}.Tensor", f"aten.{name}.Scalar")


def fold(op: Any, builder: Any, operands: Values) -> Values | None:
    """Compute an op whose operands are all constants."""
    known = [builder.definition(x) for x in operands]
    if not known or not all(isinstance(d, Const) for d in known):
        return None
    (type_,) = op.infer(operands, (), ())
    arrays = [np.asarray(d.value).astype(d.dtype.carrier) for d in known]
    with np.errstate(all="ignore"):
        result = op.reference(type_.dtype, *arrays)
    return (builder.const(result.item(), type_.dtype),)


def constant_right(op: Any, b: Any, operands: Values) -> Value | None:
    """Swap the operands of an op that commutes if only the left is a constant."""
    if not op.commutes or b.constant(operands[0]) is None:
        return None
    x, y, *rest = operands
    # c ∘ x -> x ∘ c
    return b(op, y, x, *rest) if b.constant(y) is None else None


def keep(x: Value, xs: tuple[Value, ...]) -> Value | None:
    """`x` as the result of an elementwise op on `xs`, if it has the op's space."""
    space = with_dtype(common_space([v.type for v in xs]), dtype_of(x))
    return x if space == x.type else None


def is_number(b: Any, x: Value, number: float) -> bool:
    """Whether `x` is this constant; −0.0 is not 0.0."""
    known = b.constant(x)
    if known is None or known != number:
        return False
    return math.copysign(1.0, known) == math.copysign(1.0, number)


def constant(
    b: Any, number: float, xs: tuple[Value, ...], dtype: DType | None = None
) -> Value | None:
    """A constant as the result of an op on `xs`; only scalars have constants."""
    space = common_space([v.type for v in xs])
    if not isinstance(space, Scalar):
        return None
    return b.const(number, dtype or dtype_of(xs[0]))


def power_of_two_exponent(b: Any, x: Value) -> int | None:
    """k where `x` is the integer constant 2^k."""
    known = b.constant(x)
    if not isinstance(known, int) or known <= 0 or known & (known - 1):
        return None
    return known.bit_length() - 1


def operand_of(b: Any, op: Any, x: Value) -> Value | None:
    """The operand of the unary op `op` that made `x`, if one did."""
    made = b.definition(x)
    return made.operands[0] if isinstance(made, op) else None


def dtype_of(x: Value) -> DType:
    """The element type of a value."""
    return _dtype(x.type)


def _dtype(type_: Type) -> DType:
    if not hasattr(type_, "dtype"):
        raise IllTyped(f"no elements in {type_}")
    return type_.dtype  # type: ignore[union-attr]
