"""Chunks: what each op of a kernel reads where loops over chunks are open.

    %x = load_tile : tile<[1000], 16:time 4:reg 16:lane>
        in a loop over %k
    %o = add offset, mul(%k, stride)
    %x = load_tile %o : tile<[64], 4:reg 16:lane>

A value is computed for the current chunk where somebody wants it, and once for all
loops that it does not vary with. Of earlier sweeps it is read back, if scratch memory
holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fusec.analysis.sweeps import (
    Loop,
    Loops,
    ending,
    loops_of,
    number_sweeps,
    timed,
)
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Op, Value, Values, definitions
from fusec.ir.dims import Dim
from fusec.ir.dtypes import DType, i64
from fusec.ir.layout import LANE, TIME, Digit, Layout, strided
from fusec.ir.layout.digits import known
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.elementwise import Add, Mul
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.ops.tile import (
    BroadcastTile,
    Convert,
    FetchTile,
    Guard,
    IotaTile,
    LoadTile,
    Scratch,
    Stage,
    StoreTile,
)
from fusec.ir.types import Buffer, Space, Tile


@dataclass(frozen=True, slots=True)
class Memory:
    """Scratch memory for all chunks of a value that some loops reach."""

    buffer: Value
    strides: tuple[Dim, ...]
    loops: Loops


States = dict[Op, Values]
"""What each reduction or scan has come to so far, one value per component."""


@dataclass(slots=True, eq=False)
class Scope:
    """One level of a loop nest under construction."""

    builder: Builder
    parent: Scope | None = None
    counters: Mapping[Loop, Value] = field(default_factory=dict[Loop, Value])
    """The open loops, from the outermost, and how far on each is, in elements."""
    places: Mapping[Loop, Value] = field(default_factory=dict[Loop, Value])
    """The same, but for chunks that begin early: where they would have begun."""
    left: Mapping[Loop, Value] = field(default_factory=dict[Loop, Value])
    """How many elements are still to come, of those loops that end sums."""
    limits: Mapping[int, Value] = field(default_factory=dict[int, Value])
    """How many elements exist, of the dimensions whose chunk here is partial."""
    values: dict[Value, Value] = field(default_factory=dict[Value, Value])
    """What is computed here, by the value it was before."""
    states: States = field(default_factory=States)
    """What the loop carries in registers, as the current trip finds it."""
    guarded: bool = False
    """It runs only sometimes, where the scope around it does."""

    def open(
        self,
        loop: Loop,
        counter: Value,
        limit: Value | None,
        builder: Builder,
        states: States,
        place: Value | None = None,
        left: Value | None = None,
    ) -> Scope:
        """The scope inside one more loop; `limit` elements exist if fewer than all."""
        limits = {d: v for d, v in self.limits.items() if d != loop.dim}
        if limit is not None:
            limits[loop.dim] = limit
        return Scope(
            builder,
            self,
            {**self.counters, loop: counter},
            {**self.places, loop: counter if place is None else place},
            self.left if left is None else {**self.left, loop: left},
            limits,
            states=states,
        )

    def inside(self, builder: Builder, states: States, guarded: bool = False) -> Scope:
        """The scope of a loop that walks nothing further."""
        return Scope(
            builder,
            self,
            self.counters,
            self.places,
            self.left,
            self.limits,
            states=states,
            guarded=guarded,
        )

    def unmoved(self, builder: Builder) -> Scope:
        """The scope in which each chunk has a place of its own in scratch memory, where
        none begins early."""
        return replace(self.inside(builder, {}), counters=self.places)

    @property
    def dims(self) -> set[int]:
        """The dimensions with an open loop."""
        return {loop.dim for loop in self.counters}

    def around(self, loop: Loop) -> Loop | None:
        """The innermost open loop over the dimension of another one."""
        found = [x for x in self.counters if x.dim == loop.dim]
        return found[-1] if found else None

    def outward(self) -> Iterator[Scope]:
        """This scope, then those around it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    def find(self, value: Value) -> Value | None:
        """A value as it is known here."""
        found = (s.values[value] for s in self.outward() if value in s.values)
        return next(found, None)

    def state(self, op: Op) -> Values | None:
        """What a loop around carries for an op in registers, if one does."""
        found = (s.states[op] for s in self.outward() if op in s.states)
        return next(found, None)

    def __getitem__(self, value: Value) -> Value:
        found = self.find(value)
        assert found is not None, f"{value} is not computed yet"
        return found

    def home(self, loops: Loops) -> Scope:
        """The outermost scope that has all these loops open; what depends on all that
        are open here stays where it is guarded."""
        home = self
        for scope in self.outward():
            if not loops <= scope.counters.keys():
                break
            if not (home.guarded and scope.counters.keys() == home.counters.keys()):
                home = scope
        return home


