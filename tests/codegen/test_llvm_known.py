"""What follows from coordinates in registers is decided when the kernel is compiled."""

from __future__ import annotations

import pytest
import torch

import fusec


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch.compiler.reset()


def rotary(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_parts_of_a_concatenation_are_told_apart_without_masks(
    dtype: torch.dtype,
) -> None:
    x, c, s = (torch.randn(n, 10, 64).to(dtype) for n in (4, 1, 1))
    compiled = fusec.jit(rotary)
    assert torch.equal(compiled(x, c, s), rotary(x, c, s))
    text = compiled.source(x, c, s)
    assert "masked" not in text
    assert "select <8 x float>" not in text


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 31)])
def test_the_last_trip_gathers_at_known_places(
    dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    """There the coordinates are constants, and so is what is computed from them."""

    def f(x: torch.Tensor) -> torch.Tensor:
        return x.repeat(4, 4).reshape(-1)[::2].flip(0)

    x = torch.arange(shape[0] * shape[1]).reshape(shape).to(dtype)
    assert torch.equal(fusec.jit(f)(x), f(x))


@pytest.mark.parametrize("parts", [2, 3, 4, 5])
@pytest.mark.parametrize("width", [1, 7, 8, 33])
def test_parts_of_every_size(parts: int, width: int) -> None:
    def f(*xs: torch.Tensor) -> torch.Tensor:
        return torch.cat([x * k for k, x in enumerate(xs)], -1) + 1

    xs = [torch.randn(6, width) for _ in range(parts)]
    assert torch.equal(fusec.jit(f)(*xs), f(*xs))


def test_registers_without_elements_choose_nothing() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x.exp().sum(-1)

    x = torch.randn(4, 1000)
    compiled = fusec.jit(f)
    torch.testing.assert_close(compiled(x), f(x))
    assert "select <8 x i1> splat (i1 false)" not in compiled.source(x)
