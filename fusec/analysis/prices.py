"""What groups of regions cost: the predicted time of each as one kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from fusec.analysis.cost import Work, likely, seconds, update_bytes
from fusec.analysis.groups import Group, Groups
from fusec.analysis.library import as_call
from fusec.analysis.placement import Placement, coordinate
from fusec.ir.core import Value
from fusec.ir.dims import Dim, Symbol, product
from fusec.ir.ops.loop import Region
from fusec.ir.types import Axis, Tensor
from fusec.target import Target

SHARED, SHARED_OF_PRODUCTS = 64, 512
"""Points along axes that programs share out which one of them has, more or less: so
often what lacks these axes serves before it is computed again. A program of a product
has a whole block."""
ROWS = 12
"""Rows of a product that one program has at least, to use a register of the other
factor as often as it should."""


class Prices:
    """The prices of groups on a target, for likely sizes: like ones cost alike."""

    def __init__(
        self, groups: Groups, target: Target, hints: Mapping[Symbol, int]
    ) -> None:
        self.groups = groups
        self.regions = groups.regions
        self.target = target
        self.hints = hints
        self._times: dict[tuple[Group, int], float] = {}
        self._moved: dict[Group, int] = {}

    def time(self, group: Group, among: int = 0) -> float:
        """Predicted seconds of a group; what else runs beside it, `among` bytes with
        its own, takes its part of the caches."""
        key = group.like, among
        if key not in self._times:
            self._times[key] = self._time(group.like, among)
        return self._times[key]

    def moved(self, group: Group) -> int:
        """The bytes that a group reads and writes, each once."""
        if group.like not in self._moved:
            work = self.work(group.like)
            self._moved[group.like] = work.read + work.written
        return self._moved[group.like]

    def _time(self, group: Group, among: int) -> float:
        """That of a kernel, or of a call that does the same."""
        kernel = seconds(self.work(group), self.target, among)
        if len(group.members) > 1 or not self.target.library:
            return kernel
        region = self.regions.ops[group.number]
        assert isinstance(region, Region)
        call = as_call(region, self.regions.function.facts, self.target, self.hints)
        return min(kernel, call.theirs) if call else kernel

    def work(self, group: Group) -> Work:
        """What a group moves and computes."""
        read = sum(self.bytes(v) for v in self.groups.inputs(group))
        updated = [u for v in group.stored if (u := self.regions.update(v)) is not None]
        stored = (v for v in group.stored if self.regions.update(v) is None)
        written = sum(self.bytes(v) for v in stored)
        half = sum(self._size(update_bytes(update)) // 2 for update in updated)
        read, written = read + half, written + half
        reduced = self.groups.reduced(group)
        spans = list(group.spans.values())
        swept = reduced.union(*self.groups.sweeps(group))
        shared = frozenset[Axis].intersection(*spans) if spans else frozenset[Axis]()
        grid = shared - swept
        roles = self.groups.roles(group)
        operations = sum(
            weight * self._points(space, placement, grid, roles is not None)
            for k, placements in group.members.items()
            for placement in placements
            for space, weight in self.regions.summaries[k].weights.items()
        )
        programs = self._size(product(axis.extent for axis in grid))
        if roles is not None and roles.along is not None:
            programs //= ROWS
        row = (read + written) // max(1, programs)
        if row > self.target.l2_bytes and self._sweeps_again(group, reduced):
            read *= 2
        return Work(read, written, operations, programs)

    def bytes(self, value: Value) -> int:
        """The size of a tensor."""
        type_ = value.type
        if not isinstance(type_, Tensor):
            return 8
        return self._size(product(type_.shape)) * type_.dtype.bits // 8

    def _sweeps_again(self, group: Group, reduced: set[Axis]) -> bool:
        """Whether a reduction's result is needed to walk what it reduced once more."""
        if any(span & reduced for span in group.spans.values()):
            return bool(reduced)
        summaries, maker = self.regions.summaries, self.regions.maker
        ends = {k for k in group.members if summaries[k].reduced}
        after: set[int] = set()
        for k in sorted(group.members):
            makers = {maker.get(value) for value, _ in summaries[k].loads}
            if makers & (ends | after):
                after.add(k)
        return bool(ends & after)

    def _points(
        self,
        space: Iterable[Axis],
        placement: Placement,
        grid: Set[Axis],
        multiplies: bool,
    ) -> int:
        """How many points a space has where a region is placed: again and again, for
        the programs that share out axes which it lacks."""
        axes = {a for axis in space for a in coordinate(placement, axis).axes}
        again = self._size(product(axis.extent for axis in grid - axes))
        points = self._size(product(axis.extent for axis in axes))
        shared = SHARED_OF_PRODUCTS if multiplies else SHARED
        return points * max(1, again // shared)

    def _size(self, dim: Dim) -> int:
        return likely(dim, self.hints)
