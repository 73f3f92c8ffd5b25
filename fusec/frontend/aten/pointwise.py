"""Pointwise ATen ops that an elementwise op of the IR stands for by itself.

Most of them come from the `aten` names of the elementwise classes: operands are
promoted as torch promotes them, then the op is emitted on that dtype. The rest of the
file says where ATen departs from that: sums with a factor, division and its rounding
modes, powers, logical ops, casts.

In f16 and bf16, ATen rounds once per op. For most ops it first rounds a number to the
tensor's dtype, as promotion does; products and quotients take it in f32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fusec.frontend.aten.promotion import common_dtype
from fusec.frontend.aten.registry import HANDLERS, Handler, lowers
from fusec.frontend.aten.term import (
    Emitter,
    Number,
    Operand,
    Term,
    call,
    negate,
    where,
)
from fusec.frontend.dtypes import from_torch
from fusec.ir.dims import Expr
from fusec.ir.dtypes import DType, bf16, bool_, f16, f32
from fusec.ir.opdef import REGISTRY
from fusec.ir.ops import elementwise as ops
from fusec.ir.ops.rounding import Rounding


def elementwise(e: Emitter, op: Any, *operands: Operand) -> Term:
    """The op on promoted operands; integers become floats for an op on floats."""
    dtype = common_dtype(e, operands)
    if not dtype.is_float and not op.takes(dtype) and op.takes(e.default_float):
        dtype = e.default_float
    return call(op, *(e.term(x, dtype) for x in operands))


def _handler(op: Any) -> Handler:
    def handle(e: Emitter, *operands: Operand) -> Term | None:
        dtype = common_dtype(e, operands)
        if not (op.takes(dtype) or op.takes(e.default_float)):
            return None
        return elementwise(e, op, *operands)

    return handle


@lowers("aten.add.Tensor", "aten.add.Scalar")
def add(e: Emitter, x: Operand, y: Operand, alpha: Operand = 1) -> Term:
    """x + alpha·y, fused into one rounding as ATen's vectorised kernel has it."""
    dtype = common_dtype(e, (x, y))
    if not dtype.is_bool and alpha == 1:
        return elementwise(e, ops.Add, x, y)
    x, y = e.term(x, dtype), e.term(y, dtype)
    if dtype.is_bool:
        return x | (y & e.term(alpha, bool_))
    if not dtype.is_float:
        return x + y * alpha
    scale = e.term(alpha, dtype).wide()
    return call(ops.Fma, y.wide(), scale, x.wide()).cast(dtype)


@lowers("aten.sub.Tensor", "aten.sub.Scalar")
def sub(e: Emitter, x: Operand, y: Operand, alpha: Operand = 1) -> Term:
    if alpha == 1:
        return elementwise(e, ops.Sub, x, y)
    return add(e, x, y, -alpha)


@lowers("aten.rsub.Tensor", "aten.rsub.Scalar")
def rsub(e: Emitter, x: Operand, y: Operand, alpha: Operand = 1) -> Term:
    return sub(e, y, x, alpha)


@lowers("aten.mul.Tensor", "aten.mul.Scalar")
def mul(e: Emitter, x: Operand, y: Operand) -> Term:
    if common_dtype(e, (x, y)).is_bool:
        return elementwise(e, ops.And, x, y)
    return _scaled(e, ops.Mul, x, y)


@lowers("aten.div.Tensor", "aten.div.Scalar")
def div(e: Emitter, x: Operand, y: Operand) -> Term:
    return _scaled(e, ops.Div, x, y)


def _scaled(e: Emitter, op: Any, x: Operand, y: Operand) -> Term:
    """A product or quotient: one by a number is computed in f32, and rounded once."""
    dtype = common_dtype(e, (x, y))
    if dtype not in (f16, bf16) or (isinstance(y, Term) and y.rank):
        return elementwise(e, op, x, y)
    return call(op, e.term(x, dtype).cast(f32), e.term(y, f32)).cast(dtype)


@lowers("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def div_mode(
    e: Emitter, x: Operand, y: Operand, *, rounding_mode: str | None
) -> Term | None:
    if rounding_mode is None:
        return div(e, x, y)
    if rounding_mode == "floor":
        return floor_divide(e, x, y)
    if common_dtype(e, (x, y)).is_float:
        return call(ops.Trunc, div(e, x, y))
    return _quotient(e, ops.TruncDiv, x, y)


@lowers("aten.floor_divide.default", "aten.floor_divide.Scalar")
def floor_divide(e: Emitter, x: Operand, y: Operand) -> Term | None:
    dtype = common_dtype(e, (x, y))
    if dtype in (f16, bf16) and isinstance(y, Term) and y.elements != 1:
        return _floored(e.term(x, dtype), y.cast(dtype))
    return _quotient(e, ops.FloorDiv, x, y)


