"""Turn time digits into loops: loop structure follows from layouts alone.

    %x = load_tile : tile<[1000], 16:time 4:reg 16:lane>
    %s = reduce_tile %x sum
    %y = sub %x, %s
        →
    %a = for %k = 0 to 960 step 64 carry 0 { load_tile, add }   sweep 0, whole chunks
    …    load_tile (limit 40), guard, add                       sweep 0, the tail
    %s = reduce_tile %a
    for %k = 0 to 960 step 64 { load_tile, sub, store_tile }    sweep 1
    …    load_tile (limit 40), sub, store_tile                  sweep 1, the tail

Ops are numbered by sweep, the longest chain of reductions over time digits before
them. A sweep is one nest of loops for all its reductions and stores over the same
loops, which stand in the order of their strides in time. What they need is computed in
it again, from memory or from the scratch that the schedule says to keep, each op in the
outermost loop that it varies with; what is `stage`d, ahead of the first loop that it
lacks. Only the last chunk of a loop can be partial; it is peeled off, so that limits
and guards burden it alone.

Reductions and scans carry their states in registers; where loops over other dimensions
lie inside, there is a state for each of their chunks, in scratch memory, and the
innermost loops combine in registers before they meet it. What follows from a reduction
at once is computed where it ends. Sums that would lose digits in a long loop cascade:
runs of chunks are added apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from fusec.analysis.sweeps import (
    Loop,
    Loops,
    Order,
    along,
    ending,
    loops_of,
    timed,
    walked,
)
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Op, Value, Values
from fusec.ir.dims import Dim
from fusec.ir.dtypes import i64
from fusec.ir.layout import Layout
from fusec.ir.monoids import combine
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.elementwise import Add, Maximum, Minimum, Mul, Sub, TruncDiv
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.ops.tile import (
    BroadcastTile,
    For,
    LoadTile,
    Stage,
    StoreTile,
)
from fusec.ir.types import Tile
from fusec.passes.chunks import (
    Chunks,
    Memory,
    Scope,
    States,
    chunk_type,
)
from fusec.passes.nests import Nest, Reduction, in_register, inexact, monoid_of

CASCADE = 32
"""Trips of a loop whose results are combined before they join the others."""


def stripmine(function: Function, keep: Iterable[Value] = ()) -> Function:
    """The kernel with a loop for every time digit.

    `keep` are values of the function that later sweeps read back from scratch memory
    instead of computing them again; their extents are known.
    """
    return _Stripmining(function, keep).run()


class _Stripmining:
    """The state of one kernel's rewriting."""

    def __init__(self, function: Function, keep: Iterable[Value]) -> None:
        self.function = function
        self.builder = Builder(function.level)
        self.chunks = Chunks(function, self.builder)
        self.used = {v for op in function.body.ops for v in op.operands}
        self.keep = [v for v in keep if loops_of(v)]
        self.order = Order(function)
        self.layout = _widest(function)
        self.limits = _given_limits(function)
        self.done: dict[Op, Nest] = {}
        """Stores that stand where the reduction ends that they wait for, in whose nest:
        at every end of its loop, whole or partial."""

    def run(self) -> Function:
        top = Scope(self.builder)
        for old in self.function.params:
            top.values[old] = self.builder.param(old.type, old.hint)
        top.limits = {**self.padding(top), **self.given(top)}
        for value in self.keep:
            self.chunks.make_room(value)
        for sweep in range(max(self.chunks.sweeps.values(), default=0) + 1):
            self.chunks.now = sweep
            for nest in self.nests():
                self.walk(top, nest, 0, {})
        return self.builder.successor(self.function)

    def given(self, top: Scope) -> dict[int, Value]:
        """Limits that the kernel came with, of dimensions that fit one chunk."""
        assert self.layout is not None or not self.limits
        flat = {
            d: limit
            for d, limit in self.limits.items()
            if self.layout is not None and not timed(self.layout.dims[d])
        }
        self.chunks.want(top, list(flat.values()))
        return {d: top[limit] for d, limit in flat.items()}

    def padding(self, top: Scope) -> dict[int, Value]:
        """Limits of the dimensions that fit one chunk and do not fill it."""
        if self.layout is None:
            return {}
        return {
            d: top.builder.size(n)
            for d, (digits, n, padded) in enumerate(
                zip(
                    self.layout.dims,
                    self.layout.shape,
                    self.layout.padded_shape,
                    strict=True,
                )
            )
            if not timed(digits) and n != padded
        }

    def nests(self) -> list[Nest]:
        """The loop nests of the current sweep, one for the loops they consist of."""
        found: dict[Loops, Nest] = {}

        def over(loops: Loops) -> Nest:
            return found.setdefault(loops, Nest(self.order(loops)))

        for value in self.keep:
            if self.chunks.sweeps[self.chunks.made[value]] == self.chunks.now:
                over(loops_of(value)).kept.append(value)
        for op in self.function.body.ops:
            if self.chunks.sweeps[op] != self.chunks.now or op in self.done:
                continue
            if isinstance(op, StoreTile):
                over(loops_of(op.value)).stores.append(op)
            elif isinstance(op, (ReduceTile, DotTile)) and ending(op):
                over(walked(op)).reductions.append(op)
            elif isinstance(op, ScanTile) and self.used & {*ending(op)}:
                over(walked(op)).scans.append(op)
        for nest in found.values():
            self.complete(nest)
        return list(found.values())

    def complete(self, nest: Nest) -> None:
        """Find what a nest needs on its way: scans over time, again if an earlier nest
        ran them, and what is staged."""
        scans = dict.fromkeys(nest.scans)
        stages: dict[Stage, None] = {}
        seen: set[Value] = set()
        stack = [*nest.sinks, *(v for op in scans for v in op.operands)]
        while stack:
            value = stack.pop()
            op = self.chunks.made.get(value)
            if value in seen or op is None or value in ending(op):
                continue
            seen.add(value)
            if self.chunks.is_kept(value):
                continue
            if isinstance(op, ScanTile) and ending(op):
                scans[op] = None
            elif isinstance(op, Stage):
                stages[op] = None
            stack.extend(op.operands)
        nest.scans, nest.stages = list(scans), list(stages)

    # Loops

    def walk(self, scope: Scope, nest: Nest, k: int, states: States) -> States:
        """Loops number k and further of a nest; what they carried has come to."""
        if k == len(nest.loops):
            staged = [self.stage(scope, op) for op in nest.staged(k)]
            ended = self.body(scope, nest, states)
            self.chunks.staged.difference_update(staged)
            return ended
        opened, resumed = nest.opened(k), nest.resumed(k)
        held = [op for op in opened if not nest.inside(op)]
        for op in opened:
            if op not in held:
                self.begin_in_memory(scope, nest, op)
        staged = [self.stage(scope, op) for op in nest.staged(k)]
        begun: States = {op: self.begin(scope, op) for op in held}
        begun |= {op: self.identities(scope, op) for op in resumed}
        ended = self.sweep(scope, nest, k, {**states, **begun})
        self.chunks.staged.difference_update(staged)
        finished: list[Op] = []
        for op in held:
            self.finish(scope, op, ended[op])
            finished.append(op)
        for op in resumed:
            if self.is_final(scope, nest, op):
                self.define(scope, op, self.joined(scope, op, ended[op]))
                finished.append(op)
            else:
                self.accumulate(scope, op, ended[op])
        self.follow(scope, nest, k, finished)
        return {op: ended[op] for op in states}

    def is_final(self, scope: Scope, nest: Nest, op: Reduction) -> bool:
        """Whether all outer loops that an op combines along are in their last trips."""
        return along(op) & {*nest.loops[: nest.run(op)]} <= scope.final

    def sweep(self, scope: Scope, nest: Nest, k: int, states: States) -> States:
        """One loop: runs of chunks, whole chunks, and the tail."""
        loop, extent = nest.loops[k], self.extent(scope, nest.loops[k])
        if nest.finishes(k):
            return self.sweep_and_finish(scope, nest, k, extent, states)
        whole = self.whole(scope, loop, extent)
        bounds = scope.builder.const(0, i64), whole
        levels = self.levels(scope, nest, loop, whole)
        states = self.cascade(scope, nest, k, bounds, states, levels)
        if loop.step == 1:
            return states
        return self.loop(scope, nest, k, (whole, extent), states, partial=True)

    def sweep_and_finish(
        self, scope: Scope, nest: Nest, k: int, extent: Value, states: States
    ) -> States:
        """All chunks but the last one, which is there though all be empty, then it."""
        b, loop = scope.builder, nest.loops[k]
        step, zero = b.const(loop.step, i64), b.const(0, i64)
        before = b(TruncDiv, b(Sub, extent, b.const(1, i64)), step)
        last = b(Mul, b(Maximum, before, zero), step)
        states = self.loop(scope, nest, k, (zero, last), states)
        limit: Value | None = b(Sub, extent, last)
        if b.constant(limit) == loop.step:
            limit = None
        inner = scope.open(loop, last, limit, b, states, final=True)
        return self.walk(inner, nest, k + 1, states)

    def stage(self, scope: Scope, op: Stage) -> Value:
        """Put aside all that loops which are still to come read of a value."""
        value, around = op.result, scope.counters.keys()
        read, packed = loops_of(value) - around, loops_of(op.x) - around
        if value not in self.chunks.scratch:
            self.chunks.scratch[value] = self.chunks.reserve_stage(op, read, packed)
        packing = Nest(self.order(packed), kept=[value])
        self.walk(scope.inside(scope.builder, {}), packing, 0, {})
        self.chunks.staged.add(value)
        return value

    def loop(
        self,
        scope: Scope,
        nest: Nest,
        k: int,
        bounds: tuple[Value, Value],
        states: States,
        partial: bool = False,
    ) -> States:
        """A loop over chunks; no loop at all where it is known to run once or never."""
        loop, (start, stop) = nest.loops[k], bounds

        def trip(b: Builder, counter: Value, carried: States) -> States:
            limit = b(Sub, stop, counter) if partial else None
            inner = scope.open(loop, counter, limit, b, carried)
            after = self.walk(inner, nest, k + 1, carried)
            scans = [op for op in nest.scans if op in after and op.dim == loop.dim]
            return after | {op: tuple(inner[v] for v in op.totals) for op in scans}

        lo, hi = map(scope.builder.constant, bounds)
        if lo is not None and hi is not None and hi - lo <= loop.step:
            return trip(scope.builder, start, states) if lo < hi else states
        return _counted(scope.builder, bounds, loop.step, states, trip)

    def levels(self, scope: Scope, nest: Nest, loop: Loop, whole: Value) -> int:
        """How many loops of runs stand around a loop that adds up inexactly."""
        if not any(loop in along(op) for op in inexact(nest)):
            return 0
        count = scope.builder.constant(whole)
        if count is None:
            return 2
        trips, levels = int(count) // loop.step, 0
        while trips > 2 * CASCADE:
            trips, levels = -(-trips // CASCADE), levels + 1
        return levels

    def cascade(
        self,
        scope: Scope,
        nest: Nest,
        k: int,
        bounds: tuple[Value, Value],
        states: States,
        levels: int,
    ) -> States:
        """Reduce runs of `CASCADE` chunks apart, then their results together, and so
        on with runs of runs.

        The error of a sum grows with the longest chain of additions: so it is
        logarithmic in the length (N. J. Higham, 1993: The accuracy of floating point
        summation).
        """
        if not levels:
            return self.loop(scope, nest, k, bounds, states)
        b, loop = scope.builder, nest.loops[k]
        step = CASCADE**levels * loop.step
        rounding = inexact(nest)
        stored = [op for op in rounding if op not in states and loop in along(op)]
        totals = {v: self.chunks.scratch[v] for op in stored for v in op.results}
        parts = {v: self.chunks.reserve(v, loops_of(v)) for v in totals}

        def trip(body: Builder, origin: Value, carried: States) -> States:
            inner = scope.inside(body, carried)
            fresh = {op: self.identities(inner, op) for op in rounding if op in carried}
            self.chunks.scratch.update(parts)
            for op in stored:
                self.fill(inner, nest, op)
            run = origin, _end_of_run(body, origin, bounds[1], step)
            started = {**carried, **fresh}
            found = self.cascade(inner, nest, k, run, started, levels - 1)
            self.chunks.scratch.update(totals)
            for op in stored:
                self.join(inner, nest, op, parts)
            for op in fresh:
                found[op] = combine(body, op.monoid, carried[op], found[op])
            return found

        return _counted(b, bounds, step, states, trip)

    def extent(self, scope: Scope, loop: Loop) -> Value:
        """How many elements a loop walks here."""
        dim, around = loop.dim, scope.around(loop)
        if around is not None:
            limit = scope.limits.get(dim)
            return scope.builder.const(around.step, i64) if limit is None else limit
        if dim in self.limits:
            self.chunks.want(scope, [self.limits[dim]])
            return scope[self.limits[dim]]
        assert self.layout is not None
        return scope.builder.size(self.layout.shape[dim])

    def whole(self, scope: Scope, loop: Loop, extent: Value) -> Value:
        """How many of them lie in whole chunks."""
        b = scope.builder
        if scope.around(loop) is None and loop.dim not in self.limits:
            assert self.layout is not None
            return b.size(self.layout.shape[loop.dim] // loop.step * loop.step)
        if loop.step == 1:
            return extent
        step = b.const(loop.step, i64)
        return b(Mul, b(TruncDiv, extent, step), step)

    def body(self, scope: Scope, nest: Nest, states: States) -> States:
        """The innermost block: keep, store, and combine into what is carried."""
        for value in nest.kept:
            op = self.chunks.made[value]
            source: Value = op.x if isinstance(op, Stage) else value
            self.chunks.want(scope, [source])
            self.chunks.put_aside(scope, value, scope[source])
        for op in nest.stores:
            self.chunks.want(scope, op.operands)
            self.chunks.emit(scope, op)
        for op in nest.scans:
            self.chunks.want(scope, op.results[:1])
        after = dict(states)
        for op in nest.reductions:
            if op in states:
                after[op] = self.absorb(scope, op, states[op])
            else:
                self.accumulate(scope, op, self.alone(scope, op))
        return after

    def follow(self, scope: Scope, nest: Nest, k: int, ended: Iterable[Op]) -> None:
        """Run the stores that wait for what has just ended and need no further loops;
        put aside what others will need."""
        results = [v for op in ended for v in ending(op)]
        if not any(map(loops_of, results)):
            return
        here, now = frozenset(nest.loops[:k]), self.chunks.now
        for op, sweep in self.chunks.sweeps.items():
            elsewhere = self.done.get(op, nest) is not nest
            if not isinstance(op, StoreTile) or elsewhere or sweep <= now:
                continue
            if loops_of(op.value) == here and self.is_ready(scope, op):
                self.done[op] = nest
                self.chunks.now = sweep
                self.chunks.want(scope, op.operands)
                self.chunks.emit(scope, op)
        self.chunks.now = now
        for value in results:
            if loops_of(value) and self.is_awaited(value):
                self.chunks.make_room(value)
                self.chunks.put_aside(scope, value, scope[value])

    def is_ready(self, scope: Scope, op: Op) -> bool:
        """Whether all that an op depends on is known here, or can be computed."""
        seen: set[Value] = set()
        stack = list(op.operands)
        while stack:
            value = stack.pop()
            made = self.chunks.made.get(value)
            if value in seen or made is None or scope.find(value) is not None:
                continue
            seen.add(value)
            if value in self.keep or isinstance(made, (ScanTile, Stage)):
                return False
            if ending(made) and not self.chunks.is_kept(value):
                return False
            stack.extend(made.operands)
        return True

    def is_awaited(self, value: Value) -> bool:
        """Whether anything that is still to come needs the result of a reduction."""
        after: set[Value] = {value}
        for op in self.function.body.ops:
            if op in self.done or after.isdisjoint(op.operands):
                continue
            if isinstance(op, StoreTile) or ending(op):
                return True
            after.update(op.results)
        return False

    # States

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
            return self.filled(scope, [in_register(op)], (0,))
        types = [chunk_type(value.type) for value in op.values]
        return self.filled(scope, types, op.monoid.identity)

    def filled(
        self, scope: Scope, types: Iterable[Tile], numbers: Iterable[Any]
    ) -> Values:
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
                found = self.filled(inner, types, op.monoid.identity)
            else:
                starts = op.starts if isinstance(op, ScanTile) else (op.state,)
                self.chunks.want(inner, starts)
                found = tuple(inner[v] for v in starts)
            for value, start in zip(ending(op), found, strict=True):
                self.chunks.put_aside(inner, value, start)

        self.each(scope, nest.chunks(op), once)

    def accumulate(self, scope: Scope, op: Reduction, state: Values) -> None:
        """Combine a chunk, or a run of them, into the state in memory."""
        total = self.joined(scope, op, state)
        for value, found in zip(op.results, total, strict=True):
            self.chunks.put_aside(scope, value, found)

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

        self.each(scope, nest.chunks(op), once)

    def each(
        self, scope: Scope, loops: list[Loop], once: Callable[[Scope], None]
    ) -> None:
        """Some loops over all their chunks, the last ones as if they were whole:
        scratch memory has room for that."""
        if not loops:
            once(scope)
            return
        loop, *rest = loops

        def trip(b: Builder, origin: Value, carried: States) -> States:
            self.each(scope.open(loop, origin, None, b, carried), rest, once)
            return carried

        bounds = scope.builder.const(0, i64), self.extent(scope, loop)
        _counted(scope.builder, bounds, loop.step, {}, trip)


def _end_of_run(b: Builder, origin: Value, stop: Value, step: int) -> Value:
    """Where a run of `step` elements ends, the last one where the loop does."""
    end = b(Add, origin, b.const(step, i64))
    known = b.constant(stop)
    exact = known is not None and int(known) % step == 0
    return end if exact else b(Minimum, end, stop)


def _counted(
    b: Builder,
    bounds: tuple[Value, Value],
    step: int,
    states: States,
    trip: Callable[[Builder, Value, States], States],
) -> States:
    """A loop whose body `trip` emits, from the counter and the carried states."""
    body = b.nested()
    counter = body.param(bounds[0].type, "k")
    inner = {op: tuple(body.param(v.type) for v in vs) for op, vs in states.items()}
    after = trip(body, counter, inner)
    yields = [v for op in states for v in after[op]]
    operands = (*bounds, *(v for values in states.values() for v in values))
    results = iter(b.emit(For, operands, (step,), (body.block(yields),)))
    return {op: tuple(islice(results, len(vs))) for op, vs in states.items()}


def _widest(function: Function) -> Layout | None:
    """A layout that has every dimension of the kernel's tiles."""
    dims: dict[int, tuple[Any, Dim]] = {}
    rank = 0
    for op in function.body.ops:
        for value in op.results:
            if not isinstance(value.type, Tile) or value.type.layout is None:
                continue
            layout = value.type.layout
            rank = layout.rank
            for d, (digits, n) in enumerate(
                zip(layout.dims, layout.shape, strict=True)
            ):
                if n != 1:
                    dims[d] = (digits, n)
    if not dims:
        return None
    empty: tuple[Any, Dim] = ((), 1)
    known = [dims.get(d, empty) for d in range(rank)]
    return Layout([digits for digits, _ in known], [n for _, n in known])


def _given_limits(function: Function) -> dict[int, Value]:
    """The limits that accesses came with, by dimension."""
    found: dict[int, Value] = {}
    for op in function.body.ops:
        if isinstance(op, (LoadTile, StoreTile)):
            found.update(op.limits)
    return found
