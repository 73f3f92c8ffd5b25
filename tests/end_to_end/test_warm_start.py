"""A process finds what another has compiled: in torch's cache, under a key of ours.

Each pass is a process, as the cache is meant for; the cases are in `warm_programs`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from end_to_end import warm_programs
from end_to_end.warm_programs import CASES, HEAVY, KEPT

import fusec

ROOT = Path(fusec.__file__).parents[1]


@dataclass(frozen=True)
class Machine:
    """Folders for the caches of the processes that share them."""

    folder: Path

    @property
    def ours(self) -> Path:
        return self.folder / "fusec"

    @property
    def torchs(self) -> Path:
        return self.folder / "torch"

    def __call__(self, *names: str) -> dict[str, Any]:
        """Run cases in a process; what each found. Results are held to eager's."""
        return self.run(*names)["found"]

    def run(self, *names: str) -> dict[str, Any]:
        """The same, and what the process imported."""
        program = [warm_programs.__file__, *names]
        done = self.process(program)
        assert done.returncode == 0, done.stderr
        assert "[fusec" not in done.stderr, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        for name in names:
            _same(told["found"][name]["results"], told["eager"][name])
        return told

    def process(
        self, command: list[str], more: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        around = {
            k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_AUTOGRAD_CACHE"
        }
        own = {
            "FUSEC_CACHE_DIR": str(self.ours),
            "TORCHINDUCTOR_CACHE_DIR": str(self.torchs),
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))),
        }
        return subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            env=around | own | (more or {}),
            check=False,
        )

    def entries(self) -> list[Path]:
        return [p for p in (self.torchs / "aotautograd").rglob("*") if p.is_file()]


def _same(found: Any, wanted: Any) -> None:
    if isinstance(found, list) and found and isinstance(found[0], list):
        for a, b in zip(found, wanted, strict=True):
            _same(a, b)
    else:
        torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, dict[str, Any]]:
    """A machine where every case has run, and what it found."""
    machine = Machine(tmp_path_factory.mktemp("used"))
    return machine, machine(*CASES)


def test_the_first_process_compiles(used: tuple[Machine, dict[str, Any]]) -> None:
    _, found = used
    assert all(case["compiled"] and not case["hits"] for case in found.values())


def test_the_second_compiles_nothing(used: tuple[Machine, dict[str, Any]]) -> None:
    """Results are those of the first, to the last bit."""
    machine, first = used
    second = machine(*CASES)
    for name, case in second.items():
        assert case["results"] == first[name]["results"]
        assert (case["hits"] > 0, case["compiled"] == 0) == (name in KEPT,) * 2


def test_a_process_that_compiles_nothing_imports_no_compiler(
    used: tuple[Machine, dict[str, Any]],
) -> None:
    machine, _ = used
    assert machine.run(*KEPT)["imported"] == []
    assert machine.run("branches")["imported"] == list(HEAVY)


LOGGED = """
import torch, fusec
f = torch.compile(lambda x: x.exp().sum(0).sort().values, backend="fusec")
f(torch.ones(3, 3, requires_grad=True)).sum().backward()
"""


def test_a_process_that_compiles_nothing_logs_what_it_runs(
    machine: Machine, tmp_path: Path
) -> None:
    """But for the line of a fallback, which is that of the program that compiled it."""
    path = tmp_path / "program.py"
    path.write_text(LOGGED)
    logs = {"FUSEC_LOGS": "graph,cache"}
    first, second = (machine.process([str(path)], logs).stderr for _ in range(2))
    fallback = "through ATen: aten.sort.default: fusec has no such op"
    assert f"{fallback} ({path}:3)" in first
    assert "1 launch of 1 kernel, 1 call to torch, compiled in" in first
    told = second.splitlines()
    assert "[fusec.cache] hit, in torch's cache: forward" in told
    runs = "1 launch of 1 kernel, 1 call to torch, loaded from torch's cache"
    assert told[(at := told.index(f"[fusec.graph] forward: {runs}")) + 1].endswith(
        fallback
    )
    assert told[at + 2 :] == [
        "[fusec.cache] hit, in torch's cache: backward",
        "[fusec.graph] backward: 1 launch of 1 kernel, 0 calls to torch,"
        " loaded from torch's cache",
    ]


