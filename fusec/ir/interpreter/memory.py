"""Addresses in memory, counted in elements, and the bounds they keep.

The element at coordinate c of anything strided lies at `Σ c[d]·strides[d]` from its
start: a tensor in its storage, a view in the same storage, a tile in a buffer.
"""

# pyright: reportUnknownMemberType=false
# (numpy's stubs make Self unknown on an array of Any, so any .reshape is.)

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fusec.ir.core import Value
from fusec.ir.dtypes import Array, DType
from fusec.ir.interpreter.elements import poison
from fusec.ir.interpreter.frame import Frame, InterpretError, is_array
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.types import Tensor, strides_of


def along(dim: int, extent: int, rank: int) -> Array:
    """The coordinate on one of `rank` dimensions, ready to broadcast.

    Raises MemoryError for more than there can be, of which numpy may give none.
    """
    shape = [extent if d == dim else 1 for d in range(rank)]
    if extent > np.iinfo(np.intp).max // np.dtype(np.int64).itemsize:
        raise MemoryError
    return np.arange(extent, dtype=np.int64).reshape(shape)


@lru_cache(maxsize=64)
def addresses(shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """How far from the start each coordinate lies; not to be written to."""
    total = np.zeros(shape, np.int64)
    for dim, (extent, stride) in enumerate(zip(shape, strides, strict=True)):
        total += along(dim, extent, len(shape)) * stride
    total.flags.writeable = False
    return total


def check_within(index: Array, extent: int, where: object) -> None:
    """That no index is negative or reaches `extent`, in what is called `where`."""
    if index.size == 0:
        return
    low, high = int(index.min()), int(index.max())
    if low >= 0 and high < extent:
        return
    wrong = low if low < 0 else high
    raise InterpretError(f"index {wrong} is out of bounds of {where}, extent {extent}")


@dataclass(slots=True)
class Storage:
    """Flat memory. Unless it `escapes` it is gone when the function returns."""

    items: Array
    escapes: bool = True
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Memory:
    """A tensor within a storage: where it begins, its shape and strides."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def flat(self) -> Array:
        """From the first element to the last: what a kernel may address."""
        if not self.storage.alive:
            raise InterpretError("this memory was freed")
        end = self.offset + span(self.shape, self.strides)
        return self.storage.items[self.offset : end]

    def read(self) -> Array:
        """The tensor, copied."""
        return self.flat[addresses(self.shape, self.strides)]

    def write(self, array: Array) -> None:
        """Overwrite the tensor."""
        self.flat[addresses(self.shape, self.strides)] = array

    def view(self, shape: Sequence[int], strides: Sequence[int], offset: int) -> Memory:
        """Other strides over the same storage, `offset` further on."""
        made = Memory(self.storage, self.offset + offset, tuple(shape), tuple(strides))
        reach = made.offset + addresses(made.shape, made.strides)
        check_within(reach, len(self.storage.items), "the storage")
        return made


def span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """The number of elements from the first to the last, gaps included.

    Raises `InterpretError` for a negative stride, which no tensor in memory has.
    """
    if any(stride < 0 for stride in strides):
        raise InterpretError(f"negative strides {tuple(strides)}")
    if math.prod(shape) == 0:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def allocate(frame: Frame, type_: Tensor, *, escapes: bool = True) -> Memory:
    """Memory for a tensor, full of poison."""
    shape, strides = frame.shape(type_.shape), frame.numbers(strides_of(type_))
    items = poisoned((span(shape, strides),), type_.dtype)
    return Memory(Storage(items, escapes), 0, shape, strides)


def in_memory(frame: Frame, type_: Tensor, array: Array) -> Memory:
    """A tensor laid out in memory of its own."""
    memory = allocate(frame, type_)
    memory.write(array)
    return memory


def poisoned(shape: Sequence[int], dtype: DType) -> Array:
    """An array that nobody wrote."""
    return np.full(tuple(shape), poison(dtype))


def check_array(value: Value, array: Any) -> Array:
    """An argument, once it is sure to be an array in the carrier of its type."""
    carrier = dtype_of(value).carrier
    if not is_array(array) or array.dtype != carrier:
        found = array.dtype if is_array(array) else type(array).__name__
        raise InterpretError(f"{value} takes an array of {carrier}, not {found}")
    return array
