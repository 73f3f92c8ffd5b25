"""What is compared in a backward pass is what the forward pass had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

Function = Callable[[torch.Tensor], torch.Tensor]

COMPUTED: dict[str, Function] = {
    "affine": lambda x: x * 1.1 + 0.3,
    "silu": lambda x: torch.nn.functional.silu(x) * 2,
    "softmax": lambda x: (x * 3).softmax(-1),
}
EXTREMES: dict[str, Function] = {
    "amax": lambda y: y.amax(-1),
    "amin": lambda y: y.amin((0, 1)),
    "max": lambda y: y.max(),
    "min": lambda y: y.min(),
    "both": lambda y: torch.stack((y.amax(0), y.amin(0))),
    "norm": lambda y: torch.linalg.vector_norm(y, float("inf"), dim=1),
    "clamp": lambda y: y.clamp(max=y.detach().amax(1, keepdim=True)),
    "scatter": lambda y: y.new_zeros(3, y.shape[1]).scatter_reduce(
        0, (torch.arange(7) % 3)[:, None].expand(7, y.shape[1]), y, "amax"
    ),
}
"""Their gradients go to the elements that are equal to them, or are not beyond."""


def gradients(f: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Of each result in its own argument."""
    xs = [x.clone().requires_grad_() for _ in EXTREMES]
    sum(y.float().pow(3).sum() for y in f(xs)).backward()
    return [x.grad.float() for x in xs]


@pytest.mark.parametrize("numerics", ["eager", "fast"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", COMPUTED)
def test_gradients_of_extremes(name: str, dtype: torch.dtype, numerics: str) -> None:
    def f(xs: list[torch.Tensor]) -> list[torch.Tensor]:
        functions = zip(EXTREMES.values(), xs, strict=True)
        return [extreme(COMPUTED[name](x)) for extreme, x in functions]

    torch._dynamo.reset()
    x = torch.randn(7, 300, generator=torch.Generator().manual_seed(0)).to(dtype)
    run = torch.compile(f, backend="fusec", options={"numerics": numerics})
    for got, want in zip(gradients(run, x), gradients(f, x), strict=True):
        # What is wrong about a comparison is zero, NaN, or shared with others.
        error = (got - want).abs().max() / want.abs().max()
        assert error < (0.06 if dtype is torch.bfloat16 else 1e-4)


@pytest.mark.parametrize("numerics", ["eager", "fast"])
def test_elements_are_equal_to_their_maximum(numerics: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        y = x * 1.1 + 0.3
        top = y.amax(1, keepdim=True)
        return torch.stack([(y == top).sum(1), (y >= top.view(-1, 1)).sum(1)])

    torch._dynamo.reset()
    x = torch.randn(9, 300, generator=torch.Generator().manual_seed(0)).bfloat16()
    run = torch.compile(f, backend="fusec", options={"numerics": numerics})
    assert torch.equal(run(x), f(x))


def test_checkpoints_compute_anew_what_they_are_told_to() -> None:
    """The user's word about memory goes before ours."""
    kept: list[int] = []

    def f(x: torch.Tensor) -> torch.Tensor:
        return checkpoint(lambda x: (x * 1.1).exp().amax(-1), x, use_reentrant=False)

    def pack(saved: torch.Tensor) -> torch.Tensor:
        kept.append(saved.numel())
        return saved

    torch._dynamo.reset()
    x = torch.randn(7, 300, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        y = torch.compile(f, backend="fusec")(x)
    y.sum().backward()
    assert sum(kept) == x.numel()