def test_damaged_entries_are_compiled_anew(
    used: tuple[Machine, dict[str, Any]], tmp_path: Path
) -> None:
    """What is cut short, torch warns of."""
    machine, first = used
    other = Machine(tmp_path / "copy")
    shutil.copytree(machine.folder, other.folder)
    for share, path in enumerate(other.entries()):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * share // len(other.entries())])
    found = other(*KEPT)
    for name, case in found.items():
        assert case["results"] == first[name]["results"]
        assert case["compiled"]


GATHER = """
import sys, torch
import fusec
{blank}
f = torch.compile(lambda table, at: table[at].tanh(), backend="fusec")
g = torch.compile(lambda table: table[:, [0, 3]].tanh(), backend="fusec")
for run in (lambda x: f(x, torch.tensor([3])), g):
    try:
        run(torch.ones(3, 3))
    except IndexError as error:
        print(error)
"""


def test_an_error_names_the_line_of_this_program(
    machine: Machine, tmp_path: Path
) -> None:
    """And not the one that the same graph had in the program that compiled it."""
    for lines in (0, 3):
        path = tmp_path / f"program{lines}.py"
        path.write_text(GATHER.format(blank="\n" * lines))
        told = machine.process([str(path)]).stdout
        assert f"{path}:{lines + 5}" in told
        assert f"{path}:{lines + 6}" in told


def test_arguments_that_share_memory_find_no_entry_of_those_that_do_not(
    machine: Machine,
) -> None:
    """Nor the other way about: torch's own key does not tell them apart."""
    for name in ("overlapping", "apart", "side_by_side", "overlapping"):
        machine(name)


def test_what_is_guarded_to_lie_apart_is_compiled_each_time(machine: Machine) -> None:
    """torch's entries lack the guard."""
    for _ in range(2):
        assert not machine("apart_at_first")["apart_at_first"]["hits"]


CUSTOM = """
import sys, torch
import fusec

@torch.library.custom_op("fusec_tests::triple", mutates_args=())
def triple(x: torch.Tensor) -> torch.Tensor:
    return x * 3

triple.register_fake(torch.empty_like)
triple.register_autograd(lambda context, gradient: gradient * {factor})
x = torch.ones(3, requires_grad=True)
torch.compile(lambda x: triple(x).sum(), backend="fusec")(x).backward()
print(x.grad.tolist())
"""


def test_custom_operators_are_compiled_each_time(machine: Machine) -> None:
    """Their derivatives are code of the user's, which may have changed."""
    for factor in (3.0, 4.0):
        done = machine.process(["-c", CUSTOM.format(factor=factor)])
        assert done.stdout.strip() == str([factor] * 3), done.stderr


NET = """
import sys, torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(8, 4)

    def forward(self, x):
        return torch.nn.functional.gelu(self.line(x)).softmax(-1)

torch.manual_seed(0)
net, x, path = Net(), torch.linspace(-1, 1, 40).reshape(5, 8), sys.argv[1]
torch.set_grad_enabled(False)
"""
SAVE = """
compiled = torch.compile(net.forward, backend="fusec", fullgraph=True)
compiled.aot_compile(((x,), {})).save_compiled_function(path)
"""
LOAD = """
with open(path, "rb") as file:
    run = torch.compiler.load_compiled_function(file)
for factor in (1, 3):
    for parameter in net.parameters():
        parameter *= factor
    torch.testing.assert_close(run(net, x), net(x))
assert not {"fusec.compiler", "fusec.ir.core", "llvmlite"} & {*sys.modules}
"""


@pytest.mark.skipif(
    not hasattr(torch.compile(lambda x: x), "aot_compile"),
    reason="this torch compiles ahead of time under a switch only",
)
def test_a_function_compiled_ahead_of_time(machine: Machine, tmp_path: Path) -> None:
    """torch's packages: made in one process, run in another that compiles nothing."""
    for program in (SAVE, LOAD):
        done = machine.process(["-c", NET + program, str(tmp_path / "net.bin")])
        assert done.returncode == 0, done.stderr


def test_who_asks_for_kernels_hears_why_there_are_none(
    machine: Machine, tmp_path: Path
) -> None:
    path = tmp_path / "program.py"
    path.write_text(LOGGED)
    logs = {"FUSEC_LOGS": "kernels"}
    first, second = (machine.process([str(path)], logs).stderr for _ in range(2))
    assert "grid" in first
    assert "[fusec.kernels] forward: compiled before" in second
    assert "cache=0" in second
