"""Products that a library does faster become calls, on views of what they read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from texts import read

from fusec.ir.core import Function
from fusec.ir.interpreter import interpret
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import Region, View
from fusec.passes.call_libraries import call_libraries
from fusec.passes.fuse import fuse
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.target import X86_64_V3, Target

FAST = replace(X86_64_V3, library=(("f32", 50.0), ("bf16", 50.0), ("i8", 50.0)))
SLOW = replace(X86_64_V3, library=(("f32", 0.01), ("bf16", 0.01), ("i8", 0.01)))


def product(
    dtype: str, sum_: str, lead: str = "", turned: bool = False, after: str = ""
) -> str:
    """A graph that multiplies two tensors, the second maybe read through its
    transpose."""
    rank = 2 + bool(lead)
    order = (*range(rank - 2), rank - 1, rank - 2)
    y, view = f"{dtype}[{lead}640, 480]", ""
    if turned:
        y = f"{dtype}[{lead}480, 640]"
        view = f"%t = permute %y {{order={order}}} : {dtype}[{lead}640, 480]"
    result = f"{sum_}[{lead}320, 480]"
    yields = f"{after or sum_}[{lead}320, 480]"
    return f"""
        graph @f(%x: {dtype}[{lead}320, 640], %y: {y}) -> ({yields}) {{
          {view}
          %p = matmul %x, %{"t" if turned else "y"} {{dtype={sum_}}} : {result}
          {f"%c = cast %p : {after}[{lead}320, 480]" if after else ""}
          yield %{"c" if after else "p"}
        }}
    """


def called(text: str, target: Target = FAST) -> Function:
    """The loops of a graph after fusion and the pass."""
    loops = fuse(lower_to_loops(read(text)), target, {})
    return call_libraries(loops, target, {})


def multiplied(target: str, arguments: Any, keywords: Any, inputs: Any) -> list[Any]:
    """What the call gives."""
    assert target == "aten.mm.default"
    x, y = inputs
    return [np.matmul(x, y)]


CASES = [
    (product("f32", "f32"), "aten.mm.default"),
    (product("f32", "f32", turned=True), "aten.mm.default"),
    (product("f32", "f32", lead="3, "), "aten.bmm.default"),
    (product("f32", "f32", lead="3, ", turned=True), "aten.bmm.default"),
    (product("bf16", "f32", after="bf16"), "aten.mm.default"),
    (product("i8", "i32", turned=True), "aten._int_mm.default"),
]


@pytest.mark.parametrize(("text", "target"), CASES, ids=[t for _, t in CASES])
def test_a_product_becomes_a_call(text: str, target: str) -> None:
    after = called(text)
    (call,) = (op for op in after.body.ops if isinstance(op, Extern))
    assert call.target == target
    assert not any(isinstance(op, Region) for op in after.body.ops)
    x, y = (value.shape for value in call.inputs)
    assert (x[-2:], y[-2:]) == ((320, 640), (640, 480))
    if "permute" in text:
        assert any(isinstance(op, View) for op in after.body.ops)


def test_a_call_computes_what_the_region_did() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(320, 640)), rng.normal(size=(480, 640))
    arrays = [x.astype(np.float32), y.astype(np.float32)]
    after = called(product("f32", "f32", turned=True))
    (got,) = interpret(after, arrays, extern=multiplied)
    np.testing.assert_allclose(got, x @ y.T, rtol=1e-5, atol=1e-3)


def test_a_slower_library_is_not_called_nor_one_that_is_not_known() -> None:
    for target in (SLOW, X86_64_V3):
        after = called(product("f32", "f32"), target)
        assert [type(op) for op in after.body.ops] == [Region]


def test_what_stands_beside_stays_apart_if_that_is_faster() -> None:
    text = """
        graph @f(%x: f32[512, 512], %y: f32[512, 512]) -> (f32[512, 512]) {
          %p = matmul %x, %y {dtype=f32} : f32[512, 512]
          %e = exp %p : f32[512, 512]
          yield %e
        }
    """
    kinds = [type(op) for op in called(text, FAST).body.ops]
    assert kinds == [Extern, Region]
    assert [type(op) for op in called(text, SLOW).body.ops] == [Region]


def test_a_product_with_something_in_it_is_none() -> None:
    text = product("f32", "f32").replace(
        "%p = matmul %x", "%n = neg %x : f32[320, 640]\n %p = matmul %n"
    )
    loops = fuse(lower_to_loops(read(text)), X86_64_V3, {})
    after = call_libraries(loops, FAST, {})
    assert [type(op) for op in after.body.ops] == [Region]


def kinds(text: str) -> list[type]:
    """What is made of loops that are fused for a target without a library."""
    loops = fuse(lower_to_loops(read(text)), X86_64_V3, {})
    return [type(op) for op in call_libraries(loops, FAST, {}).body.ops]


def test_what_a_tensor_of_torch_cannot_say_is_no_call() -> None:
    """Backward steps, several axes that are summed over, a rounding on the way."""
    flipped = "%y = slice %z {dim=0, start=639, length=640, step=-1} : f32[640, 480]"
    cast = "%n = cast %z : bf16[640, 480]\n %y = cast %n : f32[640, 480]"
    for line in (flipped, cast):
        text = product("f32", "f32").replace("%y: f32", "%z: f32")
        assert kinds(text.replace("%p =", f"{line}\n %p =")) == [Region]
    several = """
        graph @f(%x: f32[8, 320, 80], %y: f32[8, 80, 480]) -> (f32[320, 480]) {
          %a = permute %x {order=(1, 0, 2)} : f32[320, 8, 80]
          %b = reshape %a {shape=(320, 640)} : f32[320, 640]
          %c = reshape %y {shape=(640, 480)} : f32[640, 480]
          %p = matmul %b, %c {dtype=f32} : f32[320, 480]
          yield %p
        }
    """
    assert kinds(several) == [Region]


def test_a_library_is_asked_of_nothing_without_harm() -> None:
    text = product("f32", "f32").replace("320", "0")
    (got,) = interpret(
        called(text), [np.ones((0, 640), np.float32), np.ones((640, 480), np.float32)]
    )
    assert got.shape == (0, 480)
