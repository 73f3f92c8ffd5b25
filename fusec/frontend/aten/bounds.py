"""Which values index values can have, read off the ops that computed them.

Gathering at an index that a tensor holds may be out of range, and ATen then raises
IndexError. fusec has no op that checks, so it compiles a gather only where the index
provably lies within; `within` makes that choice.

    x.clamp(0, 7) + 1                 [1, 8], whatever x holds
"""

from __future__ import annotations

from collections.abc import Callable

from fusec.frontend.aten.term import Emitter, Term, where
from fusec.ir.builder import Builder
from fusec.ir.core import Op, Value
from fusec.ir.dims import Dim, dim_max, dim_min
from fusec.ir.ops import elementwise as ops
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.view import Broadcast, Iota, Permute, Reshape, Slice

Bound = Dim | None
Interval = tuple[Bound, Bound]
"""The least and the greatest value, both included; None where there is no limit."""

ANY: Interval = (None, None)
DEPTH = 16
"""How many ops back to look: index arithmetic is short."""


def within(e: Emitter, index: Term, size: Dim) -> Term | None:
    """The index counted from 0, if it provably lies in [−size, size); else None."""
    low, high = interval(e.b, index.value)
    if low is None or high is None or not e.facts.proves_lt(high, size):
        return None
    if e.facts.proves_le(0, low):
        return index
    if not e.facts.proves_le(-size, low):
        return None
    return where(index < 0, index + size, index)


def interval(b: Builder, value: Value, depth: int = DEPTH) -> Interval:
    """The range of an integer value."""
    made = b.definition(value)
    if made is None or depth == 0:
        return ANY
    if isinstance(made, Const):
        return (made.value, made.value) if isinstance(made.value, int) else ANY
    if isinstance(made, SizeOf):
        return made.dim, made.dim
    if isinstance(made, Iota):
        return 0, made.shape[made.dim] - 1
    rule = _RULES.get(type(made))
    if rule is None:
        return ANY
    return rule(made, *(interval(b, x, depth - 1) for x in made.operands))


def _both(combine: Callable[[Dim, Dim], Dim], a: Bound, b: Bound) -> Bound:
    return None if a is None or b is None else combine(a, b)


def _either(combine: Callable[[Dim, Dim], Dim], a: Bound, b: Bound) -> Bound:
    """Of a limit that holds whichever operand it comes from."""
    return b if a is None else a if b is None else combine(a, b)


def _factor(x: Interval) -> int | None:
    """A positive constant."""
    low, high = x
    return low if isinstance(low, int) and low == high and low > 0 else None


def _same(op: Op, x: Interval) -> Interval:
    return x


def _cast(op: Op, x: Interval) -> Interval:
    """Between integers that widen; narrowing ones may wrap."""
    source, target = op.operands[0].type.dtype, op.results[0].type.dtype  # type: ignore
    widens = source.is_int and target.is_int and target.bits >= source.bits
    return x if widens and source.is_signed == target.is_signed else ANY


def _add(op: Op, x: Interval, y: Interval) -> Interval:
    return _both(lambda a, b: a + b, x[0], y[0]), _both(lambda a, b: a + b, x[1], y[1])


def _sub(op: Op, x: Interval, y: Interval) -> Interval:
    return _both(lambda a, b: a - b, x[0], y[1]), _both(lambda a, b: a - b, x[1], y[0])


def _mul(op: Op, x: Interval, y: Interval) -> Interval:
    n = _factor(y)
    if n is None:
        return ANY
    return _both(lambda a, b: a * b, x[0], n), _both(lambda a, b: a * b, x[1], n)


def _floor_div(op: Op, x: Interval, y: Interval) -> Interval:
    n = _factor(y)
    if n is None:
        return ANY
    return _both(lambda a, b: a // b, x[0], n), _both(lambda a, b: a // b, x[1], n)


def _rem(op: Op, x: Interval, y: Interval) -> Interval:
    n = _factor(y)
    return ANY if n is None else (0, n - 1)


def _maximum(op: Op, x: Interval, y: Interval) -> Interval:
    return _either(dim_max, x[0], y[0]), _both(dim_max, x[1], y[1])


def _minimum(op: Op, x: Interval, y: Interval) -> Interval:
    return _both(dim_min, x[0], y[0]), _either(dim_min, x[1], y[1])


def _select(op: Op, condition: Interval, x: Interval, y: Interval) -> Interval:
    return _both(dim_min, x[0], y[0]), _both(dim_max, x[1], y[1])


_RULES: dict[type[Op], Callable[..., Interval]] = {
    Broadcast: _same,
    Cast: _cast,
    Permute: _same,
    Reshape: _same,
    Slice: _same,
    ops.Add: _add,
    ops.FloorDiv: _floor_div,
    ops.Maximum: _maximum,
    ops.Minimum: _minimum,
    ops.Mul: _mul,
    ops.Rem: _rem,
    ops.Select: _select,
    ops.Sub: _sub,
}