class Chunks:
    """What has been computed, and put aside, of one kernel."""

    def __init__(self, function: Function, builder: Builder) -> None:
        self.builder = builder
        """That of the kernel, outside all loops."""
        self.made = definitions(function.body)
        self.sweeps = number_sweeps(function)
        self.now = 0
        """The sweep that is being emitted."""
        self.scratch: dict[Value, Memory] = {}
        self.staged = set[Value]()
        """Values that the current loops read from scratch memory."""

    def want(self, scope: Scope, values: Sequence[Value]) -> None:
        """Compute values for the current chunk, and what they depend on before."""
        stack = list(reversed(values))
        while stack:
            value = stack[-1]
            if scope.find(value) is not None:
                stack.pop()
                continue
            if value in self.staged or self.is_kept(value):
                self.take_back(scope, value)
                continue
            op = self.made[value]
            missing = [v for v in op.operands if scope.find(v) is None]
            if not missing:
                self.emit(scope, op)
            stack.extend(reversed(missing))

    def emit(self, scope: Scope, op: Op) -> None:
        """Emit an op for the current chunk, in the outermost loop it varies with."""
        if not isinstance(op, StoreTile):
            # Every chunk of a broadcast is the same one.
            spread = op.operands if isinstance(op, BroadcastTile) else op.results
            scope = scope.home(frozenset[Loop]().union(*map(loops_of, spread)))
        scope.builder.loc = op.loc
        rule = RULES.get(type(op), _same)
        operands, attrs = rule(self, scope, op)
        results = scope.builder.emit(type(op), operands, attrs, (), None, op.hints)
        scope.values.update(zip(op.results, results, strict=True))
        if isinstance(op, ScanTile) and ending(op) and scope.state(op) is None:
            for value in op.totals:
                self.put_aside(scope, value, scope.values[value])

    def guarded(self, scope: Scope, op: ReduceTile) -> Values:
        """The operands of a reduction, with the identity where nothing exists."""
        pairs = zip(op.values, op.monoid.identity, strict=True)
        return tuple(self.guard(scope, v, op.dims, number) for v, number in pairs)

    def factors(self, scope: Scope, op: DotTile) -> Values:
        """The operands of a product, with 0 where nothing is to be added up."""
        return tuple(
            scope[v] if self.is_fetched(v) else self.guard(scope, v, op.dims, 0)
            for v in (op.x, op.y)
        )

    def is_fetched(self, value: Value) -> bool:
        """Whether a value has zeros already where nothing exists."""
        op = self.made[value]
        while isinstance(op, Convert):
            op = self.made[op.x]
        return isinstance(op, FetchTile)

    def guard(
        self,
        scope: Scope,
        value: Value,
        dims: Sequence[int],
        number: float | int | bool,
    ) -> Value:
        """A chunk with a number where some dimensions have no elements any more."""
        assert isinstance(value.type, Tile)
        limits = self.limits(scope, value.type)
        limited = tuple(d for d in sorted(dims) if d in limits)
        if not limited:
            return scope[value]
        operands = scope[value], *(limits[d] for d in limited)
        return scope.builder.emit(Guard, operands, (limited, number))[0]

    def limits(self, scope: Scope, type_: Tile) -> dict[int, Value]:
        """Up to where the elements of a chunk exist, in dimensions where not all do."""
        shape = type_.shape
        limits = {d: v for d, v in scope.limits.items() if shape[d] != 1}
        # What is staged has a layout of its own, padded where others may not be.
        padded = (d for d in _padded(type_) if d not in limits)
        return limits | {d: scope.builder.size(shape[d]) for d in padded}

    def access(
        self, scope: Scope, op: LoadTile | StoreTile, type_: Tile
    ) -> tuple[Value, tuple[int, ...], list[Value]]:
        """Offset, limited dimensions and the operands after the offset, here."""
        b, shape = scope.builder, type_.shape
        offset = scope[op.offset]
        for loop, counter in scope.counters.items():
            if shape[loop.dim] != 1 and op.strides[loop.dim] != 0:
                step = b(Mul, counter, b.size(op.strides[loop.dim]))
                offset = b(Add, offset, step)
        limits = {d: scope[v] for d, v in op.limits.items() if d not in scope.dims}
        limits |= self.limits(scope, type_)
        dims = tuple(sorted(limits))
        others = [scope[v] for v in op.rest[len(op.limited) :]]
        return offset, dims, [*(limits[d] for d in dims), *others]

    # Scratch

    def is_kept(self, value: Value) -> bool:
        """Whether an earlier sweep put all chunks of a value aside."""
        return value in self.scratch and self.sweeps[self.made[value]] < self.now

    def reserve(self, value: Value, loops: Loops) -> Memory:
        """Scratch memory for the chunks of a value that some of its loops reach."""
        type_ = value.type
        assert isinstance(type_, Tile)
        assert type_.layout is not None
        return self.memory(
            type_.dtype, _reached(type_.layout, loops), type_.layout, loops
        )

    def reserve_stage(self, op: Stage, read: Loops, packed: Loops) -> Memory:
        """Scratch memory for what is staged: how far the loops that read it, and those
        that write it, reach."""
        extents = [_extents(v, own) for v, own in ((op.x, packed), (op.result, read))]
        shape = tuple(max(pair) for pair in zip(*extents, strict=True))
        assert isinstance(op.x.type, Tile)
        assert op.x.type.layout is not None
        layout = op.x.type.layout
        return self.memory(op.type.dtype, shape, layout, read | packed)

    def memory(
        self, dtype: DType, shape: tuple[Dim, ...], layout: Layout, loops: Loops
    ) -> Memory:
        strides = _dense(shape, [_has_lanes(d) for d in layout.dims])
        buffer = Buffer(dtype, strided(shape, strides, dtype.bits), Space.SCRATCH)
        return Memory(self.builder(Scratch, type=buffer), strides, loops)

    def make_room(self, value: Value) -> None:
        """See to it that a value has scratch memory for all its chunks."""
        if value not in self.scratch:
            self.scratch[value] = self.reserve(value, loops_of(value))

    def put_aside(self, scope: Scope, value: Value, chunk: Value) -> None:
        """Write the current chunk of a value to the scratch memory that it has."""
        memory = self.scratch[value]
        offset = self.in_scratch(scope, memory)
        attrs = (memory.strides, (), False, False, False, "")
        scope.builder.emit(StoreTile, (chunk, memory.buffer, offset), attrs)

    def taken(self, scope: Scope, value: Value, memory: Memory | None = None) -> Value:
        """The current chunk of a value, read from scratch memory."""
        memory = memory or self.scratch[value]
        attrs = (chunk_type(value.type), memory.strides, (), False, False, 0)
        offset = self.in_scratch(scope, memory)
        return scope.builder.emit(LoadTile, (memory.buffer, offset), attrs)[0]

    def take_back(self, scope: Scope, value: Value) -> None:
        """Read a value of an earlier sweep, once for all loops that it lacks."""
        home = scope.home(loops_of(value))
        home.values[value] = self.taken(home, value)

    def in_scratch(self, scope: Scope, memory: Memory) -> Value:
        """Where the current chunk of a value lies; loops over what it lacks are none
        of its."""
        b = scope.builder
        offset = b.const(0, i64)
        for loop, counter in scope.counters.items():
            if loop in memory.loops:
                step = b(Mul, counter, b.size(memory.strides[loop.dim]))
                offset = b(Add, offset, step)
        return offset


