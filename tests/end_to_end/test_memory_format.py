"""Channels last: images and volumes whose channels lie next to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from end_to_end.conftest import Agree
from torch import nn

LAST = torch.channels_last


def image(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).to(memory_format=LAST)


class Residual(nn.Module):
    """A residual block of an image classifier."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.groups = nn.GroupNorm(2, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.first(x)).relu()
        return F.silu(self.groups(self.second(y)) + x)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: Residual(4),
    "classifier": lambda: nn.Sequential(
        Residual(4), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    ),
    "depthwise": lambda: nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4), nn.Hardswish(), nn.Conv2d(4, 8, 1)
    ),
    "upsampling": lambda: nn.Sequential(
        nn.Conv2d(4, 8, 1), nn.PixelShuffle(2), nn.GELU()
    ),
}


@pytest.mark.parametrize(
    "dynamic",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["static", "dynamic"],
)
@pytest.mark.parametrize("name", MODELS)
def test_models_keep_the_format_of_their_input(
    agree: Agree, name: str, dynamic: bool
) -> None:
    """Results, gradients and running statistics have eager's strides."""
    model = MODELS[name]().to(memory_format=LAST)
    x = image(2, 4, 6, 6).requires_grad_()
    agree(model, x, backward=True, dynamic=dynamic)
    with torch.no_grad():
        agree(model.eval(), x.detach(), dynamic=dynamic)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_one_model_on_both_formats(compare: Callable[..., Any], name: str) -> None:
    run = compare(MODELS[name]().eval())
    for x in (image(2, 4, 6, 6), torch.randn(2, 4, 6, 6), image(2, 4, 6, 6)):
        run(x)


OPS: dict[str, Callable[..., Any]] = {
    "pointwise": lambda x: (x * 2).relu(),
    "broadcast": lambda x: x * torch.arange(4.0)[:, None, None] + x.mean((2, 3), True),
    "channel sums": lambda x: (x.sum(1), x.sum(1, keepdim=True), x.amax((1, 2))),
    "softmax": lambda x: (x.softmax(1), x.log_softmax(3)),
    "to the other": lambda x: x.contiguous() * 2,
    "to channels last": lambda x: x.contiguous().to(memory_format=LAST) + 1,
    "clones": lambda x: (x.clone(), x.clone(memory_format=torch.contiguous_format)),
    "like": lambda x: torch.zeros_like(x) + torch.full_like(x, 2.0) * x,
    "concatenated": lambda x: torch.cat([x, x * 2], 1),
    "beside a row-major one": lambda x: torch.cat([x, x.contiguous()], 1) * 2,
    "padded": lambda x: F.pad(x, (1, 1, 2, 0)) + 1,
    "permuted": lambda x: x.permute(0, 2, 3, 1).reshape(-1, 4) * 3,
    "viewed": lambda x: (x.permute(0, 2, 3, 1)[1:], x[:, 1:] * 2),
    "pooled": lambda x: F.max_pool2d(x.exp(), 2) - 1,
    "interpolated": lambda x: F.interpolate(x, scale_factor=2.0) * 2,
    "batch norm": lambda x: F.batch_norm(x, None, None, training=True),
    "rows": lambda x: F.layer_norm(x, (6,)),
    "cast": lambda x: (x.bfloat16(), x.double() * 2, (x > 0).to(torch.int32)),
    "where": lambda x: torch.where(x > 0, x, x.flip(1)),
    "one channel": lambda x: x[:, :1] * 2,
}


@pytest.mark.parametrize("name", OPS)
def test_ops_give_eagers_strides(agree: Agree, name: str) -> None:
    for x in (image(2, 4, 6, 6), image(2, 4, 7, 6)[:, :, 1:]):
        agree(OPS[name], x, fullgraph=True)


@pytest.mark.parametrize("name", ["pointwise", "broadcast", "softmax", "concatenated"])
def test_gradients_have_eagers_strides(agree: Agree, name: str) -> None:
    agree(OPS[name], image(2, 4, 6, 6).requires_grad_(), backward=True)


def test_a_gradient_of_another_format_comes_in() -> None:
    """The backward pass was compiled for one format of the gradient, and gets two."""
    torch._dynamo.reset()

    def f(x: torch.Tensor) -> torch.Tensor:
        return x.sin() * 2

    compiled = torch.compile(f, backend="fusec")
    for gradient in (image(2, 4, 6, 6), torch.randn(2, 4, 6, 6)):
        grads = []
        for call in (f, compiled):
            x = image(2, 4, 6, 6).zero_().requires_grad_()
            call(x).backward(gradient)
            assert x.grad is not None
            grads.append(x.grad)
        torch.testing.assert_close(*grads)


def test_an_image_is_written_to_in_its_own_format(agree: Agree) -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.mul_(2).add_(y.contiguous())
        y[:, 1:3].copy_(x[:, :2])
        return x.sum((2, 3))

    agree(f, image(2, 4, 6, 6), image(2, 4, 6, 6))


def test_volumes(agree: Agree) -> None:
    model = nn.Sequential(nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4), nn.Tanh())
    model = model.to(memory_format=torch.channels_last_3d)
    x = torch.randn(2, 2, 4, 5, 3).to(memory_format=torch.channels_last_3d)
    agree(model, x.requires_grad_(), backward=True)
