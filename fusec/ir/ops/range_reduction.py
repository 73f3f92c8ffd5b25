"""Whole turns taken out of an angle: half ones in f32, quarter ones in f64.

Most angles are small. For them n = round(x / π) is a float, and x − n·π comes of
subtracting parts of π one by one, each product exact, so that cancellation does no harm
(W. Cody, W. Waite, 1980: Software manual for the elementary functions):

    f32, in f64    x − n·π₁ − n·π₂                  no tail: f64 has the digits
    f64            x − n·π₁ − n·π₂ − n·π₃           as rest + tail

From 2^20 on, digits of n are lost, and digits of π that weigh a multiple of whole turns
do not matter. x = m·2^j with an integer m: a window of 2/π that starts at the exponent
j, times m, in integers modulo 2^64, leaves few turns and all the digits behind them:

    2/π  0.1010001011 111001100000110110111001 001110…
                      └────── window ──────┘   f32: 2 words, f64: 3
    m · window  =  qq.ffffffffffffff…              quadrant, and fraction of a quarter

Source: M. Payne, R. Hanek, 1983: Radian reduction for trigonometric functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fusec.ir.dtypes import DType, f32, f64, i32, i64, u64
from fusec.ir.ops.formula import Term
from fusec.ir.ops.polynomials import (
    HALF_PI,
    HALF_PI_PARTS,
    PI,
    TWO_OVER_PI,
    TWO_OVER_PI_BITS,
)

FIRST_FAR = 20
"""The exponent from which on an angle is far."""
FAR = 2.0**FIRST_FAR
WORD = 64
ONE: dict[DType, float] = {f32: 1.5 * 2.0**23, f64: 1.5 * 2.0**52}
"""A float whose last place is 1: adding it rounds a number below 2^21 to a whole one,
whose lowest bits are the last of the sum. The sum less it is never −0."""


@dataclass(frozen=True, slots=True, eq=False)
class HalfTurns:
    """An f32 angle: the sign that its whole half turns give, and the rest in f64."""

    flip: Term
    """The sign bit alone, as i32."""
    rest: Term


def half_turns(x: Term, ahead: float, far: bool) -> HalfTurns:
    """Of an f32 angle and `ahead` half turns, 0 or ½. `far` angles are above `FAR` and
    finite, others up to it.

    The rest is within 1.665: π/2, and what the quotient is off where it is large.
    """
    return (_far_half_turns if far else _near_half_turns)(x, ahead)


def _near_half_turns(x: Term, ahead: float) -> HalfTurns:
    one = ONE[f32]
    if ahead:
        scaled = x.fma(1 / math.pi, ahead) + one
        turns = (scaled - one) - ahead
    else:
        scaled = x.fma(1 / math.pi, one)
        turns = scaled - one
    turns = turns.cast(f64)
    high, low = PI[f64]
    rest = turns.fma(-low, turns.fma(-high, x.cast(f64)))
    return HalfTurns(scaled.bits() << 31, rest)


def _far_half_turns(x: Term, ahead: float) -> HalfTurns:
    mantissa, words = _window(x)
    product = mantissa * words[0] + ((mantissa * (words[1] >> 32)) >> 32)
    product = (x.bits() < 0).select(product.like(0) - product, product)
    if ahead:
        product = product + int(ahead * 2.0**63)
    flip = ((product + (1 << 62)) >> 63).cast(i32) << 31
    rest = ((product << 1).bitcast(i64) >> 1).cast(f64)
    return HalfTurns(flip, rest * (math.pi * 2.0**-63))


@dataclass(frozen=True, slots=True, eq=False)
class QuarterTurns:
    """An f64 angle ≥ 0: two bits of quadrant, and rest + tail within ±π/4."""

    odd: Term
    upper: Term
    rest: Term
    tail: Term


def quarter_turns(size: Term, far: bool) -> QuarterTurns:
    """Of an f64 angle ≥ 0. `far` ones are above `FAR` and finite, others up to it."""
    return (_far_quarter_turns if far else _near_quarter_turns)(size)


def _near_quarter_turns(size: Term) -> QuarterTurns:
    scaled = size.fma(2 / math.pi, ONE[f64])
    count = scaled - ONE[f64]
    first, second, third = HALF_PI_PARTS
    near = count.fma(-first, size)
    rest = count.fma(-second, near)
    tail = count.fma(-third, count.fma(-second, near - rest))
    return _quadrant(scaled.bits(), rest, tail)


def _far_quarter_turns(size: Term) -> QuarterTurns:
    """In 128 bits, since the fraction may begin with 61 zeros."""
    mantissa, words = _window(size)
    added = _high_word(mantissa, words[2])
    low = mantissa * words[1] + added
    carry = (low < added).cast(u64)
    high = mantissa * words[0] + _high_word(mantissa, words[1]) + carry
    quadrant = (high + (1 << 61)) >> 62
    fraction = (high - (quadrant << 62)).bitcast(i64)
    exact = (fraction & ~0x3FF).cast(f64)
    below = (low >> 11).bitcast(i64).cast(f64) * 2.0**-53
    below = (fraction & 0x3FF).cast(f64) + below
    total = exact + below
    error = (exact - total) + below
    scale, scale_low = (part * 2.0**-62 for part in HALF_PI[f64])
    rest = total * scale
    tail = total.fma(scale, -rest) + total.fma(scale_low, error * scale)
    return _quadrant(quadrant, rest, tail)


def _quadrant(count: Term, rest: Term, tail: Term) -> QuarterTurns:
    odd, upper = ((count & bit).differs(0) for bit in (1, 2))
    return QuarterTurns(odd, upper, rest, tail)


def _window(x: Term) -> tuple[Term, list[Term]]:
    """The integer m of a far angle, and the words of 2/π that its exponent selects."""
    dtype = x.dtype
    levels, count = {f32: (1, 2), f64: (4, 3)}[dtype]
    bits = abs(x).bits().cast(u64)
    hidden = 1 << dtype.mantissa_bits
    mantissa = (bits & (hidden - 1)) | hidden
    start = (bits >> dtype.mantissa_bits) - (dtype.bias + FIRST_FAR)
    words = [start.like(word) for word in _table(dtype)]
    for level in reversed(range(levels)):
        step = 1 << level
        need = count + step
        above = (start & (WORD * step)).differs(0)
        words = [above.select(words[k + step], words[k]) for k in range(need)]
    shift = start & (WORD - 1)
    back = WORD - shift
    shifted = [(words[k] << shift) | (words[k + 1] >> back) for k in range(count)]
    return mantissa, shifted


def _table(dtype: DType) -> list[int]:
    """2/π in words, after as many zeros as the least exponent asks for."""
    length = TWO_OVER_PI_BITS + dtype.mantissa_bits + 2 - FIRST_FAR
    whole = length // WORD
    digits = TWO_OVER_PI >> (length - WORD * whole)
    mask = (1 << WORD) - 1
    return [digits >> (WORD * k) & mask for k in reversed(range(whole))]


def _high_word(x: Term, y: Term) -> Term:
    """The upper 64 of the 128 bits of a product."""
    (a, b), (c, d) = ((v >> 32, v & 0xFFFFFFFF) for v in (x, y))
    low, inner, outer = b * d, a * d, b * c
    middle = (low >> 32) + (inner & 0xFFFFFFFF) + (outer & 0xFFFFFFFF)
    return a * c + (inner >> 32) + (outer >> 32) + (middle >> 32)
