"""The plan of fusion: always one that can run, on any graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import read, same_meaning

from fusec.analysis.fusion import Fusion
from fusec.ir.builder import Builder
from fusec.ir.calls import Slot
from fusec.ir.core import Function, Level, Value
from fusec.ir.dtypes import f32
from fusec.ir.monoids import monoid
from fusec.ir.ops.elementwise import Abs, Eq, Maximum, Neg, Select
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.reduction import ReduceDims
from fusec.ir.ops.view import Broadcast, Index, Iota, Permute, Reshape
from fusec.ir.types import Tensor
from fusec.passes.fuse import fuse
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.target import X86_64_V4

N = 4
SQUARE = Tensor(f32, (N, N))


@st.composite
def nets(draw: st.DrawFn) -> Function:
    """Ops on squares that read any two values before them; some return early."""
    b = Builder(Level.GRAPH)
    values = [b.param(SQUARE, f"x{k}") for k in range(2)]
    for _ in range(draw(st.integers(3, 14))):
        x, y = (draw(st.sampled_from(values)) for _ in range(2))
        kind = draw(
            st.sampled_from(
                ["neg", "max", "rows", "columns", "turn", "extern", "pick", "mark"]
            )
        )
        values.append(_made(b, kind, x, y))
    count = draw(st.integers(1, 3))
    return b.function("net", draw(st.permutations(values))[:count])


def _made(b: Builder, kind: str, x: Value, y: Value) -> Value:
    match kind:
        case "neg":
            return b(Neg, b(Abs, x))
        case "max":
            return b(Maximum, x, y)
        case "turn":
            return b(Permute, x, order=(1, 0))
        case "extern":
            attrs = ("aten.minimum.default", (Slot(0), Slot(1)), (), (SQUARE,))
            return b.emit(Extern, (x, y), attrs)[0]
        case "pick":
            rows = b(Index, y, _place(b, x, SQUARE, 1), dims=(0,), at=0)
            return b(Maximum, rows, x)
        case "mark":
            flat = Tensor(f32, (N * N,))
            counted = b(Iota, shape=flat.shape, dim=0)
            place = _place(b, b(Reshape, x, shape=flat.shape), flat, 0)
            place = b(Index, counted, b(Reshape, place, shape=(1,)), dims=(0,), at=0)
            there = b(Eq, counted, b(Broadcast, place, shape=flat.shape))
            return b(Select, b(Reshape, there, shape=(N, N)), x, y)
        case _:
            dim = 1 if kind == "rows" else 0
            top = b(ReduceDims, x, dims=(dim,), monoid=monoid("max", f32))
            shape = (N, 1) if dim else (1, N)
            wide = b(Broadcast, b(Reshape, top, shape=shape), shape=(N, N))
            return b(Maximum, wide, y)


def _place(b: Builder, x: Value, type_: Tensor, dim: int) -> Value:
    """Where the largest elements along a dimension are."""
    counted = b(Iota, shape=type_.shape, dim=dim)
    attrs = ((dim,), monoid("argmax", f32))
    return b.emit(ReduceDims, (x, counted), attrs)[1]


def minimum(target: str, arguments: Any, keywords: Any, xs: Any) -> list[Any]:
    return [np.minimum(*xs)]


@settings(max_examples=150, deadline=None)
@given(nets())
def test_groups_never_wait_for_one_another(net: Function) -> None:
    loops = lower_to_loops(net)
    same_meaning(loops, fuse(loops, X86_64_V4, {}), minimum)


def test_a_group_may_be_entered_late_and_left_early() -> None:
    """%a and %p lead to %b and, by way of an extern, to what stands around it."""
    text = """
        graph @f(%x: f32[64, 64], %y: f32[64, 64], %w: f32[64, 64])
            -> (f32[64], f32[64, 64]) {
          %p = reduce_dims %x {dims=(0,), monoid=sum<f32>} : f32[64]
          %a = abs %y : f32[64, 64]
          %q = reshape %p {shape=(1, 64)} : f32[1, 64]
          %r = broadcast %q {shape=(64, 64)} : f32[64, 64]
          %m = mul %a, %r : f32[64, 64]
          %b = reduce_dims %m {dims=(1,), monoid=sum<f32>} : f32[64]
          %e = extern %a, %w {target="aten.minimum.default", arguments=($0, $1), keywords=()} : f32[64, 64]
          %c = mul %e, %r : f32[64, 64]
          %d = mul %c, %x : f32[64, 64]
          yield %b, %d
        }
    """  # noqa: E501
    loops = lower_to_loops(read(text))
    same_meaning(loops, fuse(loops, X86_64_V4, {}), minimum)


def test_what_is_read_in_place_and_at_an_index_moves_as_a_whole() -> None:
    """Where the least element is marked: %1 is counted for it, and read there."""
    text = """
        graph @f(%x: f32[2], %y: f32[2], %z: f32[]) -> (f32[2]) {
          %1 = iota((2,)) {dim=0} : i64[2]
          %2, %3 = reduce_dims %x, %1 {dims=(0,), monoid=argmin<f32>} : f32[], i64[]
          %4 = reshape %3 {shape=(1,)} : i64[1]
          %7 = index %1, %4 {dims=(0,), at=0} : i64[1]
          %8 = iota((2, 1)) {dim=0} : i64[2, 1]
          %9 = reshape %7 {shape=(1, 1)} : i64[1, 1]
          %10 = broadcast %9 {shape=(2, 1)} : i64[2, 1]
          %11 = eq %8, %10 : bool[2, 1]
          %12 = reshape %11 {shape=(2,)} : bool[2]
          %14 = select %12, %y, %x : f32[2]
          %15 = neg %y : f32[2]
          %18 = exp %x : f32[2]
          %19 = mul %15, %18 : f32[2]
          %23 = add %14, %19 : f32[2]
          yield %23
        }
    """
    loops = lower_to_loops(read(text))
    same_meaning(loops, fuse(loops, X86_64_V4, {}))


@pytest.mark.parametrize(("rows", "kernels"), [(16, 1), (4096, 2)])
def test_what_programs_share_is_not_summed_up_by_each(rows: int, kernels: int) -> None:
    """A row that is added to all others: few programs may compute it, many not."""
    text = f"""
        graph @f(%x: f32[{rows}, 64], %w: f32[64, 576]) -> (f32[{rows}, 64]) {{
          %s = reduce_dims %w {{dims=(1,), monoid=sum<f32>}} : f32[64]
          %r = reshape %s {{shape=(1, 64)}} : f32[1, 64]
          %b = broadcast %r {{shape=({rows}, 64)}} : f32[{rows}, 64]
          %y = add %x, %b : f32[{rows}, 64]
          yield %y
        }}
    """
    plan = Fusion(lower_to_loops(read(text)), X86_64_V4, {}).run()
    assert len(plan.groups) == kernels


def test_every_edge_that_stays_is_explained() -> None:
    text = """
        graph @f(%x: f32[64, 50]) -> (f32[64], f32[50]) {
          %a = abs %x : f32[64, 50]
          %b = reduce_dims %a {dims=(0,), monoid=sum<f32>} : f32[50]
          %c = reduce_dims %a {dims=(1,), monoid=sum<f32>} : f32[64]
          yield %c, %b
        }
    """
    plan = Fusion(lower_to_loops(read(text)), X86_64_V4, {}).run()
    assert len(plan.groups) > 1
    assert all(refusal.reason for refusal in plan.refusals)
    assert plan.refusals
