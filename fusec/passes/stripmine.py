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
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fusec.ir.builder import Builder
from fusec.ir.core import Function, Op, Value, Values
from fusec.ir.dims import Dim
from fusec.ir.dtypes import i64
from fusec.ir.layout import TIME, Layout, strided
from fusec.ir.monoids import combine
from fusec.ir.ops.elementwise import Add, Mul, Sub, TruncDiv
from fusec.ir.ops.reduction import ReduceTile
from fusec.ir.ops.tile import (
    BroadcastTile,
    Convert,
    For,
    Guard,
    IotaTile,
    LoadTile,
    Scratch,
    StoreTile,
)
from fusec.ir.types import Buffer, Space, Tile

Dims = frozenset[int]

CASCADE = 32
"""Trips of a loop whose results are combined before they join the others."""


def stripmine(function: Function, keep: Iterable[Value] = ()) -> Function:
    """The kernel with a loop for every time digit.

    `keep` are values of the function that later sweeps read back from scratch memory
    instead of computing them again; their extents are known.
    """
    return _Stripmining(function, keep).run()


def time_dims(value: Value) -> Dims:
    """The dimensions of a value that are swept in time."""
    if not isinstance(value.type, Tile) or value.type.layout is None:
        return frozenset()
    dims = value.type.layout.dims
    return frozenset(d for d, digits in enumerate(dims) if _timed(digits))


def _timed(digits: tuple[Any, ...]) -> bool:
    return any(digit.axis == TIME for digit in digits)


def number_sweeps(function: Function) -> dict[Op, int]:
    """For each op, the longest chain of reductions over time before it."""
    sweeps: dict[Op, int] = {}
    ready: dict[Value, int] = {}
    for op in function.body.ops:
        sweeps[op] = max((ready.get(v, 0) for v in op.operands), default=0)
        after = sweeps[op] + _ends_sweep(op)
        ready.update(dict.fromkeys(op.results, after))
    return sweeps


def _ends_sweep(op: Op) -> bool:
    """Whether an op's results exist only when a loop has ended."""
    return isinstance(op, ReduceTile) and bool(time_dims(op.values[0]) & {*op.dims})


@dataclass(slots=True, eq=False)
class _Scope:
    """One level of a loop nest under construction."""

    builder: Builder
    parent: _Scope | None = None
    origins: Mapping[int, Value] = field(default_factory=dict[int, Value])
    """Where the current chunk of each dimension with an open loop begins."""
    limits: Mapping[int, Value] = field(default_factory=dict[int, Value])
    """How many elements exist, of the dimensions whose chunk here is partial."""
    values: dict[Value, Value] = field(default_factory=dict[Value, Value])
    """What is computed here, by the value it was before."""

    def open(
        self, dim: int, origin: Value, limit: Value | None, builder: Builder
    ) -> _Scope:
        """The scope inside a loop over one more dimension."""
        limits = dict(self.limits) if limit is None else {**self.limits, dim: limit}
        return _Scope(builder, self, {**self.origins, dim: origin}, limits)

    def find(self, value: Value) -> Value | None:
        """A value as it is known here."""
        scope: _Scope | None = self
        while scope is not None:
            if value in scope.values:
                return scope.values[value]
            scope = scope.parent
        return None

    def __getitem__(self, value: Value) -> Value:
        found = self.find(value)
        assert found is not None, f"{value} is not computed yet"
        return found

    def home(self, dims: Dims) -> _Scope:
        """The outermost scope that has loops over all these dimensions open."""
        scope = self
        while scope.parent is not None and dims <= scope.parent.origins.keys():
            scope = scope.parent
        return scope


@dataclass(slots=True, eq=False)
class _Nest:
    """What one loop nest is there for."""

    reductions: list[ReduceTile] = field(default_factory=list[ReduceTile])
    stores: list[StoreTile] = field(default_factory=list[StoreTile])
    kept: list[Value] = field(default_factory=list[Value])


Once = Callable[[_Scope, Values], Values]
"""What one trip of a loop emits: carried values in, carried values out."""


