"""The benchmarks measure what they say: counts and results, never times."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cases
import compile_time
import cpu_fused
import fused_linear
import gemm
import gpu_descriptors
import gpu_fused
import gpu_gemm
import gpu_harness
import harness
import models
import pytest
import torch
import tuning

from fusec.measuring import cpu


def test_a_ratio_is_taken_within_rounds() -> None:
    spread = harness.ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0])
    assert (spread.low, spread.middle, spread.high) == (2.0, 2.0, 2.0)
    assert str(harness.ratio([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])) == "2.00 [1.00, 3.00]"


@pytest.mark.parametrize("moved", [(5000, 5000), (9001, 1000), (100, 7001), (0, 0)])
def test_streams_copy_what_is_read_and_written(moved: tuple[int, int]) -> None:
    for call in harness.streams(*moved).values():
        copied = call()
        assert len(copied) == max(1, min(moved))
        assert (copied == 1).all()


def test_tables_align() -> None:
    table = harness.markdown(["case", "us"], [["softmax", "1.5"], ["nll", "12.25"]])
    assert table.splitlines() == [
        "| case    |    us |",
        "| ------- | ----: |",
        "| softmax |   1.5 |",
        "| nll     | 12.25 |",
    ]


def prepare(name: str, direction: str, size: str = "cache") -> cpu_fused.Prepared:
    torch.compiler.reset()
    return cpu_fused.prepare(name, direction, size, torch.float32, ("fusec",))


@pytest.mark.parametrize("case", cases.CASES)
def test_each_case_is_right_without_aten(case: str) -> None:
    prepared = prepare(case, "forward")
    assert set(prepared.calls) == {"eager", "fusec"}
    assert min(prepared.moved) > 0


@pytest.mark.slow
@pytest.mark.parametrize("case", [n for n, case in cases.CASES.items() if case.trains])
def test_each_gradient_is_right_without_aten(case: str) -> None:
    assert min(prepare(case, "step").moved) > 0


def test_a_result_that_is_off_is_refused() -> None:
    exact = torch.ones(4, dtype=torch.float64)
    near, far = torch.ones(4) + 1e-7, torch.ones(4) + 1e-4
    cpu_fused.check_close(near, torch.ones(4), exact, 2)
    with pytest.raises(AssertionError, match="off"):
        cpu_fused.check_close(far, torch.ones(4), exact, 2)


def test_rows_can_be_shown_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = {"case": "softmax", "direction": "forward", "dtype": "f32"}
    place = {"size": "cache", "threads": 1, "memory": "fresh"}
    row = prepare("softmax", "forward").measure(2, **what, **place)
    assert len(row.cells()) == len(cpu_fused.HEADER)
    assert cpu_fused.row_of(json.dumps(asdict(row))) == row
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    saved = json.loads(harness.save("table", [row]).read_text())
    assert saved["rows"][0]["case"] == "softmax"
    assert saved["rows"][0]["seconds"]["fusec"] > 0


def test_the_summary_counts_what_falls_short() -> None:
    spread = harness.Spread(1.9, 2.0, 2.1)
    slow = harness.Spread(0.4, 0.5, 0.6)
    seconds = {"eager": 2.0, "inductor": 2.0, "fusec": 1.0, "roofline": 0.9}
    base = cpu_fused.Row(
        "f", "forward", "f32", "DRAM", 1, "warm", seconds, spread, slow
    )
    told = cpu_fused.summary([base, replace(base, to_inductor=slow)])
    assert "2 rows" in told
    assert "mean 1.00" in told
    assert "least 0.50, 1 below 1" in told
    assert "2 warm rows in DRAM 2 reach" in told


@pytest.mark.slow
def test_the_wait_for_a_compile_has_parts() -> None:
    (cold, warm) = compile_time.rows_of("gpt inference", "fusec", 1)
    for row in (cold, warm):
        assert row.graphs == 1
        assert row.own is not None
        assert 0 < row.own < row.total
        assert len(row.cells()) == len(compile_time.HEADER)


@pytest.mark.parametrize("dtype", gemm.TORCH)
@pytest.mark.parametrize("turned", [False, True])
def test_products_are_right_before_they_are_timed(dtype: str, turned: bool) -> None:
    for batch, size in ((1, (17, 40, 33)), (3, (16, 8, 24))):
        calls = gemm.candidates(dtype, batch, size, turned)
        assert "fusec" in calls


def test_the_peak_counts_two_operations_for_each_multiply_add(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "peak", lambda target, threads: 7.0 * threads)
    assert harness.peak(2) == 28.0


@pytest.mark.parametrize("case", fused_linear.CASES)
def test_each_linear_case_is_right_without_aten(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("TOKENS", 12), ("WIDTH", 64), ("HIDDEN", 96), ("HEADS", 1)):
        monkeypatch.setattr(fused_linear, name, size)
    monkeypatch.setattr(
        fused_linear.CASES[case],
        "shape",
        {
            "linear+bias+gelu": (64, 96),
            "swiglu": (64, 192),
            "linear+residual+rmsnorm": (96, 64),
            "qkv+rotary": (64, 192),
        }[case],
    )
    with torch.no_grad():
        assert "fusec" in fused_linear.candidates(case, "f32", ("fusec",))


@pytest.mark.parametrize(
    ("block", "shape"),
    [
        (lambda: models.LlamaBlock(48, 6, 2), (2, 9, 48)),
        (lambda: models.MixerBlock(10, 24), (2, 10, 24)),
        (lambda: models.ViTBlock(36, 3), (2, 11, 36)),
    ],
)
def test_each_block_is_right(block: Any, shape: tuple[int, ...]) -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    module, x = block(), torch.randn(shape)
    with torch.no_grad():
        got = torch.compile(module, backend="fusec")(x)
        torch.testing.assert_close(got, module(x), rtol=1e-4, atol=1e-4)


needs_inductor = pytest.mark.skipif(
    "inductor" not in harness.compilers(), reason="it takes a C++ compiler"
)


@pytest.mark.slow
@needs_inductor
def test_benchmarks_of_gpus_run_without_one(tmp_path: Path) -> None:
    row = gpu_fused.measure("swiglu", "forward", "f32", "cache", 2, "cpu")
    product = gpu_gemm.measure("bias, gelu", "bf16", (9, 8, 16), 2, "cpu", False)
    assert {*row.seconds} == {"eager", "inductor", "fusec", "roofline"}
    assert {*product.seconds} == {"cuBLAS", "eager", "inductor", "fusec"}
    both = gpu_descriptors.measure("bias, gelu", "bf16", (9, 8, 16), 2, "cpu")
    assert {*both.seconds} == {"eager", "pointers", "descriptors"}
    harness.write(tmp_path / "gpu.json", {"device": "none"}, [row, row])
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert [each["case"] for each in kept["rows"]] == ["swiglu"] * 2


def test_no_row_begins_after_the_deadline(tmp_path: Path) -> None:
    over = gpu_harness.Deadline(-1.0)
    assert gpu_fused.run("cpu", 1, tmp_path, quick=True, deadline=over) == []
    assert gpu_gemm.run("cpu", 1, tmp_path, quick=True, deadline=over) == []
    assert gpu_descriptors.run("cpu", 1, tmp_path, quick=True, deadline=over) == []


def test_the_order_of_candidates_is_compared_with_time() -> None:
    predicted, trial, measured = (
        (1.0, 1.0, 2.0, 3.0),
        (4.0, 3.0, 1.0, 2.0),
        (4, 4, 2, 1),
    )
    row = tuning.Row("case", "kernel", 1, predicted, trial, measured, 1)
    # The third is chosen: who was a little faster afterwards had luck.
    assert [row.regret(k) for k in (1, 2, 3)] == [1.0, 1.0, 0.0]
    assert row.gain == 2.0
    assert row.cells()[:4] == ["case (kernel)", "4", "1", f"{row.spearman:.2f}"]
    assert tuning.spearman([(1, 10), (2, 20), (3, 30)]) == pytest.approx(1.0)
    assert tuning.spearman([(1, 3), (2, 2), (3, 1)]) == pytest.approx(-1.0)
    assert tuning.spearman([(1, 1), (1, 2), (1, 3)]) == 0.0


def test_candidates_are_measured_for_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    softmax = replace(cases.CASES["softmax"], shapes=((4, 70), (4, 70)))
    monkeypatch.setitem(cases.CASES, "softmax", softmax)
    monkeypatch.setattr(tuning, "PRODUCTS", ((40, 48, 24),))
    rows = tuning.run(2, [1], ["softmax", "40×48×24 n"], 3)
    assert [(len(row.measured), row.lost) for row in rows] == [(3, 0), (3, 0)]
    assert all(time > 0 for row in rows for time in (*row.trial, *row.measured))
    assert "mean regret" in tuning.summary(rows)
