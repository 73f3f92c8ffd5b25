"""When two regions are the same but for names, so that one kernel serves both.

A model repeats its blocks; each repeats the same regions on other tensors. The
fingerprint of a block is its ops with values, axes and symbols numbered in order of
appearance: equal fingerprints mean equal code.

    load %x [i, j] over i:s3, j:8        s3 >= 2, likely 40     the same, one
    load %y [k, l] over k:s5, l:8        s5 >= 2, likely 40     with s5 for s3
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from fusec.ir.builder import attrs_key
from fusec.ir.core import Affine, Block, Monoid, Op, Value
from fusec.ir.dims import Dim, Expr, Facts, Symbol, format_dim, substitute, symbols
from fusec.ir.types import Axis, Points, Tensor


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a block is but for names."""

    key: tuple[Any, ...]
    """To compare by: equal where only names differ."""
    symbols: tuple[Symbol, ...]
    """The symbols of the block, in the order that `key` numbers them."""

    @property
    def text(self) -> str:
        """The key as a text, the same in every process: to keep things under."""
        return _text(self.key)


def _text(part: Any) -> str:
    if isinstance(part, tuple):
        return f"({' '.join(map(_text, cast('tuple[Any, ...]', part)))})"
    if isinstance(part, frozenset):
        return f"{{{' '.join(sorted(map(_text, cast('frozenset[Any]', part))))}}}"
    if isinstance(part, type):
        return part.name if issubclass(part, Op) else part.__name__
    if isinstance(part, Monoid):  # one for each name
        return part.name
    return format_dim(part) if isinstance(part, Expr) else repr(part)


class Fingerprints:
    """The fingerprints of a function's blocks, each taken once, however many regions
    share it. Symbols are the same if as much is known of them."""

    def __init__(self, facts: Facts, hints: Mapping[Symbol, int]) -> None:
        self.facts = facts
        self.hints = hints
        self._known: dict[Block, Fingerprint] = {}

    def of(self, block: Block) -> Fingerprint:
        """The fingerprint of a block."""
        if block not in self._known:
            self._known[block] = self._taken(block)
        return self._known[block]

    def _taken(self, block: Block) -> Fingerprint:
        numbers = _Numbers()
        params = tuple((numbers.value(p), numbers.attr(p.type)) for p in block.params)
        ops = tuple(
            (
                type(op),
                tuple(numbers.value(v) for v in op.operands),
                tuple(numbers.attr(a) for a in op.attrs),
                tuple(numbers.define(v) for v in op.results),
            )
            for op in block.ops
        )
        names = numbers.symbols
        facts = self.facts.about(names)
        ranges = frozenset((names[s], *limits) for s, *limits in facts.ranges)
        divisors = frozenset((substitute(dim, names), n) for dim, n in facts.divisors)
        known = ranges, divisors, tuple(map(self.hints.get, names))
        return Fingerprint((params, ops, known), tuple(names))


class _Numbers:
    """Numbers for values, axes and symbols, as they come."""

    def __init__(self) -> None:
        self._values: dict[Value, int] = {}
        self._axes: dict[Axis, tuple[int, Any]] = {}
        self.symbols: dict[Symbol, Symbol] = {}

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
        if axis not in self._axes:
            self._axes[axis] = len(self._axes), self.dim(axis.extent)
        return self._axes[axis]

    def dim(self, dim: Dim) -> Dim:
        """A size of numbered symbols."""
        if isinstance(dim, int):
            return dim
        for symbol in sorted(symbols(dim), key=lambda symbol: symbol.name):
            self.symbols.setdefault(symbol, Symbol(f"n{len(self.symbols)}"))
        return substitute(dim, self.symbols)

    def attr(self, attr: Any) -> Any:
        if isinstance(attr, Axis):
            return self.axis(attr)
        if isinstance(attr, Affine):
            terms = tuple((self.axis(a), self.dim(stride)) for a, stride in attr.terms)
            return terms, self.dim(attr.const)
        if isinstance(attr, Expr):
            return self.dim(attr)
        if isinstance(attr, Tensor):
            strides = attr.strides and tuple(map(self.dim, attr.strides))
            return attr.dtype, tuple(map(self.dim, attr.shape)), strides
        if isinstance(attr, tuple):
            return tuple(self.attr(part) for part in cast("tuple[Any, ...]", attr))
        return attrs_key((attr,))
