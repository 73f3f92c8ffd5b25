"""What fusion is worth on a CPU: memory-bound functions, forward and trained.

Each case of `cases` runs as eager, inductor (where there is a C++ compiler) and fusec,
in float32 and bfloat16, within the caches and in DRAM, on one thread and on all, on
fresh memory as it comes from malloc and on memory kept warm. The roofline is the time
to move the bytes that the function has to read and to write, in the same rounds.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from statistics import median
from types import FunctionType
from typing import Any

import harness
import torch
from cases import CASES, Case, Moved, each_once
from harness import Spread
from torch import Tensor
from torch.utils import _pytree as pytree

from fusec.measuring.timing import interleave

SIZES = ("cache", "DRAM")
MEMORIES = ("fresh", "warm")
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
OPTIONS: dict[str, dict[str, Any]] = {"inductor": {}, "fusec": {"fallback": False}}


@dataclass(frozen=True)
class Row:
    """One function on one kind of memory: seconds per call, the median over rounds."""

    case: str
    direction: str
    """forward, or step: forward and backward."""
    dtype: str
    size: str
    threads: int
    memory: str
    seconds: dict[str, float]
    """Of each candidate; `roofline` is one."""
    to_inductor: Spread | None
    """How many times as fast as inductor fusec is, by rounds."""
    to_eager: Spread

    @property
    def of_roofline(self) -> float:
        return self.seconds["roofline"] / self.seconds["fusec"]

    def cells(self) -> list[str]:
        shown = ("eager", "inductor", "fusec", "roofline")
        of = self.seconds
        times = [f"{of[n] * 1e6:.1f}" if n in of else "" for n in shown]
        return [
            self.case,
            self.direction,
            self.dtype,
            self.size,
            str(self.threads),
            self.memory,
            *times,
            f"{self.of_roofline:.0%}",
            str(self.to_eager),
            str(self.to_inductor or ""),
        ]


HEADER = (
    "case",
    "",
    "dtype",
    "size",
    "threads",
    "memory",
    "eager us",
    "inductor us",
    "fusec us",
    "roofline us",
    "of roofline",
    "eager/fusec",
    "inductor/fusec",
)


@dataclass(frozen=True)
class Prepared:
    """A function compiled by all candidates for its inputs."""

    calls: dict[str, Callable[[], Any]]
    moved: Moved
    """Bytes to read and to write."""

    def measure(self, rounds: int, **what: Any) -> Row:
        limits = harness.streams(*self.moved)
        samples = interleave({**self.calls, **limits}, rounds)
        fastest = min(limits, key=lambda name: median(samples[name]))
        samples["roofline"] = samples[fastest]
        inductor = samples.get("inductor")
        return Row(
            **what,
            seconds={n: median(samples[n]) for n in (*self.calls, "roofline")},
            to_inductor=harness.ratio(inductor, samples["fusec"]) if inductor else None,
            to_eager=harness.ratio(samples["eager"], samples["fusec"]),
        )


def prepare(
    name: str,
    direction: str,
    size: str,
    dtype: torch.dtype,
    compilers: tuple[str, ...],
    device: str = "cpu",
) -> Prepared:
    """Raises AssertionError where a candidate's result is not close to eager's.

    Raises fusec's own error where fusec would leave something to ATen.
    """
    case = CASES[name]
    inputs = case.draw(case.shapes[SIZES.index(size)], dtype)
    inputs = pytree.tree_map_only(Tensor, lambda x: x.to(device), inputs)
    make = forward if direction == "forward" else step
    calls = {"eager": make(case.function, inputs)}
    eager = outcome(case.function, inputs, make)
    exact = outcome(case.function, pytree.tree_map(doubled, inputs), make)
    for compiler in compilers:
        options = OPTIONS[compiler]
        function = torch.compile(
            copied(case.function), backend=compiler, dynamic=False, options=options
        )
        slack = 2 if compiler == "fusec" else 100
        check_close(outcome(function, inputs, make), eager, exact, slack)
        calls[compiler] = make(function, inputs)
    return Prepared(calls, moved(case, direction, inputs, eager[0]))


def doubled(x: Tensor) -> Tensor:
    return x.detach().double() if x.is_floating_point() else x


def check_close(got: Any, eager: Any, exact: Any, slack: float) -> None:
    """Raise AssertionError where results are further from the exact ones than `slack`
    times as far as eager's, and some roundings."""
    for ours, theirs, right in zip(*map(tensors, (got, eager, exact)), strict=True):
        if not right.is_floating_point():
            assert torch.equal(ours, right)
            continue
        scale = 8 * right.abs().max() * torch.finfo(ours.dtype).eps
        error, allowed = ((x - right).abs().max() for x in (ours, theirs))
        assert error <= slack * allowed + scale, f"{error} off; eager is {allowed} off"


