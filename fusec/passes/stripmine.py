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
dimensions. What they need is computed in it again, from memory or from the scratch
that the schedule says to keep, each op in the outermost loop that it varies with.
Only the last chunk of a dimension can be partial; it is peeled off, so that limits
and guards burden it alone.

Reductions and scans carry their states in registers; where loops over other dimensions
lie inside, there is a state for each of their chunks, in scratch memory. Sums that
would lose digits in a long loop cascade: runs of chunks are added apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from fusec.analysis.sweeps import Dims, ending, time_dims, timed
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Value, Values
from fusec.ir.dims import Dim
from fusec.ir.dtypes import i64
from fusec.ir.layout import Layout
from fusec.ir.monoids import combine
from fusec.ir.ops.elementwise import Add, Minimum, Mul, Sub, TruncDiv
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.ops.tile import (
    BroadcastTile,
    For,
    LoadTile,
    StoreTile,
)
from fusec.ir.types import Tile
from fusec.passes.chunks import (
    Chunks,
    Memory,
    Scope,
    States,
    chunk_type,
    without_time,
)

CASCADE = 32
"""Trips of a loop whose results are combined before they join the others."""


def stripmine(function: Function, keep: Iterable[Value] = ()) -> Function:
    """The kernel with a loop for every time digit.

    `keep` are values of the function that later sweeps read back from scratch memory
    instead of computing them again; their extents are known.
    """
    return _Stripmining(function, keep).run()


@dataclass(slots=True, eq=False)
class _Nest:
    """What one loop nest is there for."""

    dims: list[int]
    """The dimensions it walks, outermost first."""
    reductions: list[ReduceTile] = field(default_factory=list[ReduceTile])
    scans: list[ScanTile] = field(default_factory=list[ScanTile])
    stores: list[StoreTile] = field(default_factory=list[StoreTile])
    kept: list[Value] = field(default_factory=list[Value])

    @property
    def sinks(self) -> list[Value]:
        """What has to be computed at every trip."""
        stored = [v for op in self.stores for v in op.operands]
        return [*self.kept, *stored, *(v for op in self.reductions for v in op.values)]

    def along(self, op: ReduceTile | ScanTile) -> Dims:
        """The loops whose trips an op combines."""
        dims = {*op.dims} if isinstance(op, ReduceTile) else {op.dim}
        return frozenset(dims & {*self.dims})

    def start(self, op: ReduceTile | ScanTile) -> int:
        """The loop before which the state of an op begins, by its position."""
        return min(map(self.dims.index, self.along(op)))

    def inside(self, op: ReduceTile | ScanTile) -> Dims:
        """The loops inside that one which the op does not combine along.

        For each of their chunks there is a state, so memory holds them.
        """
        further = frozenset(self.dims[self.start(op) :])
        return further & time_dims(op.values[0]) - self.along(op)

    def opened(self, k: int) -> list[ReduceTile | ScanTile]:
        """The ops whose states begin before loop number k."""
        return [op for op in (*self.reductions, *self.scans) if self.start(op) == k]


