"""Composition of digits: what becomes of a digit that feeds another numeral.

The outer numeral cuts what the inner digits count into its own digits. A digit of
extent 8 and stride 2 that feeds (6:lane 4:reg) counts 2, 4, .. 14 and crosses the
boundary at 4, so it lands in two pieces: 4 steps of the lane digit, then 2 steps of
2 registers:

    (6:lane 4:reg) ∘ 8@2  =  4:lane 2:reg@2

That is exact under three conditions, and composition declines unless all hold:
a piece starts on a multiple of its digit's weight; it ends at the digit's end; the
pieces that meet in one digit never carry into the next. CuTe's composition checks
only the first two, and only for one digit at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fusec.ir.dims import Dim, ceil_div, exact_div
from fusec.ir.layout.digits import (
    MEM,
    Digit,
    Digits,
    NotRepresentable,
    Step,
    known,
    peak,
    steps,
)

Slot = tuple[int, int]  # a dimension of the outer layout, a digit of it


class Piece(NamedTuple):
    """`extent` values that add `unit` times themselves to the digit in `slot`."""

    extent: Dim
    unit: int
    slot: Slot | None  # None: the place does not depend on it


@dataclass(frozen=True)
class Numeral:
    """The dimensions of a layout that others feed, and the axis that feeds each."""

    dims: Sequence[Digits]
    shape: Sequence[Dim]
    feeds: Mapping[str, int]

    def land(self, digit: Digit, open_end: bool) -> list[Piece]:
        """The pieces of a digit, major to minor.

        With an open end the digit may grow, being the outermost of a dimension
        whose extent is known: values that are never reached may round it up.
        """
        if not digit.moves:
            return [Piece(digit.extent, 0, None)]
        dim = self.feeds[digit.axis]
        if not self.dims[dim]:
            return [Piece(digit.extent, 0, None)]
        pieces: list[Piece] = []
        size, stride = digit.extent, known(digit.stride)
        while size != 1:
            index, step = _slot_at(self.dims[dim], stride)
            weight = known(step.weight)
            if stride % weight:
                raise NotRepresentable(f"stride {stride} is no multiple of {weight}")
            fit = _fitting(size, stride, step) if index else size
            pieces.append(Piece(fit, stride // weight, (dim, index)))
            stride *= known(fit) if fit != size else 1
            size = _remaining(size, fit, open_end)
        return pieces[::-1]

    def digit(self, piece: Piece) -> Digit:
        """The digit that a piece becomes."""
        if piece.slot is None:
            return Digit(piece.extent, 0, MEM)
        dim, index = piece.slot
        digit = self.dims[dim][index]
        return Digit(piece.extent, digit.stride * piece.unit, digit.axis)

    def limit(self, slot: Slot) -> Dim | None:
        """What values in a slot stay below; None for the outermost digit."""
        dim, index = slot
        return self.dims[dim][index].extent if index else None


def _slot_at(digits: Digits, stride: int) -> tuple[int, Step]:
    """The digit of the numeral in which a stride lies, with its index."""
    ladder = list(enumerate(steps(digits)))
    for index, step in ladder:
        if step.digit.extent != 1 and known(step.weight) <= stride:
            return index, step
    return ladder[-1]


def _fitting(size: Dim, stride: int, step: Step) -> Dim:
    """How many of the `size` values stay inside the digit of the step."""
    end = known(step.weight) * known(step.digit.extent)
    if isinstance(size, int) and stride * (size - 1) < end:
        return size
    if end % stride:
        raise NotRepresentable(f"stride {stride} does not divide the boundary at {end}")
    return end // stride


def _remaining(size: Dim, fit: Dim, open_end: bool) -> Dim:
    rest = exact_div(size, fit)
    if rest is not None:
        return rest
    if not (open_end and isinstance(size, int)):
        raise NotRepresentable(
            f"{fit} values reach a boundary and do not divide {size}"
        )
    return ceil_div(size, fit)


@dataclass(frozen=True)
class Feed:
    """The inner layout of a composition: what it adds to the outer's dimensions."""

    dims: Sequence[Digits]
    shape: Sequence[Dim]
    replicas: Digits
    offset: Mapping[str, Dim]

    def reach(self, axis: str) -> int:
        """The largest place on an axis, over the coordinates in the shape."""
        total = known(self.offset.get(axis, 0))
        for digits, size in zip(self.dims, self.shape, strict=True):
            weighted = [(d.extent, _factor(d, axis)) for d in digits]
            total += _peak(weighted, size)
        return total + sum(
            known(d.extent * d.stride - d.stride)
            for d in self.replicas
            if d.axis == axis
        )


