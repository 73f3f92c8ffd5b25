"""Emitted Triton, in Triton's interpreter: what the interpreter of the IR gives."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from gpu_cases import KERNELS, rand
from gpu_static import taken_in
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import arguments, graphs

from fusec.analysis import block_products, blocks
from fusec.analysis.accesses import accesses
from fusec.analysis.candidates import Choice, candidates, described
from fusec.build import emitted, kernel_text
from fusec.codegen import triton_rows
from fusec.codegen.backend import Emitted
from fusec.compiler import setting_of
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level, Module
from fusec.ir.dtypes import DType, bool_, f32, f64, i32, int_, parse_dtype
from fusec.ir.interpreter import interpret
from fusec.ir.opdef import REGISTRY
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.cast import Cast
from fusec.ir.parser import parse_module
from fusec.ir.printer import format_module
from fusec.ir.types import Tensor
from fusec.options import Options
from fusec.passes.journey import Journey, lower, scheduled_anew
from fusec.passes.pipeline import stripmined
from fusec.runtime.arrays import to_array
from fusec.target import SM_90

pytest.importorskip("triton")
from emulated import Emulator

SM_90_SETTING = setting_of(Options(target="sm_90"))


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("triton"))


def journey_of(f: Any, *args: Any, dynamic: bool = False) -> tuple[Journey, list[Any]]:
    """A function of torch's for a GPU, and its arguments as arrays."""
    (recorded,) = taken_in(f, *args, dynamic=dynamic)
    setting = setting_of(Options(target="sm_90"), recorded.imported.hints)
    given = recorded.arguments or ()
    arrays = [to_array(x) if isinstance(x, torch.Tensor) else x for x in given]
    return lower(recorded.imported.function, setting), arrays


def same(
    journey: Journey, arrays: list[Any], emulator: Emulator, ulps: int = 64
) -> None:
    """The program gives what its graph means, up to the order of additions."""

    def copies() -> list[Any]:
        return [np.array(x) if isinstance(x, np.ndarray) else x for x in arrays]

    expected = interpret(journey.graph, copies())
    agree(emulator.run(journey, copies()), expected, ulps)
    # The interpreter of IR has poison where nothing exists, Triton's has zeros.
    kernels = (stripmined(k, journey.target) for k in journey.kernels.values())
    module = Module((journey.joined.host, *kernels))
    agree(interpret(module.entry, copies(), module=module), expected, ulps)


def agree(results: Sequence[Any], expected: Sequence[Any], ulps: int) -> None:
    for got, wanted in zip(results, expected, strict=True):
        got, wanted = np.asarray(got), np.asarray(wanted)
        assert got.shape == wanted.shape
        if got.dtype.kind != "f":
            np.testing.assert_array_equal(got, wanted)
            continue
        finite = np.abs(wanted[np.isfinite(wanted)])
        scale = float(finite.max(initial=0.0))
        bound = ulps * float(np.finfo(got.dtype).eps)
        np.testing.assert_allclose(got, wanted, rtol=bound, atol=bound * scale)


# Fused kernels of every kind.


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("size", [(5, 37), (1, 300)], ids=str)
def test_fused_kernels(name: str, size: tuple[int, int], emulator: Emulator) -> None:
    torch.manual_seed(0)
    f, make = KERNELS[name]
    journey, arrays = journey_of(f, *make(*size))
    assert journey.kernels
    same(journey, arrays, emulator)


@pytest.mark.parametrize("name", [*KERNELS][::3])
def test_other_schedules(name: str, emulator: Emulator) -> None:
    """Blocks, warps and stages that nobody has measured yet."""
    f, make = KERNELS[name]
    journey, arrays = journey_of(f, *make(21, 150))
    choices: dict[str, Choice] = {}
    for kernel in journey.lowered.kernels.values():
        found = accesses(kernel.region)
        _, *others = candidates(found, journey.target, journey.setting.hints)
        if others:
            other = Random(name).choice(others).schedule
            choices[kernel.fingerprint.text] = Choice(described(other, found), 1.0)
    assert choices
    setting = replace(journey.setting, choices=choices.get)
    same(scheduled_anew(journey, setting), arrays, emulator)


