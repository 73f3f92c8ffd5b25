"""Tensors made from sizes and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusec.frontend.aten.registry import lowers
from fusec.frontend.aten.term import Emitter, Operand, Term
from fusec.ir.dims import Dim
from fusec.ir.dtypes import bf16, f16, f32, f64


@lowers("aten.full.default")
def full(e: Emitter, size: Sequence[Dim], value: Operand, **options: Any) -> Term:
    return e.term(value, e.dtype)


@lowers("aten.full_like.default")
def full_like(e: Emitter, x: Term, value: Operand, **options: Any) -> Term:
    return e.term(value, e.dtype)


@lowers("aten.new_full.default")
def new_full(
    e: Emitter, x: Term, size: Sequence[Dim], value: Operand, **options: Any
) -> Term:
    return e.term(value, e.dtype)


@lowers("aten.fill.Scalar", "aten.fill.Tensor")
def fill(e: Emitter, x: Term, value: Operand) -> Term:
    return e.term(value, e.dtype)


@lowers("aten.scalar_tensor.default")
def scalar_tensor(e: Emitter, value: Operand, **options: Any) -> Term:
    return e.term(value, e.dtype)


@lowers(
    "aten.zeros.default",
    "aten.zeros_like.default",
    "aten.new_zeros.default",
    "aten._efficientzerotensor.default",
    "aten.empty.memory_format",
    "aten.empty_like.default",
    "aten.empty_strided.default",
    "aten.empty_permuted.default",
    "aten.new_empty.default",
    "aten.new_empty_strided.default",
)
def zeros(e: Emitter, *sizes: Any, **options: Any) -> Term:
    """What is empty may as well hold zeros: any values will do."""
    return e.const(0, e.dtype)


@lowers("aten.ones.default", "aten.ones_like.default", "aten.new_ones.default")
def ones(e: Emitter, *sizes: Any, **options: Any) -> Term:
    return e.const(1, e.dtype)


@lowers("prims.iota.default")
def iota(e: Emitter, length: Dim, *, start: Dim, step: Dim, **options: Any) -> Term:
    return e.iota((length,), 0) * step + start


@lowers("aten.arange.start_step")
def arange(
    e: Emitter, start: Operand, end: Operand, step: Operand = 1, **options: Any
) -> Term | None:
    """start + k·step: exact in integers, f32 in double and rounded once.

    ATen rounds where each of its vectors begins, too: on each machine elsewhere.
    """
    if any(isinstance(x, Term) for x in (start, step)):
        return None
    index = e.iota(e.shape, 0)
    if e.dtype.is_int:
        return index * step + start
    return index.cast(f32 if e.dtype in (f16, bf16) else f64) * step + start
