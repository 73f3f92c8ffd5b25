"""Which regions may become one, what that saves, and why the others do not.

Priority fusion (XLA's algorithm, by time saved over all users): every edge from a
producer group to a consumer group has a gain, the predicted time apart less the
predicted time together; the best is fused, its neighbours are priced again.

A group holds its regions placed in one iteration space: for each region a
*placement*, the affine expressions that its axes are in the axes of the group.

    %m = region(%x) over i, r    { … reduce r … store %m [i] }
    %y = region(%x, %m) over a, b { load %m [a] … store %y [a, b] }
    fused over a, b: the first is placed by {i: a, r: b}

Horizontal fusion comes last: groups that read one tensor over the same axes, as the
gradients of a weight and of a bias do, become one that reads it once.

A producer that is read at several places is placed several times (recomputed), which
only cheap ones afford. Axes that a producer reduces over share an axis of the group
where one of the same extent is free, so both sweep the same loop.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, pairwise

from fusec.analysis.affine import covers
from fusec.analysis.cost import Work, likely, seconds, weigh
from fusec.analysis.placement import (
    Place,
    Placement,
    Places,
    affine_index,
    coordinate,
    invert,
    is_computed,
    key,
    place_key,
)
from fusec.errors import InternalError
from fusec.ir.core import Affine, Function, Op, Value, walk
from fusec.ir.dims import Dim, Symbol, product
from fusec.ir.ops.elementwise import Elementwise
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import Load, Region, Store
from fusec.ir.ops.reduction import Reduce, Scan
from fusec.ir.types import Axis, Tensor
from fusec.target import Target

MAX_WORK = 1200.0
"""Instructions for one point of a kernel: beyond, compiling takes its time."""
MAX_BUFFERS = 48
CHEAP_OPS = 12
"""A producer of so few ops may be computed again for every user."""


UNALIGNED = "the reshape between them does not fall apart into whole axes"

_Read = tuple[Value, Load, int, Placement]
"""A load of a fused tensor: the tensor, the load, its region and where that is."""
_Members = dict[int, list[Placement]]


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What the analysis needs to know of one region, read off once."""

    op: Region
    loads: tuple[tuple[Value, Load], ...]
    """The tensor of the function that each load reads."""
    stores: Mapping[Value, tuple[Affine, ...]]
    """Where each result is stored."""
    reduced: tuple[Axis, ...]
    scanned: tuple[Axis, ...]
    axes: tuple[Axis, ...]
    ops: int
    weight: float
    """Arithmetic per point of the largest space, in simple operations."""

    @property
    def swept(self) -> tuple[Axis, ...]:
        """The axes that one program has to walk."""
        return (*self.reduced, *self.scanned)

    @property
    def work(self) -> float:
        """Instructions for one point, loads and stores included."""
        return self.ops + self.weight


def summarise(op: Region) -> Summary:
    """Read a region once."""
    outer = dict(zip(op.body.params, (*op.inputs, *op.results), strict=True))
    loads: list[tuple[Value, Load]] = []
    stores: dict[Value, tuple[Affine, ...]] = {}
    reduced: dict[Axis, None] = {}
    scanned: dict[Axis, None] = {}
    axes: dict[Axis, None] = {}
    weight, ops = 0.0, 0
    for inner in walk(op.body):
        ops += 1
        if isinstance(inner, Load):
            loads.append((outer[inner.buffer], inner))
            axes.update(_index_axes(inner.index))
        elif isinstance(inner, Store):
            stores[outer[inner.buffer]] = inner.index
            axes.update(_index_axes(inner.index))
        elif isinstance(inner, Reduce):
            reduced.update(dict.fromkeys(inner.axes))
        elif isinstance(inner, Scan):
            scanned[inner.axis] = None
        weight += weigh(inner)
    axes.update(reduced | scanned)
    swept = tuple(reduced), tuple(scanned)
    return Summary(op, tuple(loads), stores, *swept, tuple(axes), ops, weight)


