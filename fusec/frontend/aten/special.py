"""Special functions: Bessel's, Γ's derivatives, the normal distribution's, polynomials.

All compute in f64, which makes f32 and narrower all but exact; rare as they are, their
speed matters little. Where eager computes in f32 it is the less precise. Tables and,
where no other source is named, methods are those of the Cephes library (S. Moshier),
which ATen follows; ends of ranges, infinities and NaN are ATen's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from fusec.frontend.aten import cephes
from fusec.frontend.aten.functions import absolute, exp, log, sqrt
from fusec.frontend.aten.registry import Handler, lowers
from fusec.frontend.aten.term import Emitter, Number, Operand, Term, call, where
from fusec.ir.dtypes import f64, i64
from fusec.ir.ops import elementwise as ops
from fusec.ir.ops.polynomials import ERFC

Formula = Callable[[Term], Term]

SQRT_TWO_OVER_PI = math.sqrt(2 / math.pi)
TWO_OVER_PI = 2 / math.pi


def _unary(formula: Formula) -> Handler:
    return lambda e, x: formula(e.term(x, f64))


def with_sign(x: Term, sign: Term) -> Term:
    """The magnitude of x with the sign of another."""
    return call(ops.Copysign, x, sign)


def polynomial(x: Term, coefficients: Sequence[float]) -> Term:
    """By Horner's rule, from the highest power on."""
    first, *rest = coefficients
    total: Operand = first
    for coefficient in rest:
        total = call(ops.Fma, x.like(total), x, x.like(coefficient))
    return x.like(total)


def chebyshev(x: Term, coefficients: Sequence[float]) -> Term:
    """A Chebyshev series on [−2, 2], by Clenshaw's recurrence."""
    last, before = x.like(coefficients[0]), x.like(0)
    older = before
    for coefficient in coefficients[1:]:
        older, before = before, last
        last = x * before - older + coefficient
    return (last - older) * 0.5


# ------------------------------------------------------------------------- Bessel


def _oscillating(
    x: Term, amplitude: tuple[Sequence[float], ...], phase: float, *, second: bool
) -> Term:
    """J or Y for x > 5: √(2/πx) · (p cos − 5/x·q sin) of x − phase; Y sin and cos."""
    pp, pq, qp, qq = amplitude
    t = 25 / (x * x)
    p = polynomial(t, pp) / polynomial(t, pq)
    q = 5 / x * (polynomial(t, qp) / polynomial(t, qq))
    turned = x - phase
    cosine, sine = call(ops.Cos, turned), call(ops.Sin, turned)
    wave = p * sine + q * cosine if second else p * cosine - q * sine
    return wave * SQRT_TWO_OVER_PI / sqrt(x)


_AMPLITUDE_0 = (cephes.J0_PP, cephes.J0_PQ, cephes.J0_QP, cephes.J0_QQ)
_AMPLITUDE_1 = (cephes.J1_PP, cephes.J1_PQ, cephes.J1_QP, cephes.J1_QQ)
# The squares of the first two zeros of J₀ and J₁.
_ZEROS_0 = (5.78318596294678452118, 30.4712623436620863991)
_ZEROS_1 = (14.6819706421238932572, 49.2184563216946036703)


def bessel_j0(x: Term) -> Term:
    x = absolute(x)
    square = x * x
    ratio = polynomial(square, cephes.J0_RP) / polynomial(square, cephes.J0_RQ)
    near = (square - _ZEROS_0[0]) * (square - _ZEROS_0[1]) * ratio
    far = _oscillating(x, _AMPLITUDE_0, math.pi / 4, second=False)
    return where(x <= 5, near, far)


def bessel_j1(x: Term) -> Term:
    size = absolute(x)
    square = size * size
    ratio = polynomial(square, cephes.J1_RP) / polynomial(square, cephes.J1_RQ)
    near = ratio * size * (square - _ZEROS_1[0]) * (square - _ZEROS_1[1])
    far = _oscillating(size, _AMPLITUDE_1, 3 * math.pi / 4, second=False)
    result = where(size <= 5, near, far)
    return where(x < 0, -result, result)


