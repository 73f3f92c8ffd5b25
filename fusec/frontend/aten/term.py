"""Terms: values that formulas can be written with.

    x = x.wide()                                   # f16, bf16 → f32
    return x * 0.5 * (erf(x * SQRT_HALF) + 1)      # gelu, as ATen has it

A term is an IR value and the emitter that made it. Operators emit ops; they broadcast
as torch does and turn numbers and dims into constants of the term's dtype. They do not
promote dtypes: what mixes dtypes says `cast`, or goes through `promote`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fusec.ir.builder import Builder
from fusec.ir.core import Op, Value
from fusec.ir.dims import Dim, Expr, Facts, product
from fusec.ir.dtypes import DType, bf16, bool_, f16, f32
from fusec.ir.monoids import monoid
from fusec.ir.ops import elementwise as ops
from fusec.ir.ops.cast import Bitcast, Cast
from fusec.ir.ops.checks import Checked
from fusec.ir.ops.pointwise import Comparison
from fusec.ir.ops.reduction import ReduceDims, ScanDim
from fusec.ir.ops.view import Broadcast, Concat, Iota, Permute, Reshape, Slice
from fusec.ir.types import Scalar, Tensor

Number = bool | int | float


class Undecided(TypeError):
    """A handler needs a number while it emits, but that is known only to the call."""


@dataclass(frozen=True, slots=True, eq=False)
class Emitter:
    """What handlers emit with: the function so far, and the node being taken in."""

    b: Builder
    facts: Facts
    fast: bool
    """Keep the precision of intermediate f16 and bf16 instead of rounding as eager."""
    default_float: DType
    """The dtype of a float that no tensor decides."""
    home: torch.device
    """Where the function's kernels run."""
    updates: tuple[str, ...] = ()
    """The dtypes whose elements it pays to combine in memory: see `Target.updates`."""
    results: tuple[Tensor, ...] = ()
    """The types that torch says the node's results have."""
    whole: bool = False
    """Whether the node's first operand fills memory of its own, in row-major order."""

    @property
    def dtype(self) -> DType:
        """The element type of the node's first result."""
        return self.results[0].dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The shape of the node's first result."""
        return self.results[0].shape

    def const(self, number: Number, dtype: DType) -> Term:
        """A scalar, rounded to `dtype`. Raises `Undecided` for one that is computed."""
        if isinstance(number, (Term, Expr)):
            raise Undecided
        rounded = dtype.quantize(number).item()
        return Term(self, self.b.const(rounded, dtype))

    def size(self, dim: Dim) -> Term:
        """A dim as an i64 scalar."""
        return Term(self, self.b.size(dim))

    def term(self, x: Operand, dtype: DType) -> Term:
        """A number or dim as a scalar of `dtype`; a term cast to it."""
        if isinstance(x, Term):
            return x.cast(dtype)
        if isinstance(x, Expr):
            return self.size(x).cast(dtype)
        return self.const(x, dtype)

    def full(self, x: Operand, shape: Sequence[Dim], dtype: DType) -> Term:
        """A tensor of one value."""
        return self.term(x, dtype).broadcast(tuple(shape))

    def iota(self, shape: Sequence[Dim], dim: int) -> Term:
        """The coordinate along `dim`, as i64."""
        return Term(self, self.b(Iota, shape=tuple(shape), dim=dim))

    def concat(self, terms: Sequence[Term], dim: int) -> Term:
        """Terms of one dtype, one after the other."""
        return Term(self, self.b(Concat, *(t.value for t in terms), dim=dim))


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """An IR value that knows how to be computed with. See the module."""

    e: Emitter
    value: Value

    @property
    def dtype(self) -> DType:
        return self.value.type.dtype  # type: ignore[union-attr]

    def __bool__(self) -> bool:
        raise Undecided

    @property
    def is_scalar(self) -> bool:
        """Whether this is an IR scalar. A tensor of no dimensions is not."""
        return isinstance(self.value.type, Scalar)

    @property
    def shape(self) -> tuple[Dim, ...]:
        """() for scalars, too."""
        return () if self.is_scalar else self.value.type.shape  # type: ignore

    @property
    def strides(self) -> tuple[Dim, ...] | None:
        """None for row-major; those of a functional result are not chosen yet."""
        return None if self.is_scalar else self.value.type.strides  # type: ignore

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def elements(self) -> Dim:
        """How many there are."""
        return product(self.shape)

    def wrap(self, dim: int) -> int:
        """A dimension counted from 0. Of no dimensions, torch lets one name one."""
        return dim % max(self.rank, 1)

    # ------------------------------------------------------------- elements

    def cast(self, dtype: DType) -> Term:
        """The same numbers in another dtype."""
        source = self.value
        if self.e.fast:
            source = _unrounded(self.e.b, source, dtype)
        return Term(self.e, self.e.b(Cast, source, dtype=dtype))

    def bitcast(self, dtype: DType) -> Term:
        """The same bits in another dtype of this width."""
        return self._emit(Bitcast, dtype=dtype)

    def wide(self) -> Term:
        """In the dtype that ATen computes formulas in: f32 for f16 and bf16."""
        return self.cast(f32) if self.dtype in (f16, bf16) else self

    def __add__(self, other: Operand) -> Term:
        return call(ops.Add, self, other)

    def __radd__(self, other: Operand) -> Term:
        return call(ops.Add, self.like(other), self)

    def __sub__(self, other: Operand) -> Term:
        return call(ops.Sub, self, other)

    def __rsub__(self, other: Operand) -> Term:
        return call(ops.Sub, self.like(other), self)

    def __mul__(self, other: Operand) -> Term:
        return call(ops.Mul, self, other)

    def __rmul__(self, other: Operand) -> Term:
        return call(ops.Mul, self.like(other), self)

    def __truediv__(self, other: Operand) -> Term:
        return call(ops.Div, self, other)

    def __rtruediv__(self, other: Operand) -> Term:
        return call(ops.Div, self.like(other), self)

    def __neg__(self) -> Term:
        return call(ops.Neg, self)

    def __lt__(self, other: Operand) -> Term:
        return call(ops.Lt, self, other)

    def __le__(self, other: Operand) -> Term:
        return call(ops.Le, self, other)

    def __gt__(self, other: Operand) -> Term:
        return call(ops.Gt, self, other)

    def __ge__(self, other: Operand) -> Term:
        return call(ops.Ge, self, other)

    def __and__(self, other: Operand) -> Term:
        return call(ops.And, self, other)

    def __or__(self, other: Operand) -> Term:
        return call(ops.Or, self, other)

    def equals(self, other: Operand) -> Term:
        """x == y, elementwise; `==` itself compares terms."""
        return call(ops.Eq, self, other)

    def maximum(self, other: Operand) -> Term:
        return call(ops.Maximum, self, other)

    def minimum(self, other: Operand) -> Term:
        return call(ops.Minimum, self, other)

    def like(self, other: Operand) -> Term:
        """A number or dim as a scalar of this dtype; a term as it is."""
        return other if isinstance(other, Term) else self.e.term(other, self.dtype)

    def checked(self, ok: Term, message: str, error: str) -> Term:
        """The same; the call fails where it is not `ok`: one of `CHECK_ERRORS`."""
        x, ok = _aligned([self, ok])
        made = self.e.b(Checked, x.value, ok.value, message=message, error=error)
        return Term(self.e, made)

    # --------------------------------------------------------------- shapes

    def reshape(self, shape: Iterable[Dim]) -> Term:
        return self._emit(Reshape, shape=tuple(shape))

    def flat(self) -> Term:
        """All elements in row-major order, as one dimension."""
        return self.reshape((self.elements,))

    def unsqueeze(self, dim: int) -> Term:
        return self.reshape((*self.shape[:dim], 1, *self.shape[dim:]))

    def permute(self, order: Iterable[int]) -> Term:
        return self._emit(Permute, order=tuple(order))

    def slice(self, dim: int, start: Dim, length: Dim, step: int = 1) -> Term:
        return self._emit(Slice, dim=dim, start=start, length=length, step=step)

    def broadcast(self, shape: tuple[Dim, ...]) -> Term:
        """Repeated to `shape`; dimensions missing on the left are added."""
        if self.is_scalar:
            return self._emit(Broadcast, shape=shape)
        lifted = self.reshape((1,) * (len(shape) - self.rank) + self.shape)
        return lifted._emit(Broadcast, shape=shape)

    def reduce(self, name: str, dims: Iterable[int], keep: bool = False) -> Term:
        """Combined along `dims` by the monoid of that name; `keep` leaves extent 1."""
        return reduce(name, (self,), tuple(dims), keep)[0]

    def count(self, dims: Iterable[int]) -> Dim:
        """How many elements `dims` span."""
        return product(self.shape[d] for d in dims) if not self.is_scalar else 1

    def _emit(self, op: type[Op], **attrs: Any) -> Term:
        return Term(self.e, self.e.b(op, self.value, **attrs))


