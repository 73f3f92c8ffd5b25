"""Outputs that lie in the memory of arguments or of one another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from end_to_end.conftest import Agree

X = torch.arange(60.0).reshape(10, 6)


def half(n: int) -> int:
    return n // 2


OF_ARGUMENTS = {
    "slice": lambda x: x[half(x.shape[0]) :],
    "column": lambda x: x[:, half(x.shape[1])],
    "transposed": lambda x: x.t()[half(x.shape[1]) :],
    "diagonal": lambda x: x.diagonal(half(x.shape[1])),
    "flat": lambda x: x.reshape(-1)[x.shape[0] :],
    "windows": lambda x: x.unfold(0, 3, 2)[1:],
    "beside a result": lambda x: (x[half(x.shape[0]) :], x + 1),
    "split": lambda x: x.split(half(x.shape[0]) + 1),
    "itself": lambda x: (x, x[1:]),
    "none": lambda x: (x[1:], None, 3),
    "expanded": lambda x: x[half(x.shape[0])].expand(4, x.shape[1]),
    "empty": lambda x: x[x.shape[0] :],
}

OF_OUTPUTS = {
    "slices": lambda x: (lambda y: (y, y[half(x.shape[0]) :], y.t()))(x + 1),
    "slices alone": lambda x: (lambda y: (y[half(x.shape[0]) :], y[: x.shape[1]]))(
        x + 1
    ),
    "twice": lambda x: (lambda y: (y, y))(x * 2),
    "chunks": lambda x: (x * 2).chunk(3),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", [*OF_ARGUMENTS, *OF_OUTPUTS])
def test_views_are_where_eager_has_them(agree: Agree, name: str, dynamic: bool) -> None:
    f = (OF_ARGUMENTS | OF_OUTPUTS)[name]
    for x in (X, X[2:9], X[:, 1:], X[1:, 2:].clone().t()):
        agree(f, x, dynamic=dynamic, fullgraph=True)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", [n for n in OF_ARGUMENTS if n != "none"])
def test_a_view_of_an_argument_is_one(name: str, dynamic: bool) -> None:
    torch._dynamo.reset()
    f = OF_ARGUMENTS[name]
    compiled = torch.compile(f, backend="fusec", dynamic=dynamic)
    x, y = X.clone(), X.clone()
    seen, expected = compiled(x), f(y)
    x.mul_(3)
    y.mul_(3)
    torch.testing.assert_close(seen, expected)


COPIES = {
    "clone": lambda x: x.clone(),
    "clones": lambda x: (x.clone(), x.clone(), x),
    "equal results": lambda x: (x + 1, x + 1),
    "equal constants": lambda x: (torch.zeros(4), torch.zeros(4), x.sum()),
    "no cast": lambda x: (x.to(torch.float32, copy=True), x.float()),
    "of a view": lambda x: (x[2:].clone(), x[2:]),
    "of all": lambda x: x.reshape(-1).clone(),
    "contiguous": lambda x: x[:1].t().contiguous(),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", COPIES)
def test_copies_have_memory_of_their_own(
    agree: Agree, name: str, dynamic: bool
) -> None:
    agree(COPIES[name], X, dynamic=dynamic)


def swap(x: Any, y: Any) -> None:
    t = x.clone()
    x.copy_(y)
    y.copy_(t)


def rotate(x: Any, y: Any, z: Any) -> Any:
    t = x.clone()
    x.copy_(y)
    y.copy_(z)
    z.copy_(t)
    return x.clone(), t


EXCHANGES = {
    "swap": swap,
    "rotate": rotate,
    "one after the other": lambda x, y: (x.add_(1), y.copy_(x), y.clone())[2],
    "turned": lambda x: x.copy_(x.flip(0)).sum(),
    "transposed": lambda x: x.copy_(x.t().clone()),
    "returned too": lambda x, y: (x.copy_(y), x.clone(), y.clone(), x),
}


@pytest.mark.parametrize("name", EXCHANGES)
def test_arguments_exchange_what_they_hold(agree: Agree, name: str) -> None:
    f = EXCHANGES[name]
    count = f.__code__.co_argcount
    agree(f, *(torch.randn(4, 4) for _ in range(count)))


MUTATIONS = {
    "view of the new": lambda x: (x.add_(1), x[half(x.shape[0]) :])[1],
    "view and result": lambda x: (x.mul_(2)[half(x.shape[0]) :], x.sum()),
    "part": lambda x: (x[half(x.shape[0]) :].add_(1), x)[1],
    "through a view": lambda x: x.t()[1:].mul_(3).sum(),
    "copy": lambda x: x[:3].copy_(x[3:6] + 1),
    "an argument returned": lambda x: x.add_(1),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_beside_views(agree: Agree, name: str, dynamic: bool) -> None:
    for x in (X, X[2:9]):
        agree(MUTATIONS[name], x, dynamic=dynamic)


OVERWRITTEN = {
    "half": lambda x: (lambda y: (y.fill_(3), y)[1])(x.chunk(2, 1)[0]),
    "rows": lambda x: [y.zero_() for y in x.split(3)[1:]],
    "a column": lambda x: x[:, 1].fill_(2),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", OVERWRITTEN)
def test_a_part_of_an_argument_is_overwritten_and_returned(
    agree: Agree, name: str, dynamic: bool
) -> None:
    """The argument begins amid its storage, and need not be dense."""
    for x in (X, X[2:9], X[:, 1:], X[1:, 2:].clone()[2:].t()):
        agree(OVERWRITTEN[name], x, dynamic=dynamic)


def test_two_views_of_one_base_as_arguments(agree: Agree) -> None:
    def step(base: Any, k: int) -> Any:
        def f(x: Any, y: Any) -> Any:
            x.add_(1)
            y.mul_(2)
            return x.sum() + y[0]

        compiled = torch.compile(f, backend="fusec")
        return compiled(base[:6], base[k:]), base

    for k in (0, 3, 6):
        torch._dynamo.reset()
        got = step(X.clone(), k)
        base = X.clone()
        x, y = base[:6], base[k:]
        x.add_(1)
        y.mul_(2)
        torch.testing.assert_close(got, (x.sum() + y[0], base))


def test_gradients_through_views(agree: Agree) -> None:
    def f(x: Any) -> Any:
        y = x * 2
        return y[half(x.shape[0]) :], y.t(), y

    for dynamic in (False, True):
        torch._dynamo.reset()
        compiled = torch.compile(f, backend="fusec", dynamic=dynamic)
        grads: list[Any] = []
        for g in (f, compiled):
            x = X.clone().requires_grad_()
            a, b, c = g(x)
            (a.sum() + (b * b).sum() + c.sin().sum()).backward()
            grads.append(x.grad)
        torch.testing.assert_close(*grads)
