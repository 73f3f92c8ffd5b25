"""Tuning, from a mode of torch.compile to a choice that every later compile follows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import fusec
from fusec import tuning
from fusec.analysis.candidates import Choice
from fusec.logs import forget_warnings
from fusec.runtime.cache import Cache, cache_at
from fusec.runtime.measuring import Code, Inputs, Place, Verdict
from fusec.runtime.workers import Lost
from fusec.tuning.subjects import BEST


class Races:
    """Stands for `Measuring`: says who wins, and remembers who ran."""

    def __init__(self) -> None:
        self.ran: list[tuple[Inputs, Sequence[Code]]] = []
        self.best: Callable[[int], int] = lambda count: count - 1

    def __call__(self, place: Place) -> Races:
        return self

    def __enter__(self) -> Races:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def race(self, inputs: Inputs, codes: Sequence[Code]) -> Verdict:
        self.ran.append((inputs, codes))
        best = self.best(len(codes))
        return Verdict(best, 1.5 if best else 1.0, (1.0,) * len(codes))


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> Iterator[Races]:
    races = Races()
    monkeypatch.setattr(tuning, "Measuring", races)
    forget_warnings()
    cache_at.cache_clear()
    yield races
    cache_at.cache_clear()


def model(x: torch.Tensor, w: torch.Tensor) -> Any:
    """A product, a softmax, sums of columns, a gather: order-free work and sums."""
    y = torch.softmax(x @ w, -1)
    rows = x.to(torch.int64).remainder(5)[:, 0]
    return y, x.sum(0), w[rows].amax(1), (x * 2).t() + 1


def small(x: torch.Tensor, w: torch.Tensor) -> Any:
    """Two kernels."""
    return x.softmax(1), w.sum(0)


X, W = torch.randn(40, 72) * 9, torch.randn(72, 48)


def compiled(folder: Path, f: Any = small, **options: Any) -> Any:
    """The results of a compile with an empty memory but for a folder."""
    torch._dynamo.reset()
    cache_at.cache_clear()
    chosen = {"cache_dir": folder, "tune": True, "fallback": False, **options}
    return torch.compile(f, backend=fusec.backend, options=chosen)(X, W)


def test_a_tuned_program_computes_the_same(races: Races, tmp_path: Path) -> None:
    """Every bit where order does not matter, whichever candidate wins."""
    _, _, largest, moved = plain = compiled(tmp_path, model, tune=False)
    assert not races.ran
    for k in (1, BEST - 1):
        races.best = lambda count, k=k: min(k, count - 1)
        found = compiled(tmp_path / str(k), model)
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-4)
        assert torch.equal(found[2], largest)
        assert torch.equal(found[3], moved)
    assert len(races.ran) >= 2 * 3
    assert all(1 < len(codes) <= BEST for _, codes in races.ran)


def test_the_second_compile_measures_nothing(races: Races, tmp_path: Path) -> None:
    first = compiled(tmp_path)
    count = len(races.ran)
    assert count
    second = compiled(tmp_path)
    assert len(races.ran) == count
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    compiled(tmp_path, threads=7)  # where another choice may be right
    assert len(races.ran) == 2 * count


def test_what_wins_is_followed_and_told(
    races: Races, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def squares(x: torch.Tensor) -> torch.Tensor:
        return (x * x).sum(1)

    def text(**options: Any) -> str:
        torch._dynamo.reset()
        return fusec.jit(squares, cache_dir=tmp_path, **options).explain(X)

    caplog.set_level("INFO", logger="fusec.tuning")
    untuned, told = text(), text(tune=True)
    assert "tuned: 1.50× the default" in told
    tiles = [[li for li in t.splitlines() if "tile" in li] for t in (untuned, told)]
    assert tiles[0] != tiles[1]
    assert "fused_sum_0: 1.50x the default, by grid" in caplog.text
    assert "tuned" not in text()
    assert text(tune=True) == told
    races.best = lambda count: 0
    other = fusec.jit(squares, cache_dir=tmp_path / "other", tune=True)
    assert "tuned: nothing was faster than the default" in other.explain(X)


def test_broken_choices_are_ignored(
    races: Races, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes that rotted, whole entries that are none, choices that are out of date."""
    wanted = compiled(tmp_path)
    count = len(races.ran)
    cache = Cache(tmp_path)
    kept = [entry.key for entry in cache.ls() if entry.kind == "schedule"]
    assert len(kept) == count
    old = Choice("grid 0; 1 whole 999 7", 9.0).text.encode()
    contents = [b"\x80\x04nonsense", b'{"schedule": 3}', old]
    for k, key in enumerate(kept):
        cache.put(key, contents[k % 3], "schedule")
    path = tmp_path / kept[0]
    path.write_bytes(path.read_bytes()[:-1])
    found = compiled(tmp_path)
    assert len(races.ran) == 2 * count
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)
    assert "a kept schedule is ignored" in caplog.text
    compiled(tmp_path)
    assert len(races.ran) == 2 * count


