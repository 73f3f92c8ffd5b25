"""The loop level: elements at points of named axes, read and written by affine index.

    %e = region(%x) {                      # reads tensor %x, makes tensor %e
      ^(%x: f32[4, 8], %e: f32[4, 8]):
      %0 = load %x [i, j]                  # : f32{i, j}
      %1 = exp %0
      store %1, %e [i, j]
    }

A region is the unit of fusion: two become one by unifying their axes and running one
block after the other. There are no views here and no layouts yet.
"""

from __future__ import annotations

from typing import Any

from fusec.ir.calls import Slot
from fusec.ir.core import Affine, Block, Level, Op, Value, Values
from fusec.ir.dtypes import bool_, i64
from fusec.ir.opdef import attr, block, operand, operands
from fusec.ir.ops.space import common_space
from fusec.ir.ops.updating import check_way
from fusec.ir.types import (
    Axis,
    Element,
    IllTyped,
    Points,
    Scalar,
    Tensor,
    Type,
    with_dtype,
)

LOOP = (Level.LOOP,)


class Region(Op, name="region", levels=LOOP):
    """One fused loop nest. The block receives the inputs, then the results."""

    closed = True

    inputs = operands()
    body = block()

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return tuple(param.type for param in blocks[0].params[len(operands) :])

    @property
    def starts(self) -> dict[Value, Value]:
        """The input that each updated result begins as."""
        body: Block = self.body
        outer = dict(zip(body.params, (*self.operands, *self.results), strict=True))
        return {outer[v]: outer[op.start] for v, op in updates(body).items()}


class Coordinate(Op, name="coordinate", levels=LOOP):
    """The position on `axis`, as i64."""

    axis = attr(Axis)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return (Points(i64, (attrs[0],)),)


class Load(Op, name="load", levels=LOOP):
    """The element of a tensor at `index`, at every point of the axes in it.

    One entry per dimension: an `Affine`, or `Slot(k)` for the k-th of `indices`,
    which are i64 points. With `masked`, the last two of `indices` are a mask and the
    value to give where it is false; nothing is read there.
    """

    buffer = operand()
    indices = operands()
    index = attr(("index",))
    masked = attr(bool, default=False)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        tensor = operands[0].type
        if not isinstance(tensor, Tensor) or len(tensor.shape) != len(attrs[0]):
            raise IllTyped(f"index {attrs[0]} does not fit {tensor}")
        if attrs[1] and operands[-1].dtype is not tensor.dtype:
            raise IllTyped(f"load of {tensor.dtype.name}, else {operands[-1].type}")
        return (with_dtype(_space(operands[1:], attrs), tensor.dtype),)

    @property
    def slots(self) -> Values:
        """The computed indices, without mask and other."""
        return self.indices[:-2] if self.masked else self.indices

    @property
    def mask(self) -> Any:
        return self.indices[-2] if self.masked else None

    @property
    def other(self) -> Any:
        return self.indices[-1] if self.masked else None


class Write(Op):
    """What storing and updating share: an element, and where in a result it goes."""

    value: Value
    buffer: Value
    indices: Values
    index: tuple[Any, ...]

    @property
    def slots(self) -> Values:
        """The computed indices."""
        return self.indices


class Store(Write, name="store", levels=LOOP):
    """Write an element of a result at `index`, at every point of the value's axes."""

    pure = False

    value = operand()
    buffer = operand()
    indices = operands()
    index = attr(("index",))

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        _check_written(cls.name, operands, attrs[0])
        return ()


class Update(Write, name="update", levels=LOOP):
    """Combine an element with that of a result at `index`, at every point of `axes`.

        update %v, %y, %x, %at [$0, j] {combine="sum"} over i:8, j:4

    The result begins as `start`, a parameter of its type. Several points may meet in
    one place, in any order: `updating` has the ways to combine. With `masked`, the
    last of `indices` says where there is anything to combine.
    """

    pure = False

    value = operand()
    buffer = operand()
    start = operand()
    indices = operands()
    index = attr(("index",))
    axes = attr((Axis,))
    combine = attr(str)
    masked = attr(bool, default=False)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        index, _, combine, masked = attrs
        _check_written(cls.name, operands, index)
        if operands[2].type != operands[1].type:
            raise IllTyped(f"{operands[1].type} cannot begin as {operands[2].type}")
        if masked and operands[-1].type.dtype is not bool_:  # type: ignore[union-attr]
            raise IllTyped(f"mask of type {operands[-1].type}")
        check_way(combine)
        return ()

    @property
    def slots(self) -> Values:
        """The computed indices, without the mask."""
        return self.indices[:-1] if self.masked else self.indices

    @property
    def mask(self) -> Any:
        return self.indices[-1] if self.masked else None


def updates(block: Block) -> dict[Value, Update]:
    """The update of each result that has one, in the block of a region."""
    return {op.buffer: op for op in block.ops if isinstance(op, Update)}


class View(Op, name="view", levels=(Level.LOOP, Level.HOST)):
    """The memory of a tensor under another shape and strides, `offset` elements in."""

    x = operand()
    type = attr(Type)
    offset = attr("dim")

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return (attrs[0],)


def _check_written(name: str, operands: Values, index: tuple[Any, ...]) -> None:
    value, tensor = operands[0].type, operands[1].type
    if not isinstance(tensor, Tensor) or len(tensor.shape) != len(index):
        raise IllTyped(f"index {index} does not fit {tensor}")
    if not isinstance(value, (Points, Scalar)) or value.dtype is not tensor.dtype:
        raise IllTyped(f"{name} of {value} into {tensor}")


def _space(indices: Values, attrs: tuple[Any, ...]) -> Element:
    index, masked = attrs
    axes: list[Type] = [Points(i64, e.axes) for e in index if isinstance(e, Affine)]
    slots = {e.index for e in index if isinstance(e, Slot)}
    if slots and max(slots) >= len(indices):
        raise IllTyped(f"index {index} names an operand that is not there")
    if masked and indices[-2].type.dtype is not bool_:  # type: ignore[union-attr]
        raise IllTyped(f"mask of type {indices[-2].type}")
    # What is read is known at points, if only at one, though its index is a constant.
    return common_space([Points(i64, ()), *axes, *(v.type for v in indices)])
