"""How each elementwise op is spelled in Triton: the table that `supports` reads.

    (Add, FLOAT)   ->  x + y         (Maximum, FLOAT) ->  tl.where(x != x, …)
    (Div, f32)     ->  tl.div_rn     (Exp, f64)       ->  no row: Exp expands

A row takes its operands as expressions that need no parentheses, and gives one. What
is not exact on every device has no row, but the expansion that a CPU computes too. The
exceptions are eˣ and log x of f32. The devices' own libraries compute them in 8 and 24
instructions on sm_90 instead of 19 and 63, as accurately as the vendor made them. The
instructions alone do worse: ex2.approx is off by 2^-22, up to 4 ulps; lg2.approx has
no bound of ulps near 1. Of most other functions of the libraries Triton has versions
that flush subnormals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fusec.codegen.families import (
    BITS,
    BOOL,
    CODE,
    EVERY,
    FLOAT,
    HALF,
    INTEGERS,
    SIGNED,
    UNSIGNED,
    Family,
    family,
)
from fusec.errors import InternalError
from fusec.ir.core import Op
from fusec.ir.dtypes import DType, bf16, f16, f32, f64, u32
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.cast import Bitcast, Cast
from fusec.target import Target

Row = Callable[..., str]
"""`row(dtype, *operands)`: the result, as an expression."""

HALVES = (f16, bf16)


def supports(op_class: Any, dtype: DType, target: Target) -> bool:
    """Whether the op has a row for operands of this dtype."""
    if op_class is Cast:
        return is_number(dtype)
    if op_class in _LIBRARY and dtype is f32:
        return True
    found = family(dtype)
    return found is not None and found in _TABLE.get(op_class, {})


def is_number(dtype: DType) -> bool:
    """Whether Triton computes with this type, and not just with its bits."""
    return family(dtype) not in (None, CODE)


def spelled(op: Op, dtypes: tuple[DType, ...], *xs: str) -> str:
    """An elementwise op as an expression; `dtypes` are those of the operands, the
    result's last. Raises `InternalError` where there is no row."""
    if isinstance(op, Cast):
        return cast(dtypes[0], dtypes[-1], xs[0])
    if isinstance(op, Bitcast):
        return bitcast(dtypes[0], dtypes[-1], xs[0])
    dtype = dtypes[1] if isinstance(op, ew.Select) else dtypes[0]
    kind: type[Op] = type(op)
    if kind in _LIBRARY and dtype is f32:
        return f"{_LIBRARY[kind]}({xs[0]})"
    found = family(dtype)
    row = _TABLE.get(kind, {}).get(found) if found else None
    if row is None:
        what = f"{kind.name} of {dtype.name}"
        raise InternalError(f"the Triton backend has no row for {what}", op.loc)
    return row(dtype, *xs)


def named(dtype: DType) -> str:
    """The type of Triton that holds a dtype: of what it cannot compute, the bits."""
    if dtype.is_bool:
        return "tl.int1"
    if family(dtype) in (FLOAT, HALF):
        return "tl.bfloat16" if dtype is bf16 else f"tl.float{dtype.bits}"
    if family(dtype) is None:
        raise InternalError(f"Triton has no type for elements of {dtype.name}")
    signed = dtype.is_int and dtype.is_signed
    return f"tl.{'' if signed else 'u'}int{dtype.bits}"


# Casts.


def cast(source: DType, target: DType, x: str) -> str:
    """The number x of one type in another, as torch converts."""
    if source is target:
        return x
    if target.is_bool:
        return f"({x} != 0)"
    if target in HALVES and source is not f32:
        return cast(f32, target, cast(source, f32, x))
    if source in HALVES and target is not f32:
        return cast(f32, target, cast(source, f32, x))
    if source.is_float and target.is_int and target.bits < 64:
        # Narrow integers are the low bits of a wider signed one, as in torch.
        wide = "tl.int64" if target is u32 else "tl.int32"
        x = f"{x}.to({wide})"
    return f"{x}.to({named(target)})"


def bitcast(source: DType, target: DType, x: str) -> str:
    """The bits of x as another type of the same width."""
    if source is target:
        return x
    if source.is_bool or target.is_bool:
        return cast(source, target, x)
    return f"{x}.to({named(target)}, bitcast=True)"


# Single ops.


