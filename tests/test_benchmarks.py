"""The benchmarks measure what they say: counts and results, never times."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import cpu_fused
import harness
import pytest
import torch


def test_every_round_times_each_candidate_and_starts_with_another() -> None:
    calls: list[str] = []
    samples = harness.interleave({n: lambda n=n: calls.append(n) for n in "abc"}, 4)
    assert [len(samples[name]) for name in "abc"] == [4, 4, 4]
    # A sample is many calls in a row.
    order = "".join(name for name, _ in groupby(calls))
    assert order == "abc" + "abc" + "bca" + "cab" + "abc"


def test_a_ratio_is_taken_within_rounds() -> None:
    spread = harness.ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0])
    assert (spread.low, spread.middle, spread.high) == (2.0, 2.0, 2.0)
    assert str(harness.ratio([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])) == "2.00 [1.00, 3.00]"


def test_copies_move_what_they_are_asked_to() -> None:
    for call in harness.copies(8 * 1001).values():
        # Half is read and half written.
        torch.testing.assert_close(call(), torch.ones(1001))


def test_tables_align() -> None:
    table = harness.markdown(["case", "us"], [["softmax", "1.5"], ["nll", "12.25"]])
    assert table.splitlines() == [
        "| case    |    us |",
        "| ------- | ----: |",
        "| softmax |   1.5 |",
        "| nll     | 12.25 |",
    ]


@pytest.mark.parametrize("case", cpu_fused.CASES)
def test_each_case_is_right_and_can_be_shown(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.compiler.reset()
    row = cpu_fused.prepare(case, 4, 40, ("fusec",)).measure("fresh", rounds=2)
    assert len(row.cells()) == len(cpu_fused.HEADER)
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    saved = json.loads(harness.save("table", [row]).read_text())
    assert saved["rows"][0]["case"] == case
    assert len(saved["rows"][0]["samples"]["fusec"]) == 2
