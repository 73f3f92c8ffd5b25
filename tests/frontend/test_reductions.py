"""Reductions, softmax and norms against eager, with their gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

SHAPES = [(3, 4), (1, 5), (2, 3, 4), (6,)]

REDUCTIONS = {
    "sum": lambda x: x.sum(-1),
    "sum_all": lambda x: x.sum(),
    "sum_keep": lambda x: x.sum(0, keepdim=True),
    "mean": lambda x: x.mean(-1),
    "prod": lambda x: x.prod(0),
    "amax": lambda x: x.amax((0, -1)) if x.dim() > 1 else x.amax(),
    "max": lambda x: torch.max(x, -1),
    "min": lambda x: torch.min(x, 0, keepdim=True),
    "argmax": lambda x: (x.argmax(), x.argmax(-1), x.argmin(0, keepdim=True)),
    "any": lambda x: ((x > 1).any(-1), (x < 9).all(), (x != 0).any(0, keepdim=True)),
    "var": lambda x: (x.var(-1, correction=0), x.std(0, correction=0, keepdim=True)),
    "var_mean": lambda x: torch.var_mean(x, correction=0),
    "logsumexp": lambda x: x.logsumexp(-1),
    "softmax": lambda x: F.softmax(x, -1),
    "log_softmax": lambda x: F.log_softmax(x, 0),
    "norm": lambda x: (x.norm(dim=-1), x.norm(1, 0), x.norm(3, -1), x.norm(math.inf)),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[-1:]),
}


def each(table: dict[str, Any]) -> Any:
    """All functions of a table at once: compiling takes longer than running."""
    return lambda x: {name: f(x) for name, f in table.items()}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float_reductions(check: Any, shape: tuple[int, ...]) -> None:
    captured = check(each(REDUCTIONS), torch.randn(shape))
    assert captured.fallbacks == set()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(check: Any, dtype: torch.dtype) -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    table = dict(REDUCTIONS)
    if dtype.itemsize == 2:
        # ATen rounds within; ours is nearer to the truth.
        del table["log_softmax"]
    assert check(each(table), x.to(dtype)).fallbacks == set()


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool], ids=str)
def test_integers(check: Any, dtype: torch.dtype) -> None:
    x = torch.randint(0, 5, (3, 4)).to(dtype)
    assert (
        check(lambda x: (x.sum(0), x.any(0), x.amax(1), x.max(1).values), x).fallbacks
        == set()
    )
    assert (
        check(
            lambda x: (x.prod(0), x.float().mean(), x.sum(dtype=torch.float64)), x
        ).fallbacks
        == set()
    )


def test_no_dimensions_and_no_elements(check: Any) -> None:
    assert (
        check(
            lambda x: (x.sum(), x.softmax(0), x.max(0), x.argmax(0)), torch.tensor(2.5)
        ).fallbacks
        == set()
    )
    empty = torch.empty(0, 3)
    assert (
        check(
            lambda x: (x.sum(0), x.mean(0), x.sum(1), x.prod(0), x.amax(1)), empty
        ).fallbacks
        == set()
    )


def test_nan_and_infinities_spread_as_in_torch(check: Any) -> None:
    x = torch.tensor([[1, math.nan, 3], [-math.inf, 2, math.inf], [-math.inf] * 3])

    def f(x: Any) -> Any:
        return x.amax(1), x.argmax(1), x.softmax(1), x.logsumexp(1), x.min(1)

    assert check(f, x).fallbacks == set()


def test_strided_inputs(check: Any) -> None:
    x = torch.randn(6, 8)[::2, 1::3].t()
    assert (
        check(lambda x: (x.sum(0), x.softmax(1), x.amax((0, 1))), x).fallbacks == set()
    )


NORMS = {
    "layer": (lambda: torch.nn.LayerNorm(6), (2, 4, 6)),
    "rms": (lambda: torch.nn.RMSNorm(6), (2, 4, 6)),
    "group": (lambda: torch.nn.GroupNorm(2, 4), (3, 4, 5)),
    "batch": (lambda: torch.nn.BatchNorm2d(4), (3, 4, 5, 2)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NORMS)
def test_norm_modules(
    check: Any, name: str, training: bool, dtype: torch.dtype
) -> None:
    if (name, training, dtype) == ("batch", True, torch.bfloat16):
        pytest.skip("ATen rounds the mean before it subtracts it")
    make, shape = NORMS[name]
    module = make().train(training).to(dtype)
    torch.nn.init.uniform_(module.weight)

    def f(x: Any) -> Any:
        with torch.no_grad():
            return module(x)

    assert check(f, torch.randn(shape, dtype=dtype)).fallbacks == set()


LOSSES = {
    "cross_entropy": lambda x: F.cross_entropy(x, torch.arange(4) % 3),
    "mse": lambda x: F.mse_loss(x, x.flip(0) * 2),
    "softmax": lambda x: (F.softmax(x, 1) * x).sum(),
    "log_softmax": lambda x: (F.log_softmax(x, 0) * x).sum(),
    "layer_norm": lambda x: (F.layer_norm(x, (3,)) * x).sum(),
    "gelu": lambda x: (F.gelu(x) * F.silu(x) * F.softplus(x)).sum(),
    "activations": lambda x: (x.tanh() + x.sigmoid() + F.relu(x) + F.elu(x)).sum(),
    "hard": lambda x: (F.hardswish(x) + F.leaky_relu(x) + F.hardtanh(x)).sum(),
    "max": lambda x: x.max(1).values.sum() + x.amin(0).sum() + x.var(0).sum(),
    "cat": lambda x: (torch.cat([x[:2], x[1:].relu()]) ** 2).sum(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(check: Any, capture: Any, name: str) -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    expected = x.clone().requires_grad_()
    LOSSES[name](expected).backward()
    actual = x.clone().requires_grad_()
    captured = capture(LOSSES[name], actual)
    captured.result.backward()
    torch.testing.assert_close(actual.grad, expected.grad)
    assert [graph.function.name for graph in captured.graphs] == ["forward", "backward"]
