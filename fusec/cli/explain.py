"""`fusec explain`: what a target runs, what it costs, what did not fuse."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from fusec.cli.output import Output
from fusec.cli.targets import lowered, recording
from fusec.explain import Report, explain
from fusec.frontend.record import Recorded


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
    return explain(journey, imported.hints, imported.fallbacks)
