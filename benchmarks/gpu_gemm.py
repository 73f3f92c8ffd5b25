"""Products of matrices on a GPU with what follows them, against cuBLAS.

Eager is cuBLAS and torch's own kernels after it. `of cuBLAS` sets fusec's kernel beside
the product alone as cuBLAS does it, so that an epilogue that costs nothing shows 100%.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import gpu_harness
import harness
import torch
from gpu_harness import NEVER, Deadline
from harness import Spread
from torch import Tensor
from torch.nn import functional as F

from fusec.counters import statistics

Size = tuple[int, int, int]
"""Rows, columns and what is summed over."""
SIZES: list[Size] = [
    (4096, 4096, 4096),
    (8192, 8192, 8192),
    (2048, 2048, 2048),
    (8192, 4096, 4096),
    (8192, 11008, 4096),
    (512, 4096, 4096),
    (64, 4096, 4096),
    (16, 4096, 4096),
    (4000, 3000, 2000),
]
QUICK: list[Size] = [(64, 48, 96), (33, 70, 50)]
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}


def plain(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
    return x @ w.t()


def gelu(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
    return F.gelu(x @ w.t() + b)


def residual(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
    return r + x @ w.t() * 0.5


EPILOGUES: dict[str, Callable[..., Tensor]] = {
    "product": plain,
    "bias, gelu": gelu,
    "scaled, added": residual,
}


@dataclass(frozen=True)
class Row:
    """One product: seconds per call of each candidate."""

    epilogue: str
    dtype: str
    size: Size
    seconds: dict[str, float]
    of_cublas: float
    calls: int
    """Of torch's library that fusec's program makes: with none, the kernel is ours."""
    to_inductor: Spread

    def cells(self) -> list[str]:
        m, n, k = self.size
        rates = [f"{2 * m * n * k / t / 1e12:.1f}" for t in self.seconds.values()]
        what = f"{self.epilogue} {self.dtype} {m}×{n}×{k}"
        by = "cuBLAS" if self.calls else "fusec"
        share = f"{self.of_cublas:.0%}"
        return [what, *rates, share, by, str(self.to_inductor)]


def measure(
    name: str, dtype: str, size: Size, rounds: int, device: str, max_autotune: bool
) -> Row:
    """Raises AssertionError where fusec's result is further from float64 than twice
    eager's is."""
    torch.compiler.reset()
    m, n, k = size
    shapes = (m, k), (n, k), (n,), (m, n)
    drawn = [torch.randn(shape) for shape in shapes]
    args = [(x * k**-0.25).to(device, DTYPES[dtype]) for x in drawn]
    f = EPILOGUES[name]
    calls: dict[str, Callable[[], Any]] = {
        "cuBLAS": partial(plain, *args),
        "eager": partial(f, *args),
    }
    for compiler, compiled in gpu_harness.compilers(max_autotune).items():
        calls[compiler] = partial(compiled(f), *args)
    exact = f(*(x.double() for x in args))
    before = statistics().externs
    eager, ours = (calls[name]() for name in ("eager", "fusec"))
    made = statistics().externs - before
    error, allowed = ((x.double() - exact).abs().max() for x in (ours, eager))
    assert error <= 2 * allowed + 1e-6, f"{error} off; eager is {allowed} off"
    samples = gpu_harness.interleave(calls, rounds, device)
    seconds = {name: median(times) for name, times in samples.items()}
    return Row(
        name,
        dtype,
        size,
        seconds,
        seconds["cuBLAS"] / seconds["fusec"],
        made,
        harness.ratio(samples["inductor"], samples["fusec"]),
    )


def run(
    device: str,
    rounds: int,
    out: Path,
    quick: bool = False,
    max_autotune: bool = False,
    deadline: Deadline = NEVER,
) -> list[Row]:
    """The rows that there was time for, in TFLOP/s."""
    sizes = QUICK if quick else SIZES
    chosen = [(n, d, size) for size in sizes for n in EPILOGUES for d in DTYPES]
    tasks = (
        (f"{n} {d} {size}", partial(measure, n, d, size, rounds, device, max_autotune))
        for n, d, size in chosen
    )
    rows, failed = gpu_harness.measured("gemm", tasks, device, out, deadline)
    names = rows[0].seconds if rows else ()
    rates = [f"{name} TFLOP/s" for name in names]
    header = ("product", *rates, "of cuBLAS", "by", "inductor/fusec")
    gpu_harness.told(header, rows, failed)
    return rows


def main() -> None:
    parser = gpu_harness.options(__doc__)
    parser.add_argument(
        "--max-autotune", action="store_true", help="inductor's as well; it takes long"
    )
    given = parser.parse_args()
    run(given.device, given.rounds, given.out, given.quick, given.max_autotune)


if __name__ == "__main__":
    main()
