"""Loop nests: what each is there for, and what is known inside of it.

Ops are numbered by sweep, the longest chain of reductions over time digits before
them: one that needs what a reduction gives waits until its loop has ended.

    %x = load_tile …          sweep 0
    %s = reduce_tile %x       sweep 0, known when its loop has ended
    %y = sub %x, %s           sweep 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from fusec.ir.builder import Builder
from fusec.ir.core import Function, Op, Value, Values
from fusec.ir.layout import TIME, Layout
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.ops.tile import For, StoreTile
from fusec.ir.types import Tile

Dims = frozenset[int]
States = dict[Op, Values]
"""What each reduction or scan has come to so far, one value per component."""


def time_dims(value: Value) -> Dims:
    """The dimensions of a value that are swept in time."""
    if not isinstance(value.type, Tile) or value.type.layout is None:
        return frozenset()
    dims = value.type.layout.dims
    return frozenset(d for d, digits in enumerate(dims) if timed(digits))


def timed(digits: tuple[Any, ...]) -> bool:
    """Whether a dimension of a layout is swept in time."""
    return any(digit.axis == TIME for digit in digits)


def number_sweeps(function: Function) -> dict[Op, int]:
    """For each op, the longest chain of reductions over time before it."""
    sweeps: dict[Op, int] = {}
    ready: dict[Value, int] = {}
    for op in function.body.ops:
        sweeps[op] = max((ready.get(v, 0) for v in op.operands), default=0)
        ready.update(dict.fromkeys(op.results, sweeps[op]))
        ready.update(dict.fromkeys(ending(op), sweeps[op] + 1))
    return sweeps


def ending(op: Op) -> Values:
    """The results of an op that exist only when a loop has ended."""
    if isinstance(op, ReduceTile) and time_dims(op.values[0]) & {*op.dims}:
        return op.results
    if isinstance(op, ScanTile) and op.dim in time_dims(op.values[0]):
        return op.totals
    return ()


@dataclass(slots=True, eq=False)
class Scope:
    """One level of a loop nest under construction."""

    builder: Builder
    parent: Scope | None = None
    origins: Mapping[int, Value] = field(default_factory=dict[int, Value])
    """Where the current chunk of each dimension with an open loop begins."""
    limits: Mapping[int, Value] = field(default_factory=dict[int, Value])
    """How many elements exist, of the dimensions whose chunk here is partial."""
    values: dict[Value, Value] = field(default_factory=dict[Value, Value])
    """What is computed here, by the value it was before."""
    states: States = field(default_factory=States)
    """What the loop carries in registers, as the current trip finds it."""

    def open(
        self,
        dim: int,
        origin: Value,
        limit: Value | None,
        builder: Builder,
        states: States,
    ) -> Scope:
        """The scope inside a loop over one more dimension."""
        limits = dict(self.limits) if limit is None else {**self.limits, dim: limit}
        origins = {**self.origins, dim: origin}
        return Scope(builder, self, origins, limits, states=states)

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

    def home(self, dims: Dims) -> Scope:
        """The outermost scope that has loops over all these dimensions open."""
        scope = self
        while scope.parent is not None and dims <= scope.parent.origins.keys():
            scope = scope.parent
        return scope


@dataclass(slots=True, eq=False)
class Nest:
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


def counted(
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