class _Stripmining:
    """The state of one kernel's rewriting."""

    def __init__(self, function: Function, keep: Iterable[Value]) -> None:
        self.function = function
        self.builder = Builder(function.level)
        self.chunks = Chunks(function, self.builder)
        self.used = {v for op in function.body.ops for v in op.operands}
        self.keep = [v for v in keep if time_dims(v)]
        self.layout = _widest(function)
        self.limits = _given_limits(function)

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

    def nests(self) -> list[_Nest]:
        """The loop nests of the current sweep, one for the dimensions they walk."""
        found: dict[Dims, _Nest] = {}

        def over(value: Value) -> _Nest:
            dims = time_dims(value)
            return found.setdefault(dims, _Nest(sorted(dims)))

        for value in self.keep:
            if self.chunks.sweeps[self.chunks.made[value]] == self.chunks.now:
                over(value).kept.append(value)
        for op in self.function.body.ops:
            if self.chunks.sweeps[op] != self.chunks.now:
                continue
            if isinstance(op, StoreTile):
                over(op.value).stores.append(op)
            elif isinstance(op, ReduceTile) and ending(op):
                over(op.values[0]).reductions.append(op)
            elif isinstance(op, ScanTile) and self.used & {*ending(op)}:
                over(op.values[0]).scans.append(op)
        for nest in found.values():
            nest.scans = self.scans_of(nest)
        return list(found.values())

    def scans_of(self, nest: _Nest) -> list[ScanTile]:
        """The scans over time that a nest runs, again if an earlier one did."""
        scans = dict.fromkeys(nest.scans)
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
            stack.extend(op.operands)
        return list(scans)

    # Loops

    def walk(self, scope: Scope, nest: _Nest, k: int, states: States) -> States:
        """Loops number k and further of a nest; what they carried has come to."""
        if k == len(nest.dims):
            return self.body(scope, nest, states)
        opened = nest.opened(k)
        held = [op for op in opened if not nest.inside(op)]
        for op in opened:
            if op not in held:
                self.begin_in_memory(scope, nest, op)
        begun: States = {op: self.begin(scope, op) for op in held}
        ended = self.sweep(scope, nest, k, {**states, **begun})
        for op in held:
            self.finish(scope, op, ended[op])
        return {op: ended[op] for op in states}

    def sweep(self, scope: Scope, nest: _Nest, k: int, states: States) -> States:
        """The loops over one dimension: runs of chunks, whole chunks, and the tail."""
        dim = nest.dims[k]
        chunk, extent = self.chunk_of(dim), self.extent(scope, dim)
        whole = self.whole(scope, dim)
        bounds = scope.builder.const(0, i64), whole
        levels = self.levels(scope, nest, dim, whole)
        states = self.cascade(scope, nest, k, bounds, states, levels)
        if chunk == 1:
            return states
        return self.loop(scope, nest, k, (whole, extent), states, partial=True)

    def loop(
        self,
        scope: Scope,
        nest: _Nest,
        k: int,
        bounds: tuple[Value, Value],
        states: States,
        partial: bool = False,
    ) -> States:
        """A loop over chunks; no loop at all where it is known to run once or never."""
        dim = nest.dims[k]
        chunk, (start, stop) = self.chunk_of(dim), bounds

        def trip(b: Builder, origin: Value, carried: States) -> States:
            limit = b(Sub, stop, origin) if partial else None
            inner = scope.open(dim, origin, limit, b, carried)
            after = self.walk(inner, nest, k + 1, carried)
            scans = [op for op in nest.scans if op in after and op.dim == dim]
            return after | {op: tuple(inner[v] for v in op.totals) for op in scans}

        lo, hi = map(scope.builder.constant, bounds)
        if lo is not None and hi is not None and hi - lo <= chunk:
            return trip(scope.builder, start, states) if lo < hi else states
        return _counted(scope.builder, bounds, chunk, states, trip)

    def levels(self, scope: Scope, nest: _Nest, dim: int, whole: Value) -> int:
        """How many loops of runs stand around a loop that adds up inexactly."""
        if not any(
            op.monoid.rounds and dim in nest.along(op) for op in nest.reductions
        ):
            return 0
        count = scope.builder.constant(whole)
        if count is None:
            return 2
        trips, levels = int(count) // self.chunk_of(dim), 0
        while trips > 2 * CASCADE:
            trips, levels = -(-trips // CASCADE), levels + 1
        return levels

    def cascade(
        self,
        scope: Scope,
        nest: _Nest,
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
        b, dim = scope.builder, nest.dims[k]
        step = CASCADE**levels * self.chunk_of(dim)
        inexact = [op for op in nest.reductions if op.monoid.rounds]
        stored = [op for op in inexact if op not in states and dim in nest.along(op)]
        totals = {v: self.chunks.scratch[v] for op in stored for v in op.results}
        parts = {v: self.chunks.reserve(v) for v in totals}

        def trip(body: Builder, origin: Value, carried: States) -> States:
            inner = Scope(body, scope, scope.origins, scope.limits, states=carried)
            fresh = {op: self.begin(inner, op) for op in inexact if op in carried}
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

    def chunk_of(self, dim: int) -> int:
        """How many elements of a dimension one trip handles."""
        assert self.layout is not None
        padded = without_time(self.layout).padded_shape[dim]
        assert isinstance(padded, int)
        return padded

    def extent(self, scope: Scope, dim: int) -> Value:
        """How many elements of a dimension there are in this program."""
        if dim in self.limits:
            self.chunks.want(scope, [self.limits[dim]])
            return scope[self.limits[dim]]
        assert self.layout is not None
        return scope.builder.size(self.layout.shape[dim])

    def whole(self, scope: Scope, dim: int) -> Value:
        """How many of them lie in whole chunks."""
        b, chunk = scope.builder, self.chunk_of(dim)
        if dim not in self.limits:
            assert self.layout is not None
            return b.size(self.layout.shape[dim] // chunk * chunk)
        extent = self.extent(scope, dim)
        if chunk == 1:
            return extent
        return b(Mul, b(TruncDiv, extent, b.const(chunk, i64)), b.const(chunk, i64))

    def body(self, scope: Scope, nest: _Nest, states: States) -> States:
        """The innermost block: keep, store, and combine into what is carried."""
        for value in nest.kept:
            self.chunks.want(scope, [value])
            self.chunks.put_aside(scope, value, scope[value])
        for op in nest.stores:
            self.chunks.want(scope, op.operands)
            self.chunks.emit(scope, op)
        for op in nest.scans:
            self.chunks.want(scope, op.results[:1])
        after = dict(states)
        for op in nest.reductions:
            self.chunks.want(scope, op.values)
            new = self.chunks.guarded(scope, op)
            if op in states:
                after[op] = combine(scope.builder, op.monoid, states[op], new)
            else:
                self.accumulate(scope, op, new)
        return after

    # States

    def begin(self, scope: Scope, op: ReduceTile | ScanTile) -> Values:
        """The state that a loop starts from, in registers."""
        if isinstance(op, ScanTile):
            self.chunks.want(scope, op.starts)
            return tuple(scope[v] for v in op.starts)
        return self.identities(op, op.values)

    def identities(self, op: ReduceTile, values: Values) -> Values:
        """The identity of a monoid in tiles of the types of `values`, for one chunk."""
        b = self.builder
        types = [chunk_type(value.type) for value in values]
        numbers = zip(types, op.monoid.identity, strict=True)
        consts = [b.const(number, type_.dtype) for type_, number in numbers]
        return tuple(
            b(BroadcastTile, const, type=type_)
            for const, type_ in zip(consts, types, strict=True)
        )

    def finish(self, scope: Scope, op: ReduceTile | ScanTile, state: Values) -> None:
        """What is known when a loop has ended; put aside if other loops go on."""
        scope.builder.loc = op.loc
        if isinstance(op, ReduceTile):
            state = scope.builder.emit(ReduceTile, state, op.attrs, (), None, op.hints)
        for value, final in zip(ending(op), state, strict=True):
            scope.values[value] = final
            if value in self.used and time_dims(value):
                self.chunks.make_room(value)
                self.chunks.put_aside(scope, value, final)

    def begin_in_memory(
        self, scope: Scope, nest: _Nest, op: ReduceTile | ScanTile
    ) -> None:
        """A state for each chunk of the loops inside, in scratch memory."""
        for value in ending(op):
            self.chunks.make_room(value)
        self.fill(scope, nest, op)

    def fill(self, scope: Scope, nest: _Nest, op: ReduceTile | ScanTile) -> None:
        """Set the states of an op in memory to what they start from."""

        def once(inner: Scope) -> None:
            if isinstance(op, ScanTile):
                starts = self.begin(inner, op)
            else:
                starts = self.identities(op, op.results)
            for value, start in zip(ending(op), starts, strict=True):
                self.chunks.put_aside(inner, value, start)

        self.each(scope, sorted(nest.inside(op)), once)

    def accumulate(self, scope: Scope, op: ReduceTile, new: Values) -> None:
        """Combine a chunk into the state in memory."""
        b = scope.builder
        folded = b.emit(ReduceTile, new, op.attrs, (), None, op.hints)
        held = tuple(self.chunks.taken(scope, value) for value in op.results)
        for value, state in zip(
            op.results, combine(b, op.monoid, held, folded), strict=True
        ):
            self.chunks.put_aside(scope, value, state)

    def join(
        self, scope: Scope, nest: _Nest, op: ReduceTile, parts: Mapping[Value, Memory]
    ) -> None:
        """Combine the states of a run in memory into those of the runs before."""

        def once(inner: Scope) -> None:
            left = tuple(self.chunks.taken(inner, v) for v in op.results)
            right = tuple(self.chunks.taken(inner, v, parts[v]) for v in op.results)
            states = combine(inner.builder, op.monoid, left, right)
            for value, state in zip(op.results, states, strict=True):
                self.chunks.put_aside(inner, value, state)

        self.each(scope, sorted(nest.inside(op)), once)

    def each(
        self, scope: Scope, dims: list[int], once: Callable[[Scope], None]
    ) -> None:
        """Loops over all chunks of some dimensions, the last ones as if they were
        whole: scratch memory has room for that."""
        if not dims:
            once(scope)
            return
        dim, *rest = dims

        def trip(b: Builder, origin: Value, carried: States) -> States:
            self.each(scope.open(dim, origin, None, b, carried), rest, once)
            return carried

        bounds = scope.builder.const(0, i64), self.extent(scope, dim)
        _counted(scope.builder, bounds, self.chunk_of(dim), {}, trip)


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
