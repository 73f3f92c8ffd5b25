"""Linear layers and what stands around them: fusec, eager, oneDNN's and Inductor's.

Weights are row-major, tokens 512. `onednn` is the best that its fused calls
do; Inductor runs with max-autotune and freezing, fusec with freeze.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import harness
import torch
from harness import Call, Spread
from torch import Tensor, nn
from torch.nn import functional as F

from fusec.measuring.timing import interleave

TOKENS, WIDTH, HIDDEN, HEADS = 512, 1024, 4096, 16
linear = torch.ops.mkldnn._linear_pointwise


class BiasGelu(nn.Module):
    """One layer of an MLP."""

    shape = (WIDTH, HIDDEN)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.layer(x))

    def onednn(self, x: Tensor) -> Tensor:
        return linear(x, self.layer.weight, self.layer.bias, "gelu", [], "none")


class SwiGLU(nn.Module):
    """Two layers, one of which opens the other's gate."""

    shape = (WIDTH, 2 * HIDDEN)

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.up = nn.Linear(WIDTH, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.gate(x)) * self.up(x)

    def onednn(self, x: Tensor) -> Tensor:
        opened = linear(x, self.gate.weight, None, "swish", [], "")
        return opened * linear(x, self.up.weight, None, "none", [], "")


class ResidualNorm(nn.Module):
    """The end of a block and the norm before the next one."""

    shape = (HIDDEN, WIDTH)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.norm = nn.RMSNorm(WIDTH)
        self.residual = nn.Buffer(torch.randn(TOKENS, WIDTH))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.residual + self.layer(x)
        return y, self.norm(y)

    def onednn(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.layer.weight
        binary = torch.ops.mkldnn._linear_pointwise.binary
        y = binary(x, self.residual, weight, None, "add")
        return y, self.norm(y)


class Rotary(nn.Module):
    """Queries, keys and values of attention, the first two rotated."""

    shape = (WIDTH, 3 * WIDTH)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        angles = torch.outer(torch.arange(TOKENS), 0.9 ** torch.arange(32)).float()
        self.cos = nn.Buffer(angles.cos()[:, None])
        self.sin = nn.Buffer(angles.sin()[:, None])

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = qkv.view(TOKENS, 3, HEADS, -1).unbind(1)
        return self.turned(q), self.turned(k), v

    def turned(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        first = a * self.cos - b * self.sin
        return torch.cat([first, b * self.cos + a * self.sin], -1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.split(self.layer(x))

    def onednn(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.split(linear(x, self.layer.weight, None, "none", [], ""))


CASES: dict[str, Callable[[], nn.Module]] = {
    "linear+bias+gelu": BiasGelu,
    "swiglu": SwiGLU,
    "linear+residual+rmsnorm": ResidualNorm,
    "qkv+rotary": Rotary,
}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
FREEZING = {"freezing": True, "max_autotune": True}
OURS = {"freeze": True, "fallback": False}


@dataclass(frozen=True)
class Row:
    """One case: seconds per call of each candidate."""

    case: str
    dtype: str
    threads: int
    seconds: dict[str, float]
    to_best: Spread | None
    """How many times as fast as the best of the others fusec is, by rounds."""
    of_peak: float
    """The share of the peak of f32 multiply-adds."""

    def cells(self) -> list[str]:
        shown = ("eager", "onednn", "inductor", "fusec")
        times = [
            f"{self.seconds[n] * 1e3:.2f}" if n in self.seconds else "" for n in shown
        ]
        return [self.case, *times, str(self.to_best or ""), f"{self.of_peak:.0%}"]


HEADER = (
    *("case", "eager ms", "onednn ms", "inductor ms", "fusec ms"),
    *("best other/fusec", "of peak"),
)


def candidates(case: str, dtype: str, backends: Sequence[str]) -> dict[str, Call]:
    """The calls to time; all give the same."""
    module = CASES[case]().to(DTYPES[dtype]).eval()
    x = torch.randn(TOKENS, module.shape[0]).to(DTYPES[dtype])
    calls: dict[str, Call] = {
        "eager": lambda: module(x),
        "onednn": lambda: module.onednn(x),
    }
    for backend in backends:
        torch.compiler.reset()
        options = FREEZING if backend == "inductor" else OURS
        compiled = torch.compile(module, backend=backend, options=options)
        calls[backend] = lambda compiled=compiled: compiled(x)
    return {name: call for name, call in calls.items() if _agrees(call, calls["eager"])}


def _agrees(call: Call, eager: Call) -> bool:
    """Whether a call gives what eager gives; False where the machine cannot do it."""
    wanted = eager()
    try:
        got = call()
    except RuntimeError:
        return False
    pairs = zip(
        *([r] if isinstance(r, Tensor) else r for r in (got, wanted)), strict=True
    )
    for a, b in pairs:
        torch.testing.assert_close(a.float(), b.float(), rtol=3e-2, atol=3e-2)
    return True


def measure(
    case: str, dtype: str, threads: int, rounds: int, backends: Sequence[str]
) -> Row:
    torch.set_num_threads(threads)
    with torch.no_grad():
        calls = candidates(case, dtype, backends)
        samples = interleave(calls, rounds)
    seconds = {name: median(times) for name, times in samples.items()}
    others = [name for name in seconds if name != "fusec"]
    best = min(others, key=lambda name: seconds[name])
    rows, columns = CASES[case].shape  # type: ignore[attr-defined]
    operations = 2.0 * TOKENS * rows * columns
    ratio = harness.ratio(samples[best], samples["fusec"])
    share = operations / seconds["fusec"] / harness.peak(threads)
    return Row(case, dtype, threads, seconds, ratio, share)


def run(
    rounds: int,
    dtypes: Sequence[str] = tuple(DTYPES),
    threads: Sequence[int] = (1, 2),
    cases: Sequence[str] = tuple(CASES),
    backends: Sequence[str] | None = None,
) -> list[Row]:
    """Linear layers with what stands around them: milliseconds, and ratios."""
    harness.warm_memory()
    backends = harness.compilers(backends)
    rows: list[Row] = []
    for dtype in dtypes:
        for count in threads:
            found = [measure(case, dtype, count, rounds, backends) for case in cases]
            print(f"\n{dtype}, threads {count}\n")
            print(harness.markdown(HEADER, [row.cells() for row in found]))
            mean = harness.mean_ratio([row.to_best for row in found])
            print(f"\ngeometric mean {mean:.2f}", flush=True)
            rows += found
    return rows


def main() -> None:
    parser = harness.options(__doc__, DTYPES, (1, 2))
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--backends", nargs="+", help="beside fusec")
    options = parser.parse_args()
    rows = run(
        options.rounds,
        options.dtypes,
        options.threads,
        options.cases,
        options.backends,
    )
    if options.save:
        print(harness.save("fused_linear", rows))


if __name__ == "__main__":
    main()
