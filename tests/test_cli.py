"""The command line: what each command prints, and what it says of bad input."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fusec.calibration import target_of
from fusec.cli import arguments, main, output, targets
from fusec.compiler import compile_graph
from fusec.ir.core import Level
from fusec.ir.parser import parse_function, parse_module
from fusec.ir.printer import format_function, format_module
from fusec.ir.verifier import verify
from fusec.measuring import cpu
from fusec.options import Options
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.target import host

MODEL = """
import torch
import torch.nn.functional as F


def norm(x, w, b):
    y = x @ w
    return F.softmax(F.layer_norm(y, (32,), b, b), -1), y.sum(1) + x.sum()


norm_inputs = (torch.randn(8, 20), torch.randn(20, 32), torch.randn(32))


def reversed_use(x, y):
    return y.exp() - x


def reversed_use_inputs():
    return {"y": torch.rand(4, 5), "x": torch.rand(4, 5)}


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(8, 16)

    def forward(self, x):
        return F.gelu(self.fc(x)).sort(0).values

    def example_inputs(self):
        return torch.rand(4, 8)


def sorting(x):
    return x.sort().values


sorting_inputs = torch.rand(4)


def rows(x):
    return x.softmax(-1)


rows_inputs = torch.rand(64, 100)
torch.manual_seed(0)
layer = Layer()
pair = (torch.nn.Softmax(-1), (torch.rand(3, 70),))
numbered = torch.nn.Sequential(torch.nn.LayerNorm(8), torch.nn.Linear(8, 4))
numbered_inputs = torch.rand(3, 8)


def counted(x, **more):
    return (x + more["1"]).sort().values


counted_inputs = {"x": torch.rand(3), "1": torch.rand(3)}


def broken(x):
    return x + no_such_name


broken_inputs = torch.rand(3)


def misfit(x):
    y = x + 1
    return y @ y


misfit_inputs = torch.rand(3, 4)


def copying(x):
    y = x.flip(0)
    return y.sort().values, x.sort().values.t()[1:].flip(0), x.sort().values


copying_inputs = torch.rand(40, 40)


def five(x):
    return x


five_inputs = 5


def alone(x):
    return x


def broken_in_two(x):
    y = x * 2
    torch._dynamo.graph_break()
    return y.sin()


