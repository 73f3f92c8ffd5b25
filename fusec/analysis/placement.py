"""Placements: what the axes of a region are in the iteration space of a group.

    %m = region(%x) over i, r    placed by {i: a, r: b}   in a group over a, b

An axis is placed at an affine expression of the group's axes, or at a number that
another region computes: whoever gathers `%y[i, t[i]]` from a fused `%y` needs it there.

That number is computed in a placement of its own, and so on down a chain of gathers,
each time once for every index. So equal computed places are one object (`Places`), and
nothing walks down the chain twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from fusec.analysis.affine import split, turned
from fusec.ir.calls import Slot
from fusec.ir.core import Affine, Value
from fusec.ir.dims import Dim
from fusec.ir.ops.loop import Load
from fusec.ir.types import Axis, Points


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """A coordinate that region number `reader`, placed so, computes as `value`."""

    reader: int
    value: Value
    placement: Placement
    axes: tuple[Axis, ...]
    """The axes of the group that the coordinate varies with."""


Place = Affine | Computed
Placement = Mapping[Axis, Place]


def coordinate(placement: Placement, axis: Axis) -> Place:
    """Where an axis is placed; itself if nothing is said."""
    return placement.get(axis, Affine.of(axis))


def placed(entry: Affine, placement: Placement) -> Place | None:
    """An index in the group's axes; None if a computed coordinate enters into a sum."""
    if len(entry.terms) == 1 and entry.const == 0 and entry.terms[0][1] == 1:
        return placement.get(entry.terms[0][0], entry)
    for axis, _ in entry.terms:
        place = placement.get(axis)
        if isinstance(place, Computed):
            return None
    return entry.substitute(cast("Mapping[Axis, Affine]", placement))


def is_computed(placement: Placement) -> bool:
    """Whether a region has to wait for a coordinate that another computes."""
    return any(isinstance(place, Computed) for place in placement.values())


def affine_index(index: Sequence[Affine], placement: Placement) -> list[Affine] | None:
    """A store's index in the group's axes, if all of it stays affine."""
    places = [placed(entry, placement) for entry in index]
    affine = [place for place in places if isinstance(place, Affine)]
    return affine if len(affine) == len(places) else None


class Places:
    """The computed places of one function, equal ones one object."""

    def __init__(self) -> None:
        self._known: dict[object, Computed] = {}
        self._moved: dict[object, Computed | None] = {}

    def wanted(
        self, load: Load, reader: int, placement: Placement
    ) -> list[Place | None]:
        """Where a load of region `reader`, placed so, reads in each dimension.

        None for a coordinate that no place can say.
        """
        return [
            self._computed(reader, load.slots[entry.index], placement)
            if isinstance(entry, Slot)
            else placed(entry, placement)
            for entry in load.index
        ]

    def compose(self, inner: Placement, outer: Placement) -> Placement | None:
        """First into the axes of one group, then into those of the group around it."""
        result: dict[Axis, Place] = {}
        for axis, place in inner.items():
            computed = isinstance(place, Computed)
            moved = self._move(place, outer) if computed else placed(place, outer)
            if moved is None:
                return None
            result[axis] = moved
        return result

    def _move(self, place: Computed, outer: Placement) -> Computed | None:
        at = place, key(outer)
        if at not in self._moved:
            around = self.compose(place.placement, outer)
            self._moved[at] = (
                None
                if around is None
                else self._computed(place.reader, place.value, around)
            )
        return self._moved[at]

    def _computed(self, reader: int, value: Value, placement: Placement) -> Computed:
        at = reader, value, key(placement)
        if at not in self._known:
            own = value.type.axes if isinstance(value.type, Points) else ()
            parts = (coordinate(placement, axis) for axis in own)
            axes = dict.fromkeys(axis for place in parts for axis in place.axes)
            self._known[at] = Computed(reader, value, placement, tuple(axes))
        return self._known[at]


def invert(
    stored: Sequence[Affine], wanted: Sequence[Place], shape: Sequence[Dim]
) -> dict[Axis, Place] | None:
    """What the axes of a store are where a load finds the element it wants.

    `stored` counts each dimension of `shape` with axes of its own, clean digits from 0
    or from the end (every store does). None where a wanted coordinate does not fall
    apart into such digits.
    """
    found: dict[Axis, Place] = {}
    for digits, coord, extent in zip(stored, wanted, shape, strict=True):
        from_end = turned(digits, extent)
        if from_end is not None:
            if not isinstance(coord, Affine):
                return None
            digits, coord = from_end, coord * -1 + (extent - 1)
        axes = digits.axes
        if len(axes) == 1:
            found[axes[0]] = coord
        elif isinstance(coord, Affine):
            parts = split(coord, [axis.extent for axis in axes])
            if parts is None:
                return None
            found.update(zip(axes, parts, strict=True))
        elif axes:
            return None
    return found


def key(placement: Placement) -> object:
    """A placement as something to compare by."""
    return frozenset((axis, place_key(place)) for axis, place in placement.items())


def place_key(place: Place | None) -> object:
    """A coordinate as something to compare by."""
    return (frozenset(place.terms), place.const) if isinstance(place, Affine) else place
