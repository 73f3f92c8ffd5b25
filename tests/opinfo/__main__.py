"""Sweep torch's database of ops and modules: `make opinfo`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

from opinfo.cases import DTYPES, WAYS, Case, cases
from opinfo.check import Outcome
from opinfo.report import BAD, report
from opinfo.sweep import sweep


def main() -> int:
    options = _options()
    outcomes = _read(options.read) if options.read else _swept(options)
    print(report(outcomes))
    return any(outcome.verdict in BAD for outcome in outcomes.values())


def _swept(options: argparse.Namespace) -> dict[Case, Outcome]:
    chosen = [
        case
        for case in cases(options.dtypes, options.ways)
        if any(fnmatch(case.name, pattern) for pattern in options.ops)
        and any(fnmatch(case.family, pattern) for pattern in options.families)
    ]
    outcomes: dict[Case, Outcome] = {}
    for case, outcome in sweep(
        chosen, count=options.samples, jobs=options.jobs, seconds=options.seconds
    ):
        outcomes[case] = outcome
        if options.out:
            _append(options.out, case, outcome)
        if outcome.verdict in BAD:
            print(f"{outcome.verdict}: {case}", file=sys.stderr, flush=True)
        if len(outcomes) % 100 == 0:
            print(f"{len(outcomes)} of {len(chosen)}", file=sys.stderr, flush=True)
    return outcomes


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="opinfo", description=__doc__)
    add = parser.add_argument
    add("ops", nargs="*", default=["*"], help="names, such as 'nn.functional.*'")
    add("--families", nargs="*", default=["*"], help="such as 'pointwise*' or index")
    add("--dtypes", nargs="*", default=DTYPES, choices=DTYPES)
    add("--ways", nargs="*", default=WAYS, choices=WAYS)
    add("--samples", type=int, default=3, help="how many of each case")
    add("--jobs", type=int, default=1, help="how many processes")
    add("--seconds", type=float, default=120, help="that a case may take")
    add("--out", type=Path, help="a file to append outcomes to, as lines of JSON")
    add("--read", type=Path, help="report what such a file holds, and run nothing")
    return parser.parse_args()


def _append(path: Path, case: Case, outcome: Outcome) -> None:
    with path.open("a") as file:
        file.write(json.dumps({**asdict(case), **asdict(outcome)}) + "\n")


def _read(path: Path) -> dict[Case, Outcome]:
    """What a file holds; of a case that is there twice, the last outcome."""
    outcomes: dict[Case, Outcome] = {}
    for line in path.read_text().splitlines():
        held = json.loads(line)
        case = Case(held["name"], held["dtype"], held["way"])
        externs = tuple(held["externs"])
        outcomes[case] = Outcome(held["verdict"], held["detail"], externs)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