def forward(function: Callable[..., Any], inputs: list[Any]) -> Callable[[], Any]:
    return partial(function, *inputs)


def step(function: Callable[..., Any], inputs: list[Any]) -> Callable[[], Any]:
    """Forward, then the gradients of all that can have one."""
    given = [x.requires_grad_() if x.is_floating_point() else x for x in inputs]
    wanted = [x for x in given if x.requires_grad]
    with torch.no_grad():
        outputs = tensors(function(*given))
    cotangents = [torch.randn_like(y) for y in outputs]

    def call() -> Any:
        return torch.autograd.grad(tensors(function(*given)), wanted, cotangents)

    return call


def outcome(
    function: Callable[..., Any], inputs: list[Any], make: Callable[..., Any]
) -> tuple[Any, Any]:
    """What one call gives, and what it makes of its inputs, which stay as they are."""
    torch.manual_seed(0)
    held = [copy.deepcopy(x) for x in inputs]
    return make(function, held)(), held


def tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def moved(case: Case, direction: str, inputs: list[Any], results: Any) -> Moved:
    """Bytes that have to be read and written.

    A step reads what the forward pass does, and writes its results; then it reads
    their gradients, and the inputs again unless it is linear, and writes the inputs'.
    """
    given = tensors(inputs)
    if direction == "forward":
        return (case.moved or each_once)(given, tensors(results))
    with torch.no_grad():
        outputs = sum(x.nbytes for x in tensors(case.function(*inputs)))
    read = sum(x.nbytes for x in given)
    written = sum(x.nbytes for x in tensors(results))
    return read * (1 + case.saves) + outputs, outputs + written


def copied(function: Any) -> Any:
    """The same function with code of its own, by which Dynamo keeps what it compiled.

    Otherwise each call searches what other sizes and compilers left there.
    """
    return FunctionType(function.__code__.replace(), function.__globals__)


def measured(options: argparse.Namespace) -> Iterator[Row]:
    """The rows of one process: one number of threads, one kind of memory."""
    torch.set_num_threads(options.threads)
    if options.memory == "warm" and not harness.warm_memory():
        return
    chosen = product(options.cases, options.dtypes, options.sizes)
    for name, dtype, size in chosen:
        for direction in ("forward", "step")[: 1 + CASES[name].trains]:
            torch.compiler.reset()
            prepared = prepare(
                name, direction, size, DTYPES[dtype], tuple(options.compilers)
            )
            yield prepared.measure(
                options.rounds,
                case=name,
                direction=direction,
                dtype=dtype,
                size=size,
                threads=options.threads,
                memory=options.memory,
            )


def row_of(line: str) -> Row:
    fields = json.loads(line)
    for name in ("to_inductor", "to_eager"):
        fields[name] = Spread(**fields[name]) if fields[name] else None
    return Row(**fields)


def rows_of(options: list[str]) -> Iterator[Row]:
    """The rows that a process of its own measures."""
    command = [sys.executable, __file__, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield row_of(line)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")


def summary(rows: list[Row]) -> str:
    """The geometric mean over rows, and those that fall short."""
    ratios = [row.to_inductor.middle for row in rows if row.to_inductor]
    if not ratios:
        return ""
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    slow = sum(ratio < 1 for ratio in ratios)
    warm = [r for r in rows if r.memory == "warm" and r.size == "DRAM"]
    near = sum(row.of_roofline >= 0.8 for row in warm)
    return (
        f"{len(ratios)} rows; inductor/fusec: geometric mean {mean:.2f}, least "
        f"{min(ratios):.2f}, {slow} below 1; of {len(warm)} warm rows in DRAM {near} "
        "reach 80% of the roofline"
    )


def run(rounds: int) -> None:
    """Measure all cases, print them as a table and write results/cpu_fused.json."""
    rows: list[Row] = []
    names = harness.compilers()
    threads = dict.fromkeys((1, torch.get_num_threads()))
    for count, memory in product(threads, MEMORIES):
        options = ["--threads", str(count), "--memory", memory, "--rounds", str(rounds)]
        rows += rows_of([*options, "--compilers", *names])
    print(harness.markdown(HEADER, [row.cells() for row in rows]))
    print(f"\n{summary(rows)}\nwritten to {harness.save('cpu_fused', rows)}")


def main() -> None:
    """Measure one number of threads and one kind of memory; a line of JSON for each
    row."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--compilers", nargs="+", default=["inductor", "fusec"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", default="warm", choices=MEMORIES)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--table", action="store_true", help="a table, not JSON")
    options = parser.parse_args()
    rows: list[Row] = []
    for row in measured(options):
        rows.append(row)
        cells = " | ".join(row.cells())
        print(cells if options.table else json.dumps(asdict(row)), flush=True)
    if options.table:
        print(summary(rows))


if __name__ == "__main__":
    main()
