"""Tuning for a GPU: emulated, in the process that measures as in this one.

By the emulated GPU's clock the candidate with the most programs is the fastest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

import fusec
from fusec import build, tuning
from fusec.analysis.candidates import Choice, no_choices
from fusec.build import Binaries
from fusec.compiler import setting_of
from fusec.logs import forget_warnings
from fusec.options import Options
from fusec.passes.journey import Journey, lower
from fusec.runtime import gpus
from fusec.runtime.ahead import Binary, Failure, Job, Resources
from fusec.runtime.cache import Cache, cache_at
from fusec.runtime.measuring import Measuring
from fusec.target import SM_90
from fusec.tuning.compiling import GpuCompiler
from fusec.tuning.kept import Kept, kept_choices
from fusec.tuning.subjects import Subject, subjects_of

pytest.importorskip("triton")
import emulated_device
import gpu_static
from emulated import EmulatedDriver, emulated

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
X = torch.randn(32, 20)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[EmulatedDriver]:
    torch._dynamo.reset()
    forget_warnings()
    cache_at.cache_clear()
    with emulated(tmp_path / "kernels") as driver:
        driver.folder.mkdir()
        yield driver
    cache_at.cache_clear()


def squares(x: torch.Tensor) -> torch.Tensor:
    return (x * x).sum(-1)


def journey_of(f: Any, *args: torch.Tensor, **options: Any) -> Journey:
    """A function for a GPU."""
    recorded, *_ = gpu_static.taken_in(f, *args)
    setting = setting_of(Options(target="sm_90", **options))
    return lower(recorded.imported.function, setting)


def kept_in(folder: Path) -> list[Choice]:
    cache = Cache(folder)
    entries = [cache.get(e.key) for e in cache.ls() if e.kind == "schedule"]
    return [Choice.parse(text.decode()) for text in entries if text is not None]


def test_the_fastest_is_found_kept_and_followed(
    driver: EmulatedDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the graph's own device, where this machine can compile an emulated one."""
    device = "cpu"
    target: dict[str, Any] = {"target": "sm_90"}
    if emulated_device.is_possible():
        emulated_device.registered()
        device, target = f"{emulated_device.NAME}:1", {}
    x = X.to(device)

    def programs(**options: Any) -> int:
        """How many its one kernel has."""
        torch._dynamo.reset()
        cache_at.cache_clear()
        chosen = {"cache_dir": tmp_path, "fallback": False, **target, **options}
        f = torch.compile(squares, backend=fusec.backend, options=chosen)
        torch.testing.assert_close(f(x).cpu(), squares(X))
        return driver.grid

    plain = programs()
    tuned = programs(tune=True)
    (choice,) = kept_in(tmp_path)
    assert choice.schedule
    assert choice.gain == tuned / plain > 1
    monkeypatch.setattr(tuning, "Measuring", None)  # nothing is measured again
    assert programs(tune=True) == tuned
    assert programs() == plain


