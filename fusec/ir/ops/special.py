"""The error function, its relatives, and the logarithm of Γ."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusec.ir.core import Value
from fusec.ir.dtypes import f32
from fusec.ir.ops.exponential import Exp, Log, exp_ordinary
from fusec.ir.ops.formula import Term, expand_in_double, expand_with
from fusec.ir.ops.pointwise import Unary, dtype_of, floating, in_double, where
from fusec.ir.ops.polynomials import (
    ERF,
    ERFC,
    ERFINV,
    ERFINV_TAIL,
    LGAMMA,
    LOG_ERFC,
    SIN_PI,
    STIRLING,
)


class Erf(Unary, name="erf"):
    """2/√π ∫₀ˣ exp(−t²) dt: ±1 at ±inf, −0 at −0."""

    cost = 44.0
    takes = staticmethod(floating)
    aten = ("aten.erf.default",)
    ulps = (1.25, 0.85)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(_erf, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        narrow = dtype_of(xs[0]) is f32
        return expand_with(erf_near if narrow else erf, b, *xs)


class Erfc(Unary, name="erfc"):
    """1 − erf x without cancellation: 2 at −inf, 0 at inf."""

    cost = 90.0
    takes = staticmethod(floating)
    aten = ("aten.erfc.default",)
    ulps = (0.51, 3.2)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(_erfc, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_in_double(erfc, b, *xs)


class Erfinv(Unary, name="erfinv"):
    """The number whose erf is x: ±inf at ±1, NaN beyond."""

    cost = 235.0
    takes = staticmethod(floating)
    aten = ("aten.erfinv.default",)
    ulps = (0.51, 2.3)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(_erfinv, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_in_double(erfinv, b, *xs)


class Lgamma(Unary, name="lgamma"):
    """log |Γ(x)|: inf at ±inf and at 0, −1, −2, …

    Below −½ the error in f64 is that of log Γ(1 − x), which may be larger; that of the
    reference is that of a number of size 1 next to 1 and 2.
    """

    cost = 170.0
    takes = staticmethod(floating)
    aten = ("aten.lgamma.default",)
    ulps = (0.51, 6.0)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(_lgamma, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_in_double(lgamma, b, *xs)


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


def _erf_inner(x: Term) -> Term:
    """x + x·P(x²), for |x| ≤ 1."""
    return x.fma((x * x).horner(ERF[x.dtype]), x)


def erf_near(x: Term) -> Term:
    """In f32: the series up to 1, then 1 − exp P(x) with P near log erfc."""
    size = abs(x).below(4.0)
    far = 1.0 - exp_ordinary(size.horner(LOG_ERFC))
    return (size < 1.0).select(_erf_inner(size), far).with_sign(x)


def erf(x: Term) -> Term:
    """In f64: the series up to 1, then 1 − erfc."""
    size = abs(x)
    far = 1.0 - _erfc_outer(size)
    return (size < 1.0).select(_erf_inner(size), far).with_sign(x)


def erfc(x: Term) -> Term:
    """1 − erf up to ½, then exp(−x²) times a rational function; 2 − erfc(−x) below."""
    size = abs(x)
    outer = _erfc_outer(size)
    outer = (x < 0.0).select(2.0 - outer, outer)
    return (size < 0.5).select(1.0 - _erf_inner(x), outer)


def _erfc_outer(size: Term) -> Term:
    """erfc for size ≥ ½ in f64: exp(−x²) · P((x − 4) / (x + 4)) / (1 + 2x).

    The form is M. Shepherd's and J. Laframboise's (1981). x² is taken in two parts.
    """
    x = size.below(28.0)
    square = x * x
    lost = x.fma(x, -square)
    bell = (-square).emit(Exp)
    bell = bell.fma(-lost, bell)
    t = (x - 4.0) / (x + 4.0)
    return bell * (t.horner(ERFC) / (x + x + 1.0))


def erfinv(x: Term) -> Term:
    """A polynomial in w = −log(1 − x²) (M. Giles, 2010), then one step of Halley's."""
    size = abs(x)
    w = -((1.0 - size) * (size + 1.0)).emit(Log)
    tail = w > 5.0
    center = (w - 2.5).horner(ERFINV)
    root = size * tail.select((w.sqrt() - 4.0).horner(ERFINV_TAIL), center)
    outer = (1.0 - size) - root.emit(Erfc)
    miss = (size > 0.5).select(outer, root.emit(Erf) - size)
    step = miss * (root * root).emit(Exp) * (math.sqrt(math.pi) / 2)
    root = root - step / root.fma(step, 1.0)
    return size.equals(1.0).select(np.inf, root).with_sign(x)


def lgamma(x: Term) -> Term:
    """In f64. Below −½ by reflection: Γ(x)·Γ(1 − x) = π / sin(πx)."""
    reflect = x < -0.5
    result = _lgamma_right(reflect.select(1.0 - x, x))
    turn = x - x.round()
    sine = abs(turn * (turn * turn).horner(SIN_PI))
    mirrored = (math.pi / sine).emit(Log) - result
    result = reflect.select(mirrored, result)
    pole = abs(x).equals(np.inf) | (reflect & sine.equals(0.0))
    return pole.select(np.inf, result)


def _lgamma_right(x: Term) -> Term:
    """log |Γ(x)| for x ≥ −½, with n the whole number next to x and z = x − n.

    Up to 7.5 it is log Γ(2 + z) and the logarithm of the factors between, as
    Γ(x) = (x − 1)·…·(2 + z)·Γ(2 + z); beyond, Stirling's series.
    """
    n = x.round()
    z = x - n
    factors = (n < 1.0).select(abs(x * (x + 1.0)), (n < 2.0).select(x, 1.0))
    for k in range(1, 6):
        factors = (n > k + 1.0).select(factors * (x - float(k)), factors)
    far = x >= 7.5
    log = far.select(x, factors).emit(Log)
    near = (n < 2.0).select(-log, log) + z * z.horner(LGAMMA)
    inverse = 1.0 / x
    series = inverse.fma(
        (inverse * inverse).horner(STIRLING), math.log(2 * math.pi) / 2
    )
    return far.select((x - 0.5).fma(log, series - x), near)
