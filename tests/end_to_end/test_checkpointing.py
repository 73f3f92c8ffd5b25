"""Activations that are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from end_to_end.conftest import Agree, Comparison
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

X = torch.linspace(-3, 3, 70).reshape(7, 10)


class Layer(nn.Module):
    """One layer, whose inside is checkpointed, with or without random numbers."""

    def __init__(self, dropout: float, **checkpointing: Any) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(10)
        self.up, self.down = nn.Linear(10, 20), nn.Linear(20, 10)
        self.dropout = dropout
        self.checkpointing = checkpointing

    def inside(self, x: torch.Tensor) -> torch.Tensor:
        y = F.gelu(self.up(self.norm(x)))
        if self.dropout:
            y = F.dropout(y, self.dropout)
        return x + self.down(y)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.inside, x, **self.checkpointing)


def keep_products(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    if op in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


SELECTIVE = partial(create_selective_checkpoint_contexts, keep_products)

KINDS: dict[str, dict[str, Any]] = {
    "non-reentrant": {"use_reentrant": False},
    "selective": {"use_reentrant": False, "context_fn": SELECTIVE},
    "reentrant": {"use_reentrant": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_layers_train_as_in_eager(agree: Agree, kind: str) -> None:
    model = nn.Sequential(*(Layer(0.0, **KINDS[kind]) for _ in range(2)))
    agree(model, X.clone().requires_grad_(), backward=True)


@pytest.mark.parametrize(
    "dynamic",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["static", "dynamic"],
)
@pytest.mark.parametrize("kind", ["non-reentrant", "selective"])
def test_random_numbers_are_drawn_again_as_they_were(
    compare: Callable[..., Comparison], kind: str, dynamic: bool
) -> None:
    """A mask that was dropped is the same mask when the backward pass needs it."""
    model = nn.Sequential(*(Layer(0.5, **KINDS[kind]) for _ in range(2)))
    run = compare(model, dynamic=dynamic)
    for rows in (7, 5):
        run(X[:rows].clone().requires_grad_(), backward=True)


def test_the_generator_ends_where_eagers_does() -> None:
    torch._dynamo.reset()
    model = nn.Sequential(*(Layer(0.5, use_reentrant=False) for _ in range(2)))
    states = []
    for call in (model, torch.compile(model, backend="fusec")):
        torch.manual_seed(3)
        call(X.clone().requires_grad_()).sum().backward()
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_several_kinds_of_random_numbers(agree: Agree) -> None:
    def inside(x: torch.Tensor) -> torch.Tensor:
        noise = torch.rand_like(x) + torch.randn_like(x)
        mask = torch.bernoulli(torch.full_like(x, 0.5))
        return (x.sin() * noise * mask).cos()

    def f(x: torch.Tensor) -> torch.Tensor:
        y = checkpoint(inside, x, use_reentrant=False)
        return checkpoint(inside, y, use_reentrant=False) * torch.rand_like(y)

    agree(f, X.clone().requires_grad_(), backward=True, fullgraph=True)


def test_a_compiled_model_within_a_checkpoint() -> None:
    """The other way round: eager recomputes a graph that fusec compiled."""
    torch._dynamo.reset()
    grads = []
    inside = Layer(0.0).inside
    for call in (inside, torch.compile(inside, backend="fusec")):
        x = X.clone().requires_grad_()
        checkpoint(call, x, use_reentrant=False).sin().sum().backward()
        assert x.grad is not None
        grads.append(x.grad)
    torch.testing.assert_close(*grads)
