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

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fusec.ir.builder import Builder
from fusec.ir.core import Function, Op, Value, Values
from fusec.ir.dims import Dim
from fusec.ir.dtypes import i64
from fusec.ir.layout import Layout
from fusec.ir.monoids import combine
from fusec.ir.ops.elementwise import Add, Minimum, Mul, Sub, TruncDiv
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.ops.tile import (
    BroadcastTile,
    Convert,
    Guard,
    IotaTile,
    LoadTile,
    StoreTile,
)
from fusec.ir.types import Tile
from fusec.passes.nests import (
    Dims,
    Nest,
    Scope,
    States,
    chunk_type,
    counted,
    ending,
    number_sweeps,
    time_dims,
    timed,
    without_time,
)
from fusec.passes.scratch import Memory, ScratchMemory

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
        self.made = {v: op for op in function.body.ops for v in op.results}
        self.used = {v for op in function.body.ops for v in op.operands}
        self.sweeps = number_sweeps(function)
        self.keep = [v for v in keep if time_dims(v)]
        self.scratch = ScratchMemory(self.builder)
        self.layout = _widest(function)
        self.limits = _given_limits(function)
        self.now = 0

    def run(self) -> Function:
        top = Scope(self.builder)
        for old in self.function.params:
            top.values[old] = self.builder.param(old.type, old.hint)
        top.limits = {**self.padding(top), **self.given(top)}
        for value in self.keep:
            self.scratch.held[value] = self.scratch.reserve(value)
        for sweep in range(max(self.sweeps.values(), default=0) + 1):
            self.now = sweep
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
        self.want(top, list(flat.values()))
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
        """The loop nests of the current sweep, one for the dimensions they walk."""
        found: dict[Dims, Nest] = {}

        def over(value: Value) -> Nest:
            dims = time_dims(value)
            return found.setdefault(dims, Nest(sorted(dims)))

        for value in self.keep:
            if self.sweeps[self.made[value]] == self.now:
                over(value).kept.append(value)
        for op in self.function.body.ops:
            if self.sweeps[op] != self.now:
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

    def scans_of(self, nest: Nest) -> list[ScanTile]:
        """The scans over time that a nest runs, again if an earlier one did."""
        scans = dict.fromkeys(nest.scans)
        seen: set[Value] = set()
        stack = [*nest.sinks, *(v for op in scans for v in op.operands)]
        while stack:
            value = stack.pop()
            op = self.made.get(value)
            if value in seen or op is None or value in ending(op):
                continue
            seen.add(value)
            if value in self.scratch.held and self.sweeps[op] < self.now:
                continue
            if isinstance(op, ScanTile) and ending(op):
                scans[op] = None
            stack.extend(op.operands)
        return list(scans)

    # Loops

    def walk(self, scope: Scope, nest: Nest, k: int, states: States) -> States:
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

    def sweep(self, scope: Scope, nest: Nest, k: int, states: States) -> States:
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
        nest: Nest,
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
        return counted(scope.builder, bounds, chunk, states, trip)

    def levels(self, scope: Scope, nest: Nest, dim: int, whole: Value) -> int:
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
        b, dim = scope.builder, nest.dims[k]
        step = CASCADE**levels * self.chunk_of(dim)
        inexact = [op for op in nest.reductions if op.monoid.rounds]
        stored = [op for op in inexact if op not in states and dim in nest.along(op)]
        totals = {v: self.scratch.held[v] for op in stored for v in op.results}
        parts = {v: self.scratch.reserve(v) for v in totals}

        def trip(body: Builder, origin: Value, carried: States) -> States:
            inner = Scope(body, scope, scope.origins, scope.limits, states=carried)
            fresh = {op: self.begin(inner, op) for op in inexact if op in carried}
            self.scratch.held.update(parts)
            for op in stored:
                self.fill(inner, nest, op)
            run = origin, _end_of_run(body, origin, bounds[1], step)
            started = {**carried, **fresh}
            found = self.cascade(inner, nest, k, run, started, levels - 1)
            self.scratch.held.update(totals)
            for op in stored:
                self.join(inner, nest, op, parts)
            for op in fresh:
                found[op] = combine(body, op.monoid, carried[op], found[op])
            return found

        return counted(b, bounds, step, states, trip)

    def chunk_of(self, dim: int) -> int:
        """How many elements of a dimension one trip handles."""
        assert self.layout is not None
        padded = without_time(self.layout).padded_shape[dim]
        assert isinstance(padded, int)
        return padded

    def extent(self, scope: Scope, dim: int) -> Value:
        """How many elements of a dimension there are in this program."""
        if dim in self.limits:
            self.want(scope, [self.limits[dim]])
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

    def body(self, scope: Scope, nest: Nest, states: States) -> States:
        """The innermost block: keep, store, and combine into what is carried."""
        for value in nest.kept:
            self.want(scope, [value])
            self.scratch.put_aside(scope, value, scope[value])
        for op in nest.stores:
            self.want(scope, op.operands)
            self.emit(scope, op)
        for op in nest.scans:
            self.want(scope, op.results[:1])
        after = dict(states)
        for op in nest.reductions:
            self.want(scope, op.values)
            new = self.guarded(scope, op)
            if op in states:
                after[op] = combine(scope.builder, op.monoid, states[op], new)
            else:
                self.accumulate(scope, op, new)
        return after

    # States

    def begin(self, scope: Scope, op: ReduceTile | ScanTile) -> Values:
        """The state that a loop starts from, in registers."""
        if isinstance(op, ScanTile):
            self.want(scope, op.starts)
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
            hints = _hints(op)
            state = scope.builder.emit(ReduceTile, state, op.attrs, (), None, hints)
        for value, final in zip(ending(op), state, strict=True):
            scope.values[value] = final
            if value in self.used and time_dims(value):
                self.scratch.held.setdefault(value, self.scratch.reserve(value))
                self.scratch.put_aside(scope, value, final)

    def begin_in_memory(
        self, scope: Scope, nest: Nest, op: ReduceTile | ScanTile
    ) -> None:
        """A state for each chunk of the loops inside, in scratch memory."""
        for value in ending(op):
            if value not in self.scratch.held:
                self.scratch.held[value] = self.scratch.reserve(value)
        self.fill(scope, nest, op)

    def fill(self, scope: Scope, nest: Nest, op: ReduceTile | ScanTile) -> None:
        """Set the states of an op in memory to what they start from."""

        def once(inner: Scope) -> None:
            if isinstance(op, ScanTile):
                starts = self.begin(inner, op)
            else:
                starts = self.identities(op, op.results)
            for value, start in zip(ending(op), starts, strict=True):
                self.scratch.put_aside(inner, value, start)

        self.each(scope, sorted(nest.inside(op)), once)

    def accumulate(self, scope: Scope, op: ReduceTile, new: Values) -> None:
        """Combine a chunk into the state in memory."""
        b = scope.builder
        folded = b.emit(ReduceTile, new, op.attrs, (), None, _hints(op))
        held = tuple(self.scratch.taken(scope, value) for value in op.results)
        for value, state in zip(
            op.results, combine(b, op.monoid, held, folded), strict=True
        ):
            self.scratch.put_aside(scope, value, state)

    def join(
        self, scope: Scope, nest: Nest, op: ReduceTile, parts: Mapping[Value, Memory]
    ) -> None:
        """Combine the states of a run in memory into those of the runs before."""

        def once(inner: Scope) -> None:
            left = tuple(self.scratch.taken(inner, v) for v in op.results)
            right = tuple(self.scratch.taken(inner, v, parts[v]) for v in op.results)
            states = combine(inner.builder, op.monoid, left, right)
            for value, state in zip(op.results, states, strict=True):
                self.scratch.put_aside(inner, value, state)

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
        counted(scope.builder, bounds, self.chunk_of(dim), {}, trip)

    # Values

    def want(self, scope: Scope, values: Sequence[Value]) -> None:
        """Compute values for the current chunk, and what they depend on before."""
        stack = list(reversed(values))
        while stack:
            value = stack[-1]
            if scope.find(value) is not None:
                stack.pop()
                continue
            op = self.made[value]
            if value in self.scratch.held and self.sweeps[op] < self.now:
                # Once for all loops that it lacks.
                home = scope.home(time_dims(value))
                home.values[value] = self.scratch.taken(home, value)
                continue
            missing = [v for v in op.operands if scope.find(v) is None]
            if not missing:
                self.emit(scope, op)
            stack.extend(reversed(missing))

    def emit(self, scope: Scope, op: Op) -> None:
        """Emit an op for the current chunk, in the outermost loop it varies with."""
        if not isinstance(op, StoreTile):
            # Every chunk of a broadcast is the same one.
            spread = op.operands if isinstance(op, BroadcastTile) else op.results
            scope = scope.home(frozenset[int]().union(*map(time_dims, spread)))
        scope.builder.loc = op.loc
        rule = CHUNKED.get(type(op), _same)
        operands, attrs = rule(self, scope, op)
        results = scope.builder.emit(type(op), operands, attrs, (), None, _hints(op))
        scope.values.update(zip(op.results, results, strict=True))
        if isinstance(op, ScanTile) and ending(op) and scope.state(op) is None:
            for value in op.totals:
                self.scratch.put_aside(scope, value, scope.values[value])

    def guarded(self, scope: Scope, op: ReduceTile) -> Values:
        """The operands of a reduction, with the identity where nothing exists."""
        limited = tuple(d for d in sorted(op.dims) if d in scope.limits)
        values = tuple(scope[v] for v in op.values)
        if not limited:
            return values
        limits = [scope.limits[d] for d in limited]
        return tuple(
            scope.builder.emit(Guard, (v, *limits), (limited, identity))[0]
            for v, identity in zip(values, op.monoid.identity, strict=True)
        )

    def access(
        self, scope: Scope, op: LoadTile | StoreTile, shape: tuple[Dim, ...]
    ) -> tuple[Value, tuple[int, ...], list[Value]]:
        """Offset, limited dimensions and the operands after the offset, here."""
        b = scope.builder
        offset = scope[op.offset]
        for dim, origin in sorted(scope.origins.items()):
            if shape[dim] != 1 and op.strides[dim] != 0:
                step = b(Mul, origin, b.size(op.strides[dim]))
                offset = b(Add, offset, step)
        limits = {d: scope[v] for d, v in op.limits.items() if d not in scope.origins}
        limits |= {d: v for d, v in scope.limits.items() if shape[d] != 1}
        dims = tuple(sorted(limits))
        others = [scope[v] for v in op.rest[len(op.limited) :]]
        return offset, dims, [*(limits[d] for d in dims), *others]


