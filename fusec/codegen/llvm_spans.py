"""Where integers lie, so that comparisons which always come out alike cost nothing.

    %k = iota_tile %at {dim=0}        from 0 to 63, and on, of a tile of 32 programs
    %m = lt %k 2048                   always: no lane is masked

Coordinates and what is computed from them have an interval for each register, over all
lanes, trips and programs. What follows for comparisons is as true as a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from fusec.codegen.llvm_kernel import Kernel
from fusec.codegen.llvm_tile import wanted
from fusec.ir.core import Op, Value
from fusec.ir.dims import Dim
from fusec.ir.dtypes import i64
from fusec.ir.intervals import Interval, over, plus, remainder, times
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.constant import Const
from fusec.ir.ops.tile import BroadcastTile, For, IotaTile
from fusec.ir.types import Scalar

Spans = tuple[Interval, ...]
"""An interval for each register; of a scalar, one."""


def note(k: Kernel, op: Op) -> None:
    """Keep where the integers are that an op gives, if that is known."""
    made = _spans(k, op)
    if made is not None and all(map(_fits, made)):
        k.spans[op.results[0]] = made
    else:
        k.spans.pop(op.results[0], None)


def note_size(k: Kernel, value: Value, dim: Dim) -> None:
    """Keep where a size is."""
    low, high = k.function.facts.range(dim)
    k.spans[value] = ((-inf if low is None else low, inf if high is None else high),)


def note_program(k: Kernel, value: Value) -> None:
    """Keep that programs count from 0."""
    k.spans[value] = ((0, inf),)


def note_counter(k: Kernel, op: For, known: tuple[int, int] | None) -> None:
    """Keep where the counter of a loop is; `known` are its bounds, if they are."""
    counter = op.body.params[0]
    if known is not None:
        lo, hi = known
        k.spans[counter] = ((lo, hi - 1 - (hi - 1 - lo) % op.step),)
        return
    first, end = spans_of(k, op.lo), spans_of(k, op.hi)
    if first is not None and end is not None:
        low, high = first[0][0], end[0][1]
        k.spans[counter] = ((low, max(low, high - 1)),)


def decided(k: Kernel, op: Op, registers: int) -> list[bool | None] | None:
    """How a comparison of integers comes out in each register, where it is always the
    same; None for other ops."""
    rule = DECIDES.get(type(op))
    if rule is None:
        return None
    pair = [_spread(spans_of(k, x), registers) for x in op.operands]
    if pair[0] is None or pair[1] is None:
        return None
    return [rule(a, b) for a, b in zip(*pair, strict=True)]


def spans_of(k: Kernel, value: Value) -> Spans | None:
    """Where the integers of a value are."""
    number = k.number(value) if isinstance(value.type, Scalar) else None
    if isinstance(number, int) and not isinstance(number, bool):
        return ((number, number),)
    table = k.table(value)
    if table is not None and _is_i64(value):
        return tuple((min(row), max(row)) for row in table)
    return k.spans.get(value)


def _spans(k: Kernel, op: Op) -> Spans | None:
    if isinstance(op, Const):
        whole = isinstance(op.value, int) and not isinstance(op.value, bool)
        return ((op.value, op.value),) if whole else None
    if isinstance(op, IotaTile):
        return _iota(k, op)
    if isinstance(op, BroadcastTile):
        return _broadcast(k, op)
    rule = _RULES.get(type(op))
    if rule is None or not _is_i64(op.results[0]):
        return None
    result = op.results[0]
    count = 1 if isinstance(result.type, Scalar) else len(k.places(result).origins)
    columns = [_spread(spans_of(k, x), count) for x in op.operands]
    if any(column is None for column in columns):
        return None
    made = (rule(*row) for row in zip(*columns, strict=True))  # type: ignore[arg-type]
    found = tuple(span for span in made if span is not None)
    return found if len(found) == count else None


def _iota(k: Kernel, op: IotaTile) -> Spans | None:
    first = spans_of(k, op.origin)
    if first is None:
        return None
    places, dim = k.places(op.result), op.dim
    rows = (places.lane_coords(r, dim) for r in range(len(places.origins)))
    return tuple(plus(first[0], (min(row), max(row))) for row in rows)


def _broadcast(k: Kernel, op: BroadcastTile) -> Spans | None:
    """Wherever any register of the source is: which goes where matters little."""
    source = spans_of(k, op.x)
    if source is None or not _is_i64(op.x):
        return None
    target = k.places(op.result)
    if isinstance(op.x.type, Scalar):
        return source * len(target.origins)
    held = k.places(op.x)
    found: list[Interval] = []
    for r in range(len(target.origins)):
        read = [source[place[0]] for place in wanted(held, target, r) if place]
        if not read:
            return None
        found.append((min(span[0] for span in read), max(span[1] for span in read)))
    return tuple(found)


def _spread(spans: Spans | None, count: int) -> Spans | None:
    if spans is None:
        return None
    return spans * count if len(spans) == 1 else spans


def _is_i64(value: Value) -> bool:
    return getattr(value.type, "dtype", None) is i64


def _fits(span: Interval) -> bool:
    """Whether nothing wrapped around on the way."""
    return span[0] >= i64.min and (span[1] <= i64.max or span[1] == inf)


def _minus(a: Interval, b: Interval) -> Interval:
    return plus(a, _negated(b))


def _negated(a: Interval) -> Interval:
    return -a[1], -a[0]


def _least(a: Interval, b: Interval) -> Interval:
    return min(a[0], b[0]), min(a[1], b[1])


def _most(a: Interval, b: Interval) -> Interval:
    return max(a[0], b[0]), max(a[1], b[1])


def _masked(a: Interval, b: Interval) -> Interval | None:
    """x & y, of which one is not negative."""
    bounds = [x[1] for x in (a, b) if x[0] >= 0]
    return (0, min(bounds)) if bounds else None


def _quotient(a: Interval, b: Interval) -> Interval | None:
    return over(a, b) if a[0] >= 0 and b[0] >= 1 else None


def _rest(a: Interval, b: Interval) -> Interval | None:
    return remainder(a, b) if b[0] >= 1 else None


_RULES: Mapping[Any, Callable[..., Interval | None]] = {
    ew.Add: plus,
    ew.Sub: _minus,
    ew.Mul: times,
    ew.Neg: _negated,
    ew.And: _masked,
    ew.TruncDiv: _quotient,
    ew.FloorDiv: _quotient,
    ew.Rem: _rest,
    ew.Minimum: _least,
    ew.Maximum: _most,
}


def _is_less(a: Interval, b: Interval) -> bool | None:
    return True if a[1] < b[0] else False if a[0] >= b[1] else None


def _is_least(a: Interval, b: Interval) -> bool | None:
    return True if a[1] <= b[0] else False if a[0] > b[1] else None


def _is_same(a: Interval, b: Interval) -> bool | None:
    if a[0] == a[1] == b[0] == b[1]:
        return True
    return False if a[1] < b[0] or b[1] < a[0] else None


def _opposite(known: bool | None) -> bool | None:
    return None if known is None else not known


DECIDES: Mapping[Any, Callable[[Interval, Interval], bool | None]] = {
    ew.Lt: _is_less,
    ew.Le: _is_least,
    ew.Gt: lambda a, b: _is_less(b, a),
    ew.Ge: lambda a, b: _is_least(b, a),
    ew.Eq: _is_same,
    ew.Ne: lambda a, b: _opposite(_is_same(a, b)),
}
