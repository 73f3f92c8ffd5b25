"""Sums of products in registers, their lanes along columns or along what is summed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from tiles import Kernel, Run

from fusec.codegen import llvm
from fusec.codegen.llvm_object import assembly, compile_object
from fusec.ir.builder import Builder
from fusec.ir.core import Level, Module
from fusec.ir.dtypes import DType, bf16, f32, f64, i8, i16, i32, i64
from fusec.ir.interpreter import interpret
from fusec.ir.layout import Layout, parse_layout, tile_layout
from fusec.ir.ops.contraction import DotTile, Matmul
from fusec.ir.ops.tile import Guard
from fusec.ir.types import Tensor
from fusec.passes.assign_layouts import assign_layouts
from fusec.passes.expand import expand
from fusec.passes.lower_to_host import lower_to_host
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.passes.pipeline import stripmined
from fusec.target import TARGETS, Target

REG, LANE = "reg", "lane"


def laid(shape: tuple[int, int, int], *splits: list[tuple[str, int]]) -> Layout:
    """The layout of a tile that may lack dimensions of the whole."""
    own = [[] if n == 1 else s for n, s in zip(shape, splits, strict=True)]
    return tile_layout(shape, own)


CASES = {
    "lanes along columns": (
        (6, 4, 16),
        ([(REG, 6)], [(REG, 4)], [(REG, 2), (LANE, 8)]),
    ),
    "one column of lanes": ((3, 5, 8), ([(REG, 3)], [(REG, 5)], [(LANE, 8)])),
    "no lanes": ((2, 3, 5), ([(REG, 2)], [(REG, 3)], [(REG, 5)])),
}


@pytest.mark.parametrize("dtype", [f32, f64, i32, i64], ids=lambda d: d.name)
@pytest.mark.parametrize("case", CASES)
def test_products_are_added_to_what_is_there(case: str, dtype: DType, run: Run) -> None:
    (m, k, n), splits = CASES[case]
    rng = np.random.default_rng(0)
    s, x, y = (
        rng.integers(-9, 9, shape).astype(dtype.storage)
        for shape in ((m, 1, n), (m, k, 1), (1, k, n))
    )
    kernel = Kernel()
    tiles = [kernel.load(a, dtype, laid(a.shape, *splits)) for a in (s, x, y)]
    out = kernel.store(kernel.b(DotTile, *tiles))
    kernel.run(run)
    np.testing.assert_array_equal(out, s + (x * y).sum(1, keepdims=True))


def test_lanes_along_the_sum_add_up_apart(run: Run) -> None:
    """The state has the lanes that x and y have: products are added lane by lane."""
    rng = np.random.default_rng(0)
    s, x, y = (
        rng.integers(-9, 9, shape).astype(np.float32)
        for shape in ((3, 8, 4), (3, 8, 1), (1, 8, 4))
    )
    splits = [(REG, 3)], [(LANE, 8)], [(REG, 4)]
    kernel = Kernel()
    tiles = [kernel.load(a, f32, laid(a.shape, *splits)) for a in (s, x, y)]
    out = kernel.store(kernel.b(DotTile, *tiles))
    kernel.run(run)
    np.testing.assert_array_equal(out, s + x * y)


def test_where_nothing_is_to_be_added_there_are_no_instructions(run: Run) -> None:
    """Guarded places of both factors are no work; those of one are: 0 · NaN is NaN."""
    x, y = np.ones((1, 4, 1), np.float32), np.full((1, 4, 8), np.nan, np.float32)
    y[0, :2] = 2
    kernel = Kernel()
    b = kernel.b
    splits: Any = [(REG, 1)], [(REG, 4)], [(LANE, 8)]
    first, second = (kernel.load(a, f32, laid(a.shape, *splits)) for a in (x, y))
    zero = kernel.load(np.zeros((1, 1, 8), np.float32), f32, laid((1, 1, 8), *splits))
    two = b.size(2)
    (a,) = b.emit(Guard, (first, two), ((1,), 0))
    (c,) = b.emit(Guard, (second, two), ((1,), 0))
    both = kernel.store(b(DotTile, zero, a, c))
    one = kernel.store(b(DotTile, zero, a, second))
    kernel.run(run)
    np.testing.assert_array_equal(both, np.full((1, 1, 8), 4))
    assert np.isnan(one).all()


V3, V4 = TARGETS["x86-64-v3"], TARGETS["x86-64-v4"]
INSTRUCTIONS = [
    ("vdpbf16ps", replace(V4, features=(*V4.features, "avx512bf16")), bf16, f32),
    ("vpdpwssd", replace(V4, features=(*V4.features, "avx512vnni")), i8, i32),
    ("vpdpwssd", replace(V3, features=(*V3.features, "avxvnni")), i8, i32),
    ("vpmaddwd", V4, i8, i32),
    ("vpmaddwd", V3, i16, i32),
    ("pmaddwd", TARGETS["x86-64"], i8, i32),
]


@pytest.mark.parametrize("turned", [False, True], ids=["plain", "turned"])
@pytest.mark.parametrize(
    ("name", "target", "factor", "sum_"),
    INSTRUCTIONS,
    ids=[f"{name} {target.vector_bits}" for name, target, *_ in INSTRUCTIONS],
)
def test_every_instruction_is_chosen_and_emitted_wherever_this_runs(
    name: str, target: Target, factor: DType, sum_: DType, turned: bool
) -> None:
    """A row of facts is all that an instruction needs: this machine may lack it."""
    m, n, k = 37, 50, 70
    b = Builder(Level.GRAPH)
    x = b.param(Tensor(factor, (m, k)), "x")
    y = b.param(Tensor(factor, (k, n), (1, k) if turned else None), "y")
    graph = b.function("f", (b(Matmul, x, y, dtype=sum_),))
    lowered = lower_to_host(lower_to_loops(graph), target, {})
    (kernel,) = lowered.kernels.values()
    assert kernel.schedule.instruction is not None
    assert kernel.schedule.instruction.name == name
    laid_out = assign_layouts(kernel.function)
    rng = np.random.default_rng(0)
    arrays = [
        factor.quantize(rng.integers(-9, 9, shape)).astype(factor.carrier)
        for shape in ((m, k), (k, n))
    ]
    mined = stripmined(laid_out, target)
    (got,) = interpret(lowered.host, arrays, module=Module((lowered.host, mined)))
    np.testing.assert_array_equal(got, arrays[0].astype(int) @ arrays[1].astype(int))
    closed = expand(mined, partial(llvm.supports, target=target))
    text = llvm.emit(closed, target).text
    assert compile_object(text, target.cpu, target.feature_string)
    assert f"\t{name}\t" in assembly(text, target.cpu, target.feature_string)


def test_layouts_are_read_from_text() -> None:
    assert laid((6, 4, 1), *CASES["lanes along columns"][1]) == parse_layout(
        "(6:reg@4, 4:reg, 1)"
    )
