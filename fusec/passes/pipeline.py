"""The passes in their order: the table of contents of the compiler.

    graph ── lower_to_loops ──▶ loop ── fuse ──▶ loop ── lower_to_host ──▶ host + tile
    tile  ── assign_layouts ──▶ tile ── stripmine ──▶ tile ── expand ──▶ tile
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fusec.analysis.staging import kept
from fusec.ir.core import Function
from fusec.passes.expand import expand
from fusec.passes.stripmine import number_sweeps, stripmine, time_dims
from fusec.target import Target


def lower_kernel(
    function: Function, target: Target, supports: Callable[[Any, Any], bool]
) -> Function:
    """A kernel with layouts, in the form that a backend with explicit registers takes."""
    sweeps = number_sweeps(function)
    keep = kept(function, sweeps, lambda value: bool(time_dims(value)), target)
    return expand(stripmine(function, keep), supports)
