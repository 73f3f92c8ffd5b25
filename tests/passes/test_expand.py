"""Expansion closes every op over a backend's rows, and keeps its meaning."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from fusec.codegen import llvm
from fusec.errors import InternalError
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level, walk
from fusec.ir.dtypes import DType, bf16, bool_, f16, f32, i64, int_, parse_dtype
from fusec.ir.layout import row_major, tile_layout
from fusec.ir.monoids import monoid
from fusec.ir.opdef import REGISTRY
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.cast import Bitcast, Cast
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.reduction import ReduceTile
from fusec.ir.ops.tile import For, LoadTile
from fusec.ir.types import Buffer, Scalar, Tile
from fusec.passes.expand import expand
from fusec.target import TARGETS, X86_64, X86_64_V4, Target

DTYPES = [
    parse_dtype(name)
    for name in "bool i8 i16 i32 i64 u8 u16 u32 u64 f16 bf16 f32 f64".split()
]
OPS = [
    op
    for op in REGISTRY.values()
    if isinstance(op, type) and issubclass(op, ew.Elementwise)
]


def rows(target: Target) -> Callable[[Any, DType], bool]:
    return partial(llvm.supports, target=target)


def single(op: Any, dtype: DType) -> Function:
    """A function of one op on parameters."""
    b = Builder(Level.TILE)
    dtypes = [dtype] * len(op.operand_fields)
    if op is ew.Select:
        dtypes[0] = bool_
    if op is ew.Ldexp:
        dtypes[1] = int_(dtype.bits)
    params = [b.param(Scalar(d)) for d in dtypes]
    return b.function("single", (b(op, *params),))


def decisive(op: Any) -> DType:
    return dtype_of(op.operands[1 if isinstance(op, ew.Select) else 0])


def lacks(op: Any, supports: Callable[[Any, DType], bool]) -> bool:
    if isinstance(op, (Cast, Bitcast)):
        return not all(supports(type(op), d) for d in (decisive(op), op.dtype))
    return isinstance(op, ew.Elementwise) and not supports(type(op), decisive(op))


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda t: t.name)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_op_closes_over_the_rows(op: Any, target: Target) -> None:
    supports = rows(target)
    for dtype in DTYPES:
        if not op.takes(dtype):
            continue
        closed = expand(single(op, dtype), supports)
        assert not [o for o in walk(closed.body) if lacks(o, supports)]
        assert closed.body.yields[0].type == single(op, dtype).body.yields[0].type


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_an_op_costs_about_what_it_expands_into(op: Any) -> None:
    dtype = f32 if op.takes(f32) else i64
    if not op.takes(dtype):
        return
    closed = expand(single(op, dtype), rows(X86_64_V4))
    kinds = (ew.Elementwise, Cast, Bitcast)
    made = [o for o in closed.body.ops if isinstance(o, kinds)]  # not what few need
    if len(made) > 2:
        assert len(made) / 1.5 <= op.cost <= len(made) * 1.5


def test_an_op_with_a_row_stays() -> None:
    closed = expand(single(ew.Add, f32), rows(X86_64))
    assert [type(op) for op in closed.body.ops] == [ew.Add]


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_narrow_floats_compute_in_f32(dtype: DType) -> None:
    closed = expand(single(ew.Add, dtype), rows(X86_64_V4))
    wide, other, total, narrow = closed.body.ops
    assert [type(op) for op in (wide, other, narrow)] == [Cast, Cast, Cast]
    assert isinstance(total, ew.Add)
    assert dtype_of(total.result) is f32
    assert dtype_of(narrow.result) is dtype


def test_each_narrow_op_rounds() -> None:
    b = Builder(Level.TILE)
    x = b.param(Scalar(bf16))
    closed = expand(b.function("f", (b(ew.Mul, b(ew.Add, x, x), x),)), rows(X86_64))
    narrowing = [
        op for op in closed.body.ops if isinstance(op, Cast) and op.dtype is bf16
    ]
    assert len(narrowing) == 2


def test_comparisons_of_narrow_floats_give_bool() -> None:
    closed = expand(single(ew.Lt, f16), rows(X86_64))
    assert dtype_of(closed.body.yields[0]) is bool_
    assert isinstance(closed.body.ops[-1], ew.Lt)


def test_narrow_constants_become_wide_ones() -> None:
    b = Builder(Level.TILE)
    x = b.param(Scalar(bf16))
    total = b(ew.Add, x, b.const(1.5, bf16))
    closed = expand(b.function("f", (total,)), rows(X86_64))
    (add,) = (op for op in closed.body.ops if isinstance(op, ew.Add))
    constants = [op for op in closed.body.ops if op.name == "const"]
    assert add.operands[1] in [op.result for op in constants if op.dtype is f32]


def test_blocks_expand_too() -> None:
    b = Builder(Level.TILE)
    x = b.param(Scalar(f32))
    body = b.nested()
    body.param(Scalar(i64))
    carried = body.param(Scalar(f32))
    block = body.block((body(ew.Exp, carried),))
    bounds = b.const(0, i64), b.const(3, i64)
    (y,) = b.emit(For, (*bounds, x), (1, -1), (block,))
    closed = expand(b.function("f", (y,)), rows(X86_64))
    assert not any(isinstance(op, ew.Exp) for op in walk(closed.body))
    assert any(isinstance(op, For) for op in closed.body.ops)


def test_monoids_expand_too() -> None:
    b = Builder(Level.TILE)
    x = b.param(Buffer(bf16, row_major((16,), 16)))
    type_ = Tile(bf16, (16,), tile_layout((16,), [[("lane", 16)]]))
    tile = b(LoadTile, x, b.const(0, i64), type=type_, strides=(1,))
    b.emit(ReduceTile, (tile,), ((0,), monoid("sum", bf16)))
    closed = expand(b.function("f"), rows(X86_64_V4))
    (reduce,) = (op for op in closed.body.ops if isinstance(op, ReduceTile))
    assert reduce.monoid.name == "sum<bf16>"
    assert not any(lacks(op, rows(X86_64_V4)) for op in reduce.monoid.combine.body.ops)


def test_an_op_that_expands_into_itself_is_named() -> None:
    def supports(op: Any, dtype: DType) -> bool:
        return op is not ew.Gt and op is not ew.Maximum

    with pytest.raises(InternalError, match="gt of f32 has neither"):
        expand(single(ew.Maximum, f32), supports)
