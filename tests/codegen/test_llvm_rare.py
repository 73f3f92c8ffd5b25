"""What few elements need, computed apart: in the lanes that need it, and there only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from codegen.conftest import Run

from fusec.codegen import llvm
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level, Monoid
from fusec.ir.dtypes import DType, f16, f32, f64, i8, i64
from fusec.ir.layout import row_major, tile_layout
from fusec.ir.ops.formula import Term, rarely
from fusec.ir.ops.reduction import ReduceTile
from fusec.ir.ops.tile import BroadcastTile, LoadTile, StoreTile
from fusec.ir.types import Buffer, Tile
from fusec.passes.expand import expand
from fusec.target import X86_64_V3

SIZE = 96


def spread(lanes: int) -> Any:
    return tile_layout((SIZE,), [[("reg", SIZE // lanes), ("lane", lanes)]])


def load(b: Builder, dtype: DType, lanes: int, limit: int | None = None) -> Term:
    source = b.param(Buffer(dtype, row_major((SIZE,), dtype.bits)), "x")
    tile = Tile(dtype, (SIZE,), spread(lanes))
    limits = () if limit is None else (b.size(limit),)
    attrs = (tile, (1,), (0,) if limits else (), False, False, 0)
    (value,) = b.emit(LoadTile, (source, b.size(0), *limits), attrs)
    return Term(b, value)


def store(x: Term, limit: int | None = None) -> None:
    out = x.b.param(Buffer(x.dtype, row_major((SIZE,), x.dtype.bits)), "y")
    limits = () if limit is None else (x.b.size(limit),)
    attrs = ((1,), (0,) if limits else (), False, False, False, "")
    x.b.emit(StoreTile, (x.value, out, x.b.size(0), *limits), attrs)


def negated(x: Term) -> Term:
    return -x


def minus(x: Term, y: Term) -> Term:
    return x - y


def folded(dtype: DType, lanes: int, limit: int | None = None) -> Function:
    """x up to 100, −x above."""
    b = Builder(Level.TILE)
    x = load(b, dtype, lanes, limit)
    store(rarely(x > 100, negated, (x,), x), limit)
    return b.function("folded")


LARGE = [(), (0,), (SIZE - 1,), (3, 4, 40, 41, 42), tuple(range(SIZE))]


@pytest.mark.parametrize("large", LARGE, ids=len)
@pytest.mark.parametrize("dtype", [f32, f64, i8, i64], ids=str)
@pytest.mark.parametrize("lanes", [1, 4, 8, 32])
def test_each_lane_that_needs_it_has_it(
    run: Run, dtype: DType, lanes: int, large: tuple[int, ...]
) -> None:
    x = np.arange(SIZE, dtype=dtype.carrier)
    x[list(large)] = 101 + np.arange(len(large)) % 20
    y = np.zeros_like(x)
    run(folded(dtype, lanes), [x, y])
    np.testing.assert_array_equal(y, np.where(x > 100, -x, x))


def test_halves_are_bits(run: Run) -> None:
    x = np.arange(SIZE, dtype=np.float32) + 50
    bits = f16.encode(x).view(np.uint16)
    y = np.zeros_like(bits)
    run(folded(f16, 8), [bits, y])
    np.testing.assert_array_equal(f16.decode(y), np.where(x > 100, -x, x))


@pytest.mark.parametrize("limit", [1, 8, 50])
def test_registers_without_elements_need_nothing(run: Run, limit: int) -> None:
    x = np.full(SIZE, 101, np.float32)
    y = np.zeros_like(x)
    run(folded(f32, 8, limit), [x, y])
    np.testing.assert_array_equal(y, np.where(np.arange(SIZE) < limit, -x, 0))


def test_operands_of_several_types(run: Run) -> None:
    """And of a scalar, and the usual result a scalar, too."""
    b = Builder(Level.TILE)
    x = load(b, f32, 8)
    seven = Term(b, b.const(7.0, f32))
    y = rarely(x > 90.0, minus, (x, seven), seven)
    wide = rarely(x > 90.0, minus, (x.cast(f64), y.cast(f64)), x.cast(f64))
    store(wide)
    x, y = np.arange(SIZE, dtype=np.float32), np.zeros(SIZE)
    run(b.function("several"), [x, y])
    np.testing.assert_array_equal(y, np.where(x > 90, 7, x))


def test_scalars_choose(run: Run) -> None:
    b = Builder(Level.TILE)
    x = Term(b, b.size(0)).cast(f32) + 2.0
    tile = Tile(f32, (SIZE,), spread(8))
    y = rarely(x > 1.0, negated, (x,), x).value
    store(Term(b, b(BroadcastTile, y, type=tile)))
    y = np.zeros(SIZE, np.float32)
    run(b.function("scalars"), [y])
    assert (y == -2).all()


def test_a_monoid_chooses_without_a_branch(run: Run) -> None:
    def right(x: Term, y: Term) -> Term:
        return y

    b = Builder(Level.LOOP)
    x, y = (Term(b, b.param(s.type)) for s in [b.const(0.0, f32)] * 2)
    larger = b.function("m", (rarely(y > x, right, (x, y), x).value,))
    b = Builder(Level.TILE)
    monoid = Monoid("m", (-np.inf,), larger)
    (top,) = b.emit(ReduceTile, (load(b, f32, 8).value,), ((0,), monoid))
    out = b.param(Buffer(f32, row_major((1,), 32)), "y")
    b.emit(StoreTile, (top, out, b.size(0)), ((1,), (), False, False, False, ""))
    x, y = np.sin(np.arange(SIZE, dtype=np.float32)), np.zeros(1, np.float32)
    run(b.function("most"), [x, y])
    assert y[0] == x.max()


def test_ops_of_one_formula_share_a_function() -> None:
    b = Builder(Level.TILE)
    x = load(b, f32, 8)
    for k in (1.0, 2.0):
        store(rarely(x > k, negated, (x,), x))
    store(rarely(x > 1.0, minus, (x, x), x))
    text = llvm.emit(expand(b.function("shared"), lambda *_: True), X86_64_V3).text
    assert text.count("define internal void") == 2
    assert text.count("br i1 %rare") == 3
