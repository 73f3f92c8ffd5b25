"""Ops on tiles: layouts changing, coordinates, guards, reductions, loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiles import Array, Kernel, Run, memory

from fusec.codegen import llvm
from fusec.errors import InternalError
from fusec.ir.builder import Builder
from fusec.ir.core import Level, Monoid, Value
from fusec.ir.dims import Symbol
from fusec.ir.dtypes import DType, bf16, bool_, f32, i64, parse_dtype
from fusec.ir.layout import Digit, Layout, parse_layout, row_major, tile_layout
from fusec.ir.monoids import MAKERS, monoid
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.reduction import ReduceTile
from fusec.ir.ops.tile import (
    BroadcastTile,
    Convert,
    For,
    Guard,
    IotaTile,
    LoadTile,
    ProgramId,
    Scratch,
    StoreTile,
)
from fusec.ir.types import Buffer, Scalar, Space, Tile
from fusec.target import X86_64, X86_64_V4

N = Symbol("n")


# ------------------------------------------------------------- moving elements

LAYOUTS = [
    "(4:reg@2, 2:reg 8:lane)",
    "(4:reg@2, 8:lane 2:reg)",
    "(4:reg 16:lane)",
    "(4:lane@4, 4:reg 4:lane)",
    "(4:lane, 16:reg)",
    "(4:reg@16, 16:reg)",
    "(2:lane@8 2:reg, 2:reg@2 8:lane)",
]


def two_dims(text: str) -> Layout:
    """A layout of a 4×16 tile; `(4:reg 16:lane)` is short for one row a register."""
    short = {"(4:reg 16:lane)": "(4:reg, 16:lane)"}
    return parse_layout(short.get(text, text))


@pytest.mark.parametrize("name", ["f32", "bool", "bf16"])
@pytest.mark.parametrize("source", LAYOUTS)
def test_convert_moves_every_element(source: str, name: str, run: Run) -> None:
    dtype = parse_dtype(name)
    values = np.arange(64).reshape(4, 16) % (2 if dtype.is_bool else 64)
    values = values.astype(dtype.storage)
    k = Kernel()
    x = k.load(values, dtype, two_dims(source))
    outs = [k.store(k.b(Convert, x, layout=two_dims(target))) for target in LAYOUTS]
    k.run(run)
    for out in outs:
        assert (out == values).all()


def test_convert_of_padded_layouts(run: Run) -> None:
    values = np.arange(42, dtype=np.float32).reshape(3, 14)
    a = tile_layout((3, 14), [[("reg", 3)], [("reg", 2), ("lane", 8)]])
    z = tile_layout((3, 14), [[("lane", 4)], [("reg", 14)]])
    k = Kernel()
    there = k.b(Convert, k.load(values, f32, a), layout=z)
    out, again = k.store(there), k.store(k.b(Convert, there, layout=a))
    k.run(run)
    assert (out == values).all()
    assert (again == values).all()


def test_renaming_registers_costs_nothing() -> None:
    k = Kernel()
    x = k.load(np.zeros((2, 16), np.float32), f32, parse_layout("(2:reg, 16:lane)"))
    moved = k.b(Convert, x, layout=parse_layout("(2:reg, 16:lane)"))
    k.store(k.b(Convert, moved, layout=parse_layout("(2:reg, 16:lane)")))
    assert "shufflevector" not in llvm.emit(k.b.function("f"), X86_64_V4).text


NARROW = [
    ([("reg", 4)], []),
    ([("lane", 4)], []),
    ([("lane", 2), ("reg", 2)], []),
    ([], [("reg", 2), ("lane", 8)]),
    ([], [("lane", 8), ("reg", 2)]),
    ([], [("reg", 16)]),
    ([], []),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_broadcast_repeats_dimensions(layout: str, run: Run) -> None:
    k = Kernel()
    wide = Tile(f32, (4, 16), two_dims(layout))
    checks: list[tuple[Array, Array]] = []
    for splits in NARROW:
        shape = (4 if splits[0] else 1, 16 if splits[1] else 1)
        values = np.arange(1, 1 + math.prod(shape), dtype=np.float32).reshape(shape)
        x = k.load(values, f32, tile_layout(shape, splits))
        checks.append((k.store(k.b(BroadcastTile, x, type=wide)), values))
    k.run(run)
    for out, values in checks:
        assert (out == np.broadcast_to(values, (4, 16))).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scalars_and_coordinates_in_every_lane(layout: str, run: Run) -> None:
    k = Kernel()
    type_ = Tile(i64, (4, 16), two_dims(layout))
    rows = k.b(IotaTile, k.b.size(N), type=type_, dim=0)
    columns = k.b(IotaTile, k.b.const(100, i64), type=type_, dim=1)
    sizes = k.b(BroadcastTile, k.b.size(N), type=type_)
    total = k.b(ew.Add, rows, k.b(ew.Mul, columns, k.b.size(N)))
    out, all_sizes = k.store(total), k.store(sizes)
    k.run(run, names=(N,), symbols=(7,))
    i, j = np.indices((4, 16))
    assert (out == 7 + i + 7 * (100 + j)).all()
    assert (all_sizes == 7).all()


# ------------------------------------------------------------------ reductions


def reference(m: str, dtype: DType, x: Array, axes: tuple[int, ...]) -> list[Array]:
    """What numpy makes of the reduction; of an argmax, over flat positions."""
    keep: dict[str, Any] = {"axis": axes, "keepdims": True}
    if m in ("argmax", "argmin"):
        moved = np.moveaxis(x, axes, range(-len(axes), 0))
        flat = moved.reshape(*moved.shape[: x.ndim - len(axes)], -1)
        at = getattr(np, m)(flat, axis=-1)
        shape = tuple(1 if d in axes else n for d, n in enumerate(x.shape))
        value = np.take_along_axis(flat, at[..., None], -1)
        return [value.reshape(shape), at.reshape(shape)]
    if m == "welford":
        count = np.full(x.shape, 1, x.dtype).sum(**keep)
        return [x.mean(**keep), x.var(**keep) * count, count]
    return [getattr(np, m)(x, **keep).astype(dtype.carrier)]


def states(k: Kernel, m: Monoid, x: Value, axes: tuple[int, ...]) -> list[Value]:
    """The state of one element, for each element of a tile."""
    b, type_ = k.b, x.type
    assert isinstance(type_, Tile)
    if m.name.startswith("arg"):
        where = Tile(i64, type_.shape, type_.layout)
        total = b(BroadcastTile, b.const(0, i64), type=where)
        for axis in axes:
            coords = b(IotaTile, b.const(0, i64), type=where, dim=axis)
            size = b.const(int(str(type_.shape[axis])), i64)
            total = b(ew.Add, b(ew.Mul, total, size), coords)
        return [x, total]
    if m.name.startswith("welford"):
        zero, one = (
            b(BroadcastTile, b.const(c, type_.dtype), type=type_) for c in (0.0, 1.0)
        )
        return [x, zero, one]
    return [x]


DTYPES = {"any": [bool_], "all": [bool_], "welford": [f32]}
REDUCED = [
    "(4:reg@2, 2:reg 8:lane)",
    "(4:lane@4, 4:reg 4:lane)",
    "(4:lane, 16:reg)",
    "(4:reg@6, 6:reg 3:lane < 16)",
]


SCANNED = {"lastmax", "lastmin", "logsumexp"}
"""Monoids that do not commute, or whose ops are expanded before LLVM sees them."""


@pytest.mark.parametrize("m", sorted(MAKERS.keys() - SCANNED))
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=str)
def test_every_monoid_over_registers_and_lanes(
    m: str, axes: tuple[int, ...], run: Run
) -> None:
    random = np.random.default_rng(3)
    k = Kernel()
    checks: list[tuple[DType, list[Array], list[Array]]] = []
    for dtype in DTYPES.get(m, [f32, i64]):
        values = random.integers(-3, 4, (4, 16))
        x = values > 0 if dtype.is_bool else values.astype(dtype.carrier)
        if dtype.is_float and m in ("max", "min", "argmax", "argmin"):
            x[2, 5] = x[2, 9] = np.nan
        for text in REDUCED:
            tile = k.load(x, dtype, two_dims(text))
            what = monoid(m, dtype)
            results = k.b.emit(ReduceTile, states(k, what, tile, axes), (axes, what))
            outs = [k.store(r) for r in results]
            checks.append((dtype, outs, reference(m, dtype, x, axes)))
    k.run(run)
    for dtype, outs, expected in checks:
        tolerance = 1e-5 if dtype is f32 else 1e-12
        for out, right in zip(outs, expected, strict=True):
            assert np.allclose(out, right, tolerance, tolerance, equal_nan=True)


def test_a_narrow_sum_rounds_each_state(run: Run) -> None:
    # 256 + 1 rounds to 256 in bf16, whatever the width of the combination.
    values = np.full((1, 16), 1.0)
    values[0, 0] = 256
    k = Kernel()
    x = k.load(bf16.encode(values), bf16, tile_layout((1, 16), [[], [("reg", 16)]]))
    (total,) = k.b.emit(ReduceTile, (x,), ((1,), monoid("sum", bf16)))
    out = k.store(total)
    k.run(run)
    # ((256+1)+(1+1))+(2+2) + 8: 256, 258 -> 258, 262, 270
    assert bf16.decode(out).item() == 270


def test_a_monoid_that_does_not_commute_is_refused() -> None:
    k = Kernel()
    x = k.load(
        np.zeros((1, 16), np.float32), f32, tile_layout((1, 16), [[], [("lane", 16)]])
    )
    m = monoid("sum", f32)
    ordered = Monoid("first", m.identity, m.combine, commutative=False)
    k.b.emit(ReduceTile, (x,), ((1,), ordered))
    with pytest.raises(InternalError, match="does not commute"):
        llvm.emit(k.b.function("f"), X86_64)


@pytest.mark.parametrize("known", [True, False])
def test_guard_gives_the_identity(known: bool, run: Run) -> None:
    values = np.arange(64, dtype=np.float32).reshape(4, 16)
    k = Kernel()
    x = k.load(values, f32, parse_layout("(4:reg@2, 2:reg 8:lane)"))
    limits = (3, 5)
    sizes = [k.b.const(n, i64) if known else k.b.size(N + n) for n in limits]
    out = k.store(k.b(Guard, x, *sizes, limited=(0, 1), identity=-math.inf))
    k.run(run, names=(N,), symbols=(0,))
    i, j = np.indices((4, 16))
    assert (out == np.where((i < 3) & (j < 5), values, -np.inf)).all()


# ----------------------------------------------------------------------- loops

ROW = tile_layout((32,), [[("reg", 2), ("lane", 16)]])


def row_sum(k: Kernel, hi: Value, lo: int = 0, step: int = 32) -> tuple[Value, Value]:
    """Σ x[lo:hi] by a loop that carries a tile and counts its trips in a scalar."""
    b = k.b
    x = b.param(memory(f32), "in0")
    type_ = Tile(f32, (32,), ROW)
    zero = b(BroadcastTile, b.const(0.0, f32), type=type_)
    inner = b.nested()
    i = inner.param(Scalar(i64), "i")
    total = inner.param(type_, "total")
    trips = inner.param(Scalar(i64), "trips")
    tile = inner(LoadTile, x, i, type=type_, strides=(1,))
    yields = (inner(ew.Add, total, tile), inner(ew.Add, trips, b.const(1, i64)))
    operands = (b.const(lo, i64), hi, zero, b.const(0, i64))
    total, trips = b.emit(For, operands, (step, -1), (inner.block(yields),))
    (row,) = b.emit(ReduceTile, (total,), ((0,), monoid("sum", f32)))
    return row, trips


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("trips", [0, 1, 2, 5])
def test_a_loop_carries_tiles_and_scalars(known: bool, trips: int, run: Run) -> None:
    values = np.arange(4096, dtype=np.float32)
    k = Kernel()
    k.inputs.append(values)
    hi = k.b.const(32 * trips, i64) if known else k.b.size(N * 32)
    total, count = row_sum(k, hi)
    out = k.store(total)
    counts = k.store(k.b(BroadcastTile, count, type=Tile(i64, (32,), ROW)))
    k.run(run, names=(N,), symbols=(trips,))
    assert out[0] == values[: 32 * trips].sum()
    assert (counts == trips).all()


def test_a_loop_of_one_trip_has_no_branch() -> None:
    k = Kernel()
    total, _ = row_sum(k, k.b.const(32, i64))
    k.store(total)
    text = llvm.emit(k.b.function("f"), X86_64_V4).text
    assert text.count(" br ") == 2  # of the loop over programs


@pytest.mark.parametrize("size", [0, 1, 5])
def test_a_loop_of_one_trip_at_most_is_a_condition(size: int, run: Run) -> None:
    values = np.arange(4096, dtype=np.float32)
    k = Kernel()
    k.inputs.append(values)
    total, count = row_sum(k, k.b(ew.Minimum, k.b.size(N), k.b.const(1, i64)))
    out = k.store(total)
    counts = k.store(k.b(BroadcastTile, count, type=Tile(i64, (32,), ROW)))
    text = llvm.emit(k.b.function("f", symbols=(N,)), X86_64_V4).text
    assert text.count("_loop:") == 1  # that over programs
    k.run(run, names=(N,), symbols=(size,))
    assert out[0] == (values[:32].sum() if size else 0)
    assert (counts == min(size, 1)).all()


@pytest.mark.parametrize("size", [0, 1, 4])
def test_nested_loops_and_scratch(size: int, run: Run) -> None:
    # y[r] = Σ over c of (x[r, c] + c), through a scratch row, for r < size.
    values = np.arange(256, dtype=np.float32).reshape(4, 64)
    k = Kernel()
    b = k.b
    k.inputs.append(values)
    k.outputs.append(np.zeros(4, np.float32))
    x, y = b.param(memory(f32), "in0"), b.param(memory(f32), "out0")
    type_ = Tile(f32, (32,), ROW)
    row = Buffer(f32, row_major((64,), 32), Space.SCRATCH)
    (scratch,) = b.emit(Scratch, (), (row,))
    zero = b(BroadcastTile, b.const(0.0, f32), type=type_)

    outer = b.nested()
    r = outer.param(Scalar(i64), "r")
    start = outer(ew.Mul, r, b.const(64, i64))
    first = outer.nested()
    c = first.param(Scalar(i64), "c")
    at = first(ew.Add, start, c)
    where = first(IotaTile, c, type=Tile(i64, (32,), ROW), dim=0)
    tile = first(LoadTile, x, at, type=type_, strides=(1,))
    tile = first(ew.Add, tile, first(Cast, where, dtype=f32))
    attrs = ((1,), (), False, False, False, "")
    first.emit(StoreTile, (tile, scratch, c), attrs)
    bounds = b.const(0, i64), b.const(64, i64)
    outer.emit(For, bounds, (32, -1), (first.block(),))

    second = outer.nested()
    c = second.param(Scalar(i64), "c")
    total = second.param(type_, "total")
    tile = second(LoadTile, scratch, c, type=type_, strides=(1,))
    body = second.block((second(ew.Add, total, tile),))
    (total,) = outer.emit(For, (*bounds, zero), (32, -1), (body,))
    (total,) = outer.emit(ReduceTile, (total,), ((0,), monoid("sum", f32)))
    outer.emit(StoreTile, (total, y, r), attrs)
    b.emit(For, (b.const(0, i64), b.size(N)), (1, -1), (outer.block(),))

    k.run(run, names=(N,), symbols=(size,))
    expected = (values + np.arange(64)).sum(1)
    expected[size:] = 0
    assert (k.outputs[0] == expected).all()


def test_programs_are_numbered(run: Run) -> None:
    k = Kernel()
    k.outputs.append(np.zeros(8, np.int64))
    y = k.b.param(memory(i64), "out0")
    p = k.b(ProgramId)
    one = Tile(i64, (1,), Layout([()]))
    value = k.b(BroadcastTile, k.b(ew.Mul, p, p), type=one)
    k.b.emit(StoreTile, (value, y, p), ((1,), (), False, False, False, ""))
    k.run(run, grid=6)
    assert k.outputs[0].tolist() == [0, 1, 4, 9, 16, 25, 0, 0]


# ------------------------------------------------------------------ whole texts


def softmax(rows: int = 4, columns: int = 100) -> Any:
    b = Builder(Level.TILE)
    x, y = b.param(memory(f32), "x"), b.param(memory(f32), "y")
    splits = [[("reg", rows)], [("reg", -(-columns // 16)), ("lane", 16)]]
    type_ = Tile(f32, (rows, columns), tile_layout((rows, columns), splits))
    at = b(ew.Mul, b(ProgramId), b.const(rows * columns, i64))
    tile = b(LoadTile, x, at, type=type_, strides=(columns, 1))
    (top,) = b.emit(ReduceTile, (tile,), ((1,), monoid("max", f32)))
    e = b(ew.Exp, b(ew.Sub, tile, b(BroadcastTile, top, type=type_)))
    (total,) = b.emit(ReduceTile, (e,), ((1,), monoid("sum", f32)))
    result = b(ew.Div, e, b(BroadcastTile, total, type=type_))
    attrs = ((columns, 1), (), False, False, False, "")
    b.emit(StoreTile, (result, y, at), attrs)
    return b.function("softmax")


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 2), columns=st.integers(1, 70))
def test_softmax_of_any_shape(rows: int, columns: int, run: Run) -> None:
    x = np.random.default_rng(columns).standard_normal((3 * rows, columns)) * 9
    x = x.astype(np.float32)
    y = np.zeros_like(x)
    run(softmax(rows, columns), [x, y], grid=3)
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    assert np.allclose(y, e / e.sum(1, keepdims=True), 1e-5, 1e-7)


def test_a_tile_without_layout_is_refused() -> None:
    b = Builder(Level.TILE)
    x = b.param(memory(f32), "x")
    b(LoadTile, x, b.size(0), type=Tile(f32, (4,)), strides=(1,))
    with pytest.raises(InternalError, match="without a layout"):
        llvm.emit(b.function("f"), X86_64)


def test_time_digits_are_refused() -> None:
    b = Builder(Level.TILE)
    x = b.param(memory(f32), "x")
    type_ = Tile(f32, (4,), Layout([(Digit(4, 1, "time"),)]))
    b(LoadTile, x, b.size(0), type=type_, strides=(1,))
    with pytest.raises(InternalError, match="lane and reg digits only"):
        llvm.emit(b.function("f"), X86_64)


def test_an_op_without_row_is_named() -> None:
    with pytest.raises(InternalError, match="no row for exp of f32"):
        llvm.emit(softmax(), X86_64_V4)
