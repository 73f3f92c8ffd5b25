"""The way in: arguments become values, results become arrays and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusec.ir.core import Function, Level, Module, Value
from fusec.ir.dims import Symbol
from fusec.ir.dtypes import Array
from fusec.ir.interpreter import graph, host, loop, tile
from fusec.ir.interpreter.elements import scalar
from fusec.ir.interpreter.frame import (
    Context,
    ExternCall,
    Frame,
    InterpretError,
    Observer,
    Rule,
    bind_symbols,
)
from fusec.ir.interpreter.memory import Memory, check_array, in_memory
from fusec.ir.types import Buffer, Opaque, Scalar, Tensor, Token

RULES: Mapping[Level, Mapping[type, Rule]] = {
    Level.GRAPH: graph.RULES,
    Level.LOOP: loop.RULES,
    Level.TILE: tile.RULES,
    Level.HOST: host.RULES,
}


def interpret(
    function: Function,
    arguments: Sequence[Any],
    *,
    module: Module | None = None,
    extern: ExternCall | None = None,
    observe: Observer | None = None,
) -> tuple[Any, ...]:
    """The results of a call: new arrays, numbers for scalars, None for tokens.

    Arguments are an array in the carrier of its dtype for each tensor, flat memory for
    each buffer, a number for each scalar, None for each token. A tile function takes
    its symbols as further arguments and runs as the only program of a grid.

    Argument arrays are written to where the function says so: by `returns_into`, by a
    host function's kernels and copies, by a tile function's stores. `module` holds the
    kernels that a host function launches; `extern` computes what fusec does not.

    Raises `InterpretError` where arguments do not fit or the program goes wrong, and
    one of `CHECK_ERRORS` where a check that the program itself makes fails.
    """
    context = Context(module, extern, observe)
    with np.errstate(all="ignore"):
        frame = enter(function, arguments, RULES[function.level], context)
        frame.run(function.body)
        results = tuple(_release(frame, value) for value in function.body.yields)
    _write_back(frame, arguments, results)
    return results


def enter(
    function: Function,
    arguments: Sequence[Any],
    rules: Mapping[type, Rule],
    context: Context,
) -> Frame:
    """A frame that holds the arguments. Raises `InterpretError` if they do not fit."""
    frame = Frame(function, bind_symbols(function, arguments), rules, context)
    for param, argument in zip(function.params, arguments, strict=False):
        frame.values[param] = _hold(frame, param, argument)
    return frame


def run_kernel(
    function: Function,
    buffers: Sequence[Any],
    sizes: Mapping[Symbol, int],
    grid: int,
    *,
    observe: Observer | None = None,
) -> None:
    """Run every program of a grid, in order, on flat memory that it writes in place.

    `buffers` are one-dimensional arrays in the carriers of the parameters' dtypes, one
    item for each element. Raises `InterpretError`, for an access out of bounds too.
    """
    if len(buffers) != len(function.params):
        takes = f"{len(function.params)} buffers, not {len(buffers)}"
        raise InterpretError(f"{function.name} takes {takes}")
    with np.errstate(all="ignore"):
        tile.launch(function, buffers, sizes, range(grid), Context(observe=observe))


def _hold(frame: Frame, param: Value, argument: Any) -> Any:
    """An argument in the form that values have at the function's level."""
    if isinstance(param.type, Token):
        return None
    if isinstance(param.type, Opaque):
        return argument
    if isinstance(param.type, Scalar):
        return scalar(param, argument)
    if isinstance(param.type, Buffer):
        return tile.argument_of(param, argument)
    array = check_array(param, argument)
    if frame.function.level is Level.HOST and isinstance(param.type, Tensor):
        return in_memory(frame, param.type, array)
    return array


def _release(frame: Frame, value: Value) -> Any:
    """A result in the form that callers take, sharing nothing with the arguments."""
    held = frame[value]
    if isinstance(value.type, Token):
        return None
    if isinstance(value.type, Opaque):
        return held
    if isinstance(value.type, Scalar):
        return held.item()
    if not isinstance(held, Memory):
        return np.array(held, order="C")
    if not held.storage.escapes:
        raise InterpretError(f"{value} is returned, but its memory does not escape")
    return held.read()


def _write_back(
    frame: Frame, arguments: Sequence[Any], results: tuple[Any, ...]
) -> None:
    function = frame.function
    if function.level is Level.HOST:
        for param, argument in zip(function.params, arguments, strict=True):
            if isinstance(param.type, Tensor):
                _update(argument, frame[param].read())
        return
    for result, target in zip(results, function.returns_into, strict=False):
        if target is not None:
            arguments[target][...] = result


def _update(argument: Array, array: Array) -> None:
    """Overwrite an argument that changed; one that did not may be read-only."""
    if argument.tobytes() != array.tobytes():
        argument[...] = array
