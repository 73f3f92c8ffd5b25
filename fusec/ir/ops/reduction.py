"""Reductions over a monoid, once per level.

The state of a monoid may be a tuple (an argmax carries a value and its index, a
Welford variance a mean, a sum of squares and a count), so a reduction takes as many
operands and gives as many results as the monoid has components.
"""

from __future__ import annotations

from typing import Any

from fusec.ir.core import Block, Level, Monoid, Op, Values
from fusec.ir.opdef import attr, operands
from fusec.ir.ops.space import common_space
from fusec.ir.types import Axis, Element, Points, Scalar, Tensor, Tile, Type


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
        return tuple(_flattened(value.type, dims) for value in operands)


def _check_arity(name: str, operands: Values, monoid: Monoid) -> None:
    if len(operands) != len(monoid.identity):
        raise TypeError(
            f"{name} of {len(operands)} operands, but {monoid.name} has"
            f" {len(monoid.identity)} components"
        )


def _drop(type_: Type, dims: tuple[int, ...]) -> Type:
    if not isinstance(type_, Tensor):
        raise TypeError(f"cannot reduce dimensions of {type_}")
    kept = tuple(n for d, n in enumerate(type_.shape) if d not in dims)
    return Tensor(type_.dtype, kept)


def _reduced(space: Element, type_: Type, axes: tuple[Axis, ...]) -> Type:
    if not isinstance(type_, (Points, Scalar)):
        raise TypeError(f"cannot reduce axes of {type_}")
    over = space.axes if isinstance(space, Points) else ()
    return Points(type_.dtype, tuple(a for a in over if a not in axes))


def _flattened(type_: Type, dims: tuple[int, ...]) -> Type:
    if not isinstance(type_, Tile):
        raise TypeError(f"cannot reduce a tile of {type_}")
    shape = tuple(1 if d in dims else n for d, n in enumerate(type_.shape))
    layout = type_.layout
    for dim in dims:
        layout = layout.drop(dim) if layout else None
    return Tile(type_.dtype, shape, layout)
