"""A sample of the sweep that `make opinfo` makes, and the sweep itself."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from opinfo import sweep
from opinfo.cases import FORWARD, GRADIENT, INPLACE, Case, spread
from opinfo.check import FAILED, RIGHT, SKIPPED, WRONG, Outcome, check
from opinfo.report import natives, report

NATIVE = """
    add-bool-forward clamp-int64-inplace nn.functional.elu-float16-gradient
    mvlgamma.mvlgamma_p_5-int64-forward polygamma.polygamma_n_2-float32-forward
    special.i1e-bfloat16-forward where-bfloat16-gradient
    addcmul-int64-forward addcmul-int64-inplace addcdiv-float32-inplace
    round.decimals_3-float16-forward amax-float32-gradient
    var_mean-float64-gradient
    any-int64-forward dist-float32-gradient trace-float64-gradient
    diagonal_copy-float32-gradient narrow_copy-bool-forward as_strided-float32-gradient
    unfold_copy-float32-gradient gather-float32-gradient take-float32-gradient
    index_add-bool-forward index_reduce.mean-float64-gradient
    scatter_reduce.amax-bfloat16-forward slice_scatter-float16-gradient
    nn.functional.embedding-float32-gradient
    nn.functional.pad.replicate-float64-gradient
    nn.functional.pad.reflect-float16-forward
    nn.functional.nll_loss-float32-gradient nn.BatchNorm1d-float32-gradient
""".split()
BY_ATEN = """
    fft.ifft-float32-forward tensor_split-float32-forward cholesky-float64-gradient
    nn.functional.dropout-float32-forward empty_permuted-float32-forward
    index_fill-float32-gradient
""".split()


def case(text: str) -> Case:
    name, dtype, way = text.rsplit("-", 2)
    return Case(name, dtype, way)


@pytest.mark.parametrize("text", NATIVE)
def test_compiled_without_aten(text: str) -> None:
    assert check(case(text), 2) == Outcome(RIGHT)


@pytest.mark.parametrize("text", BY_ATEN)
def test_right_with_aten(text: str) -> None:
    outcome = check(case(text), 2)
    assert outcome.verdict == RIGHT, outcome.detail


def test_samples_are_spread() -> None:
    assert spread("abcdefg", 3) == ["a", "d", "g"]
    assert spread("abcdefg", 1) == ["a"]
    assert spread("ab", 3) == ["a", "b"]


class Scripted:
    """A process in place of a worker that answers, dies or is silent."""

    def __init__(self, script: str) -> None:
        self.script = script

    def __call__(self, command: Any, **pipes: Any) -> subprocess.Popen[str]:
        return _popen(["sh", "-c", self.script], **pipes)


_popen = subprocess.Popen
ANSWER = 'echo \'{"verdict": "right", "detail": "", "externs": []}\''


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        (f"while read line; do {ANSWER}; done", RIGHT),
        ("read line; kill -SEGV $$", sweep.CRASHED),
        ("read line; sleep 60", sweep.HUNG),
    ],
    ids=["answers", "dies", "is silent"],
)
def test_a_sweep_goes_on(
    monkeypatch: pytest.MonkeyPatch, script: str, verdict: str
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Scripted(script))
    cases = [Case("add", "float32", FORWARD), Case("sub", "float32", FORWARD)]
    found = dict(sweep.sweep(cases, count=1, jobs=1, seconds=0.5))
    assert [outcome.verdict for outcome in found.values()] == [verdict] * 2


def test_report() -> None:
    add, sub, trace = "add", "sub", "trace"
    outcomes = {
        Case(add, "float32", FORWARD): Outcome(RIGHT),
        Case(add, "float32", GRADIENT): Outcome(RIGHT, externs=("aten.mul.Tensor",)),
        Case(sub, "float32", INPLACE): Outcome(WRONG, "2 instead of 1"),
        Case(sub, "bool", FORWARD): Outcome(SKIPPED),
        Case(trace, "float32", FORWARD): Outcome(FAILED, externs=("aten.t.default",)),
    }
    assert natives(outcomes) == {add: False, sub: True, trace: False}
    text = report(outcomes)
    assert "2/2 = 100.0%      1/2 = 50.0%       2/3 = 66.7%" in text
    assert "aten.mul.Tensor" in text
    assert "wrong: sub-float32-inplace\n    2 instead of 1" in text
