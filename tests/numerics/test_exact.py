"""numerics="eager": what is exactly rounded agrees with eager torch in every bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

BINARY: list[Callable[..., torch.Tensor]] = [
    torch.add,
    torch.sub,
    torch.mul,
    torch.div,
    lambda x, y: torch.where(x < y, x, -y),
    lambda x, y: torch.where(x != x, y, x.abs()),
]
UNARY: list[Callable[..., torch.Tensor]] = [
    torch.neg,
    torch.abs,
    torch.floor,
    torch.ceil,
    torch.trunc,
    torch.round,
    torch.reciprocal,
    torch.square,
    torch.relu,
    lambda x: x.clamp(-3.5, 6e4),
    lambda x: x * 0.1,
    lambda x: 3 - x,
    lambda x: x / 7,
]


def specials(dtype: torch.dtype) -> list[float]:
    """Zeros, infinities, NaN, the ends of the range, subnormals, and ties."""
    info = torch.finfo(dtype)
    ends = [info.max, info.tiny, info.smallest_normal * 1.5, info.tiny * info.eps]
    near = [1.0, 1 + info.eps, 1 - info.eps / 2, 2.5, 0.5, 1 / info.eps, 3.14159]
    positive = [0.0, float("inf"), *ends, *near]
    return [*positive, *(-x for x in positive), float("nan")]


def numbers(dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Every special beside numbers of all magnitudes, in some order."""
    draw = torch.Generator().manual_seed(seed)
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    info = torch.iinfo(bits)
    codes = torch.randint(info.min, info.max, (301,), generator=draw)
    every = torch.cat(
        [codes.to(bits).view(dtype), torch.tensor(specials(dtype), dtype=dtype)]
    )
    return every[torch.randperm(len(every), generator=draw)]


def same_bits(got: torch.Tensor, want: torch.Tensor) -> bool:
    """Equal in every bit, but for those of a NaN."""
    equal = (got == want) & (got.signbit() == want.signbit())
    return got.dtype == want.dtype and bool(
        (equal | (got.isnan() & want.isnan())).all()
    )


Step = tuple[int, int, int]


def chain(steps: list[Step], *xs: torch.Tensor) -> list[torch.Tensor]:
    """Each step an op of values that are there; all of them."""
    values = list(xs)
    for op, i, j in steps:
        every = [*BINARY, *UNARY]
        f = every[op % len(every)]
        x, y = values[i % len(values)], values[j % len(values)]
        values.append(f(x, y) if op % len(every) < len(BINARY) else f(x))
    return values[len(xs) :]


STEP = st.tuples(st.integers(0, 18), st.integers(0, 99), st.integers(0, 99))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(FLOATS), st.lists(STEP, min_size=1, max_size=12), st.integers(0, 9)
)
def test_chains_of_exact_ops(dtype: torch.dtype, steps: list[Step], seed: int) -> None:
    torch._dynamo.reset()
    xs = [numbers(dtype, seed + k) for k in range(2)]
    compiled = torch.compile(lambda *xs: chain(steps, *xs), backend="fusec")
    for got, want in zip(compiled(*xs), chain(steps, *xs), strict=True):
        assert same_bits(got, want)


