"""Products of matrices, against torch.mm, oneDNN and the peak of this very run.

`n` are products of row-major matrices, `t` of x and a row-major weight transposed,
as linear layers have them. Everything is inside the timing: packing, and the memory of
the result. `kept` are products of a weight that was packed before, if that helps: by
`freeze`, and by oneDNN for the number of rows. The peak is that of chains of
independent multiply-adds in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import harness
import torch
from harness import Call, Spread
from torch import Tensor

from fusec.compiler import compile_function
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level
from fusec.ir.dtypes import DType, bf16, f32, i8, i32
from fusec.ir.ops.contraction import Matmul
from fusec.ir.types import Tensor as TensorType
from fusec.measuring.timing import interleave
from fusec.options import Options
from fusec.target import host

Size = tuple[int, int, int]
"""Rows, columns and what is summed over."""

SQUARES: list[Size] = [(n, n, n) for n in (64, 128, 256, 512, 1024, 2048, 4096)]
SKINNY: list[Size] = [(m, n, 4096) for m in (1, 4, 16, 64, 512) for n in (4096, 11008)]
ODD: list[Size] = [(17, 1000, 333), (1023, 1023, 1023), (2049, 65, 129)]
SIZES = [*SQUARES, *SKINNY, (1, 32000, 4096), *ODD]
HEADS: list[tuple[int, Size]] = [
    (48, (512, 512, 64)),
    (48, (512, 64, 512)),
    (96, (128, 128, 64)),
    (9, (36, 36, 64)),
]
"""Batches of products, as in attention."""
LONG = 2**27
"""Products beyond which torch is not asked to multiply narrow numbers where it has no
instructions for them."""
NARROW = ("avx512bf16", "avx512vnni", "avxvnni")
QUICK = [(256, 256, 256), (16, 1024, 1024), (17, 1000, 333)]
OURS = {"f32": f32, "bf16": bf16, "int8": i8}
TORCH = {"f32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
OTHERS = ("torch", "onednn")
KEPT = ("fusec, kept", "onednn, kept")


@dataclass(frozen=True)
class Row:
    """One product: operations per second of each candidate, and the peak of the run."""

    dtype: str
    threads: int
    batch: int
    size: Size
    turned: bool
    rates: dict[str, float]
    to_better: Spread | None
    """How many times as fast as the better of the others fusec is, by rounds."""
    kept: Spread | None
    """The same with weights kept packed by both."""
    of_peak: float
    """The share of the peak of f32 multiply-adds."""
    of_bandwidth: float
    """The share of the read bandwidth that reading both factors once takes."""

    def cells(self) -> list[str]:
        batch = f"{self.batch} × " if self.batch > 1 else ""
        case = f"{batch}{'×'.join(map(str, self.size))} {'t' if self.turned else 'n'}"
        shown = [self.rates.get(name) for name in ("fusec", *OTHERS, *KEPT)]
        rates = [f"{rate / 1e9:.1f}" if rate else "" for rate in shown]
        shares = [f"{self.of_peak:.0%}", f"{self.of_bandwidth:.0%}"]
        ratios = [str(ratio or "") for ratio in (self.to_better, self.kept)]
        return [case, *rates, *ratios, *shares]


HEADER = (
    "product", "fusec", *OTHERS, *KEPT, "to the better", "kept", "of peak", "of read"
)  # fmt: skip


def product(dtype: DType, batch: int, size: Size, turned: bool) -> Function:
    """The graph of a product."""
    m, n, k = size
    lead = (batch,) if batch > 1 else ()
    b = Builder(Level.GRAPH)
    x = b.param(TensorType(dtype, (*lead, m, k)), "x")
    strides = (*((n * k,) if lead else ()), 1, k) if turned else None
    y = b.param(TensorType(dtype, (*lead, k, n), strides), "y")
    result = b(Matmul, x, y, dtype=i32 if dtype is i8 else dtype)
    return b.function("product", (result,))


def ours(
    dtype: DType, batch: int, size: Size, turned: bool, kept: bool = False
) -> Callable[[list[Any]], object]:
    """fusec's program for a product, as compiled graphs call it."""
    function = product(dtype, batch, size, turned)
    function = replace(function, frozen=(1,) if kept else ())
    return compile_function(function, Options()).program.run


