"""Circular functions and their inverses, in radians."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusec.ir.core import Value
from fusec.ir.dtypes import f32, f64
from fusec.ir.ops.formula import Term, expand_in_double, expand_with, rarely
from fusec.ir.ops.pointwise import Binary, Unary, dtype_of, floating, in_double
from fusec.ir.ops.polynomials import ASIN, ATAN, COS, EIGHTH_TURNS, HALF_PI, SIN
from fusec.ir.ops.range_reduction import (
    FAR,
    HalfTurns,
    QuarterTurns,
    half_turns,
    quarter_turns,
)


class Sin(Unary, name="sin"):
    """sin x: −0 at −0, NaN at ±inf."""

    cost = 30.0
    takes = staticmethod(floating)
    aten = ("aten.sin.default",)
    ulps = (0.51, 0.95)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.sin, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(sin, b, *xs)


class Cos(Unary, name="cos"):
    """cos x: NaN at ±inf."""

    cost = 32.0
    takes = staticmethod(floating)
    aten = ("aten.cos.default",)
    ulps = (0.51, 0.95)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.cos, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(cos, b, *xs)


class Tan(Unary, name="tan"):
    """tan x: −0 at −0, NaN at ±inf."""

    cost = 70.0
    takes = staticmethod(floating)
    aten = ("aten.tan.default",)
    ulps = (0.51, 2.3)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.tan, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_in_double(tan, b, *xs)


class Asin(Unary, name="asin"):
    """The angle in [−π/2, π/2] whose sine is x; NaN beyond ±1."""

    cost = 35.0
    takes = staticmethod(floating)
    aten = ("aten.asin.default",)
    ulps = (1.25, 1.2)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.arcsin, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(asin, b, *xs)


class Acos(Unary, name="acos"):
    """The angle in [0, π] whose cosine is x; NaN beyond ±1."""

    cost = 40.0
    takes = staticmethod(floating)
    aten = ("aten.acos.default",)
    ulps = (0.85, 0.85)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.arccos, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(acos, b, *xs)


class Atan(Unary, name="atan"):
    """The angle in [−π/2, π/2] whose tangent is x; ±π/2 at ±inf."""

    cost = 33.0
    takes = staticmethod(floating)
    aten = ("aten.atan.default",)
    ulps = (1.9, 1.8)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.arctan, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(atan, b, *xs)


class Atan2(Binary, name="atan2"):
    """The angle in [−π, π] of the point (y, x), operands in this order: atan2(x, y)
    of the point with ordinate x and abscissa y. Signs of zeros choose the quadrant.
    """

    cost = 68.0
    takes = staticmethod(floating)
    aten = ("aten.atan2.default",)
    ulps = (0.51, 1.7)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return in_double(np.arctan2, x, y)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_in_double(atan2, b, *xs)


class Hypot(Binary, name="hypot"):
    """√(x² + y²) without overflow on the way; inf beside a NaN too."""

    cost = 16.0
    takes = staticmethod(floating)
    aten = ("aten.hypot.default",)
    ulps = (0.51, 1.25)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return in_double(np.hypot, x, y)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        narrow = dtype_of(xs[0]) is f32
        formula = expand_in_double if narrow else expand_with
        return formula(hypot_near if narrow else hypot, b, *xs)


def sin(x: Term) -> Term:
    """±sine or ±cosine of what is left after whole turns."""
    return rarely(abs(x) > FAR, _far_sin, (x,), _sin(x, far=False))


def cos(x: Term) -> Term:
    """As `sin`, a quarter turn ahead."""
    return rarely(abs(x) > FAR, _far_cos, (x,), _cos(x, far=False))


def tan(x: Term) -> Term:
    """sine / cosine, or −cosine / sine after an odd number of quarter turns."""
    return rarely(abs(x) > FAR, _far_tan, (x,), _tan(x, far=False))


def _far_sin(x: Term) -> Term:
    return _finite(x, _sin(x, far=True))


def _far_cos(x: Term) -> Term:
    return _finite(x, _cos(x, far=True))


def _far_tan(x: Term) -> Term:
    return _finite(x, _tan(x, far=True))


def _sin(x: Term, far: bool) -> Term:
    if x.dtype is f32:
        return _signed_sine(half_turns(x, 0.0, far))
    turns = quarter_turns(abs(x), far)
    sine, cosine = _sine_cosine(turns)
    size = turns.odd.select(cosine, sine)
    negative = turns.upper ^ (x.bits() < 0)
    return negative.select(-size, size)


def _cos(x: Term, far: bool) -> Term:
    if x.dtype is f32:
        return _signed_sine(half_turns(x, 0.5, far))
    turns = quarter_turns(abs(x), far)
    sine, cosine = _sine_cosine(turns)
    size = turns.odd.select(sine, cosine)
    return (turns.upper ^ turns.odd).select(-size, size)


def _tan(x: Term, far: bool) -> Term:
    turns = quarter_turns(abs(x), far)
    sine, cosine = _sine_cosine(turns)
    above, below = turns.odd.select(-cosine, sine), turns.odd.select(sine, cosine)
    size = above / below
    return (x.bits() < 0).select(-size, size)


def _signed_sine(turns: HalfTurns) -> Term:
    """In f64, rounded to f32 last."""
    r = turns.rest
    sine = r * (r * r).horner((1.0, *SIN[f32]))  # −0 at −0
    return (sine.cast(f32).bits() ^ turns.flip).bitcast(f32)


def _finite(x: Term, result: Term) -> Term:
    """`result`, or NaN where x is infinite or NaN."""
    return (abs(x) < np.inf).select(result, math.nan)


def _sine_cosine(turns: QuarterTurns) -> tuple[Term, Term]:
    """Of r + tail in [−π/4, π/4]: series in r, first order in the tail."""
    r, tail = turns.rest, turns.tail
    z = r * r
    half = z * 0.5
    near = 1.0 - half
    lost = (1.0 - near) - half
    sine = (r * z).fma(z.horner(SIN[f64]), tail.fma(-half, tail))
    bend = (z * z).fma(z.horner(COS), tail.fma(-r, lost))
    return r + sine, near + bend


def asin(x: Term) -> Term:
    """x + x³·P(x²) up to ½; then π/2 − 2·asin √((1 − x) / 2)."""
    size = abs(x)
    outer = size > 0.5
    root, lost, bent = _arc(size, outer)
    high, low = HALF_PI[x.dtype]
    far = high - (root * 2.0 - (low - (bent + lost) * 2.0))
    return outer.select(far, size + bent).with_sign(x)


def acos(x: Term) -> Term:
    """π/2 − asin x up to ½; then 2·asin √((1 − |x|) / 2), or π less that."""
    size = abs(x)
    outer = size > 0.5
    root, lost, bent = _arc(size, outer)
    high, low = HALF_PI[x.dtype]
    signed = bent.with_sign(x)
    middle = high - (x - (low - signed))
    right = (root + (bent + lost)) * 2.0
    left = high * 2.0 - (root * 2.0 - (low * 2.0 - (bent + lost) * 2.0))
    return outer.select((x < 0.0).select(left, right), middle)


def _arc(size: Term, outer: Term) -> tuple[Term, Term, Term]:
    """(s, lost, s³·P(s²)): s is √((1 − size) / 2) where `outer`, else `size`.

    `lost` is what rounding the root lost: (z − s²) / 2s.
    """
    z = outer.select(0.5 - size * 0.5, size * size)
    root = z.sqrt()
    s = outer.select(root, size)
    lost = root.fma(-root, z) / (root + root)
    lost = root.equals(0.0).select(0.0, lost)
    return s, lost, s * z * z.horner(ASIN[size.dtype])


def atan(x: Term) -> Term:
    """The angle of the point (1, |x|), with x's sign."""
    return _angle(abs(x).below(2.0**100), x.like(1.0), None).with_sign(x)


