"""What a call costs beside its work: small functions, and a decoding step of 30 layers.

The functions read and write 64 elements, so all that is timed is the way to the kernels
and back: Dynamo's guards, AOTAutograd's wrappers, and the launcher. A step of SmolLM2's
shape reads its weights; the same with 64 features reads so few that its hundreds of
launches and products are what counts. Caches grow, so sizes are symbolic, as they are
where a model generates.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import harness
import torch
from harness import Spread

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import smollm2

from fusec.measuring.timing import interleave

SMALL: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "chain": (lambda x, w: ((x * w + 1).relu() - 0.5) * x, (torch.randn(64),) * 2),
    "four results": (
        lambda x: (x.exp(), x.abs() + 1, x * x, x.relu()),
        (torch.randn(64),),
    ),
    "softmax": (lambda x: x.softmax(-1), (torch.randn(4, 16),)),
    "gather": (
        lambda x, at: x[at] * 2,
        (torch.randn(16, 4), torch.tensor([3, 1, 15, 7] * 4)),
    ),
}
SHAPES = {
    "decoding step": smollm2.Config(49152, 30, 576, 1536, 9, 3, 1e5, 1e-5),
    "decoding step, 64 features": smollm2.Config(64, 30, 64, 64, 4, 2, 1e5, 1e-5),
}
SEEN = 128
"""Positions in the cache of a decoding step."""


@dataclass(frozen=True)
class Row:
    """One function: seconds per call, the median over rounds."""

    case: str
    seconds: dict[str, float]
    to_inductor: Spread | None
    """How many times as fast as inductor fusec is, by rounds."""

    def cells(self) -> list[str]:
        shown = ("eager", "inductor", "fusec")
        of = self.seconds
        times = [f"{of[n] * 1e6:.1f}" if n in of else "" for n in shown]
        return [self.case, *times, str(self.to_inductor or "")]


HEADER = ("case", "eager us", "inductor us", "fusec us", "inductor/fusec")


def small(name: str) -> dict[str, harness.Call]:
    """The candidates for a small function."""
    function, inputs = SMALL[name]
    calls: dict[str, harness.Call] = {"eager": lambda: function(*inputs)}
    for compiler in harness.compilers():
        torch.compiler.reset()
        compiled = torch.compile(_another(function), backend=compiler)
        torch.testing.assert_close(compiled(*inputs), function(*inputs))
        calls[compiler] = lambda compiled=compiled: compiled(*inputs)
    return calls


def _another(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function with code of its own: Dynamo keeps what it compiled by code."""
    code = function.__code__.replace(co_name=function.__code__.co_name)
    return type(function)(code, function.__globals__, function.__name__)


def decoding(config: smollm2.Config) -> dict[str, harness.Call]:
    """The candidates for a step; the weights are random."""
    torch.manual_seed(0)
    model = smollm2.SmolLM2(config).eval().requires_grad_(False)
    token = torch.zeros(1, 1, dtype=torch.int64)

    def cache(length: int) -> smollm2.Cache:
        entry = torch.randn(2, 1, config.kv_heads, length, config.head)
        return tuple((entry[0], entry[1]) for _ in range(config.layers))

    seen = cache(SEEN)
    wanted, _ = model(token, seen)
    calls: dict[str, harness.Call] = {"eager": lambda: model(token, seen)}
    for compiler in harness.compilers():
        torch.compiler.reset()
        compiled = torch.compile(model, backend=compiler)
        for length in (SEEN - 2, SEEN - 1):
            compiled(token, cache(length))
        found, _ = compiled(token, seen)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
        calls[compiler] = lambda compiled=compiled: compiled(token, seen)
    return calls


def measure(case: str, rounds: int) -> Row:
    """Raises AssertionError where a candidate's results are not eager's."""
    with torch.no_grad():
        calls = small(case) if case in SMALL else decoding(SHAPES[case])
        samples = interleave(calls, rounds)
    inductor = samples.get("inductor")
    return Row(
        case,
        {name: median(taken) for name, taken in samples.items()},
        harness.ratio(inductor, samples["fusec"]) if inductor else None,
    )


def run(rounds: int) -> None:
    """Measure all, print a table and write results/overhead.json."""
    rows = [measure(case, rounds) for case in (*SMALL, *SHAPES)]
    print(harness.markdown(HEADER, [row.cells() for row in rows]))
    print(f"\nwritten to {harness.save('overhead', rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the cost of a call.")
    parser.add_argument("cases", nargs="*", default=[*SMALL, *SHAPES])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    rows = [measure(case, options.rounds) for case in options.cases]
    print(harness.markdown(HEADER, [row.cells() for row in rows]))


if __name__ == "__main__":
    main()