def _end_of_run(b: Builder, origin: Value, stop: Value, step: int) -> Value:
    """Where a run of `step` elements ends, the last one where the loop does."""
    end = b(Add, origin, b.const(step, i64))
    known = b.constant(stop)
    exact = known is not None and int(known) % step == 0
    return end if exact else b(Minimum, end, stop)


# How each op reads for one chunk: its operands and attributes.


def _same(s: _Stripmining, scope: Scope, op: Op) -> Any:
    return [scope[v] for v in op.operands], op.attrs


def _load(s: _Stripmining, scope: Scope, op: LoadTile) -> Any:
    offset, limited, rest = s.access(scope, op, op.type.shape)
    ahead = op.prefetch if s.now == 0 else 0
    attrs = (chunk_type(op.type), op.strides, limited, op.indirect, op.masked, ahead)
    return [scope[op.buffer], offset, *rest], attrs


def _store(s: _Stripmining, scope: Scope, op: StoreTile) -> Any:
    offset, limited, rest = s.access(scope, op, op.value.shape)
    attrs = (op.strides, limited, op.indirect, op.masked, op.streaming)
    return [scope[op.value], scope[op.buffer], offset, *rest], attrs


def _iota(s: _Stripmining, scope: Scope, op: IotaTile) -> Any:
    origin = scope[op.origin]
    if op.dim in scope.origins and op.dim in time_dims(op.result):
        origin = scope.builder(Add, origin, scope.origins[op.dim])
    return [origin], (chunk_type(op.type), op.dim)


