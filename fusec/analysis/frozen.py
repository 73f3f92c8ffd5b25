"""What stays the same from call to call: what is computed of frozen parameters alone.

    loop @f(%x, %w) frozen [1] { %e = region(%w) …; %y = region(%x, %e) … }      %w, %e

What the caller gets does not count, as the caller may write to it, nor what may raise
an error, which belongs to each call.
"""

from __future__ import annotations

from fusec.ir.core import Block, Function, Op, Value, walk
from fusec.ir.ops.checks import Check
from fusec.ir.ops.loop import Region, View
from fusec.ir.sizes import used_symbols


def frozen_values(function: Function) -> set[Value]:
    """The frozen parameters of a loop function, and the tensors that follow from them
    and have sizes that are known."""
    if not function.frozen:
        return set()
    found = {function.params[k] for k in function.frozen}
    held = _held(function)
    for op in function.body.ops:
        if found.issuperset(op.operands) and _stays(op, held):
            found.update(op.results)
    return found


def _stays(op: Op, held: set[Value]) -> bool:
    """Whether an op gives the same of the same, to other ops only."""
    if not isinstance(op, (Region, View)) or not held.isdisjoint(op.results):
        return False
    checked = any(isinstance(inner, Check) for inner in walk(Block((), (op,))))
    return not checked and not used_symbols(Block((), (op,)))


def _held(function: Function) -> set[Value]:
    """The memory that the caller gets, by all the names that it has."""
    held = set(function.body.yields)
    for op in reversed(function.body.ops):
        if isinstance(op, View) and op.result in held:
            held.add(op.x)
    return held
