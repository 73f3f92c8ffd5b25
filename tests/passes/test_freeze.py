"""What depends on frozen parameters alone is made once; factors of products packed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import read

from fusec.analysis.frozen import frozen_values
from fusec.ir.core import Function, Module
from fusec.ir.dtypes import f32
from fusec.ir.interpreter import interpret
from fusec.ir.ops.checks import Check
from fusec.ir.ops.loop import Region
from fusec.ir.ops.tile import LoadTile
from fusec.ir.types import Tensor
from fusec.ir.verifier import verify
from fusec.passes.freeze import freeze
from fusec.passes.fuse import fuse
from fusec.passes.lower_to_host import lower_to_host
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.passes.pipeline import Setting, run
from fusec.target import X86_64, X86_64_V3, X86_64_V4, Target

TARGETS = (X86_64, X86_64_V3, X86_64_V4)


def parted(text: str, *frozen: int, target: Target = X86_64_V3) -> list[Function]:
    """A graph's loops after fusion and the pass: what is left, and what makes the
    rest."""
    graph = replace(read(text), frozen=frozen)
    functions = freeze(fuse(lower_to_loops(graph), target, {}), target, {})
    for function in functions:
        verify(function)
        assert not function.frozen
    return [*functions]


def agree(text: str, functions: list[Function], seed: int = 0) -> None:
    """The parts together give what the graph gives."""
    rng = np.random.default_rng(seed)
    graph = read(text)
    arrays = [_array(rng, param.type) for param in graph.params]
    wanted = interpret(graph, [a.copy() for a in arrays])
    main, *once = functions
    made = [y for f in once for y in interpret(f, [a.copy() for a in arrays])]
    got = interpret(main, [*arrays, *made])
    for mine, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def _array(rng: np.random.Generator, type_: object) -> np.ndarray:
    assert isinstance(type_, Tensor)
    if type_.dtype.name.startswith("f"):
        return rng.standard_normal(type_.shape).astype(np.float32)
    return rng.integers(-9, 10, type_.shape).astype(np.int8)


def product(m: int, n: int, k: int, turned: bool = True) -> str:
    weight, view = f"f32[{k}, {n}]", ""
    if turned:
        weight = f"f32[{n}, {k}]"
        view = f"%t = permute %w {{order=(1, 0)}} : f32[{k}, {n}]"
    return f"""
        graph @f(%x: f32[{m}, {k}], %w: {weight}) -> (f32[{m}, {n}]) {{
          {view}
          %p = matmul %x, %{"t" if turned else "w"} {{dtype=f32}} : f32[{m}, {n}]
          %e = exp %p : f32[{m}, {n}]
          yield %e
        }}
    """


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_a_factor_is_packed_in_panels(target: Target) -> None:
    text = product(24, 192, 64)
    main, once = parted(text, 1, target=target)
    agree(text, [main, once])
    (panels,) = (value.type for value in once.body.yields)
    assert isinstance(panels, Tensor)
    count, places, width, depth = panels.shape
    assert (count * width, places, depth) == (192, 64, 1)
    assert width % target.lanes(32) == 0
    (region,) = (op for op in main.body.ops if isinstance(op, Region))
    assert {*region.inputs} == {main.params[0], main.params[2]}


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 20), st.integers(1, 70), st.booleans(),
    st.sampled_from(TARGETS), st.sampled_from([(1,), (0,), (0, 1), ()]),
)  # fmt: skip
def test_parts_make_the_whole(
    m: int, n: int, k: int, turned: bool, target: Target, frozen: tuple[int, ...]
) -> None:
    text = product(m, n * 8, k, turned)
    agree(text, parted(text, *frozen, target=target), seed=m)


def test_instructions_have_their_places_side_by_side() -> None:
    text = """
        graph @f(%x: i8[16, 512], %w: i8[512, 192]) -> (i32[16, 192]) {
          %p = matmul %x, %w {dtype=i32} : i32[16, 192]
          yield %p
        }
    """
    main, once = parted(text, 1)
    agree(text, [main, once])
    (panels,) = (value.type for value in once.body.yields)
    assert isinstance(panels, Tensor)
    assert panels.dtype.name == "i16"
    assert (panels.shape[1], panels.shape[3]) == (256, 2)


def test_one_row_reads_weights_as_they_lie() -> None:
    (main,) = parted(product(1, 192, 64), 1)
    assert len(main.params) == 2


def test_what_is_computed_of_weights_is_packed() -> None:
    text = """
        graph @f(%x: f32[24, 64], %w: f32[64, 96], %s: f32[96]) -> (f32[24, 96]) {
          %a = exp %w : f32[64, 96]
          %r = reshape %s {shape=(1, 96)} : f32[1, 96]
          %b = broadcast %r {shape=(64, 96)} : f32[64, 96]
          %c = mul %a, %b : f32[64, 96]
          %p = matmul %x, %c {dtype=f32} : f32[24, 96]
          yield %p
        }
    """
    main, once = parted(text, 1, 2)
    agree(text, [main, once])
    (region,) = (op for op in main.body.ops if isinstance(op, Region))
    assert {*region.inputs} == {main.params[0], main.params[3]}
    agree(text, parted(text, 1))  # what is scaled is not the same in each call


REGIONS = """
    graph @f(%x: f32[96, 96], %w: f32[96, 96]) -> (f32[96, 96]{}) {{
      %e = exp %w : f32[96, 96]
      %s = reduce_dims %e {{dims=(1,), monoid=sum<f32>}} : f32[96]
      %r = reshape %s {{shape=(96, 1)}} : f32[96, 1]
      %b = broadcast %r {{shape=(96, 96)}} : f32[96, 96]
      %y = mul %x, %b : f32[96, 96]
      yield %y{}
    }}
