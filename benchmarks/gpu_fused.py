"""What fusion is worth on a GPU: the memory-bound functions of `cases`, in memory.

Each runs as eager, inductor and fusec, forward and as a step with gradients, and is
held to float64. The roofline is the time to move the bytes that it has to read and to
write at the bandwidth of torch's own copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    seconds["roofline"] = sum(made.moved) / gpu_harness.bandwidth(device)
    return Row(
        name,
        direction,
        dtype,
        seconds,
        harness.ratio(samples["inductor"], samples["fusec"]),
        harness.ratio(samples["eager"], samples["fusec"]),
    )


def run(
    device: str,
    rounds: int,
    out: Path,
    dtypes: Sequence[str] = tuple(DTYPES),
    quick: bool = False,
    deadline: Deadline = NEVER,
) -> list[Row]:
    """The rows that there was time for; each is kept as soon as it is there."""
    rows: list[Row] = []
    size = "cache" if quick else "DRAM"
    for direction in ("forward", "step"):
        for dtype in dtypes:
            for name in QUICK if quick else CASES:
                if deadline.is_over:
                    print("there was no time for the rest")
                    return rows
                if direction == "forward" or CASES[name].trains:
                    rows += _row(name, direction, dtype, size, rounds, device)
                    gpu_harness.save("fused", rows, device, out)
    gpu_harness.told(HEADER, rows)
    print(f"\nto inductor: {harness.mean_ratio([row.to_inductor for row in rows]):.2f}")
    return rows


def _row(name: str, *what: object) -> list[Row]:
    """A row; none where a candidate fails, which is told."""
    try:
        row = measure(name, *what)  # type: ignore[arg-type]
    except Exception as error:
        print(f"   {name} {what}: {type(error).__name__}: {error}", flush=True)
        return []
    print("  ", *row.cells(), flush=True)
    return [row]


def main() -> None:
    given = gpu_harness.options(__doc__).parse_args()
    run(given.device, given.rounds, given.out, quick=given.quick)


if __name__ == "__main__":
    main()
