"""What `verify` takes for the same result, and what it blames."""

from __future__ import annotations

import pytest
import torch

from fusec.errors import VerificationError
from fusec.ir.parser import parse_function
from fusec.runtime.verified import Stage, Verified

N = 1000


def run(was: torch.Tensor, program: torch.Tensor) -> None:
    """Run a program that gives one tensor where its stages give another."""
    name = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}
    form = f"{name.get(was.dtype, 'i64')}[{was.numel()}]"
    graph = parse_function(f"graph @f(%x: {form}) -> ({form}) {{\n  yield %x\n}}")
    Verified(lambda arguments: [program], [Stage("the frontend", graph)], {})([was])


def is_blamed(was: torch.Tensor, program: torch.Tensor) -> bool:
    try:
        run(was, program)
    except VerificationError:
        return True
    return False


def test_who_made_the_difference_is_told() -> None:
    blamed = "code generation changed result 0 .* from what the frontend gave by 1$"
    with pytest.raises(VerificationError, match=blamed):
        run(torch.zeros(N), torch.ones(N))


def test_small_numbers_of_the_wrong_sign_are_found() -> None:
    was = torch.full((N,), 5e-5)
    assert is_blamed(was, -was)


@pytest.mark.parametrize("large", [1.0, 1e4])
def test_numbers_beside_a_large_one_are_looked_at(large: float) -> None:
    was = torch.zeros(N)
    was[0] = large
    program = torch.full((N,), 0.9)
    program[0] = large
    assert is_blamed(was, program)


def test_one_wrong_element_among_many_is_found() -> None:
    was = torch.randn(N)
    program = was.clone()
    program[N // 2] += 0.01
    assert is_blamed(was, program)


def test_integers_are_equal() -> None:
    was = torch.arange(N)
    assert not is_blamed(was, was)
    assert is_blamed(was, was + (was == 7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_rounding_leaves_is_the_same(dtype: torch.dtype) -> None:
    """A few last places of each element, of a sum's terms, and of what cancels."""
    eps = torch.finfo(dtype).eps
    was = torch.randn(N, dtype=dtype)
    assert not is_blamed(was, was * (1 + 2 * eps))
    noise = eps * (2 * torch.rand(N, dtype=dtype) - 1)
    assert not is_blamed(noise, -noise / 2)


@pytest.mark.parametrize("special", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_the_same_alone(special: float) -> None:
    was = torch.randn(N)
    was[3] = special
    assert not is_blamed(was, was.clone())
    program = was.clone()
    program[3] = 0.0
    assert is_blamed(was, program)
    assert is_blamed(program, was)
