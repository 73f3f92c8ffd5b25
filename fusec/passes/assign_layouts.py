"""Give every tile of a kernel a layout: its part of the kernel's spread.

    spread (16:time 4:reg 16:lane < 1000)
    tile<f32 [1000]>   →   tile<f32 [1000], 16:time 4:reg 16:lane < 1000>
    tile<f32 [1]>      →   tile<f32 [1], ()>

A tile that does not have a dimension has no digits for it. Where an op's operands end
up differently laid out than it needs, a `convert` stands between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fusec.errors import UserError
from fusec.ir.builder import Builder, rewrite
from fusec.ir.core import Function, Op, Value, Values
from fusec.ir.dims import Dim
from fusec.ir.layout import Layout, tile_layout
from fusec.ir.ops.tile import BroadcastTile, Convert, IotaTile, LoadTile
from fusec.ir.types import Tile


def assign_layouts(function: Function) -> Function:
    """The kernel with a layout on every tile; one that has them stays as it is.

    Raises `UserError` where neither layouts nor a spread say how tiles lie.
    """
    spread = function.spread
    if spread is None:
        return _laid_out(function)

    def visit(b: Builder, op: Op, env: Mapping[Value, Value]) -> Values | None:
        operands = [env.get(v, v) for v in op.operands]
        attrs = op.attrs
        if isinstance(op, (LoadTile, IotaTile, BroadcastTile)):
            typed = list(attrs)
            at = list(type(op).attr_fields).index("type")
            typed[at] = replace(op.type, layout=part_of(spread, op.type.shape))
            attrs = tuple(typed)
        hints = tuple(value.hint for value in op.results)
        results = b.emit(type(op), operands, attrs, op.blocks, op.loc, hints)
        return tuple(_converted(b, v, spread) for v in results)

    return replace(rewrite(function, visit), spread=None)


def _laid_out(function: Function) -> Function:
    types = [value.type for op in function.body.ops for value in op.results]
    if any(isinstance(type_, Tile) and type_.layout is None for type_ in types):
        raise UserError(
            f"nothing says how the tiles of @{function.name} lie",
            fix="write `spread` and a layout of all their dimensions behind its head",
        )
    return function


def _converted(b: Builder, value: Value, spread: Layout) -> Value:
    """A value in the layout that its shape has under the spread."""
    if not isinstance(value.type, Tile):
        return value
    return b(Convert, value, layout=part_of(spread, value.shape))


def part_of(spread: Layout, shape: tuple[Dim, ...]) -> Layout:
    """The layout of a tile with those dimensions of the spread that it has."""
    splits = [
        [] if n == 1 else [(digit.axis, digit.extent) for digit in digits]
        for n, digits in zip(shape, spread.dims, strict=True)
    ]
    return tile_layout(shape, splits)
