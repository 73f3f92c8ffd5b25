"""The schedules worth trying for a region: the default first, then by the cost model.

    candidates(accesses, target, hints)
      ─▶  grid i = 64 programs; tile j:1000 = 16:time 4:reg 16:lane     2.1 µs
          grid i:64 in 4s = 16 programs; tile i:4 …, j:1000 …           2.1 µs
          grid i = 64 programs; tile j:1000 = 32:time 2:reg 16:lane     2.1 µs

Each is right by construction: another way that lanes can lie, another choice of
`blocking`, or what one change or two make of the default (see `variations`). They are
made in a fixed order, and `described` names one in terms of the region alone, so that a
choice can be kept, and found again by who reads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice

from fusec.analysis.accesses import Accesses
from fusec.analysis.block_products import block_seconds
from fusec.analysis.blocking import ranked
from fusec.analysis.choices import choose, ways, work
from fusec.analysis.contraction import contraction
from fusec.analysis.cost import seconds
from fusec.analysis.schedule import Schedule, Split
from fusec.analysis.variations import variations
from fusec.ir.core import Value
from fusec.ir.dims import Symbol, format_dim
from fusec.ir.types import Axis
from fusec.target import Target

MOST = 64
"""Candidates of a region."""
DEFAULT = ""
"""The description of whatever schedule is the default."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A schedule, and what it is predicted to take."""

    schedule: Schedule
    seconds: float
    operations: float = 0.0
    """What it computes meanwhile: memory may hide it, but the price may be wrong."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was found out, as plain data."""

    schedule: str
    """What `described` says of it, or `DEFAULT`."""
    gain: float | None
    """How many times as fast as the default it was, where it was measured."""

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def parse(text: str) -> Choice:
        """Raises ValueError where the text is none of ours."""
        match json.loads(text):
            case {"schedule": str(schedule), "gain": float(gain)}:
                return Choice(schedule, gain)
            case _:
                raise ValueError("it is no choice of a schedule")


Choices = Callable[[str], "Choice | None"]
"""What is known of the region with a fingerprint (its text)."""


def no_choices(fingerprint: str) -> Choice | None:
    """Nothing was measured."""
    return None


def chosen(
    choice: Choice | None,
    accesses: Accesses,
    target: Target,
    hints: Mapping[Symbol, int],
) -> Schedule | None:
    """The schedule that a choice names, if it is other than the default, and there is
    such a candidate."""
    if choice is None or choice.schedule == DEFAULT:
        return None
    for candidate in candidates(accesses, target, hints):
        if described(candidate.schedule, accesses) == choice.schedule:
            return candidate.schedule
    return None


def candidates(
    accesses: Accesses, target: Target, hints: Mapping[Symbol, int]
) -> list[Candidate]:
    """The default, then others, those first that are predicted to be the fastest."""
    found: dict[str, Candidate] = {}
    for each in islice(_all(accesses, target, hints), 4 * MOST):
        found.setdefault(described(each.schedule, accesses), each)
    default, *others = found.values()
    others.sort(key=lambda each: (each.seconds, each.operations))
    return [default, *others][:MOST]


def _all(
    accesses: Accesses, target: Target, hints: Mapping[Symbol, int]
) -> Iterator[Candidate]:
    """The default, then others, that may come twice."""
    c = contraction(accesses)
    if c is not None and not target.is_gpu:
        for predicted, schedule in ranked(c, accesses, target, hints):
            yield Candidate(schedule, predicted)
        return

    def priced(schedule: Schedule) -> Candidate:
        return _priced(schedule, accesses, target, hints)

    default = choose(accesses, target, hints)
    yield priced(default)
    if not default.tile:
        return
    beside = [*variations(default, accesses, target, hints)]
    yield from map(priced, beside)
    if not target.is_gpu:
        yield from map(priced, ways(accesses, target, hints)[1:])
    for each in beside:
        yield from map(priced, variations(each, accesses, target, hints))


def _priced(
    schedule: Schedule,
    accesses: Accesses,
    target: Target,
    hints: Mapping[Symbol, int],
) -> Candidate:
    """The cost model's answer; that of a region without axes is of no interest."""
    if not schedule.tile:
        return Candidate(schedule, target.launch)
    if schedule.dot is not None:
        price = block_seconds(schedule.dot, accesses, target, hints, schedule)
        return Candidate(schedule, price)
    found = work(accesses, schedule, hints)
    return Candidate(schedule, seconds(found, target), found.operations)


def described(schedule: Schedule, accesses: Accesses) -> str:
    """A text that tells a schedule of a region from all others of it: axes and factors
    by their numbers, sizes as the region's own symbols.

    grid 0; 1 whole 1 64, 2 256 4 16; ahead 1 4; streaming
    """
    held = schedule.accesses or accesses
    number = {axis: k for k, axis in enumerate(held.axes)}
    parts = [
        f"grid {' '.join(str(number[axis]) for axis in schedule.grid)}",
        _tile(schedule.tile, number),
    ]
    if schedule.ahead is not None:
        axis, far = schedule.ahead
        parts.append(f"ahead {number[axis]} {format_dim(far)}")
    if schedule.streaming:
        parts.append("streaming")
    if schedule.warps:
        parts.append(f"warps {schedule.warps} stages {schedule.stages}")
    if schedule.descriptors:
        parts.append("descriptors")
    if schedule.nest:
        parts.append(f"nest {' '.join(f'{d}.{level}' for d, level in schedule.nest)}")
    if schedule.instruction is not None:
        parts.append(f"by {schedule.instruction.name}")
    factors = _factors(schedule)
    for value, tile in schedule.packing.items():
        parts.append(f"pack {factors.index(value)} as {_tile(tile, number)}")
    return "; ".join(parts)


def _factors(schedule: Schedule) -> list[Value]:
    dot = schedule.dot
    return [*dot.xs, *dot.ys] if dot is not None else []


def _tile(tile: tuple[Split, ...], number: Mapping[Axis, int]) -> str:
    return ", ".join(_split(split, number[split.axis]) for split in tile)


def _split(split: Split, number: int) -> str:
    extent = format_dim(split.extent) if split.blocked else "whole"
    run = f" run {split.run}" if split.run is not None else ""
    return f"{number} {extent} {split.registers} {split.lanes}{run}"
