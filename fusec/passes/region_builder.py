"""Regions under construction, and regions taken out of their function.

region = RegionBuilder(builder)            %y = region(%x) {
p, q = region.input(x), region.output(y)     %0 = load %x [i]
… load p; exp; store q …                     %1 = exp %0
env[y], = region.finish().emit(builder, env) store %1, %y [i] }
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fusec.ir.builder import Builder, without_dead_ops
from fusec.ir.calls import Slot
from fusec.ir.core import Affine, Block, Op, Value, Values
from fusec.ir.ops.loop import Coordinate, Load, Region, Update, Write
from fusec.ir.ops.reduction import Reduce
from fusec.ir.types import Axis
from fusec.passes.views import affine_value


@dataclass(frozen=True, slots=True, eq=False)
class BoundBlock:
    """The block of a region, and the tensors of a function that its parameters are."""

    block: Block
    inputs: Values
    outputs: Values

    @staticmethod
    def of(op: Region) -> BoundBlock:
        return BoundBlock(op.body, op.inputs, op.results)

    @property
    def tensors(self) -> dict[Value, Value]:
        """What each parameter is."""
        outer = (*self.inputs, *self.outputs)
        return dict(zip(self.block.params, outer, strict=True))

    def only(self, is_kept: Callable[[Op], bool]) -> BoundBlock:
        """The ops that are kept and all that they need, with the tensors of those."""
        ops = tuple(op for op in self.block.ops if is_kept(op))
        ops = without_dead_ops(Block(self.block.params, ops)).ops
        used = {value for op in ops for value in op.operands}
        kept = {p: tensor for p, tensor in self.tensors.items() if p in used}
        made = set(self.outputs)
        return BoundBlock(
            Block(tuple(kept), ops),
            tuple(tensor for tensor in kept.values() if tensor not in made),
            tuple(tensor for tensor in kept.values() if tensor in made),
        )

    def on(self, tensors: Mapping[Value, Value]) -> BoundBlock:
        """The same block with other tensors in place of its own."""
        inputs = tuple(tensors[value] for value in self.inputs)
        return BoundBlock(
            self.block, inputs, tuple(tensors[value] for value in self.outputs)
        )

    def emit(self, builder: Builder, env: Mapping[Value, Value]) -> Values:
        """Emit the region on what the inputs are in `env`; its results."""
        inputs = [env.get(tensor, tensor) for tensor in self.inputs]
        hints = tuple(tensor.hint for tensor in self.outputs)
        return builder.emit(Region, inputs, (), (self.block,), None, hints)


class RegionBuilder:
    """One region under construction: the tensors it reads, and those it makes.

    The parameters of its block have no names, for equal regions share it: they are
    called after the tensors of the region.
    """

    def __init__(self, around: Builder) -> None:
        self.builder = around.isolated()
        """That of the block."""
        self.inputs: dict[Value, Value] = {}
        """The block's name for each tensor that is read."""
        self.outputs: dict[Value, Value] = {}
        """The block's name for each tensor that is made."""

    def input(self, tensor: Value) -> Value:
        """The block's name for a tensor of the function, to load from."""
        return self.inputs.setdefault(tensor, Value(tensor.type))

    def output(self, tensor: Value) -> Value:
        """The block's name for a tensor that the region makes, to store into."""
        return self.outputs.setdefault(tensor, Value(tensor.type))

    def finish(self) -> BoundBlock:
        """The block, and the tensors that it reads in the end and makes."""
        params = (*self.inputs.values(), *self.outputs.values())
        block = Block(params, self.builder.block().ops)
        whole = BoundBlock(block, tuple(self.inputs), tuple(self.outputs))
        return whole.only(lambda op: True)


def slotted(
    index: Sequence[Affine | Value],
) -> tuple[tuple[Affine | Slot, ...], list[Value]]:
    """An index as an access has it, and the values of its computed entries."""
    slots: list[Value] = []
    entries: list[Affine | Slot] = []
    for entry in index:
        if isinstance(entry, Affine):
            entries.append(entry)
        else:
            entries.append(Slot(len(slots)))
            slots.append(entry)
    return tuple(entries), slots


def relocated(
    b: Builder, op: Op, env: Mapping[Value, Value], places: Mapping[Axis, Affine]
) -> Values:
    """Emit an op of a region where axes of it are others: `places` are what each comes
    to, as the digits of a number are. Nothing scans along them.
    """
    operands = [env.get(value, value) for value in op.operands]
    attrs = op.attrs
    if isinstance(op, Coordinate) and op.axis in places:
        return (affine_value(b, places[op.axis]),)
    if isinstance(op, (Load, Write)):
        index = (e.substitute(places) if isinstance(e, Affine) else e for e in op.index)
        attrs = (tuple(index), *op.attrs[1:])
    if isinstance(op, (Reduce, Update)):
        parts = (places[a].axes if a in places else (a,) for a in op.axes)
        axes = list(type(op).attr_fields).index("axes")
        whole = tuple(axis for part in parts for axis in part)
        attrs = (*attrs[:axes], whole, *attrs[axes + 1 :])
    return b.emit(type(op), operands, attrs, op.blocks, op.loc, op.hints)