broken_in_two_inputs = torch.rand(3)
elsewhere = (torch.sin, torch.empty(3, device="meta"))
number = 7
"""

STAGES = ("graph", "loop", "fused", "tile", "host")

PLUS_ONE = """\
graph @f(%x: f32[n, 3]) -> (f32[n, 3])
    symbols [n] {
  %0 = const(1.0) : f32
  %1 = add %x, %0 : f32[n, 3]
  yield %1
}
"""

Fusec = Callable[..., SimpleNamespace]


@pytest.fixture
def fusec(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Fusec:
    """`fusec("dump", …)` in a folder with model.py: status, out and err."""
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "f.fir").write_text(PLUS_ONE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("model", "axes"):
        sys.modules.pop(name, None)
    monkeypatch.setenv("FUSEC_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()

    def call(*argv: str) -> SimpleNamespace:
        try:
            status = main(argv)
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return call


def dumped(fusec: Fusec, *argv: str, to: str = "k.fir") -> str:
    done = fusec("dump", *argv, "-o", to)
    assert (done.status, done.out) == (0, ""), done.err
    return Path(to).read_text()


def results(fusec: Fusec, *argv: str) -> list[np.ndarray]:
    done = fusec("run", *argv, "--save", "out.npz")
    assert done.status == 0, done.err
    return list(np.load("out.npz").values())


def canonical(text: str) -> list[str]:
    """The functions of a module without the names that the text gives to values."""
    functions = parse_module(text).functions
    return [format_function(function, canonical=True) for function in functions]


# ------------------------------------------------------------------------ dump


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("target", ["norm", "layer"])
def test_what_is_dumped_reads_back_as_it_was(
    fusec: Fusec, stage: str, target: str
) -> None:
    text = dumped(fusec, f"model.py:{target}", "--stage", stage)
    module = parse_module(text)
    verify(module)
    assert format_module(module) == text
    assert fusec("opt", "k.fir").out == text


@pytest.mark.parametrize("target", ["numbered", "counted"])
def test_names_need_not_be_names_of_symbols(fusec: Fusec, target: str) -> None:
    """Weights of a Sequential begin with a digit."""
    for flags in ((), ("--backward",)) if target == "numbered" else ((),):
        assert "launch" in fusec("explain", f"model.py:{target}", *flags).out
        text = dumped(fusec, f"model.py:{target}", *flags)
        assert format_module(parse_module(text)) == text


@pytest.mark.parametrize("flag", ["--dynamic", "--backward"])
def test_dumps_of_open_sizes_and_of_training_read_back(fusec: Fusec, flag: str) -> None:
    text = dumped(fusec, "model.py:layer", flag)
    assert format_module(parse_module(text)) == text
    assert ("symbols" in text) == (flag == "--dynamic")


def test_parameters_have_the_names_of_the_source(fusec: Fusec) -> None:
    text = dumped(fusec, "model.py:layer", "--stage", "graph")
    assert "%x: f32[4, 8]" in text
    assert "%fc_weight: f32[16, 8]" in text


def test_a_dump_can_tell_source_lines(fusec: Fusec) -> None:
    argv = ("model.py:norm", "--stage", "graph", "--locations")
    text = dumped(fusec, *argv)
    line = MODEL.splitlines().index("    y = x @ w") + 1
    assert f"model.py:{line}" in text
    assert "#" not in format_module(parse_module(text))


@pytest.mark.parametrize(("stage", "holds"), [("llvm", "define"), ("asm", ".globl")])
def test_the_code_of_kernels_can_be_dumped(
    fusec: Fusec, stage: str, holds: str
) -> None:
    whole = fusec("dump", "model.py:pair", "--stage", stage).out
    name = whole.splitlines()[0].split()[1]
    assert holds in whole
    only = fusec("dump", "model.py:pair", "--stage", stage, "--kernel", name).out
    assert only == whole


def test_code_for_another_target_is_its_own(fusec: Fusec) -> None:
    argv = ("dump", "model.py:pair", "--stage", "asm", "--option")
    assert "zmm" in fusec(*argv, "target=x86-64-v4").out
    assert "ymm" not in fusec(*argv, "target=x86-64").out


def test_one_of_several_graphs_is_chosen(fusec: Fusec) -> None:
    first = fusec("dump", "model.py:broken_in_two", "--stage", "graph")
    assert "mul" in first.out
    assert "--graph" in first.err
    argv = ("dump", "model.py:broken_in_two", "--stage", "graph", "--graph", "1")
    assert "sin" in fusec(*argv).out
    assert "--graph 0 to 1" in fusec(*argv[:-1], "2").err


# ------------------------------------------------------------------------- run


def test_a_dumped_program_gives_the_results_of_the_program(fusec: Fusec) -> None:
    x, w, b = torch.randn(8, 20), torch.randn(20, 32), torch.randn(32)
    np.savez("in.npz", x=x.numpy(), w=w.numpy(), b=b.numpy())
    dumped(fusec, "model.py:norm", "--stage", "host", "--inputs", "in.npz")
    given = results(fusec, "k.fir", "--inputs", "in.npz")
    y = x @ w
    softmax = torch.softmax(torch.nn.functional.layer_norm(y, (32,), b, b), -1)
    for ours, theirs in zip(given, (softmax, y.sum(1) + x.sum()), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_inputs_go_by_name_whatever_the_order_of_use(fusec: Fusec) -> None:
    x, y = torch.rand(4, 5), torch.rand(4, 5)
    np.savez("in.npz", x=x.numpy(), y=y.numpy())
    dumped(fusec, "model.py:reversed_use", "--inputs", "in.npz")
    (given,) = results(fusec, "k.fir", "--inputs", "in.npz")
    np.testing.assert_allclose(given, (y.exp() - x).numpy(), rtol=1e-5)


def test_weights_travel_in_a_file_of_their_own(fusec: Fusec) -> None:
    dumped(fusec, "model.py:layer", "--save", "all.npz")
    saved = np.load("all.npz")
    linear = saved["x"] @ saved["fc_weight"].T + saved["fc_bias"]
    gelu = torch.nn.functional.gelu(torch.from_numpy(linear))
    (given,) = results(fusec, "k.fir", "--inputs", "all.npz")
    np.testing.assert_allclose(given, gelu.sort(0).values.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["norm", "layer"])
def test_every_stage_gives_the_same_results_on_the_same_seed(
    fusec: Fusec, target: str
) -> None:
    runs = []
    for stage in ("graph", "loop", "fused", "host"):
        dumped(fusec, f"model.py:{target}", "--stage", stage)
        runs.append(results(fusec, "k.fir", "--seed", "3"))
    runs.append(results(fusec, "k.fir", "--seed", "3", "--interpret"))
    for run in runs[1:]:
        for ours, first in zip(run, runs[0], strict=True):
            np.testing.assert_allclose(ours, first, rtol=1e-3, atol=1e-4)
    other = results(fusec, "k.fir", "--seed", "4")
    assert not np.allclose(other[0], runs[0][0])


def test_a_kernel_alone_runs_by_its_grid(fusec: Fusec) -> None:
    dumped(fusec, "model.py:pair", "--stage", "tile")
    (rows,) = results(fusec, "k.fir", "--grid", "3")
    np.testing.assert_allclose(rows.reshape(3, 70).sum(1), 1, rtol=1e-5)


def test_symbols_get_the_sizes_that_are_asked_for(fusec: Fusec) -> None:
    (given,) = results(fusec, "f.fir", "--size", "n=5")
    assert given.shape == (5, 3)


def test_results_print_as_json(fusec: Fusec) -> None:
    np.savez("in.npz", np.arange(6, dtype=np.float32).reshape(2, 3))
    done = json.loads(fusec("run", "f.fir", "--inputs", "in.npz", "--json").out)
    (result,) = done["results"]
    assert result["values"] == [[1, 2, 3], [4, 5, 6]]
    assert result["type"] == "f32[n, 3]"


# ------------------------------------------------------------------------- opt


def test_passes_take_a_graph_to_a_program(fusec: Fusec) -> None:
    dumped(fusec, "model.py:norm", "--stage", "graph", to="graph.fir")
    wanted = results(fusec, "graph.fir")
    before, names = "graph.fir", "lower_to_loops fuse lower_to_host"
    for name in f"{names} assign_layouts stripmine expand".split():
        after = f"{name}.fir"
        done = fusec("opt", before, "--passes", name, "-o", after)
        assert done.status == 0, done.err
        module = parse_module(Path(after).read_text())
        flags = [(), ("--interpret",)] if module.entry.level is Level.HOST else [()]
        for given in (results(fusec, after, *flag) for flag in flags):
            for ours, theirs in zip(given, wanted, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
        before = after
    assert before == "expand.fir"


def test_the_stages_of_a_dump_are_what_the_passes_make(fusec: Fusec) -> None:
    texts = [dumped(fusec, "model.py:norm", "--stage", s, to=s) for s in STAGES]
    graph, loop, fused, _, host = texts
    for before, name, after in (
        ("graph", "lower_to_loops", loop),
        ("loop", "fuse", fused),
        ("fused", "lower_to_host,assign_layouts", host),
    ):
        made = fusec("opt", before, "--passes", name).out
        assert canonical(made) == canonical(after)
    assert fusec("opt", "graph").out == graph


def test_passes_are_listed_with_their_promises(fusec: Fusec) -> None:
    listed = json.loads(fusec("opt", "--list", "--json").out)["passes"]
    assert all(p["promise"] and p["level"] for p in listed)
    text = fusec("opt", "--list").out
    assert [line.split()[0] for line in text.splitlines()] == [
        p["name"] for p in listed
    ]


def test_standard_input_is_a_file(
    fusec: Fusec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(read=lambda: PLUS_ONE))
    assert fusec("opt", "-").out == PLUS_ONE


# --------------------------------------------------------------------- explain


def test_explain_tells_kernels_calls_and_source_lines(fusec: Fusec) -> None:
    text = fusec("explain", "model.py:norm").out
    assert "F.softmax(F.layer_norm(y, (32,), b, b), -1)" in text
    assert "y = x @ w" in text
    assert "of the roofline" in text
    assert "reg" in text


def test_explain_tells_what_it_told_as_json(fusec: Fusec) -> None:
    (report,) = json.loads(fusec("explain", "model.py:layer", "--json").out)["graphs"]
    assert [k["launches"] for k in report["kernels"]]
    assert all(k["seconds"] >= k["roofline"] > 0 for k in report["kernels"])
    sorts = [e for e in report["externs"] if "sort" in e["target"]]
    assert sorts[0]["why"]


def test_explain_gives_the_reason_of_a_refusal(fusec: Fusec) -> None:
    source = """
