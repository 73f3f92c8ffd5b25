"""How each elementwise op is spelled in LLVM: the table that `supports` reads.

    (Add, FLOAT)   ->  fadd          (Maximum, SIGNED)  ->  llvm.smax
    (Select, HALF) ->  select        (Exp, FLOAT)       ->  no row: Exp expands

A row takes its operands as registers of one dtype and gives a register. Nothing is
contracted or reordered: no instruction carries a fast-math flag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fusec.codegen.families import (
    BITS,
    BOOL,
    EVERY,
    FLOAT,
    HALF,
    INTEGERS,
    SIGNED,
    UNSIGNED,
    Family,
    family,
)
from fusec.codegen.llvm_cast import bitcast, cast, castable
from fusec.codegen.llvm_lanes import Lanes, element
from fusec.codegen.llvm_math import (
    ceil,
    floor,
    fma,
    ldexp,
    round_even,
    trunc,
    trunc_div,
)
from fusec.errors import InternalError
from fusec.ir.core import Block, Op, Value
from fusec.ir.dtypes import DType
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.cast import Bitcast, Cast
from fusec.ir.ops.constant import Const
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.rare import Rare
from fusec.target import Target

Row = Callable[..., str]
"""`row(lanes, dtype, *operands)`: the result, in a register."""


def supports(op_class: Any, dtype: DType, target: Target) -> bool:
    """Whether the op has a row for operands of this dtype.

    Rows do in several instructions what a target has no instruction for. `Ldexp`
    expands as well as that, so it has a row only where it is one instruction.
    """
    if op_class is Cast:
        return castable(dtype)
    if op_class is Rare:
        return family(dtype) not in (None, BOOL)
    if op_class is ew.Ldexp and not target.has("avx512dq"):
        return False
    return (op_class, family(dtype)) in ROWS


def spelling(op: Op, dtypes: tuple[DType, ...]) -> Callable[..., str]:
    """What emits an op: `spelling(…)(lanes, *operands)`.

    `dtypes` are those of the operands, the result's last. Raises `InternalError` where
    there is no row.
    """
    if isinstance(op, (Cast, Bitcast)):
        change = cast if isinstance(op, Cast) else bitcast

        def converted(v: Lanes, x: str) -> str:
            return change(v, dtypes[0], dtypes[-1], x)

        return converted
    if isinstance(op, Rare):

        def chosen(v: Lanes, condition: str, usual: str, *xs: str) -> str:
            (far,) = computed(v, op.body, xs)
            return select(v, dtypes[-1], condition, far, usual)

        return chosen
    dtype = dtypes[1] if isinstance(op, ew.Select) else dtypes[0]
    kind: type[Op] = type(op)
    row = ROWS.get((kind, family(dtype)))
    if row is None:
        raise InternalError(
            f"the LLVM backend has no row for {kind.name} of {dtype.name}", op.loc
        )

    def spelled(v: Lanes, *xs: str) -> str:
        return row(v, dtype, *xs)

    return spelled


def computed(v: Lanes, block: Block, xs: Iterable[str]) -> tuple[str, ...]:
    """What a block of elementwise ops on scalars yields, in every lane."""
    held: dict[Value, str] = dict(zip(block.params, xs, strict=True))
    for op in block.ops:
        if isinstance(op, Const):
            held[op.result] = v.number(op.dtype, op.value)
            continue
        dtypes = tuple(dtype_of(x) for x in (*op.operands, op.result))
        held[op.result] = spelling(op, dtypes)(v, *(held[x] for x in op.operands))
    return tuple(held[x] for x in block.yields)


# ------------------------------------------------------------------- kinds of rows


def opcode(name: str) -> Row:
    def emit(v: Lanes, dtype: DType, *xs: str) -> str:
        return v.op(name, element(dtype), *xs)

    return emit


def intrinsic(name: str) -> Row:
    def emit(v: Lanes, dtype: DType, *xs: str) -> str:
        return v.call(name, element(dtype), *xs)

    return emit


def select(v: Lanes, dtype: DType, condition: str, x: str, y: str) -> str:
    return v.select(element(dtype), condition, x, y)


# ---------------------------------------------------------------- single ops


def negate(v: Lanes, dtype: DType, x: str) -> str:
    return v.op("sub", element(dtype), v.zero(dtype), x)


def integer_abs(v: Lanes, dtype: DType, x: str) -> str:
    return v.call("smax", element(dtype), x, negate(v, dtype, x))


def invert(v: Lanes, dtype: DType, x: str) -> str:
    return v.op("xor", element(dtype), x, v.constant(element(dtype), _ones(dtype)))


def unchanged(v: Lanes, dtype: DType, x: str) -> str:
    return x


def extreme(predicate: str) -> Row:
    """The operand that wins the comparison, or the one that is NaN.

    Compare and select become one instruction, which gives the second operand where
    either is NaN; a second select repairs a NaN in the first. `llvm.maximum` orders
    zeros too and takes twice as many.
    """

    def emit(v: Lanes, dtype: DType, x: str, y: str) -> str:
        type_ = element(dtype)
        better = v.select(type_, v.test(predicate, type_, x, y), x, y)
        return v.select(type_, v.test("fcmp uno", type_, x, x), x, better)

    return emit


def half_bits(name: str, mask: int) -> Row:
    def emit(v: Lanes, dtype: DType, x: str) -> str:
        return v.op(name, "i16", x, v.constant("i16", mask))

    return emit


def shift(name: str) -> Row:
    """0 where the distance is not below the width."""

    def emit(v: Lanes, dtype: DType, x: str, y: str) -> str:
        type_ = element(dtype)
        if _is_distance(v, dtype, y):
            return v.op(name, type_, x, y)
        inside = v.test("icmp ult", type_, y, v.constant(type_, dtype.bits))
        distance = v.select(type_, inside, y, v.zero(dtype))
        shifted = v.op(name, type_, x, distance)
        return v.select(type_, inside, shifted, v.zero(dtype))

    return emit


def shift_signed(v: Lanes, dtype: DType, x: str, y: str) -> str:
    """Signs all over where the distance is not below the width."""
    type_ = element(dtype)
    if not _is_distance(v, dtype, y):
        y = v.call("umin", type_, y, v.constant(type_, dtype.bits - 1))
    return v.op("ashr", type_, x, y)


def _is_distance(v: Lanes, dtype: DType, y: str) -> bool:
    known = v.known(y)
    return known is not None and 0 <= known < dtype.bits


def _ones(dtype: DType) -> str:
    return "true" if dtype.is_bool else "-1"


# ------------------------------------------------------------------- the table


def _comparison(name: str, ordered: bool = True) -> dict[Family, Row]:
    """`eq` and `ne` are the same for signed and unsigned."""
    signed, unsigned = (f"s{name}", f"u{name}") if ordered else (name, name)
    floats = "une" if name == "ne" else f"o{name}"
    return {
        FLOAT: opcode(f"fcmp {floats}"),
        SIGNED: opcode(f"icmp {signed}"),
        UNSIGNED: opcode(f"icmp {unsigned}"),
        BOOL: opcode(f"icmp {unsigned}"),
    }


def _extremes(name: str, floats: Row, of_bools: str) -> dict[Family, Row]:
    return {
        FLOAT: floats,
        SIGNED: intrinsic(f"s{name}"),
        UNSIGNED: intrinsic(f"u{name}"),
        BOOL: opcode(of_bools),
    }


def _arithmetic(name: str) -> dict[Family, Row]:
    return {FLOAT: opcode(f"f{name}"), **dict.fromkeys(INTEGERS, opcode(name))}


_TABLE: dict[Any, dict[Family, Row]] = {
    ew.Add: _arithmetic("add"),
    ew.Sub: _arithmetic("sub"),
    ew.Mul: _arithmetic("mul"),
    ew.Div: {FLOAT: opcode("fdiv")},
    ew.Fma: {FLOAT: fma},
    ew.TruncDiv: dict.fromkeys(INTEGERS, trunc_div),
    ew.Fmod: {FLOAT: opcode("frem")},
    ew.Neg: {
        FLOAT: opcode("fneg"),
        HALF: half_bits("xor", -0x8000),
        **dict.fromkeys(INTEGERS, negate),
    },
    ew.Abs: {
        FLOAT: intrinsic("fabs"),
        HALF: half_bits("and", 0x7FFF),
        SIGNED: integer_abs,
        UNSIGNED: unchanged,
    },
    ew.Sqrt: {FLOAT: intrinsic("sqrt")},
    ew.Floor: {FLOAT: floor},
    ew.Ceil: {FLOAT: ceil},
    ew.Trunc: {FLOAT: trunc},
    ew.Round: {FLOAT: round_even},
    ew.Copysign: {FLOAT: intrinsic("copysign")},
    ew.Ldexp: {FLOAT: ldexp},
    ew.Maximum: _extremes("max", extreme("fcmp ogt"), "or"),
    ew.Minimum: _extremes("min", extreme("fcmp olt"), "and"),
    ew.Eq: _comparison("eq", ordered=False),
    ew.Ne: _comparison("ne", ordered=False),
    ew.Lt: _comparison("lt"),
    ew.Le: _comparison("le"),
    ew.Gt: _comparison("gt"),
    ew.Ge: _comparison("ge"),
    ew.Select: dict.fromkeys(EVERY, select),
    ew.And: dict.fromkeys(BITS, opcode("and")),
    ew.Or: dict.fromkeys(BITS, opcode("or")),
    ew.Xor: dict.fromkeys(BITS, opcode("xor")),
    ew.Not: dict.fromkeys(BITS, invert),
    ew.Shl: dict.fromkeys(INTEGERS, shift("shl")),
    ew.Shr: {SIGNED: shift_signed, UNSIGNED: shift("lshr")},
    Bitcast: dict.fromkeys(EVERY, bitcast),
}

ROWS: dict[tuple[Any, Family | None], Row] = {
    (op, group): emit for op, rows in _TABLE.items() for group, emit in rows.items()
}
