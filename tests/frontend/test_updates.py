"""Scatters that a target combines in memory, against eager torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from fusec.frontend.aten import scatter
from fusec.frontend.dtypes import to_torch
from fusec.frontend.intake import Imported, import_graph
from fusec.ir.core import Op
from fusec.ir.interpreter import interpret
from fusec.ir.ops.view import Scatter
from fusec.runtime.arrays import to_array
from fusec.target import SM_90, Target

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
    torch.bool,
]
WAYS = ["sum", "mean", "amax", "amin"]


def taken(f: Any, *args: Any, target: Target | None = SM_90) -> Imported:
    """The graph of a function, taken in for a target; few are left to compare."""
    gm = make_fx(f, tracing_mode="fake")(*args)
    with patch.object(scatter, "FEW_PAIRS", 0):
        return import_graph(gm, args, target=target and (lambda device: target))


def scatters(imported: Imported) -> list[Op]:
    return [op for op in imported.function.body.ops if isinstance(op, Scatter)]


def evaluated(imported: Imported, args: Any) -> list[torch.Tensor]:
    """What the function gives, by the reference interpreter."""
    function = imported.function
    made = interpret(function, [to_array(x) for x in args])
    pairs = zip(made, function.body.yields, strict=True)
    return [torch.from_numpy(np.array(x)).to(to_torch(v.dtype)) for x, v in pairs]


def same(f: Any, *args: Any, exact: bool = True) -> Imported:
    """What the function gives is what torch's does; none of it is left to ATen."""
    imported = taken(f, *args)
    assert imported.fallbacks == ()
    made = evaluated(imported, args)
    close = {"rtol": 0, "atol": 0} if exact else {}
    torch.testing.assert_close(made, list(f(*args)), equal_nan=True, **close)
    return imported


@contextmanager
def reproducible() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def drawn(draw: Any, shape: Any, dtype: torch.dtype) -> torch.Tensor:
    """Small whole numbers, so that sums are exact in any order."""
    seed = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    low = 0 if dtype in (torch.bool, torch.uint8) else -9
    return torch.randint(low, 9, shape, generator=seed).to(dtype)