Operand = Term | Number | Expr


def call(op: type[Op], *operands: Operand) -> Term:
    """An elementwise op on terms of one dtype, numbers and dims; broadcasts.

    Fast numerics compute narrow floats in f32: what reads the result as f32 again
    finds it as it was before the cast, so only what is stored is rounded, and what is
    compared with one another: either may have been stored, and read again.
    """
    guide = next(x for x in operands if isinstance(x, Term))
    terms = _aligned([guide.like(x) for x in operands])
    rounds = issubclass(op, Comparison) and not any(t.is_scalar for t in terms)
    if rounds or not (guide.e.fast and _widens(op, guide.dtype)):
        return Term(guide.e, guide.e.b(op, *(t.value for t in terms)))
    result = Term(guide.e, guide.e.b(op, *(t.wide().value for t in terms)))
    return result if op.gives else result.cast(guide.dtype)  # type: ignore[attr-defined]


def _widens(op: type[Op], dtype: DType) -> bool:
    return dtype in (f16, bf16) and issubclass(op, ops.Elementwise) and op.widens


def where(condition: Term, x: Operand, y: Operand) -> Term:
    """x where the condition holds, else y; one of them is a term."""
    guide = x if isinstance(x, Term) else y
    assert isinstance(guide, Term)
    terms = _aligned([condition, guide.like(x), guide.like(y)])
    return Term(guide.e, guide.e.b(ops.Select, *(t.value for t in terms)))


