"""Vertical fusion: a producer group placed where a consumer group reads it.

    %e = region(%x) over i, j { … store %e [i, j] }
    %y = region(%e) over a, b { load %e [b, a] … }      %e is placed by {i: b, j: a}

A producer that is read at several places is placed several times (recomputed), which
only cheap ones afford. Axes that a producer reduces over share an axis of the group
where one of the same extent is free, so both sweep the same loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fusec.analysis.groups import Fault, Group, Groups, Members
from fusec.analysis.placement import (
    Place,
    Placement,
    Places,
    affine_index,
    coordinate,
    invert,
    is_computed,
    key,
)
from fusec.analysis.regions import shape_of
from fusec.ir.core import Affine, Value
from fusec.ir.ops.loop import Load
from fusec.ir.types import Axis

CHEAP_OPS = 12
"""A producer of so few ops may be computed again for every user."""

UNALIGNED = Fault("the reshape between them does not fall apart into whole axes")

_Read = tuple[Value, Load, int, Placement]
"""A load of a fused tensor: the tensor, the load, its region and where that is."""


class Producers:
    """Places producers among the regions of their consumers."""

    def __init__(self, groups: Groups, places: Places) -> None:
        self.groups = groups
        self.places = places
        self.regions = groups.regions

    def merge(self, a: Group, b: Group) -> Group | Fault:
        """The group of b and its producer a, or why there is none."""
        unfinished = self.groups.unfinished(a, b)
        if unfinished is not None:
            return Fault("is finished only when all programs have ended", unfinished)
        reads = list(self._reads(a.members, b.members))
        if any(load.slots or is_computed(p) for _, load, _, p in reads):
            members = self._placed_anew({*a.members, *b.members})
        else:
            members = self._placed_within(a, b, reads)
        if isinstance(members, Fault):
            return members
        merged = Group(b.number, members, self.groups.still_read(a, b))
        return self.groups.fault(merged) or merged

    def _placed_within(self, a: Group, b: Group, reads: list[_Read]) -> Members | Fault:
        """The members of both, those of a where b reads them."""
        places: dict[object, Placement] = {}
        sweeps = Sweeps(self.groups.axes(a), self.groups.axes(b))
        for read in reads:
            (first, *_) = a.members[self.regions.maker[read[0]]]
            wanted = self._demand(read, first)
            if wanted is None:
                return UNALIGNED
            shared = sweeps.place(wanted)
            places.setdefault(key(shared), shared)
        if len(places) > 1 and not self._cheap(a.members):
            return Fault(f"read at {len(places)} different places, too dear to repeat")
        members = {k: list(p) for k, p in b.members.items()}
        for k, placements in a.members.items():
            for place in places.values():
                moved = [self.places.compose(p, place) for p in placements]
                if any(p is None for p in moved):
                    return UNALIGNED
                members.setdefault(k, []).extend(p for p in moved if p is not None)
        return members

    def _placed_anew(self, numbers: set[int]) -> Members | Fault:
        """Members placed from the last one back, each where its readers want it.

        Whoever is read at a computed coordinate stays where it was for its other
        readers, so the group cannot be moved as a whole.
        """
        members: Members = {}
        axes: dict[Axis, None] = {}
        for k in sorted(numbers, reverse=True):
            summary = self.regions.summaries[k]
            sweeps = Sweeps(summary.axes, list(axes))
            demands: dict[object, Placement] = {}
            for read in self._reads({k}, members):
                wanted = self._demand(read, {a: Affine.of(a) for a in summary.axes})
                if wanted is None:
                    return UNALIGNED
                shared = sweeps.place(wanted)
                # All axes are named, so that all move when the group does.
                whole = {axis: coordinate(shared, axis) for axis in summary.axes}
                demands.setdefault(key(whole), whole)
            if not demands and members:
                return Fault("one is not read by the other")
            if len(demands) > 1 and not self._cheap({k: []}):
                return Fault("read both in place and at computed indices")
            identity = {axis: Affine.of(axis) for axis in summary.axes}
            members[k] = list(demands.values()) or [identity]
            for placement in members[k]:
                for axis in summary.axes:
                    axes.update(dict.fromkeys(coordinate(placement, axis).axes))
        return members

    def _cheap(self, members: Mapping[int, object]) -> bool:
        """Whether regions may be computed again for every place they are read at."""
        summaries = [self.regions.summaries[k] for k in members]
        ops = sum(summary.ops for summary in summaries)
        return ops <= CHEAP_OPS and not any(summary.swept for summary in summaries)

    def _reads(
        self, makers: Mapping[int, object] | set[int], members: Members
    ) -> Iterator[_Read]:
        """The loads of members that read what some regions make, at every placement."""
        for k, placements in members.items():
            for value, load in self.regions.summaries[k].loads:
                if self.regions.maker.get(value) in makers:
                    yield from ((value, load, k, p) for p in placements)

    def _demand(self, read: _Read, standing: Placement) -> Placement | None:
        """Where the maker's group, as it stands, has to be placed for one load."""
        value, load, reader, placement = read
        wanted = self.places.wanted(load, reader, placement)
        index = [place for place in wanted if place is not None]
        if len(index) < len(wanted):
            return None
        store = self.regions.summaries[self.regions.maker[value]].stores[value]
        stored = affine_index(store, standing)
        return None if stored is None else invert(stored, index, shape_of(value))


class Sweeps:
    """Lets the axes that a group sweeps on its own be those of another one.

    Any two axes of one extent may be one, if no value has both. An axis that finds no
    other is a new one where the other group has it already: equal regions share it.
    """

    def __init__(self, own: Sequence[Axis], others: Sequence[Axis]) -> None:
        self.own = own
        self.others = others
        self._apart = {
            axis: Affine.of(Axis(axis.name, axis.extent))
            for axis in own
            if axis in others
        }

    def place(self, known: Placement) -> Placement:
        """Where all axes of the group are, given where some of them have to be."""
        taken = {axis for place in known.values() for axis in place.axes}
        free = [x for x in self.others if x not in taken]
        shared: dict[Axis, Place] = dict(known)
        for axis in self.own:
            if axis in shared:
                continue
            match = next((x for x in free if x.extent == axis.extent), None)
            if match is not None:
                free.remove(match)
                shared[axis] = Affine.of(match)
            elif axis in self._apart:
                shared[axis] = self._apart[axis]
        return shared
