"""Views: from coordinates in a view to coordinates in what it is a view of.

    %s = reshape %x {shape=(5, 12, 64)}        %x: f32[5, 768]
    at [a, h, d] it reads %x at [a, 64*h + d]

A coordinate is linear in axes, or computed where no linear one exists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fusec.analysis.affine import split
from fusec.analysis.factors import groups
from fusec.ir.builder import Builder
from fusec.ir.core import Affine, Value
from fusec.ir.dims import Dim, product
from fusec.ir.dtypes import i64
from fusec.ir.ops.elementwise import Add, FloorDiv, Mul, Rem
from fusec.ir.ops.loop import Coordinate
from fusec.ir.ops.view import Broadcast, Permute, Reshape, Slice
from fusec.ir.types import Axis

Coord = Affine | Value
"""Where a point reads along one dimension: linear in axes, or computed."""


def coordinate(axes: Sequence[Axis]) -> Affine:
    """The coordinate that axes count together, the last one fastest."""
    total, below = Affine(), 1
    for axis in reversed(axes):
        total = Affine(((axis, below),)) + total
        below = below * axis.extent
    return total


def affine_value(b: Builder, affine: Affine) -> Value:
    """An affine index as an i64 value."""
    total: Value | None = None
    for axis, stride in affine.terms:
        term = b(Coordinate, axis=axis)
        if stride != 1:
            term = b(Mul, term, b.size(stride))
        total = term if total is None else b(Add, total, term)
    if total is None:
        return b.size(affine.const)
    return total if affine.const == 0 else b(Add, total, b.size(affine.const))


def coord_value(b: Builder, coord: Coord) -> Value:
    """A coordinate as an i64 that can be computed with."""
    return coord if isinstance(coord, Value) else affine_value(b, coord)


def shift(b: Builder, coord: Coord, start: Dim, step: int = 1) -> Coord:
    """The coordinate `coord * step + start`."""
    if isinstance(coord, Affine):
        return coord * step + start
    scaled = b(Mul, coord, b.const(step, i64)) if step != 1 else coord
    return b(Add, scaled, b.size(start)) if start != 0 else scaled


def _permute(b: Builder, op: Permute, coords: Sequence[Coord]) -> list[Coord]:
    inner: list[Coord] = list(coords)
    for coord, dim in zip(coords, op.order, strict=True):
        inner[dim] = coord
    return inner


def _broadcast(b: Builder, op: Broadcast, coords: Sequence[Coord]) -> list[Coord]:
    shape = op.x.shape
    return [Affine() if n == 1 else c for c, n in zip(coords, shape, strict=True)]


def _slice(b: Builder, op: Slice, coords: Sequence[Coord]) -> list[Coord]:
    inner = list(coords)
    dim: int = op.dim
    inner[dim] = shift(b, coords[dim], op.start, op.step)
    return inner


def _reshape(b: Builder, op: Reshape, coords: Sequence[Coord]) -> list[Coord]:
    old, new = op.x.shape, op.shape
    inner: list[Coord] = [Affine() for _ in old]
    for run_old, run_new in groups(old, new):
        run = [(coords[d], new[d]) for d in run_new]
        extents = [old[d] for d in run_old]
        for dim, coord in zip(run_old, _regroup(b, run, extents), strict=True):
            inner[dim] = coord
    return inner


def _regroup(
    b: Builder, run: list[tuple[Coord, Dim]], extents: list[Dim]
) -> list[Coord]:
    """Coordinates of some extents, as those of other extents of the same product."""
    if [n for _, n in run] == extents:
        return [coord for coord, _ in run]
    if 0 in extents:
        return [Affine() for _ in extents]
    linear = _linear(run)
    if linear is not None:
        parts = split(linear, extents)
        if parts is not None:
            return list(parts)
    return _divided(b, run, extents)


def _linear(run: list[tuple[Coord, Dim]]) -> Affine | None:
    total, below = Affine(), 1
    for coord, extent in reversed(run):
        if not isinstance(coord, Affine):
            return None
        total = coord * below + total
        below = below * extent
    return total


def _divided(
    b: Builder, run: list[tuple[Coord, Dim]], extents: list[Dim]
) -> list[Coord]:
    """The same by dividing the linear index at every point."""
    total: Value = coord_value(b, run[0][0])
    for coord, extent in run[1:]:
        total = b(Add, b(Mul, total, b.size(extent)), coord_value(b, coord))
    coords: list[Coord] = []
    below: Dim = product(extents)
    for k, extent in enumerate(extents):
        below = below // extent
        part = b(FloorDiv, total, b.size(below)) if below != 1 else total
        coords.append(b(Rem, part, b.size(extent)) if k else part)
    return coords


Inward = Callable[[Builder, Any, Sequence[Coord]], list[Coord]]

VIEWS: Mapping[type, Inward] = MappingProxyType(
    {
        Permute: _permute,
        Broadcast: _broadcast,
        Slice: _slice,
        Reshape: _reshape,
    }
)
