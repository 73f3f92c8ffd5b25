"""Our products of matrices with and without tensor descriptors, on a GPU.

    python benchmarks/gpu_descriptors.py --out $OUT

All of them are kernels of our own here, also those that cuBLAS is expected to do
better. What this shows decides whether descriptors become the default, and where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import gpu_harness
import harness
import torch
from gpu_gemm import DTYPES, EPILOGUES, Size
from gpu_harness import NEVER, Deadline
from harness import Spread

import fusec
from fusec.analysis import block_products, blocks
from fusec.analysis.accesses import Accesses
from fusec.analysis.descriptors import may_describe
from fusec.analysis.schedule import Schedule
from fusec.passes import call_libraries

SIZES: list[Size] = [
    (4096, 4096, 4096),
    (8192, 8192, 8192),
    (4000, 3000, 2000),
    (2048, 2048, 520),
    (512, 4096, 4096),
    (4096, 4096, 64),
]
QUICK: list[Size] = [(64, 48, 96), (33, 72, 56)]


@contextmanager
def ours(descriptors: bool) -> Iterator[None]:
    """What is compiled meanwhile calls no library, and has descriptors or none."""
    plain = block_products.product_blocks

    def made(c: Any, accesses: Accesses, target: Any, hints: Any) -> Schedule:
        schedule = plain(c, accesses, target, hints)
        chosen = descriptors and may_describe(schedule, accesses, target)
        return replace(schedule, descriptors=chosen)

    with (
        patch.object(blocks, "product_blocks", made),
        patch.object(call_libraries, "as_call", lambda *given: None),
    ):
        yield


def compiled(f: Callable[..., Any], descriptors: bool, *args: Any) -> Callable[[], Any]:
    """A function on arguments, by a backend that torch takes for no other."""

    def backend(graph: Any, inputs: Any, **options: Any) -> Any:
        return fusec.backend(graph, inputs, **options)

    call = torch.compile(f, dynamic=False, backend=backend, options={"cache": False})
    with ours(descriptors):
        call(*args)
    return partial(call, *args)


@dataclass(frozen=True)
class Row:
    """One product: seconds per call of each candidate."""

    epilogue: str
    dtype: str
    size: Size
    seconds: dict[str, float]
    gain: Spread
    """How many times as fast descriptors are as pointers."""

    def cells(self) -> list[str]:
        m, n, k = self.size
        rates = [f"{2 * m * n * k / t / 1e12:.1f}" for t in self.seconds.values()]
        return [f"{self.epilogue} {self.dtype} {m}×{n}×{k}", *rates, str(self.gain)]


def measure(name: str, dtype: str, size: Size, rounds: int, device: str) -> Row:
    """Raises AssertionError where descriptors give another result than pointers."""
    torch.compiler.reset()
    m, n, k = size
    drawn = [torch.randn(shape) for shape in ((m, k), (n, k), (n,), (m, n))]
    args = [(x * k**-0.25).to(device, DTYPES[dtype]) for x in drawn]
    f = EPILOGUES[name]
    calls: dict[str, Callable[[], Any]] = {
        "eager": partial(f, *args),
        "pointers": compiled(f, False, *args),
        "descriptors": compiled(f, True, *args),
    }
    assert torch.equal(calls["pointers"](), calls["descriptors"]())
    samples = gpu_harness.interleave(calls, rounds, device)
    seconds = {name: median(times) for name, times in samples.items()}
    gain = harness.ratio(samples["pointers"], samples["descriptors"])
    return Row(name, dtype, size, seconds, gain)


def run(
    device: str,
    rounds: int,
    out: Path,
    quick: bool = False,
    deadline: Deadline = NEVER,
) -> list[Row]:
    """The rows that there was time for, in TFLOP/s."""
    sizes = QUICK if quick else SIZES
    tasks = (
        (f"{n} {size}", partial(measure, n, "bf16", size, rounds, device))
        for size in sizes
        for n in EPILOGUES
    )
    rows, failed = gpu_harness.measured("descriptors", tasks, device, out, deadline)
    names = rows[0].seconds if rows else ()
    header = ("product", *(f"{n} TFLOP/s" for n in names), "pointers/descriptors")
    print(f"\n{harness.markdown(header, [row.cells() for row in rows])}", flush=True)
    for each in failed:
        print(f"failed: {each.row}: {each.error}", flush=True)
    return rows


def main() -> None:
    given = gpu_harness.options(__doc__).parse_args()
    run(given.device, given.rounds, given.out, given.quick)


if __name__ == "__main__":
    main()
