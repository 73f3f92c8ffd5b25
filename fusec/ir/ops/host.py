"""The host level: storage, launches and calls, in the order they run.

Values are tensors in memory. A launch writes its outputs in place; they are the last
of its operands, allocated before.
"""

from __future__ import annotations

from typing import Any

from fusec.ir.core import Block, Level, Op, Values
from fusec.ir.dims import Dim
from fusec.ir.opdef import attr, operand, operands
from fusec.ir.types import Type

HOST = (Level.HOST,)


class Alloc(Op, name="alloc", levels=HOST):
    """Memory for a tensor. `escapes`: it outlives the call, so the caller owns it.

    `zeroed` memory begins as zeros, other memory as anything.
    """

    pure = False

    type = attr(Type)
    escapes = attr(bool)
    zeroed = attr(bool, default=False)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return (attrs[0],)


class Free(Op, name="free", levels=HOST):
    """The last use of a tensor has passed."""

    pure = False

    x = operand()

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return ()


class Launch(Op, name="launch", levels=HOST):
    """Run `grid` programs of the tile function `kernel`.

    Operands are its parameters, inputs then outputs; `sizes` are the values of its
    symbols, in their order.
    """

    pure = False

    arguments = operands()
    kernel = attr(str)
    grid = attr(Dim)
    sizes = attr((Dim,))

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return ()


class CopyInto(Op, name="copy_into", levels=HOST):
    """Overwrite `target`, a parameter, with the elements of `x`."""

    pure = False

    x = operand()
    target = operand()

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return ()
