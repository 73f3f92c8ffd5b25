"""Derivatives of derivatives: inside a graph they are compiled, across one refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from end_to_end.conftest import Agree, Comparison

X = torch.linspace(-2, 2, 12).reshape(3, 4)
W = torch.linspace(-1, 1, 16).reshape(4, 4).sin()


def loss(x: torch.Tensor) -> torch.Tensor:
    return ((x @ W).tanh() * x.exp()).sum()


INSIDE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gradient": lambda x: torch.func.grad(loss)(x) * 2,
    "gradient penalty": lambda x: loss(x) + torch.func.grad(loss)(x).square().sum(),
    "gradient of a gradient": torch.func.grad(
        lambda x: torch.func.grad(loss)(x).square().sum()
    ),
    "forward mode": lambda x: torch.func.jvp(loss, (x,), (x.cos(),))[1],
    "jacobian": torch.func.jacrev(lambda x: (x @ W).sin().sum(0)),
    "hessian": torch.func.hessian(loss),
    "for each row": torch.vmap(torch.func.grad(lambda row: loss(row[None]))),
}


@pytest.mark.parametrize("name", INSIDE)
def test_derivatives_within_a_graph(agree: Agree, name: str) -> None:
    agree(INSIDE[name], X, fullgraph=True)


@pytest.mark.parametrize("name", ["gradient penalty", "for each row"])
def test_gradients_of_derivatives(agree: Agree, name: str) -> None:
    agree(INSIDE[name], X.clone().requires_grad_(), backward=True, fullgraph=True)


def test_a_second_backward_pass_says_that_there_is_none() -> None:
    """torch compiles one backward pass of a graph; nothing wrong comes out silently."""
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="fusec")
    x = X.clone().requires_grad_()
    (grad,) = torch.autograd.grad(compiled(x), x, create_graph=True)
    (wanted,) = torch.autograd.grad(loss(x), x)
    torch.testing.assert_close(grad, wanted)
    with pytest.raises(RuntimeError, match="does not currently support double back"):
        grad.square().sum().backward()


def test_after_a_refused_second_pass_the_first_still_works(
    compare: Callable[..., Comparison],
) -> None:
    run = compare(loss)
    x = X.clone().requires_grad_()
    (grad,) = torch.autograd.grad(run.ours(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        grad.sum().backward()
    run(X.clone().requires_grad_(), backward=True)


def test_a_graph_is_gone_backward_through_twice(
    compare: Callable[..., Comparison],
) -> None:
    run = compare(loss)
    found = []
    for call in (run.ours, run.theirs):
        x = X.clone().requires_grad_()
        y = call(x)
        y.backward(retain_graph=True)
        y.backward()
        found.append(x.grad)
    torch.testing.assert_close(*found)


def test_a_backward_pass_within_the_graph(agree: Agree) -> None:
    """Compiled autograd hands over what was saved as one list."""
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.GELU())

    def step(x: torch.Tensor) -> torch.Tensor:
        loss = (net(x) * x[:, :5].exp()).sum()
        loss.backward()
        return loss.detach()

    with torch._dynamo.config.patch(compiled_autograd=True):
        x = torch.linspace(-1, 1, 24).reshape(4, 6).requires_grad_()
        agree(step, x)
