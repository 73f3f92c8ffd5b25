"""Dependences among groups, compared with reaching by search."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fusec.analysis.order import Order

Needs = list[frozenset[int]]


@st.composite
def graphs(draw: Any) -> Needs:
    """What each op waits for: some of the earlier ones."""
    size = draw(st.integers(1, 9))
    earlier = (st.frozensets(st.integers(0, k - 1), max_size=3) for k in range(1, size))
    return [frozenset(), *map(draw, earlier)]


class Slow:
    """The same by search, each time anew."""

    def __init__(self, needs: Needs) -> None:
        self.needs = needs
        self.groups = [{k} for k in range(len(needs))]

    def group(self, k: int) -> set[int]:
        return next(group for group in self.groups if k in group)

    def before(self, k: int) -> set[int]:
        """The ops outside that must run before the group of k."""
        own = self.group(k)
        found, stack = set[int](), [*own]
        while stack:
            for need in self.needs[stack.pop()]:
                fresh = self.group(need) - found
                found |= fresh
                stack += fresh
        return found - own

    def between(self, a: int, b: int) -> set[int]:
        """The ops that must run after the group of a and before that of b."""
        ends = self.group(a) | self.group(b)
        after = {k for k in range(len(self.needs)) if a in self.before(k)}
        return (after & self.before(b)) - ends

    def join(self, a: int, b: int) -> None:
        one = self.group(a) | self.group(b)
        self.groups = [g for g in self.groups if not g & one] + [one]


@given(graphs(), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=9))
def test_joining_keeps_what_must_run_between(
    needs: Needs, pairs: list[tuple[int, int]]
) -> None:
    order, slow = Order(needs), Slow(needs)
    size = len(needs)
    for a, b in ((min(p) % size, max(p) % size) for p in pairs):
        if slow.group(a) == slow.group(b):
            continue
        blocked = slow.between(a, b) | slow.between(b, a)
        assert bool(order.between(a, b) | order.between(b, a)) == bool(blocked)
        related = a in slow.before(b) or b in slow.before(a)
        assert order.related(a, b) == related
        if not blocked:
            order.join(a, b)
            slow.join(a, b)
    ran = set[int]()
    for k in order.sorted():
        assert slow.before(k) <= ran
        ran |= slow.group(k)
    assert ran == {*range(size)}


@given(graphs())
def test_without_groups_the_order_is_the_one_given(needs: Needs) -> None:
    assert Order(needs).sorted() == [*range(len(needs))]
