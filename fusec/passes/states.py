"""What reductions hold from trip to trip: in registers, or in scratch memory.

    %s = dot_tile %s, %x, %y           in a loop: its state in registers
    held = load_tile %scratch          after a run of it: what the runs before came to
    %t = add held, %s                  what they come to together

A reduction has a state for each chunk of the loops inside that it does not combine
along. One that combines in runs, with such loops between, brings each state to
registers for a run, and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fusec.analysis.sweeps import along, ending
from fusec.ir.builder import Builder
from fusec.ir.core import Op, Value, Values
from fusec.ir.dtypes import i64
from fusec.ir.monoids import combine
from fusec.ir.ops.constant import Const
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.elementwise import Add, Minimum
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.ops.tile import BroadcastTile
from fusec.ir.types import Tile
from fusec.passes.chunks import Chunks, Memory, Scope, States, chunk_type
from fusec.passes.extents import Extents, at_most_once
from fusec.passes.nests import Nest, Reduction, in_register, monoid_of


class Holding:
    """Emits what begins, combines and ends the states of one kernel."""

    def __init__(self, chunks: Chunks, extents: Extents) -> None:
        self.chunks = chunks
        self.extents = extents
        self.builder = chunks.builder

    def begin(self, scope: Scope, op: Reduction | ScanTile) -> Values:
        """The state that a loop starts from, in registers."""
        if isinstance(op, ReduceTile):
            return self.identities(scope, op)
        if isinstance(op, DotTile) and in_register(op) != chunk_type(op.state.type):
            return self.identities(scope, op)
        starts = op.starts if isinstance(op, ScanTile) else (op.state,)
        self.chunks.want(scope, starts)
        return tuple(scope[v] for v in starts)

    def identities(self, scope: Scope, op: Reduction) -> Values:
        """What makes no difference to a reduction, for one chunk in registers."""
        if isinstance(op, DotTile):
            return self.filled([in_register(op)], (0,))
        types = [chunk_type(value.type) for value in op.values]
        return self.filled(types, op.monoid.identity)

    def filled(self, types: Iterable[Tile], numbers: Iterable[Any]) -> Values:
        """Tiles of one number each. They stand outside all loops."""
        b = self.builder
        return tuple(
            b(BroadcastTile, b.const(number, type_.dtype), type=type_)
            for type_, number in zip(types, numbers, strict=True)
        )

    def absorb(self, scope: Scope, op: Reduction, state: Values) -> Values:
        """The state combined with the current chunk."""
        if isinstance(op, ReduceTile):
            new = self.alone(scope, op)
            return combine(scope.builder, op.monoid, state, new)
        self.chunks.want(scope, [op.x, op.y])
        scope.builder.loc = op.loc
        operands = (*state, *self.chunks.factors(scope, op))
        return scope.builder.emit(DotTile, operands, (), (), None, op.hints)

    def alone(self, scope: Scope, op: Reduction) -> Values:
        """The state of the current chunk only."""
        if isinstance(op, DotTile):
            return self.absorb(scope, op, self.identities(scope, op))
        self.chunks.want(scope, op.values)
        return self.chunks.guarded(scope, op)

    def folded(self, scope: Scope, op: Reduction, state: Values) -> Values:
        """The state with one element for all registers and lanes along what is
        combined."""
        b = scope.builder
        b.loc = op.loc
        if isinstance(op, ReduceTile):
            return b.emit(ReduceTile, state, op.attrs, (), None, op.hints)
        if state[0].type == chunk_type(op.state.type):
            return state
        return b.emit(ReduceTile, state, (op.dims, monoid_of(op)), (), None, op.hints)

    def joined(self, scope: Scope, op: Reduction, state: Values) -> Values:
        """The state of a run, and what memory holds of the runs before."""
        folded = self.folded(scope, op, state)
        held = tuple(self.chunks.taken(scope, value) for value in op.results)
        return combine(scope.builder, monoid_of(op), held, folded)

    def define(self, scope: Scope, op: Op, known: Values) -> None:
        scope.values.update(zip(ending(op), known, strict=True))

    def finish(self, scope: Scope, op: Reduction | ScanTile, state: Values) -> None:
        """What is known when a loop has ended."""
        if not isinstance(op, ScanTile):
            known = self.folded(scope, op, state)
            if isinstance(op, DotTile) and known[0] is not state[0]:
                self.chunks.want(scope, [op.state])
                starts = (scope[op.state],)
                known = combine(scope.builder, monoid_of(op), starts, known)
            state = known
        self.define(scope, op, state)

    def begin_in_memory(
        self, scope: Scope, nest: Nest, op: Reduction | ScanTile
    ) -> None:
        """A state for each chunk of the loops inside, in scratch memory."""
        for value in ending(op):
            self.chunks.make_room(value)
        self.fill(scope, nest, op)

    def fill(self, scope: Scope, nest: Nest, op: Reduction | ScanTile) -> None:
        """Set the states of an op in memory to what they start from."""

        def once(inner: Scope) -> None:
            if isinstance(op, ReduceTile):
                types = [chunk_type(value.type) for value in op.results]
                found = self.filled(types, op.monoid.identity)
            else:
                starts = op.starts if isinstance(op, ScanTile) else (op.state,)
                self.chunks.want(inner, starts)
                found = tuple(inner[v] for v in starts)
            for value, start in zip(ending(op), found, strict=True):
                self.chunks.put_aside(inner, value, start)

        self.extents.each(scope, nest.chunks(op), once)

    def accumulate(self, scope: Scope, op: Reduction, state: Values) -> None:
        """Combine a chunk, or a run of them, into the state in memory."""
        total = self.joined(scope, op, state)
        for value, found in zip(op.results, total, strict=True):
            self.chunks.put_aside(scope, value, found)

    def runs_around(
        self, scope: Scope, nest: Nest, op: Reduction
    ) -> tuple[Value, Value]:
        """Whether a run that an op combines came before the current one, and whether
        one will come after it: 1 if so, else 0."""
        b = scope.builder
        before = after = b.const(0, i64)
        for loop in nest.loops[: nest.run(op)]:
            if loop in along(op):
                before = b(Add, before, scope.counters[loop])
                after = b(Add, after, scope.left[loop])
        one = b.const(1, i64)
        return b(Minimum, before, one), b(Minimum, after, one)

    def with_runs_before(
        self, scope: Scope, op: DotTile, before: Value, state: Values
    ) -> Values:
        """The state of a run, and what memory holds if there were runs before it."""
        self.chunks.make_room(op.result)
        add, folded = monoid_of(op), self.folded(scope, op, state)
        first = folded
        if not self.starts_from_zero(op):
            self.chunks.want(scope, [op.state])
            first = combine(scope.builder, add, (scope[op.state],), folded)

        def later(b: Builder, _: States) -> States:
            held = (self.chunks.taken(scope.unmoved(b), op.result),)
            return {op: combine(b, add, held, folded)}

        bounds = scope.builder.const(0, i64), before
        return at_most_once(scope.builder, bounds, {op: first}, later)[op]

    def starts_from_zero(self, op: DotTile) -> bool:
        """Whether what an op starts from makes no difference to it."""
        filled = self.chunks.made.get(op.state)
        if not isinstance(filled, BroadcastTile):
            return False
        number = self.chunks.made.get(filled.operands[0])
        return isinstance(number, Const) and number.value == 0

    def join(
        self, scope: Scope, nest: Nest, op: ReduceTile, parts: Mapping[Value, Memory]
    ) -> None:
        """Combine the states of a run in memory into those of the runs before."""

        def once(inner: Scope) -> None:
            left = tuple(self.chunks.taken(inner, v) for v in op.results)
            right = tuple(self.chunks.taken(inner, v, parts[v]) for v in op.results)
            states = combine(inner.builder, op.monoid, left, right)
            for value, state in zip(op.results, states, strict=True):
                self.chunks.put_aside(inner, value, state)

        self.extents.each(scope, nest.chunks(op), once)
