"""`fusec dump`: a program at one stage of its journey."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from fusec.cli.output import Output, note, progress, written
from fusec.cli.targets import lowered, recording
from fusec.errors import UserError
from fusec.frontend.record import Recorded
from fusec.ir.arguments import names_of, save_npz
from fusec.ir.core import Function
from fusec.passes.journey import Journey
from fusec.runtime.arrays import to_array
from fusec.stages import stage_text


def run(arguments: Namespace) -> Output:
    """Take the target in, and print the stage."""
    recorded, *others = found = recording(arguments).graphs
    if others:
        names = ", ".join(each.imported.function.name for each in found)
        note(f"graph 0 of {len(found)} ({names}); choose with --graph")
    journey = lowered(recorded, arguments)
    if arguments.save:
        _save(arguments.save, recorded)
    with progress(f"printing the {arguments.stage} stage"):
        kernels = _kernels(journey, arguments.kernel)
        text = stage_text(journey, arguments.stage, kernels, arguments.locations)
    data = {"target": arguments.target, "stage": arguments.stage, "text": text}
    return Output(written(text, arguments.output), data)


def _kernels(journey: Journey, only: str | None) -> Mapping[str, Function]:
    kernels = journey.kernels
    if only is None:
        return kernels
    if only not in kernels:
        raise UserError(
            f"there is no kernel {only!r}",
            fix=f"the kernels are {', '.join(kernels) or 'none'}",
        )
    return {only: kernels[only]}


def _save(path: str, recorded: Recorded) -> None:
    function = recorded.imported.function
    names = names_of(function)
    given = zip(function.params, recorded.arguments or (), strict=True)
    save_npz(path, {names[p]: to_array(x) for p, x in given if p in names})
