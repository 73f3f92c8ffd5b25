"""Schedules chosen by measurement: the few best candidates, raced on this machine.

    journey ─▶ kernels without a kept choice, the dearest first
      candidates ranked ─▶ BEST compiled side by side ─▶ raced in a worker ─▶ kept
    journey, scheduled anew by what is kept

What is found out is kept in the cache under the fingerprint of a kernel's region, the
target, the number of threads and fusec's own sources: a compile of the same kernel, in
whatever graph or process, measures nothing. A choice that is not among the candidates
any more is as none. One process at a time measures, of those that share a cache: the
others wait, and then find what it found out.

What a kernel computes is the same by every candidate, but for the order of reductions.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from fusec.analysis.accesses import Accesses, accesses
from fusec.analysis.candidates import (
    DEFAULT,
    Candidate,
    Choice,
    candidates,
    described,
)
from fusec.analysis.cost import likely
from fusec.build import Objects, attempted, cache_of
from fusec.codegen.llvm_launcher import TEXT as LAUNCHER
from fusec.files import locked
from fusec.ir.calls import Slot
from fusec.ir.core import Function
from fusec.ir.dims import Dim, Facts, Symbol
from fusec.ir.ops.host import Launch
from fusec.ir.types import Buffer, Tensor
from fusec.logs import counted, logger, warn_once
from fusec.options import Options
from fusec.passes.journey import Journey, scheduled_anew
from fusec.runtime.artifact import sources
from fusec.runtime.cache import Cache, cache_key
from fusec.runtime.devices import CPU
from fusec.runtime.measuring import Code, Drawn, Inputs, Measuring, Verdict
from fusec.runtime.workers import Lost
from fusec.target import Target, check_runs_here

BEST = 6
"""Candidates that are measured, the default with them."""
BATCH = 8
"""Kernels whose candidates are compiled at a time: what is over when time is up."""
MOST_BYTES = 2 << 30
"""What a kernel that is measured may need; beyond it has the default."""
LOCK = "tuning.lock"
"""A file in the cache's folder, which who measures holds."""

_ON_CPUS_ONLY = """nothing is tuned for {}: as yet fusec measures on CPUs only, and the
cost model chooses
  help: leave tune and mode="max-autotune" out"""
_LOG = logger("tuning")


class Kept:
    """The choices that are known, by the fingerprints of regions; in the cache, where
    there is one."""

    def __init__(self, cache: Cache | None, target: Target, threads: int) -> None:
        self.cache = cache
        self.target = target
        self.threads = threads
        self._here: dict[str, Choice] = {}

    def __call__(self, fingerprint: str) -> Choice | None:
        """What was found out about a region."""
        if fingerprint in self._here or self.cache is None:
            return self._here.get(fingerprint)
        payload = self.cache.get(self.key(fingerprint))
        if payload is None:
            return None
        try:
            return Choice.parse(payload.decode())
        except ValueError as error:
            warn_once("tuning", f"a kept schedule is ignored: {error}")
            return None

    def put(self, fingerprint: str, choice: Choice) -> None:
        """Keep what was found out."""
        self._here[fingerprint] = choice
        if self.cache is not None:
            self.cache.put(self.key(fingerprint), choice.text.encode(), "schedule")

    def alone(self, is_late: Callable[[], bool]) -> AbstractContextManager[None]:
        """While nobody else finds out anything, who would disturb the measurements."""
        if self.cache is None or not self.cache.is_usable():
            return nullcontext()
        return locked(self.cache.root / LOCK, is_late)

    def key(self, fingerprint: str) -> str:
        """What a choice depends on."""
        where = repr(self.target), str(self.threads)
        return cache_key("schedule", sources(), fingerprint, *where)


def kept_choices(options: Options, target: Target) -> Kept:
    """The choices for a target, on as many threads as programs run on."""
    return Kept(cache_of(options), target, CPU.word(options.threads))