"""


def test_whole_regions_are_kept() -> None:
    """What is run once is not fused into what is run in each call."""
    text = REGIONS.format("", "")
    main, once = parted(text, 1)
    agree(text, [main, once])
    assert [v.type for v in once.body.yields] == [Tensor(f32, (96,))]
    assert main.params[1] not in {v for op in main.body.ops for v in op.operands}


def test_what_the_caller_gets_is_made_in_each_call() -> None:
    text = REGIONS.format(", f32[96]", ", %s")
    main, *once = parted(text, 1)
    agree(text, [main, *once])
    kept = [v.type for f in once for v in f.body.yields]
    assert Tensor(f32, (96,)) not in kept


def test_a_small_part_is_kept_of_what_is_large() -> None:
    text = """
        graph @f(%x: f32[96, 96], %w: f32[96, 1]) -> (f32[96, 96]) {
          %e = exp %w : f32[96, 1]
          %b = broadcast %e {shape=(96, 96)} : f32[96, 96]
          %y = mul %x, %b : f32[96, 96]
          yield %y
        }
    """
    main, once = parted(text, 1)
    agree(text, [main, once])
    assert [v.type for v in once.body.yields] == [Tensor(f32, (96, 1))]


def test_nothing_is_frozen_of_itself() -> None:
    assert len(parted(product(24, 192, 64))) == 1


def test_there_is_a_bound() -> None:
    """What is kept has no more than twice the bytes of what it is kept of."""
    text = """
        graph @f(%x: f32[24, 64], %w: i8[64, 96]) -> (f32[24, 96]) {
          %c = cast %w : f32[64, 96]
          %p = matmul %x, %c {dtype=f32} : f32[24, 96]
          yield %p
        }
    """
    assert len(parted(text, 1)) == 1
    assert len(parted(text.replace("i8", "bf16"), 1)) == 2


def test_panels_from_far_memory_are_fetched_ahead() -> None:
    """The next one while one is multiplied; what is near, or turned, is not."""

    def distances(text: str, *frozen: int) -> set[int]:
        main = parted(text, *frozen)[0]
        lowered = lower_to_host(main, X86_64_V3, {})
        kernels = [k.function for k in lowered.kernels.values()]
        loads = [o for k in kernels for o in k.body.ops if isinstance(o, LoadTile)]
        return {load.prefetch for load in loads} - {0}

    far = product(16, 1024, 4096)
    (panels,) = parted(far, 1)[1].body.yields
    assert isinstance(panels.type, Tensor)
    _, places, width, _ = panels.type.shape
    assert distances(far, 1) == {places * width}
    assert not distances(far)
    assert distances(product(16, 1024, 4096, turned=False)) == {16}
    assert not distances(product(16, 64, 64), 1)


def test_columns_that_are_not_whole_registers_are_not_packed() -> None:
    assert len(parted(product(24, 100, 64), 1)) == 1
    assert len(parted(product(24, 96, 64), 1)) == 2


def test_what_may_raise_is_computed_in_each_call() -> None:
    text = """
        graph @f(%x: f32[96, 96], %w: f32[96, 96]) -> (f32[96, 96]) {
          %e = exp %w : f32[96, 96]
          %s = reduce_dims %e {dims=(1,), monoid=sum<f32>} : f32[96]
          %z = const(0.0) : f32
          %b = broadcast %z {shape=(96,)} : f32[96]
          %o = gt %s, %b : bool[96]
          %c = checked %s, %o {message="no", error="IndexError"} : f32[96]
          %r = reshape %c {shape=(96, 1)} : f32[96, 1]
          %d = broadcast %r {shape=(96, 96)} : f32[96, 96]
          %y = mul %x, %d : f32[96, 96]
          yield %y
        }
    """
    main, *once = parted(text, 1)
    agree(text, [main, *once])
    checks = [
        inner
        for function in (main, *once)
        for op in function.body.ops
        if isinstance(op, Region)
        for inner in op.body.ops
        if isinstance(inner, Check)
    ]
    assert len(checks) == 1
    assert all(
        not isinstance(inner, Check)
        for function in once
        for op in function.body.ops
        if isinstance(op, Region)
        for inner in op.body.ops
    )


def test_a_view_at_an_open_place_does_not_stay_the_same() -> None:
    text = """
        loop @f(%x: f32[8], %w: f32[64]) -> (f32[8])
            symbols [s0] facts [1 <= s0 <= 2] {
          %v = view %w {offset=8*s0} : f32[8]
          %e = region %v over i:8 : f32[8] {
            ^(%p: f32[8], %q: f32[8]):
            %0 = load %p [i] : f32{i}
            %1 = exp %0 : f32{i}
            store %1, %q [i]
          }
          %y = region %x, %e over i:8 : f32[8] {
            ^(%p: f32[8], %q: f32[8], %r: f32[8]):
            %0 = load %p [i] : f32{i}
            %1 = load %q [i] : f32{i}
            %2 = mul %0, %1 : f32{i}
            store %2, %r [i]
          }
          yield %y
        }
    """
    whole = replace(read(text), frozen=(1,))
    assert frozen_values(whole) == {whole.params[1]}
    known = replace(read(text.replace("8*s0", "8")), frozen=(1,))
    assert len(frozen_values(known)) == 3


def test_the_kernels_of_both_parts_have_names_of_their_own() -> None:
    graph = replace(read(REGIONS.format("", "")), frozen=(1,))
    setting = Setting(X86_64_V3, lambda op: True)
    passes = ["lower_to_loops", "fuse", "freeze", "lower_to_host"]
    module = run(Module((graph,)), passes, setting)
    names = [function.name for function in module.functions]
    assert {"f", "f_kept"} < {*names}
