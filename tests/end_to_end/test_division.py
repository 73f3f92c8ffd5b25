"""Quotients and remainders of integers: eager's numbers, and eager's error for 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

DTYPES = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8]

DIVISIONS: dict[str, Callable[..., torch.Tensor]] = {
    "floor_divide": torch.floor_divide,
    "floor": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "trunc": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "remainder": torch.remainder,
    "fmod": torch.fmod,
}


def each(*operands: Any) -> list[torch.Tensor]:
    return [divide(*operands) for divide in DIVISIONS.values()]


def compiled(f: Any, **options: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(f, backend="fusec", fullgraph=True, **options)


def native(f: Any) -> Any:
    return compiled(f, options={"fallback": False})


def numbers(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """All of a dtype, large and small; no zeros."""
    info = torch.iinfo(dtype)
    draw = torch.Generator().manual_seed(0)
    large = torch.randint(info.min, info.max, shape, generator=draw, dtype=dtype)
    small = torch.randint(1, 9, shape, generator=draw).to(dtype)
    x = torch.where(torch.rand(shape, generator=draw) < 0.5, large, small)
    return x.masked_fill(x == 0, info.max)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_by_tensors(dtype: torch.dtype) -> None:
    x, y = numbers(dtype, 7, 33).flip(1), numbers(dtype, 7, 33)
    f = native(each)
    for divisor in (y, y[:1], y[:, 4:5], y[3, 3], y.t().contiguous().t()):
        torch.testing.assert_close(f(x, divisor), each(x, divisor), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES[:4], ids=str)
def test_the_least_integer_by_minus_one_wraps(dtype: torch.dtype) -> None:
    """Where the processor's instruction would trap, as eager's `trunc` does."""
    least = torch.full((70,), torch.iinfo(dtype).min, dtype=dtype)
    zero = torch.zeros_like(least)
    got = native(each)(least, torch.full_like(least, -1))
    torch.testing.assert_close(got, [least, least, least, zero, zero])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", DIVISIONS)
def test_by_a_zero_among_others(name: str, dtype: torch.dtype) -> None:
    def divide(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return DIVISIONS[name](x, y) * 2

    x, y = numbers(dtype, 5, 70), numbers(dtype, 5, 70)
    f = native(divide)
    assert torch.equal(f(x, y), divide(x, y))
    y[4, 69] = 0
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        divide(x, y)
    with pytest.raises(RuntimeError, match=r"^ZeroDivisionError \(.*_division\.py:\d+"):
        f(x, y)
    y[4, 69] = 1
    assert torch.equal(f(x, y), divide(x, y))


def test_by_numbers_and_sizes() -> None:
    x = torch.arange(-20, 20)

    def f(x: torch.Tensor, k: int) -> list[torch.Tensor]:
        return [*each(x, k), *each(x, x.shape[0]), 7 // x[:20], x % k]

    g = compiled(f, dynamic=True)
    for k in (3, -4):
        torch.testing.assert_close(g(x, k), f(x, k))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        g(x, 0)


def test_in_place_and_of_changing_sizes() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x //= y[: x.shape[0]]
        return x % y[0]

    g = compiled(f, dynamic=True)
    for n in (5, 8, 70):
        ours, theirs = torch.arange(n), torch.arange(n)
        divisor = torch.arange(1, 100)
        assert torch.equal(g(ours, divisor), f(theirs, divisor))
        assert torch.equal(ours, theirs)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        g(torch.arange(5), torch.arange(-4, 9))


def test_nothing_is_divided_by_anything() -> None:
    empty, zero = torch.empty(0, 3, dtype=torch.int64), torch.zeros(1, 3).long()
    torch.testing.assert_close(compiled(each)(empty, zero), each(empty, zero))


def test_only_what_is_wanted_is_checked() -> None:
    """Eager divides all of it, but what is wanted here walks beyond the quotient."""

    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x // y, (2, 3)) + 1

    x, y = torch.arange(40), torch.arange(1, 41)
    assert torch.equal(compiled(f)(x, y), f(x, y))


def test_checks_of_several_kinds_in_one_kernel() -> None:
    def f(x: torch.Tensor, i: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x[i] // y

    x, i, y = torch.arange(9), torch.tensor([1, 8]), torch.tensor([2, 3])
    g = compiled(f)
    assert torch.equal(g(x, i, y), f(x, i, y))
    with pytest.raises(IndexError, match="dimension 0 of size 9"):
        g(x, i + 1, y)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        g(x, i, y - 3)


def test_verified_programs_check_too() -> None:
    f = compiled(torch.floor_divide, options={"verify": True})
    x, y = torch.arange(9), torch.arange(1, 10)
    assert torch.equal(f(x, y), x // y)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        f(x, y - 3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_remainders_of_a_number(dtype: torch.dtype) -> None:
    x = torch.arange(1, 71).to(dtype)
    f = native(lambda x: (17 % x) * 2)
    assert torch.equal(f(x), (17 % x) * 2)
    x[69] = 0
    with pytest.raises(RuntimeError, match=r"^ZeroDivisionError \(.*_division\.py:\d+"):
        f(x)
