"""`fusec explain`: what a target runs, what it costs, what did not fuse."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict

from fusec.build import Binaries, gpu_jobs
from fusec.cli.output import Output, note, progress
from fusec.cli.targets import lowered, recording
from fusec.errors import UserError
from fusec.explain import NO_BINARIES, Report, explain
from fusec.fitting import fitted
from fusec.frontend.record import Recorded
from fusec.logs import counted
from fusec.passes.journey import Journey
from fusec.runtime.ahead import Binary, Failure


def run(arguments: Namespace) -> Output:
    """Take the target in, and report on its graphs, on those too that were lost."""
    found = recording(arguments)
    reports = [_report(each, arguments) for each in found.graphs]
    texts = [str(report) for report in reports]
    if len(texts) > 1:
        texts = [f"graph {k}: {text}" for k, text in enumerate(texts)]
    texts += map(str, found.lost)
    data = {
        "graphs": [report.data for report in reports],
        "lost": [asdict(each) for each in found.lost],
    }
    return Output("\n\n".join(texts), data)


def _report(recorded: Recorded, arguments: Namespace) -> Report:
    imported = recorded.imported
    journey, made = lowered(recorded, arguments), NO_BINARIES
    if journey.target.is_gpu:
        journey, made = _compiled(journey)
    return explain(journey, imported.hints, imported.fallbacks, made)


def _compiled(journey: Journey) -> tuple[Journey, Mapping[str, Binary | Failure]]:
    """The kernels' code for a GPU, by schedules that fit it, where there is what
    compiles it."""
    binaries = Binaries()
    try:
        with progress(f"compiling {counted(len(journey.laid_out), 'kernel')}"):
            journey = fitted(journey, binaries)
            return journey, binaries.of(gpu_jobs(journey.apart, journey.target))
    except UserError as error:
        note(f"what the kernels take of the GPU is not known: {error}")
        return journey, NO_BINARIES
