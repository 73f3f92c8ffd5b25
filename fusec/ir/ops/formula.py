"""Writing IR as formulas: a value with operators that emit ops.

    x = Term(b, value)
    y = (x * x).fma(0.5, 1.0)          # x²/2 + 1: Mul, Fma
    z = (x > 0).select(y, -y)          # Gt, Neg, Select

Numbers become constants of the term's own dtype, rounded to it. Nothing here depends
on the level: the same formula computes on scalars, points and tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np

from fusec.ir.core import Block, Value
from fusec.ir.dtypes import DType, f32, f64, int_
from fusec.ir.ops.arithmetic import (
    Abs,
    Add,
    Div,
    Fma,
    Mul,
    Neg,
    Sqrt,
    Sub,
    TruncDiv,
)
from fusec.ir.ops.bitwise import And, Not, Or, Shl, Shr, Xor
from fusec.ir.ops.cast import Bitcast, Cast
from fusec.ir.ops.comparison import Eq, Ge, Gt, Le, Lt, Ne, Select
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.rare import Rare
from fusec.ir.ops.rounding import Floor, Round, Trunc
from fusec.ir.types import IllTyped, Scalar

Like = Union["Term", float, int, bool]


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """A value and the builder that formulas on it emit into."""

    b: Any
    value: Value

    @property
    def dtype(self) -> DType:
        return dtype_of(self.value)

    def like(self, other: Like) -> Term:
        """`other` as a term; a number as a constant of this term's dtype."""
        if isinstance(other, Term):
            return other
        dtype = self.dtype
        # Only what wraps needs numpy: the builder rounds floats.
        if not dtype.is_float and not dtype.min <= other <= dtype.max:
            other = dtype.quantize(np.asarray(other)).item()
        return Term(self.b, self.b.const(other, dtype))

    def emit(self, op: Any, *others: Like) -> Term:
        """`op` of this term and others."""
        values = (self.like(other).value for other in others)
        return Term(self.b, self.b(op, self.value, *values))

    def __add__(self, other: Like) -> Term:
        return self.emit(Add, other)

    def __radd__(self, other: Like) -> Term:
        return self.like(other).emit(Add, self)

    def __sub__(self, other: Like) -> Term:
        return self.emit(Sub, other)

    def __rsub__(self, other: Like) -> Term:
        return self.like(other).emit(Sub, self)

    def __mul__(self, other: Like) -> Term:
        return self.emit(Mul, other)

    def __rmul__(self, other: Like) -> Term:
        return self.like(other).emit(Mul, self)

    def __truediv__(self, other: Like) -> Term:
        return self.emit(Div, other)

    def __rtruediv__(self, other: Like) -> Term:
        return self.like(other).emit(Div, self)

    def __neg__(self) -> Term:
        return self.emit(Neg)

    def __abs__(self) -> Term:
        return self.emit(Abs)

    def __lt__(self, other: Like) -> Term:
        return self.emit(Lt, other)

    def __le__(self, other: Like) -> Term:
        return self.emit(Le, other)

    def __gt__(self, other: Like) -> Term:
        return self.emit(Gt, other)

    def __ge__(self, other: Like) -> Term:
        return self.emit(Ge, other)

    def __and__(self, other: Like) -> Term:
        return self.emit(And, other)

    def __or__(self, other: Like) -> Term:
        return self.emit(Or, other)

    def __xor__(self, other: Like) -> Term:
        return self.emit(Xor, other)

    def __invert__(self) -> Term:
        return self.emit(Not)

    def __lshift__(self, other: Like) -> Term:
        return self.emit(Shl, other)

    def __rshift__(self, other: Like) -> Term:
        return self.emit(Shr, other)

    def equals(self, other: Like) -> Term:
        return self.emit(Eq, other)

    def differs(self, other: Like) -> Term:
        return self.emit(Ne, other)

    def fma(self, factor: Like, addend: Like) -> Term:
        """self · factor + addend, rounded once."""
        return self.emit(Fma, factor, addend)

    def select(self, x: Like, y: Like) -> Term:
        """x where this bool holds, else y; at least one of them is a term."""
        known = x if isinstance(x, Term) else y
        if not isinstance(known, Term):
            raise IllTyped("select between two numbers: which dtype?")
        chosen = (known.like(x).value, known.like(y).value)
        return Term(self.b, self.b(Select, self.value, *chosen))

    def sqrt(self) -> Term:
        return self.emit(Sqrt)

    def round(self) -> Term:
        return self.emit(Round)

    def floor(self) -> Term:
        return self.emit(Floor)

    def trunc(self) -> Term:
        return self.emit(Trunc)

    def trunc_div(self, other: Like) -> Term:
        return self.emit(TruncDiv, other)

    def cast(self, dtype: DType) -> Term:
        """The same number in another dtype."""
        return Term(self.b, self.b(Cast, self.value, dtype=dtype))

    def bits(self) -> Term:
        """The same bits as the signed integer of this width."""
        return self.bitcast(int_(self.dtype.bits))

    def bitcast(self, dtype: DType) -> Term:
        """The same bits in another dtype of this width."""
        return Term(self.b, self.b(Bitcast, self.value, dtype=dtype))

    def is_nan(self) -> Term:
        return self.differs(self)

    def below(self, limit: Like) -> Term:
        """The smaller of this and `limit`; NaN stays."""
        return (self > limit).select(limit, self)

    def above(self, limit: Like) -> Term:
        """The larger of this and `limit`; NaN stays."""
        return (self < limit).select(limit, self)

    def clamp(self, low: Like, high: Like) -> Term:
        """Into [low, high]; NaN stays."""
        return self.above(low).below(high)

    def with_sign(self, other: Term) -> Term:
        """The magnitude of this with the sign bit of `other`, of NaN too."""
        sign = int_(self.dtype.bits).min
        bits = (self.bits() & ~int(sign)) | (other.bits() & sign)
        return bits.bitcast(self.dtype)

    def horner(self, coefficients: Sequence[float]) -> Term:
        """The polynomial in this term; coefficients from the constant upward."""
        *rest, first = coefficients
        total = self.like(first)
        for coefficient in reversed(rest):
            total = total.fma(self, coefficient)
        return total


