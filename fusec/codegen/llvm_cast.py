"""Changes of element type, as torch converts on a CPU.

f16 and bf16 are held as bits. bf16 is the upper half of an f32, so widening is a shift
and narrowing an integer addition that rounds; AVX512-BF16 has an instruction, but it
flushes subnormals. f16 has instructions from F16C on, and bit tricks below that
(F. Giesen, 2012: half_to_float_fast5, float_to_half_fast3_rtne). From f64 and from
wide integers they go through f32, rounding twice, as torch does.
"""

from __future__ import annotations

from fusec.codegen.llvm_lanes import Lanes, element, literal
from fusec.ir.dtypes import DType, bf16, f16, f32, f64, u32, u64

HALVES = (f16, bf16)


def castable(dtype: DType) -> bool:
    """Whether `cast` converts from and to this type."""
    if dtype.is_int:
        return dtype.bits in (8, 16, 32, 64)
    return dtype.is_bool or dtype in (f16, bf16, f32, f64)


def cast(v: Lanes, source: DType, target: DType, x: str) -> str:
    """The number `x` of type `source` in another type."""
    if source is target:
        return x
    if target.is_bool:
        return _to_bool(v, source, x)
    if source in HALVES:
        return cast(v, f32, target, _widen(v, source, x))
    if target in HALVES:
        return _narrow(v, target, cast(v, source, f32, x))
    if source.is_float and target.is_float:
        opcode = "fptrunc" if source.bits > target.bits else "fpext"
        return v.cast(opcode, element(source), x, element(target))
    if target.is_float:
        opcode = "sitofp" if source.is_signed else "uitofp"
        return v.cast(opcode, element(source), x, element(target))
    if source.is_float:
        return _float_to_int(v, source, target, x)
    return _resize(v, source, target, x)


def bitcast(v: Lanes, source: DType, target: DType, x: str) -> str:
    """The bits of `x` as another type of the same width."""
    if source.is_bool and not target.is_bool:
        return v.cast("zext", "i1", x, element(target))
    if target.is_bool and not source.is_bool:
        return v.test("icmp ne", element(source), x, v.zero(source))
    return v.cast("bitcast", element(source), x, element(target))


def _to_bool(v: Lanes, source: DType, x: str) -> str:
    if source in HALVES:  # neither +0 nor -0
        size = v.op("and", "i16", x, v.constant("i16", 0x7FFF))
        return v.test("icmp ne", "i16", size, v.constant("i16", 0))
    predicate = "fcmp une" if source.is_float else "icmp ne"
    return v.test(predicate, element(source), x, v.zero(source))


def _resize(v: Lanes, source: DType, target: DType, x: str) -> str:
    """Between integers, or from bool. Wraps."""
    old, new = element(source), element(target)
    if source.is_bool or source.bits < target.bits:
        opcode = "sext" if source.is_int and source.is_signed else "zext"
        return v.cast(opcode, old, x, new)
    return v.cast("trunc", old, x, new)


def _float_to_int(v: Lanes, source: DType, target: DType, x: str) -> str:
    """Toward zero. What does not fit is unspecified; `freeze` keeps it harmless.

    Narrow and unsigned integers come from the low bits of a wider signed one, so that
    numbers just out of range wrap as they do in torch.
    """
    width = 64 if target.bits == 64 or target is u32 else 32
    opcode = "fptoui" if target is u64 else "fptosi"
    raw = v.cast(opcode, element(source), x, f"i{width}")
    frozen = v.op("freeze", f"i{width}", raw)
    return v.cast("trunc", f"i{width}", frozen, element(target))


def _widen(v: Lanes, source: DType, x: str) -> str:
    """The f32 of an f16 or a bf16, exactly."""
    if source is bf16:
        rounded = v.writer.widened.get(x)
        if rounded is not None:
            return v.cleaned(v.cast("bitcast", "i32", rounded, "float"))
        wide = v.cast("zext", "i16", x, "i32")
        bits = v.op("shl", "i32", wide, v.constant("i32", 16))
        return v.cleaned(v.cast("bitcast", "i32", bits, "float"))
    if v.target.has("f16c"):
        return v.cast("fpext", "half", v.cast("bitcast", "i16", x, "half"), "float")
    return _widen_f16_bits(v, x)