def test_a_mode_of_torch_tunes_until_time_is_up(
    driver: EmulatedDriver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="fusec.tuning")
    monkeypatch.setenv("FUSEC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("FUSEC_TARGET", "sm_90")
    monkeypatch.setenv("FUSEC_TUNE_SECONDS", "0")
    f = torch.compile(squares, backend=fusec.backend, mode="max-autotune")
    torch.testing.assert_close(f(X), squares(X))
    assert driver.launches
    assert "time is up: 1 kernel left with the default schedule" in caplog.text
    assert not kept_in(tmp_path)


def test_code_that_crashes_loses_itself_only(driver: EmulatedDriver) -> None:
    """So does what hangs: see `test_measuring`, as races are the same anywhere."""
    journey = journey_of(squares, X)
    (subject,) = subjects_of(journey)
    compiler = GpuCompiler(journey, Binaries(), "cpu")
    ((code, *_),) = compiler([subject])
    assert code is not None
    job = json.loads(code.kernel.code)
    job["source"] += "\nimport os\nos._exit(3)\n"
    kernel = code.kernel._replace(code=json.dumps(job).encode())
    crashes, faster = replace(code, kernel=kernel), replace(code, grid=code.grid * 2)
    with Measuring(compiler.place) as measuring:
        verdict = measuring.race(subject.inputs, [code, crashes, faster])
    assert (verdict.best, verdict.gain) == (2, 2.0)
    assert [seconds is None for seconds in verdict.seconds] == [0, 1, 0]


Outcomes = Sequence["int | str"]


def codes_of(subject: Subject, journey: Journey, outcomes: Outcomes) -> list[bool]:
    """Which candidates are raced, where code spills so much, or fails."""

    def compile_all(jobs: Sequence[Job], workers: int) -> list[Binary | Failure]:
        pairs = zip(jobs, outcomes, strict=True)
        return [
            Failure(spilled)
            if isinstance(spilled, str)
            else Binary(b"", Resources(255, spilled, 0, 32 * job.warps))
            for job, spilled in pairs
        ]

    with patch.object(build, "compile_all", compile_all):
        (codes,) = GpuCompiler(journey, Binaries(), "cpu")([subject])
    return [code is not None for code in codes]


@pytest.mark.parametrize(
    ("outcomes", "raced"),
    [
        ((0, 8, 0, "no", 0, 0), (1, 0, 1, 0, 1, 1)),
        ((8, 16, 8, "no", 96, 8), (1, 0, 1, 0, 0, 1)),
        ((8, 0, 8, 8, 0, 8), (0, 1, 0, 0, 1, 0)),
        (("no", "no", 4, "no", "no", "no"), (0, 0, 1, 0, 0, 0)),
        (("no",) * 6, (0,) * 6),
    ],
)
def test_what_spills_is_not_raced(
    driver: EmulatedDriver, outcomes: Outcomes, raced: Sequence[int]
) -> None:
    journey = journey_of(squares, X)
    (subject,) = subjects_of(journey)
    assert subject.count == 6
    assert codes_of(subject, journey, outcomes) == [*map(bool, raced)]


def test_small_kernels_that_share_a_launch_are_not_measured(
    driver: EmulatedDriver,
) -> None:
    def f(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        return x.exp() + 1, y.exp().t().contiguous(), z.softmax(-1)

    journey = journey_of(f, X, torch.randn(9, 40), torch.randn(8000, 2000))
    assert journey.joined.parts
    names = {subject.name for subject in subjects_of(journey)}
    assert names == {*journey.lowered.kernels} & {*journey.joined.kernels}
    assert names < {*journey.lowered.kernels}


def test_what_is_kept_is_of_one_device(driver: EmulatedDriver, tmp_path: Path) -> None:
    def key() -> str:
        kept = kept_choices(options, SM_90, "cpu")
        assert isinstance(kept, Kept)
        return kept.key("a region")

    options = Options(cache_dir=tmp_path)
    first, kind = key(), gpus.KINDS["cpu"]
    assert key() == first
    other = gpus.Machine("another", "sm_90", 132)
    with patch.dict(gpus.KINDS, {"cpu": kind._replace(machine=lambda _: other)}):
        assert key() != first
    with patch.object(gpus, "triton_version", lambda: "2.0"):
        assert key() != first
    with patch.dict(gpus.KINDS, clear=True):  # code for a GPU that is not here
        assert kept_choices(options, SM_90, "cpu") is no_choices


def test_candidates_with_tensor_descriptors_have_memory_for_them(
    driver: EmulatedDriver,
) -> None:
    """Beside those without: the worker gives each what it takes."""
    x, y = (torch.randn(128, 128).bfloat16() for _ in range(2))
    journey = journey_of(lambda x, y: (x @ y).relu(), x, y)
    (subject,) = subjects_of(journey, best=100)
    chosen = [c for c in subject.candidates if c.schedule.descriptors][:1]
    subject = replace(subject, candidates=[*subject.candidates[:1], *chosen])
    compiler = GpuCompiler(journey, Binaries(), "cpu")
    (codes,) = compiler([subject])
    plain, described = (code for code in codes if code is not None)
    assert plain.told["scratch"] == 0 < described.told["scratch"]
    with Measuring(compiler.place) as measuring:
        verdict = measuring.race(subject.inputs, [plain, described])
    assert None not in verdict.seconds
