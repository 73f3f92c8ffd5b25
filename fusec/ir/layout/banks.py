"""Conflicts between the lanes that access banked memory together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product as cartesian

from fusec.ir.layout.core import Layout
from fusec.ir.layout.digits import LANE, MEM, REG, known


def bank_conflicts(
    memory: Layout,
    tile: Layout,
    bits: int,
    vector: int = 1,
    banks: int = 32,
    bank_bits: int = 32,
) -> int:
    """How many times over the worst access of a tile keeps one bank busy; 1 is free.

    Each lane accesses `vector` consecutive registers of `bits`-bit elements at a time.
    As many lanes go together as all banks can serve at once when nothing conflicts: on
    NVIDIA GPUs a warp of 32-bit accesses, a quarter of a warp of 128-bit accesses.
    Lanes that want the same word share it. Counted by enumeration.
    """
    together = max(1, banks * bank_bits // max(vector * bits, bank_bits))
    worst = 1
    for lanes in _accesses(tile, vector):
        for start in range(0, len(lanes), together):
            words = {
                bit // bank_bits
                for group in lanes[start : start + together]
                for coords in group
                for bit in _ends(memory, coords, bits)
            }
            busy = Counter(word % banks for word in words)
            worst = max(worst, *busy.values(), 1)
    return worst


Coords = tuple[int, ...]


def _accesses(tile: Layout, vector: int) -> Iterator[list[list[Coords]]]:
    """For each access, the elements of each lane."""
    others = [axis for axis in tile.axes if axis not in (LANE, REG)]
    for place in cartesian(*(range(known(tile.size(axis))) for axis in others)):
        at = dict(zip(others, place, strict=True))
        for reg in range(0, tile.regs, vector):
            registers = range(reg, min(reg + vector, tile.regs))
            yield [
                _elements(tile, [{**at, LANE: lane, REG: r} for r in registers])
                for lane in range(tile.lanes)
            ]


def _elements(tile: Layout, places: Sequence[dict[str, int]]) -> list[Coords]:
    coords = [tile.coordinate(place) for place in places]
    return [c for c in coords if tile.contains(c)]


def _ends(memory: Layout, coords: Coords, bits: int) -> tuple[int, int]:
    """The first and the last bit of an element."""
    start = known(memory.place(MEM, coords))
    return start, start + bits - 1
