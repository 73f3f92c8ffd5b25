"""Inputs that break compilers: nothing there, one element, odd dtypes."""

from __future__ import annotations

import math
import threading
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from end_to_end.conftest import Agree

X = torch.linspace(-3, 3, 70).reshape(7, 10)

EMPTY = {
    "all parts empty": lambda x: torch.cat([x[:0], x[:0]]) + 1,
    "some parts empty": lambda x: torch.cat([x[:0], x, x[7:]]) + 1,
    "repeated never": lambda x: x.repeat(0, 3),
    "sum of nothing": lambda x: (x[:0].sum(), x[:, :0].sum(1), x[:0].prod(0)),
    "mean of nothing": lambda x: x[:, :0].mean(1),
    "any of nothing": lambda x: ((x[:0] > 0).any(), (x[:0] > 0).all(0)),
    "softmax of nothing": lambda x: (x[:0].softmax(1), x[:, :0].softmax(1)),
    "reshaped": lambda x: (x[:0] * 2).reshape(5, 0, 2).sum(2),
    "padded": lambda x: F.pad(x[:0], (1, 1, 2, 0), value=3.0),
    "gathered": lambda x: x[torch.tensor([], dtype=torch.int64)] * 2,
    "norm": lambda x: F.layer_norm(x[:0], (10,)),
    "flipped": lambda x: x[:0].flip(0, 1).t() + 1,
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", EMPTY)
def test_where_there_is_nothing(agree: Agree, name: str, dynamic: bool) -> None:
    agree(EMPTY[name], X, dynamic=dynamic, fullgraph=True)


@pytest.mark.parametrize("sizes", [(0, 1, 2, 5), (5, 0, 1), (1, 3, 0)], ids=str)
def test_one_function_on_many_sizes(agree: Agree, sizes: tuple[int, ...]) -> None:
    def f(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = F.gelu(x * x.shape[0]) + x.sum(0)
        return y, y.softmax(-1), torch.cat([x, y]).reshape(-1)

    for n in sizes:
        agree(f, torch.randn(n, 6), dynamic=True)


BOOLS = {
    "sum": lambda x: (torch.sum(x > 0, 1), (x > 0).sum(dtype=torch.bool)),
    "sum as bool": lambda x: torch.sum(x > 0, 1, dtype=torch.bool),
    "prod as bool": lambda x: torch.prod(x > 0, 1, dtype=torch.bool),
    "max": lambda x: (x > 0).max(1),
    "amin": lambda x: (x > 0).amin(0),
    "plus": lambda x: (x > 0) + (x > 1),
    "times": lambda x: (x > 0) * (x > 1) * 2,
    "cumulated": lambda x: (x > 0).cumsum(1),
    "sorted": lambda x: (x > 0).sort(1)[0],
    "where": lambda x: torch.where(x > 0, x > 1, x < -1),
}


@pytest.mark.parametrize("name", BOOLS)
def test_bools_as_numbers(agree: Agree, name: str) -> None:
    agree(BOOLS[name], X, fullgraph=True)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_passes_through(agree: Agree, dtype: str) -> None:
    eight = getattr(torch, dtype)
    agree(lambda x: x.to(eight).float() * 2, X)
    agree(lambda x: (x.float() * 2).sum(1), X.to(eight))


@pytest.mark.parametrize(
    "x",
    [
        X[:, ::3],
        X.t(),
        X[0].expand(5, 10),
        torch.arange(20.0).as_strided((4, 6), (3, 1)),
        X[3, 4],
        X.reshape(7, 1, 10, 1),
        X[::2, 1:].permute(1, 0),
    ],
    ids=["steps", "transposed", "expanded", "overlapping", "0-d", "ones", "both"],
)
def test_any_strides(agree: Agree, x: torch.Tensor) -> None:
    agree(lambda x: (x * 2 + x.sum(), x.reshape(-1).flip(0), x.amax()), x)


GATHERS = {
    "beside a part": lambda x, i: torch.cat([x[0], x[1][i % 10 - 10]]) * 2,
    "beside padding": lambda x, i: F.pad(F.embedding(i % 7, x), (0, 0, 1, 2)),
    "shifted": lambda x, i: torch.cat([x[:, 0], x[1][i - 500]]),
    "of a view": lambda x, i: torch.cat([torch.cat([x[0], x.t().reshape(-1)]) + 1, i]),
    "rolled": lambda x, i: x.roll(3, 1)[:, (i % 10)[:4]].flip(1),
}


@pytest.mark.parametrize("name", GATHERS)
def test_gathers_where_only_part_is_wanted(agree: Agree, name: str) -> None:
    agree(GATHERS[name], X, torch.arange(500, 509), fullgraph=True)


def test_an_index_that_is_wanted_and_outside_raises() -> None:
    def f(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, 0], x[1][i]]) * 2

    compiled = torch.compile(f, backend="fusec", fullgraph=True)
    for i in (torch.tensor([0, 10]), torch.tensor([-11])):
        with pytest.raises(
            IndexError, match=r"dimension 0 of size 10 .*test_edges\.py"
        ):
            compiled(X, i)
    torch.testing.assert_close(compiled(X, torch.tensor([9, 0])), f(X, [9, 0]))


