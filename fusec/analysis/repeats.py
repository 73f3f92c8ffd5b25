"""Groups that are the same but for names: what is decided of one holds for all.

    %a = region(%x) { B }   %b = region(%a, %x) { C }       layer 1
    %c = region(%y) { B }   %d = region(%c, %y) { C }       layer 2

Every group is *like* one, the first of its kind. Single regions are alike if they share
a block and read the same value in the same places; two pairs of groups become alike if
their parts are, hang together in the same way and are read by others in the same
places. So a model's layers are judged, priced and placed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fusec.analysis.groups import Fault, Group, Groups
from fusec.analysis.placement import is_computed
from fusec.ir.core import Value

Judge = Callable[[], "Group | Fault"]
"""Make one group of two, or say why not."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """What became of two groups."""

    members: tuple[int, ...]
    values: list[Value]
    """Those that the regions of both read and make."""
    result: Group | Fault


class Repeats:
    """What became of groups, by what they are like."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self.regions = groups.regions
        self._singles: dict[object, Group] = {}
        self._judged: dict[object, _Judged] = {}

    def single(self, k: int) -> Group:
        """The group of one op."""
        group = self.groups.single(k)
        if group.members:
            op = self.regions.summaries[k].op
            key = op.body, op.loc, self._pattern(self.regions.values((k,)))
            group.like = self._singles.setdefault(key, group)
        return group

    def judged(
        self, a: Group, b: Group, shared: Value | None, judge: Judge
    ) -> Group | Fault:
        """What two groups become, as `judge` says for the first two that are so.

        `shared` is the tensor that they are to read side by side, if they are.
        """
        members = (*a.members, *b.members)
        values = self.regions.values(members)
        read = self.groups.still_read(a, b)
        key = (
            (a.like, b.like, shared and values.index(shared)),
            self._pattern(values),
            tuple(sorted(range(len(members)), key=members.__getitem__)),
            tuple(k for k, value in enumerate(values) if value in read),
        )
        known = self._judged.get(key)
        if known is not None:
            return self._again(known, b.number, members, values)
        result = judge()
        if not isinstance(result, Group) or not _has_computed(result):
            self._judged[key] = _Judged(members, values, result)
        return result

    def _again(
        self, known: _Judged, number: int, members: tuple[int, ...], values: list[Value]
    ) -> Group | Fault:
        """The same of others."""
        result = known.result
        named = dict(zip(known.values, values, strict=True))
        if isinstance(result, Fault):
            value = result.value
            return result if value is None else Fault(result.what, named[value])
        places = dict(zip(known.members, members, strict=True))
        group = Group(number)
        group.members = {places[k]: each for k, each in result.members.items()}
        group.stored = {named[value] for value in result.stored}
        group.spans = {named[value]: span for value, span in result.spans.items()}
        group.like = result.like
        return group

    def _pattern(self, values: list[Value]) -> tuple[int, ...]:
        """Which values are the same."""
        numbers: dict[Value, int] = {}
        return tuple(numbers.setdefault(value, len(numbers)) for value in values)


def _has_computed(group: Group) -> bool:
    """Whether placements name regions by which they are computed: such a group is like
    no other."""
    return any(is_computed(p) for each in group.members.values() for p in each)
