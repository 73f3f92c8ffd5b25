"""The error function, its relatives, and the logarithm of Γ."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusec.ir.ops.pointwise import Unary, floating, in_double, where


class Erf(Unary, name="erf"):
    """2/√π ∫₀ˣ exp(−t²) dt: ±1 at ±inf, −0 at −0."""

    takes = staticmethod(floating)
    aten = ("aten.erf.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(_erf, x)


class Erfc(Unary, name="erfc"):
    """1 − erf x without cancellation: 2 at −inf, 0 at inf."""

    takes = staticmethod(floating)
    aten = ("aten.erfc.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(_erfc, x)


class Erfinv(Unary, name="erfinv"):
    """The number whose erf is x: ±inf at ±1, NaN beyond."""

    takes = staticmethod(floating)
    aten = ("aten.erfinv.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(_erfinv, x)


class Lgamma(Unary, name="lgamma"):
    """log |Γ(x)|: inf at ±inf and at 0, −1, −2, …"""

    takes = staticmethod(floating)
    aten = ("aten.lgamma.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(_lgamma, x)


def _log_gamma(x: float) -> float:
    if math.isinf(x) or (x <= 0 and x == math.floor(x)):
        return math.inf
    try:
        return math.lgamma(x)
    except OverflowError:
        return math.inf


_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])
_lgamma = np.vectorize(_log_gamma, otypes=[np.float64])


def _erfinv(x: Any) -> Any:
    """Halley's method, on erfc near ±1; the start is S. Winitzki's (2008)."""
    size = np.abs(x)
    log = (np.log1p(-size) + np.log1p(size)) / 2
    term = 2 / (math.pi * 0.147) + log
    root = np.sqrt(np.sqrt(term * term - log / 0.0735) - term)
    for _ in range(4):
        miss = where(size > 0.5, (1 - size) - _erfc(root), _erf(root) - size)
        step = miss * np.exp(root * root) * (math.sqrt(math.pi) / 2)
        root = root - step / (1 + root * step)
    root = where(size == 0, 0.0, where(size == 1, np.inf, root))
    return np.copysign(root, x)