import torch
def two_axes(x):
    a = x - x.amax(1, keepdim=True)
    return a - a.amax(0, keepdim=True)
two_axes_inputs = torch.rand(64, 48)
"""
    Path("axes.py").write_text(source)
    done = fusec("explain", "axes.py:two_axes", "--json")
    (report,) = json.loads(done.out)["graphs"]
    assert report["refusals"]
    assert all(" at axes.py:" in r["producer"] for r in report["refusals"])
    assert all(r["reason"] for r in report["refusals"])
    names = {kernel["name"] for kernel in report["kernels"]}
    assert all(names.issuperset(r["kernels"]) for r in report["refusals"])
    assert any(r["kernels"] for r in report["refusals"])


def test_explain_tells_where_a_copy_comes_from_and_why(fusec: Fusec) -> None:
    done = json.loads(fusec("explain", "model.py:copying", "--json").out)
    (report,) = done["graphs"]
    told = {kernel["lines"][0]["text"]: kernel for kernel in report["kernels"]}
    lines = (
        "y = x.flip(0)",
        "return y.sort().values, x.sort().values.t()[1:].flip(0), x.sort()",
    )
    read, result = (
        next(kernel for text, kernel in told.items() if text.startswith(line))
        for line in lines
    )
    assert read["name"].startswith("copy")
    assert read["copies"] == ["aten.sort.default reads it from memory"]
    assert result["copies"] == ["a result has to have memory of its own"]
    assert [line["ops"] for line in read["lines"]] == [["copy"]]
    assert "copy: aten.sort" in fusec("explain", "model.py:copying").out


def test_explain_folds_what_it_would_say_twice(fusec: Fusec) -> None:
    calls = fusec("explain", "model.py:copying").out.partition("calls to torch")[2]
    assert "aten.sort.default at model.py:" in calls
    assert "(× 3)" in calls


def test_explain_tells_of_all_graphs_or_of_one(fusec: Fusec) -> None:
    text = fusec("explain", "model.py:broken_in_two").out
    assert re.findall(r"^graph (\d): inference for", text, re.M) == ["0", "1"]
    only = fusec("explain", "model.py:broken_in_two", "--graph", "1").out
    assert text.endswith(f"graph 1: {only}")


def test_explain_tells_of_graphs_that_were_lost(
    fusec: Fusec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two: what explains a call must not leave out half of it."""

    source = """
import torch
def halves(x):
    y = x.exp()
    torch._dynamo.graph_break()
    return y.cos()
halves_inputs = torch.rand(64, 48)
"""
    Path("halves.py").write_text(source)
    whole = fusec("explain", "halves.py:halves").out
    calls: list[Any] = []

    def second(imported: Any, options: Any) -> Any:
        calls.append(imported)
        if len(calls) % 2 == 0:
            raise KeyError("planted")
        return compile_graph(imported, options)

    monkeypatch.setattr(targets, "compile_graph", second)
    lost = fusec("explain", "halves.py:halves")
    told = json.loads(fusec("explain", "halves.py:halves", "--json").out)
    assert whole.count("inference for") == 2
    assert lost.out.count("inference for") == 1
    assert "the inference graph runs through ATen: a bug in fusec: KeyError" in lost.out
    assert [each["graph"] for each in told["lost"]] == ["inference"]
    assert len(told["graphs"]) == 1


