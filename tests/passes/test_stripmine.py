"""Loops from time digits: whole chunks and tails, several dimensions, what is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from texts import ops, read

from fusec.ir.core import Function, Module
from fusec.ir.dims import evaluate
from fusec.ir.interpreter import interpret
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.elementwise import Tanh
from fusec.ir.ops.tile import For, Guard, LoadTile, Scratch, StoreTile
from fusec.ir.verifier import verify
from fusec.passes.assign_layouts import assign_layouts
from fusec.passes.fuse import fuse
from fusec.passes.lower_to_host import lower_to_host
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.passes.pipeline import stripmined
from fusec.target import X86_64_V3, X86_64_V4, Target


def mined(
    graph: Function, *sizes: int, target: Target = X86_64_V3, atol: float = 1e-3
) -> list[Function]:
    """The kernels of a graph with their loops, which mean what the graph means, where
    its symbols are these sizes."""
    loops = fuse(lower_to_loops(graph), target, {})
    lowered = lower_to_host(loops, target, {})
    laid_out = [assign_layouts(k.function) for k in lowered.kernels.values()]
    kernels = [stripmined(kernel, target) for kernel in laid_out]
    module = Module((lowered.host, *kernels))
    verify(module)
    random = np.random.default_rng(0)
    known = dict(zip(graph.symbols, sizes, strict=True))
    shapes = [tuple(evaluate(n, known) for n in p.shape) for p in graph.params]
    values = [random.normal(size=shape).astype(np.float32) for shape in shapes]
    wanted = interpret(graph, [v.copy() for v in values])
    got = interpret(lowered.host, values, module=module)
    atol = atol if any(ops(kernel, DotTile) for kernel in kernels) else 1e-6
    for a, b in zip(wanted, got, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=atol)
    return kernels


def _with(target: Target, *features: str) -> Target:
    return replace(target, features=(*target.features, *features))


PROCESSORS = {
    "AVX2": X86_64_V3,
    "AVX-VNNI": _with(X86_64_V3, "avxvnni"),
    "AVX-512": X86_64_V4,
    "AVX-512 with dots": _with(X86_64_V4, "avx512bf16", "avx512vnni"),
}


@pytest.mark.parametrize("k", [1, 2, 6, 16, 17, 24, 34, 66, 330])
@pytest.mark.parametrize("m", [1, 6, 15])
@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_rows_are_reduced_before_they_are_multiplied(
    dtype: str, name: str, m: int, k: int
) -> None:
    """Whatever lanes and groups of places the instruction of the product wants."""
    graph = read(
        f"""
        graph @f(%x: f32[{m}, {k}], %w: f32[{k}, 24]) -> (f32[{m}, 24]) {{
          %s = reduce_dims %x {{dims=(1,), monoid=sum<f32>}} : f32[{m}]
          %r = reshape %s {{shape=({m}, 1)}} : f32[{m}, 1]
          %b = broadcast %r {{shape=({m}, {k})}} : f32[{m}, {k}]
          %y = sub %x, %b : f32[{m}, {k}]
          %l = cast %y : {dtype}[{m}, {k}]
          %v = cast %w : {dtype}[{k}, 24]
          %p = matmul %l, %v {{dtype=f32}} : f32[{m}, 24]
          yield %p
        }}
        """
    )
    # Of sums of tens, bfloat16 has the first eight bits.
    mined(graph, target=PROCESSORS[name], atol=2.0 if dtype == "bf16" else 1e-2)


SHAPES = [(2, 3, 70), (1, 5, 64), (3, 1, 33), (2, 2, 1), (1, 1, 200), (4, 40, 7)]
HELD = [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2), ()]
SWEPT = [(0,), (1,), (2,), (1, 2), (0, 2), (0, 1, 2)]


@pytest.mark.parametrize("swept", SWEPT, ids=str)
@pytest.mark.parametrize("held", HELD, ids=str)
def test_a_dear_value_of_any_dimensions_under_any_sweep(
    held: tuple[int, ...], swept: tuple[int, ...]
) -> None:
    """y = x · exp w, y / max |y|: w is kept, and need not have what is swept."""
    for shape in SHAPES:
        own = tuple(n if d in held else 1 for d, n in enumerate(shape))
        left = tuple(1 if d in swept else n for d, n in enumerate(shape))
        full, narrow = ", ".join(map(str, shape)), ", ".join(map(str, own))
        kept = ", ".join(str(n) for d, n in enumerate(shape) if d not in swept)
        graph = read(
            f"""
            graph @f(%x: f32[{full}], %w: f32[{narrow}]) -> (f32[{full}]) {{
              %e = exp %w : f32[{narrow}]
              %b = broadcast %e {{shape={shape}}} : f32[{full}]
              %y = mul %x, %b : f32[{full}]
              %a = abs %y : f32[{full}]
              %m = reduce_dims %a {{dims={swept}, monoid=max<f32>}} : f32[{kept}]
              %r = reshape %m {{shape={left}}} : f32[{", ".join(map(str, left))}]
              %c = broadcast %r {{shape={shape}}} : f32[{full}]
              %q = div %y, %c : f32[{full}]
              yield %q
            }}
            """
        )
        mined(graph)


@pytest.mark.parametrize("n", [7, 8, 31, 32, 33, 64, 100, 2047, 2049])
def test_rows_of_any_length(n: int) -> None:
    graph = read(
        f"""
        graph @f(%x: f32[3, {n}]) -> (f32[3]) {{
          %e = exp %x : f32[3, {n}]
          %s = reduce_dims %e {{dims=(1,), monoid=sum<f32>}} : f32[3]
          yield %s
        }}
        """
    )
    (kernel,) = mined(graph)
    chunk = 8 * min(4, -(-n // 8))
    assert n // chunk <= 1 or ops(kernel, For)
    assert bool(ops(kernel, Guard)) == (n % chunk > 0)


def test_a_dear_value_is_kept_and_a_cheap_one_computed_again() -> None:
    for op, scratch in (("exp", 1), ("neg", 0)):
        graph = read(
            f"""
            graph @f(%x: f32[3, 1000]) -> (f32[3, 1000]) {{
              %e = {op} %x : f32[3, 1000]
              %s = reduce_dims %e {{dims=(1,), monoid=sum<f32>}} : f32[3]
              %r = reshape %s {{shape=(3, 1)}} : f32[3, 1]
              %b = broadcast %r {{shape=(3, 1000)}} : f32[3, 1000]
              %y = div %e, %b : f32[3, 1000]
              yield %y
            }}
            """
        )
        (kernel,) = mined(graph)
        assert len(ops(kernel, Scratch)) == scratch


def test_two_reductions_of_one_sweep_share_its_loops() -> None:
    graph = read(
        """
        graph @f(%x: f32[3, 1000]) -> (f32[3]) {
          %s = reduce_dims %x {dims=(1,), monoid=max<f32>} : f32[3]
          %t = reduce_dims %x {dims=(1,), monoid=min<f32>} : f32[3]
          %y = sub %s, %t : f32[3]
          yield %y
        }
        """
    )
    (kernel,) = mined(graph)
    outer = [op for op in kernel.body.ops if isinstance(op, For)]
    assert {len(op.results) for op in outer} <= {2}


def test_what_two_loops_put_aside_has_one_place() -> None:
    """Rows of x and columns of w are read in whole lines: rows are walked in blocks,
    and what is largest put aside by the whole blocks and by the last one."""
    graph = read(
        """
        graph @f(%x: f32[130, 70], %w: f32[70, 130]) -> (f32[130, 70]) {
          %t = permute %w {order=(1, 0)} : f32[130, 70]
          %e = add %x, %t : f32[130, 70]
          %s = reduce_dims %e {dims=(1,), monoid=max<f32>} : f32[130]
          %r = reshape %s {shape=(130, 1)} : f32[130, 1]
          %b = broadcast %r {shape=(130, 70)} : f32[130, 70]
          %y = sub %e, %b : f32[130, 70]
          yield %y
        }
        """
    )
    (kernel,) = mined(graph)
    assert len(ops(kernel, Scratch)) == 1


def linear(m: object, n: object, k: object, symbols: str = "") -> Function:
    """tanh (x·y + w) + z, for x of m by k."""
    return read(
        f"""
        graph @f(
            %x: f32[{m}, {k}], %y: f32[{k}, {n}], %w: f32[1, {n}], %z: f32[{m}, {n}]
        ) -> (f32[{m}, {n}]) {symbols} {{
          %p = matmul %x, %y {{dtype=f32}} : f32[{m}, {n}]
          %b = broadcast %w {{shape=({m}, {n})}} : f32[{m}, {n}]
          %s = add %p, %b : f32[{m}, {n}]
          %t = tanh %s : f32[{m}, {n}]
          %r = add %t, %z : f32[{m}, {n}]
          yield %r
        }}
        """
    )


@pytest.mark.parametrize("k", [20, 640, 700, 704], ids="k={}".format)
@pytest.mark.parametrize("m", [6, 14], ids="m={}".format)
def test_a_product_and_what_follows_are_written_once(m: int, k: int) -> None:
    """However many runs its sum has, and whether or not the last is as long."""
    (kernel,) = mined(linear(m, 32, k))
    assert len(ops(kernel, DotTile)) == len(ops(kernel, Tanh)) == 1
    outs = {op.buffer for op in ops(kernel, StoreTile)} & set(kernel.params)
    stores = [op for op in ops(kernel, StoreTile) if op.buffer in outs]
    assert len(stores) == 1


@pytest.mark.parametrize("shape", [(64, 32, 40), (64, 24, 650)], ids=str)
def test_the_last_panel_of_a_product_begins_early(shape: tuple[int, int, int]) -> None:
    """So it is whole: nothing is limited."""
    (kernel,) = mined(linear(*shape))
    assert len(ops(kernel, DotTile)) == 1
    accesses = [*ops(kernel, LoadTile), *ops(kernel, StoreTile)]
    assert not any(op.limited for op in accesses)


@pytest.mark.parametrize("shape", [(5, 3, 7), (7, 40, 30), (13, 9, 650)], ids=str)
def test_products_that_are_smaller_than_panels(shape: tuple[int, int, int]) -> None:
    mined(linear(*shape))


@pytest.mark.parametrize("k", [0, 5, 320, 321])
def test_sums_of_any_length_end(k: int) -> None:
    """Those of no products are 0, and what follows runs for them too."""
    symbols = "symbols [s0] facts [0 <= s0]"
    (kernel,) = mined(linear(20, 24, "s0", symbols), k)
    assert len(ops(kernel, DotTile)) == len(ops(kernel, Tanh)) == 1


def test_two_products_end_together() -> None:
    for k in (40, 650):
        graph = read(
            f"""
            graph @f(%x: f32[20, {k}], %y: f32[{k}, 24], %w: f32[{k}, 24])
                -> (f32[20, 24]) {{
              %p = matmul %x, %y {{dtype=f32}} : f32[20, 24]
              %q = matmul %x, %w {{dtype=f32}} : f32[20, 24]
              %t = tanh %p : f32[20, 24]
              %r = mul %t, %q : f32[20, 24]
              yield %r
            }}
            """
        )
        (kernel,) = mined(graph)
        assert len(ops(kernel, Tanh)) == 1


@pytest.mark.parametrize("shape", [(2, 14, 24, 650), (30, 9, 40, 11)], ids=str)
def test_sums_over_several_axes_end_in_the_last_trip_of_all(
    shape: tuple[int, int, int, int],
) -> None:
    a, m, n, k = shape
    whole = f"{a}, {m}, {k}, {n}"
    graph = read(
        f"""
        graph @f(%x: f32[{a}, {m}, {k}, 1], %y: f32[{a}, 1, {k}, {n}])
            -> (f32[{m}, {n}]) {{
          %v = broadcast %x {{shape=({whole})}} : f32[{whole}]
          %w = broadcast %y {{shape=({whole})}} : f32[{whole}]
          %p = mul %v, %w : f32[{whole}]
          %s = reduce_dims %p {{dims=(0, 2), monoid=sum<f32>}} : f32[{m}, {n}]
          %t = tanh %s : f32[{m}, {n}]
          yield %t
        }}
        """
    )
    (kernel,) = mined(graph)
    assert len(ops(kernel, DotTile)) == len(ops(kernel, Tanh)) == 1
