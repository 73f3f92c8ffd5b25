"""`fusec explain`: what a target runs, what it costs, what did not fuse."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict

from fusec.build import gpu_binaries, gpu_jobs
from fusec.cli.output import Output, note, progress
from fusec.cli.targets import lowered, recording
from fusec.errors import UserError
from fusec.explain import NO_BINARIES, Report, explain
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
    journey = lowered(recorded, arguments)
    binaries = _binaries(journey) if journey.target.is_gpu else NO_BINARIES
    return explain(journey, imported.hints, imported.fallbacks, binaries)


def _binaries(journey: Journey) -> Mapping[str, Binary | Failure]:
    """The kernels' code for a GPU, where there is what compiles it."""
    kernels = journey.lowered.kernels
    try:
        with progress(f"compiling {counted(len(kernels), 'kernel')}"):
            return gpu_binaries(gpu_jobs(journey))
    except UserError as error:
        note(f"what the kernels take of the GPU is not known: {error}")
        return NO_BINARIES
