"""Placements: what the axes of a region are in the iteration space of a group.

    %m = region(%x) over i, r    placed by {i: a, r: b}   in a group over a, b

An axis is placed at an affine expression of the group's axes, or at a number that
another region computes: whoever gathers `%y[i, t[i]]` from a fused `%y` needs it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from fusec.analysis.affine import split
from fusec.ir.core import Affine, Value
from fusec.ir.ops.extern import Slot
from fusec.ir.ops.loop import Load
from fusec.ir.types import Axis, Points


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """A coordinate that region number `reader`, placed so, computes as `value`."""

    reader: int
    value: Value
    placement: Placement

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of the group that the coordinate varies with."""
        type_ = self.value.type
        own = type_.axes if isinstance(type_, Points) else ()
        placed = (coordinate(self.placement, axis) for axis in own)
        return tuple(dict.fromkeys(axis for place in placed for axis in place.axes))


Place = Affine | Computed
Placement = Mapping[Axis, Place]


def coordinate(placement: Placement, axis: Axis) -> Place:
    """Where an axis is placed; itself if nothing is said."""
    return placement.get(axis, Affine.of(axis))


def placed(entry: Affine, placement: Placement) -> Place | None:
    """An index in the group's axes; None if a computed coordinate enters into a sum."""
    for axis, stride in entry.terms:
        place = placement.get(axis)
        if isinstance(place, Computed):
            alone = len(entry.terms) == 1 and stride == 1 and entry.const == 0
            return place if alone else None
    return entry.substitute(cast("Mapping[Axis, Affine]", placement))


def is_computed(placement: Placement) -> bool:
    """Whether a region has to wait for a coordinate that another computes."""
    return any(isinstance(place, Computed) for place in placement.values())


def affine_index(index: Sequence[Affine], placement: Placement) -> list[Affine] | None:
    """A store's index in the group's axes, if all of it stays affine."""
    places = [placed(entry, placement) for entry in index]
    affine = [place for place in places if isinstance(place, Affine)]
    return affine if len(affine) == len(places) else None


def wanted_places(load: Load, reader: int, placement: Placement) -> list[Place | None]:
    """Where a load of region `reader`, placed so, reads in each dimension.

    None for a coordinate that no place can say.
    """
    return [
        Computed(reader, load.slots[entry.index], placement)
        if isinstance(entry, Slot)
        else placed(entry, placement)
        for entry in load.index
    ]


def compose(inner: Placement, outer: Placement) -> Placement | None:
    """First into the axes of one group, then into those of the group around it."""
    result: dict[Axis, Place] = {}
    for axis, place in inner.items():
        if isinstance(place, Computed):
            around = compose(place.placement, outer)
            if around is None:
                return None
            result[axis] = Computed(place.reader, place.value, around)
            continue
        moved = placed(place, outer)
        if moved is None:
            return None
        result[axis] = moved
    return result


def invert(
    stored: Sequence[Affine], wanted: Sequence[Place]
) -> dict[Axis, Place] | None:
    """What the axes of a store are where a load finds the element it wants.

    `stored` counts each dimension with axes of its own, clean digits from 0 (every
    store does). None where a wanted coordinate does not fall apart into such digits.
    """
    found: dict[Axis, Place] = {}
    for digits, coord in zip(stored, wanted, strict=True):
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
    if place is None:
        return None
    if isinstance(place, Affine):
        return frozenset(place.terms), place.const
    return place.reader, place.value, key(place.placement)