@pytest.mark.parametrize("name", ["softmax", "product", "running sum", "turned"])
def test_open_sizes(name: str, emulator: Emulator) -> None:
    """One program for all of them, scheduled for the first."""
    f, make = KERNELS[name]
    journey, arrays = journey_of(f, *make(17, 45), dynamic=True)
    assert any(kernel.symbols for kernel in journey.kernels.values())
    same(journey, arrays, emulator)
    for m, n in ((3, 129), (70, 2)):
        torch.manual_seed(m)
        same(journey, sized(journey, [x.numpy() for x in make(m, n)]), emulator)


def sized(journey: Journey, tensors: list[Any]) -> list[Any]:
    """Arguments: arrays, and the sizes that some parameters are."""
    rest, params = iter(tensors), journey.graph.params
    arrays = {p: next(rest) for p in params if isinstance(p.type, Tensor)}
    values: dict[str, int] = {}
    for param, array in arrays.items():
        dims = zip(param.type.shape, array.shape, strict=True)
        values |= {str(dim): extent for dim, extent in dims}
    return [arrays[p] if p in arrays else values[p.hint] for p in params]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ["pointwise", "turned", "product", "running sum"])
def test_one_text_serves_several_blocks(
    name: str, dynamic: bool, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    f, make = KERNELS[name]
    args = make(*((2, 9000) if name == "running sum" else (37, 75)))
    found: list[Emitted] = []
    for half in (1, 2):
        for extent in ("ELEMENTS", "WALKED", "SQUARE"):
            monkeypatch.setattr(blocks, extent, getattr(blocks, extent) // half)
        monkeypatch.setattr(block_products, "SIDES", (32 // half,))
        journey, arrays = journey_of(f, *args, dynamic=dynamic)
        same(journey, arrays, emulator)
        (kernel,) = journey.kernels.values()
        found.append(emitted(kernel, journey.target))
    first, second = found
    assert first.text == second.text
    assert first.constants != second.constants
    assert [n for n, _ in first.constants] == [n for n, _ in second.constants]


BINARY = [torch.remainder, torch.fmod, torch.floor_divide, torch.div, torch.pow]
BINARY += [torch.maximum, torch.minimum, torch.atan2, torch.copysign, torch.hypot]
BINARY += [torch.add, torch.sub, torch.mul, torch.eq, torch.lt, torch.nextafter]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.__name__)
def test_numbers_on_either_side(
    op: Any, dtype: torch.dtype, emulator: Emulator
) -> None:
    """What a row does to a variable it does to a number, too."""

    def f(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        two = torch.full_like(x, 2.5)
        return op(x, two), op(two, x)

    torch.manual_seed(0)
    journey, arrays = journey_of(f, torch.randn(3, 20).to(dtype) * 3)
    same(journey, arrays, emulator)


@pytest.mark.parametrize("name", KERNELS)
def test_no_name_hides_another(name: str) -> None:
    """Of Python's or of Triton's, in kernels and in functions that combine."""
    f, make = KERNELS[name]
    journey, _ = journey_of(f, *make(5, 37))
    for kernel in journey.kernels.values():
        tree = ast.parse(kernel_text(kernel, journey.target))
        stored = {n.id for n in ast.walk(tree) if is_stored(n)}
        stored |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
        assert stored
        assert stored.isdisjoint({*dir(builtins), "tl", "triton"})


def is_stored(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


@pytest.mark.parametrize("dynamic", [False, True])
def test_programs_find_their_place_by_plain_division(dynamic: bool) -> None:
    f, make = KERNELS["products of batches"]
    journey, _ = journey_of(f, *make(300, 400), dynamic=dynamic)
    (kernel,) = journey.kernels.values()
    text = kernel_text(kernel, journey.target)
    places = [line for line in text.splitlines() if "%" in line or "//" in line]
    assert len(places) == 4  # of two axes within three
    assert all(line.count("tl.cdiv(") == 1 for line in places)
    assert not any("tl.where" in line for line in places)


def test_loops_over_blocks_read_back() -> None:
    f, make = KERNELS["product"]
    journey, _ = journey_of(f, *make(70, 90))
    kernels = [stripmined(k, journey.target) for k in journey.kernels.values()]
    text = format_module(Module((journey.joined.host, *kernels)))
    assert "block_extent" in text
    assert "along=" in text
    assert format_module(parse_module(text)) == text


@pytest.mark.parametrize("dynamic", [False, True])
def test_launches_that_became_one(dynamic: bool, emulator: Emulator) -> None:
    """Like parts are one function; each has its own blocks and sizes."""

    def f(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        return x - 0.1, y - 0.1, y.cumsum(1), z.exp().t().contiguous(), x.amax(0)

    torch.manual_seed(0)
    journey, arrays = journey_of(
        f, rand(9, 7), rand(9, 40), rand(20, 30), dynamic=dynamic
    )
    assert journey.joined.parts
    same(journey, arrays, emulator)


def test_like_parts_are_one_function(emulator: Emulator) -> None:
    def f(*xs: torch.Tensor) -> Any:
        return [x * 3 for x in xs]

    journey, arrays = journey_of(f, *(rand(n) for n in (30, 30, 30)))
    (kernel,) = journey.kernels.values()
    made = emitted(kernel, journey.target)
    assert made.text.count("@triton.jit") == 2
    assert len(made.constants) == 1
    same(journey, arrays, emulator)


def test_rows_too_long_to_hold(emulator: Emulator) -> None:
    """They are walked block by block, several times."""
    journey, arrays = journey_of(lambda x: x.softmax(-1), rand(2, 20_001))
    same(journey, arrays, emulator)


def test_numbers_are_of_the_dtype_of_what_they_meet(emulator: Emulator) -> None:
    """Triton takes a number that fits 32 bits for one of 32 bits."""

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, 2_000_000_000, 1) * 4

    journey, arrays = journey_of(f, rand(40))
    same(journey, arrays, emulator)
    assert emulator.run(journey, arrays)[0].max() == 8_000_000_000


def test_running_products_of_negative_zeros(emulator: Emulator) -> None:
    """Their signs go on from block to block."""
    x = torch.ones(1, 10_000)
    x[0, 5] = -0.0
    journey, arrays = journey_of(lambda x: x.cumprod(-1), x)
    (result,) = emulator.run(journey, arrays)
    assert np.signbit(result[0, 5:]).all()


@pytest.mark.parametrize("f", [torch.exp, torch.log], ids=["exp", "log"])
def test_what_the_device_s_library_computes(f: Any, emulator: Emulator) -> None:
    """Of f32, and of what computes in it; f64 is our own."""
    special = [0.0, -0.0, 1e-40, -100.0, -120.0, 88.8, float("inf"), -float("inf")]
    x = torch.tensor([*special, float("nan"), 1.0, 3.0])
    for dtype, ours in ((torch.float32, False), (torch.float64, True)):
        journey, arrays = journey_of(f, x.to(dtype))
        (kernel,) = journey.kernels.values()
        text = kernel_text(kernel, journey.target)
        assert ("libdevice" in text) is not ours
        (got,) = emulator.run(journey, arrays)
        np.testing.assert_allclose(got, f(x.to(dtype)).numpy(), rtol=1e-6)


def test_special_numbers(emulator: Emulator) -> None:
    x = torch.tensor([[1, float("nan"), 2], [float("inf"), -0.0, 0], [-1, -2, -3.0]])
    journey, arrays = journey_of(
        lambda x: (
            x.amax(1),
            x.amin(0),
            x.argmax(1),
            x.sum(1),
            x.clamp(min=0),
            -x,
            x.abs(),
        ),
        x,
    )
    same(journey, arrays, emulator)
    results = emulator.run(journey, arrays)
    assert np.signbit(results[5][1, 2])


# What programs combine in memory.


def places(n: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, n, shape)


GRADIENT = torch.ops.aten.embedding_dense_backward.default
UPDATES: dict[str, tuple[Any, ...]] = {
    "the gradient of an embedding": (
        lambda g, t: GRADIENT(g, t, 900, 3, False),
        rand(4, 60, 33),
        places(9, 4, 60),
    ),
    "narrow floats": (
        lambda x, i, s: x.scatter_add(1, i, s),
        rand(5, 900).half(),
        places(900, 5, 70),
        rand(5, 70).half(),
    ),
    "doubles": (
        lambda x, i, s: x.index_add(1, i, s),
        rand(7, 900).double(),
        places(900, 50),
        rand(7, 50).double(),
    ),
    "means of what is there": (
        lambda x, i, s: x.scatter_reduce(1, i, s, "mean", include_self=False),
        rand(5, 900),
        places(99, 5, 70),
        rand(5, 70),
    ),
    "narrow integers": (
        lambda x, i, s: x.scatter_add(0, i, s),
        places(100, 99).to(torch.int8),
        places(99, 5000),
        places(100, 5000).to(torch.int8),
    ),
    "bools": (
        lambda x, i, s: x.index_put((i,), s, accumulate=True),
        places(2, 900) > 0,
        places(900, 500),
        places(2, 500) > 0,
    ),
    "two indices": (
        lambda x, i, j, s: x.index_put((i, j - 40), s, accumulate=True),
        rand(30, 40, 5),
        places(30, 50),
        places(40, 50),
        rand(50, 5),
    ),
    "rows that are reduced before": (
        lambda x, i, s: x.index_add(0, i, s.softmax(-1)),
        rand(100, 9000),
        places(100, 3),
        rand(3, 9000),
    ),
    "products": (
        lambda x, i, a, b: x.index_add(0, i, a @ b),
        rand(900, 40),
        places(900, 50),
        rand(50, 33),
        rand(33, 40),
    ),
    "one number, often": (
        lambda x, i: x.index_add(0, i, torch.ones(5000)),
        rand(99),
        places(99, 5000),
    ),
    "what is read again": (
        lambda x, i, s: (x.index_add(0, i, s), x.index_add(0, i, x[:50]), x.exp()),
        rand(900, 37),
        places(900, 50),
        rand(50, 37),
    ),
    "zeros, twice": (
        lambda i, s: [torch.zeros(900, 37).index_add(0, i, y) for y in (s, s * 2)],
        places(900, 50),
        rand(50, 37),
    ),
}


@pytest.mark.parametrize("name", UPDATES)
def test_updates_of_memory(name: str, emulator: Emulator) -> None:
    f, *args = UPDATES[name]
    journey, arrays = journey_of(f, *args)
    assert any("tl.atomic_" in text for text in texts_of(journey))
    same(journey, arrays, emulator)


def texts_of(journey: Journey) -> list[str]:
    return [kernel_text(k, journey.target) for k in journey.kernels.values()]


@pytest.mark.parametrize("dynamic", [False, True])
def test_what_is_updated_in_place_is_not_copied(
    dynamic: bool, emulator: Emulator
) -> None:
    """A cache that gets some rows, and one that gets others twice."""

    def f(x: Any, y: Any, i: Any, j: Any, rows: Any) -> Any:
        x[:, i] = rows
        y.index_add_(0, j, rows[0]).index_add_(0, j + 1, rows[1] * 2)
        return x.sum(0)

    args = rand(4, 900, 8), rand(900, 8), torch.randperm(900)[:40], places(899, 40)
    journey, arrays = journey_of(f, *args, rand(4, 40, 8), dynamic=dynamic)
    assert not any(name.startswith("copy") for name in journey.kernels)
    same(journey, arrays, emulator)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_graphs(emulator: Emulator, data: st.DataObject) -> None:
    graph = data.draw(graphs(6))
    arrays = arguments(data.draw, graph)
    same(lower(graph, SM_90_SETTING), arrays, emulator, ulps=0)


# One op at a time.

OPS = [
    op
    for op in REGISTRY.values()
    if isinstance(op, type) and issubclass(op, ew.Elementwise)
]
DTYPES = [parse_dtype(name) for name in "bool i8 i32 i64 u8 f16 bf16 f32 f64".split()]
FAMILIES = {op.__module__: op for op in OPS}.values()


def operand_dtypes(op: Any, dtype: DType) -> list[DType]:
    if op is ew.Select:
        return [bool_, dtype, dtype]
    if op is ew.Ldexp:
        return [dtype, int_(dtype.bits)]
    return [dtype] * len(op.operand_fields)


def numbers(dtype: DType, seed: int) -> Any:
    """Numbers of any size, and special ones."""
    random = np.random.default_rng(seed)
    if dtype.is_bool:
        return random.integers(0, 2, 45) == 1
    if dtype.is_int:
        info = np.iinfo(dtype.carrier)
        special = [0, 1, 2, 3, info.min, info.max]
        many = random.integers(info.min, info.max, 30, dtype.carrier, endpoint=True)
        small = random.integers(0, 40, 9).astype(dtype.carrier)
        return np.concatenate([np.array(special, dtype.carrier), many, small])
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, -2.5, 3.5]
    many = random.standard_normal(35) * 2.0 ** random.integers(-8, 8, 35)
    return dtype.quantize(np.concatenate([special, many]))


def graph_of(op: Any, dtype: DType) -> Function:
    b = Builder(Level.GRAPH)
    kinds = operand_dtypes(op, dtype)
    xs = [b.param(Tensor(kind, (45,)), f"x{k}") for k, kind in enumerate(kinds)]
    return b.function(op.name, (b(op, *xs),))


def check(op: Any, dtype: DType, emulator: Emulator) -> None:
    """But for what numpy's reference rounds in between on 16 bits, as we do not."""
    if dtype.is_float and dtype.bits == 16 and op in (ew.Fma, ew.Nextafter):
        return
    function = graph_of(op, dtype)
    kinds = operand_dtypes(op, dtype)
    arrays = [np.roll(numbers(kind, k), 7 * k) for k, kind in enumerate(kinds)]
    if op is ew.Ldexp:
        arrays[1] %= 20
    same(lower(function, SM_90_SETTING), arrays, emulator, ulps=16)


@pytest.mark.parametrize("op", FAMILIES, ids=lambda op: op.name)
def test_an_op_of_each_family(op: Any, emulator: Emulator) -> None:
    for dtype in DTYPES:
        if op.takes(dtype):
            check(op, dtype, emulator)


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_op(op: Any, emulator: Emulator) -> None:
    for dtype in DTYPES:
        if op.takes(dtype):
            check(op, dtype, emulator)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_op_expands_to_rows(op: Any) -> None:
    """On all dtypes: no program may end at an op that a GPU lacks."""
    for dtype in filter(op.takes, DTYPES):
        (kernel,) = lower(graph_of(op, dtype), SM_90_SETTING).kernels.values()
        assert kernel_text(kernel, SM_90)


def test_casts(emulator: Emulator) -> None:
    for source in DTYPES:
        b = Builder(Level.GRAPH)
        x = b.param(Tensor(source, (45,)), "x")
        function = b.function(
            "casts", [b(Cast, x, dtype=d) for d in DTYPES if d is not source]
        )
        values = numbers(source, 1)
        if source.is_float:  # what does not fit an integer is unspecified
            values = np.where(np.isfinite(values), np.clip(values, -100, 100), 0)
            values = source.quantize(np.abs(values))
        same(lower(function, SM_90_SETTING), [values], emulator, ulps=1)


def test_rows_say_what_they_support() -> None:
    assert triton_rows.supports(ew.Add, f32, SM_90)
    assert triton_rows.supports(ew.Exp, f32, SM_90)
    assert not triton_rows.supports(ew.Exp, f64, SM_90)
    assert not triton_rows.supports(ew.Exp2, f32, SM_90)
    assert triton_rows.supports(Cast, i32, SM_90)
    assert not triton_rows.supports(Cast, parse_dtype("f8e5m2"), SM_90)
