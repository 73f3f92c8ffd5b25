"""Tensors as programs make them: dtypes, memory, and strides as a form says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fusec.runtime.memory import ADVISED_FROM, advise_huge

TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "bool": torch.bool,
    "i8": torch.int8,
    "i16": torch.int16,
    "i32": torch.int32,
    "i64": torch.int64,
    "u8": torch.uint8,
    "u16": torch.uint16,
    "u32": torch.uint32,
    "u64": torch.uint64,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f32": torch.float32,
    "f64": torch.float64,
    "f8e4m3fn": torch.float8_e4m3fn,
    "f8e4m3fnuz": torch.float8_e4m3fnuz,
    "f8e5m2": torch.float8_e5m2,
    "f8e5m2fnuz": torch.float8_e5m2fnuz,
}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of an element type."""
    return TORCH_DTYPES[name]


def maker(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype
) -> Callable[[], torch.Tensor]:
    """What allocates tensors of one form, on huge pages where they are large."""
    if math.prod(shape) * dtype.itemsize >= ADVISED_FROM:
        return lambda: made(shape, strides, dtype)
    return lambda: empty_strided(shape, strides, dtype)


def made(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """A new tensor, on huge pages where it is large."""
    tensor = torch.empty_strided(shape, strides, dtype=dtype, device="cpu")
    advise_huge(tensor.data_ptr(), tensor.untyped_storage().nbytes())
    return tensor


def in_memory(x: Any) -> Any:
    """A tensor that lies in memory; a gradient that is 0 everywhere may not."""
    if isinstance(x, torch.Tensor) and x._is_zerotensor():
        place = {"dtype": x.dtype, "device": x.device}
        return torch.empty_strided(x.shape, x.stride(), **place).zero_()
    return x


def copied(x: torch.Tensor) -> torch.Tensor:
    """A tensor with the elements and strides of another, in memory of its own."""
    reach = sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    line = x.detach().as_strided((reach + 1 if x.numel() else 0,), (1,))
    return line.clone().as_strided(x.shape, x.stride())


def _plain_empty_strided(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    return torch.empty_strided(shape, strides, dtype=dtype, device="cpu")


def _plain_part(
    x: torch.Tensor, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> torch.Tensor:
    return x.as_strided(shape, strides, x.storage_offset() + offset)


_guards: Any = getattr(torch._C, "_dynamo").guards  # noqa: B009
empty_strided = getattr(_guards, "_empty_strided_cpu", _plain_empty_strided)
"""Torch's own way around its dispatcher, a third of the time."""

part = getattr(_guards, "_reinterpret_tensor", _plain_part)
"""A tensor of a shape and strides from `offset` elements on, in the memory of another;
to autograd it is no view."""
