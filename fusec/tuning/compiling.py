"""Code of candidates, for the place where it is measured.

    compiler = compiler_of(journey, options, binaries, "cpu")
    compiler(subjects)      [[NativeCode(…), None, NativeCode(…)], …]
    compiler.place          Place(threads=2)

Both kinds compile side by side in processes apart, where a compiler may crash on one.
On a GPU a candidate is out whose code spills more than another one's, as for `fitting`,
which would have another one in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from fusec.analysis.candidates import Candidate
from fusec.analysis.cost import likely
from fusec.build import (
    Binaries,
    Objects,
    attempted,
    cache_of,
    gpu_jobs,
    kernel_of,
    tried,
)
from fusec.codegen.llvm_launcher import TEXT as LAUNCHER
from fusec.ir.dims import Symbol
from fusec.options import Options
from fusec.passes.journey import Journey
from fusec.runtime.ahead import Binary, Failure, Job, spilled
from fusec.runtime.devices import CPU
from fusec.runtime.gpus import measured_by
from fusec.runtime.measuring import Code, GpuCode, NativeCode, Place
from fusec.target import Target, host
from fusec.tuning.subjects import BEST, Subject

Codes = Sequence[Code | None]
"""Of a subject's candidates; None for what could not be compiled, or must not be."""

Outcome = tuple[Job, Binary | Failure]
"""What was to be compiled of a candidate, and what came of it."""

NEVER = float("inf")
"""What a candidate spills that does not run."""


class Compiler(Protocol):
    """Makes code of the candidates of subjects."""

    place: Place
    batch: int
    """Subjects whose candidates are compiled at a time: that is over when time is up.
    """

    def __call__(self, subjects: Sequence[Subject]) -> Sequence[Codes]:
        """The code of each subject's candidates."""
        ...


def compiler_of(
    journey: Journey, options: Options, binaries: Binaries, device: str
) -> Compiler:
    """What compiles for a device, as torch names it."""
    target, hints = journey.target, journey.setting.hints
    if target.is_gpu:
        return GpuCompiler(journey, binaries, device)
    objects = Objects(cache_of(options), target)
    return CpuCompiler(objects, target, hints, CPU.word(options.threads))


class CpuCompiler:
    """Objects for a processor, by LLVM."""

    batch = 8

    def __init__(
        self,
        objects: Objects,
        target: Target,
        hints: Mapping[Symbol, int],
        threads: int,
    ) -> None:
        self.objects = objects
        self.target = target
        self.hints = hints
        self.place = Place(threads=threads)

    def __call__(self, subjects: Sequence[Subject]) -> list[Codes]:
        pairs = [(s, each) for s in subjects for each in s.candidates]
        texts = [self.text(*pair) for pair in pairs]
        objects = iter(self.objects.of_all([text for text in texts if text]))
        launcher = self.objects.of(LAUNCHER)
        codes: list[Code | None] = []
        for (subject, candidate), text in zip(pairs, texts, strict=True):
            made = next(objects) if text else None
            grid = likely(candidate.schedule.programs, self.hints)
            known = made and NativeCode(subject.name, (made, launcher), grid)
            codes.append(known or None)
        rest = iter(codes)
        return [[next(rest) for _ in subject.candidates] for subject in subjects]

    def text(self, subject: Subject, candidate: Candidate) -> str:
        """A candidate's LLVM code; "" where there is none."""
        what = subject.accesses, candidate.schedule, subject.name, subject.facts
        made = attempted(*what, self.target)
        return made.text if made else ""


class GpuCompiler:
    """Binaries for a GPU, by Triton."""

    def __init__(self, journey: Journey, binaries: Binaries, device: str) -> None:
        self.binaries = binaries
        self.target = journey.target
        self.hints = journey.setting.hints
        self.jobs = gpu_jobs(journey.apart, journey.target)
        self.place = Place(device, worker=measured_by(device))
        self.batch = max(1, 2 * host().cores // BEST)

    def __call__(self, subjects: Sequence[Subject]) -> list[Codes]:
        jobs: dict[tuple[str, int], Job] = {}
        for subject in subjects:
            for k, candidate in enumerate(subject.candidates):
                if job := self.job(subject, candidate):
                    jobs[subject.name, k] = job
        found = self.binaries.of(jobs)

        def outcomes(subject: Subject) -> list[Outcome | None]:
            keys = ((subject.name, k) for k in range(subject.count))
            return [(jobs[key], found[key]) if key in jobs else None for key in keys]

        return [self.codes(subject, outcomes(subject)) for subject in subjects]

    def job(self, subject: Subject, candidate: Candidate) -> Job | None:
        """What is to be compiled of a candidate, if there is anything."""
        what = subject.accesses, candidate.schedule, subject.facts, self.target
        return tried(self.jobs[subject.name], *what)

    def codes(self, subject: Subject, outcomes: Sequence[Outcome | None]) -> Codes:
        """The code of the candidates that spill least, most often nothing."""
        sizes = [spilled(each[1], self.target) if each else NEVER for each in outcomes]
        least = min(sizes)
        triples = zip(subject.candidates, outcomes, sizes, strict=True)
        return [
            self.code(candidate, *outcome)
            if outcome and size == least < NEVER
            else None
            for candidate, outcome, size in triples
        ]

    def code(
        self, candidate: Candidate, job: Job, binary: Binary | Failure
    ) -> GpuCode | None:
        """A binary, to be launched for as many programs as the candidate has."""
        if isinstance(binary, Failure):
            return None
        grid = likely(candidate.schedule.programs, self.hints)
        return GpuCode(kernel_of(job, binary), grid, job.scratch)
