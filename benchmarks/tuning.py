"""What the cost model knows of schedules: its order of the candidates, against time.

For each kernel that a case runs, all candidates are compiled and measured as the tuner
does it, in a worker, by turns. *Spearman* is the correlation of the ranks by prediction
and by time. *Regret at k* is how much longer the best of the first k takes than the
best of all: at 1 that is the default, at 6 what tuning finds. *Gain* is how many times
as long the default takes as the best of the six. Every other round says which is the
best, and the rounds between say how long it takes: who had luck has it once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

import gemm
import harness
import torch
from cases import CASES

import fusec
from fusec.build import Objects, cache_of
from fusec.compiler import setting_of
from fusec.ir.dtypes import f32
from fusec.options import Options
from fusec.passes.journey import Journey, lower
from fusec.runtime.measuring import Measuring, Place, interleaved
from fusec.runtime.workers import Lost
from fusec.tuning.compiling import CpuCompiler
from fusec.tuning.subjects import BEST, Subject, subjects_of

KERNELS = (
    "gelu(x*w+b)",
    "layernorm",
    "softmax",
    "swiglu",
    "cumsum",
    "argmax",
    "transposed",
    "sum of columns",
    "mean of squares",
)
PRODUCTS: tuple[gemm.Size, ...] = (
    (128, 128, 128),
    (512, 512, 512),
    (1024, 1024, 1024),
    (16, 4096, 4096),
    (17, 1000, 333),
    (2049, 65, 129),
)
QUICK = ("softmax", "17×1000×333 n")
FIRST = (1, 3, BEST)
"""How many of the first candidates regrets are told of."""


@dataclass(frozen=True)
class Row:
    """One kernel: what was predicted of its candidates, and what was measured."""

    case: str
    kernel: str
    threads: int
    predicted: tuple[float, ...]
    """Seconds of each candidate that ran, the default first."""
    trial: tuple[float, ...]
    """The same by the clock, to choose by: the medians of every other round."""
    measured: tuple[float, ...]
    """Those of the rounds between."""
    lost: int
    """How many did not run."""

    @property
    def spearman(self) -> float:
        return spearman(list(zip(self.predicted, self.measured, strict=True)))

    def best(self, k: int) -> float:
        """Seconds of the best of the first k."""
        return self.measured[
            min(range(len(self.trial))[:k], key=self.trial.__getitem__)
        ]

    def regret(self, k: int) -> float:
        """How much longer the best of the first k takes than the best of all."""
        return self.best(k) / self.best(len(self.trial)) - 1.0

    @property
    def gain(self) -> float:
        return self.best(1) / self.best(BEST)

    def cells(self) -> list[str]:
        regrets = [f"{self.regret(k):.0%}" for k in FIRST]
        counts = [str(len(self.trial)), str(self.lost)]
        figures = [f"{self.spearman:.2f}", *regrets, f"{self.gain:.2f}"]
        return [f"{self.case} ({self.kernel})", *counts, *figures]


HEADER = (
    "kernel",
    "ran",
    "lost",
    "Spearman",
    *(f"regret@{k}" for k in FIRST),
    "gain",
)


def spearman(pairs: Sequence[tuple[float, float]]) -> float:
    """The correlation of ranks, equal values sharing one; 0 where all are equal."""
    xs, ys = (_ranks(values) for values in zip(*pairs, strict=True))
    x, y = mean(xs), mean(ys)
    covariance = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
    spread = sum((a - x) ** 2 for a in xs) * sum((b - y) ** 2 for b in ys)
    return covariance / spread**0.5 if spread else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    return [
        sum(other < value for other in values)
        + (sum(other == value for other in values) - 1) / 2
        for value in values
    ]


def journeys(names: Sequence[str]) -> Iterator[tuple[str, Journey]]:
    """The graphs of cases."""
    products = {f"{'×'.join(map(str, s))} n": s for s in PRODUCTS}
    setting = setting_of(Options())
    for name in names:
        if name in products:
            yield name, lower(gemm.product(f32, 1, products[name], False), setting)
            continue
        case = CASES[name]
        inputs = case.draw(case.shapes[1], torch.float32)
        for graph in fusec.jit(case.function, dynamic=False).graphs(*inputs):
            yield name, graph.journey


def measure(
    case: str,
    journey: Journey,
    threads: int,
    most: int,
    rounds: int,
    measuring: Measuring,
) -> Iterator[Row]:
    """The row of each kernel of a graph that has candidates."""
    objects = Objects(cache_of(Options()), journey.target)
    compiler = CpuCompiler(objects, journey.target, journey.setting.hints, threads)
    subjects = [s for s in subjects_of(journey, most) if len(s.candidates) > 1]
    for subject, codes in zip(subjects, compiler(subjects), strict=True):
        there = [k for k, code in enumerate(codes) if code is not None]
        measuring.begin(subject.inputs, [code for code in codes if code is not None])
        samples = interleaved(measuring.sample, range(len(there)), rounds, float("inf"))
        if 0 not in samples or there[0] != 0:
            raise Lost(f"the default of {subject.name} does not run")
        times = {there[k]: taken for k, taken in samples.items()}
        yield row_of(case, subject, times, threads)


def row_of(
    case: str, subject: Subject, times: Mapping[int, Sequence[float]], threads: int
) -> Row:
    """The row of a kernel from the samples of its candidates."""
    ran = sorted(times)
    return Row(
        case,
        subject.name,
        threads,
        tuple(subject.candidates[k].seconds for k in ran),
        tuple(median(times[k][::2]) for k in ran),
        tuple(median(times[k][1::2]) for k in ran),
        len(subject.candidates) - len(ran),
    )


def run(
    rounds: int,
    threads: Sequence[int] = (1, 2),
    names: Sequence[str] | None = None,
    most: int = 32,
) -> list[Row]:
    """The cost model's order of candidates, and what measuring them would gain."""
    rows: list[Row] = []
    names = names or [*KERNELS, *(f"{'×'.join(map(str, s))} n" for s in PRODUCTS)]
    for count in threads:
        found: list[Row] = []
        print(f"\nthreads {count}\n")
        with torch.no_grad(), Measuring(Place(threads=count)) as measuring:
            for case, journey in journeys(names):
                for each in measure(case, journey, count, most, rounds, measuring):
                    found.append(each)
                    print("  ", *each.cells(), flush=True)
        print()
        print(harness.markdown(HEADER, [each.cells() for each in found]))
        print(f"\n{summary(found)}", flush=True)
        rows += found
    return rows


def summary(rows: Sequence[Row]) -> str:
    """Means over kernels."""
    regrets = [f"{mean(r.regret(k) for r in rows):.1%} at {k}" for k in FIRST]
    correlation = mean(r.spearman for r in rows)
    return f"mean Spearman {correlation:.2f}; mean regret {', '.join(regrets)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--cases", nargs="+", help="of the names in the table")
    parser.add_argument("--most", type=int, default=32, help="candidates of a kernel")
    parser.add_argument("--quick", action="store_true", help="two kernels, few rounds")
    parser.add_argument("--save", action="store_true", help="write the results")
    options = parser.parse_args()
    if options.quick:
        rows = run(4, [1], QUICK, 8)
    else:
        rows = run(options.rounds, options.threads, options.cases, options.most)
    if options.save:
        print(harness.save("tuning", rows))


if __name__ == "__main__":
    main()
