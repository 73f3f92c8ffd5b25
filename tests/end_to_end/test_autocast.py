"""Mixed precision on the CPU: torch.autocast around, inside and beside a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from end_to_end.conftest import Agree
from torch import nn

BF16 = torch.bfloat16
X = torch.randn(6, 16)


class Block(nn.Module):
    """Attention and an MLP; norms and softmax stay in float32 under autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.up = nn.Linear(16, 32)
        self.down = nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + (q @ k.t()).softmax(-1) @ v
        return x + self.down(F.gelu(self.up(x)))


class Inside(nn.Module):
    """Autocast within the module, and switched off again for a part of it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.block = Block()
        self.head = nn.Linear(16, 4)
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", self.dtype):
            y = self.block(x)
            with torch.autocast("cpu", enabled=False):
                y = self.head(y.float())
            return y @ self.head.weight


def close(got: Any, want: Any) -> None:
    """Of one dtype, and as close as sums of bfloat16 in another order are."""
    assert got.dtype == want.dtype
    torch.testing.assert_close(got, want, rtol=3e-2, atol=3e-2)


def assert_trains_alike(model: nn.Module, around: Callable[[], Any]) -> None:
    """Results and gradients, the gradients computed outside of autocast."""
    found: list[list[torch.Tensor]] = []
    for call in (model, torch.compile(model, backend="fusec", fullgraph=True)):
        model.zero_grad()
        x = X.clone().requires_grad_()
        with around():
            y = call(x)
            loss = y.float().square().mean()
        loss.backward()
        assert x.grad is not None
        found.append([y.detach(), loss.detach(), x.grad, *_gradients(model)])
    for got, want in zip(*reversed(found), strict=True):
        close(got, want)


def _gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("dtype", [BF16, torch.float16], ids=str)
def test_a_model_called_under_autocast(dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    assert_trains_alike(Block(), lambda: torch.autocast("cpu", dtype))


@pytest.mark.parametrize("dtype", [BF16, torch.float16], ids=str)
def test_a_model_with_autocast_inside(dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    assert_trains_alike(Inside(dtype), lambda: torch.autocast("cpu", enabled=False))


def test_a_model_is_compiled_for_each_way_it_is_called() -> None:
    """One compiled model with autocast, without it, and with it again."""
    torch._dynamo.reset()
    model = Block().eval()
    compiled = torch.compile(model, backend="fusec", fullgraph=True)
    with torch.no_grad():
        for enabled in (True, False, True):
            with torch.autocast("cpu", BF16, enabled=enabled):
                close(compiled(X), model(X))


ROUNDINGS: dict[str, Callable[[torch.Tensor], Any]] = {
    "products": lambda x: (x @ x.t(), F.linear(x, x)),
    "then pointwise": lambda x: (x @ x.t()).relu() * 2 + 1,
    "kept in float32": lambda x: ((x @ x.t()).softmax(-1), (x @ x.t()).log()),
    "widest of several": lambda x: torch.cat([x @ x.t(), x]),
    "losses": lambda x: F.mse_loss(x @ x.t(), (x * 2) @ x.t()),
}


@pytest.mark.parametrize("name", ROUNDINGS)
def test_dtypes_are_eagers(agree: Agree, name: str) -> None:
    def f(x: torch.Tensor) -> Any:
        with torch.autocast("cpu", BF16):
            return ROUNDINGS[name](x)

    agree(f, torch.rand(8, 8) + 0.5, fullgraph=True)
