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
    to_inductor: Spread

    def cells(self) -> list[str]:
        m, n, k = self.size
        rates = [f"{2 * m * n * k / t / 1e12:.1f}" for t in self.seconds.values()]
        what = f"{self.epilogue} {self.dtype} {m}×{n}×{k}"
        return [what, *rates, f"{self.of_cublas:.0%}", str(self.to_inductor)]


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
    eager, ours = (calls[name]() for name in ("eager", "fusec"))
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
    """The rows that there was time for, each kept as soon as it is there."""
    rows: list[Row] = []
    for name in EPILOGUES:
        for size in QUICK if quick else SIZES:
            for dtype in DTYPES:
                if deadline.is_over:
                    print("there was no time for the rest")
                    return rows
                try:
                    row = measure(name, dtype, size, rounds, device, max_autotune)
                except Exception as error:
                    told = type(error).__name__, error
                    print(f"   {name} {dtype} {size}:", *told, flush=True)
                    continue
                print("  ", *row.cells(), flush=True)
                rows.append(row)
                gpu_harness.save("gemm", rows, device, out)
    if rows:
        header = "product", *rows[0].seconds, "of cuBLAS", "inductor/fusec"
        gpu_harness.told(header, rows)
    return rows


def main() -> None:
    given = gpu_harness.options(__doc__).parse_args()
    run(given.device, given.rounds, given.out, given.quick, given.max_autotune)


if __name__ == "__main__":
    main()
