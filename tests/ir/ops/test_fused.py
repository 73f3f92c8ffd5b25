"""The fused multiply-add's reference against exact rationals."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusec.ir.ops.fused import fused_multiply_add


def exactly(x: Any, y: Any, z: Any, dtype: type) -> Any:
    """The nearest float to the exact sum, by comparing its neighbours."""
    exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
    with np.errstate(all="ignore"):
        try:
            start = dtype(float(exact))
        except OverflowError:
            return dtype(math.inf if exact > 0 else -math.inf)
        near = [
            np.nextafter(start, dtype(-np.inf)),
            start,
            np.nextafter(start, dtype(np.inf)),
        ]
    finite = [v for v in near if np.isfinite(v)]
    if not finite or len(finite) < 3:
        return start

    def distance(v: Any) -> tuple[Fraction, int]:
        odd = int(np.asarray(v).view(f"u{v.itemsize}")) & 1
        return abs(Fraction(float(v)) - exact), odd

    return min(finite, key=distance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_rounds_once(dtype: type, data: st.DataObject) -> None:
    width = 8 * np.dtype(dtype).itemsize
    numbers = st.floats(allow_nan=False, allow_infinity=False, width=width)
    x, y = dtype(data.draw(numbers)), dtype(data.draw(numbers))
    with np.errstate(all="ignore"):
        product = x * y
    cancelling = st.sampled_from([-product, np.nextafter(-product, dtype(0))])
    z = dtype(data.draw(st.one_of(numbers, cancelling)))
    if not np.isfinite(z):
        return
    got = fused_multiply_add(np.array([x]), np.array([y]), np.array([z]))[0]
    assert got == exactly(x, y, z, dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_specials(dtype: type) -> None:
    inf, nan, top = np.inf, np.nan, np.finfo(dtype).max
    rows = [
        (inf, 1, 1, inf), (inf, 0, 1, nan), (inf, 1, -inf, nan), (top, top, -inf, -inf),
        (0.0, -1, 0.0, 0.0), (0.0, -1, -0.0, -0.0), (1, -1, 1, 0.0), (nan, 1, 1, nan),
        (top, 2, -top, top), (top, 2, 0, inf),
    ]  # fmt: skip
    x, y, z, expected = (np.array(column, dtype) for column in zip(*rows, strict=True))
    got = fused_multiply_add(x, y, z)
    assert got.dtype == dtype
    assert np.array_equal(got, expected, equal_nan=True)
    numbers = ~np.isnan(expected)
    assert np.array_equal(np.signbit(got[numbers]), np.signbit(expected[numbers]))
