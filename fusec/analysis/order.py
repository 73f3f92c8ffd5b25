"""What must run before what, while groups of ops become one.

    a ─▶ m ─▶ b        a and b cannot become one: m must run between them
    └─────────▲

For each group two sets of ops are kept, as the bits of integers: those that must run
before it and those that must run after it. When two groups become one, the sets change
for what stands before or after one of them only.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

from fusec.errors import InternalError


class Order:
    """The dependences among groups of numbered ops; at first each op is a group.

    A group is known by the number of any of its ops.
    """

    def __init__(self, needs: Sequence[Iterable[int]]) -> None:
        """`needs[k]` are the ops, all of them earlier, that op k waits for."""
        self._needs = [*map(frozenset, needs)]
        self._group = list(range(len(needs)))
        """The number that the sets of an op's group are kept at."""
        self._members = [1 << k for k in range(len(needs))]
        self._before = [0] * len(needs)
        self._after = [0] * len(needs)
        users: list[list[int]] = [[] for _ in needs]
        for k, earlier in enumerate(needs):
            for m in earlier:
                users[m].append(k)
                self._before[k] |= self._before[m] | 1 << m
        for k in reversed(range(len(needs))):
            for user in users[k]:
                self._after[k] |= self._after[user] | 1 << user

    def related(self, a: int, b: int) -> bool:
        """Whether the group of one op must run before that of the other."""
        both = self._before[self._group[a]] | self._after[self._group[a]]
        return bool(both >> b & 1)

    def between(self, a: int, b: int) -> int:
        """The ops outside that must run after the group of a and before that of b, as
        the bits of an integer."""
        return self._after[self._group[a]] & self._before[self._group[b]]

    def join(self, a: int, b: int) -> None:
        """Make one group of two, between which nothing has to run."""
        a, b = self._group[a], self._group[b]
        own = self._members[a] | self._members[b]
        earlier = self._before[a] ^ self._before[b]
        later = self._after[a] ^ self._after[b]
        before = (self._before[a] | self._before[b]) & ~own
        after = (self._after[a] | self._after[b]) & ~own
        for group in self._groups_in(earlier & ~own):
            self._after[group] |= own | after
        for group in self._groups_in(later & ~own):
            self._before[group] |= own | before
        self._members[b], self._before[b], self._after[b] = own, before, after
        for k in _bits(self._members[a]):
            self._group[k] = b

    def _groups_in(self, ops: int) -> Iterator[int]:
        """The groups that some ops belong to, each once."""
        while ops:
            group = self._group[ops.bit_length() - 1]
            ops &= ~self._members[group]
            yield group

    def sorted(self) -> list[int]:
        """The groups, by the numbers they are kept at, each after all it waits for.

        Of those that may run the one with the least number comes first.
        """
        waiting = {
            group: self._waits_for(group)
            for group in range(len(self._group))
            if self._group[group] == group
        }
        unblocks: dict[int, list[int]] = {}
        for group, needs in waiting.items():
            for need in needs:
                unblocks.setdefault(need, []).append(group)
        ready = [group for group, needs in waiting.items() if not needs]
        heapq.heapify(ready)
        ordered: list[int] = []
        while ready:
            ordered.append(heapq.heappop(ready))
            for group in unblocks.get(ordered[-1], ()):
                waiting[group].discard(ordered[-1])
                if not waiting[group]:
                    heapq.heappush(ready, group)
        if len(ordered) != len(waiting):
            raise InternalError("fused regions wait for one another in a circle")
        return ordered

    def _waits_for(self, group: int) -> set[int]:
        """The groups that a group needs something of."""
        needs = (self._needs[k] for k in _bits(self._members[group]))
        return {self._group[m] for each in needs for m in each} - {group}


def _bits(number: int) -> Iterator[int]:
    """The positions of the bits that are set."""
    while number:
        last = number.bit_length() - 1
        yield last
        number ^= 1 << last
