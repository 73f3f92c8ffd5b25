"""Give every tile of a kernel a layout: what the schedule says of its dimensions.

    tile<f32 [1000]>   →   tile<f32 [1000], 16:time 4:reg 16:lane>

A dimension is laid out as time × registers × lanes; a tile that does not have a
dimension has no digits for it. Where an op's operands end up differently laid out than
it needs, a `convert` stands between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fusec.analysis.schedule import Schedule, Split
from fusec.ir.builder import Builder, rewrite
from fusec.ir.core import Function, Op, Value, Values
from fusec.ir.dims import Dim
from fusec.ir.layout import LANE, REG, TIME, Layout, tile_layout
from fusec.ir.ops.tile import BroadcastTile, Convert, IotaTile, LoadTile
from fusec.ir.types import Tile


def assign_layouts(function: Function, schedule: Schedule) -> Function:
    """The kernel with a layout on every tile."""

    def visit(b: Builder, op: Op, env: Mapping[Value, Value]) -> Values | None:
        operands = [env.get(v, v) for v in op.operands]
        attrs = op.attrs
        if isinstance(op, (LoadTile, IotaTile, BroadcastTile)):
            typed = list(attrs)
            at = list(type(op).attr_fields).index("type")
            typed[at] = _laid_out(op.type, schedule)
            attrs = tuple(typed)
        results = b.emit(type(op), operands, attrs, op.blocks, op.loc, _hints(op))
        return tuple(_converted(b, v, schedule) for v in results)

    return rewrite(function, visit)


def _converted(b: Builder, value: Value, schedule: Schedule) -> Value:
    """A value in the layout that its shape has under the schedule."""
    if not isinstance(value.type, Tile):
        return value
    wanted = layout_of(value.shape, schedule)
    return b(Convert, value, layout=wanted)


def _laid_out(type_: Tile, schedule: Schedule) -> Tile:
    return replace(type_, layout=layout_of(type_.shape, schedule))


def layout_of(shape: tuple[Dim, ...], schedule: Schedule) -> Layout:
    """The layout of a tile with those dimensions of the schedule that it has."""
    splits = [
        [] if n == 1 else _digits(split)
        for n, split in zip(shape, schedule.tile, strict=True)
    ]
    return tile_layout(shape, splits)


def _digits(split: Split) -> list[tuple[str, Dim]]:
    digits: list[tuple[str, Dim]] = [
        (TIME, split.trips),
        (REG, split.registers),
        (LANE, split.lanes),
    ]
    return [(axis, n) for axis, n in digits if n != 1]


def _hints(op: Op) -> tuple[str, ...]:
    return tuple(value.hint for value in op.results)
