"""What few elements need, computed apart from what is usual.

    %c = gt %a 1048576.0                 # the large angles
    %y = rare %c %s %x {                 # %s elsewhere
      ^(%0: f32):
      …                                  # one element at a time, as scalars
      yield %9
    }

It means `select %c %far %s`, where %far is the block on every element. A backend that
branches computes the block where the condition holds, and only there; for another,
`expand` writes the select.
"""

from __future__ import annotations

from typing import Any

from fusec.ir.core import Block, Level, Op, Values
from fusec.ir.dtypes import bool_
from fusec.ir.opdef import block, operand, operands
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.space import common_space
from fusec.ir.types import IllTyped, Scalar, Type, with_dtype


class Rare(Op, name="rare", levels=(Level.GRAPH, Level.LOOP, Level.TILE)):
    """What the block yields for `xs` where `cond`, which is rare, else `usual`."""

    closed = True

    cond = operand()
    usual = operand()
    xs = operands()
    body = block()

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        cond, usual, *xs = operands
        if dtype_of(cond) is not bool_:
            raise IllTyped(f"rare where {dtype_of(cond).name}, which is not bool")
        if any(dtype_of(x).is_bool for x in (usual, *xs)):
            raise IllTyped("rare takes no bools but its condition")
        (body,) = blocks
        if [p.type for p in body.params] != [Scalar(dtype_of(x)) for x in xs]:
            raise IllTyped("rare: the block takes other scalars than elements of xs")
        if [y.type for y in body.yields] != [Scalar(dtype_of(usual))]:
            raise IllTyped("rare: the block yields no scalar such as the usual ones")
        space = common_space([value.type for value in operands])
        return (with_dtype(space, dtype_of(usual)),)

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        cond, usual, *_ = operands
        # rare false x … -> x, where x has the space of all
        if builder.constant(cond) is not False:
            return None
        space = common_space([value.type for value in operands])
        return (usual,) if usual.type == with_dtype(space, dtype_of(usual)) else None
