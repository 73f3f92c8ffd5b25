"""Kernels for tests, built op by op: dense inputs as tiles, dense outputs.

k = Kernel()
x = k.load(np.zeros((4, 16), np.float32), f32, parse_layout("(4:reg, 16:lane)"))
out = k.store(k.b(Neg, x))
k.run(run)                               # the fixture of tests/codegen/conftest.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fusec.ir.builder import Builder
from fusec.ir.core import Level, Value
from fusec.ir.dtypes import DType
from fusec.ir.layout import Layout, row_major
from fusec.ir.ops.tile import LoadTile, StoreTile
from fusec.ir.types import Buffer, Tile

Run = Callable[..., None]
Array = np.ndarray[Any, Any]


def memory(dtype: DType, count: int = 4096) -> Buffer:
    return Buffer(dtype, row_major((count,), dtype.bits))


def dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[d + 1 :]) for d in range(len(shape)))


class Kernel:
    """A kernel under construction, with dense inputs and outputs."""

    def __init__(self) -> None:
        self.b = Builder(Level.TILE)
        self.outputs: list[Array] = []
        self.inputs: list[Array] = []

    def load(self, values: Array, dtype: DType, layout: Layout) -> Value:
        """A tile with these elements, one register and lane each."""
        shape = tuple(int(str(n)) for n in layout.shape)
        buffer = self.b.param(memory(dtype, values.size), f"in{len(self.inputs)}")
        self.inputs.append(np.ascontiguousarray(values))
        type_ = Tile(dtype, shape, layout)
        at = self.b.size(0)
        return self.b(LoadTile, buffer, at, type=type_, strides=dense(shape))

    def store(self, value: Value) -> Array:
        """Where the elements of a tile will be after the run."""
        type_ = value.type
        assert isinstance(type_, Tile)
        shape = tuple(int(str(n)) for n in type_.shape)
        out = np.zeros(shape, type_.dtype.storage)
        buffer = self.b.param(memory(type_.dtype, out.size), f"out{len(self.outputs)}")
        self.outputs.append(out)
        attrs = (dense(shape), (), False, False, False, "")
        self.b.emit(StoreTile, (value, buffer, self.b.size(0)), attrs)
        return out

    def run(self, run: Run, **how: Any) -> None:
        symbols = how.pop("names", ())
        function = self.b.function("kernel", symbols=symbols)
        run(function, self._arrays(function), **how)

    def _arrays(self, function: Any) -> list[Array]:
        """The arrays in the order of parameters."""
        by_name = {f"in{k}": x for k, x in enumerate(self.inputs)}
        by_name |= {f"out{k}": x for k, x in enumerate(self.outputs)}
        return [by_name[p.hint] for p in function.params]
