"""Calls to what fusec does not compile: an ATen op, a custom op.

    %y, %mask = extern "aten.native_dropout.default"($0, 0.5, true) %x : …

`arguments` is the call as written, with `Slot(k)` where operand k goes; what only torch
can name (a dtype, a device) is a `Named`. Nothing is looked up until the call runs.
"""

from __future__ import annotations

from typing import Any

from fusec.ir.core import Block, Level, Op, Values
from fusec.ir.dims import Symbol
from fusec.ir.opdef import attr, operands
from fusec.ir.types import Scalar, Tensor, Type


class Extern(Op, name="extern", levels=(Level.GRAPH, Level.LOOP, Level.HOST)):
    """Call `target` and take its tensors as results.

    `arguments` is a nested tuple of numbers, strings, None, dims, `Slot` and `Named`;
    `keywords` are pairs of a name and such a value; `types` are those of the results.
    """

    pure = False

    inputs = operands()
    target = attr(str)
    arguments = attr("tree")
    keywords = attr("tree")
    types = attr((Type,))

    @property
    def told(self) -> frozenset[Symbol]:
        """The symbols whose values a call may find out: a number is one if it is called
        so, and an extent of a tensor is."""
        numbers = [v for v in self.results if isinstance(v.type, Scalar)]
        tensors = [v.type for v in self.results if isinstance(v.type, Tensor)]
        extents = [n for type_ in tensors for n in type_.shape]
        return frozenset(
            (
                *(Symbol(value.hint) for value in numbers if value.hint),
                *(n for n in extents if isinstance(n, Symbol)),
            )
        )

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return attrs[3]
