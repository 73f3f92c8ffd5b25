"""Whole quarter turns taken out of an angle, right for angles of any size.

x / (π/2) is wanted modulo 4, and x = m·2^j with an integer m. Binary digits of 2/π that
weigh 4·2^-j and more make multiples of 4 and do not matter; those far below leave no
trace. So a window of 2/π that starts at the exponent, times m, in integers modulo 2^64:

    2/π  0.1010001011 111001100000110110111001 001110…
                      └────── window ──────┘   f32: 2 words, f64: 3
    m · window  =  qq.ffffffffffffff…              quadrant, and fraction of a quarter

Source: M. Payne, R. Hanek, 1983: Radian reduction for trigonometric functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fusec.ir.dtypes import DType, f32, f64, i64, u64
from fusec.ir.ops.formula import Term
from fusec.ir.ops.polynomials import HALF_PI, TWO_OVER_PI, TWO_OVER_PI_BITS

WORD = 64
POINT = 62
"""Where the binary point stands in the first word of a product."""


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """An angle: two bits of quadrant, and rest + tail within ±π/4."""

    odd: Term
    upper: Term
    rest: Term
    tail: Term


def quarter_turns(size: Term) -> Turns:
    """Take whole quarter turns out of a finite angle ≥ 0, in f32 or f64."""
    reduce = _reduced_f32 if size.dtype is f32 else _reduced_f64
    quadrant, rest, tail = reduce(*_window(size))
    small = size < math.pi / 4
    odd = (quadrant & 1).differs(0) & ~small
    upper = (quadrant & 2).differs(0) & ~small
    tail = small.select(0.0, tail.cast(size.dtype))
    return Turns(odd, upper, small.select(size, rest.cast(size.dtype)), tail)


def _window(size: Term) -> tuple[Term, list[Term]]:
    """The angle's integer m, and the words of 2/π that its exponent selects."""
    dtype = size.dtype
    levels, count = {f32: (1, 2), f64: (4, 3)}[dtype]
    bits = size.bits().cast(u64)
    hidden = 1 << dtype.mantissa_bits
    mantissa = (bits & (hidden - 1)) | hidden
    start = (bits >> dtype.mantissa_bits) - (dtype.bias - 1)
    last = (WORD << levels) - 1  # one short of the largest exponent: double m there
    mantissa = (start > last).select(mantissa + mantissa, mantissa)
    start = start.below(last)
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
    length = TWO_OVER_PI_BITS + dtype.mantissa_bits + 3
    whole = length // WORD
    digits = TWO_OVER_PI >> (length - WORD * whole)
    mask = (1 << WORD) - 1
    return [digits >> (WORD * k) & mask for k in reversed(range(whole))]


def _reduced_f32(mantissa: Term, words: list[Term]) -> tuple[Term, Term, Term]:
    """In f64, where one part is enough."""
    product = mantissa * words[0] + ((mantissa * (words[1] >> 32)) >> 32)
    quadrant, fraction = _cut(product)
    rest = fraction.cast(f64) * (math.pi / 2 * 2.0**-POINT)
    near = rest.cast(f32)
    return quadrant, near, rest - near.cast(f64)


def _reduced_f64(mantissa: Term, words: list[Term]) -> tuple[Term, Term, Term]:
    """128 bits of the product: the fraction may begin with 61 zeros."""
    added = _high_word(mantissa, words[2])
    low = mantissa * words[1] + added
    carry = (low < added).cast(u64)
    high = mantissa * words[0] + _high_word(mantissa, words[1]) + carry
    quadrant, fraction = _cut(high)
    exact = (fraction & ~0x3FF).cast(f64)
    below = (low >> 11).bitcast(i64).cast(f64) * 2.0**-53
    below = (fraction & 0x3FF).cast(f64) + below
    total = exact + below
    error = (exact - total) + below
    scale, scale_low = (part * 2.0**-POINT for part in HALF_PI[f64])
    rest = total * scale
    tail = total.fma(scale, -rest) + total.fma(scale_low, error * scale)
    return quadrant, rest, tail


def _cut(product: Term) -> tuple[Term, Term]:
    """The nearest whole number of quarters, and the signed rest, in 2^-62."""
    quadrant = (product + (1 << (POINT - 1))) >> POINT
    return quadrant, (product - (quadrant << POINT)).bitcast(i64)


def _high_word(x: Term, y: Term) -> Term:
    """The upper 64 of the 128 bits of a product."""
    (a, b), (c, d) = ((v >> 32, v & 0xFFFFFFFF) for v in (x, y))
    low, inner, outer = b * d, a * d, b * c
    middle = (low >> 32) + (inner & 0xFFFFFFFF) + (outer & 0xFFFFFFFF)
    return a * c + (inner >> 32) + (outer >> 32) + (middle >> 32)
