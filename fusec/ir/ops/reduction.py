"""Reductions and scans over a monoid, once per level.

A scan keeps what a reduction passes through: element k of its result combines the
elements 0 to k, in their order, so its monoid need not commute.

The state of a monoid may be a tuple (an argmax carries a value and its index, a
Welford variance a mean, a sum of squares and a count), so a reduction takes as many
operands and gives as many results as the monoid has components.
"""

from __future__ import annotations

from typing import Any

from fusec.ir.core import Block, Level, Monoid, Op, Values
from fusec.ir.dtypes import i64
from fusec.ir.opdef import attr, operands
from fusec.ir.ops.space import check_dims, common_space
from fusec.ir.types import Axis, Element, IllTyped, Points, Scalar, Tensor, Tile, Type


class ReduceDims(Op, name="reduce_dims", levels=(Level.GRAPH,)):
    """Combine all elements along `dims`, which the results no longer have."""

    values = operands()
    dims = attr((int,))
    monoid = attr(Monoid)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        dims, monoid = attrs
        _check_arity(cls.name, operands, monoid)
        _check_alike(cls.name, operands, dims)
        return tuple(_drop(value.type, dims) for value in operands)


class Reduce(Op, name="reduce", levels=(Level.LOOP,)):
    """Combine the elements at all points of `axes`.

    The operands are read at every point of their axes together, and of `axes`, so the
    count of a variance may be the scalar 1 and the index of an argmax a coordinate.
    """

    values = operands()
    axes = attr((Axis,))
    monoid = attr(Monoid)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        axes, monoid = attrs
        _check_arity(cls.name, operands, monoid)
        space = common_space([value.type for value in operands])
        return tuple(_reduced(space, value.type, axes) for value in operands)


class ReduceTile(Op, name="reduce_tile", levels=(Level.TILE,)):
    """Combine the elements along `dims` of tiles, which keep extent 1."""

    values = operands()
    dims = attr((int,))
    monoid = attr(Monoid)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        dims, monoid = attrs
        _check_arity(cls.name, operands, monoid)
        _check_alike(cls.name, operands, dims)
        return tuple(_flattened(value.type, dims) for value in operands)


class ScanDim(Op, name="scan_dim", levels=(Level.GRAPH,)):
    """At each place, all elements up to it along `dim` combined; `reverse` from the
    other end."""

    values = operands()
    dim = attr(int)
    monoid = attr(Monoid)
    reverse = attr(bool, default=False)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        _check_arity(cls.name, operands, attrs[1])
        _check_alike(cls.name, operands, (attrs[0],))
        return tuple(Tensor(v.dtype, v.shape) for v in operands)


class Scan(Op, name="scan", levels=(Level.LOOP,)):
    """At each point, the elements at all points up to it on `axis` combined."""

    values = operands()
    axis = attr(Axis)
    monoid = attr(Monoid)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        axis, monoid = attrs
        _check_arity(cls.name, operands, monoid)
        space = common_space([*(v.type for v in operands), Points(i64, (axis,))])
        return tuple(_over(space, value.type) for value in operands)


class ScanTile(Op, name="scan_tile", levels=(Level.TILE,)):
    """Along `dim`, `starts` and the elements up to each place combined.

    Operands: the values, then as many starts, tiles of extent 1 along `dim`. Results:
    the scanned values, then as many totals, which are the starts of what comes next.
    """

    parts = operands()
    dim = attr(int)
    monoid = attr(Monoid)

    @property
    def values(self) -> Values:
        return self.parts[: len(self.parts) // 2]

    @property
    def starts(self) -> Values:
        return self.parts[len(self.parts) // 2 :]

    @property
    def scanned(self) -> Values:
        return self.results[: len(self.results) // 2]

    @property
    def totals(self) -> Values:
        return self.results[len(self.results) // 2 :]

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        dim, monoid = attrs
        half = len(monoid.identity)
        if len(operands) != 2 * half:
            raise IllTyped(f"{cls.name}: {len(operands)} operands, not 2 × {half}")
        values, starts = operands[:half], operands[half:]
        _check_alike(cls.name, values, (dim,))
        totals = tuple(_flattened(value.type, (dim,)) for value in values)
        if totals != tuple(start.type for start in starts):
            raise IllTyped(f"{cls.name}: starts of other types than the totals have")
        return (*(value.type for value in values), *totals)


def _check_arity(name: str, operands: Values, monoid: Monoid) -> None:
    if len(operands) != len(monoid.identity):
        raise IllTyped(
            f"{name} of {len(operands)} operands, but {monoid.name} has"
            f" {len(monoid.identity)} components"
        )


def _check_alike(name: str, values: Values, dims: tuple[int, ...]) -> None:
    """That all have one shape, which has the dimensions."""
    for value in values:
        if not isinstance(value.type, (Tensor, Tile)):
            raise IllTyped(f"{name} of {value.type}, which has no dimensions")
        if value.shape != values[0].shape:
            raise IllTyped(f"{name} of {value.type} along with {values[0].type}")
        check_dims(name, dims, len(value.shape))


def _drop(type_: Type, dims: tuple[int, ...]) -> Type:
    if not isinstance(type_, Tensor):
        raise IllTyped(f"cannot reduce dimensions of {type_}")
    kept = tuple(n for d, n in enumerate(type_.shape) if d not in dims)
    return Tensor(type_.dtype, kept)


def _reduced(space: Element, type_: Type, axes: tuple[Axis, ...]) -> Type:
    if not isinstance(type_, (Points, Scalar)):
        raise IllTyped(f"cannot reduce axes of {type_}")
    over = space.axes if isinstance(space, Points) else ()
    return Points(type_.dtype, tuple(a for a in over if a not in axes))


def _over(space: Element, type_: Type) -> Type:
    if not isinstance(type_, (Points, Scalar)) or not isinstance(space, Points):
        raise IllTyped(f"cannot scan {type_}")
    return Points(type_.dtype, space.axes)


def _flattened(type_: Type, dims: tuple[int, ...]) -> Type:
    if not isinstance(type_, Tile):
        raise IllTyped(f"cannot reduce a tile of {type_}")
    shape = tuple(1 if d in dims else n for d, n in enumerate(type_.shape))
    layout = type_.layout
    for dim in dims:
        layout = layout.drop(dim) if layout else None
    return Tile(type_.dtype, shape, layout)
