"""What ATen computes by how its arguments lie: it finds them as the user laid them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import fusec

F = torch.nn.functional

LOOK: dict[str, Callable[[torch.Tensor], Any]] = {
    "view_as_complex": lambda x: torch.view_as_complex(
        x.reshape(3, 2, 8).transpose(1, 2).contiguous()
    ),
    "view as wider": lambda x: x.t().contiguous().view(torch.int64),
    "view as narrower": lambda x: x.t().contiguous().view(torch.int16),
    "clone, then view": lambda x: (
        x.t().clone(memory_format=torch.contiguous_format).view(torch.int16)
    ),
    "rand_like": lambda x: torch.rand_like(x.t().contiguous()),
    "randn_like": lambda x: torch.randn_like(x.t()),
    "multinomial": lambda x: torch.multinomial(x.abs().t().contiguous(), 2),
    "dropout": lambda x: F.dropout(x.t().contiguous(), 0.5),
    "bernoulli": lambda x: torch.bernoulli(x.abs().clamp(0, 1).t().contiguous()),
    "expanded": lambda x: torch.rand_like(x[:, :1].expand(6, 8).contiguous()),
    "flipped": lambda x: torch.rand_like(x.flip(0).t().contiguous()),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", LOOK)
def test_calls_that_look(name: str, dynamic: bool) -> None:
    torch._dynamo.reset()
    f = LOOK[name]
    compiled = torch.compile(f, backend=fusec.backend, dynamic=dynamic)
    x = torch.randn(6, 8)
    outcomes: list[Any] = []
    for g in (f, compiled):
        torch.manual_seed(0)
        outcomes.append(g(x))
    want, got = outcomes
    assert got.stride() == want.stride()
    assert torch.equal(got, want)


def test_a_gradient_that_looks() -> None:
    """The gradient of a sum is expanded, and `view_as_complex` takes none such."""

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(torch.polar(x.abs(), x)).sum(-1)

    torch._dynamo.reset()
    grads: list[torch.Tensor] = []
    for g in (f, torch.compile(f, backend=fusec.backend)):
        x = torch.linspace(-1, 1, 51).reshape(3, 17).requires_grad_()
        (grad,) = torch.autograd.grad(g(x).sum(), x)
        grads.append(grad)
    torch.testing.assert_close(*grads)
