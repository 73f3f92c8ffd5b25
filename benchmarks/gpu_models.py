"""Whole models on a GPU: forward and a training step, beside eager and inductor.

The models are those of `models`; those whose weights are not installed are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import gpu_harness
import harness
import models
import torch
from gpu_harness import NEVER, Deadline
from harness import Spread
from torch import Tensor
from torch.utils._pytree import tree_map_only

QUICK = ("mixer block",)
FORWARD_ONLY = ("SmolLM2, prefill of 512", "SmolLM2, decoding")
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}


@dataclass(frozen=True)
class Row:
    """A model, forward or a whole step: seconds per call of each candidate."""

    model: str
    direction: str
    dtype: str
    seconds: dict[str, float]
    first: dict[str, float]
    """Seconds of the first call, with what caches the compilers have by then."""
    to_inductor: Spread
    to_eager: Spread

    def cells(self) -> list[str]:
        shown = ("eager", "inductor", "fusec")
        times = [f"{self.seconds[name] * 1e3:.3f}" for name in shown]
        ratios = str(self.to_eager), str(self.to_inductor)
        first = [f"{self.first[name]:.1f}" for name in shown[1:]]
        return [self.model, self.direction, self.dtype, *times, *ratios, *first]


HEADER = (
    *("model", "", "dtype", "eager ms", "inductor ms", "fusec ms"),
    *("eager/fusec", "inductor/fusec", "first inductor s", "first fusec s"),
)


def placed(name: str, dtype: str, device: str) -> models.Model:
    """A model and its inputs on a device, floats in a dtype."""
    torch.manual_seed(0)
    model = models.MODELS[name]()

    def cast(x: Tensor) -> Tensor:
        return x.to(device, DTYPES[dtype] if x.is_floating_point() else x.dtype)

    module = model.module.to(device, DTYPES[dtype])
    inputs = tree_map_only(Tensor, cast, model.inputs)
    return replace(model, module=module, inputs=inputs)


def measure(name: str, direction: str, dtype: str, rounds: int, device: str) -> Row:
    """Raises AssertionError where fusec's result is not close to eager's."""
    model = placed(name, dtype, device)
    calls: dict[str, Callable[[], Any]] = {}
    calls["eager"] = models.call_of(model, model.module, direction)
    wanted = models.results(model, calls["eager"]())
    first: dict[str, float] = {}
    torch.compiler.reset()
    for backend, compiled in gpu_harness.compilers(False).items():
        call = models.call_of(model, compiled(model.module), direction)
        began = time.perf_counter()
        made = call()
        if device != "cpu":
            torch.cuda.synchronize()
        first[backend] = time.perf_counter() - began
        got = models.results(model, made)
        models.check(backend, got, wanted, models.TOLERANCE[dtype])
        calls[backend] = call
    samples = gpu_harness.interleave(calls, rounds, device)
    return Row(
        name,
        direction,
        dtype,
        {name: median(times) for name, times in samples.items()},
        first,
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
    """The rows that there was time for."""
    rows, failed = gpu_harness.measured(
        "models", _tasks(rounds, device, dtypes, quick), device, out, deadline
    )
    gpu_harness.told(HEADER, rows, failed)
    return rows


def _tasks(
    rounds: int, device: str, dtypes: Sequence[str], quick: bool
) -> Iterator[tuple[str, Callable[[], Row]]]:
    for dtype in dtypes:
        for name in QUICK if quick else models.MODELS:
            for direction in ("forward", "step"):
                if direction == "step" and name in FORWARD_ONLY:
                    continue
                what = name, direction, dtype
                yield " ".join(what), partial(measure, *what, rounds, device)


def main() -> None:
    given = gpu_harness.options(__doc__).parse_args()
    run(given.device, given.rounds, given.out, quick=given.quick)


if __name__ == "__main__":
    main()
