"""Points: how a region computes the results of a graph op at given coordinates.

    %c = concat %x, %y {dim=0}       select(i < 4, load %x [i], load %y [i - 4])
    %s = reduce_dims %x {dims=(1,)}  reduce r1 (load %x [i, r1])

Operands are read through all views, so an op's own dimensions are all it deals with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fusec.analysis.affine import split
from fusec.analysis.factors import even_part
from fusec.ir.builder import Builder
from fusec.ir.core import Affine, Op, Value, Values
from fusec.ir.dims import Dim, exact_div
from fusec.ir.dtypes import bool_
from fusec.ir.monoids import combine, monoid
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.checks import Check, Checked
from fusec.ir.ops.contraction import Matmul, summed_in
from fusec.ir.ops.elementwise import And, Ge, Lt, Mul, Select
from fusec.ir.ops.reduction import Reduce, ReduceDims, Scan, ScanDim
from fusec.ir.ops.view import (
    Broadcast,
    Concat,
    Gather,
    Index,
    Iota,
    Pad,
    Restride,
    Scatter,
)
from fusec.ir.types import Axis
from fusec.passes.graph_regions import GraphRegion
from fusec.passes.views import Coord, coord_value, coordinate, shift


def compute(r: GraphRegion, op: Op) -> None:
    """Compute every result of an op and store it."""
    axes = r.sources.axes(op.results[0])
    coords = [coordinate(factors) for factors in axes]
    if isinstance(op, ScanDim):
        coords[op.dim] = _scanned(op)
    values = POINTS.get(type(op), _elementwise)(r, op, coords)
    for result, value in zip(op.results, values, strict=True):
        r.store(result, value, coords)


def _elementwise(r: GraphRegion, op: Op, coords: Sequence[Coord]) -> Values:
    operands = [r.read(value, coords) for value in op.operands]
    return r.builder.emit(type(op), operands, op.attrs)


def _copy(r: GraphRegion, op: Op, coords: Sequence[Coord]) -> Values:
    return (r.read(op.operands[0], coords),)


def _fill(r: GraphRegion, op: Op, coords: Sequence[Coord]) -> Values:
    return (r.scalar(op.operands[0]),)


def _iota(r: GraphRegion, op: Iota, coords: Sequence[Coord]) -> Values:
    dim: int = op.dim
    return (coord_value(r.builder, coords[dim]),)


def _reduce(r: GraphRegion, op: ReduceDims, coords: Sequence[Coord]) -> Values:
    first = op.values[0]
    if any(first.shape[dim] == 0 for dim in op.dims):
        identity = zip(op.values, op.monoid.identity, strict=True)
        return tuple(r.builder.const(i, v.dtype) for v, i in identity)
    reduced = {
        dim: tuple(
            Axis(f"r{dim}{k or ''}", n)
            for k, n in enumerate(r.sources.factors.dimension(first, dim))
            if n != 1
        )
        for dim in op.dims
    }
    kept = iter(coords)
    inner = [
        coordinate(reduced[dim]) if dim in reduced else next(kept)
        for dim in range(len(first.shape))
    ]
    values = [r.read(value, inner) for value in op.values]
    axes = tuple(axis for dim in op.dims for axis in reduced[dim])
    return r.builder.emit(Reduce, values, (axes, op.monoid))


def _matmul(r: GraphRegion, op: Matmul, coords: Sequence[Coord]) -> Values:
    *batch, row, column = coords
    b, inner = r.builder, len(op.x.shape) - 1
    if op.x.shape[inner] == 0:
        return (b.const(0, op.dtype),)
    parts = r.sources.factors.dimension(op.x, inner)
    axes = tuple(Axis(f"k{k or ''}", n) for k, n in enumerate(parts) if n != 1)
    place = coordinate(axes)
    wide = summed_in(op.dtype)
    x = b(Cast, r.read(op.x, [*batch, row, place]), dtype=wide)
    y = b(Cast, r.read(op.y, [*batch, place, column]), dtype=wide)
    product = b(Mul, x, y)
    (total,) = b.emit(Reduce, (product,), (axes, monoid("sum", wide)))
    return (b(Cast, total, dtype=op.dtype),)


def _scanned(op: ScanDim) -> Affine:
    """Where a scan stands along its dimension: on one axis, maybe from its end."""
    extent: Dim = op.values[0].shape[op.dim]
    if extent == 1:
        return Affine()
    axis = Affine.of(Axis(f"s{op.dim}", extent))
    return axis * -1 + (extent - 1) if op.reverse else axis


def _scan(r: GraphRegion, op: ScanDim, coords: Sequence[Coord]) -> Values:
    values = [r.read(value, coords) for value in op.values]
    at: Coord = coords[int(op.dim)]
    assert isinstance(at, Affine)
    if not at.axes:
        return _begun(r.builder, op, values)
    return r.builder.emit(Scan, values, (at.axes[0], op.monoid))


def _begun(b: Builder, op: ScanDim, values: Sequence[Value]) -> Values:
    """What a scan of one element gives."""
    if not op.monoid.start:
        return tuple(values)
    pairs = zip(op.monoid.start, values, strict=True)
    start = tuple(b.const(number, v.dtype) for number, v in pairs)  # type: ignore[union-attr]
    return combine(b, op.monoid, start, tuple(values))


def _concat(r: GraphRegion, op: Concat, coords: Sequence[Coord]) -> Values:
    """The operand whose range the coordinate falls in; the others are not read."""
    b = r.builder
    dim: int = op.dim
    parts, total = _with_starts(op), op.result.shape[dim]
    at, unit = _part_of(r, op, coords[dim])
    result: Value | None = None
    for value, start, length in reversed(parts):
        inside = _between(b, at, *(exact(n, unit) for n in (start, length, total)))
        shifted = list(coords)
        shifted[dim] = shift(b, coords[dim], -1 * start)
        element = r.read(value, shifted, inside)
        result = element if result is None else b(Select, inside, element, result)
    if result is None:  # all are empty
        return (b.const(0, op.result.dtype),)
    return (result,)


def _part_of(r: GraphRegion, op: Concat, coord: Coord) -> tuple[Value, Dim]:
    """Where in a concatenation a coordinate is, and in what unit: which of even parts,
    where its axes tell, else which element."""
    part = even_part(op)
    if part is not None and isinstance(coord, Affine):
        digits = split(coord, (len(op.xs), part))
        if digits is not None:
            return coord_value(r.builder, digits[0]), part
    return coord_value(r.builder, coord), 1


def exact(a: Dim, b: Dim) -> Dim:
    """A quotient that is known to be one."""
    quotient = exact_div(a, b)
    assert quotient is not None
    return quotient


def _with_starts(op: Concat) -> list[tuple[Value, Dim, Dim]]:
    start: Dim = 0
    parts: list[tuple[Value, Dim, Dim]] = []
    for x in op.xs:
        length = x.shape[op.dim]
        if length != 0:
            parts.append((x, start, length))
        start = start + length
    return parts


def _pad(r: GraphRegion, op: Pad, coords: Sequence[Coord]) -> Values:
    b = r.builder
    inside: Value | None = None
    shifted: list[Coord] = []
    for coord, low, high, n in zip(coords, op.low, op.high, op.x.shape, strict=True):
        shifted.append(shift(b, coord, -1 * low))
        if low == 0 and high == 0:
            continue
        within = _between(b, coord_value(r.builder, coord), low, n, low + n + high)
        inside = within if inside is None else b(And, inside, within)
    value = r.scalar(op.value)
    if inside is None:
        return (r.read(op.x, coords),)
    return (b(Select, inside, r.read(op.x, shifted, inside), value),)


def _between(b: Builder, at: Value, start: Dim, length: Dim, total: Dim) -> Value:
    """start <= at < start + length, given 0 <= at < total."""
    below = b(Lt, at, b.size(start + length)) if start + length != total else None
    above = b(Ge, at, b.size(start)) if start != 0 else None
    if below is None:
        return above if above is not None else b.const(True, bool_)
    return below if above is None else b(And, above, below)


def _checked(r: GraphRegion, op: Checked, coords: Sequence[Coord]) -> Values:
    x, ok = (r.read(value, coords) for value in op.operands)
    if 0 not in op.result.shape:
        r.builder.emit(Check, (ok,), op.attrs)
    return (x,)


def _gather(r: GraphRegion, op: Gather, coords: Sequence[Coord]) -> Values:
    index = r.integer(r.read(op.index, coords))
    inner = list(coords)
    inner[op.dim] = index
    inside = r.checked(op.x.shape, {op.dim: index}, 0 not in op.result.shape)
    return (r.read(op.x, inner, inside),)


def _index(r: GraphRegion, op: Index, coords: Sequence[Coord]) -> Values:
    rank = len(op.indices[0].shape)
    chosen = coords[op.at : op.at + rank]
    kept = iter([*coords[: op.at], *coords[op.at + rank :]])
    picked = {
        dim: r.integer(r.read(index, chosen))
        for dim, index in zip(op.dims, op.indices, strict=True)
    }
    dims = range(len(op.x.shape))
    inner = [picked[d] if d in picked else next(kept) for d in dims]
    inside = r.checked(op.x.shape, picked, 0 not in op.result.shape)
    return (r.read(op.x, inner, inside),)


def scatter(r: GraphRegion, op: Scatter, start: Value) -> None:
    """Combine every element of the source into the result, which begins as `start`."""
    factors = r.sources.axes(op.src)
    coords = [coordinate(axes) for axes in factors]
    value = r.read(op.src, coords)
    picks = [r.integer(r.read(index, coords)) for index in op.picks]
    places: list[Coord] = [
        coords[at] if at >= 0 else picks[-1 - at] for at in op.places
    ]
    computed = {d: v for d, v in enumerate(places) if isinstance(v, Value)}
    mask = r.checked(op.result.shape, computed) if computed else None
    if op.mask is not None:
        wanted = r.read(op.mask, coords)
        mask = wanted if mask is None else r.builder(And, mask, wanted)
    r.update(op, value, start, places, tuple(a for axes in factors for a in axes), mask)


Point = Callable[[GraphRegion, Any, Sequence[Coord]], Values]

POINTS: Mapping[type, Point] = MappingProxyType(
    {
        Broadcast: _fill,
        Iota: _iota,
        Restride: _copy,
        Matmul: _matmul,
        ReduceDims: _reduce,
        ScanDim: _scan,
        Concat: _concat,
        Pad: _pad,
        Checked: _checked,
        Gather: _gather,
        Index: _index,
    }
)
