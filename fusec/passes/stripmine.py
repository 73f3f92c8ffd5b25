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
lacks.

Only the last chunk of a loop can be partial; it is peeled off, so that limits and
guards burden it alone. A chunk that loops inside walk is just shorter. In kernels of
products, whose bodies are long, the last chunk begins early where that is right and
costs little: so their code is written once.

Reductions and scans carry their states in registers; where loops over other dimensions
lie inside, there is a state for each of their chunks, in scratch memory, and the
innermost loops combine in registers before they meet it. What follows from a reduction
at once is computed where it ends, that of products in the last of their runs:

    for %k = 0 to 1000 step 352             runs of what is summed
      for %i = 0 to 64 step 6               panels; the last begins at 58
        %p = for … { dot_tile }             sums of this run
        %h = for … { load_tile %scratch }   if there was a run before, what it came to
        %s = add %h, %p
        for … { store_tile %s, %scratch }   if there is a run after
        for … { store_tile (tanh %s) }      if not

Sums that would lose digits in a long loop cascade: runs of chunks are added apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from math import prod

from fusec.analysis.sweeps import (
    Combining,
    Loop,
    Loops,
    Order,
    along,
    ending,
    loops_of,
    walked,
)
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Op, Value, Values
from fusec.ir.dtypes import i64
from fusec.ir.layout import LANE
from fusec.ir.layout.digits import known
from fusec.ir.monoids import combine
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.elementwise import Add, Maximum, Minimum, Sub
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.ops.tile import Stage, StoreTile
from fusec.ir.types import Tile
from fusec.passes.chunks import Chunks, Scope, States
from fusec.passes.extents import Extents, at_most_once, counted
from fusec.passes.nests import Nest, Reduction, inexact
from fusec.passes.states import Holding

Enter = Callable[[Builder, Value, States], Scope]
"""Opens the scope of a trip: from where it is emitted, the counter, and what the loop
carries."""

CASCADE = 32
"""Trips of a loop whose results are combined before they join the others."""
NEVER = 1 << 30
"""A sweep that does not come."""
WASTE = 1 / 32
"""What share of its work a product may do twice, for its code to be written once."""


def stripmine(
    function: Function, keep: Iterable[Value] = (), peel: bool = True
) -> Function:
    """The kernel with a loop for every time digit; `peel` gives partial chunks code of
    their own. Without, chunks are blocks, and loops say along which dimension they go.

    `keep` are values of the function that later sweeps read back from scratch memory
    instead of computing them again; their extents are known.
    """
    return _Stripmining(function, keep, peel).run()