def _floored(x: Term, y: Term) -> Term:
    """⌊x / y⌋ of narrow floats in ATen's steps, each of which it rounds, but where it
    divides all by one number."""
    rest = call(ops.Fmod, x, y)
    apart = call(ops.Ne, rest, 0) & call(ops.Ne, y < 0, rest < 0)
    near = (x - rest) / y
    near = where(apart, near - 1, near)
    floor = call(ops.Floor, near)
    floor = where(near - floor > 0.5, floor + 1, floor)
    zero = call(ops.Copysign, near.like(0), x / y)
    return where(y.equals(0), x / y, where(near.equals(0), zero, floor))


@lowers(
    "aten.remainder.Tensor", "aten.remainder.Scalar", "aten.remainder.Scalar_Tensor"
)
def remainder(e: Emitter, x: Operand, y: Operand) -> Term | None:
    return _divided(e, elementwise, ops.Rem, x, y)


@lowers("aten.fmod.Tensor", "aten.fmod.Scalar")
def fmod(e: Emitter, x: Operand, y: Operand) -> Term | None:
    return _divided(e, elementwise, ops.Fmod, x, y)


def _quotient(e: Emitter, op: Any, x: Operand, y: Operand) -> Term | None:
    return _divided(e, _scaled, op, x, y)


def _divided(
    e: Emitter, divide: Callable[..., Term], op: Any, x: Operand, y: Operand
) -> Term | None:
    """`divide` by a checked y; torch does not divide bools."""
    dtype = common_dtype(e, (x, y))
    if dtype.is_bool:
        return None
    return divide(e, op, x, y if dtype.is_float else _divisor(e, y, dtype))


def _divisor(e: Emitter, y: Operand, dtype: DType) -> Operand:
    """An integer that is not 0, as torch has it: checked, where that is not known.

    Nothing to be divided is divided by anything, so each element is checked by itself.
    """
    if _is_nonzero(e, y):
        return y
    divisor = e.full(y, e.shape, dtype)
    nonzero = call(ops.Ne, divisor, 0)
    return divisor.checked(nonzero, "ZeroDivisionError", "RuntimeError")


def _is_nonzero(e: Emitter, y: Operand) -> bool:
    """Whether that is known."""
    if isinstance(y, Expr):
        low, _ = e.facts.range(y)
        return low is not None and low > 0
    number = e.b.constant(y.value) if isinstance(y, Term) else y
    return number is not None and number != 0


@lowers("aten.pow.Tensor_Scalar")
def pow_tensor_scalar(e: Emitter, x: Term, exponent: Operand) -> Term | None:
    """ATen's shortcuts for small powers: products and roots, each op rounded."""
    dtype = common_dtype(e, (x, exponent))
    if not isinstance(exponent, (bool, int, float)):
        return elementwise(e, ops.Pow, x, exponent) if dtype.is_float else None
    if dtype.is_bool:
        return None
    x = x.cast(dtype)
    if dtype is f16:
        # ATen has no shortcuts here: C's pow, by an exponent that is rounded first.
        return call(ops.Pow, x.cast(f32), e.const(exponent, f16).cast(f32)).cast(f16)
    if dtype.is_float:
        return _float_power(e, x, exponent)
    return call(ops.Pow, x, exponent) if exponent >= 0 else None


def _float_power(e: Emitter, x: Term, exponent: Number) -> Term:
    match exponent:
        case 0:
            return e.const(1, x.dtype)
        case 1:
            return x
        case 2:
            return x * x
        case 3:
            return x * x * x
        case 0.5:
            return call(ops.Sqrt, x)
        case -0.5:
            return call(ops.Rsqrt, x)
        case -1:
            return call(ops.Reciprocal, x)
        case -2:
            return call(ops.Reciprocal, x * x)
        case _:
            return call(ops.Pow, x, exponent)


@lowers("aten.pow.Scalar")
def pow_scalar(e: Emitter, base: Number, x: Term) -> Term | None:
    return pow_tensors(e, base, x)


@lowers("aten.pow.Tensor_Tensor")
def pow_tensors(e: Emitter, x: Operand, y: Operand) -> Term | None:
    return None if common_dtype(e, (x, y)).is_bool else elementwise(e, ops.Pow, x, y)


@lowers("aten.ldexp.Tensor")
def ldexp(e: Emitter, x: Term, exponent: Term) -> Term | None:
    """x · 2ⁿ by two ops, as ATen has it: a power that overflows is infinite."""
    power = pow_scalar(e, 2.0, exponent)
    return None if power is None else mul(e, x, power)


