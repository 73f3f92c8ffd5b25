"""Scratch memory: chunks of values that one loop puts aside and another takes back."""

from __future__ import annotations

from collections.abc import Sequence

from fusec.ir.builder import Builder
from fusec.ir.core import Value
from fusec.ir.dims import Dim
from fusec.ir.dtypes import i64
from fusec.ir.layout import strided
from fusec.ir.ops.elementwise import Add, Mul
from fusec.ir.ops.tile import LoadTile, Scratch, StoreTile
from fusec.ir.types import Buffer, Space, Tile
from fusec.passes.nests import Scope, chunk_type, time_dims

Memory = tuple[Value, tuple[Dim, ...]]
"""Scratch memory and the strides in it."""


class ScratchMemory:
    """The scratch memory of one kernel."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        """That of the kernel: memory is reserved before all loops."""
        self.held: dict[Value, Memory] = {}
        """Where the chunks of a value lie, for now."""

    def reserve(self, value: Value) -> Memory:
        """Scratch memory for all chunks of a value."""
        type_ = value.type
        assert isinstance(type_, Tile)
        assert type_.layout is not None
        shape = tuple(type_.layout.padded_shape)
        strides = _dense(shape)
        bits = type_.dtype.bits
        buffer = Buffer(type_.dtype, strided(shape, strides, bits), Space.SCRATCH)
        return self.builder(Scratch, type=buffer), strides

    def put_aside(self, scope: Scope, value: Value, chunk: Value) -> None:
        """Write the current chunk of a value to the scratch memory that it has."""
        memory, strides = self.held[value]
        offset = self._offset(scope, value, strides)
        attrs = (strides, (), False, False, False)
        scope.builder.emit(StoreTile, (chunk, memory, offset), attrs)

    def taken(self, scope: Scope, value: Value, memory: Memory | None = None) -> Value:
        """The current chunk of a value, read from scratch memory."""
        buffer, strides = memory or self.held[value]
        attrs = (chunk_type(value.type), strides, (), False, False, 0)
        offset = self._offset(scope, value, strides)
        return scope.builder.emit(LoadTile, (buffer, offset), attrs)[0]

    def _offset(self, scope: Scope, value: Value, strides: tuple[Dim, ...]) -> Value:
        """Where the current chunk of a value lies; loops over what it lacks are none
        of its."""
        b = scope.builder
        offset = b.const(0, i64)
        for dim in sorted(time_dims(value)):
            step = b(Mul, scope.origins[dim], b.size(strides[dim]))
            offset = b(Add, offset, step)
        return offset


def _dense(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    strides: list[Dim] = []
    below: Dim = 1
    for extent in reversed(shape):
        strides.append(below)
        below = below * extent
    return tuple(reversed(strides))