# How each op reads for one chunk: its operands and attributes.


def _same(c: Chunks, scope: Scope, op: Op) -> Any:
    return [scope[v] for v in op.operands], op.attrs


def _load(c: Chunks, scope: Scope, op: LoadTile) -> Any:
    offset, limited, rest = c.access(scope, op, op.type)
    ahead = op.prefetch if c.now == 0 else 0
    attrs = (chunk_type(op.type), op.strides, limited, op.indirect, op.masked, ahead)
    return [scope[op.buffer], offset, *rest], attrs


def _fetch(c: Chunks, scope: Scope, op: FetchTile) -> Any:
    """The descriptor is the same for all chunks: those move on within it."""
    shape = op.type.shape
    places = {
        loop.dim: counter
        for loop, counter in scope.counters.items()
        if shape[loop.dim] != 1
    }
    attrs = (chunk_type(op.type), op.strides, op.limited, tuple(places))
    return [*(scope[v] for v in op.operands), *places.values()], attrs


def _store(c: Chunks, scope: Scope, op: StoreTile) -> Any:
    offset, limited, rest = c.access(scope, op, op.value.type)
    kind = op.indirect, op.masked, op.streaming, op.combine
    attrs = (op.strides, limited, *kind)
    return [scope[op.value], scope[op.buffer], offset, *rest], attrs


