"""Call torch's library for products of matrices that it is predicted to do faster.

    %c = region(%x, %y) over i, j, k {        %x1 = view %x …
      load, load, mul, reduce k sum      →    %y1 = view %y …
      store %c [i, j] }                       %c = extern "aten.mm.default" %x1, %y1

Only a product with nothing fused into it is one call. What both take is what fusion
reckoned with, so what stands beside such a product stayed apart if that is faster.
"""

from __future__ import annotations

from collections.abc import Mapping

from fusec.analysis.library import Operand, Product, as_call
from fusec.ir.builder import Builder
from fusec.ir.calls import Slot
from fusec.ir.core import Function, Op, Value
from fusec.ir.dims import Facts, Symbol
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import Region, View
from fusec.ir.types import Tensor, strides_of
from fusec.target import Target


def call_libraries(
    function: Function, target: Target, hints: Mapping[Symbol, int]
) -> Function:
    """The function with calls for the regions that a library does faster."""
    if not target.library:
        return function
    builder = Builder(function.level)
    env: dict[Value, Value] = {}
    for old in function.params:
        env[old] = builder.param(old.type, old.hint)
    for op in function.body.ops:
        builder.loc = op.loc
        call = _call(op, function.facts, target, hints)
        if call is None:
            results = builder.copy(op, env)
        else:
            operands = [_viewed(builder, each, env) for each in (call.x, call.y)]
            attrs = (call.target, (Slot(0), Slot(1)), (), (op.results[0].type,))
            results = builder.emit(Extern, operands, attrs, (), op.loc, op.hints)
        env.update(zip(op.results, results, strict=True))
    return builder.successor(function, [env.get(v, v) for v in function.body.yields])


def _call(
    op: Op, facts: Facts, target: Target, hints: Mapping[Symbol, int]
) -> Product | None:
    """The call that takes less time than an op, if there is one."""
    call = as_call(op, facts, target, hints) if isinstance(op, Region) else None
    return call if call and call.theirs < call.ours else None


def _viewed(b: Builder, operand: Operand, env: Mapping[Value, Value]) -> Value:
    """A tensor as the matrix that the call takes."""
    held = env.get(operand.value, operand.value)
    assert isinstance(held.type, Tensor)
    forms = ((t.shape, strides_of(t)) for t in (held.type, operand.view))
    if operand.offset == 0 and next(forms) == next(forms):
        return held
    return b(View, held, type=operand.view, offset=operand.offset)
