"""`fusec dump`: a program at one stage of its journey."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from fusec.cli.output import Output, progress, written
from fusec.cli.targets import Taken, take
from fusec.codegen.llvm_object import assembly
from fusec.compiler import Journey, kernel_text
from fusec.errors import UserError
from fusec.frontend.record import Recorded
from fusec.ir.arguments import names_of, save_npz
from fusec.ir.core import Function, Module
from fusec.ir.printer import format_module
from fusec.runtime.launcher_arrays import to_array


def run(arguments: Namespace) -> Output:
    """Take the target in, and print the stage."""
    taken = take(arguments)
    if arguments.save:
        _save(arguments.save, taken.recorded)
    with progress(f"printing the {arguments.stage} stage"):
        text = _text(taken, arguments)
    data = {"target": arguments.target, "stage": arguments.stage, "text": text}
    return Output(written(text, arguments.output), data)


def _text(taken: Taken, arguments: Namespace) -> str:
    journey = taken.journey
    kernels = _kernels(journey, arguments.kernel)
    if arguments.stage in ("llvm", "asm"):
        texts = {name: _code(journey, name, arguments.stage) for name in kernels}
        mark = ";" if arguments.stage == "llvm" else "#"
        parts = [f"{mark} {name}\n{text}" for name, text in texts.items()]
        return "\n".join(parts)
    chosen = tuple(kernels.values())
    modules = {
        **journey.stages,
        "tile": Module(chosen),
        "host": Module((journey.lowered.host, *chosen)),
    }
    return format_module(modules[arguments.stage], locations=arguments.locations)


def _kernels(journey: Journey, only: str | None) -> Mapping[str, Function]:
    laid_out = journey.laid_out
    if only is None:
        return laid_out
    if only not in laid_out:
        raise UserError(
            f"there is no kernel {only!r}",
            fix=f"the kernels are {', '.join(laid_out) or 'none'}",
        )
    return {only: laid_out[only]}


def _code(journey: Journey, name: str, stage: str) -> str:
    text = kernel_text(journey, name)
    target = journey.target
    if stage == "llvm":
        return text
    return assembly(text, target.cpu, target.feature_string)


def _save(path: str, recorded: Recorded) -> None:
    function = recorded.imported.function
    names = names_of(function)
    given = zip(function.params, recorded.arguments or (), strict=True)
    save_npz(path, {names[p]: to_array(x) for p, x in given if p in names})
