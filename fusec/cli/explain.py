"""`fusec explain`: what a target runs, what it costs, what did not fuse."""

from __future__ import annotations

from argparse import Namespace

from fusec.cli.output import Output
from fusec.cli.targets import take
from fusec.explain import explain


def run(arguments: Namespace) -> Output:
    """Take the target in, and report on its graph."""
    taken = take(arguments)
    imported = taken.recorded.imported
    report = explain(taken.journey, imported.hints, imported.fallbacks)
    return Output(str(report), report.data)