def _of(text: str) -> Row:
    """A row that is the same for every dtype: `{0} + {1}`."""

    def row(dtype: DType, *xs: str) -> str:
        return f"({text.format(*xs)})"

    return row


def _call(name: str) -> Row:
    def row(dtype: DType, *xs: str) -> str:
        return f"{name}({', '.join(xs)})"

    return row


def _rounded(exact: str, plain: str) -> Row:
    """What Triton approximates in f32 unless it is asked not to."""

    def row(dtype: DType, *xs: str) -> str:
        return (exact if dtype is f32 else plain).format(*xs)

    return row


def _extreme(comparison: str) -> Row:
    """The operand that wins, or the one that is NaN."""

    def row(dtype: DType, x: str, y: str) -> str:
        better = f"tl.where({x} {comparison} {y}, {x}, {y})"
        return f"tl.where({x} != {x}, {x}, {better})"

    return row


def _half_bits(change: str) -> Row:
    """What only the sign bit of a half takes part in."""

    def row(dtype: DType, x: str) -> str:
        bits = f"({x}.to(tl.int16, bitcast=True) {change})"
        return f"{bits}.to({named(dtype)}, bitcast=True)"

    return row


def _with_sign_of(dtype: DType, size: str, x: str) -> str:
    """A float that is no less than 0, with the sign of x, also of -0.0."""
    whole = f"tl.int{dtype.bits}"
    sign = f"{x}.to({whole}, bitcast=True) & -{1 << (dtype.bits - 1)}"
    bits = f"({size}.to({whole}, bitcast=True) | ({sign}))"
    return f"{bits}.to({named(dtype)}, bitcast=True)"


def _trunc(dtype: DType, x: str) -> str:
    return _with_sign_of(dtype, f"tl.floor(tl.abs({x}))", x)


def _round_even(dtype: DType, x: str) -> str:
    """To whole numbers, as floats are that are so large that they have no others."""
    whole = 2.0 ** {f32: 23, f64: 52}[dtype]
    size = f"tl.abs({x})"
    rounded = f"({size} + {whole}) - {whole}"
    return _with_sign_of(dtype, f"tl.where({size} < {whole}, {rounded}, {size})", x)


def _shift(symbol: str) -> Row:
    """0 where the distance is not below the width."""

    def row(dtype: DType, x: str, y: str) -> str:
        if y.isdecimal() and int(y) < dtype.bits:
            return f"({x} {symbol} {y})"
        inside = f"({y} >= 0) & ({y} < {dtype.bits})"
        distance = f"tl.where({inside}, {y}, 0).to({named(dtype)})"
        return f"tl.where({inside}, {x} {symbol} {distance}, 0).to({named(dtype)})"

    return row


def _shift_signed(dtype: DType, x: str, y: str) -> str:
    """Signs all over where the distance is not below the width."""
    type_, most = named(dtype), dtype.bits - 1
    if y.isdecimal():
        return f"({x} >> {min(int(y), most)})"
    inside = f"({y} >= 0) & ({y} < {dtype.bits})"
    return f"({x} >> tl.where({inside}, {y}, {most}).to({type_}))"


def _trunc_div(dtype: DType, x: str, y: str) -> str:
    """Toward zero; 0 where y is 0, and the least over -1 wraps."""
    type_ = named(dtype)
    if y.isdecimal() and y != "0":
        return f"({x} // {y})"
    if not dtype.is_signed:
        divisor = f"tl.where({y} == 0, 1, {y}).to({type_})"
        return f"tl.where({y} == 0, 0, {x} // {divisor}).to({type_})"
    divisor = f"tl.where(({y} == 0) | ({y} == -1), 1, {y}).to({type_})"
    quotient = f"tl.where({y} == -1, 0 - {x}, {x} // {divisor})"
    return f"tl.where({y} == 0, 0, {quotient}).to({type_})"


def _trunc_mod(dtype: DType, x: str, y: str) -> str:
    """What is left of x, with its sign: all of it where y is 0."""
    type_ = named(dtype)
    if y.isdecimal() and y != "0":
        return f"({x} % {y})"
    whole = f"({y} == 0) | ({y} == -1)" if dtype.is_signed else f"{y} == 0"
    rest = f"{x} % tl.where({whole}, 1, {y}).to({type_})"
    return f"tl.where({y} == 0, {x}, {rest}).to({type_})"


