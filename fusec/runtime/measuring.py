"""Which code of a kernel is the fastest, found out by running it in another process.

    with Measuring(Place(threads=2)) as measuring:     # or Place("cuda:0")
        verdict = measuring.race(inputs, [default, other, third])
    verdict.best, verdict.gain                     # 2, 1.21 times as fast as the first

The candidates take turns: a *round* times each once, and each round begins with another
one, so that a burst of other work is unfair to all alike. The fastest over some rounds
then runs against the default alone, and the ratios within those rounds decide. It has
to be ahead by more than they spread, else the default stays: who was the fastest of
many may owe that to luck, but hardly does twice.

Everything is warm: a kernel runs again and again on the same memory, as the cost model
supposes, and as it does in a program whose kernel before has just written what this one
reads. What the kernel does to the caches of the next one is not seen.

A candidate that crashes or hangs takes a worker along, and drops out; the others go on
with a new one (see `workers`). So does one that a GPU refuses in the midst of it: what
comes behind it in that process would be refused as well.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median, quantiles
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from fusec.logs import logger
from fusec.runtime.pool import give_back, taken
from fusec.runtime.workers import Lost, Worker

if TYPE_CHECKING:
    from fusec.runtime.launcher_gpu import GpuKernel

WORKER = "fusec.runtime.measure_worker"
STARTING = 120.0
"""Seconds that a worker may take to import torch and to draw inputs."""
PATIENCE = 10.0
"""Seconds that a sample may take."""
LEAST = 1e-3
"""Seconds of calls that make a sample."""
ROUNDS, FINAL = 3, 11
"""Rounds of all, and of the fastest with the default."""
HOPELESS = 1.5
"""How many times as long as the fastest one takes, in the first round, to be out."""
WORTH = 1.02
"""The least gain that is worth to be kept."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A buffer of a kernel: its size, and which integers to draw."""

    dtype: str
    elements: int
    bytes: int
    below: int = 8


@dataclass(frozen=True, slots=True)
class Inputs:
    """What all code of a kernel is run on: random numbers, and its symbols' values."""

    buffers: tuple[Drawn, ...]
    sizes: tuple[int, ...]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where code is measured."""

    device: str = "cpu"
    """As torch names it."""
    threads: int | None = None
    """Of a CPU; on a GPU there are none to choose."""
    worker: str = WORKER
    """The module that runs code there."""


class Code(Protocol):
    """A kernel to load and launch."""

    @property
    def told(self) -> Mapping[str, Any]:
        """All of it, as JSON for a worker."""
        ...


@dataclass(frozen=True, slots=True)
class NativeCode:
    """A kernel of a CPU, with what it is linked with, and how many programs it has."""

    name: str
    objects: tuple[bytes, ...]
    grid: int

    @property
    def told(self) -> Mapping[str, Any]:
        objects = [base64.b64encode(data).decode() for data in self.objects]
        return {"name": self.name, "grid": self.grid, "objects": objects}


@dataclass(frozen=True, slots=True)
class GpuCode:
    """A kernel of a GPU, and how many programs it has."""

    kernel: GpuKernel
    grid: int
    scratch: int = 0
    """Bytes of memory that each of these makes tensor descriptors in."""

    @property
    def told(self) -> Mapping[str, Any]:
        code = base64.b64encode(self.kernel.code).decode()
        kernel = {**self.kernel._asdict(), "code": code}
        return {"grid": self.grid, "kernel": kernel, "scratch": self.scratch}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which candidate to take, and what is known of each."""

    best: int
    gain: float
    """How many times as fast as the first, the default, it is."""
    seconds: tuple[float | None, ...]
    """Of each candidate: the median of its samples, or None where it was lost."""


Sample = Callable[[int], float]
"""Seconds of a call of a candidate; raises `Lost`."""


