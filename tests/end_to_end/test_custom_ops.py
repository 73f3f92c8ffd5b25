"""Operators that users define: functional, writing, effectful, with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from end_to_end.conftest import Agree, Comparison
from torch._higher_order_ops.effects import _EffectType, _register_effectful_op
from torch.library import custom_op

X = torch.linspace(-2, 2, 40).reshape(8, 5)

calls: list[str] = []
"""What ran, in order."""


@custom_op("fusec_behaviour::scaled", mutates_args=())
def scaled(x: torch.Tensor, factor: float, *, shift: int = 1) -> torch.Tensor:
    calls.append("scaled")
    return x * factor + shift


@scaled.register_fake
def _(x: torch.Tensor, factor: float, *, shift: int = 1) -> torch.Tensor:
    return torch.empty_like(x)


def _setup(ctx: Any, inputs: Any, keyword_only_inputs: Any, output: Any) -> None:
    ctx.factor = inputs[1]


scaled.register_autograd(
    lambda ctx, grad: (grad * ctx.factor, None), setup_context=_setup
)


@custom_op("fusec_behaviour::accumulate", mutates_args=("total",))
def accumulate(total: torch.Tensor, x: torch.Tensor) -> None:
    total.add_(x)


@custom_op("fusec_behaviour::accumulate_and_count", mutates_args=("total", "count"))
def accumulate_and_count(
    total: torch.Tensor, count: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    total.add_(x)
    count.add_(1)
    return x.sum(0)


@accumulate_and_count.register_fake
def _(total: torch.Tensor, count: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[1:])


@custom_op("fusec_behaviour::halves", mutates_args=())
def halves(x: torch.Tensor) -> list[torch.Tensor]:
    return [x[: len(x) // 2].clone(), x[len(x) // 2 :].clone()]


@halves.register_fake
def _(x: torch.Tensor) -> list[torch.Tensor]:
    return [x[: len(x) // 2].clone(), x[len(x) // 2 :].clone()]


@custom_op("fusec_behaviour::positive", mutates_args=())
def positive(x: torch.Tensor) -> torch.Tensor:
    return x[x > 0].clone()


@positive.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(torch.library.get_ctx().new_dynamic_size())


@custom_op("fusec_behaviour::refuse", mutates_args=())
def refuse(x: torch.Tensor) -> torch.Tensor:
    raise ValueError("the operator of the user refuses")


@refuse.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@custom_op("fusec_behaviour::transposed", mutates_args=())
def transposed(x: torch.Tensor) -> torch.Tensor:
    """Its strides are not as its fake says."""
    return (x * 2).t().contiguous().t()


@transposed.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def accumulates(x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    accumulate(total, x.exp())
    return total * 2


def accumulates_into_a_view(x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    accumulate(total[1:4], x[1:4] * 2)
    accumulate(total.t()[0], x[:, 0])
    return total.sum(0)


def accumulates_into_a_new_one(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    total = torch.zeros_like(x)
    accumulate(total, x)
    accumulate(total, y)
    return total.softmax(1)


def counts(x: torch.Tensor, total: torch.Tensor) -> tuple[torch.Tensor, ...]:
    count = torch.zeros((), dtype=torch.int64)
    first = accumulate_and_count(total, count, x + 1)
    second = accumulate_and_count(total, count, x * 2)
    return first + second, count * 10


OPS: dict[str, Callable[..., Any]] = {
    "functional": lambda x, y: scaled(x.sin(), 2.5).exp() + y,
    "keywords": lambda x, y: scaled(x, 0.5, shift=3) * scaled(y, 2.0, shift=-1),
    "several results": lambda x, y: [part * 2 for part in halves(x + y)],
    "writes": accumulates,
    "writes to views": accumulates_into_a_view,
    "writes to what is new": accumulates_into_a_new_one,
    "writes and returns": counts,
    "other strides": lambda x, y: transposed(x + 1).softmax(1) + transposed(y),
}


@pytest.mark.parametrize(
    "dynamic",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["static", "dynamic"],
)
@pytest.mark.parametrize("name", OPS)
def test_custom_ops(agree: Agree, name: str, dynamic: bool) -> None:
    agree(OPS[name], X, X.flip(0).clone(), fullgraph=True, dynamic=dynamic)


def test_gradients_of_custom_ops(agree: Agree) -> None:
    x, y = X.clone().requires_grad_(), X.flip(0).clone().requires_grad_()
    agree(OPS["functional"], x, y, backward=True, fullgraph=True)
    agree(OPS["keywords"], x, y, backward=True, fullgraph=True)


def test_results_whose_size_only_the_call_knows(
    compare: Callable[..., Comparison],
) -> None:
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        run = compare(lambda x: positive(x * 2).exp() + 1, fullgraph=True)
        for x in (X, X + 9, X - 9):
            run(x)
        assert run.compilations == 1


def test_an_op_that_refuses_raises_its_own_error() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: refuse(x + 1) * 2, backend="fusec")
    for _ in range(2):
        with pytest.raises(ValueError, match="the operator of the user refuses"):
            compiled(X)


def test_an_op_with_effects_runs_once_and_in_order(
    compare: Callable[..., Comparison],
) -> None:
    """Though nobody reads what it returns, and an equal call went before."""

    @custom_op("fusec_behaviour::say", mutates_args=())
    def say(x: torch.Tensor, word: str) -> None:
        calls.append(f"{word} {x.sum().item():.0f}")

    @say.register_fake
    def _(x: torch.Tensor, word: str) -> None:
        return None

    _register_effectful_op(say._opoverload, _EffectType.ORDERED)

    def f(x: torch.Tensor) -> torch.Tensor:
        say(x * 0 + 1, "first")
        y = x.exp()
        say(x * 0 + 2, "then")
        say(x * 0 + 2, "then")
        return y * 2

    run = compare(f, fullgraph=True)
    for _ in range(2):
        calls.clear()
        run(X)
        assert calls == ["first 40", "then 80", "then 80"] * 2


class Clipped(torch.autograd.Function):
    """The gradient is not that of the value."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, limit: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.limit = limit
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        return (2 * x * grad).clamp(-ctx.limit, ctx.limit), None


def test_autograd_functions(agree: Agree) -> None:
    x = X.clone().requires_grad_()
    agree(lambda x: Clipped.apply(x.sin(), 0.5).sum(1), x, backward=True)


def test_hooks_on_tensors(agree: Agree) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        y = x.sin()
        y.register_hook(lambda grad: grad * 3)
        return y.exp()

    agree(f, X.clone().requires_grad_(), backward=True)
