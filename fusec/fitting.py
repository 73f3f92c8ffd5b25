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

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fusec.analysis.accesses import Accesses, accesses
from fusec.analysis.candidates import Candidate, Choice, candidates, described
from fusec.build import Binaries, emitted, gpu_jobs
from fusec.errors import FusecError
from fusec.logs import logger
from fusec.passes.assign_layouts import assign_layouts
from fusec.passes.journey import Journey, scheduled_anew
from fusec.passes.lower_to_host import Kernel
from fusec.passes.tile import tile
from fusec.runtime.ahead import Binary, Failure, Job
from fusec.target import Target

MOST = 8
"""Candidates that are compiled in place of one that does not fit."""
_LOG = logger("kernels")


def fitted(journey: Journey, binaries: Binaries) -> Journey:
    """The journey with schedules whose code spills nothing, as far as there are any.

    Raises `UserError` where Triton is not installed.
    """
    jobs = gpu_jobs(journey.joined, journey.target)
    found = binaries.of(jobs)
    rejected = {
        name: journey.lowered.kernels[name]
        for name, outcome in found.items()
        if name in journey.lowered.kernels and spilled(outcome, journey.target)
    }
    if not rejected:
        return journey
    choices: dict[str, Choice] = {}
    for name, others in _others(journey, rejected, jobs).items():
        made = binaries.of(dict(enumerate(each.job for each in others)))
        outcomes = [found[name], *(made[k] for k in range(len(others)))]
        best = min(
            range(len(outcomes)), key=lambda k: spilled(outcomes[k], journey.target)
        )
        if best:
            _LOG.info("%s: %s spills, so it has another schedule", name, jobs[name])
            choices[rejected[name].fingerprint.text] = others[best - 1].choice
    setting = journey.setting
    before = setting.choices
    anew = replace(setting, choices=lambda text: choices.get(text) or before(text))
    return scheduled_anew(journey, anew)


def spilled(outcome: Binary | Failure, target: Target) -> float:
    """Bytes of each thread that found no register; infinite for what cannot run."""
    assert target.gpu is not None
    if isinstance(outcome, Failure):
        return float("inf")
    fits = outcome.resources.shared <= target.gpu.shared_of_program
    return outcome.resources.spilled if fits else float("inf")


@dataclass(frozen=True, slots=True)
class _Other:
    """A candidate in place of a schedule that does not fit."""

    choice: Choice
    job: Job


def _others(
    journey: Journey, rejected: dict[str, Kernel], jobs: dict[str, Job]
) -> dict[str, Sequence[_Other]]:
    """The candidates for each kernel, the best first."""
    found: dict[str, Sequence[_Other]] = {}
    for name, kernel in rejected.items():
        reads = accesses(kernel.region)
        _, *rest = candidates(reads, journey.target, journey.setting.hints)
        made = (_other(journey, name, reads, each, jobs[name]) for each in rest[:MOST])
        found[name] = [each for each in made if each is not None]
    return found


def _other(
    journey: Journey, name: str, reads: Accesses, candidate: Candidate, job: Job
) -> _Other | None:
    """A candidate's code to be; None where fusec has a bug in making it."""
    schedule = candidate.schedule
    try:
        kernel = assign_layouts(tile(reads, schedule, name, journey.loops.facts))
        made = emitted(kernel, journey.target)
    except FusecError as error:
        _LOG.warning("no code for %s: %s", schedule, error)
        return None
    changed = replace(
        job,
        source=made.text,
        types=made.types,
        constants=made.constants,
        warps=schedule.warps,
        stages=schedule.stages,
    )
    return _Other(Choice(described(schedule, reads), 1.0), changed)