def test_there_are_as_many_steps_as_ops() -> None:
    assert len(BINARY) + len(UNARY) == 19


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_floats_round_every_intermediate(dtype: torch.dtype) -> None:
    """a·b + c in f32, rounded once, differs from eager in many places."""

    def f(a: Any, b: Any, c: Any) -> Any:
        return a * b + c

    draw = torch.Generator().manual_seed(3)
    xs = [torch.randn(5000, generator=draw).to(dtype) for _ in range(3)]
    got = {
        n: torch.compile(f, backend="fusec", options={"numerics": n})(*xs)
        for n in ("eager", "fast")
    }
    torch._dynamo.reset()
    once = f(*(x.float() for x in xs)).to(dtype)
    assert same_bits(got["eager"], f(*xs))
    assert same_bits(got["fast"], once)
    assert (got["eager"] != got["fast"]).sum() > 100


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    "special", [float("nan"), float("inf"), float("-inf")], ids=str
)
def test_specials_in_reductions(dtype: torch.dtype, special: float) -> None:
    def f(x: Any) -> tuple[Any, ...]:
        extremes = x.amax(1), x.amin(1), x.argmax(1), x.argmin(1), x.max(), x.min()
        return *extremes, x.sum(1), x.mean(0), x.any(1), x.softmax(1), x.prod(1)

    torch._dynamo.reset()
    x = torch.arange(12, dtype=torch.float64).reshape(3, 4).to(dtype)
    x[0, 2], x[1, 3], x[1, 0] = special, special, -special
    for got, want in zip(torch.compile(f, backend="fusec")(x), f(x), strict=True):
        torch.testing.assert_close(got, want, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_signs_of_zeros(dtype: torch.dtype) -> None:
    """Functions that are odd keep the sign of a zero; bounds do not replace it."""
    odd = ["sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "erf"]
    odd += ["expm1", "log1p", "floor", "ceil", "round", "trunc", "neg", "sqrt", "relu"]

    def f(x: Any) -> list[Any]:
        return [*(getattr(torch, name)(x) for name in odd), x * 1, x.clamp(-1, 0), x**3]

    torch._dynamo.reset()
    x = torch.tensor([0.0, -0.0] * 40, dtype=dtype)
    for got, want in zip(torch.compile(f, backend="fusec")(x), f(x), strict=True):
        assert same_bits(got, want)


PUT = ["sum", "mean", "prod", "amax"]


def put(x: torch.Tensor, how: str, keep: bool) -> torch.Tensor:
    """Two places of a row get something, the others nothing."""
    index = torch.tensor([0, 0, 2])
    row = x.new_full((5,), -0.0)
    return row.scatter_reduce(0, index, row[:3], how, include_self=keep)


SUMS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    *(partial(torch.sum, dim=dim) for dim in (0, 1, (0, 1), ())),
    *(partial(torch.mean, dim=dim) for dim in (0, 1)),
    *(partial(torch.nansum, dim=dim) for dim in (0, 1)),
    *(partial(torch.cumsum, dim=dim) for dim in (0, 1)),
    *(partial(torch.prod, dim=dim) for dim in (0, 1)),
    *(partial(torch.cumprod, dim=dim) for dim in (0, 1)),
    lambda x: x.logcumsumexp(0)[:1],
    lambda x: torch.linalg.vector_norm(x, 1, dim=1),
    *(partial(put, how=how, keep=keep) for how in PUT for keep in (True, False)),
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (3, 40), (3, 0), ()])
def test_sums_begin_with_zero(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Of nothing but −0 as of nothing; what nothing is added to keeps its sign."""

    def f(x: Any) -> list[Any]:
        # Of no dimensions, or of no elements, some are not to be had.
        return [g(x) for g in (SUMS if x.numel() and x.dim() else SUMS[:1])]

    torch._dynamo.reset()
    x = torch.full(shape, -0.0, dtype=dtype)
    for got, want in zip(torch.compile(f, backend="fusec")(x), f(x), strict=True):
        assert same_bits(got, want)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(1, 300), (4, 65), (64, 33), (3, 5000), (5, 1)])
def test_running_products_stay_finite_where_eagers_do(
    dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    """A run of large numbers multiplied apart would be infinite: times 0, NaN."""

    def f(x: Any) -> list[Any]:
        return [x.cumprod(0), x.cumprod(1), x.flip(1).cumprod(1)]

    torch._dynamo.reset()
    draw = torch.Generator().manual_seed(7)
    info = torch.finfo(dtype)
    factors = torch.tensor([info.max / 4, info.tiny, -2.0, 0.5, 1e4], dtype=dtype)
    x = factors[torch.randint(0, 5, shape, generator=draw)]
    x[:, :: max(2, shape[1] // 3)] = 0
    options = {"fallback": False, "verify": shape[1] < 1000}
    compiled = torch.compile(f, backend="fusec", options=options)
    for got, want in zip(compiled(x), f(x), strict=True):
        torch.testing.assert_close(got, want, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("by", ["a tensor", "one element", "a number"])
def test_floor_division_of_narrow_floats(dtype: torch.dtype, by: str) -> None:
    """ATen rounds each of its steps, but where it divides all by one number."""
    torch._dynamo.reset()
    draw = torch.Generator().manual_seed(3)
    x = (torch.randn(5000, generator=draw) * 300).to(dtype)
    y = torch.randn(5000, generator=draw).to(dtype)
    y[:4] = torch.tensor([0.0, -0.0, float("inf"), float("nan")], dtype=dtype)
    divisor: Any = {"a tensor": y, "one element": y[7:8], "a number": 0.7}[by]
    compiled = torch.compile(lambda x, y: x // y, backend="fusec")
    assert same_bits(compiled(x, divisor), x // divisor)
