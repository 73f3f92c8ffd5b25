"""Functions that Dynamo cuts into several graphs, with Python in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from end_to_end.conftest import Comparison
from torch._dynamo.utils import counters

Compare = Callable[..., Comparison]
Warnings = Callable[[], list[str]]

X = torch.linspace(-3, 3, 60).reshape(6, 10)


def explicit(x: torch.Tensor) -> torch.Tensor:
    y = x.sin() + 1
    torch._dynamo.graph_break()
    return (y * x).softmax(1)


def branch(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    return y.exp() if y.sum() > 100 else y.cos() + 1


def one_after_another(x: torch.Tensor) -> torch.Tensor:
    x = x * 0.5 + 1
    torch._dynamo.graph_break()
    x = x.tanh() * 2
    torch._dynamo.graph_break()
    return x.sum(1)


def through_numpy(x: torch.Tensor) -> torch.Tensor:
    y = (x * 2).sin()
    torch._dynamo.graph_break()
    z = torch.from_numpy(np.sort(y.numpy(), axis=1))
    return z.exp() + x


@torch.compiler.disable
def outside(x: torch.Tensor) -> torch.Tensor:
    return x.flip(0) * 3


def calls_outside(x: torch.Tensor) -> torch.Tensor:
    return outside(x + 1).tanh() * x


def writes_around_a_break(x: torch.Tensor) -> torch.Tensor:
    part = x[1:]
    part.mul_(2)
    torch._dynamo.graph_break()
    x[:2].mul_(part[0].clone())
    return part.sum(0)


def views_across_a_break(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = x + 1
    rows = y[2:]
    torch._dynamo.graph_break()
    rows.mul_(3)
    return y, rows, y.t()


def keeps_lists_and_dicts(x: torch.Tensor) -> dict[str, Any]:
    kept: dict[str, Any] = {"parts": []}
    kept["parts"].append(x[:2] * 2)
    torch._dynamo.graph_break()
    kept["parts"].append(x[2:] * 3)
    kept["sum"] = torch.stack([part.sum() for part in kept["parts"]])
    return kept


BROKEN = {
    "explicit": (explicit, 2),
    "a branch on data": (branch, 2),
    "one after another": (one_after_another, 3),
    "numpy": (through_numpy, 2),
    "a disabled function": (calls_outside, 2),
    "writes around it": (writes_around_a_break, 2),
    "views across it": (views_across_a_break, 2),
    "containers": (keeps_lists_and_dicts, 2),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_part_is_compiled(compare: Compare, name: str) -> None:
    f, graphs = BROKEN[name]
    run = compare(f)
    run(X)
    assert run.compilations >= graphs


@pytest.mark.parametrize(
    "name", ["explicit", "a disabled function", "one after another"]
)
def test_gradients_cross_breaks(compare: Compare, name: str) -> None:
    f, graphs = BROKEN[name]
    run = compare(f)
    run(X.clone().requires_grad_(), backward=True)
    assert run.compilations >= 2 * graphs


def test_both_sides_of_a_branch_are_compiled_as_they_are_met(compare: Compare) -> None:
    run = compare(branch)
    run(X)
    first = run.compilations
    run(X + 50)
    assert run.compilations == first + 1
    run(X)
    assert run.compilations == first + 1


def test_a_part_that_raises_raises_to_the_caller_and_works_again(
    compare: Compare,
) -> None:
    def f(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        y = x.exp()
        torch._dynamo.graph_break()
        return y[index] * 2

    run = compare(f)
    run(X, torch.tensor([1, 5]))
    for call in (run.ours, run.theirs):
        with pytest.raises(IndexError):
            call(X, torch.tensor([1, 99]))
    run(X, torch.tensor([0, 2]))


def test_a_backward_pass_within_a_compiled_function(warnings: Warnings) -> None:
    """It is compiled where it is called, and Dynamo has no graphs to find in fusec."""
    torch._dynamo.reset()
    weight = torch.randn(10, 4) * 0.3

    def step(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        loss = ((x @ w).tanh() ** 2).sum()
        loss.backward()
        return loss.detach() * 2

    found: list[Any] = []
    traced = 0
    for call in (step, torch.compile(step, backend="fusec")):
        counters.clear()
        w = weight.clone().requires_grad_()
        found.append([call(X, w), call(X * 2, w), w.grad])
        traced = counters["stats"]["unique_graphs"]
    torch.testing.assert_close(*found)
    assert traced == 2  # before the backward pass and after it
    assert not warnings()