def candidates(dtype: str, batch: int, size: Size, turned: bool) -> dict[str, Call]:
    """The calls to time, on fresh random factors; all give the same product."""
    m, n, k = size
    lead = (batch,) if batch > 1 else ()
    kind = TORCH[dtype]
    x = drawn(kind, *lead, m, k)
    weight = drawn(kind, *lead, n, k) if turned else None
    y = weight.mT if weight is not None else drawn(kind, *lead, k, n)
    program = ours(OURS[dtype], batch, size, turned)
    calls: dict[str, Call] = {"fusec": lambda: program([x, y])}
    if dtype != "f32" and m * n * k > LONG and not any(map(host().has, NARROW)):
        pass  # torch would take minutes
    elif dtype == "int8":
        if not lead:
            calls["torch"] = lambda: torch._int_mm(x, y)
    else:
        calls["torch"] = lambda: torch.matmul(x, y)
        if not lead:
            held = y.t()
            linear = torch.ops.mkldnn._linear_pointwise
            calls["onednn"] = lambda: linear(x, held, None, "none", [], "")
            packed = reordered(held, m)
            if packed is not None:
                calls["onednn, kept"] = lambda: linear(x, packed, None, "none", [], "")
    if not lead:
        keeping = ours(OURS[dtype], batch, size, turned, kept=True)
        calls["fusec, kept"] = lambda: keeping([x, y])
    return {name: call for name, call in calls.items() if _agrees(call, x, y)}


def reordered(weight: Tensor, rows: int) -> Tensor | None:
    """A weight as oneDNN packs it for so many rows, where it can."""
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    except RuntimeError:
        return None


def drawn(dtype: torch.dtype, *shape: int) -> Tensor:
    if dtype is torch.int8:
        return torch.randint(-100, 100, shape, dtype=dtype)
    return torch.randn(shape).to(dtype)


def _agrees(call: Call, x: Tensor, y: Tensor) -> bool:
    """Whether a call gives the product; False where the machine cannot do it."""
    try:
        got = call()
    except RuntimeError:
        return False
    got = got[0] if isinstance(got, (list, tuple)) else got
    rows = slice(0, 3)
    wanted = x[..., rows, :].double() @ y.double()
    scale = wanted.abs().max().item() or 1.0
    error = (got[..., rows, :].double() - wanted).abs().max().item()
    assert error <= 2e-2 * scale, f"off by {error} of {scale}"
    return True


def read_bandwidth(bytes_: int) -> float:
    """Bytes per second that searching memory of this size reads."""
    calls = harness.streams(bytes_, 0)
    return bytes_ / min(median(s) for s in interleave(calls, 5).values())


def measure(
    dtype: str, threads: int, batch: int, size: Size, turned: bool, rounds: int
) -> Row:
    torch.set_num_threads(threads)
    calls = candidates(dtype, batch, size, turned)
    samples = interleave(calls, rounds)
    m, n, k = size
    operations = 2.0 * batch * m * n * k
    rates = {name: operations / median(times) for name, times in samples.items()}
    others = [name for name in OTHERS if name in rates]
    better = max(others, key=lambda name: rates[name], default=None)
    width = {"f32": 4, "bf16": 2, "int8": 1}[dtype]
    read = batch * (m * k + k * n) * width
    return Row(
        dtype,
        threads,
        batch,
        size,
        turned,
        rates,
        harness.ratio(samples[better], samples["fusec"]) if better else None,
        harness.ratio(samples[KEPT[1]], samples[KEPT[0]])
        if KEPT[1] in samples
        else None,
        rates["fusec"] / harness.peak(threads),
        read / median(samples["fusec"]) / read_bandwidth(read),
    )


def products(quick: bool) -> Iterator[tuple[int, Size, bool]]:
    for size in QUICK if quick else SIZES:
        yield 1, size, False
        yield 1, size, True
    for batch, size in () if quick else HEADS:
        yield batch, size, True


def report(rows: Sequence[Row]) -> None:
    """The table of rows of one dtype and number of threads, and their mean."""
    print(harness.markdown(HEADER, [row.cells() for row in rows]))
    for what, spreads in (
        ("to the better", [row.to_better for row in rows]),
        ("kept", [row.kept for row in rows]),
    ):
        found = [spread.middle for spread in spreads if spread]
        if found:
            mean = harness.mean_ratio(spreads)
            print(f"\n{what}: geometric mean {mean:.2f}, least {min(found):.2f}")


def run(
    rounds: int,
    dtypes: Sequence[str] = tuple(OURS),
    threads: Sequence[int] = (1, 2),
    quick: bool = False,
) -> list[Row]:
    """Products of matrices: billions of operations per second, and ratios."""
    harness.warm_memory()
    rows: list[Row] = []
    for dtype in dtypes:
        for count in threads:
            print(f"\n{dtype}, threads {count}, peak {harness.peak(count) / 1e9:.1f}\n")
            found: list[Row] = []
            for batch, size, turned in products(quick):
                found.append(measure(dtype, count, batch, size, turned, rounds))
                print("  ", *found[-1].cells(), flush=True)
            report(found)
            rows += found
    return rows


def main() -> None:
    parser = harness.options(__doc__, OURS, (1, 2))
    parser.add_argument("--quick", action="store_true", help="three sizes only")
    options = parser.parse_args()
    rows = run(options.rounds, options.dtypes, options.threads, options.quick)
    if options.save:
        print(harness.save("gemm", rows))


if __name__ == "__main__":
    main()
