"""The reference of the fused multiply-add: x · y + z, rounded once.

numpy has no such function. Narrow floats multiply exactly in float64; there the sum is
rounded to odd, after which rounding to the narrow type is as good as rounding the exact
sum. float64 multiplies and adds in two parts with the parts of least weight rounded to
odd, and goes through exact rationals where exponents come near their limits.

Source: S. Boldo, G. Melquiond, 2008: Emulation of FMA and correctly rounded sums:
proved algorithms using rounding to odd.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np


def fused_multiply_add(x: Any, y: Any, z: Any) -> Any:
    """x · y + z with one rounding to the operands' float dtype."""
    dtype = np.result_type(x, y, z)
    with np.errstate(all="ignore"):
        wide = [np.asarray(v, np.float64) for v in (x, y, z)]
        if dtype == np.float64:
            return _in_parts(*np.broadcast_arrays(*wide))
        return _add_to_odd(wide[0] * wide[1], wide[2]).astype(dtype)


def _in_parts(x: Any, y: Any, z: Any) -> Any:
    product, product_low = _two_product(x, y)
    addend, addend_low = _two_sum(z, product_low)
    total, total_low = _two_sum(product, addend)
    result: Any = np.asarray(total + _add_to_odd(addend_low, total_low))
    special = ~_within_limits(x, y, z, product, result)
    if np.any(special):
        result[special] = _rationally(x[special], y[special], z[special])
    return result


def _within_limits(x: Any, y: Any, z: Any, product: Any, result: Any) -> Any:
    """Whether no part on the way over- or underflows."""
    small = (np.abs(x) < 2.0**500) & (np.abs(y) < 2.0**500) & (np.abs(z) < 2.0**1000)
    large = (np.abs(product) > 2.0**-800) & (np.abs(result) > 2.0**-800)
    return small & large


def _two_product(x: Any, y: Any) -> tuple[Any, Any]:
    """x · y as a float64 and what it lost (T. Dekker, 1971)."""
    product = x * y
    (a, b), (c, d) = _halves(x), _halves(y)
    return product, ((a * c - product) + a * d + b * c) + b * d


def _halves(x: Any) -> tuple[Any, Any]:
    scaled = x * 134217729.0  # 2^27 + 1
    high = scaled - (scaled - x)
    return high, x - high


def _two_sum(x: Any, y: Any) -> tuple[Any, Any]:
    """x + y as a float64 and what it lost (D. Knuth, 1969)."""
    total = x + y
    part = total - x
    return total, (x - (total - part)) + (y - part)


def _add_to_odd(x: Any, y: Any) -> Any:
    """x + y in float64; the last bit is set where others were lost."""
    total, error = _two_sum(x, y)
    total: Any = np.asarray(total)
    even = (total.view(np.int64) & 1) == 0
    lost = np.isfinite(total) & (error != 0) & even
    toward = np.where(error > 0, np.inf, -np.inf)
    return np.where(lost, np.nextafter(total, toward), total)


def _exactly(x: float, y: float, z: float) -> float:
    if not (math.isfinite(x) and math.isfinite(y)):
        return x * y + z
    if not math.isfinite(z):
        return z
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if exact == 0:
        return x * y + z if x * y == 0 else 0.0
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


_rationally = np.vectorize(_exactly, otypes=[np.float64])
