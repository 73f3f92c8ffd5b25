"""What regions are like, so that a model's repeated layers are lowered once.

    %a = exp %x        %x: f32[4, 8]      one form over one tensor: the block that the
    %b = exp %y        %y: f32[4, 8]      first is lowered to serves the second
    %c = mul %a, %a                       over one tensor
    %d = mul %a, %b                       another form, over two

The form of a region is all that its block depends on: the op, the views and scalars
between it and the tensors that it reads, their types, where they are the same, how
dimensions are cut, and the source line. Names do not matter: blocks that are shared
have none of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fusec.ir.builder import attrs_key
from fusec.ir.core import Block, Value, Values
from fusec.ir.types import Scalar, Tensor
from fusec.passes.graph_regions import GraphRegion, Sources


@dataclass(frozen=True, slots=True)
class _Form:
    """A block, and which of the values that a form reads are its inputs, in order."""

    block: Block
    inputs: tuple[int, ...]


class Forms:
    """The forms of the regions so far."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._known: dict[object, _Form] = {}

    def lowered(
        self,
        kind: object,
        operands: Values,
        results: Values,
        build: Callable[[GraphRegion], None],
    ) -> tuple[Sequence[Value], Block]:
        """The inputs and the block of a region that makes `results` of graph values.

        `build` fills the region; `kind` and the form of the operands decide how.
        """
        reading = _Reading(self.sources)
        tensors = (v for v in (*operands, *results) if isinstance(v.type, Tensor))
        cuts = tuple(map(self.sources.factors.of, tensors))
        types = tuple(value.type for value in results)
        key = kind, self.sources.builder.loc, types, cuts, reading.form(operands)
        leaves = list(reading.leaves)
        if key not in self._known:
            region = GraphRegion(self.sources)
            build(region)
            places = {self._tensor(leaf): k for k, leaf in enumerate(leaves)}
            made = region.finish()
            inputs = tuple(places[tensor] for tensor in made.inputs)
            self._known[key] = _Form(made.block, inputs)
        form = self._known[key]
        return [self._tensor(leaves[k]) for k in form.inputs], form.block

    def _tensor(self, leaf: Value) -> Value:
        return self.sources.boxed(leaf) if isinstance(leaf.type, Scalar) else leaf


class _Reading:
    """What lies between the operands of an op and the tensors that hold them."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.leaves: dict[Value, int] = {}
        """Tensors of the function, and scalars of the graph that the host knows."""

    def form(self, operands: Values) -> tuple[Any, ...]:
        """Each operand before what it is computed from, as a sequence."""
        parts: list[Any] = []
        seen: dict[Value, int] = {}
        stack = list(reversed(operands))
        while stack:
            value = stack.pop()
            if value in seen:
                parts.append(seen[value])
                continue
            seen[value] = len(parts)
            op = self.sources.made.get(value)
            held = self.sources.stored.get(value)
            if op is not None and held is None:
                parts.append((type(op), attrs_key(op.attrs), value.type))
                stack.extend(reversed(op.operands))
                continue
            leaf = held if held and isinstance(value.type, Tensor) else value
            number = self.leaves.setdefault(leaf, len(self.leaves))
            parts.append((number, leaf.type, value.type))
        return tuple(parts)
