"""What a kernel's blocks are: tiles whose extents are powers of two.

    %x : tile<f32 [128, 1, 32]>     dims_of(%x)             [0, 2]
                                    blocks_of(kernel)       {0: 128, 2: 32}
    and it multiplies               letters_of(kernel, …)   {0: "M", 2: "K"}

Along one place there is no dimension. All blocks of a kernel that have a dimension are
as long along it.
"""

from __future__ import annotations

from collections.abc import Iterable

from fusec.errors import InternalError
from fusec.ir.core import Function, Value, walk
from fusec.ir.ops.contraction import DotTile
from fusec.ir.types import Tile


def extents_of(value: Value) -> list[int]:
    """The extents of a block. Raises `InternalError` if one is no power of two."""
    type_ = value.type
    assert isinstance(type_, Tile)
    shape = [n for n in type_.shape if isinstance(n, int)]
    if len(shape) < len(type_.shape) or any(n <= 0 or n & (n - 1) for n in shape):
        raise InternalError(f"a block of {list(type_.shape)} for Triton")
    return shape


def dims_of(value: Value) -> list[int]:
    """The dimensions that a block has: those of more than one place; a number none."""
    if not isinstance(value.type, Tile):
        return []
    return [d for d, n in enumerate(extents_of(value)) if n != 1]


def blocks_of(function: Function) -> dict[int, int]:
    """The extents of blocks by dimension: all that have it are as long."""
    found: dict[int, int] = {}
    for op in walk(function.body):
        for value in op.results:
            if isinstance(value.type, Tile):
                found |= {d: n for d, n in enumerate(extents_of(value)) if n != 1}
    return dict(sorted(found.items()))


def letters_of(function: Function, dims: Iterable[int]) -> dict[int, str]:
    """What dimensions are called: of products M, N and K, otherwise I, J, …"""
    dots = [op for op in walk(function.body) if isinstance(op, DotTile)]
    found: dict[int, str] = {}
    if dots:
        x, y, summed = ({*dims_of(dots[0].x)}, {*dims_of(dots[0].y)}, {*dots[0].dims})
        sides = (("M", x - y - summed), ("N", y - x - summed), ("K", summed))
        found = {d: name for name, own in sides for d in own if len(own) == 1}
    rest = (letter for letter in "IJLPQRSTUV")
    return {d: found.get(d) or next(rest) for d in dims}
