"""How the lanes of a tile should lie so that an access meets memory in a row.

A tile of 8 registers along i by 8 lanes along j, read from `x[j, i]`:

    strides (1, 4096): neighbours in memory are neighbours along i
    lanes as computed with       j0 … j7, far apart      8 loads for each register
    lanes as coalesced           i0 … i7, in a row       one load, then a transpose

The question is whether one chunk of the tile has such lanes; a `convert` moves elements
between there and where they are computed with.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from fusec.ir.dims import Dim

Extents = Sequence[tuple[int, int]]
"""Of each dimension of a tile: its registers and its lanes."""


def coalesced(chunk: Extents, strides: Sequence[Dim]) -> list[int] | None:
    """How many lanes each dimension should have for an access with these strides.

    The lanes of a dimension are its minor coordinates, and dimensions follow one
    another by stride. None where lanes do lie in a row as they are, where they all
    read one element, or where a chunk holds no such run.
    """
    lanes = prod(n for _, n in chunk)
    across = [s for (_, n), s in zip(chunk, strides, strict=True) if n > 1]
    if lanes == 1 or all(s in (0, 1, -1) for s in across):
        return None
    taken = [1] * len(chunk)
    run = 1
    while run < lanes:
        dim = next((d for d, s in enumerate(strides) if s == run and taken[d] == 1), -1)
        if dim < 0:
            return None
        registers, own = chunk[dim]
        extent = registers * own
        taken[dim] = min(extent, lanes // run)
        if taken[dim] == 1 or lanes % (run * taken[dim]) or extent % taken[dim]:
            return None
        run *= taken[dim]
    return taken