class Measuring:
    """Races on one worker, as long as it lives; ends with the `with`."""

    def __init__(self, place: Place, patience: float = PATIENCE) -> None:
        self.place = place
        self.patience = patience
        self._worker: Worker | None = None
        self._loaded: set[int] = set()

    def race(self, inputs: Inputs, codes: Sequence[Code]) -> Verdict:
        """The verdict on code that does the same, the default first.

        Raises `Lost` where the default does not run.
        """
        self.begin(inputs, codes)
        return race(self.sample, len(codes))

    def begin(self, inputs: Inputs, codes: Sequence[Code]) -> None:
        """What `sample` measures from now on."""
        self._loaded.clear()
        self.inputs = inputs
        self.codes = codes

    def sample(self, code: int) -> float:
        """Seconds of a call, with what is needed for it in place."""
        worker = self._worker
        if worker is None:
            worker = self._worker = taken(self.place.worker)
            self._loaded.clear()
        try:
            if not self._loaded:
                self._ask(worker, self._preparation(), STARTING)
            if code not in self._loaded:
                self._ask(worker, self._loading(code), STARTING)
                self._loaded.add(code)
            question = {"do": "sample", "code": code, "least": LEAST}
            limited = {**question, "patience": self.patience}
            return self._ask(worker, limited, self.patience)["seconds"]
        except Lost:
            self._end()
            raise

    def _ask(self, worker: Worker, question: Any, patience: float) -> dict[str, Any]:
        answer = worker.ask(question, patience)
        if "error" in answer:
            raise Lost(answer["error"])
        return answer

    def _preparation(self) -> dict[str, Any]:
        buffers = list(map(asdict, self.inputs.buffers))
        drawn = {"seed": self.inputs.seed, "sizes": self.inputs.sizes}
        where = {"device": self.place.device, "threads": self.place.threads}
        return {"do": "prepare", **where, "buffers": buffers, **drawn}

    def _loading(self, code: int) -> dict[str, Any]:
        return {"do": "load", "code": code, **self.codes[code].told}

    def close(self) -> None:
        """Have the worker let go of what it holds, and wait for who measures next."""
        if self._worker is None:
            return
        try:
            self._ask(self._worker, {"do": "clear"}, self.patience)
        except Lost:
            self._end()
        else:
            give_back(self._worker)
            self._worker = None

    def _end(self) -> None:
        """End the worker; another one is started when it is needed."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def __enter__(self) -> Measuring:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:  # it may be in the midst of something
            self._end()


def race(
    sample: Sample, count: int, rounds: int = ROUNDS, final: int = FINAL
) -> Verdict:
    """The verdict on so many candidates, the default first.

    Raises `Lost` where the default itself does not run.
    """
    heats = interleaved(sample, range(count), rounds)
    if 0 not in heats:
        raise Lost("the default does not run")
    seconds = tuple(median(heats[k]) if k in heats else None for k in range(count))
    verdict = Verdict(0, 1.0, seconds)
    best = min(heats, key=lambda k: median(heats[k]))
    if best == 0:
        return verdict
    last = interleaved(sample, (0, best), final, hopeless=float("inf"))
    if not {0, best} <= last.keys():
        return verdict
    low, gain, high = quantiles(
        [ours / theirs for ours, theirs in zip(last[0], last[best], strict=True)]
    )
    if gain < WORTH or gain - 1.0 <= high - low:
        return verdict
    return replace(verdict, best=best, gain=gain)


def interleaved(
    sample: Sample, candidates: Sequence[int], rounds: int, hopeless: float = HOPELESS
) -> dict[int, list[float]]:
    """The samples of each candidate, one a round; without those that were lost, and
    none where that is the default. Who is hopeless in the first round has that sample
    alone; the default stays."""
    samples: dict[int, list[float]] = {k: [] for k in candidates}
    running = list(candidates)
    for number in range(rounds):
        first = number % max(1, len(running))
        for k in running[first:] + running[:first]:
            try:
                samples[k].append(sample(k))
            except Lost as lost:
                logger("tuning").info("  candidate %d was lost: %s", k, lost)
                if k == 0:
                    return {}
                del samples[k]
        if number == 0 and samples:
            limit = hopeless * min(each[0] for each in samples.values())
            out = {k for k, each in samples.items() if k and each[0] > limit}
            running = [k for k in running if k not in out]
        running = [k for k in running if k in samples]
    return samples
