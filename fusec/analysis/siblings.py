"""Horizontal fusion: groups that read one tensor over the same axes read it once.

%w = region(%g, %x) over i, j { load %g [i, j] … reduce i … }   a weight's gradient
%b = region(%g)     over k, l { load %g [k, l]   reduce k … }   its bias's
fused over k, l: the first is placed by {i: k, j: l}
"""

from __future__ import annotations

from fusec.analysis.groups import Fault, Group, Groups
from fusec.analysis.placement import Place, Placement, Places, is_computed, place_key
from fusec.analysis.producers import Sweeps
from fusec.ir.core import Affine, Value
from fusec.ir.types import Axis

APART = Fault("they do not read it over the same axes")


class Siblings:
    """Places groups side by side."""

    def __init__(self, groups: Groups, places: Places) -> None:
        self.groups = groups
        self.places = places
        self.regions = groups.regions

    def merge(self, a: Group, b: Group, value: Value) -> Group | Fault:
        """The group of two that read a value, or why they cannot walk it together."""
        placed = (p for g in (a, b) for each in g.members.values() for p in each)
        if any(map(is_computed, placed)):
            return Fault("one waits for a coordinate that another computes")
        place = self._side_by_side(a, b, value)
        if place is None:
            return APART
        members = {k: list(p) for k, p in b.members.items()}
        for k, placements in a.members.items():
            moved = [self.places.compose(p, place) for p in placements]
            members[k] = [p for p in moved if p is not None]
            if len(members[k]) < len(placements):
                return APART
        merged = Group(b.number, members, self.groups.still_read(a, b))
        return self.groups.fault(merged) or merged

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
        return Sweeps(self.groups.axes(a), self.groups.axes(b)).place(place)

    def _places_read(self, group: Group, value: Value) -> list[Affine] | None:
        """The index at which a group reads a value, if there is just one."""
        found: dict[object, list[Affine]] = {}
        for k, placements in group.members.items():
            for tensor, load in self.regions.summaries[k].loads:
                if tensor is not value:
                    continue
                for placement in placements:
                    index = self.places.wanted(load, k, placement)
                    affine = [place for place in index if isinstance(place, Affine)]
                    if len(affine) < len(index):
                        return None
                    found[tuple(map(place_key, affine))] = affine
        return next(iter(found.values())) if len(found) == 1 else None