def bessel_y0(x: Term) -> Term:
    square = x * x
    ratio = polynomial(square, cephes.Y0_YP) / polynomial(square, cephes.Y0_YQ)
    near = ratio + log(x) * bessel_j0(x) * TWO_OVER_PI
    far = _oscillating(x, _AMPLITUDE_0, math.pi / 4, second=True)
    return _from_zero(x, where(x <= 5, near, far), -math.inf)


def bessel_y1(x: Term) -> Term:
    square = x * x
    ratio = polynomial(square, cephes.Y1_YP) / polynomial(square, cephes.Y1_YQ)
    near = x * ratio + (bessel_j1(x) * log(x) - 1 / x) * TWO_OVER_PI
    far = _oscillating(x, _AMPLITUDE_1, 3 * math.pi / 4, second=True)
    return _from_zero(x, where(x <= 5, near, far), -math.inf)


def _from_zero(x: Term, result: Term, at_zero: float) -> Term:
    """What is NaN below 0, and infinite there."""
    result = where(x < 0, math.nan, result)
    return where(x.equals(0), at_zero, result)


def _modified(x: Term, near: Sequence[float], far: Sequence[float]) -> Term:
    """e⁻ˣ times I₀, or the like of I₁, for x ≥ 0, divided by x up to 8."""
    series = chebyshev(32 / x - 2, far) / sqrt(x)
    return where(x <= 8, chebyshev(x * 0.5 - 2, near), series)


def i0e(x: Term) -> Term:
    """e^−|x| · I₀(x)."""
    return _modified(absolute(x), cephes.I0_A, cephes.I0_B)


def i1e(x: Term) -> Term:
    """e^−|x| · I₁(x)."""
    size = absolute(x)
    result = _modified(size, cephes.I1_A, cephes.I1_B)
    result = result * where(size <= 8, size, 1)
    return where(x < 0, -result, result)


def i0(x: Term) -> Term:
    return exp(absolute(x)) * i0e(x)


def i1(x: Term) -> Term:
    return exp(absolute(x)) * i1e(x)


def k0e(x: Term) -> Term:
    """eˣ · K₀(x)."""
    near = chebyshev(x * x - 2, cephes.K0_A) - log(x * 0.5) * i0(x)
    far = chebyshev(8 / x - 2, cephes.K0_B) / sqrt(x)
    return _from_zero(x, where(x <= 2, near * exp(x), far), math.inf)


def k1e(x: Term) -> Term:
    """eˣ · K₁(x)."""
    near = log(x * 0.5) * i1(x) + chebyshev(x * x - 2, cephes.K1_A) / x
    far = chebyshev(8 / x - 2, cephes.K1_B) / sqrt(x)
    return _from_zero(x, where(x <= 2, near * exp(x), far), math.inf)


def k0(x: Term) -> Term:
    return exp(-x) * k0e(x)


def k1(x: Term) -> Term:
    return exp(-x) * k1e(x)


def spherical_bessel_j0(x: Term) -> Term:
    """sin x / x; its series near 0."""
    series = [(-1.0) ** k / math.factorial(2 * k + 1) for k in reversed(range(7))]
    near = polynomial(x * x, series)
    far = where(call(ops.IsInf, x), 0, call(ops.Sin, x) / x)
    return where(absolute(x) < 0.5, near, far)


# --------------------------------------------------------------------------- Airy

_AIRY_LIMIT = 2.09
_AIRY_TERMS = 14


def airy_ai(x: Term) -> Term:
    """The series about 0; beyond ±2.09 what decays and what oscillates."""
    size = absolute(x)
    root = sqrt(size)
    zeta = size * root * (2 / 3)
    inverse = 1 / zeta
    scale = 1 / (sqrt(root) * math.sqrt(math.pi))
    right = _ratio(inverse, cephes.AIRY_AN, cephes.AIRY_AD)
    right = right * scale * 0.5 / exp(zeta)
    square = inverse * inverse
    even = square * _ratio(square, cephes.AIRY_AFN, cephes.AIRY_AFD) + 1
    odd = inverse * _ratio(square, cephes.AIRY_AGN, cephes.AIRY_AGD)
    turned = zeta + math.pi / 4
    left = call(ops.Sin, turned) * even - call(ops.Cos, turned) * odd
    result = where(x < 0, left * scale, right)
    near = (x < _AIRY_LIMIT) & (x >= -_AIRY_LIMIT)
    result = where(near, _airy_series(x), result)
    result = where(x > 103.892, 0, result)
    return where(call(ops.IsInf, x), math.nan, result)


