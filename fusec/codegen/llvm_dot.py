"""Products onto sums: the innermost step of a matrix product, in registers.

    %t = dot_tile %s, %x, %y      %s: tile[6, 1, 16], 6 rows of 2 registers of 8 lanes
                                  %x: tile[6, 4, 1], elements; %y: tile[1, 4, 16]

    for each of 4 places summed over, each row and register:
        s = fma(x in every lane, y, s)

The layouts say which register meets which: one operand has its elements in the lanes
that the sum has them in, or in no lane at all, and is then in every one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product

from fusec.analysis.instructions import DotInstruction, instructions
from fusec.codegen.llvm_kernel import Kernel, Register, dtype_of, hint_of
from fusec.codegen.llvm_lanes import Lanes, element
from fusec.codegen.llvm_math import fma
from fusec.codegen.llvm_places import Coords, layout_of
from fusec.errors import InternalError
from fusec.ir.core import Value
from fusec.ir.dtypes import DType
from fusec.ir.layout import NotRepresentable
from fusec.ir.ops.contraction import DotTile

ZEROS = ("0", "0x0000000000000000", "zeroinitializer")
_ZERO_SPLAT = re.compile(r"splat \(\w+ (0|0x0000000000000000)\)")

Add = Callable[[str, str, str], str]
"""Adds the products of two registers to a third."""


def dot_tiles(k: Kernel, ops: Sequence[DotTile]) -> None:
    """Add the products of ops that share a factor, register by register, place after
    place: so that an element of it is in every lane of one register at a time."""
    running = [_Sum(k, op) for op in ops]
    for step in _steps(k, ops[0]):
        for register in range(len(running[0].sums)):
            for each in running:
                each.add(register, step)
    for each in running:
        k.define(each.op.result, each.sums)


def may_join(ops: Sequence[DotTile], op: DotTile) -> bool:
    """Whether an op can be computed along with others."""
    if not ops:
        return True
    first = ops[0]
    alike = op.x is first.x and op.state.type == first.state.type
    apart = not any(op.state is each.result for each in ops)
    return alike and apart and op.y.type == first.y.type


class _Sum:
    """One product under way."""

    def __init__(self, k: Kernel, op: DotTile) -> None:
        places = k.places(op.state)
        v = k.lanes(places.lanes, hint_of(op))
        self.op = op
        self.origins = places.origins
        self.sums = list(k.registers(op.state))
        self._add, depth = _addition(k, v, op)
        self._x, self._y = (_factor(k, v, each, depth) for each in (op.x, op.y))

    def add(self, register: int, step: Coords) -> None:
        """Add what one place gives to one register."""
        at = tuple(a + b for a, b in zip(self.origins[register], step, strict=True))
        x, y, state = self._x(at), self._y(at), self.sums[register]
        if x is None or y is None or state is None:
            self.sums[register] = None
        elif not (_is_nothing(x) and _is_nothing(y)):
            self.sums[register] = self._add(x, y, state)


def _addition(k: Kernel, v: Lanes, op: DotTile) -> tuple[Add, int]:
    """What adds products up, and how many places it does at once."""
    factor, dtype = dtype_of(op.x), dtype_of(op.state)
    if factor is dtype:
        return lambda x, y, z: multiply_add(v, dtype, x, y, z), 1
    for each in instructions(factor, dtype, k.target):
        if each.factor is factor and _divides(each, v, op):
            return partial(SPELLINGS[each.name], v), each.depth
    raise InternalError(f"no dot instruction takes {op.x.type} and {op.y.type}")


def _divides(each: DotInstruction, v: Lanes, op: DotTile) -> bool:
    """Whether registers of the instruction's operands make up the tiles."""
    x, y, state = (layout_of(value.type) for value in (op.x, op.y, op.state))
    column = state.lane_dim()
    place = next((d for d in op.dims if x.reduce_to([d]).lanes > 1), None)
    if column is None or place is None:
        return False
    try:
        y.right_divide(each.columns(y.rank, place, column, v.count))
        x.right_divide(each.row(x.rank, place))
    except NotRepresentable:
        return False
    return True


