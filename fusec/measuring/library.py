"""Products of matrices by torch's library, to be timed.

products("cuda:0", ["f32", "bf16"])     {"f32": Timed(…), "bf16": Timed(…)}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch

from fusec.measuring.timing import Timed

SIZES: Mapping[str, int] = {"cpu": 768, "cuda": 8192}
"""Rows and columns of the factors: enough to keep one core busy, or all of a GPU's."""
_DTYPES: Mapping[str, torch.dtype] = {
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i8": torch.int8,
}


def products(device: str, dtypes: Iterable[str]) -> Mapping[str, Timed]:
    """A product for each dtype of its factors that torch multiplies there, and how many
    multiply-adds it does."""
    size = SIZES[device.partition(":")[0]]
    calls = {name: _product(_DTYPES[name], size, device) for name in dtypes}
    return {n: Timed(call, float(size**3)) for n, call in calls.items() if call}


def _product(
    dtype: torch.dtype, size: int, device: str
) -> Callable[[], torch.Tensor] | None:
    integers = dtype is torch.int8
    x, y = (_drawn(dtype, size, device, seed) for seed in range(2))
    result = torch.int32 if integers else dtype
    # Memory that is fresh would be timed as well.
    z = torch.empty(size, size, dtype=result, device=device)
    aten = torch.ops.aten
    multiply: Callable[..., Any] = aten._int_mm.out if integers else aten.mm.out
    try:
        multiply(x, y, out=z)
    except RuntimeError:
        return None
    return partial(multiply, x, y, out=z)


def _drawn(dtype: torch.dtype, size: int, device: str, seed: int) -> torch.Tensor:
    """Normal numbers, as clocks depend on how many bits of the factors change: with
    ones they stay higher than with any that people multiply."""
    generator = torch.Generator(device).manual_seed(seed)
    made = torch.randn(size, size, device=device, generator=generator)
    return (
        (made * 32).clamp(-127, 127).to(dtype)
        if dtype is torch.int8
        else made.to(dtype)
    )
