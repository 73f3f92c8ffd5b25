"""Ops on lists of tensors, tensor by tensor: what each does to its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

Tensors = list[torch.Tensor]


def lists(count: int = 3) -> Tensors:
    shapes = [(3, 4), (5,), ()]
    return [torch.rand(shape) + 0.5 for shape in shapes[:count]]


CALLS = {
    "one": lambda a, b: torch._foreach_sqrt(torch._foreach_neg(torch._foreach_neg(a))),
    "number": lambda a, b: torch._foreach_add(torch._foreach_mul(a, 3), 0.5),
    "list": lambda a, b: torch._foreach_add(a, b, alpha=0.5),
    "numbers": lambda a, b: torch._foreach_div(a, [2.0, 3.0, 4.0]),
    "tensor": lambda a, b: torch._foreach_mul(a, torch.tensor(1.5)),
    "addcdiv": lambda a, b: torch._foreach_addcdiv(a, b, a, 0.5),
    "addcmul": lambda a, b: torch._foreach_addcmul(a, b, a, [0.5, 1.0, 2.0]),
    "lerp": lambda a, b: torch._foreach_lerp(a, b, 0.25),
    "power": lambda a, b: torch._foreach_pow(2.0, a),
    "extremes": lambda a, b: (
        torch._foreach_maximum(a, b),
        torch._foreach_minimum(a, 0.7),
        torch._foreach_clamp_max(a, [0.6, 0.7, 0.8]),
    ),
    "norm": lambda a, b: torch._foreach_norm(a, 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_is_compiled_and_eagers(name: str, check: Any) -> None:
    assert check(CALLS[name], lists(), lists()).fallbacks == set()


def test_in_place(check: Any) -> None:
    def f(a: Tensors, b: Tensors) -> None:
        torch._foreach_mul_(a, 0.9)
        torch._foreach_addcmul_(a, b, b, 0.1)

    assert check(f, lists(), lists()).fallbacks == set()
