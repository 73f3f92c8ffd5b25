"""Scans of tiles: along lanes, registers or both, after what came before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiles import Kernel, Run

from fusec.errors import InternalError
from fusec.ir.dtypes import DType, bool_, f32, f64, i64
from fusec.ir.interpreter.elements import scan_along
from fusec.ir.layout import parse_layout
from fusec.ir.monoids import monoid
from fusec.ir.ops.reduction import ScanTile
from fusec.ir.ops.tile import IotaTile
from fusec.ir.types import Tile

Array = np.ndarray[Any, Any]

LAYOUTS = [
    "(4:reg@2, 2:reg 8:lane)",
    "(4:lane@4, 4:reg 4:lane)",
    "(4:lane, 16:reg)",
    "(4:reg@16, 16:reg)",
    "(2:reg@8 2:lane@2, 8:reg 2:lane)",
]


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("text", LAYOUTS)
@pytest.mark.parametrize(
    ("name", "dtype"), [("sum", f32), ("sum", i64), ("prod", f64), ("any", bool_)]
)
def test_a_scan_of_every_layout(
    name: str, dtype: DType, text: str, dim: int, run: Run
) -> None:
    values = np.random.default_rng(0).integers(-2, 3, (4, 16))
    values = values > 1 if dtype.is_bool else values.astype(dtype.storage)
    before = values[:1] if dim == 0 else values[:, :1]
    layout, what = parse_layout(text), monoid(name, dtype)
    k = Kernel()
    x = k.load(values, dtype, layout)
    start = k.load(before, dtype, layout.drop(dim))
    scanned, total = k.b.emit(ScanTile, (x, start), (dim, what))
    out, end = k.store(scanned), k.store(total)
    k.run(run)
    (wanted,) = scan_along(what, [np.concatenate((before, values), dim)], dim)
    np.testing.assert_array_equal(out, np.delete(wanted, 0, dim))
    np.testing.assert_array_equal(end, wanted.take([-1], dim))


@pytest.mark.parametrize("text", LAYOUTS)
def test_places_move_with_extremes(text: str, run: Run) -> None:
    """The last of equals wins, so the order along lanes and registers counts."""
    values = np.random.default_rng(1).integers(0, 3, (4, 16)).astype(np.float32)
    layout, what = parse_layout(text), monoid("lastmax", f32)
    k = Kernel()
    x = k.load(values, f32, layout)
    at = k.b(IotaTile, k.b.const(0, i64), type=Tile(i64, (4, 16), layout), dim=1)
    least = k.load(np.full((4, 1), -np.inf, np.float32), f32, layout.drop(1))
    zero = k.load(np.zeros((4, 1), np.int64), i64, layout.drop(1))
    results = k.b.emit(ScanTile, (x, at, least, zero), (1, what))
    outs = [k.store(value) for value in results]
    k.run(run)
    columns = np.broadcast_to(np.arange(16), (4, 16))
    tops = np.maximum.accumulate(values, 1)
    places = np.maximum.accumulate(np.where(values == tops, columns, 0), 1)
    for out, wanted in zip(outs, (tops, places), strict=False):
        np.testing.assert_array_equal(out, wanted)
    np.testing.assert_array_equal(outs[2], tops[:, -1:])
    np.testing.assert_array_equal(outs[3], places[:, -1:])


def test_lanes_that_skip_elements_are_refused(run: Run) -> None:
    layout = parse_layout("(4:reg@2, 8:lane 2:reg)")
    k = Kernel()
    x = k.load(np.zeros((4, 16), np.float32), f32, layout)
    start = k.load(np.zeros((4, 1), np.float32), f32, layout.drop(1))
    k.store(k.b.emit(ScanTile, (x, start), (1, monoid("sum", f32)))[0])
    with pytest.raises(InternalError, match="skip elements"):
        k.run(run)