def _broadcast(s: _Stripmining, scope: Scope, op: BroadcastTile) -> Any:
    return [scope[op.x]], (chunk_type(op.type),)


def _convert(s: _Stripmining, scope: Scope, op: Convert) -> Any:
    return [scope[op.x]], (without_time(op.layout),)


def _reduce(s: _Stripmining, scope: Scope, op: ReduceTile) -> Any:
    return list(s.guarded(scope, op)), op.attrs


def _scan(s: _Stripmining, scope: Scope, op: ScanTile) -> Any:
    """After the elements that earlier chunks hold, if there are any."""
    values = [scope[v] for v in op.values]
    if not ending(op):
        return [*values, *(scope[v] for v in op.starts)], op.attrs
    state = scope.state(op)
    if state is None:
        state = tuple(s.scratch.taken(scope, v) for v in op.totals)
    return [*values, *state], op.attrs


def _guard(s: _Stripmining, scope: Scope, op: Guard) -> Any:
    limited = tuple(d for d in op.limited if d in scope.limits)
    return [scope[op.x], *(scope.limits[d] for d in limited)], (limited, op.identity)


CHUNKED: Mapping[type, Callable[[_Stripmining, Scope, Any], Any]] = {
    LoadTile: _load,
    StoreTile: _store,
    IotaTile: _iota,
    BroadcastTile: _broadcast,
    Convert: _convert,
    Guard: _guard,
    ReduceTile: _reduce,
    ScanTile: _scan,
}


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


def _hints(op: Op) -> tuple[str, ...]:
    return tuple(value.hint for value in op.results)
