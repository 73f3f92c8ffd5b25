"""Timing side by side, so that a shared machine is unfair to all candidates alike.

A *round* times each candidate once, and each round starts with another candidate:

    samples = interleave({"ours": f, "theirs": g}, rounds=20)
    median(samples["ours"])     seconds per call
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fusec.errors import UserError

LEAST_SAMPLE = 2e-3
"""Seconds that one sample takes at least: calls are repeated until it does."""

AGREE, CLOSE = 4, 1.2
"""Samples that have to be as short as the shortest, and how nearly: what else runs does
not take the same time again and again."""

Call = Callable[[], Any]
Samples = list[float]


class Timed(NamedTuple):
    """A call, and how much of what is counted it does."""

    call: Call
    amount: float


def rates(
    timed: Mapping[str, Timed], rounds: int, patience: float = 20.0
) -> dict[str, float]:
    """What each does in a second with nothing else running, in a number of rounds, or
    in as many as it takes to see that; `patience` is in seconds.

    Raises `UserError` where the machine is never left alone for long enough.
    """
    calls = {name: each.call for name, each in timed.items()}
    end = time.perf_counter() + patience
    samples = interleave(calls, rounds)
    while time.perf_counter() < end:
        again = {n: call for n, call in calls.items() if disturbed(samples[n])}
        if not again:
            break
        for name, more in interleave(again, rounds).items():
            samples[name] += more
    for name, times in samples.items():
        if (apart := disturbed(times)) > 0:
            raise UserError(
                f"{name} cannot be measured: number {AGREE} of {len(times)} samples"
                f" took {apart:.2f} times as long as the best",
                fix=alone(),
            )
    return {name: each.amount / min(samples[name]) for name, each in timed.items()}


def alone() -> str:
    """What to do for a measurement that other work disturbs."""
    load, *_ = os.getloadavg()
    cores = len(os.sched_getaffinity(0))
    return (
        f"nothing was kept, and the target's own figures go on to be used; {load:.1f}"
        f" processes want to run on {cores} cores: pause the others (also on the GPU,"
        " if it is that), wait until a minute's load is near 0, and measure again"
    )


def disturbed(times: Samples) -> float:
    """How many times as long as the best those samples took that should agree with it;
    0 where they do."""
    best, *_, last = sorted(times)[:AGREE]
    return last / best if last > CLOSE * best else 0.0


def interleave(candidates: Mapping[str, Call], rounds: int) -> dict[str, Samples]:
    """Seconds per call of each candidate, a sample per round."""
    repeats = {name: repeats_of(call) for name, call in candidates.items()}
    samples: dict[str, Samples] = {name: [] for name in candidates}
    names = list(candidates)
    for n in range(rounds):
        first = n % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(seconds(candidates[name], repeats[name]))
    return samples


def repeats_of(call: Call) -> int:
    """How many calls make a sample. Also warms up."""
    repeats = 1
    call()
    while seconds(call, repeats) * repeats < LEAST_SAMPLE:
        repeats *= 2
    return repeats


def seconds(call: Call, repeats: int) -> float:
    """Seconds per call of `repeats` calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
