"""Tables of places, for people."""

from __future__ import annotations

from itertools import product as cartesian

from fusec.ir.dims import Dim
from fusec.ir.layout.core import Layout
from fusec.ir.layout.digits import AXES, NotRepresentable, known

_LIMIT = 1 << 14


def grid_text(layout: Layout) -> str:
    """A table of the place of every element, rows by the first coordinate.

        >>> print(grid_text(parse_layout("(2:reg@2, 2:reg 2:lane < 3)")))
             0      1      2
        0  l0 r0  l1 r0  l0 r1
        1  l0 r2  l1 r2  l0 r3

    The letters are the axes' initials; several places are joined by a bar. Raises
    NotRepresentable above rank 2, for symbolic sizes and for very large layouts.
    """
    if layout.rank > 2:
        raise NotRepresentable(f"a layout of rank {layout.rank} is no table")
    shape = [known(size) for size in layout.shape]
    rows, columns = [1, 1, *shape][-2:]
    if rows * columns > _LIMIT:
        raise NotRepresentable(f"{rows} x {columns} places are too many to print")
    start = 2 - layout.rank
    cells = {
        (i, j): _cell(layout, (i, j)[start:])
        for i, j in cartesian(range(rows), range(columns))
    }
    width = max([len(cell) for cell in cells.values()] + [len(str(columns))], default=1)
    margin = len(str(rows - 1)) if layout.rank == 2 else 0
    lines = ["  ".join([" " * margin, *(f"{j:^{width}}" for j in range(columns))])]
    for i in range(rows):
        head = f"{i:>{margin}}" if margin else ""
        row = [f"{cells[i, j]:<{width}}" for j in range(columns)]
        lines.append("  ".join([head, *row]))
    indent = 0 if margin else 2
    return "\n".join(line[indent:].rstrip() for line in lines)


def _cell(layout: Layout, coords: tuple[int, ...]) -> str:
    return "|".join(_place(layout, place) for place in layout.places(coords))


def _place(layout: Layout, place: dict[str, Dim]) -> str:
    return " ".join(f"{_letter(axis)}{place[axis]}" for axis in layout.axes) or "-"


def _letter(axis: str) -> str:
    return axis[0] if axis in AXES else f"{axis}="