def test_a_kernel_whose_default_is_lost_keeps_it(
    races: Races, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = compiled(tmp_path, tune=False)
    monkeypatch.setattr(races, "race", lost)
    found = compiled(tmp_path)
    for a, b in zip(found, plain, strict=True):
        assert torch.equal(a, b)
    assert not [e for e in Cache(tmp_path).ls() if e.kind == "schedule"]


def lost(inputs: Inputs, codes: Sequence[Code]) -> Verdict:
    raise Lost("it does not run")


def test_time_is_not_exceeded(
    races: Races, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="fusec.tuning")
    compiled(tmp_path, tune_seconds=0)
    assert not races.ran
    assert "time is up" in caplog.text
    compiled(tmp_path)
    assert races.ran


def test_sizes_that_are_open_are_measured_as_they_were_seen(
    races: Races, tmp_path: Path
) -> None:
    torch._dynamo.reset()
    options = {"cache_dir": tmp_path, "tune": True}
    call = torch.compile(
        lambda x: x.exp().sum(1), backend=fusec.backend, dynamic=True, options=options
    )
    for rows in (48, 5):
        x = torch.randn(rows, 33)
        torch.testing.assert_close(call(x), x.exp().sum(1))
    ((inputs, _),) = races.ran
    assert {*inputs.sizes} == {48, 33}
    assert [each.elements for each in inputs.buffers] == [48 * 33, 48]


def test_indices_are_drawn_from_those_that_there_are(
    races: Races, tmp_path: Path
) -> None:
    torch._dynamo.reset()
    options = {"cache_dir": tmp_path, "tune": True}
    table, at = torch.randn(50, 24), torch.randint(50, (16,))
    call = torch.compile(
        lambda t, i: t[i].exp(), backend=fusec.backend, options=options
    )
    torch.testing.assert_close(call(table, at), table[at].exp())
    ((inputs, _),) = races.ran
    assert {each.below for each in inputs.buffers} == {50}


def test_what_is_made_once_is_not_tuned(races: Races, tmp_path: Path) -> None:
    """But what reads it is, as it is packed."""
    torch._dynamo.reset()
    model = torch.nn.Linear(72, 64).eval()
    options = {"cache_dir": tmp_path, "tune": True, "freeze": True}
    with torch.no_grad():
        call = torch.compile(model, backend=fusec.backend, options=options)
        torch.testing.assert_close(call(X), model(X))
    ((inputs, _),) = races.ran
    assert max(each.elements for each in inputs.buffers) == 72 * 64


def test_a_mode_of_torch_tunes(races: Races, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("FUSEC_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    call = torch.compile(
        lambda x: x.softmax(1), backend=fusec.backend, mode="max-autotune"
    )
    torch.testing.assert_close(call(X), X.softmax(1))
    assert races.ran


def test_processes_that_tune_at_once_both_end_right(tmp_path: Path) -> None:
    """For real: and a third one finds what they found out."""
    command = [sys.executable, "-m", "fusec.cli.check", "tune=1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, f"cache_dir={tmp_path}"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    for process in [start(), start()]:
        told, _ = process.communicate()
        assert json.loads(told)["problem"] == ""
    cache = Cache(tmp_path)
    (kept,) = (entry.key for entry in cache.ls() if entry.kind == "schedule")
    assert Choice.parse(str(cache.get(kept), "ascii")).gain >= 1.0
    before = (tmp_path / kept).stat().st_ino  # an entry that is written is another file
    told, _ = start().communicate()
    assert json.loads(told)["problem"] == ""
    assert (tmp_path / kept).stat().st_ino == before
    assert cache.verify() == []
