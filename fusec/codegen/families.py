"""Kinds of dtypes that share their spelling in a backend: the columns of its table."""

from __future__ import annotations

from enum import Enum

from fusec.ir.dtypes import DType, bf16, f16, f32, f64


class Family(Enum):
    """Dtypes that share their spelling."""

    FLOAT = "f32 f64"
    HALF = "f16 bf16"
    SIGNED = "i8 i16 i32 i64"
    UNSIGNED = "u8 u16 u32 u64"
    BOOL = "bool"
    CODE = "other types of 8, 16, 32 or 64 bits"


FLOAT, HALF, SIGNED, UNSIGNED, BOOL, CODE = Family
INTEGERS = (SIGNED, UNSIGNED)
BITS = (SIGNED, UNSIGNED, BOOL)
EVERY = (FLOAT, HALF, SIGNED, UNSIGNED, BOOL, CODE)


def family(dtype: DType) -> Family | None:
    """The family of a dtype; None where no register holds it."""
    if dtype.is_bool:
        return BOOL
    if dtype.bits not in (8, 16, 32, 64):
        return None
    if dtype.is_int:
        return SIGNED if dtype.is_signed else UNSIGNED
    if dtype in (f32, f64):
        return FLOAT
    return HALF if dtype in (f16, bf16) else CODE
