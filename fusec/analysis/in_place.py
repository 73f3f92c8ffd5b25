"""Which results may take the place of the parameters that they replace.

    %y = region(%x, %g) over i { load %x [i]; load %g [i]; …; store %y [i] }
    yield %y                     # returns into %x

A program may overwrite what only it reads, and reads before it writes: the element of
%x that it computes the same element of %y from. So the region reduces and scans
nothing, all its stores walk all its axes, it reads %x at one place, that of the store,
for what it stores there, and nothing later reads %x.

    %y = region(%x, %i) over i { …; update …, %y, %x [$0] {combine="sum"} }

A result that is updated begins as another tensor, whose memory it takes over: one that
a region made, or a parameter that it comes to replace; and nothing else reads that any
more (`taken_over`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fusec.ir.core import Function, Op, Value
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import Load, Region, Store, Update, View
from fusec.ir.ops.reduction import Reduce, Scan
from fusec.ir.types import Axis, Points


def replaced_in_place(function: Function) -> dict[Value, Value]:
    """For each result that a region may write to a parameter, that parameter."""
    yields = function.body.yields
    into = function.returns_into or (None,) * len(yields)
    places = {
        v: function.params[k]
        for v, k in zip(yields, into, strict=True)
        if k is not None
    }
    if not places:
        return {}
    counts, last = Counter(yields), _last_reads(function)
    found: dict[Value, Value] = {}
    for number, op in enumerate(function.body.ops):
        if not isinstance(op, Region) or not _is_pointwise(op):
            continue
        for value in op.results:
            param = places.get(value)
            if param is None or counts[value] > 1 or param in counts:
                continue
            free = last.get(param, -1) <= number and value.type == param.type
            if free and _reads_where_it_writes(op, param, value):
                found[value] = param
    return found


def taken_over(function: Function) -> dict[Value, Value]:
    """For each updated result that may have the memory of what it begins as, that."""
    body, params = function.body, function.params
    counts, last = Counter(body.yields), _last_reads(function)
    into = function.returns_into or (None,) * len(body.yields)
    ends = {
        v: params[k] for v, k in zip(body.yields, into, strict=True) if k is not None
    }
    """The parameter that each value comes to replace."""
    made = {v for op in body.ops if isinstance(op, Region) for v in op.results}
    # A call may give what it took, or part of it.
    lent = {v for op in body.ops if isinstance(op, Extern) for v in op.operands}
    found: dict[Value, Value] = {}
    for number, op in reversed(list(enumerate(body.ops))):
        if not isinstance(op, Region):
            continue
        for value, start in op.starts.items():
            alone = counts[start] == 0 and last[start] == number
            end = ends.get(value) if counts[value] < 2 else None
            own = start in made or end is start
            if alone and own and start not in lent and not _touched(op, start):
                found[value] = start
                if end is not None:
                    ends[start] = end
    return found


def _touched(op: Region, start: Value) -> bool:
    """Whether a region does more with a tensor than to begin one result as it."""
    names = [p for p, v in zip(op.body.params, op.inputs, strict=False) if v is start]
    return sum(inner.operands.count(p) for p in names for inner in op.body.ops) > 1


def _last_reads(function: Function) -> dict[Value, int]:
    """The last op that reads each parameter; views count as reads forever."""
    last: dict[Value, int] = {}
    for number, op in enumerate(function.body.ops):
        at = len(function.body.ops) if isinstance(op, View) else number
        for value in op.operands:
            last[value] = max(at, last.get(value, -1))
    return last


def _is_pointwise(op: Region) -> bool:
    """Whether a region meets each point once, and stores all results there."""
    if any(isinstance(inner, (Reduce, Scan, Update)) for inner in op.body.ops):
        return False
    types = [v.type for inner in op.body.ops for v in inner.results]
    axes = {axis for t in types if isinstance(t, Points) for axis in t.axes}
    stores = [inner for inner in op.body.ops if isinstance(inner, Store)]
    return all(set(_axes(store)) == axes for store in stores)


def _axes(store: Store) -> Iterator[Axis]:
    for entry in store.index:
        yield from getattr(entry, "axes", ())


def _reads_where_it_writes(op: Region, param: Value, result: Value) -> bool:
    """Whether a region reads a parameter where, and for what, it writes a result."""
    names = dict(zip((*op.inputs, *op.results), op.body.params, strict=True))
    if list(op.inputs).count(param) > 1:
        return False
    inside = names.get(param)
    loads = [x for x in op.body.ops if isinstance(x, Load) and x.buffer is inside]
    (store,) = (
        x for x in op.body.ops if isinstance(x, Store) and x.buffer is names[result]
    )
    if not loads:
        return True
    if len(loads) > 1 or loads[0].masked or loads[0].index != store.index:
        return False
    return loads[0].result in _sources(op, store)


def _sources(op: Region, store: Store) -> set[Value]:
    """What a store's value is computed from."""
    made: dict[Value, Op] = {v: x for x in op.body.ops for v in x.results}
    seen: set[Value] = set()
    stack = [store.value]
    while stack:
        value = stack.pop()
        if value not in seen:
            seen.add(value)
            stack.extend(made[value].operands if value in made else ())
    return seen
