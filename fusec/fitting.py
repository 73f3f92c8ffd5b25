"""Schedules whose code fits a GPU: others are rejected before anything runs.

    journey ─▶ its kernels compiled ─▶ what spills, or the compiler refuses
      the next best candidates of those compiled side by side ─▶ the first that fits
    journey, scheduled anew

The cost model knows what blocks hold, not what a compiler makes of them: registers that
spill go to memory and back in every trip, and blocks that take more shared memory than
a program may have are refused. Where no candidate fits, the one that spills least is
taken. Nothing is measured, so that the choice is the same wherever it is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fusec.analysis.accesses import Accesses, accesses
from fusec.analysis.candidates import Candidate, Choice, candidates, described
from fusec.build import Binaries, gpu_jobs, tried
from fusec.logs import logger
from fusec.passes.journey import Journey, scheduled_anew
from fusec.runtime.ahead import Job, spilled

MOST = 8
"""Candidates that are compiled in place of one that does not fit."""
_LOG = logger("kernels")


def fitted(journey: Journey, binaries: Binaries) -> Journey:
    """The journey with schedules whose code spills nothing, as far as there are any.

    Raises `UserError` where Triton is not installed.
    """
    jobs = gpu_jobs(journey.joined, journey.target)
    found = binaries.of(jobs)
    wrong = {n for n, outcome in found.items() if spilled(outcome, journey.target)}
    if not wrong.isdisjoint(journey.joined.parts):  # each by itself may fit
        return fitted(replace(journey, joined=journey.apart), binaries)
    if not wrong:
        return journey
    others = {name: _others(journey, name, jobs[name]) for name in sorted(wrong)}
    made = binaries.of(
        {(n, k): each.job for n, all_ in others.items() for k, each in enumerate(all_)}
    )
    choices: dict[str, Choice] = {}
    for name, rest in others.items():
        outcomes = [found[name], *(made[name, k] for k in range(len(rest)))]
        bytes_ = [spilled(outcome, journey.target) for outcome in outcomes]
        best = bytes_.index(min(bytes_))
        kernel = journey.lowered.kernels[name]
        if best:
            _LOG.info("%s: its code does not fit by %s", name, kernel.schedule)
            choices[kernel.fingerprint.text] = rest[best - 1].choice
    if not choices:
        return journey
    before = journey.setting.choices
    anew = replace(
        journey.setting, choices=lambda text: choices.get(text) or before(text)
    )
    again = scheduled_anew(journey, anew)
    joins = bool(journey.joined.parts)
    return again if joins else replace(again, joined=again.apart)


@dataclass(frozen=True, slots=True)
class _Other:
    """A candidate in place of a schedule that does not fit."""

    choice: Choice
    job: Job


def _others(journey: Journey, name: str, job: Job) -> list[_Other]:
    """The candidates for a kernel, the best first."""
    reads = accesses(journey.lowered.kernels[name].region)
    _, *rest = candidates(reads, journey.target, journey.setting.hints)
    made = (_other(journey, reads, each, job) for each in rest[:MOST])
    return [each for each in made if each is not None]


def _other(
    journey: Journey, reads: Accesses, candidate: Candidate, job: Job
) -> _Other | None:
    """A candidate's code to be, if there is any."""
    schedule, facts = candidate.schedule, journey.loops.facts
    changed = tried(job, reads, schedule, facts, journey.target)
    return changed and _Other(Choice(described(schedule, reads), None), changed)