def _index_axes(index: tuple[object, ...]) -> dict[Axis, None]:
    entries = [entry for entry in index if isinstance(entry, Affine)]
    return dict.fromkeys(axis for entry in entries for axis in entry.axes)


@dataclass(slots=True, eq=False)
class Group:
    """Regions that run as one, placed in the axes of `root`."""

    number: int
    members: _Members = field(default_factory=dict[int, list[Placement]])
    """For each region, by its position in the function: where it is placed."""
    stored: set[Value] = field(default_factory=set[Value])
    """Results that others read."""
    spans: dict[Value, frozenset[Axis]] = field(
        default_factory=dict[Value, frozenset[Axis]]
    )
    """The axes that each of them is stored over, once the group is checked."""

    @property
    def first(self) -> int:
        """The earliest of its ops."""
        return min(self.members, default=self.number)


_Candidate = tuple[float, int, int, int, Group, Group, Group]
"""Two groups that gain by becoming one: less than others if they gain more, then by
their numbers, then by when they were found; the groups, and what they become."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Two neighbours that did not become one, and why."""

    producer: str
    consumer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Groups in an order in which they can run, and every refusal."""

    groups: tuple[Group, ...]
    refusals: tuple[Refusal, ...]


class Fusion:
    """The state of priority fusion over one loop function."""

    def __init__(
        self, function: Function, target: Target, hints: Mapping[Symbol, int]
    ) -> None:
        self.function = function
        self.target = target
        self.hints = hints
        self.ops = function.body.ops
        self.summaries: dict[int, Summary] = {
            k: summarise(op) for k, op in enumerate(self.ops) if isinstance(op, Region)
        }
        self.maker = {v: k for k, op in enumerate(self.ops) for v in op.results}
        self.readers = _readers(function)
        self.returned = set(function.body.yields)
        self.group_of: dict[int, Group] = {}
        for k in range(len(self.ops)):
            self.group_of[k] = self._single(k)
        self.places = Places()
        self.effects = _effects(function)
        self.spanned = list(range(len(self.ops)))
        """The last op of those groups that stand around an op, or the op itself."""
        self.times: dict[Group, float] = {}
        self.found = count()
        """Numbers for candidates, so that the queue never compares groups."""
        self.refusals: dict[tuple[int, int], str] = {}

    def _single(self, k: int) -> Group:
        summary = self.summaries.get(k)
        if summary is None:
            return Group(k)
        identity: Placement = {axis: Affine.of(axis) for axis in summary.axes}
        group = Group(k, {k: [identity]}, set(summary.op.results))
        for value in group.stored:
            group.spans[value] = self._span(group, value) or frozenset()
        return group

    def is_read(self, value: Value) -> bool:
        """Whether an op reads a value, or the function returns it."""
        return value in self.readers or value in self.returned

    def run(self) -> Plan:
        """Fuse while anything gains by it."""
        queue: list[_Candidate] = []
        for k in self.summaries:
            self._push(queue, self.group_of[k])
        while queue:
            *_, producer, consumer, merged = heapq.heappop(queue)
            if not self._stands(producer, consumer):
                continue
            self._commit(merged)
            self._push(queue, merged)
            for neighbour in self._producers(merged):
                self._push(queue, neighbour, merged)
        self._join_siblings()
        return Plan(tuple(self._ordered()), self._refused())

    def _push(
        self, queue: list[_Candidate], producer: Group, only: Group | None = None
    ) -> None:
        """Queue the edges of a producer that gain by fusing."""
        for consumer in [only] if only else self._consumers(producer):
            merged, gain = self.attempt(producer, consumer)
            if merged is not None:
                order = -gain, producer.number, consumer.number, next(self.found)
                heapq.heappush(queue, (*order, producer, consumer, merged))

    def _stands(self, a: Group, b: Group) -> bool:
        """Whether neither group has become another since, nor a way round appeared."""
        if self.group_of[a.number] is not a or self.group_of[b.number] is not b:
            return False
        reason = self._cycle(a, b)
        if reason is not None:
            self.refusals[a.number, b.number] = reason
        return reason is None

    def _join_siblings(self) -> None:
        """Fuse groups that read the same tensors, those that read most first."""
        inputs = [v for v, readers in self.readers.items() if len(readers) > 1]
        for value in sorted(inputs, key=self._bytes, reverse=True):
            groups = dict.fromkeys(self.group_of[k] for k in self.readers[value])
            waiting = [group for group in groups if group.members]
            while waiting:
                a, *waiting = waiting
                for b in waiting:
                    merged = self._joined(a, b, value)
                    if merged is not None:
                        self._commit(merged)
                        waiting[waiting.index(b)] = merged
                        break

    def _joined(self, a: Group, b: Group, value: Value) -> Group | None:
        """The group of two that read a value, if neither waits for the other and they
        gain by it."""
        a, b = sorted((a, b), key=lambda group: group.number)
        if b in (*self._consumers(a), *self._producers(a)):
            return None
        if self._cycle(a, b) or self._cycle(b, a):
            return None
        placed = (p for g in (a, b) for each in g.members.values() for p in each)
        if any(map(is_computed, placed)):
            return None
        place = self._side_by_side(a, b, value)
        if place is None:
            return None
        members = {k: list(p) for k, p in b.members.items()}
        for k, placements in a.members.items():
            moved = [self.places.compose(p, place) for p in placements]
            members[k] = [p for p in moved if p is not None]
            if len(members[k]) < len(placements):
                return None
        merged, _ = self._checked(Group(b.number, members, self._still_read(a, b)))
        gains = merged and self.time(merged) <= self.time(a) + self.time(b)
        return merged if gains else None

    def _side_by_side(self, a: Group, b: Group, value: Value) -> Placement | None:
        """Where the axes of a lie among those of b, so that both read a value alike."""
        ours, theirs = (self._places_read(group, value) for group in (a, b))
        if ours is None or theirs is None:
            return None
        place: dict[Axis, Place] = {}
        for mine, wanted in zip(ours, theirs, strict=True):
            if not mine.terms and not wanted.terms and mine.const == wanted.const:
                continue
            plain = [(len(x.terms), x.const) for x in (mine, wanted)] == [(1, 0)] * 2
            if not plain or any(x.terms[0][1] != 1 for x in (mine, wanted)):
                return None
            if mine.axes[0].extent != wanted.axes[0].extent:
                return None
            place[mine.axes[0]] = wanted
        return self._share_sweeps(self._axes(a), self._axes(b), place)

    def _places_read(self, group: Group, value: Value) -> list[Affine] | None:
        """The index at which a group reads a value, if there is just one."""
        found: dict[object, list[Affine]] = {}
        for k, placements in group.members.items():
            for tensor, load in self.summaries[k].loads:
                if tensor is not value:
                    continue
                for placement in placements:
                    index = self.places.wanted(load, k, placement)
                    affine = [place for place in index if isinstance(place, Affine)]
                    if len(affine) < len(index):
                        return None
                    found[tuple(map(place_key, affine))] = affine
        return next(iter(found.values())) if len(found) == 1 else None

    def _consumers(self, group: Group) -> list[Group]:
        found = {
            self.group_of[k].number: self.group_of[k]
            for value in group.stored
            for k in self.readers.get(value, ())
        }
        return [g for g in found.values() if g is not group and g.members]

    def _producers(self, group: Group) -> list[Group]:
        found: dict[int, Group] = {}
        for k in group.members:
            for value, _ in self.summaries[k].loads:
                maker = self.maker.get(value)
                if maker is not None and self.group_of[maker] is not group:
                    other = self.group_of[maker]
                    found[other.number] = other
        return [g for g in found.values() if g.members]

    def attempt(self, a: Group, b: Group) -> tuple[Group | None, float]:
        """The group that a and b become and the seconds it saves, or None."""
        reason = self._cycle(a, b)
        merged: Group | None = None
        gain = 0.0
        if reason is None:
            merged, reason = self._merge(a, b)
        if merged is not None:
            together = self.time(merged)
            apart = self.time(a) + self.time(b)
            gain = apart - together
            if gain < 0:
                reason = (
                    f"slower together: {together * 1e6:.1f} µs,"
                    f" apart {apart * 1e6:.1f} µs"
                )
                merged = None
        if reason is not None:
            self.refusals[a.number, b.number] = reason
        return merged, gain

    def _refused(self) -> tuple[Refusal, ...]:
        """The last refusal of each two groups that stayed apart."""
        found: dict[tuple[int, int], Refusal] = {}
        for (producer, consumer), reason in self.refusals.items():
            a, b = self.group_of[producer], self.group_of[consumer]
            if a is not b:
                names = self.describe(a), self.describe(b)
                found[a.number, b.number] = Refusal(*names, reason)
        return tuple(found.values())

    def describe(self, group: Group) -> str:
        """A group by what it computes last, and by the line that says so."""
        last = self.ops[max(group.members, default=group.number)]
        inner = [
            op
            for k in sorted(group.members)
            for op in walk(self.summaries[k].op.body)
            if isinstance(op, (Elementwise, Reduce, Scan))
        ]
        names = " ".join(map(called, inner[-3:])) or "copy"
        loc = inner[-1].loc if inner and inner[-1].loc.file else last.loc
        return f"{names} at {loc}" if loc.file else names

    # Placing

    def _merge(self, a: Group, b: Group) -> tuple[Group | None, str | None]:
        """Place the producer group a among the regions of b."""
        reads = list(self._reads(a, b))
        if any(load.slots or is_computed(p) for _, load, _, p in reads):
            members, reason = self._placed_anew({*a.members, *b.members})
        else:
            members, reason = self._placed_within(a, b, reads)
        if members is None:
            return None, reason
        return self._checked(Group(b.number, members, self._still_read(a, b)))

    def _placed_within(
        self, a: Group, b: Group, reads: list[_Read]
    ) -> tuple[_Members | None, str | None]:
        """The members of both, those of a where b reads them."""
        places: dict[object, Placement] = {}
        for read in reads:
            (first, *_) = a.members[self.maker[read[0]]]
            wanted = self._demand(read, first)
            if wanted is None:
                return None, UNALIGNED
            shared = self._share_sweeps(self._axes(a), self._axes(b), wanted)
            places.setdefault(key(shared), shared)
        if len(places) > 1 and not self._cheap(a.members):
            return None, f"read at {len(places)} different places, too dear to repeat"
        members = {k: list(p) for k, p in b.members.items()}
        for k, placements in a.members.items():
            for place in places.values():
                moved = [self.places.compose(p, place) for p in placements]
                if any(p is None for p in moved):
                    return None, UNALIGNED
                members.setdefault(k, []).extend(p for p in moved if p is not None)
        return members, None

    def _placed_anew(self, numbers: set[int]) -> tuple[_Members | None, str | None]:
        """Members placed from the last one back, each where its readers want it.

        Whoever is read at a computed coordinate stays where it was for its other
        readers, so the group cannot be moved as a whole.
        """
        members: _Members = {}
        axes: dict[Axis, None] = {}
        for k in sorted(numbers, reverse=True):
            summary = self.summaries[k]
            demands: dict[object, Placement] = {}
            for read in self._reads_of(k, members):
                wanted = self._demand(read, {a: Affine.of(a) for a in summary.axes})
                if wanted is None:
                    return None, UNALIGNED
                shared = self._share_sweeps(list(summary.axes), list(axes), wanted)
                # All axes are named, so that all move when the group does.
                whole = {axis: coordinate(shared, axis) for axis in summary.axes}
                demands.setdefault(key(whole), whole)
            if not demands and members:
                return None, "one is not read by the other"
            if len(demands) > 1 and not self._cheap({k: []}):
                return None, "read both in place and at computed indices"
            identity = {axis: Affine.of(axis) for axis in summary.axes}
            members[k] = list(demands.values()) or [identity]
            for placement in members[k]:
                for axis in summary.axes:
                    axes.update(dict.fromkeys(coordinate(placement, axis).axes))
        return members, None

    def _cheap(self, members: Mapping[int, object]) -> bool:
        """Whether regions may be computed again for every place they are read at."""
        ops = sum(self.summaries[k].ops for k in members)
        return ops <= CHEAP_OPS and not any(self.summaries[k].swept for k in members)

    def _reads(self, a: Group, b: Group) -> Iterator[_Read]:
        """The loads of b that read a, at every placement."""
        for k, placements in b.members.items():
            for value, load in self.summaries[k].loads:
                if self.maker.get(value) in a.members:
                    yield from ((value, load, k, p) for p in placements)

    def _reads_of(self, maker: int, members: _Members) -> Iterator[_Read]:
        """The loads of members that read one region, at every placement."""
        for k, placements in members.items():
            for value, load in self.summaries[k].loads:
                if self.maker.get(value) == maker:
                    yield from ((value, load, k, p) for p in placements)

    def _demand(self, read: _Read, standing: Placement) -> Placement | None:
        """Where the maker's group, as it stands, has to be placed for one load."""
        value, load, reader, placement = read
        wanted = self.places.wanted(load, reader, placement)
        index = [place for place in wanted if place is not None]
        if len(index) < len(wanted):
            return None
        store = self.summaries[self.maker[value]].stores[value]
        stored = affine_index(store, standing)
        return None if stored is None else invert(stored, index, _shape(value))

    def _share_sweeps(
        self, own: list[Axis], others: list[Axis], place: Placement
    ) -> Placement:
        """Let the axes that a producer sweeps on its own be those of its readers.

        Any two axes of one extent may be one, if no value has both.
        """
        taken = {axis for place in place.values() for axis in place.axes}
        free = [x for x in others if x not in taken]
        shared = dict(place)
        for axis in own:
            if axis in shared:
                continue
            match = next((x for x in free if x.extent == axis.extent), None)
            if match is not None:
                free.remove(match)
                shared[axis] = Affine.of(match)
        return shared

    def _axes(self, group: Group) -> list[Axis]:
        """The axes of the iteration space that a group is placed in."""
        found: dict[Axis, None] = {}
        for k, placements in group.members.items():
            for placement in placements:
                for axis in self.summaries[k].axes:
                    found.update(dict.fromkeys(coordinate(placement, axis).axes))
        return list(found)

    def _still_read(self, a: Group, b: Group) -> set[Value]:
        """Results of a and b that someone outside reads."""
        inside = set(a.members) | set(b.members)
        return {
            value
            for value in a.stored | b.stored
            if value in self.returned
            or any(k not in inside for k in self.readers.get(value, ()))
        }

    def _checked(self, group: Group) -> tuple[Group | None, str | None]:
        """The group, unless it breaks a rule of kernels."""
        if any(0 in _shape(v) for k in group.members for v in self.ops[k].results):
            return None, "there is nothing to compute"
        members = group.members.items()
        work = sum(self.summaries[k].work * len(p) for k, p in members)
        if work > MAX_WORK:
            return None, f"{work:.0f} instructions are too many for one kernel"
        for value in group.stored:
            span = self._span(group, value)
            if span is None:
                return None, f"{_named(value)} would not be written exactly once"
            group.spans[value] = span
        if not self._whole_sweeps(group):
            return None, "one reads past what the other reduces over"
        if not self._scans_in_order(group):
            return None, "one does not walk as the other scans"
        sweeps = self._sweeps(group)
        if len(sweeps) > 1:
            return None, "they reduce over different axes"
        walked = frozenset[Axis]().union(*group.spans.values())
        reduced = self.reduced(group)
        for value, span in group.spans.items():
            # Losing axes to a store is only what a reduction does anyway.
            if not walked - span <= reduced:
                return None, f"{_named(value)} has fewer axes than the loop around it"
        buffers = len(group.stored) + len(self.inputs(group))
        if buffers > MAX_BUFFERS:
            return None, f"{buffers} buffers are too many for one kernel"
        return group, None

    def _span(self, group: Group, value: Value) -> frozenset[Axis] | None:
        """The axes that a result is stored over, if each element is written once.

        Of several placements the one that stores becomes the first.
        """
        k = self.maker[value]
        store = self.summaries[k].stores[value]
        placements = group.members[k]
        for at, placement in enumerate(placements):
            index = affine_index(store, placement)
            if index is not None and covers(index, _shape(value)):
                placements[0], placements[at] = placements[at], placements[0]
                return frozenset(axis for entry in index for axis in entry.axes)
        return None

    def _whole_sweeps(self, group: Group) -> bool:
        """Whether every reduction still meets each point of its axes once."""
        places = (
            (coordinate(placement, axis), axis.extent)
            for k, placements in group.members.items()
            for placement in placements
            for axis in self.summaries[k].reduced
        )
        return all(
            isinstance(place, Affine) and covers([place], [extent])
            for place, extent in places
        )

    def _scans_in_order(self, group: Group) -> bool:
        """Whether every scanned axis is one of the group's, from end to end."""
        places = (
            (coordinate(placement, axis), axis.extent)
            for k, placements in group.members.items()
            for placement in placements
            for axis in self.summaries[k].scanned
        )
        return all(
            isinstance(place, Affine)
            and [(a.extent, s) for a, s in place.terms] == [(extent, 1)]
            and place.const == 0
            for place, extent in places
        )

    def _sweeps(self, group: Group) -> set[frozenset[Axis]]:
        """The sets of axes that regions of a group reduce over or scan."""
        found = {
            frozenset(
                axis
                for old in self.summaries[k].swept
                for axis in coordinate(placement, old).axes
            )
            for k, placements in group.members.items()
            for placement in placements
        }
        return found - {frozenset()}

    def reduced(self, group: Group) -> set[Axis]:
        """The axes of the group that some region sweeps to reduce."""
        return {
            axis
            for k, placements in group.members.items()
            for placement in placements
            for old in self.summaries[k].reduced
            for axis in coordinate(placement, old).axes
        }

    def inputs(self, group: Group) -> dict[Value, None]:
        """The tensors that a group reads from outside."""
        return {
            value: None
            for k in group.members
            for value, _ in self.summaries[k].loads
            if self.maker.get(value) not in group.members
        }

    # Pricing

    def time(self, group: Group) -> float:
        """Predicted seconds of a group."""
        if group not in self.times:
            self.times[group] = seconds(self.work(group), self.target)
        return self.times[group]

    def work(self, group: Group) -> Work:
        """What a group moves and computes."""
        read = sum(self._bytes(v) for v in self.inputs(group))
        written = sum(self._bytes(v) for v in group.stored)
        operations = sum(
            self.summaries[k].weight * self._points(k, placement)
            for k, placements in group.members.items()
            for placement in placements
        )
        reduced = self.reduced(group)
        spans = list(group.spans.values())
        swept = reduced.union(*self._sweeps(group))
        grid = frozenset[Axis].intersection(*spans) - swept if spans else ()
        programs = self._size(product(axis.extent for axis in grid))
        row = (read + written) // max(1, programs)
        if row > self.target.l2_bytes and self._sweeps_again(group, reduced):
            read *= 2
        return Work(read, written, operations, programs)

    def _sweeps_again(self, group: Group, reduced: set[Axis]) -> bool:
        """Whether a reduction's result is needed to walk what it reduced once more."""
        if any(span & reduced for span in group.spans.values()):
            return bool(reduced)
        ends = {k for k in group.members if self.summaries[k].reduced}
        after: set[int] = set()
        for k in sorted(group.members):
            makers = {self.maker.get(value) for value, _ in self.summaries[k].loads}
            if makers & (ends | after):
                after.add(k)
        return bool(ends & after)

    def _points(self, k: int, placement: Placement) -> int:
        axes: dict[Axis, None] = {}
        for axis in self.summaries[k].axes:
            axes.update(dict.fromkeys(coordinate(placement, axis).axes))
        return self._size(product(axis.extent for axis in axes))

    def _bytes(self, value: Value) -> int:
        type_ = value.type
        if not isinstance(type_, Tensor):
            return 8
        return self._size(product(type_.shape)) * type_.dtype.bits // 8

    def _size(self, dim: Dim) -> int:
        return likely(dim, self.hints)

    # Order

    def _cycle(self, a: Group, b: Group) -> str | None:
        """Whether something outside must run after a and before b."""
        last = self._last_before(b)
        seen = {a.number, b.number}
        stack = [g for g in self._successors(a) if g is not b]
        while stack:
            group = stack.pop()
            if group.number in seen or group.first > last:
                continue
            seen.add(group.number)
            for successor in self._successors(group):
                if successor is b:
                    return f"{self._called(group)} must run between them"
                stack.append(successor)
        return None

    def _last_before(self, group: Group) -> int:
        """The last op that may stand in a group which something leads from to this one.

        A fused group that stands around an op may be entered behind it and left before
        it, and so may one that stands around the end of that group.
        """
        last = max(group.members)
        while (further := self.spanned[last]) > last:
            last = further
        return last

    def _successors(self, group: Group) -> list[Group]:
        """The groups and externs that read what a group makes."""
        found: dict[int, Group] = {}
        for k in group.members or (group.number,):
            for value in self.ops[k].results:
                for reader in self.readers.get(value, ()):
                    found[self.group_of[reader].number] = self.group_of[reader]
        effect = self.effects.get(group.number)
        if effect is not None:
            found[effect] = self.group_of[effect]
        found.pop(group.number, None)
        return list(found.values())

    def _called(self, group: Group) -> str:
        op = self.ops[group.number]
        return op.target if isinstance(op, Extern) else self.describe(group)

    def _commit(self, merged: Group) -> None:
        first, last = min(merged.members), max(merged.members)
        for k in merged.members:
            self.group_of[k] = merged
        for k in range(first, last):
            self.spanned[k] = max(self.spanned[k], last)

    def _ordered(self) -> list[Group]:
        """Groups and externs in an order that respects every dependence.

        Ops that are not regions keep their order, since some have effects.
        """
        groups = {g.number: g for g in self.group_of.values()}
        waiting = {n: self._needs(g) for n, g in groups.items()}
        unblocks: dict[int, list[int]] = {}
        for n, needs in waiting.items():
            for m in needs:
                unblocks.setdefault(m, []).append(n)
        ready = [n for n, needs in waiting.items() if not needs]
        heapq.heapify(ready)
        ordered: list[Group] = []
        while ready:
            n = heapq.heappop(ready)
            ordered.append(groups[n])
            for m in unblocks.get(n, ()):
                waiting[m].discard(n)
                if not waiting[m]:
                    heapq.heappush(ready, m)
        if len(ordered) != len(groups):
            raise InternalError("fused regions wait for one another in a circle")
        return ordered

    def _needs(self, group: Group) -> set[int]:
        members = list(group.members) or [group.number]
        makers = {
            self.group_of[self.maker[v]].number
            for k in members
            for v in self.ops[k].operands
            if v in self.maker
        }
        makers.update(k for k, after in self.effects.items() if after == group.number)
        return makers - {group.number}


def _effects(function: Function) -> dict[int, int]:
    """For each op with an effect, the next one: these keep their order."""
    effects = [k for k, op in enumerate(function.body.ops) if _has_effect(op)]
    return dict(pairwise(effects))


def _has_effect(op: Op) -> bool:
    return not isinstance(op, Region) and not op.pure


def _readers(function: Function) -> dict[Value, tuple[int, ...]]:
    found: dict[Value, list[int]] = {}
    for k, op in enumerate(function.body.ops):
        for value in dict.fromkeys(op.operands):
            found.setdefault(value, []).append(k)
    return {value: tuple(ks) for value, ks in found.items()}


def called(op: Op) -> str:
    """What an op is to its reader: a reduction is its monoid, a scan runs it."""
    if isinstance(op, Scan):
        return f"cum{op.monoid.name.partition('<')[0]}"
    return op.monoid.name.partition("<")[0] if isinstance(op, Reduce) else op.name


def _named(value: Value) -> str:
    return f"%{value.hint}" if value.hint else "a result"


def _shape(value: Value) -> tuple[Dim, ...]:
    assert isinstance(value.type, Tensor)
    return value.shape