def multiply_add(v: Lanes, dtype: DType, x: str, y: str, z: str) -> str:
    """x·y + z, rounded once where an instruction does so."""
    type_ = element(dtype)
    if dtype.is_float:
        if v.target.has("fma"):
            return fma(v, dtype, x, y, z)
        return v.op("fadd", type_, v.op("fmul", type_, x, y), z)
    return v.op("add", type_, v.op("mul", type_, x, y), z)


def _steps(k: Kernel, op: DotTile) -> Iterator[Coords]:
    """The coordinates that are summed over, in registers."""
    found: list[set[int]] = [{0} for _ in op.state.shape]
    for value in (op.x, op.y):
        for origin in k.places(value).origins:
            for dim in op.dims:
                found[dim].add(origin[dim])
    return product(*map(sorted, found))


def _factor(
    k: Kernel, v: Lanes, value: Value, depth: int
) -> Callable[[Coords], Register]:
    """What finds the register that a sum is to be multiplied by."""
    places, registers = k.places(value), k.registers(value)
    repeated = [n == 1 for n in places.shape]
    if places.lanes not in (depth, v.count * depth):
        raise InternalError(f"{value.type} does not lie in the lanes of its sum")

    def at(coords: Coords) -> Register:
        place = tuple(0 if r else c for r, c in zip(repeated, coords, strict=True))
        register, _ = places.table[place]
        found = registers[register]
        if found is None or places.lanes == v.count * depth:
            return found
        return _repeated(v, dtype_of(value), found, depth)

    return at


def _repeated(v: Lanes, dtype: DType, register: str, depth: int) -> str:
    """A few elements in every group of lanes as long."""
    if depth == 1:
        return v.splat(element(dtype), register)
    few, many = v.of(depth), v.of(v.count * depth)
    if register == few.zero(dtype):
        return many.zero(dtype)
    bits = f"i{dtype.bits * depth}"
    whole = v.write(f"bitcast {few.type(element(dtype))} {register} to {bits}")
    splat = v.splat(bits, whole)
    return v.write(f"bitcast {v.type(bits)} {splat} to {many.type(element(dtype))}")


def _is_nothing(register: str) -> bool:
    """Whether a guard put 0 where nothing is to be added."""
    return register in ZEROS or _ZERO_SPLAT.fullmatch(register) is not None


# ------------------------------------------------------------------- spellings


def pairs(intrinsics: Mapping[int, str]) -> Callable[[Lanes, str, str, str], str]:
    """Products of i16, neighbours added, by the intrinsic for so many sums."""

    def spell(v: Lanes, x: str, y: str, z: str) -> str:
        name, two = f"@llvm.x86.{intrinsics[v.count]}", v.of(2 * v.count).type("i16")
        v.writer.declare(f"{v.type('i32')} {name}({two}, {two})")
        made = v.write(f"call {v.type('i32')} {name}({two} {x}, {two} {y})")
        return v.op("add", "i32", made, z)

    return spell


def fused(
    intrinsics: Mapping[int, str], sum_: str, held: str, factor: str, depth: int = 2
) -> Callable[[Lanes, str, str, str], str]:
    """Products added to a sum by one intrinsic, which takes factors that we hold as one
    type of LLVM's as another."""

    def spell(v: Lanes, x: str, y: str, z: str) -> str:
        name = f"@llvm.x86.{intrinsics[v.count]}"
        own, many = v.type(sum_), v.of(depth * v.count)
        bits, wide = many.type(held), many.type(factor)
        v.writer.declare(f"{own} {name}({own}, {wide}, {wide})")
        if held != factor:
            x, y = (v.write(f"bitcast {bits} {each} to {wide}") for each in (x, y))
        return v.write(f"call {own} {name}({own} {z}, {wide} {x}, {wide} {y})")

    return spell


SPELLINGS: Mapping[str, Callable[[Lanes, str, str, str], str]] = {
    "vdpbf16ps": fused({16: "avx512bf16.dpbf16ps.512"}, "float", "i16", "bfloat"),
    "vpdpwssd": fused(
        {8: "avx512.vpdpwssd.256", 16: "avx512.vpdpwssd.512"}, "i32", "i16", "i16"
    ),
    "vpmaddwd": pairs({8: "avx2.pmadd.wd", 16: "avx512.pmaddw.d.512"}),
    "pmaddwd": pairs({4: "sse2.pmadd.wd"}),
}
"""How each dot instruction is spelled, by the number of its sums."""
