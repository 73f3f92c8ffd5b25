"""Which regions become one, what that saves, and why the others do not.

Priority fusion (XLA's algorithm, by time saved over all users): every edge from a
producer group to a consumer group has a gain, the predicted time apart less the
predicted time together; the best is fused, its neighbours are priced again.
Horizontal fusion comes last.

    regions      what there is to fuse           producers   vertical fusion
    groups       what may be one kernel          siblings    horizontal fusion
    placement    where in it a region stands     order       who waits for whom
    prices       what it costs                   repeats     what was decided before
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from fusec.analysis.frozen import frozen_values
from fusec.analysis.groups import Fault, Group, Groups
from fusec.analysis.order import Order
from fusec.analysis.placement import Places
from fusec.analysis.prices import Prices
from fusec.analysis.producers import Producers
from fusec.analysis.regions import Regions
from fusec.analysis.repeats import Repeats
from fusec.analysis.siblings import Siblings
from fusec.ir.core import Function, Value
from fusec.ir.dims import Symbol
from fusec.target import Target

_Candidate = tuple[float, int, int, int, Group, Group, Group]
"""Two groups that gain by becoming one: less than others if they gain more, then by
their numbers, then by when they were found; the groups, and what they become."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Two neighbours that did not become one, and why."""

    producer: str
    consumer: str
    reason: str
    regions: tuple[int, int]
    """Which regions they become, of those of the plan."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Groups in an order in which they can run, and every refusal."""

    groups: tuple[Group, ...]
    refusals: tuple[Refusal, ...]