class _Stripmining:
    """The state of one kernel's rewriting."""

    def __init__(self, function: Function, keep: Iterable[Value], peel: bool) -> None:
        self.function = function
        self.peel = peel
        self.builder = Builder(function.level)
        self.chunks = Chunks(function, self.builder)
        self.extents = Extents(function, self.chunks, capped=peel)
        self.held = Holding(self.chunks, self.extents)
        self.used = {v for op in function.body.ops for v in op.operands}
        self.keep = [v for v in keep if loops_of(v)]
        self.order = Order(function)
        self.sums_products = any(isinstance(op, DotTile) for op in function.body.ops)
        ended = [n for op, n in self.chunks.sweeps.items() if isinstance(op, DotTile)]
        self.multiplied = max(ended, default=NEVER)
        """The sweep in which products are summed up."""
        self.statistics = self.found_statistics()
        """The loops along which results of products are reduced."""
        self.done: dict[Op, Nest] = {}
        """Stores that stand where the reduction ends that they wait for, in whose nest:
        at every end of its loop, whole or partial."""

    def run(self) -> Function:
        top = Scope(self.builder)
        for old in self.function.params:
            top.values[old] = self.builder.param(old.type, old.hint)
        top.limits = self.extents.flat(top)
        for value in self.keep:
            self.chunks.make_room(value)
        for sweep in range(max(self.chunks.sweeps.values(), default=0) + 1):
            self.chunks.now = sweep
            for nest in self.nests():
                self.walk(top, nest, 0, {})
        return self.builder.successor(self.function)

    def found_statistics(self) -> Loops:
        ops, sweeps = self.function.body.ops, self.chunks.sweeps
        loops = (
            along(op)
            for op in ops
            if isinstance(op, ReduceTile) and sweeps[op] > self.multiplied
        )
        return frozenset[Loop]().union(*loops)

    def nests(self) -> list[Nest]:
        """The loop nests of the current sweep, one for the loops they consist of."""
        found: dict[Loops, Nest] = {}

        def over(loops: Loops) -> Nest:
            return found.setdefault(loops, Nest(self.ordered(loops)))

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

    def ordered(self, loops: Loops) -> list[Loop]:
        """Loops from the outermost. What reads a product's result back from scratch
        memory walks each row by itself, to combine it in registers and to use what that
        gives."""
        after = self.chunks.now > self.multiplied
        inner = self.statistics if after else frozenset[Loop]()
        return [*self.order(loops - inner), *self.order(loops & inner)]

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
            if op not in held and not (isinstance(op, DotTile) and nest.finishes(op)):
                self.held.begin_in_memory(scope, nest, op)
        staged = [self.stage(scope, op) for op in nest.staged(k)]
        begun: States = {op: self.held.begin(scope, op) for op in held}
        begun |= {op: self.held.identities(scope, op) for op in resumed}
        ended = self.sweep(scope, nest, k, {**states, **begun})
        self.chunks.staged.difference_update(staged)
        for op in held:
            self.held.finish(scope, op, ended[op])
        self.end_runs(scope, nest, k, {op: ended[op] for op in resumed})
        self.follow(scope, nest, k, held)
        return {op: ended[op] for op in states}

    def end_runs(
        self, scope: Scope, nest: Nest, k: int, ended: Mapping[Reduction, Values]
    ) -> None:
        """What runs have come to so far: put aside for the next one or, if this was the
        last, known."""
        totals: dict[Value, dict[DotTile, Values]] = {}
        for op, state in ended.items():
            if not isinstance(op, DotTile) or not nest.finishes(op):
                self.held.accumulate(scope, op, state)
                continue
            before, after = self.held.runs_around(scope, nest, op)
            total = self.held.with_runs_before(scope, op, before, state)
            totals.setdefault(after, {})[op] = total
        for after, found in totals.items():
            self.suspend_or_go_on(scope, nest, k, after, found)

    def suspend_or_go_on(
        self,
        scope: Scope,
        nest: Nest,
        k: int,
        after: Value,
        totals: Mapping[DotTile, Values],
    ) -> None:
        """Write sums to memory if a run comes after this one, else use them."""
        b = scope.builder

        def suspend(b: Builder, held: States) -> States:
            for op, total in totals.items():
                self.chunks.put_aside(scope.unmoved(b), op.result, total[0])
            return held

        def go_on(b: Builder, held: States) -> States:
            inner = scope.inside(b, {}, guarded=True)
            for op, total in totals.items():
                self.held.define(inner, op, total)
            self.follow(inner, nest, k, totals)
            return held

        at_most_once(b, (b.const(0, i64), after), {}, suspend)
        at_most_once(b, (after, b.const(1, i64)), {}, go_on)

    def sweep(self, scope: Scope, nest: Nest, k: int, states: States) -> States:
        """One loop: runs of chunks, whole chunks, and the tail if there may be one."""
        b, loop = scope.builder, nest.loops[k]
        zero, extent = b.const(0, i64), self.extents.of(scope, loop)
        if nest.is_split(k) or nest.ends(k) or not self.peel:
            return self.short_ones(scope, nest, k, extent, states)
        if self.may_step_back(scope, nest, k, extent):
            return self.stepping_back(scope, nest, k, extent, states)
        whole = self.extents.whole(scope, loop, extent)
        levels = self.levels(scope, nest, loop, whole)
        states = self.cascade(scope, nest, k, (zero, whole), states, levels)
        if whole is extent:
            return states

        def partial(b: Builder, counter: Value, carried: States) -> Scope:
            return scope.open(loop, counter, b(Sub, extent, counter), b, carried)

        return self.loop(scope, nest, k, (whole, extent), states, partial)

    def short_ones(
        self, scope: Scope, nest: Nest, k: int, extent: Value, states: States
    ) -> States:
        """A loop whose chunks may have any length, for loops inside walk what there is
        of them. One that ends sums runs once at least."""
        b, loop = scope.builder, nest.loops[k]

        def short(b: Builder, counter: Value, carried: States) -> Scope:
            limit = self.extents.present(scope, loop, extent, b, counter)
            left = self.extents.left(loop, extent, b, counter) if nest.ends(k) else None
            return scope.open(loop, counter, limit, b, carried, left=left)

        stop = extent
        if nest.ends(k) and self.extents.known(scope, extent).least < 1:
            stop = b(Maximum, extent, b.const(1, i64))
        return self.loop(scope, nest, k, (b.const(0, i64), stop), states, short)

    def stepping_back(
        self, scope: Scope, nest: Nest, k: int, extent: Value, states: States
    ) -> States:
        """A loop whose last chunk begins early, to be whole."""
        b, loop = scope.builder, nest.loops[k]
        last = b(Sub, extent, b.const(loop.step, i64))

        def back(b: Builder, counter: Value, carried: States) -> Scope:
            origin = b(Minimum, counter, last)
            return scope.open(loop, origin, None, b, carried, place=counter)

        return self.loop(scope, nest, k, (b.const(0, i64), extent), states, back)

    def may_step_back(self, scope: Scope, nest: Nest, k: int, extent: Value) -> bool:
        """Whether the last chunk may compute some elements a second time, for the code
        of a product to be written once.

        What sums up products never writes over what it reads (see `in_place`); what
        combines along the loop, or in memory, must meet each element once.
        """
        loop, there = nest.loops[k], self.extents.known(scope, extent)
        if there.multiple % loop.step == 0 or there.least < loop.step:
            return False
        if not self.sums_products or nest.scans:
            return False
        if any(op.combine for op in nest.stores):
            return False
        for op in nest.reductions:
            if loop in along(op) or (loop in nest.inside(op) and not nest.finishes(op)):
                return False
            factors = [v for v in op.operands if loop in loops_of(v)]
            if any(_wasted(v, loop, there.least) > WASTE for v in factors):
                return False
        return True

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
        enter: Enter,
    ) -> States:
        """A loop over chunks; no loop at all where it is known to run once or never."""
        loop = nest.loops[k]

        def trip(b: Builder, counter: Value, carried: States) -> States:
            inner = enter(b, counter, carried)
            after = self.walk(inner, nest, k + 1, carried)
            scans = [op for op in nest.scans if op in after and op.dim == loop.dim]
            return after | {op: tuple(inner[v] for v in op.totals) for op in scans}

        lo, hi = map(scope.builder.constant, bounds)
        if lo is not None and hi is not None and hi - lo <= loop.step:
            return trip(scope.builder, bounds[0], states) if lo < hi else states
        along = -1 if self.peel else loop.dim
        return counted(scope.builder, bounds, loop.step, states, trip, along)

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
        b, loop = scope.builder, nest.loops[k]

        def whole(b: Builder, counter: Value, carried: States) -> Scope:
            return scope.open(loop, counter, None, b, carried)

        if not levels:
            return self.loop(scope, nest, k, bounds, states, whole)
        step = CASCADE**levels * loop.step
        rounding = inexact(nest)
        stored = [op for op in rounding if op not in states and loop in along(op)]
        totals = {v: self.chunks.scratch[v] for op in stored for v in op.results}
        parts = {v: self.chunks.reserve(v, loops_of(v)) for v in totals}

        def trip(body: Builder, origin: Value, carried: States) -> States:
            inner = scope.inside(body, carried)
            fresh = {
                op: self.held.identities(inner, op) for op in rounding if op in carried
            }
            self.chunks.scratch.update(parts)
            for op in stored:
                self.held.fill(inner, nest, op)
            run = origin, _end_of_run(body, origin, bounds[1], step)
            started = {**carried, **fresh}
            found = self.cascade(inner, nest, k, run, started, levels - 1)
            self.chunks.scratch.update(totals)
            for op in stored:
                self.held.join(inner, nest, op, parts)
            for op in fresh:
                found[op] = combine(body, op.monoid, carried[op], found[op])
            return found

        return counted(b, bounds, step, states, trip)

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
                after[op] = self.held.absorb(scope, op, states[op])
            else:
                self.held.accumulate(scope, op, self.held.alone(scope, op))
        return after

    def follow(
        self, scope: Scope, nest: Nest, k: int, ended: Collection[Combining]
    ) -> None:
        """Run the stores that wait for what has just ended and need no further loops;
        put aside what others will need."""
        results = [v for op in ended for v in ending(op)]
        if not any(map(loops_of, results)):
            return
        summed = frozenset[Loop]().union(*map(along, ended))
        here, now = frozenset(nest.loops[:k]) - summed, self.chunks.now
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


def _wasted(value: Value, loop: Loop, extent: int) -> float:
    """What share it adds to the work that the last chunk is whole, and not just as many
    registers as there must be."""
    assert isinstance(value.type, Tile)
    assert value.type.layout is not None
    digits = value.type.layout.dims[loop.dim]
    lanes = prod(known(digit.extent) for digit in digits if digit.axis == LANE)
    return (-(-extent // loop.step) * loop.step - -(-extent // lanes) * lanes) / extent


def _end_of_run(b: Builder, origin: Value, stop: Value, step: int) -> Value:
    """Where a run of `step` elements ends, the last one where the loop does."""
    end = b(Add, origin, b.const(step, i64))
    known = b.constant(stop)
    exact = known is not None and int(known) % step == 0
    return end if exact else b(Minimum, end, stop)
