"""What kernels take of GPUs that are not here: registers, spills, shared memory and
occupancy of the default schedules, as the compilers' tools tell.

    python benchmarks/gpu_static.py --targets sm_90 gfx942
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import harness
import models
import torch
from gpu_cases import KERNELS

from fusec.build import Binaries, gpu_jobs
from fusec.compiler import setting_of
from fusec.explain import Report, explain
from fusec.frontend.compiled import Made
from fusec.frontend.intake import Imported
from fusec.frontend.record import Inputs, Recorded, record
from fusec.options import Options
from fusec.passes.journey import Journey, lower
from fusec.runtime.ahead import Job
from fusec.target import GPUS, Target

SIZE = (512, 1000)
"""Rows and columns of the cases."""


def taken_in(f: Callable[..., Any], *args: Any, **how: bool) -> list[Recorded]:
    """The graphs of a call, which torch runs meanwhile: none is compiled."""

    def compile(imported: Imported) -> Made:
        return Made(imported.eager_yields)

    torch._dynamo.reset()  # else it may leave open the sizes of another call's
    options = Options(cache=False)
    return record(f, Inputs(args), compile, options, target=a_gpu, **how).graphs


def a_gpu(device: str) -> Target:
    """What all GPUs have in common decides how graphs are taken in."""
    return GPUS["sm_90"]


@dataclass(frozen=True)
class Row:
    """One kernel for one target."""

    case: str
    target: str
    kernel: str
    tile: str
    registers: int
    spilled: int
    shared: int
    occupancy: float
    seconds: float
    """Predicted."""

    def cells(self) -> list[str]:
        numbers = self.registers, self.spilled, self.shared
        share = f"{self.occupancy:.0%}"
        predicted = f"{self.seconds * 1e6:.1f}"
        return [self.case, self.target, self.tile, *map(str, numbers), share, predicted]


HEADER = (
    *("case", "target", "tile", "registers", "spilled B", "shared B", "occupancy"),
    "predicted µs",
)


def told(graphs: Sequence[Recorded], target: str) -> list[Report]:
    """What there is to tell of graphs for a GPU, their code included, which is compiled
    all at once."""
    journeys: list[Journey] = []
    jobs: dict[tuple[int, str], Job] = {}
    for k, recorded in enumerate(graphs):
        imported = recorded.imported
        setting = setting_of(Options(target=target), imported.hints)
        journey = lower(imported.function, setting)
        journeys.append(journey)
        own = gpu_jobs(journey.apart, journey.target)
        jobs |= {(k, name): job for name, job in own.items()}
    binaries = Binaries().of(jobs)
    return [
        explain(
            journey,
            recorded.imported.hints,
            recorded.imported.fallbacks,
            {name: found for (at, name), found in binaries.items() if at == k},
        )
        for k, (journey, recorded) in enumerate(zip(journeys, graphs, strict=True))
    ]


def rows_of(case: str, report: Report) -> list[Row]:
    """The kernels of a report. Raises `AssertionError` for one that has no code."""
    rows: list[Row] = []
    for kernel in report.kernels:
        assert kernel.resources is not None, f"{case}: {kernel.failure}"
        assert kernel.occupancy is not None
        used = kernel.resources
        numbers = used.registers, used.spilled, used.shared, kernel.occupancy
        name, tile = kernel.name, kernel.tile
        rows.append(Row(case, report.target, name, tile, *numbers, kernel.seconds))
    return rows


def run(
    targets: Sequence[str] = tuple(GPUS),
    cases: Mapping[str, Any] = KERNELS,
    size: tuple[int, int] = SIZE,
) -> list[Row]:
    """Every case for every target."""
    graphs = {n: taken_in(f, *make(*size))[0] for n, (f, make) in cases.items()}
    rows: list[Row] = []
    for target in targets:
        reports = told([*graphs.values()], target)
        for name, report in zip(graphs, reports, strict=True):
            rows += rows_of(name, report)
    return rows


def whole_models(target: str) -> Iterator[tuple[str, Report]]:
    """The programs of SmolLM2 and of a training step of the small GPT."""
    for name in ("SmolLM2, prefill of 512", "SmolLM2, decoding", "GPT, 4 layers"):
        model = models.MODELS[name]()
        graphs = taken_in(model.module, *model.inputs, backward=model.trains)
        for report in told(graphs, target):
            yield name, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", default=list(GPUS), choices=list(GPUS))
    parser.add_argument("--models", action="store_true", help="whole models instead")
    options = parser.parse_args()
    if not options.models:
        rows = run(options.targets)
        print(harness.markdown(HEADER, [row.cells() for row in rows]))
        return
    for target in options.targets:
        for name, report in whole_models(target):
            rows_of(name, report)  # none may lack its code
            print(f"\n{name}\n\n{report}", flush=True)


if __name__ == "__main__":
    main()