def reduce(
    name: str, terms: Sequence[Term], dims: tuple[int, ...], keep: bool = False
) -> tuple[Term, ...]:
    """Terms of one shape combined along `dims`; the monoid is over the first's dtype.

    Nothing to combine along no dimensions: each element is the result.
    """
    first = terms[0]
    if not dims or not first.rank:
        return tuple(terms)
    attrs = (tuple(sorted(dims)), monoid(name, first.dtype))
    values = first.e.b.emit(ReduceDims, (t.value for t in terms), attrs)
    results = [Term(first.e, value) for value in values]
    if not keep:
        return tuple(results)
    kept = tuple(1 if d in dims else n for d, n in enumerate(first.shape))
    return tuple(result.reshape(kept) for result in results)


def scan(name: str, terms: Sequence[Term], dim: int) -> tuple[Term, ...]:
    """Terms of one shape, at each place combined with all before it along `dim`."""
    first = terms[0]
    attrs = (dim, monoid(name, first.dtype), False)
    values = first.e.b.emit(ScanDim, (t.value for t in terms), attrs)
    return tuple(Term(first.e, value) for value in values)


def negate(condition: Term) -> Term:
    """Not, of a bool."""
    assert condition.dtype is bool_
    return call(ops.Not, condition)


def _aligned(terms: Sequence[Term]) -> list[Term]:
    """Terms broadcast to the shape they share; scalars stay, they join any shape."""
    shape: tuple[Dim, ...] = ()
    for term in terms:
        shape = broadcast_shapes(shape, term.shape)
    return [t if t.is_scalar else t.broadcast(shape) for t in terms]


def broadcast_shapes(a: tuple[Dim, ...], b: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The shape that tensors of shapes a and b have in common, as torch broadcasts."""
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    return tuple(n if m == 1 else m for m, n in zip(a, b, strict=True))


def _unrounded(b: Builder, value: Value, dtype: DType) -> Value:
    """The wider float that a cast just rounded, where the cast is about to undo it."""
    made = b.definition(value)
    if not isinstance(made, Cast) or made.dtype not in (f16, bf16):
        return value
    source: Value = made.operands[0]
    return source if source.type == _retyped(value, dtype) else value


def _retyped(value: Value, dtype: DType) -> object:
    type_ = value.type
    if isinstance(type_, Tensor):
        return Tensor(dtype, type_.shape, type_.strides)
    return Scalar(dtype)