def _fmod(dtype: DType, x: str, y: str) -> str:
    """What is left of x, with its sign. Triton subtracts so many times y as the rounded
    quotient says, which f64 tells exactly of f32, up to quotients of 2⁵³."""
    if dtype is f64:
        return f"({x} % {y})"
    # Either may be a number, which has no methods.
    return f"(tl.cast({x}, tl.float64) % tl.cast({y}, tl.float64)).to(tl.float32)"


def _comparison(symbol: str, of_bools: str) -> dict[Family, Row]:
    rows = dict.fromkeys((FLOAT, SIGNED, UNSIGNED), _of(f"{{0}} {symbol} {{1}}"))
    return {**rows, BOOL: _of(of_bools)}


def _arithmetic(symbol: str) -> dict[Family, Row]:
    return dict.fromkeys((FLOAT, *INTEGERS), _of(f"{{0}} {symbol} {{1}}"))


def _extremes(comparison: str, of_bools: str) -> dict[Family, Row]:
    plain = _of(f"tl.where({{0}} {comparison} {{1}}, {{0}}, {{1}})")
    rows = dict.fromkeys(INTEGERS, plain)
    return {FLOAT: _extreme(comparison), **rows, BOOL: _of(of_bools)}


def _bitwise(symbol: str) -> dict[Family, Row]:
    return dict.fromkeys(BITS, _of(f"{{0}} {symbol} {{1}}"))


_NEGATED = _of("{0} * -1.0")  # 0 - x would lose the sign of 0

_LIBRARY: dict[Any, str] = {ew.Exp: "libdevice.exp", ew.Log: "libdevice.log"}
"""What the device's library computes, of f32."""

_TABLE: dict[Any, dict[Family, Row]] = {
    ew.Add: _arithmetic("+"),
    ew.Sub: _arithmetic("-"),
    ew.Mul: _arithmetic("*"),
    ew.Div: {FLOAT: _rounded("tl.div_rn({0}, {1})", "({0} / {1})")},
    ew.Fma: {FLOAT: _call("tl.fma")},
    ew.TruncDiv: dict.fromkeys(INTEGERS, _trunc_div),
    ew.Fmod: {FLOAT: _fmod, **dict.fromkeys(INTEGERS, _trunc_mod)},
    ew.Neg: {
        FLOAT: _NEGATED,
        HALF: _half_bits("^ -0x8000"),
        **dict.fromkeys(INTEGERS, _of("0 - {0}")),
    },
    ew.Abs: {
        FLOAT: _call("tl.abs"),
        HALF: _half_bits("& 0x7FFF"),
        SIGNED: _of("tl.where({0} < 0, 0 - {0}, {0})"),
        UNSIGNED: _of("{0}"),
    },
    ew.Sqrt: {FLOAT: _rounded("tl.sqrt_rn({0})", "tl.sqrt({0})")},
    ew.Floor: {FLOAT: _call("tl.floor")},
    ew.Ceil: {FLOAT: _call("tl.ceil")},
    ew.Trunc: {FLOAT: _trunc},
    ew.Round: {FLOAT: _round_even},
    ew.Maximum: _extremes(">", "{0} | {1}"),
    ew.Minimum: _extremes("<", "{0} & {1}"),
    ew.Eq: _comparison("==", "{0} == {1}"),
    ew.Ne: _comparison("!=", "{0} != {1}"),
    ew.Lt: _comparison("<", "({0} == 0) & {1}"),
    ew.Le: _comparison("<=", "({0} == 0) | {1}"),
    ew.Gt: _comparison(">", "{0} & ({1} == 0)"),
    ew.Ge: _comparison(">=", "{0} | ({1} == 0)"),
    ew.Select: dict.fromkeys(EVERY, _call("tl.where")),
    ew.And: _bitwise("&"),
    ew.Or: _bitwise("|"),
    ew.Xor: _bitwise("^"),
    ew.Not: {**dict.fromkeys(INTEGERS, _of("~{0}")), BOOL: _of("{0} == 0")},
    ew.Shl: dict.fromkeys(INTEGERS, _shift("<<")),
    ew.Shr: {SIGNED: _shift_signed, UNSIGNED: _shift(">>")},
    Bitcast: dict.fromkeys(EVERY, _of("{0}")),
}
