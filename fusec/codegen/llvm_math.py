"""Arithmetic that some or all x86 CPUs lack, in several instructions.

What LLVM would turn into one call of libm for each lane (rounding before SSE4.1, fused
multiply-add before FMA) is written out, since expansions of elementary functions are
made of these. No vector unit divides integers: floats that are wide enough do, and for
64-bit integers the scalar divider.
"""

from __future__ import annotations

from fusec.codegen.llvm_lanes import Lanes, element
from fusec.ir.dtypes import DType, f32, f64


def round_even(v: Lanes, dtype: DType, x: str) -> str:
    """To the nearest whole number, halves to even."""
    if v.target.has("sse4.1"):
        return v.call("rint", element(dtype), x)
    return _round_even(v, dtype, x)


def floor(v: Lanes, dtype: DType, x: str) -> str:
    if v.target.has("sse4.1"):
        return v.call("floor", element(dtype), x)
    return _corrected(v, dtype, x, "fcmp ogt", -1.0)


def ceil(v: Lanes, dtype: DType, x: str) -> str:
    if v.target.has("sse4.1"):
        return v.call("ceil", element(dtype), x)
    return _corrected(v, dtype, x, "fcmp olt", 1.0)


def trunc(v: Lanes, dtype: DType, x: str) -> str:
    if v.target.has("sse4.1"):
        return v.call("trunc", element(dtype), x)
    size = v.call("fabs", element(dtype), x)
    down = _corrected(v, dtype, size, "fcmp ogt", -1.0)
    return v.call("copysign", element(dtype), down, x)


def _round_even(v: Lanes, dtype: DType, x: str) -> str:
    """Adding 2^mantissa pushes the fraction out of the significand, rounding it."""
    type_, big = element(dtype), 2.0**dtype.mantissa_bits
    size = v.call("fabs", type_, x)
    whole = v.op("fadd", type_, size, v.number(dtype, big))
    whole = v.op("fsub", type_, whole, v.number(dtype, big))
    whole = v.call("copysign", type_, whole, x)
    fractional = v.test("fcmp olt", type_, size, v.number(dtype, big))
    return v.select(type_, fractional, whole, x)


def _corrected(v: Lanes, dtype: DType, x: str, wrong: str, step: float) -> str:
    """The nearest whole number, moved by `step` where it compares `wrong` with x."""
    type_ = element(dtype)
    near = _round_even(v, dtype, x)
    moved = v.op("fadd", type_, near, v.number(dtype, step))
    chosen = v.select(type_, v.test(wrong, type_, near, x), moved, near)
    return v.call("copysign", type_, chosen, x)


def fma(v: Lanes, dtype: DType, x: str, y: str, z: str) -> str:
    """x·y + z. Without FMA, f32 goes through f64, where the product is exact: two
    roundings, apart from the true result in one case of about 2^29. f64 calls libm.
    """
    if v.target.has("fma") or dtype is f64:
        return v.call("fma", element(dtype), x, y, z)
    x, y, z = (v.cast("fpext", "float", a, "double") for a in (x, y, z))
    total = v.op("fadd", "double", v.op("fmul", "double", x, y), z)
    return v.cast("fptrunc", "double", total, "float")


def ldexp(v: Lanes, dtype: DType, x: str, n: str) -> str:
    """x · 2^n, rounded once: an instruction of AVX-512; `n` is as wide as x."""
    bits, type_, i32 = f"i{dtype.bits}", element(dtype), v.type("i32")
    clamped = v.call("smax", bits, n, v.constant(bits, -5000))
    clamped = v.call("smin", bits, clamped, v.constant(bits, 5000))
    power = v.cast("trunc", bits, clamped, "i32")
    name = f"@llvm.ldexp.{v.mangled(type_)}.{v.mangled('i32')}"
    v.writer.declare(f"{v.type(type_)} {name}({v.type(type_)}, {i32})")
    return v.write(f"call {v.type(type_)} {name}({v.type(type_)} {x}, {i32} {power})")


def trunc_div(v: Lanes, dtype: DType, x: str, y: str) -> str:
    """x / y of integers, toward zero; 0 where y is 0, and the least over -1 wraps.

    Neither may reach a divider, which would trap, even in a lane without element.
    """
    type_, zero, one = element(dtype), v.zero(dtype), v.number(dtype, 1)
    if v.known(y) not in (None, 0, -1):
        return v.op("sdiv" if dtype.is_signed else "udiv", type_, x, y)
    void = v.test("icmp eq", type_, y, zero)
    divisor = v.select(type_, void, one, y)
    if not dtype.is_signed:
        return v.select(type_, void, zero, _divide(v, dtype, x, divisor))
    minus = v.test("icmp eq", type_, y, v.number(dtype, -1))
    divisor = v.select(type_, minus, one, divisor)
    quotient = _divide(v, dtype, x, divisor)
    quotient = v.select(type_, minus, v.op("sub", type_, zero, x), quotient)
    return v.select(type_, void, zero, quotient)


def _divide(v: Lanes, dtype: DType, x: str, y: str) -> str:
    """x / y toward zero, for divisors other than 0 and -1.

    Up to 32 bits in floats: a quotient of n-bit integers is at least 2^-n away from
    the next whole number, relative to its size, and the float's last place is finer.
    """
    sign = "s" if dtype.is_signed else "u"
    type_ = element(dtype)
    if dtype.bits == 64 or v.count == 1:
        return v.op(f"{sign}div", type_, x, y)
    wide = element(f32 if dtype.bits <= 16 else f64)
    x, y = (v.cast(f"{sign}itofp", type_, z, wide) for z in (x, y))
    return v.cast(f"fpto{sign}i", wide, v.op("fdiv", wide, x, y), type_)
