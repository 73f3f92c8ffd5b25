"""What fusion is worth on a GPU: the memory-bound functions of `cases`, in memory.

Each runs as eager, inductor and fusec, forward and as a step with gradients, and is
held to float64. The roofline is the time to move the bytes that it has to read and to
write at the bandwidth of torch's own copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median

import cpu_fused
import gpu_harness
import harness
import torch
from cases import CASES
from gpu_harness import NEVER, Deadline
from harness import Spread

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
QUICK = ("softmax", "swiglu", "mean of squares")


@dataclass(frozen=True)
class Row:
    """One function: seconds per call, the median over rounds."""

    case: str
    direction: str
    dtype: str
    seconds: dict[str, float]
    """Of each candidate; `roofline` is one."""
    to_inductor: Spread
    """How many times as fast as inductor fusec is, by rounds."""
    to_eager: Spread

    @property
    def of_roofline(self) -> float:
        return self.seconds["roofline"] / self.seconds["fusec"]

    def cells(self) -> list[str]:
        shown = ("eager", "inductor", "fusec", "roofline")
        times = [f"{self.seconds[name] * 1e6:.1f}" for name in shown]
        ratios = str(self.to_eager), str(self.to_inductor)
        share = f"{self.of_roofline:.0%}"
        return [self.case, self.direction, self.dtype, *times, share, *ratios]


HEADER = (
    *("case", "", "dtype", "eager us", "inductor us", "fusec us", "roofline us"),
    *("of roofline", "eager/fusec", "inductor/fusec"),
)


def measure(
    name: str, direction: str, dtype: str, size: str, rounds: int, device: str
) -> Row:
    """Raises AssertionError where a result is not close to eager's."""
    torch.compiler.reset()
    backends = ("inductor", "fusec")
    made = cpu_fused.prepare(name, direction, size, DTYPES[dtype], backends, device)
    samples = gpu_harness.interleave(made.calls, rounds, device)
    seconds = {name: median(times) for name, times in samples.items()}
    seconds["roofline"] = sum(made.moved) / bandwidth(device)
    return Row(
        name,
        direction,
        dtype,
        seconds,
        harness.ratio(samples["inductor"], samples["fusec"]),
        harness.ratio(samples["eager"], samples["fusec"]),
    )


@cache
def bandwidth(device: str) -> float:
    """That of the run, which all rows are held against."""
    return gpu_harness.bandwidth(device)


def run(
    device: str,
    rounds: int,
    out: Path,
    dtypes: Sequence[str] = tuple(DTYPES),
    quick: bool = False,
    deadline: Deadline = NEVER,
) -> list[Row]:
    """The rows that there was time for, forward and step of each case in turn."""
    size = "cache" if quick else "DRAM"
    pairs = [
        (name, direction, dtype)
        for dtype in dtypes
        for name in (QUICK if quick else CASES)
        for direction in ("forward", "step")[: 1 + CASES[name].trains]
    ]
    tasks = (
        (" ".join(what), partial(measure, *what, size, rounds, device))
        for what in pairs
    )
    rows, failed = gpu_harness.measured("fused", tasks, device, out, deadline)
    gpu_harness.told(HEADER, rows, failed)
    return rows


def main() -> None:
    given = gpu_harness.options(__doc__).parse_args()
    run(given.device, given.rounds, given.out, quick=given.quick)


if __name__ == "__main__":
    main()