def test_explain_tells_what_kernels_take_of_a_gpu(fusec: Fusec) -> None:
    pytest.importorskip("triton")
    call = ("model.py:rows", "--target", "sm_90")
    text = fusec("explain", *call).out
    assert "inference for sm_90" in text
    assert "registers" in text
    assert "occupancy" in text
    (report,) = json.loads(fusec("explain", *call, "--json").out)["graphs"]
    assert all(k["resources"]["registers"] > 0 for k in report["kernels"])


def test_code_for_a_gpu_needs_none(fusec: Fusec) -> None:
    call = ("model.py:rows", "--target", "sm_90", "--stage")
    source = fusec("dump", *call, "triton").out
    assert "@triton.jit" in source
    assert "return x.softmax(-1)" in source
    assert "its code is the stage triton" in fusec("dump", *call, "asm").err


def test_explain_counts_in_readable_units(fusec: Fusec) -> None:
    text = fusec("explain", "model.py:broken_in_two").out
    assert "; 3 op; " in text
    assert "grid one program\n" in text
    assert "0 launches of 0 kernels; 1 call to torch" in (
        fusec("explain", "model.py:sorting").out
    )


# ------------------------------------------------------- layout, doctor, cache


def test_a_layout_is_drawn(fusec: Fusec) -> None:
    text = fusec("layout", "(2:reg@2, 2:reg 2:lane)").out
    assert text.splitlines()[-1] == "1  l0 r2  l1 r2  l0 r3  l1 r3"
    data = json.loads(fusec("layout", "(4:lane)", "--json").out)
    assert data["axes"] == ["lane"]


def test_the_doctor_compiles_and_runs_a_check(fusec: Fusec) -> None:
    done = fusec("doctor", "--json")
    found = json.loads(done.out)
    assert (done.status, found["ok"]) == (0, True), found
    assert found["torch"] == version("torch")
    assert int(found["threads"]) >= 1


