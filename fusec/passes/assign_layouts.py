"""Give every tile of a kernel a layout: its part of the kernel's spread.

    spread (16:time 4:reg 16:lane < 1000)
    tile<f32 [1000]>   →   tile<f32 [1000], 16:time 4:reg 16:lane < 1000>
    tile<f32 [1]>      →   tile<f32 [1], ()>

A tile that does not have a dimension has no digits for it. Where an op's operands end
up differently laid out than it needs, a `convert` stands between: so it does at memory
that lies in rows along another dimension than the lanes do.

    %t = load_tile %x  strides=(1, 4096)     →   load_tile … 8:lane along dimension 0
                                                 convert … 8:lane along dimension 1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod

from fusec.analysis.coalesce import coalesced
from fusec.errors import UserError
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Op, Value, Values
from fusec.ir.dims import Dim
from fusec.ir.layout import LANE, REG, TIME, Digit, Layout
from fusec.ir.layout.digits import known
from fusec.ir.ops.reduction import ScanTile
from fusec.ir.ops.tile import (
    Access,
    BroadcastTile,
    Convert,
    FetchTile,
    IotaTile,
    LoadTile,
    Stage,
    StoreTile,
)
from fusec.ir.types import Tile


def assign_layouts(function: Function) -> Function:
    """The kernel with a layout on every tile; one that has them stays as it is.

    Raises `UserError` where neither layouts nor a spread say how tiles lie.
    """
    if function.spread is None:
        return _laid_out(function)
    builder = Builder(function.level)
    params = {old: builder.param(old.type, old.hint) for old in function.params}
    known: dict[Layout, dict[Value, Value]] = {}
    wanted = _spreads(function, function.spread)
    for op in function.body.ops:
        builder.loc = op.loc
        for spread in wanted[op]:
            env = known.setdefault(spread, dict(params))
            inner = known.get(op.spread, {}) if isinstance(op, Stage) else env
            operands = [inner.get(v, v) for v in op.operands]
            env.update(
                zip(op.results, _emit(builder, op, operands, spread), strict=True)
            )
    return replace(builder.successor(function), spread=None)


def _spreads(function: Function, spread: Layout) -> Mapping[Op, Iterable[Layout]]:
    """How each op is laid out: as those who read it are; what is staged, as it says.

    An op that is read in several layouts is computed in each.
    """
    found: dict[Op, dict[Layout, None]] = {}
    readers: dict[Value, dict[Layout, None]] = {}
    for op in reversed(function.body.ops):
        own = {s: None for v in op.results for s in readers.get(v, ())} or {
            spread: None
        }
        found[op] = own
        inner = {op.spread: None} if isinstance(op, Stage) else own
        for value in op.operands:
            readers.setdefault(value, {}).update(inner)
    return found


def _emit(b: Builder, op: Op, operands: list[Value], spread: Layout) -> Values:
    """Emit an op whose tiles are parts of a spread."""
    attrs = op.attrs
    if isinstance(op, StoreTile):
        at = access_layout(op, op.value.shape, spread)
        operands[0] = b(Convert, operands[0], layout=at)
    elif isinstance(op, ScanTile):
        half = len(operands) // 2
        left = part_of(spread, op.values[0].shape).drop(op.dim)
        starts = [b(Convert, x, layout=left) for x in operands[half:]]
        operands[half:] = starts
    if isinstance(op, (LoadTile, FetchTile, IotaTile, BroadcastTile, Stage)):
        typed = list(attrs)
        at = list(type(op).attr_fields).index("type")
        layout = part_of(spread, op.type.shape)
        if isinstance(op, (LoadTile, FetchTile)):
            layout = access_layout(op, op.type.shape, spread)
        typed[at] = replace(op.type, layout=layout)
        attrs = tuple(typed)
    results = b.emit(type(op), operands, attrs, op.blocks, op.loc, op.hints)
    return tuple(_converted(b, v, spread) for v in results)


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


def access_layout(op: Access, shape: tuple[Dim, ...], spread: Layout) -> Layout:
    """How a tile lies when it meets memory: with its lanes in a row, if they can."""
    held = part_of(spread, shape)
    if op.indirect or op.masked:
        return held
    chunk = [(_extent(g, REG), _extent(g, LANE)) for g in held.dims]
    lanes = coalesced(chunk, op.strides)
    if lanes is None:
        return held
    dims: list[tuple[Digit, ...]] = []
    below = 1
    for d in reversed(range(len(shape))):
        own = [digit for digit in held.dims[d] if digit.axis == TIME]
        registers = chunk[d][0] * chunk[d][1] // lanes[d]
        if registers > 1:
            own.append(Digit(registers, below, REG))
        if lanes[d] > 1:
            own.append(Digit(lanes[d], op.strides[d], LANE))
        below *= registers
        dims.append(tuple(own))
    return Layout(reversed(dims), shape)


def _extent(digits: tuple[Digit, ...], axis: str) -> int:
    """The elements that the digits of a dimension spread over an axis."""
    return prod(known(digit.extent) for digit in digits if digit.axis == axis)


def part_of(spread: Layout, shape: tuple[Dim, ...]) -> Layout:
    """The layout of a tile with those dimensions of the spread that it has: at the
    times of the whole, in registers and lanes numbered anew."""
    held = [d for d, n in enumerate(shape) if n != 1]
    return replace(spread.reduce_to(held), shape=shape)
