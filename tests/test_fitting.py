"""Schedules whose code does not fit a GPU give way to others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from fusec import build
from fusec.analysis.schedule import Schedule
from fusec.build import Binaries
from fusec.compiler import setting_of
from fusec.fitting import MOST, fitted
from fusec.ir.builder import Builder
from fusec.ir.core import Level
from fusec.ir.dtypes import f32
from fusec.ir.interpreter import interpret
from fusec.ir.monoids import monoid
from fusec.ir.ops.elementwise import Exp
from fusec.ir.ops.reduction import ReduceDims
from fusec.ir.types import Tensor
from fusec.options import Options
from fusec.passes.journey import Journey, lower
from fusec.runtime.ahead import Binary, Failure, Job, Resources

pytest.importorskip("triton")
import gpu_static


def journey() -> Journey:
    b = Builder(Level.GRAPH)
    x = b.param(Tensor(f32, (300, 700)), "x")
    total = b(ReduceDims, b(Exp, x), dims=(1,), monoid=monoid("sum", f32))
    function = b.function("f", (total,))
    return lower(function, setting_of(Options(target="sm_90")))


class Compiler:
    """Answers for what compiles kernels: each spills so much."""

    def __init__(self, *outcomes: int | str) -> None:
        self.outcomes = list(outcomes)
        self.jobs: list[Job] = []

    def __call__(self, jobs: Sequence[Job], workers: int) -> list[Binary | Failure]:
        self.jobs += jobs
        return [self.outcome(self.outcomes.pop(0)) for _ in jobs]

    def outcome(self, spilled: int | str) -> Binary | Failure:
        if isinstance(spilled, str):
            return Failure(spilled)
        return Binary(b"", Resources(255, spilled, 0, 128))


def outcome_of(*outcomes: int | str) -> tuple[Schedule, Schedule, Compiler]:
    """The schedule before, the one after, and what was compiled."""
    before = journey()
    compiler = Compiler(*outcomes)
    with patch.object(build, "compile_all", compiler):
        after = fitted(before, Binaries())
    assert after.loops is before.loops
    (first,), (last,) = (
        [kernel.schedule for kernel in each.lowered.kernels.values()]
        for each in (before, after)
    )
    return first, last, compiler


def test_what_fits_stays() -> None:
    before, after, compiler = outcome_of(0)
    assert str(after) == str(before)
    assert len(compiler.jobs) == 1


@pytest.mark.parametrize("first", [96, "OutOfResources: shared memory"])
def test_what_does_not_gives_way_to_the_best_that_does(first: Any) -> None:
    rest = [8, 0, *[0] * MOST]
    before, after, compiler = outcome_of(first, *rest)
    assert str(after) != str(before)
    chosen, stays = compiler.jobs[2], compiler.jobs[0]
    assert (chosen.constants, chosen.warps) != (stays.constants, stays.warps)
    assert after.warps == chosen.warps


def test_where_none_fits_what_spills_least_is_taken() -> None:
    _, after, compiler = outcome_of(96, 64, 8, *[64] * MOST)
    assert after.warps == compiler.jobs[2].warps
    before, after, _ = outcome_of(8, *[64] * MOST, 64)
    assert str(after) == str(before)


def test_each_job_is_compiled_once() -> None:
    compiler = Compiler(*[0] * 4)
    with patch.object(build, "compile_all", compiler):
        binaries = Binaries()
        for _ in range(2):
            fitted(journey(), binaries)
    assert len(compiler.jobs) == 1


def test_it_computes_the_same() -> None:
    before = journey()
    with patch.object(build, "compile_all", Compiler(96, *[0] * MOST)):
        after = fitted(before, Binaries())
    x = np.linspace(-3, 3, 210_000, dtype=np.float32).reshape(300, 700)
    (wanted,), (got,) = (
        interpret(each.module.entry, [x.copy()], module=each.module)
        for each in (before, after)
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("first", "why"), [(96, "96 B of each thread spill"), ("no", "refuses it (no)")]
)
def test_what_gave_way_is_told(first: Any, why: str) -> None:
    x = torch.randn(300, 700)
    graphs = gpu_static.taken_in(lambda x: x.exp().sum(1), x)
    for fit, outcomes in ((True, [first, *[0] * MOST]), (False, [8])):
        with patch.object(build, "compile_all", Compiler(*outcomes)):
            (told,) = gpu_static.told(graphs, "sm_90", fit=fit)
        (kernel,) = told.report.kernels
        assert kernel.resources is not None
        assert kernel.resources.spilled == (0 if fit else 8)
        assert len(told.replaced) == fit
        assert all(line.startswith(kernel.name) for line in told.replaced)
        assert all(f"{why} by grid" in line for line in told.replaced)