class _Stripmining:
    """The state of one kernel's rewriting."""

    def __init__(self, function: Function, keep: Iterable[Value]) -> None:
        self.function = function
        self.builder = Builder(function.level)
        self.made = {v: op for op in function.body.ops for v in op.results}
        self.sweeps = number_sweeps(function)
        self.keep = [v for v in keep if time_dims(v)]
        self.scratch: dict[Value, tuple[Value, tuple[Dim, ...]]] = {}
        self.layout = _widest(function)
        self.limits = _given_limits(function)
        self.now = 0

    def run(self) -> Function:
        top = _Scope(self.builder)
        for old in self.function.params:
            top.values[old] = self.builder.param(old.type, old.hint)
        top.limits = {**self.padding(top), **self.given(top)}
        for value in self.keep:
            self.reserve(value)
        for sweep in range(max(self.sweeps.values(), default=0) + 1):
            self.now = sweep
            for dims, nest in self.nests().items():
                self.emit_nest(top, sorted(dims), nest)
        return self.builder.successor(self.function)

    def given(self, top: _Scope) -> dict[int, Value]:
        """Limits that the kernel came with, of dimensions that fit one chunk."""
        assert self.layout is not None or not self.limits
        flat = {
            d: limit
            for d, limit in self.limits.items()
            if self.layout is not None and not _timed(self.layout.dims[d])
        }
        self.want(top, list(flat.values()))
        return {d: top[limit] for d, limit in flat.items()}

    def padding(self, top: _Scope) -> dict[int, Value]:
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
            if not _timed(digits) and n != padded
        }

    def nests(self) -> dict[Dims, _Nest]:
        """The loop nests of the current sweep, by the dimensions they walk."""
        found: dict[Dims, _Nest] = {}
        for value in self.keep:
            if self.sweeps[self.made[value]] == self.now:
                found.setdefault(time_dims(value), _Nest()).kept.append(value)
        for op in self.function.body.ops:
            if self.sweeps[op] != self.now:
                continue
            if isinstance(op, StoreTile):
                found.setdefault(time_dims(op.value), _Nest()).stores.append(op)
            elif isinstance(op, ReduceTile) and _ends_sweep(op):
                dims = time_dims(op.values[0])
                found.setdefault(dims, _Nest()).reductions.append(op)
        return found

    # Loops

    def emit_nest(self, top: _Scope, dims: list[int], nest: _Nest) -> None:
        """One loop nest, and what its reductions come to after it."""
        inits = [v for op in nest.reductions for v in self.identities(op)]
        finals = self.loops(top, dims, nest, tuple(inits))
        for op in nest.reductions:
            carried, finals = finals[: len(op.results)], finals[len(op.results) :]
            self.builder.loc = op.loc
            results = self.builder.emit(
                ReduceTile, carried, op.attrs, (), None, _hints(op)
            )
            top.values.update(zip(op.results, results, strict=True))

    def identities(self, op: ReduceTile) -> list[Value]:
        """The state that a reduction starts from, one element per register and lane."""
        b = self.builder
        starts: list[Value] = []
        for value, identity in zip(op.values, op.monoid.identity, strict=True):
            type_ = _chunk(value.type)
            element = b.const(identity, type_.dtype)
            starts.append(b(BroadcastTile, element, type=type_))
        return starts

    def loops(
        self, scope: _Scope, dims: list[int], nest: _Nest, carried: Values
    ) -> Values:
        """Loops over these dimensions, outermost first; returns what they carry."""
        if not dims:
            return self.body(scope, nest, carried)
        dim, *rest = dims

        def once(inner: _Scope, values: Values) -> Values:
            return self.loops(inner, rest, nest, values)

        chunk, extent = self.chunk_of(dim), self.extent(scope, dim)
        whole = self.whole(scope, dim)
        start = scope.builder.const(0, i64)
        if self.cascades(scope, nest, whole, chunk):
            start, carried = self.cascade(scope, dim, whole, nest, carried, once)
        carried = self.loop(scope, dim, start, whole, chunk, carried, once, False)
        if chunk == 1:
            return carried
        return self.loop(scope, dim, whole, extent, chunk, carried, once, True)

    def cascades(self, scope: _Scope, nest: _Nest, whole: Value, chunk: int) -> bool:
        """Whether a loop is long enough, or may be, for its sums to lose digits."""
        inexact = any(op.monoid.rounds for op in nest.reductions)
        count = scope.builder.constant(whole)
        return inexact and (count is None or count > 2 * CASCADE * chunk)

    def cascade(
        self,
        scope: _Scope,
        dim: int,
        whole: Value,
        nest: _Nest,
        carried: Values,
        once: Once,
    ) -> tuple[Value, Values]:
        """Reduce runs of `CASCADE` chunks apart, then their results together.

        The error of a sum grows with the longest chain of additions, which becomes the
        number of runs plus the length of one. Returns where the last run ended.
        """
        b, chunk = scope.builder, self.chunk_of(dim)
        run = b.const(CASCADE * chunk, i64)
        stop = b(Mul, b(TruncDiv, whole, run), run)
        body = b.nested()
        origin = body.param(run.type, "run")
        params = tuple(body.param(v.type) for v in carried)
        inits = tuple(v for op in nest.reductions for v in self.identities(op))
        inner = _Scope(body, scope, scope.origins, scope.limits)
        end = body(Add, origin, run)
        found = self.loop(inner, dim, origin, end, chunk, inits, once, False)
        yields: list[Value] = []
        for op in nest.reductions:
            count = len(op.results)
            left, params = params[:count], params[count:]
            right, found = found[:count], found[count:]
            yields += combine(body, op.monoid, left, right)
        operands = (b.const(0, i64), stop, *carried)
        block = body.block(yields)
        return stop, b.emit(For, operands, (CASCADE * chunk,), (block,))

    def loop(
        self,
        scope: _Scope,
        dim: int,
        start: Value,
        stop: Value,
        chunk: int,
        carried: Values,
        once: Once,
        partial: bool,
    ) -> Values:
        """A counted loop; no loop at all where it is known to run once or never."""
        b = scope.builder
        lo, hi = b.constant(start), b.constant(stop)
        if lo is not None and hi is not None and hi - lo <= chunk:
            if hi <= lo:
                return carried
            limit = b(Sub, stop, start) if partial else None
            return once(scope.open(dim, start, limit, b), carried)
        body = b.nested()
        counter = body.param(start.type, "k")
        params = tuple(body.param(v.type) for v in carried)
        limit = body(Sub, stop, counter) if partial else None
        yields = once(scope.open(dim, counter, limit, body), params)
        return b.emit(For, (start, stop, *carried), (chunk,), (body.block(yields),))

    def chunk_of(self, dim: int) -> int:
        """How many elements of a dimension one trip handles."""
        assert self.layout is not None
        padded = _without_time(self.layout).padded_shape[dim]
        assert isinstance(padded, int)
        return padded

    def extent(self, scope: _Scope, dim: int) -> Value:
        """How many elements of a dimension there are in this program."""
        if dim in self.limits:
            self.want(scope, [self.limits[dim]])
            return scope[self.limits[dim]]
        assert self.layout is not None
        return scope.builder.size(self.layout.shape[dim])

    def whole(self, scope: _Scope, dim: int) -> Value:
        """How many of them lie in whole chunks."""
        b, chunk = scope.builder, self.chunk_of(dim)
        if dim not in self.limits:
            assert self.layout is not None
            return b.size(self.layout.shape[dim] // chunk * chunk)
        extent = self.extent(scope, dim)
        if chunk == 1:
            return extent
        return b(Mul, b(TruncDiv, extent, b.const(chunk, i64)), b.const(chunk, i64))

    def body(self, scope: _Scope, nest: _Nest, carried: Values) -> Values:
        """The innermost block: keep, store, and combine into what is carried."""
        for value in nest.kept:
            self.want(scope, [value])
            self.put_aside(scope, value)
        for op in nest.stores:
            self.want(scope, op.operands)
            self.emit(scope, op)
        states: list[Value] = []
        for op in nest.reductions:
            state, carried = carried[: len(op.results)], carried[len(op.results) :]
            self.want(scope, op.values)
            new = self.guarded(scope, op)
            states += combine(scope.builder, op.monoid, state, new)
        return tuple(states)

    # Values

    def want(self, scope: _Scope, values: Sequence[Value]) -> None:
        """Compute values for the current chunk, and what they depend on before."""
        stack = list(reversed(values))
        while stack:
            value = stack[-1]
            if scope.find(value) is not None:
                stack.pop()
                continue
            op = self.made[value]
            if value in self.scratch and self.sweeps[op] < self.now:
                self.take_back(scope, value)
                continue
            missing = [v for v in op.operands if scope.find(v) is None]
            if not missing:
                self.emit(scope, op)
            stack.extend(reversed(missing))

    def emit(self, scope: _Scope, op: Op) -> None:
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

    def guarded(self, scope: _Scope, op: ReduceTile) -> Values:
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
        self, scope: _Scope, op: LoadTile | StoreTile, shape: tuple[Dim, ...]
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

    # Scratch

    def reserve(self, value: Value) -> None:
        """Scratch memory for all chunks of a value."""
        type_ = value.type
        assert isinstance(type_, Tile)
        assert type_.layout is not None
        shape = tuple(type_.layout.padded_shape)
        buffer = Buffer(
            type_.dtype, strided(shape, _dense(shape), type_.dtype.bits), Space.SCRATCH
        )
        memory = self.builder(Scratch, type=buffer)
        self.scratch[value] = memory, _dense(shape)

    def put_aside(self, scope: _Scope, value: Value) -> None:
        memory, strides = self.scratch[value]
        offset = self.in_scratch(scope, value, strides)
        operands = (scope[value], memory, offset)
        scope.builder.emit(StoreTile, operands, (strides, (), False, False, False))

    def take_back(self, scope: _Scope, value: Value) -> None:
        memory, strides = self.scratch[value]
        home = scope.home(time_dims(value))
        attrs = (_chunk(value.type), strides, (), False, False, 0)
        offset = self.in_scratch(home, value, strides)
        (home.values[value],) = home.builder.emit(LoadTile, (memory, offset), attrs)

    def in_scratch(
        self, scope: _Scope, value: Value, strides: tuple[Dim, ...]
    ) -> Value:
        """Where the current chunk of a value lies; loops over what it lacks are none
        of its."""
        b = scope.builder
        offset = b.const(0, i64)
        for dim in sorted(time_dims(value)):
            step = b(Mul, scope.origins[dim], b.size(strides[dim]))
            offset = b(Add, offset, step)
        return offset


# How each op reads for one chunk: its operands and attributes.


def _same(s: _Stripmining, scope: _Scope, op: Op) -> Any:
    return [scope[v] for v in op.operands], op.attrs


def _load(s: _Stripmining, scope: _Scope, op: LoadTile) -> Any:
    offset, limited, rest = s.access(scope, op, op.type.shape)
    ahead = op.prefetch if s.now == 0 else 0
    attrs = (_chunk(op.type), op.strides, limited, op.indirect, op.masked, ahead)
    return [scope[op.buffer], offset, *rest], attrs


def _store(s: _Stripmining, scope: _Scope, op: StoreTile) -> Any:
    offset, limited, rest = s.access(scope, op, op.value.shape)
    attrs = (op.strides, limited, op.indirect, op.masked, op.streaming)
    return [scope[op.value], scope[op.buffer], offset, *rest], attrs


def _iota(s: _Stripmining, scope: _Scope, op: IotaTile) -> Any:
    origin = scope[op.origin]
    if op.dim in scope.origins and op.dim in time_dims(op.result):
        origin = scope.builder(Add, origin, scope.origins[op.dim])
    return [origin], (_chunk(op.type), op.dim)


def _broadcast(s: _Stripmining, scope: _Scope, op: BroadcastTile) -> Any:
    return [scope[op.x]], (_chunk(op.type),)


def _convert(s: _Stripmining, scope: _Scope, op: Convert) -> Any:
    return [scope[op.x]], (_without_time(op.layout),)


def _reduce(s: _Stripmining, scope: _Scope, op: ReduceTile) -> Any:
    return list(s.guarded(scope, op)), op.attrs


def _guard(s: _Stripmining, scope: _Scope, op: Guard) -> Any:
    limited = tuple(d for d in op.limited if d in scope.limits)
    return [scope[op.x], *(scope.limits[d] for d in limited)], (limited, op.identity)


CHUNKED: Mapping[type, Callable[[_Stripmining, _Scope, Any], Any]] = {
    LoadTile: _load,
    StoreTile: _store,
    IotaTile: _iota,
    BroadcastTile: _broadcast,
    Convert: _convert,
    Guard: _guard,
    ReduceTile: _reduce,
}


def _chunk(type_: Any) -> Tile:
    """The type of one chunk of a tile."""
    assert isinstance(type_, Tile)
    assert type_.layout is not None
    layout = _without_time(type_.layout)
    return Tile(type_.dtype, layout.shape, layout)


def _without_time(layout: Layout) -> Layout:
    """A layout of whole chunks: no time digits, nothing padded."""
    dims = [tuple(g for g in digits if g.axis != TIME) for digits in layout.dims]
    return Layout(dims)


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


def _dense(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    strides: list[Dim] = []
    below: Dim = 1
    for extent in reversed(shape):
        strides.append(below)
        below = below * extent
    return tuple(reversed(strides))


def _hints(op: Op) -> tuple[str, ...]:
    return tuple(value.hint for value in op.results)
