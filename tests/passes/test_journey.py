"""Every stage of the journey means the same: random graphs, interpreted and run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import arguments, graphs

from fusec.analysis.fusion import Fusion
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level, Module
from fusec.ir.dtypes import f32
from fusec.ir.interpreter import interpret
from fusec.ir.monoids import monoid
from fusec.ir.ops.elementwise import Abs, Sub
from fusec.ir.ops.reduction import ReduceDims
from fusec.ir.ops.view import Pad
from fusec.ir.types import Tensor
from fusec.ir.verifier import verify
from fusec.passes.assign_layouts import assign_layouts
from fusec.passes.copy_updated import copy_updated
from fusec.passes.fuse import emit_plan
from fusec.passes.lower_to_host import lower_to_host
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.passes.recompute import recompute
from fusec.passes.stripmine import stripmine
from fusec.target import TARGETS, Target

V4 = TARGETS["x86-64-v4"]

thorough = settings(
    max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None
)


def fused(loop: Function, target: Target = V4) -> Function:
    fusion = Fusion(loop, target, {})
    return emit_plan(fusion, fusion.run())


def loops(graph: Function) -> Function:
    return copy_updated(fused(lower_to_loops(graph)))


def same(before: Any, after: Any) -> None:
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@thorough
@given(st.data())
def test_lowering_to_loops_keeps_the_meaning(data: Any) -> None:
    graph = data.draw(graphs())
    values = arguments(data.draw, graph)
    loop = lower_to_loops(graph)
    verify(loop)
    same(interpret(graph, values), interpret(loop, values))


@thorough
@given(st.data())
def test_fusing_keeps_the_meaning(data: Any) -> None:
    graph = data.draw(graphs())
    values = arguments(data.draw, graph)
    wanted = interpret(graph, values)
    loop = fused(lower_to_loops(graph))
    again = recompute(loop, V4, {})
    for stage in (loop, again, copy_updated(again)):
        verify(stage)
        same(wanted, interpret(stage, values))


@thorough
@given(st.data(), st.sampled_from(sorted(TARGETS)))
def test_tiles_keep_the_meaning(data: Any, name: str) -> None:
    graph = data.draw(graphs(6))
    values = arguments(data.draw, graph)
    lowered = lower_to_host(loops(graph), TARGETS[name], {})
    verify(lowered.module)
    results = interpret(lowered.host, values, module=lowered.module)
    same(interpret(graph, values), results)


@thorough
@given(st.data())
def test_stripmining_keeps_the_meaning(data: Any) -> None:
    graph = data.draw(graphs(6))
    values = arguments(data.draw, graph)
    lowered = lower_to_host(loops(graph), V4, {})
    kernels = [stripmine(assign_layouts(k.function)) for k in lowered.kernels.values()]
    module = Module((lowered.host, *kernels))
    verify(module)
    same(interpret(graph, values), interpret(lowered.host, values, module=module))


@thorough
@given(st.data())
def test_programs_compute_what_the_graph_says(data: Any) -> None:
    pytest.importorskip("torch")
    graph = data.draw(graphs(10))
    values = arguments(data.draw, graph)
    same(interpret(graph, values), run(graph, values))


def run(graph: Function, values: list[np.ndarray]) -> list[np.ndarray]:
    """Compile a graph for this machine and run it on torch tensors."""
    import torch

    from fusec.compiler import compile_function
    from fusec.options import Options

    options = Options.from_mapping({"cache": False}, None)
    program = compile_function(graph, options).program
    results = program([torch.from_numpy(v.copy()) for v in values])
    return [r.numpy() for r in results]


def test_a_reduction_keeps_its_extent_beside_a_longer_reader() -> None:
    """max x - |x| and a padded |x| share |x|, which the pad reads past its end."""
    b = Builder(Level.GRAPH)
    x = b.param(Tensor(f32, (1, 2)), "x")
    size = b(Abs, x)
    pad = b(Pad, size, b.const(3.0, f32), low=(0, 0), high=(0, 1))
    row = b(ReduceDims, b(Sub, x, size), dims=(0, 1), monoid=monoid("max", f32))
    graph = b.function("shared", (row, pad))
    values = [np.array([[-4.0, -5.0]], np.float32)]
    same(interpret(graph, values), interpret(fused(lower_to_loops(graph)), values))
