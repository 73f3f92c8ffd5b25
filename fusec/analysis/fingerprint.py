"""When two regions are the same but for names, so that one kernel serves both.

A model repeats its blocks; each repeats the same regions on other tensors. The
fingerprint of a region is its ops with values and axes numbered in order of
appearance: equal fingerprints mean equal code.
"""

from __future__ import annotations

from typing import Any, cast

from fusec.ir.builder import attrs_key
from fusec.ir.core import Affine, Block, Value
from fusec.ir.types import Axis, Points


def fingerprint(block: Block) -> tuple[Any, ...]:
    """A block as something to compare by: equal where only names differ."""
    numbers = _Numbers()
    params = tuple((numbers.value(p), p.type) for p in block.params)
    ops = tuple(
        (
            type(op),
            tuple(numbers.value(v) for v in op.operands),
            tuple(numbers.attr(a) for a in op.attrs),
            tuple(numbers.define(v) for v in op.results),
        )
        for op in block.ops
    )
    return params, ops


class Fingerprints:
    """The fingerprints of blocks, each taken once, however many regions share it."""

    def __init__(self) -> None:
        self._known: dict[Block, tuple[Any, ...]] = {}

    def of(self, block: Block) -> tuple[Any, ...]:
        """The fingerprint of a block."""
        if block not in self._known:
            self._known[block] = fingerprint(block)
        return self._known[block]


class _Numbers:
    """Numbers for values and axes, as they come."""

    def __init__(self) -> None:
        self._values: dict[Value, int] = {}
        self._axes: dict[Axis, tuple[int, Any]] = {}

    def value(self, value: Value) -> int:
        return self._values.setdefault(value, len(self._values))

    def define(self, value: Value) -> Any:
        """A result, with its type: its number alone says nothing of its dtype."""
        type_ = value.type
        if isinstance(type_, Points):
            axes = tuple(self.axis(axis) for axis in type_.axes)
            return self.value(value), type_.dtype, axes
        return self.value(value), type_

    def axis(self, axis: Axis) -> Any:
        """An axis by its number and extent."""
        return self._axes.setdefault(axis, (len(self._axes), axis.extent))

    def attr(self, attr: Any) -> Any:
        if isinstance(attr, Axis):
            return self.axis(attr)
        if isinstance(attr, Affine):
            terms = tuple((self.axis(axis), stride) for axis, stride in attr.terms)
            return terms, attr.const
        if isinstance(attr, tuple):
            return tuple(self.attr(part) for part in cast("tuple[Any, ...]", attr))
        return attrs_key((attr,))
