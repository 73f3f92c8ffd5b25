"""The reference of the fused multiply-add: x · y + z, rounded once.

numpy has no such function. Narrow floats multiply exactly in float64; there the sum
is rounded to odd, after which rounding to the narrow type is as good as rounding the
exact sum (S. Boldo, G. Melquiond, 2008: Emulation of FMA and correctly rounded sums:
proved algorithms using rounding to odd). float64 goes through exact rationals.
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
        if dtype == np.float64:
            return np.asarray(_wide(x, y, z), np.float64)
        return _narrow(x, y, z).astype(dtype)


def _narrow(x: Any, y: Any, z: Any) -> Any:
    """The sum in float64, its last bit set where bits were lost."""
    product = np.asarray(x, np.float64) * np.asarray(y, np.float64)
    addend = np.asarray(z, np.float64)
    total: Any = np.asarray(product + addend)
    part = total - product
    error = (product - (total - part)) + (addend - part)
    toward = np.where(error > 0, np.inf, -np.inf)
    even = (total.view(np.int64) & 1) == 0
    lost = np.isfinite(total) & (error != 0) & even
    return np.where(lost, np.nextafter(total, toward), total)


def _exactly(x: float, y: float, z: float) -> float:
    rough = x * y + z
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
        return rough
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if exact == 0:
        return rough if rough == 0 and x * y == 0 else 0.0
    try:
        return float(exact)
    except OverflowError:
        return math.copysign(math.inf, exact)


_wide = np.vectorize(_exactly, otypes=[np.float64])