def _ratio(x: Term, above: Sequence[float], below: Sequence[float]) -> Term:
    return polynomial(x, above) / polynomial(x, below)


def _airy_series(x: Term) -> Term:
    """Ai(0)·f − |Ai′(0)|·g, whose terms grow by x³ / (3k(3k ∓ 1))."""
    first, second = [1.0], [1.0]
    for k in range(1, _AIRY_TERMS):
        first.append(first[-1] / (3 * k * (3 * k - 1)))
        second.append(second[-1] / (3 * k * (3 * k + 1)))
    cube = x * x * x
    f, g = polynomial(cube, first[::-1]), x * polynomial(cube, second[::-1])
    return f * 0.355028053887817239260 - g * 0.258819403792806798405


# ------------------------------------------------------------------------------- Γ

_STEPS = 10
"""How far an argument is moved to where asymptotic series are exact."""


def digamma(x: Term) -> Term:
    """Γ′/Γ, by reflection below 0; NaN at −1, −2, …, and ∓inf at ±0."""
    fraction = x - call(ops.Trunc, x)
    size = where(x < 0, 1 - x, x)
    result = x.like(0)
    for _ in range(_STEPS):
        small = size < _STEPS
        result = where(small, result - 1 / size, result)
        size = where(small, size + 1, size)
    z = 1 / (size * size)
    result = result + log(size) - 0.5 / size - z * polynomial(z, cephes.DIGAMMA_A)
    mirrored = result - math.pi / call(ops.Tan, fraction * math.pi)
    mirrored = where(fraction.equals(0), math.nan, mirrored)
    result = where(x < 0, mirrored, where(x.equals(math.inf), x, result))
    return where(x.equals(0), with_sign(x.like(math.inf), -x), result)


def trigamma(x: Term) -> Term:
    """As ATen has it, up to the size of what should be infinite at −1, −2, …"""
    reflected = x < 0.5
    size = where(reflected, 1 - x, x)
    result = x.like(0)
    for _ in range(6):
        result = result + 1 / (size * size)
        size = size + 1
    z = 1 / (size * size)
    tail = 1 + 0.5 / size + z * (1 / 6 - z * (1 / 30 - z / 42))
    result = result + tail / size
    sine = call(ops.Sin, x * math.pi)
    return where(reflected, math.pi**2 / (sine * sine) - result, result)


def polygamma(n: int, x: Term) -> Term:
    """The n-th derivative of digamma: (−1)ⁿ⁺¹ n! ζ(n + 1, x), by reflection below ½.

    ψₙ(x) = (−1)ⁿ ψₙ(1 − x) − π dⁿ/dxⁿ cot(πx), which is infinite at 0, −1, −2, …
    """
    if n < 2:
        return trigamma(x) if n else digamma(x)
    sign = 1 if n % 2 else -1
    reflected = x < 0.5
    value = _zeta(n + 1, where(reflected, 1 - x, x)) * (sign * math.factorial(n))
    turn = (x - call(ops.Round, x)) * math.pi
    mirrored = value * -sign - _cotangent(n, 1 / call(ops.Tan, turn))
    pole = (x <= 0) & x.equals(call(ops.Floor, x))
    return where(pole, sign * math.inf, where(reflected, mirrored, value))


def _cotangent(n: int, cotangent: Term) -> Term:
    """π dⁿ/dxⁿ cot(πx) = πⁿ⁺¹ Pₙ(cot(πx)), where Pₙ₊₁ = −(1 + c²) Pₙ′ and P₀ = c."""
    powers = [0.0, 1.0]
    for _ in range(n):
        derived = [k * p for k, p in enumerate(powers)][1:]
        powers = [
            -(a + b)
            for a, b in zip([*derived, 0.0, 0.0], [0.0, 0.0, *derived], strict=True)
        ]
    return polynomial(cotangent, powers[::-1]) * math.pi ** (n + 1)


