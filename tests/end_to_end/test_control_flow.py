"""Control flow that stays in the graph: cond, while_loop, scan, nested regions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from end_to_end.conftest import Agree, Comparison
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as map_rows
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

X = torch.linspace(-2, 2.5, 40).reshape(8, 5)
W = torch.randn(5, 5) * 0.3


def branches(x: torch.Tensor) -> torch.Tensor:
    y = x.exp()
    picked = torch.cond(
        y.sum() > 60, lambda y: y.sin() + y.sum(0), lambda y: y.softmax(1) * 2, (y,)
    )
    return picked * x


def branches_that_read_what_surrounds_them(x: torch.Tensor) -> torch.Tensor:
    scale, shift = x.mean(), x[0] * 2

    def one(y: torch.Tensor) -> torch.Tensor:
        return y * scale + shift

    def other(y: torch.Tensor) -> torch.Tensor:
        return y @ W - shift

    return torch.cond(x.sum() > 0, one, other, (x + 1,))


def nested(x: torch.Tensor) -> torch.Tensor:
    def outer(y: torch.Tensor) -> torch.Tensor:
        return torch.cond(y.max() > 3, lambda z: z / 2, lambda z: z * z, (y,))

    return torch.cond(x.sum() > 0, outer, lambda y: y.cos(), (x + 1,)).sum(0)


def several_results(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    a, b = torch.cond(
        x.sum() > 0, lambda x: (x.sin(), x.sum(1)), lambda x: (x * 3, x[:, 0] * 1), (x,)
    )
    return a + 1, b * 2


def repeated(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    def more(count: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (count < 20) & (y.abs().max() < 50)

    def step(count: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return count + 1, y * 1.5 + y.mean(0)

    count, y = while_loop(more, step, (torch.zeros((), dtype=torch.int64), x * 2))
    return count, y.relu()


def scanned(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    def step(state: torch.Tensor, row: torch.Tensor) -> tuple[torch.Tensor, ...]:
        new = state * 0.5 + row.tanh()
        return new, new * 2

    last, rows = scan(step, torch.zeros(5), x * 0.5, dim=0)
    return last, rows.exp()


def scanned_in_parallel(x: torch.Tensor) -> torch.Tensor:
    sums = associative_scan(lambda a, b: a + b, x.exp(), 0, combine_mode="generic")
    return sums.log()


def mapped(x: torch.Tensor) -> torch.Tensor:
    return map_rows(lambda row, w: (row @ w).softmax(0), x, W) + 1


FLOW: dict[str, Callable[[torch.Tensor], Any]] = {
    "cond": branches,
    "closures": branches_that_read_what_surrounds_them,
    "nested": nested,
    "several results": several_results,
    "while": repeated,
    "scan": scanned,
    "associative scan": scanned_in_parallel,
    "map": mapped,
}


@pytest.mark.parametrize(
    "dynamic",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["static", "dynamic"],
)
@pytest.mark.parametrize("name", FLOW)
def test_control_flow_stays_in_one_graph(
    compare: Callable[..., Comparison], name: str, dynamic: bool
) -> None:
    """Both ways of every branch, by data that takes one and the other."""
    run = compare(FLOW[name], fullgraph=True, dynamic=dynamic)
    for x in (X, X - 3, X + 3):
        run(x)
    assert run.compilations >= 1


DIFFERENTIABLE = ["cond", "closures", "nested", "several results", "scan", "map"]


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_through_control_flow(agree: Agree, name: str) -> None:
    for x in (X, X - 3):
        agree(FLOW[name], x.clone().requires_grad_(), backward=True, fullgraph=True)


def test_a_branch_on_a_size(compare: Callable[..., Comparison]) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(
            x.shape[0] > 4, lambda x: x.sum(0) + 1, lambda x: x.prod(0), (x,)
        )

    run = compare(f, dynamic=True)
    for rows in (3, 6):
        run(torch.randn(rows, 5))


def test_a_region_that_is_compiled_once(agree: Agree) -> None:
    @torch.compiler.nested_compile_region
    def layer(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (x @ w).tanh() + x

    def f(x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = layer(x, W)
        return x.sum(1)

    agree(f, X, fullgraph=True)
    agree(f, X.clone().requires_grad_(), backward=True, fullgraph=True)


@pytest.mark.slow
def test_flex_attention(agree: Agree) -> None:
    from torch.nn.attention.flex_attention import flex_attention

    def score(s: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
        return torch.where(q >= k, s + (q - k) * 0.1, -float("inf"))

    q, k, v = (torch.randn(1, 2, 16, 8) for _ in range(3))
    agree(lambda q, k, v: flex_attention(q, k, v, score_mod=score) * 2, q, k, v)
