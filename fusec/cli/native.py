"""What `fusec run` needs torch for: compiled host functions, and calls to its ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fusec.compiler import compile_module, compile_verified
from fusec.errors import FusecError, UserError
from fusec.ir.core import Function, Level, Module
from fusec.ir.interpreter import InterpretError, check_reach
from fusec.options import Options
from fusec.runtime import arrays
from fusec.runtime.arrays import call

__all__ = ["extern_calls", "run_compiled", "run_verified"]


def run_compiled(
    module: Module, arguments: list[Any], options: Options
) -> tuple[Any, ...]:
    """The results of a host function, its kernels compiled for this machine.

    Raises `UserError` for kernels that cannot be compiled or that reach beyond their
    memory, and where the program fails.
    """
    for kernel in module.functions[1:]:
        _check(kernel)
    _check_reach(module, arguments)
    program = compile_module(module, options).program
    return _called(lambda: call(program, module.entry, arguments))


def run_verified(
    module: Module, arguments: list[Any], options: Options
) -> tuple[Any, ...]:
    """The results of a graph, compiled, each stage compared with the one before.

    Raises `VerificationError` for the first that differs, `UserError` where the
    program fails.
    """
    program = compile_verified(module.entry, options)
    return _called(lambda: call(program, module.entry, arguments))


def extern_calls(function: Function, arguments: Sequence[Any]) -> Any:
    """What `interpret` calls for externs. Raises `UserError` where torch refuses."""
    run = arrays.extern_calls(function, arguments)
    return lambda *given: _called(lambda: run(*given))


def _check(kernel: Function) -> None:
    if kernel.level is not Level.TILE:
        raise UserError(
            f"@{kernel.name} cannot be compiled: a kernel is a tile function",
            fix="print it with `fusec dump --stage host`, or run with --interpret",
        )


def _check_reach(module: Module, arguments: list[Any]) -> None:
    try:
        check_reach(module.entry, arguments, module)
    except InterpretError as error:
        raise UserError(
            f"the program was not run, as it would fail: {error}",
            fix="compare the grid, the sizes and the buffers of its launches with"
            " what `fusec dump --stage host` printed",
        ) from None


def _called(run: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    try:
        return run()
    except FusecError:
        raise
    except Exception as error:
        # An index out of bounds, or what an op of torch's refuses.
        raise UserError(f"the program failed: {error}") from error
