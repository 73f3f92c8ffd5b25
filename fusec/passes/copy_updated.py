"""Give every update a tensor of its own to begin as:

    %y = region(%x, %i) { … update …, %y, %x [$0] }        %x is read again
        →
    %c = region(%x) over i { load %x [i]; store %c [i] }
    %y = region(%c, %i) { … update …, %y, %c [$0] }

An updated result takes over the memory of what it begins as, if nothing else reads that
any more (`in_place.taken_over`): then it stays. What is made of nothing, as zeros are,
is made a second time, which is less than to copy it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusec.analysis.in_place import taken_over
from fusec.ir.builder import Builder
from fusec.ir.core import Affine, Block, Function, Op, Value, definitions
from fusec.ir.ops.loop import Load, Region, Store, Update, updates
from fusec.ir.types import Axis
from fusec.passes.region_builder import RegionBuilder


def copy_updated(function: Function) -> Function:
    """The function with copies of what updates begin as and others read."""
    taken, made = taken_over(function), definitions(function.body)
    builder = Builder(function.level)
    env: dict[Value, Value] = {}
    for old in function.params:
        env[old] = builder.param(old.type, old.hint)
    for op in function.body.ops:
        builder.loc = op.loc
        starts = _copied(op, taken) if isinstance(op, Region) else {}
        if not starts:
            results = builder.copy(op, env)
        else:
            assert isinstance(op, Region)
            outer = dict(zip(op.body.params, op.inputs, strict=False))
            copies = [
                _copy(builder, env[outer[start]], made.get(outer[start]))
                for start in starts.values()
            ]
            results = _emit(builder, op, env, list(starts), copies)
        env.update(zip(op.results, results, strict=True))
    return builder.successor(function, [env[v] for v in function.body.yields])


def _copied(op: Region, taken: Mapping[Value, Value]) -> dict[Value, Value]:
    """By the updated results whose memory is to be new, as the block has them, what
    they begin as."""
    names = dict(zip(op.body.params[len(op.inputs) :], op.results, strict=True))
    found = updates(op.body).items()
    return {v: each.start for v, each in found if names[v] not in taken}


def _copy(builder: Builder, tensor: Value, made: Op | None) -> Value:
    """A tensor of the same elements, in memory of its own."""
    if isinstance(made, Region) and not made.inputs and len(made.results) == 1:
        return builder.copy(made, {})[0]
    region = RegionBuilder(builder)
    axes = [Axis(f"i{d}", n) for d, n in enumerate(tensor.shape)]
    index = tuple(Affine() if a.extent == 1 else Affine.of(a) for a in axes)
    (element,) = region.builder.emit(Load, (region.input(tensor),), (index, False))
    copy = Value(tensor.type, tensor.hint)
    region.builder.emit(Store, (element, region.output(copy)), (index,))
    return region.finish().emit(builder, {})[0]


def _emit(
    builder: Builder,
    op: Region,
    env: Mapping[Value, Value],
    results: Sequence[Value],
    copies: Sequence[Value],
) -> Sequence[Value]:
    """Emit a region, some of its results beginning as these copies."""
    starts = {v: Value(copy.type) for v, copy in zip(results, copies, strict=True)}
    ops = tuple(_begun(inner, starts) for inner in op.body.ops)
    used = {v for inner in ops for v in inner.operands}
    count = len(op.inputs)
    params = zip(op.body.params[:count], op.inputs, strict=True)
    inputs = [(param, env[v]) for param, v in params if param in used]
    inputs += zip(starts.values(), copies, strict=True)
    block = Block((*(p for p, _ in inputs), *op.body.params[count:]), ops)
    operands = [v for _, v in inputs]
    hints = tuple(v.hint for v in op.results)
    return builder.emit(Region, operands, (), (block,), op.loc, hints)


def _begun(op: Op, starts: Mapping[Value, Value]) -> Op:
    """An op of the block, an update with what it now begins as."""
    if not isinstance(op, Update) or op.buffer not in starts:
        return op
    operands = (op.value, op.buffer, starts[op.buffer], *op.indices)
    return Update(operands, op.attrs, (), (), op.loc)
