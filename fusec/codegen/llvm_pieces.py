"""Loops in pieces: where a mask turns from always to never, the loop is cut.

    for %k = 0 to 1000 step 32 { … %m = lt (%k + lane) 500 … }
        →
    for %k = 0 to 480 step 32      all lanes of every trip are in
    once at %k = 480               some are
    for %k = 512 to 1000 step 32   none is

The body is written once for each piece, and each has masks of its own only where they
are in doubt. This is index-set splitting (M. Griebl, P. Feautrier, C. Lengauer, 2000:
Index set splitting), at the bounds that concatenation and padding compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fusec.codegen.llvm_kernel import Kernel
from fusec.codegen.llvm_spans import DECIDES, Spans, note, spans_of
from fusec.ir.core import Op, Value, definitions
from fusec.ir.intervals import Interval, plus, times
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.tile import For

MOST = 6
"""Pieces that a loop is cut into at most: its body is written for each."""
LONGEST = 100
"""Ops of a body that is worth writing several times."""

_MONOTONE = (ew.Lt, ew.Le, ew.Gt, ew.Ge)


def pieces(k: Kernel, op: For, lo: int, hi: int) -> list[tuple[int, int]]:
    """The ranges of its counter that a loop is cut into."""
    trips = -(-(hi - lo) // op.step)
    cuts: set[int] = set()
    if trips > 1 and len(op.body.ops) <= LONGEST:
        for compared in _compared(k, op, lo):
            cuts |= compared.turns(trips)
    if len(cuts) >= MOST:
        cuts = set()
    firsts = [0, *sorted(cuts)]
    lasts = [*firsts[1:], trips]
    return [
        (lo + first * op.step, min(hi, lo + last * op.step))
        for first, last in zip(firsts, lasts, strict=True)
    ]


Line = tuple[Interval, int]
"""Where a number is at the first trip, and how far it moves with each."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """A comparison in one register, as it depends on the trip."""

    rule: Callable[[Interval, Interval], bool | None]
    left: Line
    right: Line

    def at(self, trip: int) -> bool | None:
        """How it comes out in all lanes; None where they differ."""
        left, right = (
            plus(first, times((step, step), (trip, trip)))
            for first, step in (self.left, self.right)
        )
        return self.rule(left, right)

    def turns(self, trips: int) -> set[int]:
        """The trips at which that changes: twice at most, for it is monotone."""
        first, last = self.at(0), self.at(trips - 1)
        if first is last:
            return set()
        found = {_first(lambda trip: self.at(trip) is not first, trips)}
        return found | {_first(lambda trip: self.at(trip) is last, trips)}


def _first(holds: Callable[[int], bool], trips: int) -> int:
    """The first trip from which on something holds; it does at the last one."""
    low, high = 0, trips - 1
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _compared(k: Kernel, op: For, lo: int) -> list[_Compared]:
    """The comparisons of a body whose operands move evenly with the counter."""
    chosen = [each for each in op.body.ops if isinstance(each, _MONOTONE)]
    if not chosen:
        return []
    needed = _needed(op, chosen)
    first, second = (_spans_at(k, op, needed, at) for at in (lo, lo + op.step))
    found: list[_Compared] = []
    for each in chosen:
        left, right = (_lines(first.get(x), second.get(x)) for x in each.operands)
        count = max(len(left), len(right))
        pairs = zip(_spread(left, count), _spread(right, count), strict=False)
        rule = DECIDES[type(each)]
        found += [_Compared(rule, a, b) for a, b in pairs if a[1] or b[1]]
    return found


def _needed(op: For, ends: Sequence[Op]) -> list[Op]:
    """The ops of a body that others are computed from, in its order."""
    made = definitions(op.body)
    needed: set[Op] = set()
    stack = [value for end in ends for value in end.operands]
    while stack:
        maker = made.get(stack.pop())
        if maker is not None and maker not in needed:
            needed.add(maker)
            stack += maker.operands
    return [each for each in op.body.ops if each in needed]


def _spans_at(
    k: Kernel, op: For, needed: Sequence[Op], counter: int
) -> dict[Value, Spans]:
    """Where integers are in one trip."""
    before = dict(k.spans)
    k.spans[op.body.params[0]] = ((counter, counter),)
    for each in needed:
        note(k, each)
    read = {x for each in op.body.ops for x in each.operands}
    found = {x: span for x in read if (span := spans_of(k, x)) is not None}
    k.spans.clear()
    k.spans.update(before)
    return found


def _lines(first: Spans | None, second: Spans | None) -> list[Line]:
    """How each register moves; nothing where one does not do so evenly."""
    lines: list[Line] = []
    for (low, high), (low_then, high_then) in zip(
        first or (), second or (), strict=True
    ):
        bounds = low, high, low_then, high_then
        if not all(isinstance(bound, int) for bound in bounds):
            return []
        step = int(low_then - low)
        if high_then - high != step:
            return []
        lines.append(((low, high), step))
    return lines


def _spread(lines: list[Line], count: int) -> list[Line]:
    return lines * count if len(lines) == 1 else lines