Formula = Callable[..., Term]


def rarely(condition: Term, formula: Formula, xs: Sequence[Term], usual: Term) -> Term:
    """The formula of `xs` where the condition holds, as it does for few elements, else
    `usual`. The formula is written once for all that ask for the same function."""
    b, dtypes = condition.b, tuple(x.dtype for x in xs)

    def write(inner: Any) -> Block:
        params = [Term(inner, inner.param(Scalar(dtype))) for dtype in dtypes]
        return inner.block((formula(*params).value,))

    block = b.shared((formula, dtypes), write)
    operands = [term.value for term in (condition, usual, *xs)]
    (value,) = b.emit(Rare, operands, (), (block,))
    return Term(b, value)


def expand_with(formula: Formula, b: Any, *xs: Value) -> Value | None:
    """The formula on f32 or f64; None for another dtype."""
    if not _is_wide(xs):
        return None
    return formula(*(Term(b, x) for x in xs)).value


def expand_in_double(formula: Formula, b: Any, *xs: Value) -> Value | None:
    """As `expand_with`, but f32 is computed in f64, which makes it all but exact."""
    if not _is_wide(xs):
        return None
    terms = [Term(b, x).cast(f64) for x in xs]
    return formula(*terms).cast(dtype_of(xs[0])).value


def _is_wide(xs: tuple[Value, ...]) -> bool:
    return all(dtype_of(x) in (f32, f64) for x in xs)


def power_of_two(n: Term, dtype: DType) -> Term:
    """2ⁿ as a float: `n` is an integer of its width, the result is normal."""
    return ((n + dtype.bias) << dtype.mantissa_bits).bitcast(dtype)