@dataclass(frozen=True, slots=True)
class Subject:
    """A kernel to choose a schedule for."""

    name: str
    fingerprint: str
    accesses: Accesses
    facts: Facts
    inputs: Inputs
    candidates: Sequence[Candidate]
    launches: int

    @property
    def seconds(self) -> float:
        """What a call of the graph is predicted to spend in it."""
        return self.candidates[0].seconds * self.launches


Codes = Sequence["Code | None"]
Compile = Callable[[Sequence[Subject]], Sequence[Codes]]
"""The code of each subject's candidates; None for what could not be compiled."""
Race = Callable[[Inputs, Sequence[Code]], Verdict]
"""Raises `Lost` where there is no verdict."""


def tuned(journey: Journey, options: Options) -> Journey:
    """The journey with the schedules that are the fastest on this machine, as far as
    there is time to find out.

    Raises `OptionError` where code for the target does not run here.
    """
    target, kept = journey.target, journey.setting.choices
    if target.is_gpu:
        warn_once("tuning", _ON_CPUS_ONLY.format(target.name))
        return journey
    check_runs_here(target)
    assert isinstance(kept, Kept)
    subjects = subjects_of(journey)
    if not subjects:
        return journey
    until = time.monotonic() + options.tune_seconds

    def is_late() -> bool:
        return time.monotonic() >= until

    compiler = CandidateCompiler(
        Objects(cache_of(options), target), target, journey.setting.hints
    )
    before = [kept(each.fingerprint) for each in subjects]  # none, or out of date
    with kept.alone(is_late), Measuring(kept.threads) as measuring:
        known = zip(subjects, before, strict=True)
        tune(
            [each for each, old in known if kept(each.fingerprint) == old],
            compile=compiler,
            race=measuring.race,
            keep=kept.put,
            is_late=is_late,
        )
    return scheduled_anew(journey, journey.setting)


def tune(
    subjects: Iterable[Subject],
    *,
    compile: Compile,
    race: Race,
    keep: Callable[[str, Choice], None],
    is_late: Callable[[], bool],
) -> None:
    """Choose for each of the subjects, those first that take the most time."""
    waiting = sorted(subjects, key=lambda subject: -subject.seconds)
    while waiting and not is_late():
        batch = waiting[:BATCH]
        for subject, codes in zip(batch, compile(batch), strict=True):
            if is_late():
                break
            waiting.remove(subject)
            choice = _raced(subject, codes, race)
            if choice is not None:
                keep(subject.fingerprint, choice)
    if waiting:
        left = counted(len(waiting), "kernel")
        _LOG.info("time is up: %s left with the default schedule", left)


def _raced(subject: Subject, codes: Codes, race: Race) -> Choice | None:
    """The choice for a subject; None where its default does not run by itself."""
    compiled = [
        (candidate, code)
        for candidate, code in zip(subject.candidates, codes, strict=True)
        if code is not None
    ]
    if codes[0] is None:
        return None
    if len(compiled) == 1:
        return Choice(DEFAULT, 1.0)
    try:
        verdict = race(subject.inputs, [code for _, code in compiled])
    except Lost as lost:
        _LOG.info("%s has the default schedule: %s", subject.name, lost)
        return None
    schedule = compiled[verdict.best][0].schedule
    _tell(subject, [candidate for candidate, _ in compiled], verdict)
    text = described(schedule, subject.accesses) if verdict.best else DEFAULT
    return Choice(text, verdict.gain)


def _tell(subject: Subject, raced: Sequence[Candidate], verdict: Verdict) -> None:
    won = f"{verdict.gain:.2f}x the default" if verdict.best else "the default won"
    schedule = raced[verdict.best].schedule
    _LOG.info("%s: %s, by %s", subject.name, won, schedule)
    for candidate, seconds in zip(raced, verdict.seconds, strict=True):
        took = "lost" if seconds is None else f"{seconds * 1e6:.2f} us"
        predicted = candidate.seconds * 1e6
        _LOG.debug("  %s, predicted %.2f us: %s", took, predicted, candidate.schedule)


