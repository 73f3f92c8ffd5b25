"""Scans against eager: values, places, gradients, the ends that torch defines."""

from __future__ import annotations

from typing import Any

import pytest
import torch

SHAPES = [(3, 4), (1, 5), (5, 1), (2, 3, 4), (6,), (0, 3), (3, 0), ()]

SCANS = {
    "cumsum": lambda x: x.cumsum(-1),
    "first": lambda x: x.cumsum(0),
    "cumprod": lambda x: x.cumprod(-1),
    "logcumsumexp": lambda x: x.logcumsumexp(0),
    "cummax": lambda x: x.cummax(-1),
    "cummin": lambda x: x.cummin(0),
    "extremes alone": lambda x: (x.cummax(-1).values, x.cummin(-1).values),
    "places alone": lambda x: x.cummax(-1).indices,
    "from the end": lambda x: x.flip(-1).cumsum(-1).flip(-1) if x.dim() else x,
    "twice": lambda x: x.cumsum(-1).cumsum(-1),
}


def each(x: torch.Tensor) -> dict[str, Any]:
    """All of them at once; torch has no extremes of nothing."""
    extremes = ("cummax", "cummin", "extremes alone", "places alone")
    chosen = [name for name in SCANS if x.numel() or name not in extremes]
    return {name: SCANS[name](x) for name in chosen}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scans(check: Any, shape: tuple[int, ...]) -> None:
    assert check(each, torch.randn(shape)).fallbacks == set()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(check: Any, dtype: torch.dtype) -> None:
    assert (
        check(
            each,
            torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).to(dtype),
        ).fallbacks
        == set()
    )


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool], ids=str)
def test_integers(check: Any, dtype: torch.dtype) -> None:
    x = torch.randint(0, 3, (3, 4)).to(dtype)
    assert (
        check(
            lambda x: (x.cumsum(0), x.cumprod(1), x.cummax(1), x.cummin(0)), x
        ).fallbacks
        == set()
    )


def test_a_dtype_that_is_asked_for(check: Any) -> None:
    x = torch.randint(0, 3, (3, 4))
    assert (
        check(
            lambda x: (
                x.cumsum(0, dtype=torch.float32),
                x.cumprod(1, dtype=torch.int8),
            ),
            x,
        ).fallbacks
        == set()
    )


def test_the_last_of_equals_and_nan_over_all(check: Any) -> None:
    nan, inf = float("nan"), float("inf")
    rows = [[1, 3, 3, 2, 3], [0.0, -0.0, 0.0, -0.0, 0.0], [1, nan, 7, nan, 2]]
    x = torch.tensor([*rows, [-inf, inf, inf, -inf, nan]])
    assert (
        check(
            lambda x: (x.cummax(1), x.cummin(1), x.cumsum(1), x.logcumsumexp(1)), x
        ).fallbacks
        == set()
    )


def test_sums_of_f32_are_as_near_as_eagers(check: Any) -> None:
    """ATen accumulates in f64: the result is rounded once."""
    x = torch.rand(3000, generator=torch.Generator().manual_seed(0)) + 0.5
    assert check(lambda x: x.cumsum(0), x, exact=True).fallbacks == set()


@pytest.mark.parametrize("shape", [(3, 4000), (70, 700), (700, 70)], ids=str)
def test_sums_of_exponentials_lose_no_digits(
    check: Any, shape: tuple[int, ...]
) -> None:
    """However they are scanned, and however far the logarithm has grown."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 50
    x[0, :9] = torch.tensor([-torch.inf, -torch.inf, 0, 1e30, -1e30, 3, -0.0, 0, 5])
    compiled = check(lambda x: x.logcumsumexp(1), x)
    exact = x.double().logcumsumexp(1)
    torch.testing.assert_close(compiled.result.double(), exact, rtol=2e-7, atol=0)


def test_gradients_run_from_the_other_end(capture: Any) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return (x.cumsum(1) * x.exp().cumsum(0)).square()

    x = torch.randn(3, 5, requires_grad=True)
    captured = capture(f, x)
    (got,) = torch.autograd.grad(captured.result.sum(), x)
    torch.testing.assert_close(got, torch.autograd.grad(f(x).sum(), x)[0])
    assert captured.fallbacks == set()
    # Flips meet and vanish: what is left scans from the end.
    assert "slice" not in captured.ops()
