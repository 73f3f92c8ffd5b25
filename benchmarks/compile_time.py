"""How long one waits for a compile: fusec's own part, and the whole of the first call.

Each measurement is a process of its own, with caches that are empty (cold) or that an
equal process has filled (warm). fusec's own part is the time from entering its compiler
for a graph of ATen ops until that returns, and what is imported for it; Dynamo and
AOTAutograd are not in it. Modules have their bytecode, as any but the first process of
an installation finds them. `one more` is another small kernel in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import harness
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

MODELS = ("gpt inference", "gpt training", "smollm2")
PASSES = ("cold", "warm")


@dataclass(frozen=True)
class Row:
    """One model, compiled by one backend: seconds, the median of several processes."""

    model: str
    backend: str
    caches: str
    total: float
    """The first call."""
    own: float | None
    """fusec's part of it."""
    graphs: int
    one_more: float
    """The first call of one more small function."""
    one_more_own: float | None

    def cells(self) -> list[str]:
        def shown(seconds: float | None) -> str:
            return "" if seconds is None else f"{seconds:.3f}"

        return [
            self.model,
            self.backend,
            self.caches,
            shown(self.total),
            shown(self.own),
            str(self.graphs or ""),
            shown(self.one_more),
            shown(self.one_more_own),
        ]


HEADER = (
    "model",
    "backend",
    "caches",
    "first call s",
    "fusec's part s",
    "graphs",
    "one more s",
    "fusec's part s",
)


def call_of(model: str) -> Callable[[Callable[..., Any]], Any]:
    """What to call for a model, given what compiles it."""
    torch.manual_seed(0)
    if model == "smollm2":
        import smollm2

        pretrained = smollm2.load()
        prompt = pretrained.encode("Why is the sky blue?")

        def answer(compile: Callable[..., Any]) -> Any:
            steps = smollm2.generate(compile(pretrained.model), prompt)
            return [next(steps) for _ in range(3)]

        return answer
    import gpt

    config = gpt.Config()
    network, inputs = gpt.GPT(config), gpt.sample(8, config.positions, seed=0)

    def infer(compile: Callable[..., Any]) -> Any:
        with torch.no_grad():
            return compile(network)(*inputs)

    def train(compile: Callable[..., Any]) -> Any:
        return compile(network)(*inputs).backward()

    return train if model == "gpt training" else infer


def small(x: torch.Tensor) -> torch.Tensor:
    return (x.sin() + 1).exp().sum(-1)


class Stopwatch:
    """Adds up what fusec's own part takes: its imports, its backend without
    AOTAutograd, and each graph that is compiled, or loaded."""

    def __init__(self) -> None:
        # Dynamo and AOTAutograd import these in any case.
        for name in ("torch._dynamo.backends.common", "torch._functorch.aot_autograd"):
            import_module(name)
        self.seconds = 0.0
        self.graphs = 0
        began = time.perf_counter()
        api = import_module("fusec.api")
        self.seconds += time.perf_counter() - began
        capture = import_module("fusec.frontend.capture")
        compiled = import_module("fusec.frontend.compiled")
        capture.aot_module_simplified = self._outside(capture.aot_module_simplified)
        api.Backend.__call__ = self._within(api.Backend.__call__)
        api._compile = self._within(api._compile, graphs=1)
        loaded = compiled.CompiledGraph.post_compile
        compiled.CompiledGraph.post_compile = self._within(loaded, graphs=1)

    def _within(self, function: Any, graphs: int = 0) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began
                self.graphs += graphs

        return timed

    def _outside(self, function: Any) -> Any:
        """AOTAutograd, but for what it calls of ours, is taken off again."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds -= time.perf_counter() - began

        return timed


def measure(model: str, backend: str) -> dict[str, Any]:
    """Both calls of one process."""
    watch = Stopwatch() if backend == "fusec" else None

    def compile(f: Any) -> Any:
        return torch.compile(f, backend=backend)

    call = call_of(model)
    began = time.perf_counter()
    call(compile)
    total = time.perf_counter() - began
    own = watch.seconds if watch else None
    graphs = watch.graphs if watch else 0
    began = time.perf_counter()
    compile(small)(torch.randn(64, 1000))
    one_more = time.perf_counter() - began
    last = watch.seconds - own if watch and own else None
    found = {"total": total, "own": own, "graphs": graphs}
    return found | {"one_more": one_more, "one_more_own": last}


def rows_of(model: str, backend: str, repeats: int) -> list[Row]:
    """Cold and warm. Caches are emptied between repeats."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in PASSES}
    around = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            caches = {
                "FUSEC_CACHE_DIR": f"{folder}/fusec",
                "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
            }
            for name in PASSES:
                command = [sys.executable, __file__, "--measure", model, backend]
                output = subprocess.run(
                    command, env=around | caches, check=True, stdout=subprocess.PIPE
                ).stdout
                found[name].append(json.loads(output.splitlines()[-1]))
    return [
        Row(model, backend, name, **{k: _median(k, each) for k in each[0]})
        for name, each in found.items()
    ]


def _median(name: str, found: list[dict[str, Any]]) -> Any:
    values = [x[name] for x in found]
    return None if values[0] is None else median(values)


def run(rounds: int) -> None:
    """Measure all, print a table and write results/compile_time.json."""
    repeats = max(1, rounds // 10)
    rows: list[Row] = []
    for model in MODELS:
        for backend in ("inductor", "fusec"):
            rows += rows_of(model, backend, repeats)
    print(harness.markdown(HEADER, [row.cells() for row in rows]))
    print(f"\nwritten to {harness.save('compile_time', rows)}")


def main() -> None:
    """What one process measures, as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--measure", nargs=2, metavar=("MODEL", "BACKEND"))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--backends", nargs="+", default=["inductor", "fusec"])
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    for model in options.models:
        for backend in options.backends:
            for row in rows_of(model, backend, options.repeats):
                print(json.dumps(asdict(row)), flush=True)


if __name__ == "__main__":
    main()