def test_the_doctor_reports_what_is_wrong(
    fusec: Fusec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    done = fusec("doctor")
    assert done.status == 1
    assert done.out.splitlines()[-1].split() == ["self", "check", "failed"]


def test_the_cache_is_listed_checked_and_emptied(fusec: Fusec, tmp_path: Path) -> None:
    fusec("explain", "model.py:pair")
    listed = json.loads(fusec("cache", "ls", "--json").out)
    assert listed["entries"]
    assert fusec("cache", "verify").out.endswith(" 0 dropped\n")
    names = {name for entry in listed["entries"] for name in entry["names"]}
    assert any(name.startswith("fused_") for name in names)
    assert names.issubset(re.findall(r"[\w.]+", fusec("cache", "ls").out))
    key = listed["entries"][0]["key"]
    (tmp_path / "cache" / key).write_bytes(b"rubbish")
    assert json.loads(fusec("cache", "verify", "--json").out)["dropped"] == [key]
    count = len(listed["entries"]) - 1
    assert json.loads(fusec("cache", "clear", "--json").out)["removed"] == count
    assert json.loads(fusec("cache", "ls", "--json").out)["entries"] == []


def test_a_cache_that_is_not_there_or_off_is_told(fusec: Fusec, tmp_path: Path) -> None:
    absent = f"cache_dir={tmp_path}/absent"
    for action in ("ls", "verify", "clear"):
        assert "no folder" in fusec("cache", action, "--option", absent).err
    assert not (tmp_path / "absent").exists()
    assert "cache is off" in fusec("cache", "ls", "--option", "cache=0").err


def test_the_doctor_tells_of_a_cache_that_cannot_be(
    fusec: Fusec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")  # nothing need be compiled
    found = json.loads(fusec("doctor", "--option", "cache_dir=/proc/x", "--json").out)
    assert found["cache"] == "/proc/x: not writable"


# ------------------------------------------------------------------- calibrate

FIGURES = {
    "hertz": 3.123456e9,
    "l2_rate": 2e11,
    "llc_rate": 9e10,
    "dram_rate": 3e10,
    "dram_rate_all": 5e10,
    "launch": 2.5e-6,
    "nontemporal": False,
    "library": dict.fromkeys(dict(host().library), 3.0),
}


@pytest.fixture
def measurer(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is measured of this machine, at once."""
    figures: dict[str, Any] = dict(FIGURES)
    monkeypatch.setattr(cpu, "measured", lambda target: figures)
    return figures


def calibrated(fusec: Fusec) -> str:
    done = fusec("doctor", "--json", "--option", "threads=1")
    return json.loads(done.out)["calibrated"]


def test_what_is_measured_is_kept_told_of_and_forgotten(
    fusec: Fusec,
    measurer: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")  # nothing need be compiled
    options = Options(cache_dir=tmp_path / "cache")
    assert calibrated(fusec) == "no: `fusec calibrate` measures this machine"
    text = fusec("calibrate").out
    assert re.search(r"hertz +3.12 GHz +3.97 GHz\n", text)
    assert re.search(r"launch +2.50 µs +1.50 µs\n", text)
    assert re.search(r"nontemporal +no +yes\n", text)
    (path,) = (tmp_path / "cache").glob("calibration-*.json")
    assert f"kept in {path}" in text
    found = target_of(options)
    assert (found.hertz, found.launch, found.nontemporal) == (3.123e9, 2.5e-6, False)
    assert calibrated(fusec).startswith("20")
    assert fusec("cache", "verify").status == 0
    fusec("cache", "clear")
    assert path.exists()  # it is no code
    assert fusec("calibrate", "--forget").out.startswith("forgot what was measured of")
    assert target_of(options) == host()
    assert fusec("calibrate", "--forget").out == "nothing was kept\n"


def test_a_dry_run_keeps_nothing(
    fusec: Fusec, measurer: dict[str, Any], tmp_path: Path
) -> None:
    (found,) = json.loads(fusec("calibrate", "--dry-run", "--json").out)["calibrations"]
    assert found["kept"] is None
    assert found["machine"]["cores"] == host().cores
    assert found["figures"] == {**FIGURES, "hertz": 3.123e9}
    assert not (tmp_path / "cache").exists()


def test_what_cannot_be_right_is_refused(
    fusec: Fusec, measurer: dict[str, Any], tmp_path: Path
) -> None:
    measurer["launch"] = 3e-3
    done = fusec("calibrate")
    assert (done.status, done.out) == (2, "")
    assert "cannot be right: launch is 0.003, not between" in done.err
    assert "pause the others" in done.err
    assert not (tmp_path / "cache").exists()


def test_a_target_that_is_named_is_not_measured(
    fusec: Fusec, measurer: dict[str, Any]
) -> None:
    done = fusec("calibrate", "--target", "sm_90")
    assert done.status == 2
    assert "leave the target out" in done.err


# ------------------------------------------------------------------- bad input

BAD_TEXT = (
    "graph @f(%x: f32[4]) -> (f32[4]) {\n  %y = expp %x : f32[4]\n  yield %y\n}\n"
)
BAD_IR = "graph @f(%x: f32[4]) -> (f32[4]) {\n  %y = exp %z : f32[4]\n  yield %y\n}\n"

MISTAKES: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("dump", "model.py:norm", "--stage", "hots"), ("invalid choice: 'hots'", "host")),
    (("dump", "model.py:norm", "--option", "numeric=fast"), ("did you mean",)),
    (("dump", "model.py:norm", "--option", "numerics"), ("write NAME=VALUE",)),
    (("dump", "model.py:norm", "--option", "target=h100"), ("no target 'h100'",)),
    (("dump", "model.py:norm", "--kernel", "k"), ("no kernel 'k'", "the kernels are")),
    (("dump", "model.py:norm", "--inputs", "no.npz"), ("cannot read arrays", "no.npz")),
    (("dump", "model.py:norm", "--inputs", "f.fir"), ("numpy.savez",)),
    (("dump", "model.py:norm", "--inputs", "one.npz"), ("3 tensors (x, w, b)",)),
    (("dump", "model.py:norm", "-o", "no/such"), ("cannot write no/such",)),
    (("dump", "model.py:none"), ("no 'none' there", "layer")),
    (("dump", "model.py:nrom"), ("did you mean 'norm'? it has", "alone, broken,")),
    (("dump", "model.py:alone"), ("alone_inputs",)),
    (("dump", "os.path:join"), ("a file of your own, as call = (join, inputs)",)),
    (("dump", "model.py:five"), ("the inputs of model.py:five are of type int",)),
    (("dump", "model.py:number"), ("int, which cannot be called",)),
    (("dump", "model.py:broken"), ("NameError", "return x + no_such_name")),
    (
        ("explain", "model.py:misfit"),
        ("same reduction dim, but got [3, 4]", "model.py:", "return y @ y"),
    ),
    (("dump", "model.py:elsewhere"), ("on the device meta", "on the CPU or a GPU")),
    (("dump", "other.py:f"), ("there is no file other.py",)),
    (("dump", "no_such_module:f"), ("No module named 'no_such_module'",)),
    (("dump", "model.py"), ("write file.py:name",)),
    (("opt", "text.fir"), ("text.fir:2:", "^", "exp")),
    (("opt", "ir.fir"), ("ir.fir", "%z")),
    (("opt", "model.npz"), ("is not text",)),
    (("opt", "empty.fir"), ("there is no function",)),
    (("opt", "no.fir"), ("cannot read no.fir: No such file",)),
    (("opt", "f.fir", "--passes", "fuze"), ("did you mean 'fuse'",)),
    (("opt", "f.fir", "--passes", "fuse"), ("fuse takes loop functions",)),
    (("opt",), ("no file given",)),
    (("run", "f.fir", "--size", "m=4"), ("no symbol 'm'", "it has n")),
    (("run", "f.fir", "--size", "n=0"), ("not a number above zero",)),
    (("run", "f.fir", "--inputs", "three.npz"), ("takes 1 array (x)",)),
    (("run", "f.fir", "--inputs", "named.npz"), ("(x); the file has 1 (y)", "savez")),
    (("dump", "model.py:rows", "--inputs", "named.npz"), ("1 tensor (x)", "1 (y)")),
    (
        ("run", "f.fir", "--inputs", "wide.npz"),
        ("%x is declared f32[n, 3]", "'x' has the shape (2, 4)"),
    ),
    (("run", "f.fir", "--inputs", "words.npz"), ("%x takes f32",)),
    (("run", "f.fir", "--inputs", "one.npz"), ("x",)),
    (("run", "extern.fir"), ("torch has no operator my.op.default",)),
    (("layout", "(4:reg"), ("column 7", "(4:reg 16:lane)")),
    (("layout", "(2:reg, 2:reg, 2:reg)"), ("rank 3",)),
    (("layout", "(4:zz)"), ("no axis 'zz'", "grid, time, warp, lane, reg, mem")),
    (("layout", "(4:reg) + d0@3"), ("no axis 'd0'",)),
    (("cache", "drop"), ("invalid choice",)),
    ((), ("COMMAND",)),
]


@pytest.mark.parametrize(("argv", "says"), MISTAKES)
def test_a_mistake_gets_one_clear_message(
    fusec: Fusec, argv: tuple[str, ...], says: tuple[str, ...]
) -> None:
    Path("text.fir").write_text(BAD_TEXT)
    Path("ir.fir").write_text(BAD_IR)
    Path("empty.fir").write_text("")
    Path("model.npz").write_bytes(b"\xff\xfe\x00")
    np.savez("one.npz", np.zeros(3, np.float32))
    np.savez("three.npz", *[np.zeros(3, np.float32)] * 3)
    np.savez("words.npz", np.array(["a"]))
    np.savez("named.npz", y=np.zeros((2, 3), np.float32))
    np.savez("wide.npz", x=np.zeros((2, 4), np.float32))
    Path("extern.fir").write_text(
        "graph @f(%x: f32[4]) -> (f32[4]) {\n"
        '  %y = extern %x {target="my.op.default", arguments=($0,), keywords=()}'
        " : f32[4]\n  yield %y\n}\n"
    )
    done = fusec(*argv)
    assert done.status == 2, done.err
    assert done.out == ""
    for text in says:
        assert text in done.err
    assert "Traceback" not in done.err


def test_torch_logs_nothing_of_what_the_message_says(
    fusec: Fusec, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("torch._subclasses.fake_tensor")
    log.addHandler(caplog.handler)
    level = log.level
    fusec("explain", "model.py:misfit")
    log.removeHandler(caplog.handler)
    assert log.name not in {record.name for record in caplog.records}
    assert log.level == level


def test_a_traceback_is_shown_when_asked(fusec: Fusec) -> None:
    done = fusec("opt", "no.fir", "--traceback")
    assert done.status == 2
    assert "Traceback" in done.err


def test_a_bug_of_ours_says_so(fusec: Fusec, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: Any) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("fusec.cli.layout.run", fail)
    done = fusec("layout", "(4:lane)")
    assert done.status == 1
    assert "internal error: KeyError: 'lost'" in done.err
    assert "report it" in done.err


# --------------------------------------------------- the command line as a whole


def python(program: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_the_help_explains_every_stage(fusec: Fusec) -> None:
    explained = fusec("dump", "--help").out.split("--stage {")[2].partition("}")[2]
    for stage in arguments.STAGES:
        assert re.search(rf"\b{stage}[:,]", explained)


def test_help_and_mistakes_load_nothing_heavy() -> None:
    program = """
import sys
from fusec.cli import main
try: main(["dump", "--help"])
except SystemExit: pass
main(["layout", "(4:reg"])
print({"torch", "llvmlite", "lark"} & set(sys.modules))
"""
    done = python(program)
    assert done.stdout.endswith("set()\n")
    assert "TARGET is `file.py:name`" in done.stdout


def test_ir_runs_without_torch(tmp_path: Path) -> None:
    (tmp_path / "f.fir").write_text(PLUS_ONE)
    program = """
import sys
sys.modules["torch"] = None
from fusec.cli import main
assert main(["opt", "f.fir", "--passes", "lower_to_loops,fuse", "-o", "g.fir"]) == 0
assert main(["run", "g.fir"]) == 0
assert main(["explain", "model.py:f"]) == 2
"""
    done = python(program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "%result0 : f32[n, 3]" in done.stdout
    assert "needs the package torch" in done.stderr


def test_a_reader_may_leave_early(tmp_path: Path) -> None:
    # More than a pipe holds, so that it breaks.
    lines = "".join(f"  %{k} = exp %x : f32[4]\n" for k in range(5_000))
    text = f"graph @f(%x: f32[4]) -> (f32[4]) {{\n{lines}  yield %1\n}}\n"
    (tmp_path / "long.fir").write_text(text)
    program = "import sys; from fusec.cli import main; sys.exit(main())"
    command = f"{sys.executable} -c '{program}' opt long.fir | head -1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.startswith("graph @f")
    assert done.stderr == ""


def test_progress_is_told_to_those_who_wait(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "_PATIENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    said = []
    monkeypatch.setattr(output, "_tell", said.append)
    with output.progress("thinking"):
        for _ in range(200):
            if said:
                break
            output.threading.Event().wait(0.01)
    assert said == ["thinking"]


def test_a_failed_check_is_the_programs_own(fusec: Fusec) -> None:
    text = """\
    loop @f(%x: f32[4], %i: i64[3]) -> (f32[3]) {
      %y = region %x, %i over k:3 : f32[3] {
        ^(%a: f32[4], %b: i64[3], %c: f32[3]):
        %0 = load %b [k] : i64{k}
        %1 = const(4) : i64
        %2 = lt %0, %1 : bool{k}
        check %2 {message="index out of range"}
        %3 = const(0.0) : f32
        %4 = load %a, %0, %2, %3 [$0] {masked=true} : f32{k}
        store %4, %c [k]
      }
      yield %y
    }"""
    Path("f.fir").write_text(text)
    np.savez("in.npz", x=np.ones(4, np.float32), i=np.array([0, 3, 4]))
    done = fusec("run", "f.fir", "--inputs", "in.npz")
    assert (done.status, done.out) == (2, "")
    assert "the program failed: index out of range" in done.err


@pytest.mark.parametrize("text", ["(", "((", "(4", "(4:", ")", "", "(,)"])
def test_half_a_layout_is_refused(fusec: Fusec, text: str) -> None:
    done = fusec("layout", text)
    assert done.status == 2
    assert "this is no layout" in done.err


def test_a_kernel_of_symbolic_sizes_runs_by_itself(fusec: Fusec) -> None:
    dumped(fusec, "model.py:norm", "--stage", "tile", "--dynamic", to="k.fir")
    done = fusec("run", "k.fir")
    assert done.status == 0, done.err


def test_a_graph_is_verified_on_the_arguments_of_a_file(
    fusec: Fusec, monkeypatch: pytest.MonkeyPatch
) -> None:
    dumped(fusec, "model.py:norm", "--stage", "graph", to="g.fir")
    arrays = [np.ones(n, np.float32) for n in ((8, 20), (20, 32), (32,))]
    np.savez("in.npz", *arrays)
    argv = ("run", "g.fir", "--inputs", "in.npz", "--option", "verify=1", "--json")
    told = json.loads(fusec(*argv).out)
    assert told["how"] == "verified"
    plain = json.loads(fusec(*argv[:4], "--json").out)
    for a, b in zip(told["results"], plain["results"], strict=True):
        np.testing.assert_allclose(a["values"], b["values"], rtol=1e-5, atol=1e-5)
    monkeypatch.setattr("fusec.passes.pipeline.lower_to_loops", without_reductions)
    done = fusec(*argv)
    assert done.status == 2
    assert "lower_to_loops changed result" in done.err


def without_reductions(function: Any) -> Any:
    """As the pass, of a graph whose sums are taken for maxima."""
    text = format_function(function).replace("sum<f32>", "max<f32>")
    return lower_to_loops(parse_function(text))


@pytest.mark.parametrize("more", [1, 10**12])
def test_a_launch_of_too_many_programs_is_refused(fusec: Fusec, more: int) -> None:
    text = dumped(fusec, "model.py:rows", "--stage", "host", to="h.fir")
    assert fusec("run", "h.fir").status == 0
    (grid,) = map(int, re.findall(r"grid=(\d+)", text))
    Path("h.fir").write_text(text.replace(f"grid={grid}", f"grid={grid + more}"))
    refused(fusec)


def test_a_launch_on_too_little_memory_is_refused(fusec: Fusec) -> None:
    text = dumped(fusec, "model.py:rows", "--stage", "host", to="h.fir")
    host, kernels = text.split("}\n", 1)
    less = host.replace(": f32[64, 100]\n", ": f32[2, 100]\n")
    less = less.replace("-> (f32[64, 100])", "-> (f32[2, 100])")
    Path("h.fir").write_text(f"{less}}}\n{kernels}")
    refused(fusec)


def refused(fusec: Fusec) -> None:
    done = fusec("run", "h.fir")
    assert done.status == 2
    assert "out of bounds" in done.err
    assert "compare the grid" in done.err


def test_what_torch_refuses_in_an_extern_is_told(fusec: Fusec) -> None:
    text = """\
    graph @f(%x: f32[4], %y: f32[5]) -> (f32[4]) {
      %z = extern %x, %y {target="aten.dot.default", arguments=($0, $1), keywords=()} : f32[4]
      yield %z
    }"""  # noqa: E501
    Path("f.fir").write_text(text)
    done = fusec("run", "f.fir")
    assert done.status == 2
    assert "the program failed: " in done.err


def test_only_what_could_be_meant_is_listed(fusec: Fusec) -> None:
    listed = fusec("dump", "model.py:nrom").err.partition("it has ")[2].strip()
    assert not {"F", "torch", "Layer", "number"}.intersection(listed.split(", "))
    assert "_inputs" not in listed
    assert {"alone", "layer", "norm", "pair"}.issubset(listed.split(", "))


def test_sizes_that_contradict_each_other_are_told(fusec: Fusec) -> None:
    dumped(fusec, "model.py:reversed_use", "--dynamic", "--stage", "graph")
    np.savez("in.npz", x=np.ones((4, 5), "f4"), y=np.ones((4, 6), "f4"))
    done = fusec("run", "k.fir", "--inputs", "in.npz")
    assert done.status == 2
    assert re.search(r"%[xy] is declared f32\[s\d+, s\d+\], but the array", done.err)
