"""Scatter in all its forms, against eager: what meets in one place, what does not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.int8, torch.bool]
INDEX = torch.tensor([[0, 1, 1, 3], [3, 4, 0, 3]])
ROWS = torch.tensor([2, 0, 2])


def table(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    """Small whole numbers, so that sums and products are exact in any order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=generator).to(dtype)


PUT = {
    "one index": lambda x, s: x.scatter(1, INDEX[:, :1], s),
    "one index along the rows": lambda x, s: x.scatter(0, INDEX[:1], s),
    "a number": lambda x, s: x.scatter(1, INDEX, 1),
    "values": lambda x, s: x.scatter(1, INDEX, s),
    "no index": lambda x, s: x.scatter(1, INDEX[:, :0], s),
    "rows": lambda x, s: x.index_copy(0, ROWS[:2], s[ROWS[:2]]),
    "filled": lambda x, s: x.index_fill(-1, ROWS - 3, 1),
    "filled, transposed": lambda x, s: x.mT.index_fill(0, ROWS, s[1, 1]),
    "filled, of no dimensions": lambda x, s: x[0, 0].index_fill(0, ROWS[1], 1),
    "assigned": lambda x, s: x.index_put((ROWS, ROWS - 5), s[0, :3]),
    "assigned rows": lambda x, s: x.index_put((ROWS,), s[0, 0]),
    "assigned masked": lambda x, s: x.index_put((x > s,), s[1, 1]),
    "assigned apart": lambda x, s: _assigned(x, s),
    "by position": lambda x, s: x.put(ROWS * 3, s[0, :3]),
    "no dimensions": lambda x, s: x[0, 0].scatter(0, ROWS[1], s[1, 1]),
}  # fmt: skip


def _assigned(x: Any, s: Any) -> Any:
    y = torch.stack([x, s])
    y[0, :, ROWS] = 1
    y[:, ROWS, 1] = s[0, 2]
    return y


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_put(check: Any, dtype: torch.dtype) -> None:
    x, s = table(dtype, 5, 5), table(dtype, 5, 5, seed=1)
    captured = check(lambda x, s: [f(x, s) for f in PUT.values()], x, s, exact=True)
    assert captured.fallbacks == set()


ADDED = {
    "sums": lambda x, s: x.scatter_add(1, INDEX, s),
    "rows": lambda x, s: x.index_add(0, ROWS, s[:3]),
    "assigned": lambda x, s: x.index_put((ROWS, ROWS), s[0, :3], accumulate=True),
    "by position": lambda x, s: x.put(ROWS * 3, s[0, :3], accumulate=True),
    "not at all": lambda x, s: x.index_add(0, ROWS, s[:3], alpha=False),
}
NUMBERS = {
    "multiples of rows": lambda x, s: x.index_add(0, ROWS, s[:3], alpha=3),
    "added": lambda x, s: x.scatter(1, INDEX, s, reduce="add"),
    "multiplied": lambda x, s: x.scatter(1, INDEX, s, reduce="multiply"),
}


@pytest.mark.filterwarnings("ignore:The reduce argument")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_added(check: Any, dtype: torch.dtype) -> None:
    x, s = table(dtype, 5, 5), table(dtype, 5, 5, seed=1)
    chosen = ADDED if dtype is torch.bool else ADDED | NUMBERS
    captured = check(lambda x, s: [f(x, s) for f in chosen.values()], x, s, exact=True)
    assert captured.fallbacks == set()


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("dtype", DTYPES[:-1], ids=str)
def test_what_is_reduced(check: Any, dtype: torch.dtype, include_self: bool) -> None:
    x, s = table(dtype, 5, 5), table(dtype, 5, 5, seed=1)

    def f(x: Any, s: Any) -> list[Any]:
        kinds = ("sum", "prod", "mean", "amax", "amin")
        reduced = [
            x.scatter_reduce(1, INDEX, s, kind, include_self=include_self)
            for kind in kinds
        ]
        return reduced + [
            x.index_reduce(0, ROWS, s[:3], kind, include_self=include_self)
            for kind in kinds[1:]
        ]

    assert check(f, x, s).fallbacks == set()


def test_what_is_no_number_stays_in_its_place(check: Any) -> None:
    x = torch.tensor([[math.nan, 1.0, math.inf, -0.0, 2.0]])
    s = torch.tensor([[math.inf, -math.inf, math.nan, -0.0]])

    def f(x: Any, s: Any) -> list[Any]:
        found = [x.scatter_add(1, INDEX[:1], s), x.scatter(1, INDEX[:1], s)]
        for kind in ("amax", "amin", "prod"):
            found.append(x.scatter_reduce(1, INDEX[:1], s, kind, include_self=False))
        return found

    assert check(f, x, s, exact=True).fallbacks == set()


MASKS = {
    "as large": ((3, 4), (3, 4)),
    "smaller": ((3, 4), (4,)),
    "larger": ((4,), (3, 4)),
    "of no dimensions": ((), ()),
    "empty": ((0, 3), (0, 3)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_put_where_a_mask_holds(check: Any, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    xs = [table(dtype, *shape) for shape, _ in MASKS.values()]
    masks = [torch.rand(shape, generator=draw) < 0.6 for _, shape in MASKS.values()]

    def f(xs: Any, masks: Any, source: Any) -> Any:
        pairs = zip(xs, masks, strict=True)
        return [x.masked_scatter(mask, source) for x, mask in pairs]

    captured = check(f, xs, masks, table(dtype, 3, 5, seed=1), exact=True)
    assert captured.fallbacks == set()


def test_gradients_of_selections(capture: Any) -> None:
    """Large, but of one index in each line."""

    def f(x: Any) -> Any:
        return x.max(1).values + x.gather(1, INDEX[:, 1:2])[:, 0] * 2

    x, y = (torch.arange(2000.0).reshape(2, 1000).requires_grad_() for _ in range(2))
    captured = capture(f, x)
    captured.result.sum().backward()
    f(y).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=0)
    assert captured.fallbacks == set()


def test_resampling_is_derived_dim_by_dim(capture: Any) -> None:
    """Too many indices and places to compare each with each, but for their product."""

    def f(x: Any, i: Any, j: Any) -> Any:
        return x[:, :, i[:, None], j[None]]

    i, j = torch.arange(60) // 3, torch.arange(90) // 3 - 30
    x, y = (torch.arange(1200.0).reshape(1, 2, 20, 30).requires_grad_() for _ in "xy")
    captured = capture(f, x, i, j)
    captured.result.sin().sum().backward()
    f(y, i, j).sin().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert captured.fallbacks == set()


def test_many_indices_into_many_places_are_left_to_aten(check: Any) -> None:
    x, s = torch.randn(4, 1000), torch.randn(4, 1000)
    index = torch.randint(0, 1000, (4, 1000))
    captured = check(lambda x, s: x.scatter_add(1, index, s), x, s)
    assert captured.fallbacks == {"aten.scatter_add.default"}
