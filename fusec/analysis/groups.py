"""Groups of regions that run as one kernel: their iteration space and their rules.

A group holds its regions placed in one iteration space: for each region a
*placement*, the affine expressions that its axes are in the axes of the group.

    %m = region(%x) over i, r    { … reduce r … store %m [i] }
    %y = region(%x, %m) over a, b { load %m [a] … store %y [a, b] }
    fused over a, b: the first is placed by {i: a, r: b}
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from fusec.analysis.affine import covers
from fusec.analysis.placement import Placement, affine_index, coordinate
from fusec.analysis.regions import Regions, shape_of
from fusec.analysis.roles import OWNED, Reduction, Roles, roles
from fusec.ir.core import Affine, Value
from fusec.ir.types import Axis
from fusec.target import Target

MAX_WORK = 1200.0
"""Instructions for one point of a kernel: beyond, compiling takes its time."""
MAX_BUFFERS = 48

Members = dict[int, list[Placement]]
"""For each region, by its position in the function: where it is placed."""


@dataclass(slots=True, eq=False)
class Group:
    """Regions that run as one, placed in the axes of the last; or another op."""

    number: int
    """The position of one of its ops."""
    members: Members = field(default_factory=dict[int, list[Placement]])
    stored: set[Value] = field(default_factory=set[Value])
    """Results that others read."""
    spans: dict[Value, frozenset[Axis]] = field(
        default_factory=dict[Value, frozenset[Axis]]
    )
    """The axes that each of them is stored over, once the group is checked."""
    like: Group = field(init=False, repr=False)
    """The first group that is the same but for names; at first itself."""

    def __post_init__(self) -> None:
        self.like = self


@dataclass(frozen=True, slots=True)
class Fault:
    """Why groups stay apart; of `value`, if there is one."""

    what: str
    value: Value | None = None

    def __str__(self) -> str:
        if self.value is None:
            return self.what
        named = f"%{self.value.hint}" if self.value.hint else "a result"
        return f"{named} {self.what}"


class Groups:
    """What there is to know of groups of some regions."""

    def __init__(self, regions: Regions, target: Target) -> None:
        self.regions = regions
        self.owned = OWNED if target.owns_rows else 0
        """Places of the rows that a program of a product may have."""

    def single(self, k: int) -> Group:
        """The group of one op."""
        summary = self.regions.summaries.get(k)
        if summary is None:
            return Group(k)
        identity: Placement = {axis: Affine.of(axis) for axis in summary.axes}
        group = Group(k, {k: [identity]}, set(summary.op.results))
        for value in group.stored:
            group.spans[value] = self.span(group, value) or frozenset()
        return group

    def axes(self, group: Group) -> list[Axis]:
        """The axes of the iteration space that a group is placed in."""
        found: dict[Axis, None] = {}
        for k, placements in group.members.items():
            for placement in placements:
                for axis in self.regions.summaries[k].axes:
                    found.update(dict.fromkeys(coordinate(placement, axis).axes))
        return list(found)

    def reduced(self, group: Group) -> set[Axis]:
        """The axes of the group that some region sweeps to reduce."""
        return {
            axis
            for k, placements in group.members.items()
            for placement in placements
            for old in self.regions.summaries[k].reduced
            for axis in coordinate(placement, old).axes
        }

    def sweeps(self, group: Group) -> set[frozenset[Axis]]:
        """The sets of axes that regions of a group reduce over or scan."""
        found = {
            frozenset(
                axis
                for old in self.regions.summaries[k].swept
                for axis in coordinate(placement, old).axes
            )
            for k, placements in group.members.items()
            for placement in placements
        }
        return found - {frozenset()}

    def inputs(self, group: Group) -> dict[Value, None]:
        """The tensors that a group reads from outside."""
        return {
            value: None
            for k in group.members
            for value, _ in self.regions.summaries[k].loads
            if self.regions.maker.get(value) not in group.members
        }

    def starts(self, group: Group) -> list[Value]:
        """The tensors that the updated results of a group begin as."""
        found = (self.regions.summaries[k].starts for k in group.members)
        return [value for starts in found for value in starts]

    def unfinished(self, a: Group, b: Group) -> Value | None:
        """A result of a that b can only read, or begin from, when a has ended."""
        for k in a.members:
            for value in self.regions.summaries[k].updates:
                if not b.members.keys().isdisjoint(self.regions.readers.get(value, ())):
                    return value
        began = (v for v in self.starts(b) if self.regions.maker.get(v) in a.members)
        return next(began, None)

    def still_read(self, a: Group, b: Group) -> set[Value]:
        """Results of two groups that someone outside reads."""
        inside = {*a.members, *b.members}
        return {
            value
            for value in a.stored | b.stored
            if value in self.regions.returned
            or not inside.issuperset(self.regions.readers.get(value, ()))
        }

    def span(self, group: Group, value: Value) -> frozenset[Axis] | None:
        """The axes that a result is stored over, if each element is written once, or
        updated at, if each of its points is met once.

        Of several placements the one that stores becomes the first.
        """
        k = self.regions.maker[value]
        stored, shape = self.regions.summaries[k].written(value)
        placements = group.members[k]
        for at, placement in enumerate(placements):
            index = affine_index(stored, placement)
            if index is not None and covers(index, shape):
                placements[0], placements[at] = placements[at], placements[0]
                return frozenset(axis for entry in index for axis in entry.axes)
        return None

    def fault(self, group: Group) -> Fault | None:
        """The rule of kernels that a group breaks; else it knows its spans."""
        members = group.members.items()
        results = (v for k in group.members for v in self.regions.ops[k].results)
        if any(0 in shape_of(value) for value in results):
            return Fault("there is nothing to compute")
        work = sum(self.regions.summaries[k].work * len(p) for k, p in members)
        if work > MAX_WORK:
            return Fault(f"{work:.0f} instructions are too many for one kernel")
        for value in group.stored:
            span = self.span(group, value)
            if span is None:
                return Fault("would not be written exactly once", value)
            group.spans[value] = span
        inputs, starts = self.inputs(group), self.starts(group)
        for value in starts:
            if value in inputs or starts.count(value) > 1:
                return Fault("is read where it is updated", value)
        if not self._whole_sweeps(group):
            return Fault("one reads past what the other reduces over")
        if not self._apart_from_sweeps(group):
            return Fault("one reads another row at each step of the other's sweep")
        if not self._scans_in_order(group):
            return Fault("one does not walk as the other scans")
        if not self._share_a_factor(group):
            return Fault("their products of matrices share no factor")
        if self.roles(group) is None:
            if len(self.sweeps(group)) > 1:
                return Fault("they reduce over different axes")
            if any(self.regions.summaries[k].is_product for k in group.members):
                return Fault("the other does not fit one's products of matrices")
        walked = frozenset[Axis]().union(*group.spans.values())
        reduced = self.reduced(group)
        for value, span in group.spans.items():
            # Losing axes to a store is only what a reduction does anyway.
            if not walked - span <= reduced:
                return Fault("has fewer axes than the loop around it", value)
        buffers = len(group.stored) + len(inputs)
        if buffers > MAX_BUFFERS:
            return Fault(f"{buffers} buffers are too many for one kernel")
        return None

    def _share_a_factor(self, group: Group) -> bool:
        """Whether products that are summed up side by side read one factor in common:
        else each has fewer registers than by itself, and nothing to gain."""
        found = (self.regions.summaries[k] for k in group.members)
        read = [{v for v, _ in each.loads} for each in found if each.is_product]
        return len(read) < 2 or bool(set[Value].intersection(*read))

    def roles(self, group: Group) -> Roles | None:
        """The roles of all reductions of a group, if it sums up products of matrices:
        as those of the region that it will be."""
        summaries = self.regions.summaries
        if not any(summaries[k].is_product for k in group.members):
            return None
        found: list[Reduction] = []
        for k, placements in group.members.items():
            summary, placement = summaries[k], placements[0]
            if summary.scanned or (summary.reduced and len(placements) > 1):
                return None
            place = partial(_placed, placement)
            found += [each.placed(place) for each in summary.reductions]
        return roles(found, self.owned)

    def _whole_sweeps(self, group: Group) -> bool:
        """Whether every reduction still meets each point of its axes once."""
        places = (
            (coordinate(placement, axis), axis.extent)
            for k, placements in group.members.items()
            for placement in placements
            for axis in self.regions.summaries[k].reduced
        )
        return all(
            isinstance(place, Affine) and covers([place], [extent])
            for place, extent in places
        )

    def _apart_from_sweeps(self, group: Group) -> bool:
        """Whether the elements that one result combines differ in the swept axes alone.

        A reader that gathers rows, or reads a diagonal, wants of each row one element:
        swept along with it, a reduction would combine elements of many.
        """
        for k, placements in group.members.items():
            summary = self.regions.summaries[k]
            swept = {*summary.reduced, *summary.scanned}
            for placement in placements if swept else ():
                places = {a: coordinate(placement, a).axes for a in summary.axes}
                walked = {axis for a in swept for axis in places[a]}
                if any(walked & {*places[a]} for a in places.keys() - swept):
                    return False
        return True

    def _scans_in_order(self, group: Group) -> bool:
        """Whether every scanned axis is one of the group's, from end to end."""
        places = (
            (coordinate(placement, axis), axis.extent)
            for k, placements in group.members.items()
            for placement in placements
            for axis in self.regions.summaries[k].scanned
        )
        return all(
            isinstance(place, Affine)
            and [(a.extent, s) for a, s in place.terms] == [(extent, 1)]
            and place.const == 0
            for place, extent in places
        )


def _placed(placement: Placement, axes: Iterable[Axis]) -> frozenset[Axis]:
    """Axes of a region as those of its group."""
    return frozenset(a for axis in axes for a in coordinate(placement, axis).axes)
