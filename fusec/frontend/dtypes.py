"""torch's dtypes and fusec's, one to one."""

from __future__ import annotations

import torch

from fusec.ir import dtypes
from fusec.ir.dtypes import DType, Specials, float_

_PAIRS: dict[torch.dtype, DType] = {
    torch.bool: dtypes.bool_,
    torch.int8: dtypes.i8,
    torch.int16: dtypes.i16,
    torch.int32: dtypes.i32,
    torch.int64: dtypes.i64,
    torch.uint8: dtypes.u8,
    torch.uint16: dtypes.u16,
    torch.uint32: dtypes.u32,
    torch.uint64: dtypes.u64,
    torch.float16: dtypes.f16,
    torch.bfloat16: dtypes.bf16,
    torch.float32: dtypes.f32,
    torch.float64: dtypes.f64,
    torch.float8_e4m3fn: float_(4, 3, Specials.FN),
    torch.float8_e4m3fnuz: float_(4, 3, Specials.FNUZ),
    torch.float8_e5m2: float_(5, 2),
    torch.float8_e5m2fnuz: float_(5, 2, Specials.FNUZ),
}


def from_torch(dtype: torch.dtype) -> DType | None:
    """The element type that torch calls `dtype`; None for complex and the like."""
    return _PAIRS.get(dtype)


COMPUTED = frozenset(
    dtype for dtype in _PAIRS.values() if dtype.bits > 8 or not dtype.is_float
)
"""The element types that kernels compute in. Float8 is moved, but left to torch."""

_TORCH = {ours: theirs for theirs, ours in _PAIRS.items()}


def to_torch(dtype: DType) -> torch.dtype:
    """What torch calls an element type; KeyError for one that torch lacks."""
    return _TORCH[dtype]