class CandidateCompiler:
    """Makes code of the candidates of subjects."""

    def __init__(
        self, objects: Objects, target: Target, hints: Mapping[Symbol, int]
    ) -> None:
        self.objects = objects
        self.target = target
        self.hints = hints

    def __call__(self, subjects: Sequence[Subject]) -> list[Codes]:
        pairs = [(s, each) for s in subjects for each in s.candidates]
        texts = [self.text(*pair) for pair in pairs]
        objects = iter(self.objects.of_all([text for text in texts if text]))
        launcher = self.objects.of(LAUNCHER)
        codes: list[Code | None] = []
        for (subject, candidate), text in zip(pairs, texts, strict=True):
            made = next(objects) if text else None
            grid = likely(candidate.schedule.programs, self.hints)
            known = made and Code(subject.name, (made, launcher), grid)
            codes.append(known or None)
        rest = iter(codes)
        return [[next(rest) for _ in subject.candidates] for subject in subjects]

    def text(self, subject: Subject, candidate: Candidate) -> str:
        """A candidate's LLVM code; "" where there is none."""
        what = subject.accesses, candidate.schedule, subject.name, subject.facts
        made = attempted(*what, self.target)
        return made.text if made else ""


def subjects_of(journey: Journey, best: int = BEST) -> list[Subject]:
    """The kernels that nothing is known of, each with its best candidates; not those of
    what is made once."""
    lowered, hints = journey.lowered, journey.setting.hints
    ops = lowered.host.body.ops
    launches = Counter(op.kernel for op in ops if isinstance(op, Launch))
    found: list[Subject] = []
    for name, kernel in lowered.kernels.items():
        if kernel.choice is not None:
            continue
        reads = accesses(kernel.region)
        inputs = inputs_of(kernel.function, reads, hints)
        if inputs is None:
            _LOG.info("%s has the default schedule: it is not measured", name)
            continue
        tried = candidates(reads, journey.target, hints)[:best]
        facts, text = journey.loops.facts, kernel.fingerprint.text
        found.append(Subject(name, text, reads, facts, inputs, tried, launches[name]))
    return found


def inputs_of(
    kernel: Function, reads: Accesses, hints: Mapping[Symbol, int]
) -> Inputs | None:
    """What to run a kernel on; None where that is too much, or lies backwards.

    Integers may be indices: they are drawn from those that are ones of every dimension
    that is indexed.
    """
    indexed = [
        likely(dim, hints)
        for access in reads.all
        if isinstance(access.buffer.type, Tensor)
        for entry, dim in zip(access.op.index, access.buffer.type.shape, strict=True)
        if isinstance(entry, Slot)
    ]
    below = max(1, min(indexed, default=8))
    buffers: list[Drawn] = []
    for param in kernel.params:
        assert isinstance(param.type, Buffer)
        reach = _reach(param.type, hints)
        if reach is None:
            return None
        dtype = param.type.dtype
        size = -(-reach * dtype.bits // 8)
        buffers.append(Drawn(dtype.name, reach, size, below))
    if sum(each.bytes for each in buffers) > MOST_BYTES:
        return None
    sizes = tuple(likely(symbol, hints) for symbol in kernel.symbols)
    return Inputs(tuple(buffers), sizes)


def _reach(buffer: Buffer, hints: Mapping[Symbol, int]) -> int | None:
    """How many elements it takes for the last one to be there."""

    def size(dim: Dim) -> int:
        return likely(dim, hints)

    digits = [digit for dim in buffer.layout.dims for digit in dim]
    if any(size(digit.stride) < 0 for digit in digits):
        return None
    last = sum((size(digit.extent) - 1) * size(digit.stride) for digit in digits)
    return last // buffer.dtype.bits + 1
