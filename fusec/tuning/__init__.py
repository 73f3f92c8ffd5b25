"""Schedules chosen by measurement: the few best candidates, raced on this machine.

    journey ─▶ kernels without a kept choice, the dearest first         subjects
      candidates ranked ─▶ BEST compiled side by side                   compiling
      ─▶ raced in a worker ─▶ kept                                      kept
    journey, scheduled anew by what is kept

What is found out is kept in the cache under the fingerprint of a kernel's region, the
target, the device and fusec's own sources: a compile of the same kernel, in whatever
graph or process, measures nothing. A choice that is not among the candidates any more
is as none. One process at a time measures, of those that share a cache: the others
wait, and then find what it found out.

A CPU and a GPU differ in what compiles for them, and in the place where code runs. What
a kernel computes is the same by every candidate, but for the order of reductions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from fusec.analysis.candidates import DEFAULT, Candidate, Choice, described
from fusec.build import Binaries
from fusec.logs import counted, logger
from fusec.options import Options
from fusec.passes.journey import Journey, scheduled_anew
from fusec.runtime.measuring import Code, Inputs, Measuring, Verdict
from fusec.runtime.workers import Lost
from fusec.tuning.compiling import Codes, Compiler, compiler_of
from fusec.tuning.kept import Kept
from fusec.tuning.subjects import Subject, subjects_of

_LOG = logger("tuning")

Race = Callable[[Inputs, Sequence[Code]], Verdict]
"""Raises `Lost` where there is no verdict."""


def tuned(
    journey: Journey, options: Options, binaries: Binaries, device: str
) -> Journey:
    """The journey with the schedules that are the fastest on a device of this machine,
    as torch names it, as far as there is time to find out.

    Raises `UserError` where Triton is needed and is not installed.
    """
    kept = journey.setting.choices
    assert isinstance(kept, Kept)
    subjects = subjects_of(journey)
    if not subjects:
        return journey
    until = time.monotonic() + options.tune_seconds

    def is_late() -> bool:
        return time.monotonic() >= until

    compiler = compiler_of(journey, options, binaries, device)
    before = [kept(each.fingerprint) for each in subjects]  # none, or out of date
    with kept.alone(is_late), Measuring(compiler.place) as measuring:
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
    compile: Compiler,
    race: Race,
    keep: Callable[[str, Choice], None],
    is_late: Callable[[], bool],
) -> None:
    """Choose for each of the subjects, those first that take the most time."""
    waiting = sorted(subjects, key=lambda subject: -subject.seconds)
    while waiting and not is_late():
        batch = waiting[: compile.batch]
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
    """The choice for a subject; None where none of its code runs by itself.

    The first candidate that has code stands for the default where that has none.
    """
    compiled = [
        (candidate, code)
        for candidate, code in zip(subject.candidates, codes, strict=True)
        if code is not None
    ]
    if not compiled:
        return None
    verdict = Verdict(0, 1.0, (None,))
    if len(compiled) > 1:
        try:
            verdict = race(subject.inputs, [code for _, code in compiled])
        except Lost as lost:
            _LOG.info("%s has the default schedule: %s", subject.name, lost)
            return None
        _tell(subject, [candidate for candidate, _ in compiled], verdict)
    won, _ = compiled[verdict.best]
    is_default = won is subject.candidates[0]
    text = DEFAULT if is_default else described(won.schedule, subject.accesses)
    return Choice(text, verdict.gain)


def _tell(subject: Subject, raced: Sequence[Candidate], verdict: Verdict) -> None:
    won = f"{verdict.gain:.2f}x the default" if verdict.best else "the default won"
    schedule = raced[verdict.best].schedule
    _LOG.info("%s: %s, by %s", subject.name, won, schedule)
    for candidate, seconds in zip(raced, verdict.seconds, strict=True):
        took = "lost" if seconds is None else f"{seconds * 1e6:.2f} us"
        predicted = candidate.seconds * 1e6
        _LOG.debug("  %s, predicted %.2f us: %s", took, predicted, candidate.schedule)
