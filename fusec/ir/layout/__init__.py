"""Layouts: where every element of a block lies, in registers, lanes, time and memory.

A layout writes each coordinate in digits and sends each digit somewhere. Take a row
of 256 elements, swept by 16 lanes with 4 registers each, 4 times:

    c = 64*t + 16*r + l        t < 4, r < 4, l < 16

    (4:time 4:reg 16:lane)     three digits, major to minor

Element 100 = 64*1 + 16*2 + 4 is at time 1, register 2, lane 4. A digit has an extent,
an axis and a stride: how far its value moves the place on that axis. So a tile of two
such rows, the second row 4 registers further on:

    (2:reg@4, 4:time 4:reg 16:lane)

Memory is an axis as well, `mem`, and counts bits: 2 rows of 256 4-bit elements are
`(2:mem@1024, 256:mem@4)`. Lanes of a CPU's SIMD unit or of a GPU's warp, loops
(`time`), the program grid, warps: all are digits, so one algebra answers for all.

    >>> tile = tile_layout((2, 229), [[(REG, 2)], [(TIME, 4), (REG, 4), (LANE, 16)]])
    >>> print(tile)
    (2:reg@4, 4:time 4:reg 16:lane < 229)
    >>> tile.evaluate((1, 100))
    {'time': 1, 'lane': 4, 'reg': 6}
    >>> tile.coordinate({TIME: 1, LANE: 4, REG: 6})
    (1, 100)

What lane 4 holds in register 6 at time 1 lies in memory where the composition says,
a layout again: from (time, lane, reg) to bits. Neighbouring lanes are 4 bits apart.

    >>> row = row_major((2, 256), 4)
    >>> print(row.compose(tile.padded().inverse()))
    (4:mem@256, 16:mem@4, 2:mem@1024 4:mem@64)

Besides digits a layout has four things:

    < 229         the logical extent, where digits count more: the rest is padding
    * 2:warp      replicas: digits that no coordinate feeds; copies of each element
    + mem@64      a constant offset
    ^ 3:mem@10>7  shears: bits of the place xored into lower or higher ones (swizzles)

Every operator gives the exact answer as a layout or raises `NotRepresentable` with
the reason; none approximates. Sources: CuTe (composition, complement, division),
Tilus (replication, products of tiles), Triton's linear layouts (the F2 view), Axe
(digits over named axes, arXiv:2601.19092).

    digits        digits and shears, and their arithmetic
    composition   digits that feed digits
    core          Layout: questions and operators
    build         memory and tiles to start from
    conversion    from one tile layout to another
    bits          the F2 matrix of a layout
    banks         conflicts in banked memory
    notation      the one-line form, which parser reads back
    grid          tables of places
"""

from fusec.ir.layout.banks import bank_conflicts
from fusec.ir.layout.bits import BitMatrix, from_bits, to_bits
from fusec.ir.layout.build import identity, row_major, strided, tile_layout
from fusec.ir.layout.conversion import Conversion, Kind, convert, convert_class
from fusec.ir.layout.core import IndexTerm, Layout, coordinate_axes
from fusec.ir.layout.digits import (
    AXES,
    GRID,
    LANE,
    MEM,
    REG,
    TIME,
    WARP,
    Digit,
    NotRepresentable,
    Shear,
)
from fusec.ir.layout.grid import grid_text
from fusec.ir.layout.parser import on_known_axes, parse_layout, text

__all__ = [
    "AXES",
    "GRID",
    "LANE",
    "MEM",
    "REG",
    "TIME",
    "WARP",
    "BitMatrix",
    "Conversion",
    "Digit",
    "IndexTerm",
    "Kind",
    "Layout",
    "NotRepresentable",
    "Shear",
    "bank_conflicts",
    "convert",
    "convert_class",
    "coordinate_axes",
    "from_bits",
    "grid_text",
    "identity",
    "on_known_axes",
    "parse_layout",
    "row_major",
    "strided",
    "text",
    "tile_layout",
    "to_bits",
]
