"""Tiles whose elements are known when the kernel is compiled: what follows from
coordinates in registers and lanes.

    %k = iota_tile 0            registers 0 and 1 hold the two parts of a concatenation
    %m = lt %k 1                true, false: no instruction
    select %m %x %y             the registers of %x, then those of %y
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusec.codegen.llvm_kernel import (
    Kernel,
    Register,
    Table,
    constant_vector,
    dtype_of,
)
from fusec.codegen.llvm_lanes import literal
from fusec.codegen.llvm_mask import Mask
from fusec.ir.core import Op, Value
from fusec.ir.dtypes import bool_
from fusec.ir.interpreter.elements import compute, scalar
from fusec.ir.ops import elementwise as ew
from fusec.ir.types import Scalar


def define_if_known(k: Kernel, op: Op) -> bool:
    """Compute an elementwise op on known integers; False where some are not."""
    dtype = dtype_of(op.result)
    if isinstance(op.result.type, Scalar) or not (dtype.is_bool or dtype.is_int):
        return False
    tables = [_table(k, x) for x in op.operands]
    if not tables or any(table is None for table in tables):
        return False
    places = k.places(op.result)
    arrays = [scalar(x, t) for x, t in zip(op.operands, tables, strict=True)]
    made = compute(op, arrays)
    count, lanes = len(places.origins), places.lanes
    rows: Any = made.tolist() if made.shape else [[made.item()] * lanes] * count
    k.define_table(op.result, tuple(tuple(row) for row in rows))
    return True


def folded(k: Kernel, op: Op, row: Sequence[Register], register: int) -> Register:
    """The operand that one register of an op is, where known bools decide; or None."""
    if (
        not isinstance(op, (ew.Select, ew.And, ew.Or))
        or not dtype_of(op.operands[0]).is_bool
    ):
        return None
    if isinstance(op, ew.Select):
        chosen = condition(k, op.operands[0], register)
        return None if isinstance(chosen, str) else row[1 if chosen else 2]
    for this, other in ((0, 1), (1, 0)):
        known = condition(k, op.operands[this], register)
        if not isinstance(known, str):
            neutral = known is isinstance(op, ew.And)
            return row[other] if neutral else row[this]
    return None


def condition(k: Kernel, value: Value, register: int) -> Mask:
    """One register of a tile of bools: True or False where all lanes are."""
    if isinstance(value.type, Scalar):
        number = k.number(value)
        return k.scalar(value) if number is None else bool(number)
    table = k.table(value)
    if table is not None and len(set(table[register])) == 1:
        return bool(table[register][0])
    held = k.registers(value)[register]
    if held is None:
        return False
    for known in (True, False):
        if held == constant(k, value, known):
            return known
    return held


def constant(k: Kernel, value: Value, known: bool) -> str:
    """A register of bools that are all alike."""
    return constant_vector("i1", [literal(bool_, known)] * k.width(value))


def _table(k: Kernel, value: Value) -> Table | float | None:
    if isinstance(value.type, Scalar):
        return k.number(value)
    return k.table(value)
