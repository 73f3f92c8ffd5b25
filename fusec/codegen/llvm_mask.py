"""Which elements of a tile exist: a mask for each register.

Limits that are known, and padding, decide when the kernel is compiled: a register is
full, empty, or takes a constant mask. Other limits are compared with the coordinates of
the lanes. A limit is first clamped to the extents of the tile, so that it fits the
narrow integers in which lanes are compared cheaply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusec.codegen.llvm_kernel import Kernel, constant_vector
from fusec.codegen.llvm_lanes import Lanes
from fusec.codegen.llvm_places import Places
from fusec.ir.core import Value

Mask = bool | str
"""True: every lane exists, False: none does; else an operand of i1 lanes."""


class Bounds:
    """The existing elements of a tile whose elements have `bits` bits."""

    def __init__(
        self, k: Kernel, places: Places, limits: Mapping[int, Value], bits: int
    ) -> None:
        self._places = places
        self._v = k.lanes(places.lanes, "mask")
        self._scalar = k.scalar_lanes("limit")
        padded = enumerate(zip(places.shape, places.padded, strict=True))
        self._known = {d: n for d, (n, more) in padded if more}
        self._bounds: dict[int, str] = {}
        self._bits = self._compared_bits(limits, bits)
        for dim, limit in limits.items():
            number = k.number(limit)
            if number is None:
                self._bounds[dim] = self._clamped(dim, k.scalar(limit))
            else:
                known = self._known.get(dim, places.shape[dim])
                self._known[dim] = min(known, int(number))

    def mask(self, register: int) -> Mask:
        """Which lanes of a register hold an element that exists."""
        if not self._known and not self._bounds:
            return True
        known = self._known_lanes(register)
        if not any(known):
            return False
        mask = self._compared(register)
        if all(known):
            return True if mask is None else mask
        constant = constant_mask(known)
        return constant if mask is None else self._v.op("and", "i1", mask, constant)

    def _compared_bits(self, limits: Mapping[int, Value], bits: int) -> int:
        """As wide as the elements if that holds the extents, so that masks fit."""
        top = max((self._places.shape[d] for d in limits), default=0)
        widths = (w for w in (8, 16, 32) if w >= min(bits, 32) and top < 1 << w - 1)
        return next(widths, 64)

    def _clamped(self, dim: int, limit: str) -> str:
        v, top = self._scalar, self._places.shape[dim]
        low = v.call("smax", "i64", limit, "0")
        return v.cast("trunc", "i64", v.call("smin", "i64", low, str(top)), self._type)

    @property
    def _type(self) -> str:
        return f"i{self._bits}"

    def _known_lanes(self, register: int) -> list[bool]:
        rows = [
            [c < bound for c in self._places.lane_coords(register, dim)]
            for dim, bound in self._known.items()
        ]
        return [all(row[lane] for row in rows) for lane in range(self._places.lanes)]

    def _compared(self, register: int) -> str | None:
        """The mask that limits at run time ask for; None if there are none.

        A dimension that is the same in all lanes is a condition on the whole register:
        it turns the bound of another dimension into 0.
        """
        if not self._bounds:
            return None
        coords = {d: self._places.lane_coords(register, d) for d in self._bounds}
        across = [d for d, lanes in coords.items() if len(set(lanes)) > 1]
        whole = "true"
        for dim in (d for d in coords if d not in across):
            whole = self._and(whole, self._reaches(dim, coords[dim][0]))
        if not across:
            return self._v.splat("i1", whole)
        mask = ""
        for dim in across:
            bound = self._bounds[dim]
            if whole != "true":
                bound = self._scalar.select(self._type, whole, bound, "0")
                whole = "true"
            lanes = constant_vector(self._type, coords[dim])
            limit = self._v.splat(self._type, bound)
            below = self._v.test("icmp slt", self._type, lanes, limit)
            mask = self._v.op("and", "i1", mask, below) if mask else below
        return mask

    def _reaches(self, dim: int, coordinate: int) -> str:
        """Whether a limit exceeds a coordinate."""
        bound = self._bounds[dim]
        return self._scalar.test("icmp sgt", self._type, bound, str(coordinate))

    def _and(self, x: str, y: str) -> str:
        return y if x == "true" else self._scalar.op("and", "i1", x, y)


def both(v: Lanes, mask: Mask, other: Mask) -> Mask:
    """The lanes that are in both masks."""
    if mask is False or other is False:
        return False
    if mask is True or other is True:
        return other if mask is True else mask
    return v.op("and", "i1", mask, other)


def constant_mask(lanes: Sequence[bool]) -> str:
    """The mask that has these lanes."""
    return constant_vector("i1", [str(lane).lower() for lane in lanes])


def known_lanes(mask: str) -> list[bool] | None:
    """Which lanes a constant mask has; None for others."""
    if not mask.startswith("<"):
        return None
    return [lane.endswith("true") for lane in mask[1:-1].split(", ")]
