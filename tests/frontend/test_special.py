"""Special functions against eager, at the ends of their ranges too."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

aten = torch.ops.aten

ENDS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, math.inf, -math.inf, math.nan]
EDGES = [2.0, -2.0, 2.09, -2.09, 5.0, 8.0, -8.0, 9.5, 27.0, 28.5, -5.0, 110.0, 1e-8]
NAMES = """
    digamma i0 special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0
    special_bessel_y1 special_erfcx special_i0e special_i1 special_i1e
    special_modified_bessel_i0 special_modified_bessel_i1 special_modified_bessel_k0
    special_modified_bessel_k1 special_ndtri special_scaled_modified_bessel_k0
    special_scaled_modified_bessel_k1 special_spherical_bessel_j0
""".split()
DEGREES = torch.tensor([0.0, 1.0, 2.0, 3.0, 7.0, 12.0, 2.7, -1.0])


def points(dtype: torch.dtype) -> torch.Tensor:
    """Special values, where formulas change, and what lies between."""
    numbers = torch.tensor([*ENDS, *EDGES], dtype=torch.float64)
    return torch.cat([numbers, torch.linspace(-11.7, 11.9, 64).double()]).to(dtype)


def each(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: getattr(aten, name).default(x) for name in NAMES}


def test_functions_of_one_number(check: Any) -> None:
    captured = check(each, points(torch.float64))
    assert captured.fallbacks == set()


def test_in_f32_they_are_as_near_as_eager_or_nearer(capture: Any) -> None:
    """Eager computes in f32; what fusec gives is f64's, rounded."""
    x = points(torch.float32)
    captured = capture(each, x)
    for name, exact in each(x.double()).items():
        torch.testing.assert_close(
            captured.result[name], exact.float(), equal_nan=True, msg=name
        )


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.bfloat16], ids=str)
def test_other_dtypes(capture: Any, dtype: torch.dtype) -> None:
    x = torch.tensor([0, 1, 2, 3, 5]).to(dtype)
    captured = capture(each, x)
    assert captured.fallbacks == set()
    for name, wanted in each(x.double()).items():
        result = captured.result[name]
        assert result.dtype is (x.dtype if x.is_floating_point() else torch.float32)
        torch.testing.assert_close(result, wanted.to(result.dtype), equal_nan=True)


@pytest.mark.parametrize("order", range(6))
def test_polygamma(check: Any, order: int) -> None:
    x = points(torch.float64)
    x = x[x.isfinite() & ((x != x.round()) | (x > 0))]
    assert check(lambda x: torch.polygamma(order, x), x).fallbacks == set()


@pytest.mark.parametrize("order", [2, 3])
def test_poles_of_polygamma(check: Any, order: int) -> None:
    assert (
        check(
            lambda x: torch.polygamma(order, x), torch.tensor([0.0, -0.0, -1.0, -7.0])
        ).fallbacks
        == set()
    )


@pytest.mark.parametrize("kind", ["t", "u", "v", "w"])
@pytest.mark.parametrize("shifted", ["", "shifted_"])
def test_chebyshev(check: Any, kind: str, shifted: str) -> None:
    packet = getattr(aten, f"special_{shifted}chebyshev_polynomial_{kind}")

    def f(x: Any, n: Any) -> Any:
        return packet(x[:, None], n), packet(x, 5), packet(0.3, n)

    x = torch.linspace(-3, 3, 49).double()
    assert check(f, x, DEGREES.double()).fallbacks == set()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_frexp(check: Any, dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal
    x = torch.cat([points(dtype), torch.tensor([tiny, -tiny / 4, tiny * 3]).to(dtype)])
    captured = check(lambda x: torch.frexp(x), x, exact=True)
    assert captured.fallbacks == set()


ROUNDED = {
    "ldexp": lambda x, n: torch.ldexp(x, n),
    "decimals": lambda x, n: torch.round(x, decimals=2),
    "tens": lambda x, n: torch.round(x, decimals=-1),
    "no decimals": lambda x, n: torch.round(x, decimals=0),
    "angle": lambda x, n: torch.angle(x),
    "angle of integers": lambda x, n: torch.angle(n),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_exact_ones(check: Any, dtype: torch.dtype) -> None:
    x = points(dtype)
    n = torch.arange(len(x)) % 9 - 4
    captured = check(lambda x, n: [f(x, n) for f in ROUNDED.values()], x, n, exact=True)
    assert captured.fallbacks == set()
