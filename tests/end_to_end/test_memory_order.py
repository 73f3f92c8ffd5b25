"""Memory met in other orders than results are written: turned, interleaved, gathered.

Shapes are odd and even, below and beyond the blocks that a schedule takes.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

SHAPES = [(1, 1), (3, 5), (16, 16), (17, 64), (65, 33), (130, 200)]
DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int8, torch.bool]


def numbers(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    x = torch.randint(-9, 9, shape)
    return x > 0 if dtype is torch.bool else x.to(dtype)


FUNCTIONS = {
    "turned": lambda x: x.t().contiguous(),
    "turned and used": lambda x: torch.where(x.t() > 0, x.t(), x.t()[:1]),
    "interleaved": lambda x: torch.stack((x, x.flip(1)), -1).flatten(-2),
    "every other": lambda x: x.repeat(4, 4).reshape(-1)[::2].flip(0),
    "every third": lambda x: x.repeat(4, 4).reshape(-1)[1::3].clone(),
    "three ways": lambda x: torch.stack((x, x, x.flip(0)), 1).permute(2, 1, 0).clone(),
    "halves exchanged": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "parts": lambda x: torch.cat((x, x.flip(0), x), 0),
    "uneven parts": lambda x: torch.cat((x[:, :1], x), 1),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_elements_go_where_eager_puts_them(
    name: str, dtype: torch.dtype, agree: Any
) -> None:
    xs = [numbers(shape, dtype) for shape in SHAPES]
    agree(lambda *xs: [FUNCTIONS[name](x) for x in xs], *xs, exact=True)


@pytest.mark.parametrize("dynamic", [False, True])
def test_columns(dynamic: bool, agree: Any) -> None:
    """Sums, extremes and scans of columns, in blocks of them and in runs of rows."""

    def f(*xs: torch.Tensor) -> Any:
        return [
            (x.sum(0), x.amax(0), x.argmax(0), x.cumsum(0), x.softmax(0)) for x in xs
        ]

    shapes = [(3, 5), (300, 70), (1, 40), (1030, 33)]
    agree(f, *(torch.randn(shape).double() for shape in shapes), dynamic=dynamic)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_that_an_index_names(dtype: torch.dtype, agree: Any) -> None:
    table, index = torch.randn(20, 70).to(dtype), torch.randint(0, 20, (6, 3))

    def f(table: torch.Tensor, index: torch.Tensor) -> Any:
        rows = F.embedding(index, table)
        return rows * 2, rows.sum(-1), F.pad(rows, (1, 0, 2, 1)), table[index[:, 0]].t()

    agree(f, table, index)


def test_an_index_beyond_is_an_error_where_rows_are_read(agree: Any) -> None:
    import fusec

    f = torch.compile(lambda t, i: t[i] + 1, backend=fusec.backend)
    table = torch.randn(4, 64)
    torch.testing.assert_close(f(table, torch.tensor([3, 0])), table[[3, 0]] + 1)
    with pytest.raises(IndexError, match="out of range"):
        f(table, torch.tensor([1, 4]))
    torch.testing.assert_close(f(table, torch.tensor([2, -1])), table[[2, -1]] + 1)