@lowers("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther")
def where_self(e: Emitter, condition: Term, x: Operand, y: Operand) -> Term:
    dtype = common_dtype(e, (x, y))
    return where(condition.cast(bool_), e.term(x, dtype), e.term(y, dtype))


@lowers("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(e: Emitter, x: Term, mask: Term, value: Operand) -> Term:
    return where(mask.cast(bool_), e.term(value, x.dtype), x)


@lowers("aten.logical_and.default")
def logical_and(e: Emitter, x: Term, y: Term) -> Term:
    return x.cast(bool_) & y.cast(bool_)


@lowers("aten.logical_or.default")
def logical_or(e: Emitter, x: Term, y: Term) -> Term:
    return x.cast(bool_) | y.cast(bool_)


@lowers("aten.logical_xor.default")
def logical_xor(e: Emitter, x: Term, y: Term) -> Term:
    return call(ops.Xor, x.cast(bool_), y.cast(bool_))


@lowers("aten.logical_not.default")
def logical_not(e: Emitter, x: Term) -> Term:
    return negate(x.cast(bool_))


@lowers("aten.isnan.default")
def isnan(e: Emitter, x: Term) -> Term:
    return call(ops.IsNan, x) if x.dtype.is_float else e.const(False, bool_)


@lowers("aten.isinf.default")
def isinf(e: Emitter, x: Term) -> Term:
    return call(ops.IsInf, x) if x.dtype.is_float else e.const(False, bool_)


@lowers("aten.signbit.default")
def signbit(e: Emitter, x: Term) -> Term:
    if x.dtype.is_float:
        return call(ops.SignBit, x)
    return e.const(False, bool_) if x.dtype.is_bool else x < 0


def _rounding(op: Any) -> Handler:
    """Integers are whole already."""

    def handle(e: Emitter, x: Term) -> Term:
        return call(op, x) if x.dtype.is_float else x

    return handle


@lowers("aten.round.decimals")
def round_decimals(e: Emitter, x: Term, *, decimals: int) -> Term | None:
    """Scaled, rounded and scaled back."""
    if not x.dtype.is_float:
        return None
    x = x.wide()
    scale = 10.0 ** abs(decimals)
    if decimals < 0:
        return call(ops.Round, x / scale) * scale
    return call(ops.Round, x * scale) / scale


@lowers("aten.angle.default")
def angle(e: Emitter, x: Term) -> Term:
    """Of real numbers: π for those below 0, but not for −0."""
    x = x.cast(e.dtype)
    return where(x < 0, math.pi, where(call(ops.IsNan, x), x, 0))


@lowers("aten.abs.default")
def abs_(e: Emitter, x: Term) -> Term:
    return x if x.dtype.is_bool else call(ops.Abs, x)


@lowers("aten.sign.default")
def sign(e: Emitter, x: Term) -> Term:
    return x if x.dtype.is_bool else call(ops.Sign, x)


@lowers("aten.positive.default", "aten.alias.default", "aten.detach.default")
def same(e: Emitter, x: Term) -> Term:
    return x


@lowers("aten.clone.default", "aten.lift_fresh_copy.default")
def clone(e: Emitter, x: Term, **memory: Any) -> Term:
    """Values have no identity: a copy is the value."""
    return x


@lowers("aten._to_copy.default")
def to_copy(e: Emitter, x: Term, **where_to: Any) -> Term:
    return x.cast(e.dtype)


@lowers("prims.convert_element_type.default")
def convert_element_type(e: Emitter, x: Term, dtype: Any) -> Term | None:
    target = from_torch(dtype)
    return None if target is None else x.cast(target)


@lowers("aten.copy.default")
def copy(e: Emitter, x: Term, source: Term, non_blocking: bool = False) -> Term:
    """The functional copy_: x, overwritten."""
    return source.cast(x.dtype).broadcast(x.shape)


@lowers("aten.__lshift__.Scalar", "aten.__lshift__.Tensor")
def lshift(e: Emitter, x: Term, y: Operand) -> Term | None:
    return elementwise(e, ops.Shl, x, y) if e.dtype.is_int else None


@lowers("aten.__rshift__.Scalar", "aten.__rshift__.Tensor")
def rshift(e: Emitter, x: Term, y: Operand) -> Term | None:
    return elementwise(e, ops.Shr, x, y) if e.dtype.is_int else None


def _install() -> None:
    """Register what the classes that there are by now state, where nothing above says
    otherwise."""
    for op in REGISTRY.values():
        make = _rounding if issubclass(op, Rounding) else _handler
        for overload in getattr(op, "aten", ()):
            HANDLERS.setdefault(overload, make(op))


_install()
