"""Losses agree with ATen's kernels in every bit, and so do their gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import fusec

LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "mse": F.mse_loss,
    "huber": F.huber_loss,
    "huber, delta": partial(F.huber_loss, delta=0.7),
    "smooth l1": F.smooth_l1_loss,
    "smooth l1, beta": partial(F.smooth_l1_loss, beta=0.7),
}
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.fixture(params=LOSSES)
def loss(request: pytest.FixtureRequest) -> Callable[..., torch.Tensor]:
    torch._dynamo.reset()
    return LOSSES[request.param]


def pair(dtype: torch.dtype, n: int = 4096) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(n).to(dtype) for _ in range(2)]


def compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(f, backend=fusec.backend, options={"fallback": False})


@pytest.mark.parametrize("dtype", FLOATS)
def test_elements_and_their_gradients(loss: Any, dtype: torch.dtype) -> None:
    grad = torch.randn(4096).to(dtype)
    outcomes: list[Any] = []
    for f in (loss, compiled(partial(loss, reduction="none"))):
        x, y = (t.requires_grad_() for t in pair(dtype))
        made = f(x, y, reduction="none") if f is loss else f(x, y)
        outcomes.append((made, *torch.autograd.grad(made, (x, y), grad)))
    for want, got in zip(*outcomes, strict=True):
        assert want.dtype == got.dtype
        assert torch.equal(want, got)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_reduced(loss: Any, reduction: str, dtype: torch.dtype) -> None:
    outcomes: list[Any] = []
    f = partial(loss, reduction=reduction)
    for run in (f, compiled(f)):
        x, y = (t.requires_grad_() for t in pair(dtype, 999))
        made = run(x, y)
        outcomes.append((made, *torch.autograd.grad(made, (x, y))))
    torch.testing.assert_close(outcomes[1], outcomes[0])


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_shapes_that_broadcast_dtypes_that_differ_and_no_elements(loss: Any) -> None:
    run = compiled(loss)
    for x, y in (
        (torch.randn(3, 1), torch.randn(4)),
        (torch.randn(5), torch.randn(5).double()),
        (torch.randn(5).half(), torch.randn(())),
        (torch.randn(0), torch.randn(0)),
    ):
        # Of two dtypes, torch's huber loss has another than it is traced to have.
        torch.testing.assert_close(
            run(x, y), loss(x, y), equal_nan=True, check_dtype=x.dtype is y.dtype
        )


def test_sizes_that_are_symbols(loss: Any) -> None:
    f = torch.compile(
        loss, backend=fusec.backend, dynamic=True, options={"fallback": False}
    )
    for n in (5, 17):
        x, y = (t.requires_grad_() for t in pair(torch.float32, n))
        got = torch.autograd.grad(f(x, y), (x, y))
        torch.testing.assert_close(got, torch.autograd.grad(loss(x, y), (x, y)))