@st.composite
def scattered(draw: Any) -> tuple[torch.Tensor, int, torch.Tensor, torch.Tensor]:
    """A tensor, a dimension, indices that may meet, and a source that may be larger."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    picked = [draw(st.integers(0, n)) for n in shape]
    picked[dim] = draw(st.integers(0, 7))
    more = [n + draw(st.integers(0, 1)) for n in picked]
    random = np.random.default_rng(draw(st.integers(0, 999)))
    index = torch.from_numpy(random.integers(0, shape[dim], picked))
    index = index if draw(st.booleans()) else index.int()
    return drawn(draw, shape, dtype), dim, index, drawn(draw, more, dtype)


@settings(max_examples=40, deadline=None)
@given(scattered(), st.sampled_from(WAYS), st.booleans())
def test_what_is_combined(case: Any, way: str, include_self: bool) -> None:
    x, dim, index, src = case
    assume(way != "mean" or x.dtype is not torch.bool)  # eager has none
    index = index.long()  # torch's scatters take no other

    def f(x: Any, index: Any, src: Any) -> Any:
        return [x.scatter_reduce(dim, index, src, way, include_self=include_self)]

    same(f, x, index, src, exact=way != "mean")


@settings(max_examples=40, deadline=None)
@given(scattered())
def test_rows_that_are_added(case: Any) -> None:
    """By indices of either kind, slices of any rank."""
    x, dim, index, _ = case
    rows = index.flatten()[:7]
    shape = list(x.shape)
    shape[dim] = rows.numel()
    source = torch.arange(math.prod(shape)).reshape(shape).remainder(5).to(x.dtype)

    def f(x: Any, rows: Any, source: Any) -> Any:
        return [x.index_add(dim, rows, source)]

    same(f, x, rows, source)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_places_that_are_assigned(data: Any) -> None:
    """Negative ones count from the end; what is assigned may meet only to be added."""
    draw = data.draw
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    dims = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    accumulate = draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 999)))
    if accumulate:
        count = draw(st.sampled_from([(2, 3), (4,), (1,), (0,)]))
        picked = {d: random.integers(-shape[d], shape[d], count) for d in dims}
    else:
        cells = random.permutation(math.prod(shape[d] for d in sorted(dims)))
        extents = [shape[d] for d in sorted(dims)]
        found = np.unravel_index(cells[: draw(st.integers(1, 6))], extents)
        picked = dict(zip(sorted(dims), found, strict=True))
    indices = [
        torch.from_numpy(picked[d]) if d in picked else None for d in range(len(shape))
    ]
    x = drawn(draw, shape, dtype)
    wanted = x[tuple(slice(None) if i is None else i for i in indices)].shape
    values = drawn(draw, wanted, dtype)

    def put(x: Any, values: Any, *given: Any) -> Any:
        rest = iter(given)
        indices = [next(rest) if d in picked else None for d in range(x.dim())]
        return [torch.ops.aten.index_put.default(x, indices, values, accumulate)]

    same(put, x, values, *(i for i in indices if i is not None))


def test_extremes_of_what_is_no_number() -> None:
    """NaN is beyond all; infinities and zeros of both signs are in order."""
    odd = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.5, -2.0, 3e38, -1e-40]
    index = torch.arange(81) // 9
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        x = torch.tensor(odd, dtype=dtype)
        src = x.repeat(9)
        for way in ("amax", "amin", "sum"):
            for own in (True, False):
                same(reducing(way, own), x, index, src)
                same(reducing(way, own), x, index[::9], x)


def reducing(way: str, own: bool) -> Any:
    return lambda x, i, s: [x.scatter_reduce(0, i, s, way, include_self=own)]


def test_integers_wrap_around() -> None:
    def f(x: Any, i: Any, s: Any) -> Any:
        return [x.index_add(0, i, s)]

    for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64):
        most = torch.iinfo(dtype).max
        x = torch.full((3,), most, dtype=dtype)
        same(f, x, torch.tensor([0, 2, 0, 0]), torch.full((4,), most, dtype=dtype))


def test_narrow_floats_add_up_in_a_wide_one() -> None:
    """Of 4096 ones each is there: bfloat16 itself would stop at 256."""
    x, ones = torch.zeros(2, dtype=torch.bfloat16), torch.ones(4096).bfloat16()
    index = torch.zeros(4096, dtype=torch.int64)
    imported = taken(lambda x, i, s: [x.index_add(0, i, s)], x, index, ones)
    (made,) = evaluated(imported, [x, index, ones])
    assert made.tolist() == [4096.0, 0.0]


GRADIENT = torch.ops.aten.embedding_dense_backward.default


@pytest.mark.parametrize("padding", [-1, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_an_embedding(padding: int, dtype: torch.dtype) -> None:
    tokens = torch.tensor([[0, 1, 1], [3, 0, 0]])
    grad = torch.arange(24).reshape(2, 3, 4).to(dtype)
    imported = same(lambda g, t: [GRADIENT(g, t, 5, padding, False)], grad, tokens)
    (op,) = scatters(imported)
    assert op.masked == (padding >= 0)


@pytest.mark.parametrize("place", [-1, 5])
def test_what_lies_outside_is_an_index_error(place: int) -> None:
    x, s = torch.zeros(5, 2), torch.ones(3, 2)
    good, bad = torch.tensor([0, 4, 0]), torch.tensor([0, 4, place])
    imported = taken(lambda x, i, s: [x.index_add(0, i, s)], x, good, s)
    with pytest.raises(IndexError, match="dimension 0 of size 5"):
        lowered_and_run(imported, [x, bad, s])


def lowered_and_run(imported: Imported, arguments: list[Any]) -> Any:
    """By the program that a processor runs: its memory combines as well."""
    from fusec.compiler import compile_graph
    from fusec.options import Options

    return compile_graph(imported, Options(cache=False)).program(arguments)


def test_a_processor_runs_it_too() -> None:
    """What is shown for a GPU runs here meanwhile."""
    torch.manual_seed(0)

    def f(x: Any, i: Any, j: Any, s: Any) -> Any:
        rows = x.index_add(0, i, s.softmax(-1))
        largest = x.scatter_reduce(0, j, s, "amax", include_self=False)
        placed = x.index_put((i[:40].cumsum(0) % 50,), s[:1])
        return [rows, largest, placed, x.mT.index_add(1, i, s.mT)]

    x, s = torch.randn(50, 33), torch.randn(400, 33)
    i, j = torch.randint(0, 50, (400,)), torch.randint(0, 50, (400, 33))
    imported = taken(f, x, i, j, s)
    assert len(scatters(imported)) > 3
    made = lowered_and_run(imported, [x.clone(), i, j, s])
    torch.testing.assert_close(made, f(x, i, j, s))


def test_reproducible_results_are_left_to_torch() -> None:
    """Sums of floats, and whichever comes last; others no order changes."""

    def added(x: Any, i: Any, s: Any) -> Any:
        return [x.index_add(0, i, s)]

    def largest(x: Any, i: Any, s: Any) -> Any:
        return [x.index_reduce(0, i, s, "amax")]

    x, s = torch.randn(900), torch.randn(400)
    i = torch.randint(0, 900, (400,))
    with reproducible():
        (why,) = taken(added, x, i, s).fallbacks
        assert why.what == "aten.index_add.default"
        assert len(scatters(same(largest, x, i, s))) == 1
        assert len(scatters(same(added, x.long(), i, s.long()))) == 1
        assert taken(lambda x, i, s: [x.scatter(0, i, s)], x, i, s).fallbacks
    assert len(scatters(same(added, x, i, s, exact=False))) == 1


def test_a_target_without_it_goes_on_as_before() -> None:
    x, i = torch.randn(900), torch.randint(0, 900, (400,))
    f = lambda x, i: [x.index_add(0, i, x[:400])]  # noqa: E731
    assert not scatters(taken(f, x, i, target=None))
    assert taken(f, x, i, target=None).fallbacks
