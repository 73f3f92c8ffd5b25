"""The sizes that a piece of IR mentions: in types, attributes, axes and layouts.

%0 = load_tile %x, %o : tile<f32[s0, 8]>    strides=(8*s1, 1)        s0, s1
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from fusec.ir.core import Affine, Block, walk
from fusec.ir.dims import Dim, Expr, Symbol, symbols
from fusec.ir.layout import Layout
from fusec.ir.types import Axis, Buffer, Points, Tensor, Tile


def used_symbols(block: Block) -> tuple[Symbol, ...]:
    """The symbols of every size in a block and the blocks inside it, by name."""
    seen: set[Dim] = set()
    for value in block.params:
        seen.update(dims_of(value.type))
    for op in walk(block):
        seen.update(dims_of(op.attrs))
        for value in (*op.results, *(p for inner in op.blocks for p in inner.params)):
            seen.update(dims_of(value.type))
    found = set[Symbol]().union(*map(symbols, seen))
    return tuple(sorted(found, key=lambda symbol: symbol.name))


def dims_of(thing: Any) -> Iterator[Dim]:
    """The dims in a type or an attribute."""
    match thing:
        case int() | Expr():
            yield thing
        case tuple():
            for part in cast("tuple[Any, ...]", thing):
                yield from dims_of(part)
        case Tensor(_, shape, strides):
            yield from (*shape, *(strides or ()))
        case Points(_, axes):
            yield from (axis.extent for axis in axes)
        case Tile(_, shape, layout):
            yield from shape
            yield from dims_of(layout)
        case Buffer(_, layout):
            yield from dims_of(layout)
        case Layout():
            yield from layout_dims(thing)
        case Axis():
            yield thing.extent
        case Affine(terms, const):
            yield from (const, *(stride for _, stride in terms))
        case _:
            pass


def layout_dims(layout: Layout) -> Iterator[Dim]:
    """The dims that a layout is made of."""
    yield from layout.shape
    for digit in (d for digits in (*layout.dims, layout.replicas) for d in digits):
        yield from (digit.extent, digit.stride)
    yield from (value for _, value in layout.offset)