def _zeta(s: int, q: Term) -> Term:
    """Hurwitz' Σₖ (q + k)⁻ˢ, q ≥ ½, s ≥ 2: ten terms, then Euler and Maclaurin."""
    total = _reciprocal_power(q, s)
    for k in range(1, _STEPS):
        total = total + _reciprocal_power(q + k, s)
    edge = q + _STEPS - 1
    last = _reciprocal_power(edge, s)
    total = total + last * edge / (s - 1) - last * 0.5
    factor, power = 1.0, last
    for k, divisor in enumerate(cephes.ZETA_A):
        factor *= s + 2 * k
        power = power / edge
        total = total + power * (factor / divisor)
        factor *= s + 2 * k + 1
        power = power / edge
    return total


def _reciprocal_power(x: Term, n: int) -> Term:
    power = x
    for _ in range(n - 1):
        power = power * x
    return 1 / power


# ---------------------------------------------------------------------- normal, erf

_ERFC_END = 27.0


def erfcx(x: Term) -> Term:
    """exp(x²)·erfc(x): the polynomial of erfc from ½ on, a series from 27 on."""
    size = absolute(x)
    middle = size.minimum(_ERFC_END)
    t = (middle - 4) / (middle + 4)
    outer = polynomial(t, ERFC[::-1]) / (middle + middle + 1)
    z = 0.5 / (size * size)
    # 1 − 1/2x² + 3/4x⁴ − …, as far as matters where it is used.
    series = polynomial(z, [-945.0, 105.0, -15.0, 3.0, -1.0, 1.0])
    outer = where(size > _ERFC_END, series / (size * math.sqrt(math.pi)), outer)
    square = x * x
    outer = where(x < 0, exp(square) * 2 - outer, outer)
    inner = exp(square) * call(ops.Erfc, x)
    return where(size < 0.5, inner, outer)


def ndtri(x: Term) -> Term:
    """The quantile of the normal distribution; NaN outside [0, 1]."""
    low = math.exp(-2)
    upper = x > 1 - low
    y = where(upper, 1 - x, x)
    central = x - 0.5
    square = central * central
    middle = _ratio(square, cephes.NDTRI_P0, cephes.NDTRI_Q0)
    middle = (central + central * square * middle) * math.sqrt(2 * math.pi)
    root = sqrt(log(y) * -2)
    z = 1 / root
    tail = where(
        root < 8,
        _ratio(z, cephes.NDTRI_P1, cephes.NDTRI_Q1),
        _ratio(z, cephes.NDTRI_P2, cephes.NDTRI_Q2),
    )
    tail = root - log(root) / root - z * tail
    result = where(y > low, middle, where(upper, tail, -tail))
    result = where(x.equals(0), -math.inf, where(x.equals(1), math.inf, result))
    return where((x < 0) | (x > 1), math.nan, result)


# ----------------------------------------------------------- Chebyshev's polynomials


Kind = Callable[[Term, Term], tuple[Term, Term, Term]]


def _chebyshev(kind: Kind, shifted: bool) -> Handler:
    """Cosines of multiples of θ where x = cos θ; hyperbolic ones where |x| > 1.

    A kind gives its value within, beyond, and at |x| = 1, for |x| and n ≥ 0. Of −|x|
    it is (−1)ⁿ that of |x|, and V and W change places. "Shifted" is of 2x − 1.
    """

    def handle(e: Emitter, x: Operand, n: Operand) -> Term:
        x = e.term(x, f64)
        return _of_degree(kind, x + x - 1 if shifted else x, e.term(n, f64))

    return handle


def _of_degree(kind: Kind, x: Term, n: Term) -> Term:
    whole = call(ops.Trunc, n)
    odd = call(ops.Fmod, whole, whole.like(2)).equals(1)
    size = absolute(x)
    right, left = (_at(k, size, whole) for k in (kind, _MIRROR.get(kind, kind)))
    result = where(x < 0, where(odd, -left, left), right)
    return where(whole < 0, 0, result)


def _at(kind: Kind, size: Term, n: Term) -> Term:
    within, beyond, edge = kind(size, n)
    result = where(size > 1, beyond, within)
    result = where(size.equals(1), edge, result)
    return where(n.equals(0), 1, result)


