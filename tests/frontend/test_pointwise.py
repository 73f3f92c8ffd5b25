"""Pointwise ATen ops: the dtype they compute in, and every bit where eager is exact."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
INTS = [torch.int64, torch.int32, torch.int8, torch.uint8]
SPECIAL = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 3.0, -2.5, 1e-30]


# With a whole number of vectors, ATen has no scalar tail, which rounds differently.
def numbers(dtype: torch.dtype, seed: int = 0, n: int = 54) -> torch.Tensor:
    """Special values first, then random ones."""
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.randint(0, 2, (n,), generator=generator).bool()
    if not dtype.is_floating_point:
        return torch.randint(0, 100, (n,), generator=generator).to(dtype)
    special = torch.tensor(SPECIAL).roll(seed)
    return torch.cat([special, torch.randn(n, generator=generator) * 3]).to(dtype)


EXACT = {
    "add": lambda x, y: x + y,
    "add_alpha": lambda x, y: torch.add(x, y, alpha=0.3),
    "sub_alpha": lambda x, y: torch.sub(x, y, alpha=1.7),
    "add_number": lambda x, y: x + 0.1,
    "number_sub": lambda x, y: 0.1 - x,
    "mul_number": lambda x, y: x * 0.1,
    "div_number": lambda x, y: x / 0.3,
    "div": lambda x, y: x / y,
    "floor_divide": lambda x, y: x // y,
    "trunc_divide": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "remainder": lambda x, y: x % y,
    "fmod": torch.fmod,
    "addcmul": lambda x, y: torch.addcmul(x, y, x, value=0.3),
    "addcdiv": lambda x, y: torch.ops.aten.addcdiv(x, y, x, value=0.3),
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
    "lerp_far": lambda x, y: torch.lerp(x, y, 0.8),
    "clamp": lambda x, y: x.clamp(-1, 1.5),
    "clamp_tensor": lambda x, y: torch.clamp(x, y, y + 1),
    "relu": lambda x, y: torch.relu(x),
    "leaky_relu": lambda x, y: F.leaky_relu(x, 0.1),
    "hardtanh": lambda x, y: F.hardtanh(x),
    "hardswish": lambda x, y: F.hardswish(x),
    "hardsigmoid": lambda x, y: F.hardsigmoid(x),
    "threshold": lambda x, y: F.threshold(x, 0.1, 20.0),
    "where": lambda x, y: torch.where(x > y, x, 0.1),
    "masked_fill": lambda x, y: x.masked_fill(y > 0, -math.inf),
    "pow_2": lambda x, y: x**2,
    "pow_3": lambda x, y: x**3,
    "pow_minus_2": lambda x, y: x**-2,
    "rsqrt": lambda x, y: torch.rsqrt(x),
    "reciprocal": lambda x, y: torch.reciprocal(x),
    "maximum": torch.maximum,
    "copysign": torch.copysign,
    "sign": lambda x, y: torch.sign(x),
    "round": lambda x, y: torch.round(x) + torch.floor(y) + torch.trunc(x),
    "isnan": lambda x, y: torch.isnan(x) | torch.isinf(y) | torch.isfinite(x),
    "compare": lambda x, y: (x < y) ^ (x >= 0.1) ^ (x == y) ^ (x != 3),
    "logical": lambda x, y: torch.logical_and(x, y) | ~torch.logical_xor(x, y),
}


def each(table: dict[str, Any]) -> Any:
    """All functions of a table at once: compiling takes longer than running."""
    return lambda *args: {name: f(*args) for name, f in table.items()}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_exact_on_floats(check: Any, dtype: torch.dtype) -> None:
    table = dict(EXACT)
    if dtype is torch.float16:
        del table["rsqrt"]  # numpy computes it in f16
    captured = check(each(table), numbers(dtype), numbers(dtype, 1), exact=True)
    assert captured.fallbacks == set()


CLOSE = {
    "exp": lambda x: torch.exp(x),
    "tanh": lambda x: torch.tanh(x),
    "sigmoid": lambda x: torch.sigmoid(x),
    "log1p": lambda x: torch.log1p(x),
    # On some processors MKL, and so torch, errs in the last place.
    "sqrt": lambda x: torch.sqrt(x),
    "pow_half": lambda x: x**0.5,
    "gelu": lambda x: F.gelu(x),
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": lambda x: F.silu(x),
    "elu": lambda x: F.elu(x, 0.7),
    "selu": lambda x: F.selu(x),
    "celu": lambda x: F.celu(x, 0.3),
    "softplus": lambda x: F.softplus(x, 2.0, 3.0),
    "mish": lambda x: F.mish(x),
    "pow": lambda x: x**2.7,
    "rpow": lambda x: 2.5**x,
    "erfc": lambda x: torch.erfc(x),
    "atan2": lambda x: torch.atan2(x, x.flip(0)),
    "log_sigmoid": lambda x: F.logsigmoid(x),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_close_on_floats(check: Any, dtype: torch.dtype) -> None:
    # Of infinities ATen's vectorised erf makes NaN.
    x = numbers(dtype).nan_to_num(math.nan, 9, -9)
    assert check(each(CLOSE), x).fallbacks == set()


INTEGER = {
    "add": lambda x, y: x + y,
    "add_alpha": lambda x, y: torch.add(x, y, alpha=3),
    "true_divide": lambda x, y: x / 7,
    "floor_divide": lambda x, y: x // 7,
    "remainder": lambda x, y: x % 7,
    "trunc_divide": lambda x, y: torch.div(x, 7, rounding_mode="trunc"),
    "exp": lambda x, y: torch.exp(x / 50),
    "sin": lambda x, y: torch.sin(x),
    "pow": lambda x, y: x**3,
    "addcmul": lambda x, y: torch.addcmul(x, y, y, value=2),
    "float_number": lambda x, y: x + 2.5,
    "floor": lambda x, y: torch.floor(x) + torch.isnan(y),
    "shift": lambda x, y: (x << 2) ^ (y >> 1),
    "bitwise": lambda x, y: (x & y) | ~x,
    "clamp_float": lambda x, y: x.clamp(max=7.5),
    "minimum": lambda x, y: torch.minimum(x, y + 1),
}


@pytest.mark.parametrize("dtype", INTS, ids=str)
def test_integers(check: Any, dtype: torch.dtype) -> None:
    captured = check(each(INTEGER), numbers(dtype), numbers(dtype, 1))
    assert captured.fallbacks == set()


def test_bools_add_and_multiply_as_logic(check: Any) -> None:
    x, y = numbers(torch.bool), numbers(torch.bool, 1)
    assert (
        check(
            lambda x, y: (x + y, x * y, x + 1, x * 2.5, ~x), x, y, exact=True
        ).fallbacks
        == set()
    )
    for alpha in (True, False):
        assert (
            check(
                lambda x, y, a=alpha: torch.add(x, y, alpha=a), x, y, exact=True
            ).fallbacks
            == set()
        )


def test_dividing_integers_by_a_tensor_is_left_to_aten(capture: Any) -> None:
    x, zero = torch.arange(4), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="ZeroDivision"):
        capture(lambda x, y: x // y, x, zero)


@pytest.mark.parametrize("other", [torch.int32, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [*FLOATS, torch.int8, torch.bool], ids=str)
def test_promotion(check: Any, dtype: torch.dtype, other: torch.dtype) -> None:
    """Tensors with dimensions outrank those without, of the same category."""
    x, y = numbers(dtype), numbers(other)[: len(numbers(dtype))]
    x = x[: len(y)]

    def f(x: Any, y: Any, s: Any) -> Any:
        return x + y, x * s, s - y, x + s * 2, torch.where(x > 0, x, s), x == s

    assert check(f, x, y, numbers(other, n=3)[1].clone(), exact=True).fallbacks == set()


@pytest.mark.parametrize(
    "shapes",
    [
        ((), ()),
        ((3,), ()),
        ((0, 3), (3,)),
        ((2, 1, 4), (3, 1)),
        ((1,), (2, 0, 1)),
    ],
    ids=str,
)
def test_broadcasting(check: Any, shapes: Any) -> None:
    x, y = (torch.randn(shape) for shape in shapes)
    assert (
        check(lambda x, y: torch.maximum(x * y, x - y), x, y, exact=True).fallbacks
        == set()
    )


def test_strides_of_results_follow_the_inputs(check: Any) -> None:
    x, y = torch.randn(4, 5).t(), torch.randn(8, 10)[::2, ::2].t()
    z = torch.randn(5, 1).expand(5, 4)
    assert (
        check(lambda x, y, z: (x + y, (x * z).exp(), z + 1), x, y, z).fallbacks == set()
    )


def test_fast_numerics_round_only_what_is_stored(capture: Any) -> None:
    x = torch.randn(64, dtype=torch.bfloat16)

    def f(x: Any) -> Any:
        return F.gelu(F.silu(x) * 0.7)

    casts = {
        n: capture(f, x, numerics=n).ops().count("cast") for n in ("eager", "fast")
    }
    assert casts["fast"] == 2 < casts["eager"]


def test_float8_values_convert(check: Any) -> None:
    x = torch.randn(64) * 20
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        check(lambda x, dtype=dtype: x.to(dtype).to(torch.float32) * 2, x, exact=True)
