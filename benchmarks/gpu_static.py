"""What kernels take of GPUs that are not here: registers, spills, shared memory and
occupancy, as the compilers' tools tell. The golden kernels follow their default
schedules, those of whole models what a compile takes in place of one that does not fit.

    python benchmarks/gpu_static.py --targets sm_90 gfx942
    python benchmarks/gpu_static.py --targets sm_90 --models
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
from fusec.fitting import fitted
from fusec.frontend.compiled import Made
from fusec.frontend.intake import Imported
from fusec.frontend.record import Inputs, Recorded, record
from fusec.options import Options
from fusec.passes.journey import Journey, lower
from fusec.runtime.ahead import Binary, Failure, Job, spilled
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


@dataclass(frozen=True)
class Told:
    """What there is to tell of a graph."""

    report: Report
    replaced: tuple[str, ...] = ()
    """Which schedules gave way to others, and why."""


def lowered(graphs: Sequence[Recorded], target: str) -> list[Journey]:
    """Graphs on their way to a GPU."""
    found: list[Journey] = []
    for recorded in graphs:
        imported = recorded.imported
        setting = setting_of(Options(target=target), imported.hints)
        found.append(lower(imported.function, setting))
    return found


def told(graphs: Sequence[Recorded], target: str, fit: bool = False) -> list[Told]:
    """What there is to tell of graphs for a GPU, their code included, which is compiled
    all at once; with `fit`, by the schedules that a compile takes."""
    binaries = Binaries()
    before = lowered(graphs, target)
    jobs: dict[tuple[int, str], Job] = {}
    for k, journey in enumerate(before):
        programs = [journey.apart, journey.joined] if fit else [journey.apart]
        for each in programs:
            own = gpu_jobs(each, journey.target)
            jobs |= {(k, name): job for name, job in own.items()}
    binaries.of(jobs)
    found: list[Told] = []
    for journey, recorded in zip(before, graphs, strict=True):
        taken = fitted(journey, binaries) if fit else journey
        made = binaries.of(gpu_jobs(taken.apart, taken.target))
        imported = recorded.imported
        report = explain(taken, imported.hints, imported.fallbacks, made)
        found.append(Told(report, tuple(replaced(journey, taken, binaries))))
    return found


def replaced(before: Journey, taken: Journey, binaries: Binaries) -> Iterator[str]:
    """A line for each kernel that follows another schedule than its default."""
    outcomes = binaries.of(gpu_jobs(before.apart, before.target))
    for name, kernel in before.lowered.kernels.items():
        new = taken.lowered.kernels[name].schedule
        if str(new) != str(kernel.schedule):
            why = reason(outcomes[name], before.target)
            yield f"{name}: {why} by {kernel.schedule}; taken is {new}"


def reason(outcome: Binary | Failure, target: Target) -> str:
    """Why code does not fit a GPU."""
    if isinstance(outcome, Failure):
        return f"Triton refuses it ({outcome.what})"
    size = spilled(outcome, target)
    if size == float("inf"):
        return f"it takes {outcome.resources.shared} B of shared memory"
    return f"{size:.0f} B of each thread spill"


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
        for name, each in zip(graphs, reports, strict=True):
            rows += rows_of(name, each.report)
    return rows


def whole_models(target: str) -> Iterator[tuple[str, Told]]:
    """The programs of SmolLM2 and of a training step of the small GPT."""
    for name in ("SmolLM2, prefill of 512", "SmolLM2, decoding", "GPT, 4 layers"):
        model = models.MODELS[name]()
        graphs = taken_in(model.module, *model.inputs, backward=model.trains)
        for each in told(graphs, target, fit=True):
            yield name, each


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
        for name, each in whole_models(target):
            rows_of(name, each.report)  # none may lack its code
            print(f"\n{name}\n\n{each.report}", flush=True)
            for line in each.replaced:
                print(f"  replaced {line}", flush=True)


if __name__ == "__main__":
    main()
