"""Whether the launches of a host function keep within the memory they are given.

A kernel does not say how many programs it is made for, and compiled code checks
nothing. Offsets grow with the program, so the first and the last program of a launch
reach as far as any: those two are run here, before code that would crash is.

Nothing is computed: kernels find poison where others would have written, and calls to
torch are not made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fusec.ir.core import Function, Module
from fusec.ir.interpreter import host, tile
from fusec.ir.interpreter.frame import Context, Frame, Rule
from fusec.ir.interpreter.memory import allocate
from fusec.ir.interpreter.run import enter
from fusec.ir.ops.checks import Raise
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.host import Launch
from fusec.ir.types import Tensor, Token


def check_reach(function: Function, arguments: Sequence[Any], module: Module) -> None:
    """Raise `InterpretError` for a launch that reaches beyond its buffers.

    Takes what `interpret` takes, and leaves the arguments as they are. Says nothing of
    what follows a call to torch whose result is a number: sizes may depend on it.
    """
    with np.errstate(all="ignore"):
        frame = enter(function, arguments, RULES, Context(module))
        try:
            frame.run(function.body)
        except _Unknown:
            return


class _Unknown(Exception):
    """What comes after depends on a number that only the call finds out."""


def _launch(frame: Frame, op: Launch) -> tuple[()]:
    kernel, arguments, sizes = host.passed(frame, op)
    grid = frame.size(op.grid)
    ends = sorted({0, grid - 1}) if grid > 0 else []
    tile.launch(kernel, arguments, sizes, ends, frame.context)
    return ()


def _extern(frame: Frame, op: Extern) -> Iterator[Any]:
    for value in op.results:
        if isinstance(value.type, Tensor):
            yield allocate(frame, value.type)
        elif isinstance(value.type, Token):
            yield None
        else:
            raise _Unknown


def _nothing(frame: Frame, op: Raise) -> tuple[()]:
    return ()


RULES: Mapping[type, Rule] = {
    **host.RULES,
    Launch: _launch,
    Extern: _extern,
    Raise: _nothing,
}