class Fusion:
    """The state of priority fusion over one loop function."""

    def __init__(
        self, function: Function, target: Target, hints: Mapping[Symbol, int]
    ) -> None:
        self.regions = Regions(function)
        self.groups = Groups(self.regions, target)
        self.prices = Prices(self.groups, target, hints)
        self.places = Places()
        self.producers = Producers(self.groups, self.places)
        self.siblings = Siblings(self.groups, self.places)
        self.order = Order(self.regions.needs())
        self.repeats = Repeats(self.groups)
        self.group_of = [*map(self.repeats.single, range(len(self.regions.ops)))]
        self.fixed = sum(1 << g.number for g in self.group_of if not g.members)
        """The ops that are no regions, as the bits of an integer."""
        self.frozen = self._frozen()
        """The regions whose results are kept from call to call."""
        self.found = count()
        """Numbers for candidates, so that the queue never compares groups."""
        self.refusals: dict[tuple[int, int], Fault] = {}

    def run(self) -> Plan:
        """Fuse while anything gains by it."""
        queue: list[_Candidate] = []
        for k in self.regions.summaries:
            self._push(queue, self.group_of[k])
        while queue:
            *_, producer, consumer, merged = heapq.heappop(queue)
            if not self._stands(producer, consumer):
                continue
            self._commit(producer, consumer, merged)
            self._push(queue, merged)
            for neighbour in self._producers(merged):
                self._push(queue, neighbour, merged)
        self._join_siblings()
        groups = tuple(self.group_of[k] for k in self.order.sorted())
        return Plan(groups, self._refused([g for g in groups if g.members]))

    def _push(
        self, queue: list[_Candidate], producer: Group, only: Group | None = None
    ) -> None:
        """Queue the edges of a producer that gain by fusing."""
        for consumer in [only] if only else self._consumers(producer):
            merged, gain = self.attempt(producer, consumer)
            if merged is not None:
                order = -gain, producer.number, consumer.number, next(self.found)
                heapq.heappush(queue, (*order, producer, consumer, merged))

    def attempt(self, a: Group, b: Group) -> tuple[Group | None, float]:
        """The group that a and b become and the seconds it saves, or None."""
        found = self._parted(a, b) or self._merged(a, b)
        if isinstance(found, Group):
            return found, self._gain(a, b, found)
        self.refusals[a.number, b.number] = found
        return None, 0.0

    def _merged(self, a: Group, b: Group) -> Group | Fault:
        """The group of a producer and its consumer, if it gains."""

        def judge() -> Group | Fault:
            found = self.producers.merge(a, b)
            if isinstance(found, Fault) or self._gain(a, b, found) >= 0:
                return found
            together, apart = self._times(a, b, found)
            return Fault(
                f"slower together: {together * 1e6:.1f} µs, apart {apart * 1e6:.1f} µs"
            )

        return self.repeats.judged(a, b, None, judge)

    def _gain(self, a: Group, b: Group, merged: Group) -> float:
        together, apart = self._times(a, b, merged)
        return apart - together

    def _times(self, a: Group, b: Group, merged: Group) -> tuple[float, float]:
        """Predicted seconds of two groups together, and apart: then they move all that
        they move together, so that no cache holds more for being walked in parts."""
        time, moved = self.prices.time, self.prices.moved(merged)
        return time(merged), time(a, moved) + time(b, moved)

    def _stands(self, a: Group, b: Group) -> bool:
        """Whether neither group has become another since, nor a way round appeared."""
        if self.group_of[a.number] is not a or self.group_of[b.number] is not b:
            return False
        fault = self._parted(a, b)
        if fault is not None:
            self.refusals[a.number, b.number] = fault
        return fault is None

    def _frozen(self) -> set[int]:
        """The regions that are run once, of frozen parameters: not those whose results
        are larger than what they are computed of."""
        values = frozen_values(self.regions.function)
        bytes_ = self.prices.bytes
        return {
            k
            for k, op in enumerate(self.regions.ops if values else ())
            if op.results
            and values.issuperset(op.results)
            and sum(map(bytes_, op.results)) <= sum(map(bytes_, op.operands))
        }

    def _parted(self, a: Group, b: Group) -> Fault | None:
        """Why a and b run apart, whatever they are: what must run after a and before b,
        or that a is run once."""
        if self.frozen.issuperset(a.members) and not self.frozen.issuperset(b.members):
            return Fault("made once, of frozen parameters")
        between = self.order.between(a.number, b.number)
        if not between:
            return None
        # What is no region will always stand there.
        last = (between & self.fixed or between).bit_length() - 1
        between = self.describe(self.group_of[last])
        return Fault(f"{between} must run between them")

    def _commit(self, a: Group, b: Group, merged: Group) -> None:
        self.order.join(a.number, b.number)
        for k in merged.members:
            self.group_of[k] = merged

    def _join_siblings(self) -> None:
        """Fuse groups that read the same tensors, those that read most first."""
        inputs = [v for v, ks in self.regions.readers.items() if len(ks) > 1]
        for value in sorted(inputs, key=self.prices.bytes, reverse=True):
            readers = self.regions.readers[value]
            groups = dict.fromkeys(self.group_of[k] for k in readers)
            waiting = [group for group in groups if group.members]
            while waiting:
                a, *waiting = waiting
                for b in waiting:
                    if self._joined(a, b, value):
                        waiting[waiting.index(b)] = self.group_of[b.number]
                        break

    def _joined(self, a: Group, b: Group, value: Value) -> bool:
        """Make two groups that read a value one, if they gain by it."""
        a, b = sorted((a, b), key=lambda group: group.number)
        if self.order.related(a.number, b.number):
            return False

        def judge() -> Group | Fault:
            return self.siblings.merge(a, b, value)

        merged = self.repeats.judged(a, b, value, judge)
        if isinstance(merged, Fault) or self._gain(a, b, merged) < 0:
            return False
        self._commit(a, b, merged)
        return True

    def _consumers(self, group: Group) -> list[Group]:
        readers = self.regions.readers
        found = {
            self.group_of[k].number: self.group_of[k]
            for value in group.stored
            for k in readers.get(value, ())
        }
        return [g for g in found.values() if g is not group and g.members]

    def _producers(self, group: Group) -> list[Group]:
        found: dict[int, Group] = {}
        for k in group.members:
            for value, _ in self.regions.summaries[k].loads:
                maker = self.regions.maker.get(value)
                if maker is not None and self.group_of[maker] is not group:
                    other = self.group_of[maker]
                    found[other.number] = other
        return [g for g in found.values() if g.members]

    def _refused(self, regions: Sequence[Group]) -> tuple[Refusal, ...]:
        """The last refusal of each two groups that stayed apart."""
        places = {group.number: k for k, group in enumerate(regions)}
        found: dict[tuple[int, int], Refusal] = {}
        for (producer, consumer), fault in self.refusals.items():
            a, b = self.group_of[producer], self.group_of[consumer]
            if a is not b:
                names = self.describe(a), self.describe(b)
                pair = places[a.number], places[b.number]
                found[a.number, b.number] = Refusal(*names, str(fault), pair)
        return tuple(found.values())

    def describe(self, group: Group) -> str:
        """A group by what it computes last, and by the line that says so."""
        return self.regions.described(group.members or [group.number])
