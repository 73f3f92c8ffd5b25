"""Code for GPUs that are not here: every golden kernel compiles, and spills nothing."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from subprocess import run
from typing import Any

import gpu_static
import pytest
import torch
from gpu_cases import KERNELS

from fusec.build import Binaries, gpu_jobs
from fusec.compiler import setting_of
from fusec.options import Options
from fusec.passes.journey import lower
from fusec.runtime import ahead
from fusec.runtime.ahead import (
    Binary,
    Failure,
    Job,
    Resources,
    compile_all,
    triton_version,
)
from fusec.target import GPUS, SM_90

pytest.importorskip("triton")
from triton import knobs

SOURCE = """
import triton
import triton.language as tl


@triton.jit
def copied(x, y, n):
    i = tl.arange(0, 64)
    tl.store(y + i, tl.load(x + i, mask=i < n), mask=i < n)
"""


OLD = triton_version() < "3.8"
SPILL = {"sm_100": {"product of doubles"}} if OLD else {}
"""Which do, by the fault of an older Triton: a compile then takes another schedule."""


def job(source: str = SOURCE, arch: str = "sm_90", **others: Any) -> Job:
    types = ("*fp32", "*fp32", "i64")
    given: dict[str, Any] = {"aligned": (True, True), "constants": ()}
    given |= {"backend": "cuda", "warp": 32, "warps": 1, "stages": 1, **others}
    return Job(source, "copied", types, arch=arch, **given)


@pytest.mark.parametrize("target", GPUS)
def test_golden_kernels_compile_and_spill_nothing(target: str) -> None:
    rows = gpu_static.run([target])
    assert {row.case for row in rows} == {*KERNELS}
    assert {row.case for row in rows if row.spilled} <= SPILL.get(target, set())
    assert all(0 < row.occupancy <= 1 for row in rows)
    core = GPUS[target].gpu
    assert core is not None
    assert all(row.shared <= core.shared_of_program for row in rows)


def test_outcomes_come_in_the_order_of_jobs() -> None:
    wrong = SOURCE.replace("tl.arange(0, 64)", "tl.arange(0, 63)")
    jobs = [job(), job(wrong), job(warps=4), job(arch="sm_80")]
    first, second, third, fourth = compile_all(jobs, 2)
    assert isinstance(first, Binary)
    assert first.code[:4] == b"\x7fELF"
    assert isinstance(second, Failure)
    assert "power of 2" in second.what
    assert isinstance(third, Binary)
    assert (first.resources.threads, third.resources.threads) == (32, 128)
    assert isinstance(fourth, Binary)
    assert fourth.code != first.code


def test_a_worker_that_dies_fails_one_job() -> None:
    deadly = SOURCE + "\nimport os\nos._exit(3)\n"
    before, died, after = compile_all([job(), job(deadly), job()], 1)
    assert isinstance(before, Binary)
    assert isinstance(died, Failure)
    assert "ended with 3" in died.what
    assert isinstance(after, Binary)


def test_a_worker_that_hangs_fails_one_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "PATIENCE", 5.0)
    hanging = SOURCE + "\nwhile True: pass\n"
    hung, after = compile_all([job(hanging), job()], 1)
    assert isinstance(hung, Failure)
    assert "more than" in hung.what
    assert isinstance(after, Binary)


def test_without_triton_the_error_tells_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ahead, "find_spec", lambda name: None)
    with pytest.raises(Exception, match="pip install 'fusec"):
        compile_all([job()], 1)


def test_occupancy_is_what_there_is_least_room_for() -> None:
    assert Resources(32, 0, 0, 32).occupancy(SM_90) == 0.5  # 32 programs
    assert Resources(32, 0, 0, 256).occupancy(SM_90) == 1.0
    assert Resources(128, 0, 0, 256).occupancy(SM_90) == 0.25
    assert Resources(32, 0, 100 << 10, 256).occupancy(SM_90) == 0.25
    # Of each program's shared memory the system takes another KiB.
    assert Resources(32, 0, 113 << 10, 256).occupancy(SM_90) == 0.25
    assert Resources(32, 0, 114 << 10, 256).occupancy(SM_90) == 0.125


@pytest.mark.parametrize("target", GPUS)
def test_joined_launches_compile_and_spill_nothing(target: str) -> None:
    def f(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        return y.sum(0), (z * 2).exp().t().contiguous(), y.cumsum(1), x.exp()

    arguments = [torch.randn(shape) for shape in ((7, 33), (9, 40), (20, 30))]
    (recorded,) = gpu_static.taken_in(f, *arguments)
    found = lower(recorded.imported.function, setting_of(Options(target=target)))
    assert found.joined.parts
    jobs = gpu_jobs(found.joined, found.target)
    for outcome in Binaries().of(jobs).values():
        assert isinstance(outcome, Binary), outcome
        assert not outcome.resources.spilled


IN_MEMORY = {
    "rows added": r"REDG?\.E\.ADD\.F32",
    "largest of places": r"REDG?\.E\.MAX\.S32",
    "places filled": r"STG\.E",
}
"""NVIDIA's instructions that bring nothing back, and wait for nobody."""


def test_memory_combines_by_itself(tmp_path: Path) -> None:
    jobs: dict[str, list[Job]] = {}
    for case in IN_MEMORY:
        f, make = KERNELS[case]
        (recorded,) = gpu_static.taken_in(f, *make(5, 300))
        found = lower(recorded.imported.function, setting_of(Options(target="sm_90")))
        made = gpu_jobs(found.joined, found.target)
        jobs[case] = [job for name, job in made.items() if "scatter" in name]
    outcomes = iter(compile_all([job for each in jobs.values() for job in each], 2))
    for case, wanted in IN_MEMORY.items():
        for outcome in islice(outcomes, len(jobs[case])):
            assert isinstance(outcome, Binary), outcome
            text = disassembled(outcome.code, tmp_path / "kernel.cubin")
            assert re.search(wanted, text), case
            assert not re.search(r"ATOM|\bCAS\b", text)


def disassembled(code: bytes, path: Path) -> str:
    path.write_bytes(code)
    tool = [knobs.nvidia.cuobjdump.path, "-sass", str(path)]
    return run(tool, capture_output=True, text=True, check=True).stdout
