"""Run one model under several compilers, and set the outcomes side by side.

A `Task` runs a compiled model and says what came of it: a `Run`. A `Candidate` is a
way to compile. `hold` runs a task under each candidate, prints a row for each as it is
done, and returns what did not match eager:

    SmolLM2-135M-Instruct: …
                max error  same  first s  ms/call  ms/token  graphs  kernels
    eager         2.9e-05           0.21     95.1     28.40       0
    fusec         3.1e-05  yes      2.94     80.0     21.11       3  1891 > 724
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Protocol

import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor import metrics
from torch._inductor.utils import run_and_get_code

import fusec.counters

Compiled = Callable[..., Any]


@dataclass(frozen=True)
class Run:
    """What one candidate made of a task. Times are in seconds, and warm but `first`."""

    error: float
    """The largest error against float64."""
    outcome: object
    """What must be the same as under eager; shown to the user."""
    first: float
    """The time of those calls that compile."""
    call: float
    token: float


class Task(Protocol):
    title: str
    graphs: int
    """The most compilations that the task may take."""

    def model(self) -> nn.Module: ...

    def run(self, compiled: Compiled) -> Run: ...


@dataclass(frozen=True)
class Kernels:
    """Loop nests before fusion and kernels after it, without calls to libraries."""

    before: int = 0
    after: int = 0

    def since(self, earlier: Kernels) -> Kernels:
        return Kernels(self.before - earlier.before, self.after - earlier.after)


Observed = tuple[Run, Kernels]


def observe_nothing(run: Callable[[], Run]) -> Observed:
    return run(), Kernels()


def observe_fusec(run: Callable[[], Run]) -> Observed:
    before = kernel_counts()
    result = run()
    return result, kernel_counts().since(before)


def kernel_counts() -> Kernels:
    """What fusec fused so far in this process."""
    statistics = fusec.counters.statistics()
    return Kernels(statistics.regions, statistics.kernels)


def observe_inductor(run: Callable[[], Run]) -> Observed:
    """Reads the code that Inductor writes: its own count takes in discarded drafts."""
    before = metrics.ir_nodes_pre_fusion
    result, codes = run_and_get_code(run)
    calls = [line.strip() for code in codes for line in code.splitlines()]
    library = sum("extern_kernels." in c or "= torch.ops." in c for c in calls)
    nodes = metrics.ir_nodes_pre_fusion - before
    return result, Kernels(nodes - library, sum(map(bool, map(LAUNCH.match, calls))))


LAUNCH = re.compile(r"cpp_fused\w*\(")
"""A line of Inductor's code that runs a kernel, rather than defines one."""


@dataclass(frozen=True)
class Candidate:
    """A way to compile; `observe` runs a task and counts the kernels it compiled."""

    name: str
    compile: Callable[..., Compiled]
    observe: Callable[[Callable[[], Run]], Observed] = observe_nothing


CANDIDATES = (
    Candidate("eager", lambda model: model),
    Candidate("inductor", partial(torch.compile, backend="inductor"), observe_inductor),
    Candidate("fusec", partial(torch.compile, backend="fusec"), observe_fusec),
)


def missing(candidate: Candidate) -> str:
    """Why a candidate cannot run on this machine; "" if it can."""
    compiler = os.environ.get("CXX", "g++")
    if candidate.name == "inductor" and not shutil.which(compiler):
        return f"there is no C++ compiler ({compiler})"
    return ""


def hold(task: Task, candidates: tuple[Candidate, ...] = CANDIDATES) -> list[str]:
    """Run `task` under each candidate, eager first, and print the table.

    Returns what did not match, a line each: a candidate that failed, an error above
    twice eager's own, another outcome, more compilations than the task may take, or a
    warning of fusec's, such as of a graph that it left to ATen.
    """
    print(f"\n{task.title}\n{HEADER}")
    eager = None
    faults: list[str] = []
    for candidate in candidates:
        if why := missing(candidate):
            print(f"{candidate.name:10} skipped: {why}")
            continue
        try:
            with Warnings("fusec") as warnings:
                run, graphs, kernels = measure(task, candidate)
        except Exception as error:
            faults.append(f"{candidate.name} failed: {first_line(error)}")
            print(f"{candidate.name:10} failed: {first_line(error)}")
            continue
        eager = eager or run
        print(row(candidate.name, run, eager, graphs, kernels))
        found = [*warnings, *check(task, run, eager, graphs)]
        faults += [f"{candidate.name}: {fault}" for fault in found]
    if eager:
        print(textwrap.indent(textwrap.fill(str(eager.outcome), 77), " " * 11))
    return faults


class Warnings(logging.Handler):
    """Keeps the messages of warnings that are logged within a `with`."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.WARNING)
        self.logger = logging.getLogger(name)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> list[str]:
        self.logger.addHandler(self)
        return self.messages

    def __exit__(self, *error: object) -> None:
        self.logger.removeHandler(self)


def measure(task: Task, candidate: Candidate) -> tuple[Run, int, Kernels]:
    """A run, the graphs it compiled and what became of their kernels."""
    # Dynamo keeps what it compiled, and which sizes changed, by code and not by model.
    torch.compiler.reset()
    graphs = compiled_graphs()
    compiled = candidate.compile(task.model())
    run, kernels = candidate.observe(lambda: task.run(compiled))
    return run, compiled_graphs() - graphs, kernels


def compiled_graphs() -> int:
    return counters["stats"]["unique_graphs"]


def check(task: Task, run: Run, eager: Run, graphs: int) -> list[str]:
    faults = []
    # Written so that a NaN is a fault.
    if not run.error <= 2 * eager.error:
        faults.append(f"error {run.error:.1e} above twice eager's {eager.error:.1e}")
    if run.outcome != eager.outcome:
        faults.append(f"{run.outcome!r} instead of {eager.outcome!r}")
    if graphs > task.graphs:
        faults.append(f"{graphs} compilations instead of {task.graphs}")
    return faults


HEADER = (
    f"{'':10} {'max error':>9}  {'same':4}  {'first s':>7}  {'ms/call':>8}"
    f"  {'ms/token':>8}  {'graphs':>6}  kernels"
)


def row(name: str, run: Run, eager: Run, graphs: int, kernels: Kernels) -> str:
    same = "" if run is eager else "yes" if run.outcome == eager.outcome else "NO"
    fused = f"{kernels.before} > {kernels.after}" if kernels.before else ""
    return (
        f"{name:10} {run.error:9.1e}  {same:4}  {run.first:7.2f}"
        f"  {run.call * 1e3:8.2f}  {run.token * 1e3:8.3f}  {graphs:6}  {fused}"
    ).rstrip()


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What `call` returns, and the seconds it took."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def warm(call: Callable[[], Any], repeats: int) -> float:
    """The median seconds of `repeats` calls after one that does not count."""
    call()
    return median(timed(call)[1] for _ in range(repeats))