@pytest.mark.parametrize("place", [5, -6])
def test_an_index_outside_of_what_is_written_raises(place: int) -> None:
    def f(x: torch.Tensor, i: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        return [x.scatter_add(0, i, y), x.scatter(0, i[1:], y), x.index_put((i,), y)]

    x, y, inside = torch.zeros(5), torch.ones(2), torch.tensor([1, 4])
    compiled = torch.compile(f, backend="fusec", fullgraph=True)
    torch.testing.assert_close(compiled(x, inside, y), f(x, inside, y))
    with pytest.raises(IndexError, match=r"dimension 0 of size 5 .*test_edges\.py"):
        compiled(x, torch.tensor([1, place]), y)


def test_more_places_in_a_mask_than_elements_raise() -> None:
    def f(x: torch.Tensor, mask: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.masked_scatter(mask, y) * 2

    x, mask = torch.zeros(3, 30), torch.arange(90).view(3, 30) % 3 == 1
    compiled = torch.compile(f, backend="fusec", fullgraph=True)
    for count in (90, 30):
        y = torch.arange(float(count))
        assert torch.equal(compiled(x, mask, y), f(x, mask, y))
    nothing = torch.empty(0)
    assert torch.equal(compiled(x, mask & False, nothing), x)
    for y in (torch.ones(29), nothing):
        for g in (f, compiled):
            with pytest.raises(RuntimeError, match="source < number of ones in mask"):
                g(x, mask, y)


def test_a_long_chain_of_gathers(agree: Agree) -> None:
    def chain(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        for _ in range(24):
            x = x[a, b]
        return x

    a, b = (torch.randint(0, 7, (7, 7)) for _ in range(2))
    agree(chain, X[:, :7], a, b)


def test_a_thread_with_little_stack(agree: Agree) -> None:
    x = torch.randn(2, 131_000)
    compiled = torch.compile(lambda x: x.softmax(-1), backend="fusec")
    results = [compiled(x)]
    before = threading.stack_size(256 << 10)
    try:
        thread = threading.Thread(target=lambda: results.append(compiled(x)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


def test_ranges_of_floats_are_rounded_once(agree: Agree) -> None:
    for first, last, step in ((0, 1, 0.1), (-3, 50, 0.37), (5, -5, -0.7)):
        count = math.ceil((last - first) / step)
        exact = [first + step * k for k in range(count)]
        f = partial(torch.arange, first, last, step)
        result = agree(lambda f=f: f() * 1, dynamic=False)
        assert torch.equal(result, torch.tensor(exact))


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("strides", [(1,), (0,)])
def test_gradients_of_zeros_that_lie_nowhere(
    verify: bool, strides: tuple[int, ...]
) -> None:
    """What has no slope passes on zeros without memory, to which nothing points."""
    zeros = torch._efficientzerotensor((3,)).as_strided((3,), strides)
    compiled = torch.compile(
        lambda x: x * 2 + 1, backend="fusec", options={"verify": verify}
    )
    assert torch.equal(compiled(zeros), torch.ones(3))
    x = torch.randn(3, requires_grad=True)
    (got,) = torch.autograd.grad(compiled(x), x, zeros)
    assert torch.equal(got, torch.zeros(3))
    (got,) = torch.autograd.grad(torch.sgn(compiled(x)).sum(), x)
    assert torch.equal(got, torch.zeros(3))


def test_gradients_that_are_lazy_negations() -> None:
    grads: list[torch.Tensor] = []
    for f in (torch.sin, torch.compile(torch.sin, backend="fusec")):
        x = X.clone().requires_grad_()
        f(x).backward(torch._neg_view(X + 1))
        assert x.grad is not None
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64], ids=str)
def test_each_stage_is_verified(agree: Agree, dtype: torch.dtype) -> None:
    def f(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = (x @ w).t() + 1
        return y, y.sum(1), torch.cumsum(y, 0), y.amax() * 2, y[:, 1:].sort(0)[0]

    x, w = (torch.randint(-3, 4, (6, 6)).to(dtype) for _ in range(2))
    agree(f, x, w, options={"verify": True})
    agree(lambda x: torch.where(x > 0, x, math.nan) / 0, X, options={"verify": True})


CONSTANT_INDICES = {
    "one": lambda x: x[torch.tensor([3])] * 2,
    "from the end": lambda x: x[torch.tensor([-1])] + x[torch.tensor(2)],
    "selected": lambda x: x.index_select(0, torch.tensor([1])).exp(),
    "two": lambda x: x[torch.tensor([3]), torch.tensor([0])] * 2,
    "several": lambda x: x[torch.tensor([3, 0, 3])] * 2,
}


@pytest.mark.parametrize("name", CONSTANT_INDICES)
def test_an_index_that_is_a_constant(agree: Agree, name: str) -> None:
    agree(CONSTANT_INDICES[name], X)
    if name not in ("two",):
        agree(CONSTANT_INDICES[name], X[:, 0])


def test_small_corners(agree: Agree) -> None:
    bytes_ = torch.arange(9, dtype=torch.uint8)
    agree(lambda x: (x**0, x ** (x * 0), x**3), bytes_)
    agree(lambda x: (torch.any(x > 0, ()), torch.all(x > 0, ())), X)
    agree(lambda x: (x.softmax(0), x.log_softmax(1)), torch.zeros(3, 0).long())


@pytest.mark.parametrize("dim", [0, 1])
def test_variance_far_from_zero(agree: Agree, dim: int) -> None:
    x = torch.randn(700, 900) * 1e-2 + 1e4
    exact = x.double().var(dim)
    for f in (lambda x: x.var(dim), lambda x: torch.var_mean(x, dim)[0]):
        result = torch.compile(f, backend="fusec")(x)
        torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=0)
    y = torch.compile(lambda x: F.layer_norm(x, (900,)), backend="fusec")(x)
    wanted = F.layer_norm(x.double(), (900,))
    assert (y - wanted).abs().max() < 2 * (F.layer_norm(x, (900,)) - wanted).abs().max()


def test_checkpoints_with_dropout() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        def part(x: torch.Tensor) -> torch.Tensor:
            return F.dropout(x.sin(), 0.5).cos()

        return torch.utils.checkpoint.checkpoint(part, x, use_reentrant=False)

    grads: list[torch.Tensor] = []
    for g in (f, torch.compile(f, backend="fusec")):
        x = X.clone().requires_grad_()
        torch.manual_seed(0)
        g(x).sum().backward()
        assert x.grad is not None
        grads.append(x.grad)
    torch.testing.assert_close(*grads)