def _angles(x: Term) -> tuple[Term, Term]:
    return call(ops.Acos, x), call(ops.Acosh, x)


def _kind_t(x: Term, n: Term) -> tuple[Term, Term, Term]:
    angle, boost = _angles(x)
    return call(ops.Cos, n * angle), call(ops.Cosh, n * boost), n * 0 + 1


def _kind_u(x: Term, n: Term) -> tuple[Term, Term, Term]:
    angle, boost = _angles(x)
    within = call(ops.Sin, (n + 1) * angle) / call(ops.Sin, angle)
    beyond = call(ops.Sinh, (n + 1) * boost) / call(ops.Sinh, boost)
    return within, beyond, n + 1


def _kind_v(x: Term, n: Term) -> tuple[Term, Term, Term]:
    angle, boost = _angles(x)
    within = call(ops.Cos, (n + 0.5) * angle) / call(ops.Cos, angle * 0.5)
    beyond = call(ops.Cosh, (n + 0.5) * boost) / call(ops.Cosh, boost * 0.5)
    return within, beyond, n * 0 + 1


def _kind_w(x: Term, n: Term) -> tuple[Term, Term, Term]:
    angle, boost = _angles(x)
    within = call(ops.Sin, (n + 0.5) * angle) / call(ops.Sin, angle * 0.5)
    beyond = call(ops.Sinh, (n + 0.5) * boost) / call(ops.Sinh, boost * 0.5)
    return within, beyond, n + n + 1


_MIRROR: dict[Kind, Kind] = {_kind_v: _kind_w, _kind_w: _kind_v}
_KINDS = {"t": _kind_t, "u": _kind_u, "v": _kind_v, "w": _kind_w}

for _letter, _kind in _KINDS.items():
    for _prefix in ("", "shifted_"):
        _packet = f"aten.special_{_prefix}chebyshev_polynomial_{_letter}"
        lowers(*(f"{_packet}.{name}" for name in ("default", "x_scalar", "n_scalar")))(
            _chebyshev(_kind, bool(_prefix))
        )


# ------------------------------------------------------------------------- the table

_UNARY: dict[str, Formula] = {
    "digamma": digamma,
    "i0": i0,
    "special_airy_ai": airy_ai,
    "special_bessel_j0": bessel_j0,
    "special_bessel_j1": bessel_j1,
    "special_bessel_y0": bessel_y0,
    "special_bessel_y1": bessel_y1,
    "special_erfcx": erfcx,
    "special_i0e": i0e,
    "special_i1": i1,
    "special_i1e": i1e,
    "special_modified_bessel_i0": i0,
    "special_modified_bessel_i1": i1,
    "special_modified_bessel_k0": k0,
    "special_modified_bessel_k1": k1,
    "special_ndtri": ndtri,
    "special_scaled_modified_bessel_k0": k0e,
    "special_scaled_modified_bessel_k1": k1e,
    "special_spherical_bessel_j0": spherical_bessel_j0,
}

for _name, _formula in _UNARY.items():
    lowers(f"aten.{_name}.default")(_unary(_formula))


@lowers("aten.polygamma.default")
def polygamma_of(e: Emitter, n: Number, x: Term) -> Term:
    return polygamma(int(n), x.cast(f64))


@lowers("aten.frexp.Tensor")
def frexp(e: Emitter, x: Term) -> tuple[Term, Term]:
    """(m, n) with x = m·2ⁿ and ½ ≤ |m| < 1; x itself and 0 where there are none."""
    x = x.cast(f64)
    tiny = absolute(x) < 2.0**-1022
    scaled = where(tiny, x * 2.0**54, x)
    bits = scaled.bitcast(i64)
    biased = call(ops.And, call(ops.Shr, bits, 52), 0x7FF)
    kept = call(ops.And, bits, ~(0x7FF << 52))
    mantissa = call(ops.Or, kept, 1022 << 52).bitcast(f64)
    power = biased - 1022 - where(tiny, biased.like(54), 0)
    none = x.equals(0) | call(ops.IsInf, x) | call(ops.IsNan, x)
    return where(none, x, mantissa), where(none, 0, power)