def _narrow(v: Lanes, target: DType, x: str) -> str:
    """The nearest f16 or bf16 of an f32, ties to even."""
    if target is bf16:
        return _narrow_bf16(v, x)
    if v.target.has("f16c"):
        return v.cast("bitcast", "half", v.cast("fptrunc", "float", x, "half"), "i16")
    return _narrow_f16_bits(v, x)


def _narrow_bf16(v: Lanes, x: str) -> str:
    """Add half a unit, less one where the last bit is even. A NaN becomes torch's, but
    a clean one stays as it is: what is added carries nothing into its upper half.

    Whoever widens the result again gets the bits as they are before they are packed.
    """
    bits = v.cast("bitcast", "float", x, "i32")
    upper = v.op("lshr", "i32", bits, v.constant("i32", 16))
    odd = v.op("and", "i32", upper, v.constant("i32", 1))
    half = v.op("add", "i32", odd, v.constant("i32", 0x7FFF))
    rounded = v.op("add", "i32", bits, half)
    if x not in v.writer.clean:
        nan = v.test("fcmp uno", "float", x, v.zero(f32))
        rounded = v.select("i32", nan, v.constant("i32", 0x7FC0 << 16), rounded)
    rounded = v.op("and", "i32", rounded, v.constant("i32", -1 << 16))
    upper = v.op("lshr", "i32", rounded, v.constant("i32", 16))
    result = v.cast("trunc", "i32", upper, "i16")
    v.writer.widened[result] = rounded
    return result


def _widen_f16_bits(v: Lanes, x: str) -> str:
    """Move the fields; then inf and NaN get f32's exponent, subnormals are normalised
    by a subtraction of floats."""
    wide = v.cast("zext", "i16", x, "i32")
    sign = v.op("shl", "i32", wide, v.constant("i32", 16))
    sign = v.op("and", "i32", sign, v.constant("i32", -(1 << 31)))
    size = v.op("and", "i32", wide, v.constant("i32", 0x7FFF))
    moved = v.op("shl", "i32", size, v.constant("i32", 13))
    normal = v.op("add", "i32", moved, v.constant("i32", 112 << 23))
    special = v.op("add", "i32", moved, v.constant("i32", 224 << 23))
    shifted = v.op("add", "i32", moved, v.constant("i32", 113 << 23))
    shifted = v.cast("bitcast", "i32", shifted, "float")
    least = v.constant("float", literal(f32, 2.0**-14))
    subnormal = v.op("fsub", "float", shifted, least)
    subnormal = v.cast("bitcast", "float", subnormal, "i32")
    is_small = v.test("icmp ult", "i32", size, v.constant("i32", 0x400))
    is_special = v.test("icmp uge", "i32", size, v.constant("i32", 0x7C00))
    bits = v.select("i32", is_small, subnormal, normal)
    bits = v.select("i32", is_special, special, bits)
    return v.cast("bitcast", "i32", v.op("or", "i32", bits, sign), "float")


def _narrow_f16_bits(v: Lanes, x: str) -> str:
    """Round by adding to the bits; subnormals by adding 0.5, whose last place is
    f16's."""
    bits = v.cast("bitcast", "float", x, "i32")
    size = v.op("and", "i32", bits, v.constant("i32", 0x7FFFFFFF))
    sign = v.op("xor", "i32", bits, size)
    sign = v.op("lshr", "i32", sign, v.constant("i32", 16))
    odd = v.op("lshr", "i32", size, v.constant("i32", 13))
    odd = v.op("and", "i32", odd, v.constant("i32", 1))
    normal = v.op("add", "i32", size, v.constant("i32", 0xFFF - (112 << 23)))
    normal = v.op("lshr", "i32", v.op("add", "i32", normal, odd), v.constant("i32", 13))
    half = v.constant("float", literal(f32, 0.5))
    shifted = v.op("fadd", "float", v.cast("bitcast", "i32", size, "float"), half)
    small = v.cast("bitcast", "float", shifted, "i32")
    small = v.op("sub", "i32", small, v.constant("i32", 126 << 23))
    nan = v.test("icmp ugt", "i32", size, v.constant("i32", 0x7F800000))
    special = v.select("i32", nan, v.constant("i32", 0x7E00), v.constant("i32", 0x7C00))
    is_small = v.test("icmp ult", "i32", size, v.constant("i32", 113 << 23))
    is_large = v.test("icmp uge", "i32", size, v.constant("i32", 143 << 23))
    result = v.select("i32", is_small, small, normal)
    result = v.select("i32", is_large, special, result)
    return v.cast("trunc", "i32", v.op("or", "i32", result, sign), "i16")