def _factor(digit: Digit, axis: str) -> int:
    return known(digit.stride) if digit.axis == axis else 0


def _peak(weighted: Sequence[tuple[Dim, int]], size: Dim) -> int:
    """`peak`, where symbolic extents that count for nothing do no harm."""
    if not any(factor for _, factor in weighted):
        return 0
    if isinstance(size, int) and all(isinstance(e, int) for e, _ in weighted):
        return peak([(known(e), f) for e, f in weighted], max(size, 1))
    return sum((known(e) - 1) * factor for e, factor in weighted if factor)


def composed(
    outer: Numeral, inner: Feed
) -> tuple[list[Digits], Digits, dict[str, Dim]]:
    """The dims, replicas and offset of outer ∘ inner, without the outer's own."""
    _check_domain(outer, inner)
    landed = [
        [
            piece
            for index, digit in enumerate(digits)
            for piece in outer.land(digit, index == 0 and isinstance(size, int))
        ]
        for digits, size in zip(inner.dims, inner.shape, strict=True)
    ]
    copies = [piece for digit in inner.replicas for piece in outer.land(digit, False)]
    constants = _constants(outer, inner.offset)
    _check_carries(outer, inner.shape, landed, copies, constants)
    offset: dict[str, Dim] = {}
    for (dim, index), value in constants.items():
        digit = outer.dims[dim][index]
        offset[digit.axis] = offset.get(digit.axis, 0) + digit.stride * value
    dims = [tuple(map(outer.digit, pieces)) for pieces in landed]
    replicas = tuple(d for d in map(outer.digit, copies) if d.moves)
    return dims, replicas, offset


def _check_domain(outer: Numeral, inner: Feed) -> None:
    for axis, dim in outer.feeds.items():
        size = outer.shape[dim]
        if known(inner.offset.get(axis, 0)) < 0:
            raise NotRepresentable(f"{axis} starts below 0")
        if isinstance(size, int) and inner.reach(axis) >= size:
            raise NotRepresentable(
                f"{axis} reaches {inner.reach(axis)}, outside the extent {size}"
            )


def _constants(outer: Numeral, offset: Mapping[str, Dim]) -> dict[Slot, int]:
    """The digits of the inner offset, by slot."""
    result: dict[Slot, int] = {}
    for axis, value in offset.items():
        dim, rest = outer.feeds[axis], known(value)
        for index, step in enumerate(steps(outer.dims[dim])):
            result[dim, index], rest = divmod(rest, known(step.weight))
    return {slot: value for slot, value in result.items() if value}


def _check_carries(
    outer: Numeral,
    shape: Sequence[Dim],
    landed: Sequence[Sequence[Piece]],
    copies: Sequence[Piece],
    constants: Mapping[Slot, int],
) -> None:
    """Decline where values that meet in one digit could carry into the next."""
    for slot in _slots(landed, copies):
        limit = outer.limit(slot)
        if limit is None:
            continue
        total = constants.get(slot, 0)
        for pieces, size in zip(landed, shape, strict=True):
            total += _peak([(p.extent, _share(p, slot)) for p in pieces], size)
        total += sum((known(p.extent) - 1) * _share(p, slot) for p in copies)
        if total >= known(limit):
            raise NotRepresentable(f"values meet in a digit of {limit} and carry")


def _slots(landed: Iterable[Sequence[Piece]], copies: Sequence[Piece]) -> set[Slot]:
    every = [*copies, *(piece for pieces in landed for piece in pieces)]
    return {piece.slot for piece in every if piece.slot is not None}


def _share(piece: Piece, slot: Slot) -> int:
    return piece.unit if piece.slot == slot else 0
