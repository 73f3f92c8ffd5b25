"""What was measured of a machine: kept, read back, checked, and what it decides."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gpu_cases
import gpu_static
import pytest

from fusec import api, calibration
from fusec.analysis.accesses import accesses
from fusec.analysis.choices import choose
from fusec.analysis.library import as_call
from fusec.calibration import (
    Calibration,
    Machine,
    calibrated,
    forget,
    keep,
    target_of,
    this_cpu,
    with_figures,
)
from fusec.codegen.backend import backend_of
from fusec.errors import UserError
from fusec.ir.core import Function
from fusec.ir.dims import Facts
from fusec.ir.ops.loop import Region
from fusec.ir.parser import parse_function
from fusec.options import Options
from fusec.passes.journey import lower
from fusec.passes.pipeline import Setting
from fusec.target import SM_90, X86_64_V4, Target, host

MACHINE = Machine("Imaginary 9000", "avx2 fma", 2)
FIGURES: dict[str, Any] = {
    "hertz": 3e9,
    "l2_rate": 2e11,
    "llc_rate": 9e10,
    "dram_rate": 3e10,
    "dram_rate_all": 5e10,
    "launch": 2e-6,
    "nontemporal": False,
    "library": {"i8": 5.0},
}
TARGET = replace(X86_64_V4, library=(("i8", 16.0), ("bf16", 8.0)))


def test_what_is_kept_replaces_the_target_s_own_figures(tmp_path: Path) -> None:
    keep(Calibration(MACHINE, FIGURES), tmp_path)
    found = calibrated(TARGET, MACHINE, tmp_path)
    expected = {**FIGURES, "library": (("i8", 5.0), ("bf16", 8.0))}
    assert found == replace(TARGET, **expected)


def test_nothing_is_kept_of_another_machine(tmp_path: Path) -> None:
    keep(Calibration(MACHINE, FIGURES), tmp_path)
    for other in (
        replace(MACHINE, name="Imaginary 9001"),
        replace(MACHINE, features="avx2"),
        replace(MACHINE, cores=4),
    ):
        assert other.key != MACHINE.key
        assert calibrated(TARGET, other, tmp_path) is TARGET


def test_to_forget_is_to_have_the_defaults(tmp_path: Path) -> None:
    keep(Calibration(MACHINE, FIGURES), tmp_path)
    assert calibrated(TARGET, MACHINE, tmp_path) != TARGET
    assert forget(MACHINE, tmp_path)
    assert calibrated(TARGET, MACHINE, tmp_path) is TARGET
    assert not forget(MACHINE, tmp_path)


def test_the_file_is_for_people_and_for_us_alone(tmp_path: Path) -> None:
    path = keep(Calibration(MACHINE, FIGURES), tmp_path / "new")
    assert path.stat().st_mode & 0o777 == 0o600
    data = json.loads(path.read_text())
    assert data["machine"]["name"] == "Imaginary 9000"
    assert data["figures"] == FIGURES
    assert data["when"].endswith("+00:00")


def changed(**figures: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = json.loads(path.read_text())
        data["figures"] |= figures
        path.write_text(json.dumps(data))

    return change


def at_top(**entries: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return change


def replaced_by_a_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda path: path.write_text(path.read_text()[:40]), ""),
        (lambda path: path.write_bytes(b"\x80{}"), "decode"),
        (lambda path: path.write_text("[1]"), "no JSON object"),
        (lambda path: path.chmod(0o666), "other users may write to it"),
        (replaced_by_a_link, "symbolic links"),
        (at_top(version=0), "of version 0"),
        (at_top(machine={"name": "another"}), "on another machine"),
        (at_top(figures=None), "no JSON object"),
        (changed(hertz="fast"), "hertz is 'fast'"),
        (changed(hertz=float("nan")), "hertz is nan"),
        (changed(nontemporal=1), "neither true nor false"),
        (changed(library={"i8": -1.0}), "library i8 is -1.0"),
        (changed(cores=64), "'cores' is no figure"),
        (changed(launch=3e-3), "launch is 0.003"),
    ],
)
def test_a_damaged_or_foreign_file_is_ignored_and_told_of(
    damage: Callable[[Path], None],
    why: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = keep(Calibration(MACHINE, FIGURES), tmp_path)
    damage(path)
    with caplog.at_level(logging.WARNING, "fusec.cache"):
        assert calibrated(TARGET, MACHINE, tmp_path) is TARGET
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert why in record.getMessage()
    assert "fusec calibrate" in record.getMessage()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="set cache_dir"):
        keep(Calibration(MACHINE, FIGURES), tmp_path / "cache")


def test_a_folder_of_everyone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(UserError, match="set cache_dir"):
        keep(Calibration(MACHINE, FIGURES), tmp_path / "cache")


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        ({"llc_rate": 3e11}, "llc_rate is 3e[+]11, but l2_rate 2e[+]11"),
        ({"dram_rate_all": 9e10}, "but dram_rate 3e[+]10 on each of 2 cores"),
        ({"llc_rate": 1e10}, "dram_rate_all is 5e[+]10, but llc_rate 1e[+]10"),
    ],
)
def test_what_lies_farther_away_is_not_faster(figures: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        with_figures(TARGET, {**FIGURES, **figures})


@pytest.mark.parametrize("target", [host(), SM_90], ids=lambda target: target.name)
def test_defaults_are_figures_that_may_be_measured(target: Target) -> None:
    own = {name: getattr(target, name) for name in calibration.RANGES}
    assert with_figures(target, {**own, "library": dict(target.library)}) == target


# Who asks.


def test_this_machine_is_calibrated_and_a_named_target_is_not(tmp_path: Path) -> None:
    keep(Calibration(this_cpu(), {"launch": 7e-6}), tmp_path)
    assert target_of(Options(cache_dir=tmp_path)) == replace(host(), launch=7e-6)
    named = Options(cache_dir=tmp_path, target="x86-64-v4")
    assert target_of(named) is X86_64_V4


def test_torch_s_cache_tells_figures_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_is_kept", lambda: True)
    options = Options(cache_dir=tmp_path)
    salts = [api._salt(options)]
    for launch in (7e-6, 8e-6):
        keep(Calibration(this_cpu(), {"launch": launch}), tmp_path)
        salts += [api._salt(options), api._salt(options)]
    forget(this_cpu(), tmp_path)
    salts.append(api._salt(options))
    first, a, again, b, once_more, last = salts
    assert None not in salts
    assert (a, b, first) == (again, once_more, last)
    assert len({first, a, b}) == 3


# What figures decide.


def region(text: str) -> tuple[Region, Function]:
    function = parse_function(text)
    (op,) = (op for op in function.body.ops if isinstance(op, Region))
    return op, function


def test_stores_bypass_the_caches_where_that_was_faster() -> None:
    op, _ = region(
        """\
