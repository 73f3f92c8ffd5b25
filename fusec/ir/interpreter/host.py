"""The host level: tensors in memory that is allocated, written and freed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fusec.ir.core import Function, Module, Value
from fusec.ir.dims import Symbol
from fusec.ir.interpreter import elements
from fusec.ir.interpreter.extern import call
from fusec.ir.interpreter.frame import Frame, InterpretError, Rule
from fusec.ir.interpreter.memory import Memory, allocate, in_memory
from fusec.ir.interpreter.tile import launch as launch_kernel
from fusec.ir.ops.checks import Raise
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.host import Alloc, CopyInto, Free, Launch
from fusec.ir.ops.loop import View
from fusec.ir.types import Tensor, strides_of


def alloc(frame: Frame, op: Alloc) -> tuple[Memory]:
    memory = allocate(frame, op.type, escapes=op.escapes)
    if op.zeroed:
        memory.write(np.zeros_like(memory.read()))
    return (memory,)


def free(frame: Frame, op: Free) -> tuple[()]:
    storage = frame[op.x].storage
    if not storage.alive:
        raise InterpretError(f"{op.x} was freed before")
    storage.alive = False
    return ()


def view(frame: Frame, op: View) -> tuple[Memory]:
    shape, strides = frame.shape(op.type.shape), frame.numbers(strides_of(op.type))
    return (frame[op.x].view(shape, strides, frame.size(op.offset)),)


def launch(frame: Frame, op: Launch) -> tuple[()]:
    kernel, arguments, sizes = passed(frame, op)
    launch_kernel(kernel, arguments, sizes, range(frame.size(op.grid)), frame.context)
    return ()


def passed(frame: Frame, op: Launch) -> tuple[Function, list[Any], dict[Symbol, int]]:
    """The kernel of a launch, the memory that it gets, and the sizes."""
    kernel = _kernel(frame.context.module, op.kernel)
    if len(op.sizes) != len(kernel.symbols):
        wanted = f"{len(kernel.symbols)} sizes, not {len(op.sizes)}"
        raise InterpretError(f"{op.kernel} takes {wanted}")
    if len(op.arguments) != len(kernel.params):
        wanted = f"{len(kernel.params)} arguments, not {len(op.arguments)}"
        raise InterpretError(f"{op.kernel} takes {wanted}")
    arguments = [_passed(held) for held in frame.all(op.arguments)]
    sizes = dict(zip(kernel.symbols, frame.numbers(op.sizes), strict=True))
    return kernel, arguments, sizes


def _kernel(module: Module | None, name: str) -> Function:
    functions = module.functions if module else ()
    for function in functions:
        if function.name == name:
            return function
    raise InterpretError(f"there is no kernel {name!r} in the module")


def _passed(held: Any) -> Any:
    return held.flat if isinstance(held, Memory) else held


def extern(frame: Frame, op: Extern) -> Iterable[Any]:
    inputs = [_logical(held) for held in frame.all(op.inputs)]
    results = call(frame, op, inputs)
    return [_stored(frame, *pair) for pair in zip(op.results, results, strict=True)]


def _logical(held: Any) -> Any:
    return held.read() if isinstance(held, Memory) else held


def _stored(frame: Frame, value: Value, array: Any) -> Any:
    type_ = value.type
    return in_memory(frame, type_, array) if isinstance(type_, Tensor) else array


def raise_(frame: Frame, op: Raise) -> tuple[()]:
    raised = np.flatnonzero(frame[op.flags].read())
    if raised.size:
        raise op.failure(int(raised[0]))
    return ()


def copy_into(frame: Frame, op: CopyInto) -> tuple[()]:
    frame[op.target].write(frame[op.x].read())
    return ()


RULES: Mapping[type, Rule] = {
    **elements.RULES,
    Alloc: alloc,
    Free: free,
    View: view,
    Launch: launch,
    Extern: extern,
    CopyInto: copy_into,
    Raise: raise_,
}
