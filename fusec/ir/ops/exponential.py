"""Exponentials, logarithms and powers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusec.ir.core import Value
from fusec.ir.dtypes import f32, f64
from fusec.ir.ops.arithmetic import Mul
from fusec.ir.ops.division import Reciprocal
from fusec.ir.ops.formula import Term, expand_in_double, expand_with, power_of_two
from fusec.ir.ops.pointwise import (
    Binary,
    Unary,
    dtype_of,
    floating,
    in_double,
    is_number,
    keep,
    numeric,
)
from fusec.ir.ops.polynomials import (
    EXP,
    EXP2,
    LN2,
    LOG,
    LOG2_E,
    LOG10_2,
    LOG10_E,
    LOG_TAIL,
)


class Exp(Unary, name="exp"):
    """eˣ: 0 at −inf, inf at inf."""

    cost = 27.0
    takes = staticmethod(floating)
    aten = ("aten.exp.default",)
    ulps = (1.1, 1.0)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.exp, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(exp, b, *xs)


class Exp2(Unary, name="exp2"):
    """2ˣ: 0 at −inf, inf at inf."""

    cost = 25.0
    takes = staticmethod(floating)
    aten = ("aten.exp2.default",)
    ulps = (1.0, 0.95)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.exp2, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(exp2, b, *xs)


class Expm1(Unary, name="expm1"):
    """eˣ − 1 without cancellation: −1 at −inf, −0 at −0."""

    cost = 27.0
    takes = staticmethod(floating)
    aten = ("aten.expm1.default",)
    ulps = (1.4, 1.5)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.expm1, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(expm1, b, *xs)


class Log(Unary, name="log"):
    """The natural logarithm: −inf at ±0, NaN below zero."""

    cost = 35.0
    takes = staticmethod(floating)
    aten = ("aten.log.default",)
    ulps = (0.9, 0.9)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.log, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(log, b, *xs)


class Log2(Unary, name="log2"):
    """The logarithm to base 2: −inf at ±0, NaN below zero."""

    cost = 45.0
    takes = staticmethod(floating)
    aten = ("aten.log2.default",)
    ulps = (0.8, 0.7)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.log2, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(log2, b, *xs)


class Log10(Unary, name="log10"):
    """The logarithm to base 10: −inf at ±0, NaN below zero."""

    cost = 48.0
    takes = staticmethod(floating)
    aten = ("aten.log10.default",)
    ulps = (0.7, 0.7)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.log10, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(log10, b, *xs)


class Log1p(Unary, name="log1p"):
    """log(1 + x) without cancellation: −inf at −1, NaN below, −0 at −0."""

    cost = 46.0
    takes = staticmethod(floating)
    aten = ("aten.log1p.default",)
    ulps = (0.9, 0.85)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.log1p, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(log1p, b, *xs)


class Pow(Binary, name="pow"):
    """xʸ.

    Floats as C's `pow`: 1 for y = 0 and for x = 1, NaN or not; NaN for finite x < 0
    and y not whole. Integers wrap; a negative y gives 0, but for x = 1 and −1.
    """

    cost = 100.0
    takes = staticmethod(numeric)
    aten = ("aten.pow.Tensor_Tensor", "aten.pow.Tensor_Scalar")
    ulps = (0.51, 1.2)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return (
            _integer_power(x, y)
            if np.asarray(x).dtype.kind in "iu"
            else in_double(np.power, x, y)
        )

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # x ^ 1 -> x
        if is_number(b, y, 1):
            return keep(x, xs)
        # x ^ 2 -> x * x
        if is_number(b, y, 2):
            return b(Mul, x, x) if keep(x, xs) else None
        # x ^ -1 -> 1 / x, of floats
        if is_number(b, y, -1) and dtype_of(x).is_float:
            return b(Reciprocal, x) if keep(x, xs) else None
        return None

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        if dtype_of(xs[0]).is_int:
            return integer_power(*(Term(b, x) for x in xs)).value
        narrow = dtype_of(xs[0]) is f32
        formula = expand_in_double if narrow else expand_with
        return formula(power_near if narrow else power, b, *xs)


class Sigmoid(Unary, name="sigmoid"):
    """1 / (1 + e⁻ˣ): 0 at −inf, 1 at inf."""

    cost = 32.0
    takes = staticmethod(floating)
    aten = ("aten.sigmoid.default",)
    ulps = (2.5, 1.9)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(_logistic, x)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        return expand_with(sigmoid, b, *xs)


def _logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _integer_power(x: Any, y: Any) -> Any:
    """Square and multiply, modulo 2^width."""
    base, power = np.broadcast_arrays(x, y)
    minus_one = np.where(power % 2 == 0, 1, -1)
    below = np.where(base == 1, 1, np.where(base == -1, minus_one, 0))
    result = np.ones_like(base)
    rest = np.maximum(power, 0)
    while np.any(rest > 0):
        result = np.where(rest % 2 == 1, result * base, result)
        base, rest = base * base, rest // 2
    return np.where(power < 0, below.astype(result.dtype), result)


def nearest_whole(x: Term, factor: float = 1.0) -> tuple[Term, Term]:
    """x · factor rounded to whole, as a float and as the integer of its width.

    Adding 1.5·2^mantissa pushes the fraction out and leaves the integer in the low
    bits. It holds for results below 2^(mantissa − 1) and, unlike a conversion, is
    defined for NaN.
    """
    magic = x.like(1.5 * 2.0**x.dtype.mantissa_bits)
    moved = x.fma(factor, magic) if factor != 1.0 else x + magic
    return moved - magic, moved.bits() - magic.bits()


def without_ln2(x: Term, k: Term) -> Term:
    """x − k · log 2, subtracted in two parts (W. Cody, W. Waite, 1980)."""
    high, low = LN2[x.dtype]
    return k.fma(-low, k.fma(-high, x))


def scaled(x: Term, n: Term) -> Term:
    """x · 2ⁿ in two steps, of which the last alone may over- or underflow."""
    half = n >> 1
    return x * power_of_two(half, x.dtype) * power_of_two(n - half, x.dtype)


EXP_RANGE = {f32: (-104.0, 90.0), f64: (-746.0, 711.0)}
"""Beyond, eˣ and eˣ / 2 round to 0 and overflow."""


def exp(x: Term, tail: Term | None = None, shift: int = 0) -> Term:
    """e^(x + tail) · 2^shift, for a `tail` below x's last bit and |shift| ≤ 1.

    x = k·log 2 + r with |r| ≤ log(2)/2, and eʳ = 1 + (r + r²·P(r)).
    """
    power, n = _exp_parts(x.clamp(*EXP_RANGE[x.dtype]), tail)
    return scaled(power, n + shift if shift else n)


def exp_ordinary(x: Term) -> Term:
    """eˣ where it is a normal number, or NaN."""
    power, n = _exp_parts(x)
    return power * power_of_two(n, x.dtype)


def _exp_parts(x: Term, tail: Term | None = None) -> tuple[Term, Term]:
    """(eʳ, k) with e^(x + tail) = eʳ · 2^k."""
    k, n = nearest_whole(x, LOG2_E[x.dtype][0])
    r = without_ln2(x, k)
    r = r if tail is None else r + tail
    return (r * r).fma(r.horner(EXP[x.dtype]), r) + 1.0, n


def exp2(x: Term) -> Term:
    """2ˣ = 2^k · 2ʳ with whole k and |r| ≤ ½."""
    lowest, highest = {f32: (-151.0, 129.0), f64: (-1076.0, 1025.0)}[x.dtype]
    x = x.clamp(lowest, highest)
    k, n = nearest_whole(x)
    r = x - k
    return scaled(r.fma(r.horner(EXP2[x.dtype]), 1.0), n)


EXPM1_RANGE = {f32: (-20.0, 89.0), f64: (-40.0, 710.0)}
"""Beyond, eˣ − 1 rounds to −1 and overflows."""


def expm1(x: Term) -> Term:
    """2^k · (eʳ − 1) + (2^k − 1), halved on the way so that 2^k does not overflow."""
    dtype = x.dtype
    near = x.clamp(*EXPM1_RANGE[dtype])
    k, n = nearest_whole(near, LOG2_E[dtype][0])
    r = without_ln2(near, k)
    half_power = power_of_two(n - 1, dtype)
    curved = r * r * r.horner(EXP[dtype])
    total = half_power.fma(curved, half_power.fma(r, half_power - 0.5))
    return (abs(x) < dtype.eps / 4).select(x, total * 2.0)


def binary_parts(x: Term) -> tuple[Term, Term]:
    """(k, f) with x = 2^k · (1 + f) and √½ ≤ 1 + f < √2, for finite x > 0."""
    dtype = x.dtype
    tiny = x < 2.0 ** (1 - dtype.bias)
    x = tiny.select(x * 2.0**dtype.mantissa_bits, x)
    root_half = {f32: 0x3F3504F3, f64: 0x3FE6A09E667F3BCD}[dtype]
    n = (x.bits() - root_half) >> dtype.mantissa_bits
    mantissa = (x.bits() - (n << dtype.mantissa_bits)).bitcast(dtype)
    k = n.cast(dtype) - tiny.select(x.like(dtype.mantissa_bits), 0.0)
    return k, mantissa - 1.0


def log_series(f: Term) -> tuple[Term, Term, Term]:
    """(f²/2, s·(f²/2 + R), s): log(1 + f) is f less the first plus the second.

    log(1 + f) = 2·artanh(s) with s = f / (2 + f), as in fdlibm (Sun, 1993).
    """
    s = f / (f + 2.0)
    square = s * s
    half = f * f * 0.5
    return half, s * square.fma(square.horner(LOG[f.dtype]), half), s


def log_ends(x: Term, result: Term) -> Term:
    """`result` for finite x > 0; inf, −inf at 0, NaN below 0 and for NaN."""
    ends = x.equals(0.0).select(x.like(-np.inf), x)
    ends = (x < 0.0).select(x.like(np.nan), ends)
    return ((x > 0.0) & (x < np.inf)).select(result, ends)


def log(x: Term) -> Term:
    """k · log 2 + log(1 + f)."""
    high, low = LN2[x.dtype]
    k, f = binary_parts(x)
    half, rest, _ = log_series(f)
    return log_ends(x, k.fma(high, f - (half - k.fma(low, rest))))


def log2(x: Term) -> Term:
    return _log_in_base(x, (1.0, 0.0), LOG2_E[x.dtype])


def log10(x: Term) -> Term:
    return _log_in_base(x, LOG10_2[x.dtype], LOG10_E[x.dtype])


def _log_in_base(x: Term, two: tuple[float, float], unit: tuple[float, float]) -> Term:
    """k · two + log(1 + f) · unit, both products and their sum in two parts."""
    k, f = binary_parts(x)
    _, rest, _ = log_series(f)
    minus_half = f * -0.5
    high = minus_half.fma(f, f)
    low = minus_half.fma(f, f - high) + rest
    product = high * unit[0]
    error = high.fma(unit[0], -product)
    tail = low.fma(unit[0], high.fma(unit[1], error))
    whole = k * two[0]
    total = whole + product
    tail = ((whole - total) + product) + (k.fma(two[1], tail) if two[1] else tail)
    return log_ends(x, total + tail)


def log1p(x: Term) -> Term:
    """log of u = 1 + x, and what rounding u lost: (x − (u − 1)) / u."""
    high, low = LN2[x.dtype]
    u = x + 1.0
    k, f = binary_parts(u)
    half, rest, _ = log_series(f)
    lost = (u > 2.0).select(1.0 - (u - x), x - (u - 1.0)) / u
    near = k.fma(high, f - (half - (k.fma(low, rest) + lost)))
    return x.equals(0.0).select(x, log_ends(u, near))


def sigmoid(x: Term) -> Term:
    """1 / (1 + e⁻ˣ)."""
    return 1.0 / ((-x).emit(Exp) + 1.0)


def power_near(x: Term, y: Term) -> Term:
    """xʸ in f64, good enough for f32: its exponent has 45 bits right."""
    return power_ends(x, y, exp(log(abs(x)) * y))


def power(x: Term, y: Term) -> Term:
    """xʸ = e^(y · log |x|), the logarithm and the product in two parts each."""
    high, low = log_in_two(abs(x))
    product = y * high
    error = y.fma(high, -product) + y * low
    ordinary = abs(product) < 1000.0
    tail = ordinary.select(error, 0.0)
    return power_ends(x, y, exp(product, tail))


def integer_power(x: Term, y: Term) -> Term:
    """xʸ modulo 2^width by squaring: one product for each bit of y that may be set."""
    dtype = x.dtype
    known = y.b.constant(y.value)
    bits = dtype.bits - dtype.is_signed if known is None else int(known).bit_length()
    result, power = (x & 0) | 1, x  # 1 wherever x is
    for k in range(bits):
        chosen = (y & (1 << k)).differs(0)
        result = chosen.select(result * power, result)
        if k + 1 < bits:
            power = power * power
    if not dtype.is_signed:
        return result
    minus_one = (y & 1).equals(0).select(x.like(1), -1)
    below = x.equals(1).select(x.like(1), x.equals(-1).select(minus_one, 0))
    return (y < 0).select(below, result)


def log_in_two(x: Term) -> tuple[Term, Term]:
    """log x in f64 as high + low, 2^-65 off at most; the ends as in `log`.

    log(1 + f) = 2s + s·(2/3·s² + s⁴·Q(s²)), s = f / (2 + f) and all that matters of
    each product and sum in two parts.
    """
    k, f = binary_parts(x)
    below = f + 2.0
    s = f / below
    s_low = (s.fma(-below, f) - s * (f - (below - 2.0))) / below
    z = s * s
    z_low = s.fma(s, -z) + s * s_low * 2.0
    third, third_low = 0.6666666666666666, 3.700743415417188e-17  # 2/3
    head = z * third
    head_low = z.fma(third, -head) + z.fma(third_low, z_low * third)
    curve = z * z * z.horner(LOG_TAIL)
    u = head + curve
    u_low = ((head - u) + curve) + head_low
    bent = s * u
    bent_low = s.fma(u, -bent) + s.fma(u_low, s_low * (u + 2.0))
    near = s * 2.0 + bent
    near_low = ((s * 2.0 - near) + bent) + bent_low
    ln2, ln2_low = LN2[x.dtype]
    whole = k * ln2
    total = whole + near
    low = ((whole - total) + near) + k.fma(ln2_low, near_low)
    return log_ends(x, total), log_ends(x, low)


def power_ends(x: Term, y: Term, size: Term) -> Term:
    """xʸ from |x|ʸ: its sign, and where C's `pow` says otherwise."""
    size = abs(x).equals(1.0).select(1.0, size)
    half = y * 0.5
    whole = y.floor().equals(y)
    odd = whole & half.floor().differs(half)
    signed = odd.select(size.with_sign(x), size)
    no_root = (x < 0.0) & (x > -np.inf) & ~whole
    result = no_root.select(y.like(np.nan), signed)
    return (y.equals(0.0) | x.equals(1.0)).select(1.0, result)
