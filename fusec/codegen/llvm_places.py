"""Where the elements of a tile lie, as tables: register and lane ↔ coordinate.

A 2×8 tile on four lanes, two registers a row:

    register 0: (0,0) (0,1) (0,2) (0,3)        origins = ((0,0), (0,4), (1,0), (1,4))
    register 1: (0,4) (0,5) (0,6) (0,7)        steps   = ((0,0), (0,1), (0,2), (0,3))
    register 2: (1,0) …

The coordinate in a lane is the register's origin plus the lane's step, since digits
add up. Layouts without shears and offsets only: registers have no addresses to swizzle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from fusec.errors import InternalError
from fusec.ir.layout import LANE, REG, Layout
from fusec.ir.layout.digits import known
from fusec.ir.types import Tile, Type

Coords = tuple[int, ...]
Place = tuple[int, int]
"""A register and a lane in it."""


@dataclass(frozen=True, eq=False)
class Places:
    """The table of one layout."""

    shape: Coords
    """Extents of the tile; coordinates beyond are padding."""
    padded: tuple[bool, ...]
    """Which dimensions have padding."""
    origins: tuple[Coords, ...]
    steps: tuple[Coords, ...]
    table: dict[Coords, Place]
    """The first place of each coordinate, padding included."""

    @property
    def lanes(self) -> int:
        return len(self.steps)

    def coords(self, register: int, lane: int) -> Coords:
        return added(self.origins[register], self.steps[lane])

    def lane_coords(self, register: int, dim: int) -> list[int]:
        """The coordinates along one dimension, lane by lane."""
        origin = self.origins[register][dim]
        return [origin + step[dim] for step in self.steps]


def added(a: Coords, b: Coords) -> Coords:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def places_of(tile: Tile) -> Places:
    """The table of a tile's layout."""
    return _places(layout_of(tile))


def layout_of(type_: Type) -> Layout:
    """The layout of a tile. Raises `InternalError` where it has none, or another axis
    than lanes and registers."""
    if not isinstance(type_, Tile) or type_.layout is None:
        raise InternalError(f"{type_} reached the LLVM backend without a layout")
    if any(axis not in (LANE, REG) for axis in type_.layout.axes):
        raise InternalError(f"{type_}: a register has lane and reg digits only")
    return type_.layout


@lru_cache(maxsize=1024)
def _places(layout: Layout) -> Places:
    shape = tuple(known(n) for n in layout.shape)
    origins = [layout.coordinate({REG: r}) for r in range(layout.regs)]
    steps = [layout.coordinate({LANE: lane}) for lane in range(layout.lanes)]
    table: dict[Coords, Place] = {}
    for register, origin in enumerate(origins):
        for lane, step in enumerate(steps):
            table.setdefault(added(origin, step), (register, lane))
    reach = [
        max(o[d] for o in origins) + max(s[d] for s in steps) + 1
        for d in range(len(shape))
    ]
    padded = tuple(r > n for r, n in zip(reach, shape, strict=True))
    return Places(shape, padded, tuple(origins), tuple(steps), table)


def moved(coords: Coords, dims: Sequence[int]) -> Coords:
    """The coordinates with those of `dims` set to 0."""
    return tuple(0 if d in dims else c for d, c in enumerate(coords))
