"""Views, factories and indexing against eager, bit for bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

VIEWS = {
    "view": lambda x: x.view(6, -1),
    "reshape": lambda x: x.transpose(0, 1).reshape(-1),
    "permute": lambda x: x.permute(2, 0, -2),
    "transpose": lambda x: x.transpose(-1, 0),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1),
    "slice": lambda x: x[:, 1:-1, ::2],
    "slice_beyond": lambda x: x[5:, -9:9],
    "select": lambda x: x[-1] + x[0, 1],
    "squeeze": lambda x: x[:1].squeeze() + x.unsqueeze(1).squeeze(1)[0],
    "flip": lambda x: x.flip(0, -1),
    "roll": lambda x: x.roll((1, 2), (0, 2)),
    "cat": lambda x: torch.cat([x, x[:, :1].double(), x[:, :0]], 1),
    "cat_empty": lambda x: torch.cat([torch.empty(0), x], -1),
    "stack": lambda x: torch.stack([x, x * 2], -1),
    "split": lambda x: x.split(2, 1),
    "chunk": lambda x: x.chunk(3, -1),
    "unbind": lambda x: x.unbind(1),
    "pad": lambda x: F.pad(x, (1, 2, -1, 1), value=3.5),
    "repeat": lambda x: x.repeat(2, 1, 3, 1),
    "diagonal": lambda x: x.diagonal(1, 1, 2)[:, 1:] + x.diagonal(-1, -2, -1),
    "tril": lambda x: x.tril(-1) + x.triu(1),
    "unfold": lambda x: x.unfold(2, 2, 1),
    "unfold_last": lambda x: x.unfold(-1, 3, 1) + x.unfold(2, 3, 2),
    "narrow": lambda x: torch.narrow_copy(x, 1, -2, 2),
    "unbind_copy": lambda x: torch.unbind_copy(x, -1),
    "as_strided": lambda x: x.as_strided((2, 3), (5, 1), 1) * 2,
    "movedim": lambda x: x.movedim(0, -1).flatten(1),
    "t": lambda x: x[0].t() @ x[1],
    "where": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
}


def each(x: torch.Tensor) -> dict[str, Any]:
    """All views at once: compiling takes longer than running."""
    return {name: view(x) for name, view in VIEWS.items()}


def test_views_of_results(check: Any) -> None:
    x = torch.arange(24.0).reshape(2, 3, 4) - 11.5
    captured = check(lambda x: each(x + 1), x, exact=True)
    assert captured.fallbacks == set()


def test_memory_that_is_not_row_major_is_left_to_aten(check: Any) -> None:
    def f(x: Any) -> Any:
        return (x + 1).as_strided((2, 3), (4, 1), 1) * 2

    x = torch.arange(24.0).reshape(4, 6)
    assert check(f, x).fallbacks == set()
    assert check(f, x.t()).fallbacks == {"aten.as_strided.default"}


WRITES = {
    "diagonal": lambda x, y: torch.diagonal_scatter(x, y[0, :3], 1),
    "lower diagonal": lambda x, y: torch.diagonal_scatter(x, y[0, :2], -1),
    "every other": lambda x, y: torch.slice_scatter(x, y[:, :2], 1, 0, 4, 2),
    "every third": lambda x, y: torch.slice_scatter(x, y[:, :1], 1, -2, None, 3),
    "nothing": lambda x, y: torch.slice_scatter(x, y[:, :0], 1, 4, 4, 2),
    "places": lambda x, y: torch.as_strided_scatter(x, y[0, :2], (2,), (5,), 1),
    "scaled rows": lambda x, y: torch.ops.aten.embedding_renorm(
        x, torch.tensor([2, 0, 2]), 1.0, 2.0
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_writes_to_parts(check: Any, dtype: torch.dtype) -> None:
    x, y = (torch.randn(3, 4).to(dtype) for _ in range(2))
    captured = check(lambda x, y: [f(x, y) for f in WRITES.values()], x, y)
    assert captured.fallbacks == set()


def test_writes_to_diagonals_of_any_two_dimensions(check: Any) -> None:
    x = torch.randn(3, 4, 5)
    for offset, dim1, dim2 in ((0, 0, 1), (1, 2, 0), (-2, 1, 2), (4, 1, 2)):
        y = x.diagonal(offset, dim1, dim2).exp()

        def f(x: Any, y: Any, form: Any = (offset, dim1, dim2)) -> Any:
            return torch.diagonal_scatter(x, y, *form)

        assert check(f, x, y, exact=True, dynamic=False).fallbacks == set()


PADS = [((1, 2), 2), ((2, -1, -1, 3), 4), ((1, 0, 2, 1, 0, 3), 5), ((-1, -1), 3)]


@pytest.mark.parametrize(("pad", "rank"), PADS, ids=str)
@pytest.mark.parametrize("mode", ["replicate", "reflect", "circular"])
def test_gradients_of_pads(capture: Any, pad: Any, rank: int, mode: str) -> None:
    if mode != "replicate" and min(pad) < 0:
        pytest.skip("torch pads so with copies of the edge only")
    shape = (2, 3, 4, 5, 6)[-rank:]
    x, y = (torch.linspace(0, 1, 720)[: math.prod(shape)].reshape(shape).clone()
            .requires_grad_() for _ in range(2))  # fmt: skip

    def f(x: Any) -> Any:
        return F.pad(x, pad, mode=mode)

    captured = capture(f, x)
    weights = torch.linspace(-1, 1, captured.result.numel())
    for result in (captured.result, f(y)):
        (result * weights.reshape(result.shape)).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert captured.fallbacks == set()


def test_views_of_inputs(check: Any) -> None:
    assert (
        check(each, torch.arange(24.0).reshape(2, 3, 4) - 11.5, exact=True).fallbacks
        == set()
    )


def test_writes_to_views_become_concatenation(check: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        z = x * 2
        z[:, 1:3] = y
        z[0] += 1
        z[..., -1].zero_()
        return z

    assert check(f, torch.randn(2, 4, 3), torch.randn(3), exact=True).fallbacks == set()


def test_factories(check: Any) -> None:
    def f(x: Any) -> Any:
        n = x.shape[0]
        grid = torch.arange(n) * 2 + torch.arange(1.0, 2.0, 0.25)[:, None]
        return grid, torch.full((2, n), 3.5) + x, torch.eye(3), torch.linspace(0, 1, 5)

    assert check(f, torch.randn(5)).fallbacks == set()


def test_constants_of_a_graph(check: Any) -> None:
    table = torch.tensor([1.0, 2.0, 3.0])
    assert (
        check(lambda x: x * torch.tensor(2.5) + table, torch.randn(4, 3)).fallbacks
        == set()
    )


def test_indexing(check: Any) -> None:
    x = torch.randn(5, 6, 7)
    i, j = torch.tensor([[0, 4], [2, 2]]), torch.tensor([1, 3])

    def f(x: Any, i: Any, j: Any) -> Any:
        return (
            x[i],
            x[-i, j],
            x[:, i, j - 5],
            x[i, :, j],
            x.index_select(1, j),
            F.embedding(i, x[0]),
            x.gather(2, j.expand(5, 6, 2)),
        )

    captured = check(f, x, i, j, exact=True)
    assert captured.fallbacks == set()


def test_indexing_what_has_no_dimensions(check: Any) -> None:
    def f(x: Any, i: Any) -> Any:
        number, one = x[1, 2, 3], i[:1]
        return (
            number.gather(0, one), number.gather(0, i[0]), x[0, 0].gather(0, i[0]),
            number.index_select(0, one), x.index_select(1, i[0]),
            number.take(i[0]), x.take(i - 5),
        )  # fmt: skip

    i = torch.tensor([0, -1])
    x = torch.arange(24.0).reshape(2, 3, 4)
    captured = check(f, x, i.abs() * 0, exact=True)
    assert captured.fallbacks == set()
    check(lambda x, i: x.take(i), x, i, exact=True)


@pytest.mark.parametrize("right", [False, True])
def test_searching_few_boundaries(check: Any, right: bool) -> None:
    edges = torch.tensor([-1.0, 0.0, 0.0, 2.5, math.inf])
    x = torch.tensor([[-2.0, -1.0, -0.0, 1.0], [2.5, 9.0, math.inf, math.nan]])

    def f(x: Any, edges: Any) -> Any:
        return (
            torch.bucketize(x, edges, right=right),
            torch.bucketize(x[:, :2].long(), edges, right=right, out_int32=True),
            torch.searchsorted(torch.stack([edges, edges + 1]), x, right=right),
            torch.searchsorted(edges, 1.5, right=right),
            torch.searchsorted(edges, x, side="right" if right else "left"),
        )

    assert check(f, x[:, :3], edges, exact=True).fallbacks == set()
    check(lambda x, e: torch.bucketize(x, e, right=right), x, edges, exact=True)
    captured = check(torch.bucketize, x, torch.arange(100.0), exact=True)
    assert captured.fallbacks == {"aten.bucketize.Tensor"}


def test_indexing_by_a_mask_is_left_to_aten(check: Any) -> None:
    x = torch.randn(6, 3)
    torch._dynamo.config.capture_dynamic_output_shape_ops = True
    try:
        captured = check(lambda x: x[x[:, 0] > 0].exp().sum(0), x)
    finally:
        torch._dynamo.config.capture_dynamic_output_shape_ops = False
    assert captured.fallbacks == {"aten.index.Tensor"}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("shifts", "dims"),
    [(7, 1), (-3, None), ((1, -2), (0, 1)), (1000, -1), (0, 0), ((2, 3), (1, 1))],
)
def test_rolling(check: Any, shifts: Any, dims: Any, dynamic: bool) -> None:
    for shape in ((5, 7), (1, 3), (0, 4), (4, 0)):
        x = torch.arange(math.prod(shape)).reshape(shape)
        torch._dynamo.reset()
        captured = check(lambda x: x.roll(shifts, dims), x, exact=True, dynamic=dynamic)
        assert "index" not in captured.ops()
