"""`fusec layout`: a layout as a table of places."""

from __future__ import annotations

from argparse import Namespace

from fusec.cli.output import Output
from fusec.errors import UserError
from fusec.ir.layout import (
    Layout,
    NotRepresentable,
    grid_text,
    on_known_axes,
    parse_layout,
)


def run(arguments: Namespace) -> Output:
    """Parse and draw."""
    layout = _parsed(arguments.expr)
    try:
        grid = grid_text(layout)
    except NotRepresentable as error:
        raise UserError(f"this layout cannot be drawn: {error}") from None
    shape = [str(n) for n in layout.shape]
    data = {
        "layout": str(layout),
        "shape": shape,
        "axes": list(layout.axes),
        "grid": grid,
    }
    head = f"{layout}   shape {' x '.join(shape)}"
    return Output(f"{head}\n\n{grid}", data)


def _parsed(text: str) -> Layout:
    try:
        return on_known_axes(parse_layout(text))
    except (ValueError, NotRepresentable) as error:
        raise UserError(
            f"this is no layout: {error}",
            fix="for each dimension write digits EXTENT:AXIS, as in '(4:reg 16:lane)'",
        ) from None