def _iota(c: Chunks, scope: Scope, op: IotaTile) -> Any:
    origin, own = scope[op.origin], loops_of(op.result)
    for loop, counter in scope.counters.items():
        if loop in own and loop.dim == op.dim:
            origin = scope.builder(Add, origin, counter)
    return [origin], (chunk_type(op.type), op.dim)


def _broadcast(c: Chunks, scope: Scope, op: BroadcastTile) -> Any:
    return [scope[op.x]], (chunk_type(op.type),)


def _convert(c: Chunks, scope: Scope, op: Convert) -> Any:
    return [scope[op.x]], (without_time(op.layout),)


def _reduce(c: Chunks, scope: Scope, op: ReduceTile) -> Any:
    return list(c.guarded(scope, op)), op.attrs


def _dot(c: Chunks, scope: Scope, op: DotTile) -> Any:
    return [scope[op.state], *c.factors(scope, op)], op.attrs


def _scan(c: Chunks, scope: Scope, op: ScanTile) -> Any:
    """After the elements that earlier chunks hold, if there are any."""
    values = [scope[v] for v in op.values]
    if not ending(op):
        return [*values, *(scope[v] for v in op.starts)], op.attrs
    state = scope.state(op)
    if state is None:
        state = tuple(c.taken(scope, v) for v in op.totals)
    return [*values, *state], op.attrs


def _guard(c: Chunks, scope: Scope, op: Guard) -> Any:
    limited = tuple(d for d in op.limited if d in scope.limits)
    return [scope[op.x], *(scope.limits[d] for d in limited)], (limited, op.identity)


RULES: Mapping[type, Callable[[Chunks, Scope, Any], Any]] = {
    LoadTile: _load,
    FetchTile: _fetch,
    StoreTile: _store,
    IotaTile: _iota,
    BroadcastTile: _broadcast,
    Convert: _convert,
    Guard: _guard,
    ReduceTile: _reduce,
    DotTile: _dot,
    ScanTile: _scan,
}


def chunk_type(type_: Any) -> Tile:
    """The type of one chunk of a tile."""
    assert isinstance(type_, Tile)
    assert type_.layout is not None
    layout = without_time(type_.layout)
    return Tile(type_.dtype, layout.shape, layout)


def without_time(layout: Layout) -> Layout:
    """A layout of whole chunks: no time digits, nothing padded."""
    dims = [tuple(g for g in digits if g.axis != TIME) for digits in layout.dims]
    return Layout(dims)


def _padded(type_: Tile) -> Iterator[int]:
    """The dimensions that fit one chunk and do not fill it."""
    layout = type_.layout
    assert layout is not None
    for d, digits in enumerate(layout.dims):
        if layout.shape[d] != layout.padded_shape[d] and not timed(digits):
            yield d


def _reached(layout: Layout, loops: Loops) -> tuple[Dim, ...]:
    """The extents of what some loops reach of a layout, padding included."""
    shape: list[Dim] = []
    for dim, digits in enumerate(layout.dims):
        extent: Dim = 1 if digits else layout.shape[dim]
        for digit in reversed(digits):
            if digit.axis == TIME and Loop(dim, extent) not in loops:  # type: ignore[arg-type]
                break
            extent = extent * digit.extent
        shape.append(extent)
    return tuple(shape)


def _extents(value: Value, loops: Loops) -> tuple[int, ...]:
    """How far known loops reach."""
    assert isinstance(value.type, Tile)
    assert value.type.layout is not None
    return tuple(known(n) for n in _reached(value.type.layout, loops))


def _has_lanes(digits: Sequence[Digit]) -> bool:
    return any(digit.axis == LANE for digit in digits)


def _dense(shape: Sequence[Dim], lanes: Sequence[bool]) -> tuple[Dim, ...]:
    """Strides of memory without gaps in which lanes lie in a row."""
    order = sorted(range(len(shape)), key=lambda d: (lanes[d], d))
    strides: dict[int, Dim] = {}
    below: Dim = 1
    for d in reversed(order):
        strides[d] = below
        below = below * shape[d]
    return tuple(strides[d] for d in range(len(shape)))
