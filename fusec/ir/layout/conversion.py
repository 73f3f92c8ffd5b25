"""Moving a tile from one layout to another, by the cheapest means that does it.

IDENTITY   every element is where it has to be
RENAME     each lane has its elements, in other registers: costs nothing
SHUFFLE    each warp has its elements, in other lanes: shuffles and selects
SCRATCH    elements cross warps, times or programs: through memory
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from operator import add

from fusec.ir.layout.core import IndexTerm, Layout
from fusec.ir.layout.digits import LANE, REG, Digit, NotRepresentable, known

Source = tuple[int, int]  # register, lane


class Kind(Enum):
    """How a conversion moves elements, cheapest first."""

    IDENTITY = "identity"
    RENAME = "rename"
    SHUFFLE = "shuffle"
    SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class Conversion:
    """How to bring a tile from the layout `source` to the layout `target`.

    `moves[register][lane]` is the (register, lane) of the source whose element
    belongs at that place of the target, the same in every warp and at every time;
    None where only padding does. Empty for SCRATCH.
    """

    kind: Kind
    source: Layout
    target: Layout
    moves: tuple[tuple[Source | None, ...], ...] = ()

    @property
    def registers(self) -> tuple[int | None, ...]:
        """The source register of each target register; None where any will do.

        Of an IDENTITY or a RENAME: others raise NotRepresentable.
        """
        if self.kind not in (Kind.IDENTITY, Kind.RENAME):
            raise NotRepresentable(f"a {self.kind.value} takes more than registers")
        found = [[move[0] for move in row if move] for row in self.moves]
        return tuple(row[0] if row else None for row in found)


def convert_class(source: Layout, target: Layout) -> Kind:
    """How elements have to move from one layout of a tile to another."""
    return convert(source, target).kind


@lru_cache(maxsize=256)
def convert(source: Layout, target: Layout) -> Conversion:
    """The cheapest conversion from one layout of a tile to another.

    Raises ValueError if the shapes differ and NotRepresentable if a register or lane
    does not tell its element.
    """
    if source.shape != target.shape:
        raise ValueError(f"shapes {source.shape} and {target.shape} differ")
    if not _stays(source, target):
        return Conversion(Kind.SCRATCH, source, target)
    moves = _moves(source, target)
    return Conversion(_kind(moves), source, target, moves)


def _stays(source: Layout, target: Layout) -> bool:
    """Whether every element stays at its place on all axes but REG and LANE."""
    axes = {*source.axes, *target.axes} - {REG, LANE}
    return all(_same(source, target, axis) for axis in axes)


def _same(source: Layout, target: Layout, axis: str) -> bool:
    if any(shear.axis == axis for shear in (*source.xor, *target.xor)):
        return False
    if dict(source.offset).get(axis, 0) != dict(target.offset).get(axis, 0):
        return False
    copies = _copies(target, axis)
    if copies and copies != _copies(source, axis):
        return False
    return _reached(source, axis) == _reached(target, axis)


def _copies(layout: Layout, axis: str) -> list[Digit]:
    return [d for d in layout.canonicalize().replicas if d.axis == axis]


def _reached(layout: Layout, axis: str) -> list[set[IndexTerm]]:
    """The terms on an axis, without what the shape does not reach."""
    sized = zip(layout.index_terms(axis), layout.shape, strict=True)
    return [
        {_unbounded(t, known(size)) for t in terms if known(t.div) < known(size)}
        for terms, size in sized
    ]


def _unbounded(term: IndexTerm, size: int) -> IndexTerm:
    if term.mod is None or known(term.div) * known(term.mod) < size:
        return term
    return IndexTerm(term.div, None, term.stride)


def _moves(source: Layout, target: Layout) -> tuple[tuple[Source | None, ...], ...]:
    """Where each register and lane of the target finds its element.

    At place 0 of the other axes. The digits there are the same in both layouts, so
    at other places all coordinates are larger by a constant and the moves the same;
    and what is padding at 0 is padding everywhere.
    """
    start = {axis: known(value) for axis, value in target.offset}
    origins = [target.coordinate({**start, REG: r}) for r in _numbers(target, REG)]
    steps = [target.coordinate({**start, LANE: i}) for i in _numbers(target, LANE)]
    return tuple(
        tuple(
            _move(source, target, tuple(map(add, origin, step)), (reg, lane))
            for lane, step in enumerate(steps)
        )
        for reg, origin in enumerate(origins)
    )


def _numbers(layout: Layout, axis: str) -> range:
    """The places of a tile on an axis, which has them without gaps."""
    if layout.compact(axis) != layout:
        raise NotRepresentable(f"{axis} has gaps or starts above 0: {layout}")
    return range(known(layout.size(axis)))


def _move(
    source: Layout, target: Layout, coords: tuple[int, ...], place: Source
) -> Source | None:
    """Where to find an element, as near to its place in the target as can be."""
    if not target.contains(coords):
        return None
    copies = source.places(coords)
    found = [(known(p.get(REG, 0)), known(p.get(LANE, 0))) for p in copies]
    return min(found, key=lambda at: (at[1] != place[1], at[0] != place[0]))


def _kind(moves: Iterable[Iterable[Source | None]]) -> Kind:
    kind = Kind.IDENTITY
    for reg, row in enumerate(moves):
        wanted = [(lane, move) for lane, move in enumerate(row) if move]
        if any(move[1] != lane for lane, move in wanted):
            return Kind.SHUFFLE
        registers = {move[0] for _, move in wanted}
        if len(registers) > 1:
            return Kind.SHUFFLE
        if registers - {reg}:
            kind = Kind.RENAME
    return kind