def atan2(y: Term, x: Term) -> Term:
    """The angle of (x, |y|), with y's sign."""
    high, across, left = abs(y), abs(x), x.bits() < 0
    infinite = high.equals(np.inf) & across.equals(np.inf)
    zero = high.equals(0.0) & across.equals(0.0)
    high, across = infinite.select(1.0, high), (infinite | zero).select(1.0, across)
    huge = (high > 2.0**1000) | (across > 2.0**1000)
    high = huge.select(high * 2.0**-100, high)
    across = huge.select(across * 2.0**-100, across)
    return _angle(high, across, left).with_sign(y)


def _angle(y: Term, x: Term, left: Term | None) -> Term:
    """The angle of (x, y), or of (−x, y) where `left`.

    x, y ≥ 0 are not both zero and their sum does not overflow. Above tan(3π/8) the
    angle is π/2 − arctan(x / y), between that and tan(π/8) it is
    π/4 + arctan((y − x) / (y + x)): one division, of what fits.
    """
    steep = y > x * 2.414213562373095
    middle = (y > x * 0.41421356237309503) & ~steep
    above = steep.select(-x, middle.select(y - x, y))
    below = steep.select(y, middle.select(y + x, x))
    t = above / below
    start, rest = (
        steep.select(_eighth(x, 2, part), middle.select(*_eighths(x, left, part)))
        for part in (HIGH, LOW)
    )
    t = t if left is None else left.select(-t, t)
    z = t * t
    return start + ((t * z).fma(z.horner(ATAN[x.dtype]), rest) + t)


def _eighths(x: Term, left: Term | None, part: int) -> tuple[Term, Term]:
    """An eighth of a turn and none; where `left`, three eighths and four."""
    middle, flat = _eighth(x, 1, part), _eighth(x, 0, part)
    if left is None:
        return middle, flat
    return (
        left.select(_eighth(x, 3, part), middle),
        left.select(_eighth(x, 4, part), flat),
    )


def _eighth(x: Term, count: int, part: int) -> Term:
    return x.like(EIGHTH_TURNS[x.dtype][count][part])


HIGH, LOW = 0, 1
"""The parts of a constant that one float cannot hold."""


def hypot_near(x: Term, y: Term) -> Term:
    """√(x² + y²) in f64 for f32, whose squares do not overflow there."""
    return _infinite_beside_nan(x, y, x.fma(x, y * y).sqrt())


def hypot(x: Term, y: Term) -> Term:
    """√(x² + y²), scaled by a power of two where squares would over- or underflow."""
    x, y = abs(x), abs(y)
    large = (x > 2.0**500) | (y > 2.0**500)
    small = (x < 2.0**-400) & (y < 2.0**-400)
    there = large.select(2.0**-600, small.select(x.like(2.0**600), 1.0))
    back = large.select(2.0**600, small.select(x.like(2.0**-600), 1.0))
    a, b = x * there, y * there
    return _infinite_beside_nan(x, y, a.fma(a, b * b).sqrt() * back)


def _infinite_beside_nan(x: Term, y: Term, result: Term) -> Term:
    infinite = abs(x).equals(np.inf) | abs(y).equals(np.inf)
    return infinite.select(np.inf, result)
