"""Small independent launches become one, and compute what they computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusec.compiler import setting_of
from fusec.explain import explain
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level, Module, Value
from fusec.ir.dims import Dim, Symbol
from fusec.ir.dtypes import f32
from fusec.ir.interpreter import interpret
from fusec.ir.monoids import monoid
from fusec.ir.ops.elementwise import Add, Exp, Mul
from fusec.ir.ops.host import Launch
from fusec.ir.ops.reduction import ReduceDims
from fusec.ir.ops.view import Permute
from fusec.ir.parser import parse_module
from fusec.ir.printer import format_module
from fusec.ir.types import Tensor
from fusec.ir.verifier import verify
from fusec.options import Options
from fusec.passes.journey import Journey, lower
from fusec.passes.pipeline import stripmined

N, M = Symbol("n"), Symbol("m")


def scaled(b: Builder, x: Value) -> Value:
    return b(Mul, x, b.const(0.5, f32))


def shifted(b: Builder, x: Value) -> Value:
    return b(Add, x, b.const(2.0, f32))


def turned(b: Builder, x: Value) -> Value:
    return b(Exp, b(Permute, x, order=(1, 0)))


def summed(b: Builder, x: Value) -> Value:
    return b.emit(ReduceDims, (x,), ((1,), monoid("sum", f32)))[0]


WORKS = [scaled, shifted, turned, summed]
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def graph(works: list[Any], shapes: list[tuple[Dim, ...]]) -> Function:
    """Each work on a tensor of its own."""
    b = Builder(Level.GRAPH)
    xs = [b.param(Tensor(f32, shape), "x") for shape in shapes]
    symbols = (M, N) if any(isinstance(n, Symbol) for s in shapes for n in s) else ()
    yields = [work(b, x) for work, x in zip(works, xs, strict=True)]
    return b.function("several", yields, symbols=symbols)


def journey(function: Function, target: str = "sm_90") -> Journey:
    return lower(function, setting_of(Options(target=target)))


def launches(found: Journey) -> list[Launch]:
    return [op for op in found.joined.host.body.ops if isinstance(op, Launch)]


def check(found: Journey, arrays: list[Any]) -> None:
    """The joined program gives what the graph means, before and after its loops."""
    expected = interpret(found.graph, arrays)
    host, *kernels = found.module.functions
    mined = Module((host, *(stripmined(k, found.target) for k in kernels)))
    for module in (found.module, mined):
        verify(module)
        for got, wanted in zip(
            interpret(host, arrays, module=module), expected, strict=True
        ):
            np.testing.assert_allclose(got, wanted, rtol=1e-5)
    text = format_module(found.module)
    assert format_module(parse_module(text)) == text


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(WORKS), SHAPES), min_size=2, max_size=6))
def test_independent_results_of_any_shapes(drawn: list[Any]) -> None:
    works, shapes = [w for w, _ in drawn], [s for _, s in drawn]
    found = journey(graph(works, shapes))
    random = np.random.default_rng(0)
    check(found, [random.random(shape, np.float32) for shape in shapes])
    kinds = {found.joined.schedules[op.kernel].warps for op in launches(found)}
    assert len(launches(found)) == len(kinds)


def test_open_grids() -> None:
    shapes: list[tuple[Dim, ...]] = [(N, 20), (M, 20), (N, M)]
    found = journey(graph([scaled, shifted, turned], shapes))
    (launch,) = launches(found)
    assert {N, M} == {*launch.sizes}
    for n, m in ((3, 5), (70, 1), (1, 130)):
        sizes = {N: n, M: m}
        random = np.random.default_rng(n)
        known = [tuple(sizes.get(d, d) for d in shape) for shape in shapes]  # type: ignore[call-overload]
        check(found, [random.random(shape, np.float32) for shape in known])


def test_like_parts_are_told_in_explanations() -> None:
    found = journey(graph([scaled] * 3, [(8, 8)] * 3))
    (launch,) = launches(found)
    assert found.joined.parts[launch.kernel] == ("fused_mul_0",) * 3
    report = explain(found, {})
    assert report.together == (("fused_mul_0",) * 3,)
    assert "1 launch of 1 kernel" in str(report)
    apart = explain(journey(graph([scaled], [(8, 8)])), {}).seconds
    assert report.seconds == pytest.approx(3 * apart - 2 * found.target.launch)


def test_many_take_several_launches() -> None:
    found = journey(graph([scaled] * 20, [(k + 1, 8) for k in range(20)]))
    assert [len(found.joined.parts[op.kernel]) for op in launches(found)] == [16, 4]


def test_the_same_program_every_time() -> None:
    function = graph([scaled, turned, summed], [(8, 9), (7, 8), (30, 2)])
    texts = {format_module(journey(function).module) for _ in range(2)}
    assert len(texts) == 1


# What is not joined.


def test_what_waits_for_another() -> None:
    b = Builder(Level.GRAPH)
    x = b.param(Tensor(f32, (512, 1000)), "x")
    found = journey(
        b.function("total", b.emit(ReduceDims, (x,), ((0, 1), monoid("sum", f32))))
    )
    assert len(launches(found)) == 2
    assert not found.joined.parts


def test_what_takes_longer_than_its_launch() -> None:
    found = journey(graph([scaled, shifted], [(9000, 9000), (9000, 8000)]))
    assert len(launches(found)) == 2


def test_other_numbers_of_warps() -> None:
    found = journey(graph([scaled, shifted], [(4, 8), (64, 64)]))
    assert len(launches(found)) == 2


def test_on_a_cpu() -> None:
    found = journey(graph([scaled, shifted], [(8, 8), (4, 4)]), "x86-64-v3")
    assert found.joined.host is found.lowered.host
    assert len(launches(found)) == 2