loop @f(%x: f32[8192, 8192]) -> (f32[8192, 8192]) {
  %0 = region %x over i:8192, j:8192 : f32[8192, 8192] {
    ^(%a: f32[8192, 8192], %b: f32[8192, 8192]):
    %1 = load %a [i, j] : f32{i, j}
    %2 = neg %1 : f32{i, j}
    store %2, %b [i, j]
  }
  yield %0
}
"""
    )
    slower = with_figures(TARGET, {"nontemporal": False})
    streaming = [choose(accesses(op), t, {}).streaming for t in (TARGET, slower)]
    assert streaming == [True, False]


def test_a_library_is_called_for_what_it_was_measured_to_do_faster() -> None:
    op, _ = region(
        """\
loop @f(%x: i8[512, 512], %y: i8[512, 512]) -> (i32[512, 512]) {
  %0 = region %x, %y over i:512, j:512, k:512 : i32[512, 512] {
    ^(%a: i8[512, 512], %b: i8[512, 512], %c: i32[512, 512]):
    %1 = load %a [i, k] : i8{i, k}
    %2 = load %b [k, j] : i8{k, j}
    %3 = cast %1 {dtype=i32} : i32{i, k}
    %4 = cast %2 {dtype=i32} : i32{k, j}
    %5 = mul %3, %4 : i32{i, k, j}
    %6 = reduce %5 {axes=(k,), monoid=sum<i32>} : i32{i, j}
    store %6, %c [i, j]
  }
  yield %0
}
"""
    )
    slow = with_figures(TARGET, {"library": {"i8": 0.02}})
    calls = [as_call(op, Facts(), target, {}) for target in (TARGET, slow)]
    assert [call is not None and call.theirs < call.ours for call in calls] == [
        True,
        False,
    ]


def test_what_overflows_a_cache_is_not_cut_in_parts_that_would_not() -> None:
    # All of it is 6 MB, its two parts 4 MB each: apart they would seem to fit in the
    # second-level caches, one after the other.
    f, make = gpu_cases.KERNELS["residual and norm"]
    (recorded,) = gpu_static.taken_in(f, *make(512, 1000))
    steep = {"l2_rate": 1.2e11, "llc_rate": 2.3e10, "dram_rate_all": 3.3e10}
    target = replace(with_figures(TARGET, {**FIGURES, **steep}), l2_bytes=2 << 20)
    supports = partial(backend_of(target).supports, target=target)
    journey = lower(recorded.imported.function, Setting(target, supports))
    assert len(journey.lowered.kernels) == 1
