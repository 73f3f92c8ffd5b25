"""What fusion is worth on a CPU: five classics in float32, in the caches and in DRAM.

Each case runs as eager, inductor (where there is a C++ compiler) and fusec, on fresh
memory as it comes from malloc and on memory kept warm. The roofline is the time that a
copy of as many bytes takes in the same rounds: what a perfect kernel would need.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from types import FunctionType

import harness
import torch
import torch.nn.functional as F
from harness import Samples, microseconds
from torch import Tensor

# In the caches of one core, and beyond those of most machines: rows and columns.
SIZES = ((64, 1000), (4096, 4096))

Function = Callable[..., Tensor]


def gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(x * weight + bias)


def layernorm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias)


def rmsnorm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight)


def softmax(x: Tensor) -> Tensor:
    return x.softmax(dim=-1)


def nll(x: Tensor, target: Tensor) -> Tensor:
    return F.nll_loss(x.log_softmax(dim=-1), target)


def vectors(rows: int, columns: int, count: int) -> list[Tensor]:
    """A matrix and `count` vectors of its row length."""
    return [torch.randn(rows, columns), *torch.randn(count, columns)]


def targets(rows: int, columns: int) -> list[Tensor]:
    return [torch.randn(rows, columns), torch.randint(columns, (rows,))]


OPTIONS = {"inductor": {}, "fusec": {"fallback": False}}

CASES: dict[str, tuple[Function, Callable[[int, int], list[Tensor]]]] = {
    "gelu(x*w+b)": (gelu, lambda m, n: vectors(m, n, 2)),
    "layernorm": (layernorm, lambda m, n: vectors(m, n, 2)),
    "rmsnorm": (rmsnorm, lambda m, n: vectors(m, n, 1)),
    "softmax": (softmax, lambda m, n: vectors(m, n, 0)),
    "log-softmax+nll": (nll, targets),
}


@dataclass(frozen=True)
class Row:
    """One case on one kind of memory: seconds per call, a sample for each round."""

    case: str
    rows: int
    columns: int
    memory: str
    samples: dict[str, Samples]

    @property
    def roofline(self) -> str:
        """Which of both copies was the faster."""
        return min("copy", "memcpy", key=lambda name: median(self.samples[name]))

    def cells(self) -> list[str]:
        of = self.samples
        fused, limit = of["fusec"], of[self.roofline]
        inductor = of.get("inductor")
        return [
            self.case,
            f"{self.rows}x{self.columns}",
            self.memory,
            microseconds(of["eager"]),
            microseconds(inductor) if inductor else "",
            microseconds(fused),
            microseconds(limit),
            f"{median(limit) / median(fused):.0%}",
            str(harness.ratio(of["eager"], fused)),
            str(harness.ratio(inductor, fused)) if inductor else "",
        ]


HEADER = (
    "case",
    "size",
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
    """A case of one size, compiled by all candidates for its inputs."""

    case: str
    inputs: list[Tensor]
    calls: dict[str, Callable[[], Tensor]]

    def measure(self, memory: str, rounds: int) -> Row:
        moved = sum(x.nbytes for x in (*self.inputs, self.calls["eager"]()))
        samples = harness.interleave(self.calls | harness.copies(moved), rounds)
        rows, columns = self.inputs[0].shape
        return Row(self.case, rows, columns, memory, samples)


def prepare(case: str, rows: int, columns: int, compilers: tuple[str, ...]) -> Prepared:
    """Raises AssertionError where a candidate's result is not close to eager's.

    Raises fusec's own error where fusec would leave something to ATen.
    """
    function, draw = CASES[case]
    inputs = draw(rows, columns)
    calls = {"eager": partial(function, *inputs)}
    for name in compilers:
        compiled = torch.compile(
            copied(function), backend=name, dynamic=False, options=OPTIONS[name]
        )
        calls[name] = partial(compiled, *inputs)
        torch.testing.assert_close(calls[name](), function(*inputs))
    return Prepared(case, inputs, calls)


def copied(function: Function) -> Function:
    """The same function with code of its own, by which Dynamo keeps what it compiled.

    Otherwise each call searches what other sizes and compilers left there.
    """
    return FunctionType(function.__code__.replace(), function.__globals__)


def compilers() -> tuple[str, ...]:
    if shutil.which(os.environ.get("CXX", "g++")):
        return ("inductor", "fusec")
    print("inductor is left out: there is no C++ compiler")
    return ("fusec",)


def run(rounds: int) -> None:
    """Measure all cases, print them as a table and write results/cpu_fused.json."""
    names = compilers()
    prepared = [prepare(case, *size, names) for size in SIZES for case in CASES]
    measured = [each.measure("fresh", rounds) for each in prepared]
    # Cannot be undone, so everything on fresh memory comes before.
    if harness.warm_memory():
        measured += [each.measure("warm", rounds) for each in prepared]
    print(harness.markdown(HEADER, [row.cells() for row in measured]))
    print(f"\nwritten to {harness.save('cpu_fused', measured)}")
