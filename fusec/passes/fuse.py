"""Make one region of every group that the fusion analysis finds.

    %a = region(%x) over i { load %x [i]; exp; store %a [i] }
    %b = region(%a) over j { load %a [j]; neg; store %b [j] }      %a has no other user
        →
    %b = region(%x) over j { load %x [j]; exp; neg; store %b [j] }

Producers are emitted where consumers read, their axes replaced by expressions in the
consumer's (their placement); the builder merges what two regions load or compute
alike. A tensor that only the group itself read is never stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from fusec.analysis.affine import covers, within
from fusec.analysis.fusion import Fusion, Group, Plan
from fusec.analysis.placement import (
    Computed,
    Place,
    Placement,
    coordinate,
    is_computed,
    place_key,
    placed,
)
from fusec.ir.builder import Builder
from fusec.ir.calls import Slot
from fusec.ir.core import Affine, Block, Function, Op, Value, Values, definitions
from fusec.ir.dims import Dim, Symbol
from fusec.ir.dtypes import i64
from fusec.ir.ops.checks import Check
from fusec.ir.ops.elementwise import Add, And, Ge, Lt, Mul, Not, Or, Select
from fusec.ir.ops.loop import Coordinate, Load, Store, Update, Write
from fusec.ir.ops.reduction import Reduce, Scan
from fusec.passes.region_builder import BoundBlock, RegionBuilder, slotted
from fusec.passes.views import affine_value
from fusec.target import Target


def fuse(function: Function, target: Target, hints: Mapping[Symbol, int]) -> Function:
    """The function with its regions fused as the cost model sees fit."""
    fusion = Fusion(function, target, hints)
    return emit_plan(fusion, fusion.run())


def emit_plan(fusion: Fusion, plan: Plan) -> Function:
    """The function with one region per group."""
    regions = fusion.regions
    builder = Builder(regions.function.level)
    env: dict[Value, Value] = {}
    for old in regions.function.params:
        env[old] = builder.param(old.type, old.hint)
    written: dict[Group, BoundBlock] = {}
    for group in plan.groups:
        op = regions.ops[group.number]
        builder.loc = op.loc
        if group.members and not _is_whole(group, op):
            like = group.like
            if like not in written:
                written[like] = _write(builder, fusion, like)
            _emit_group(builder, fusion, group, written[like], env)
        elif group.members or not op.pure or any(map(regions.is_read, op.results)):
            env.update(zip(op.results, builder.copy(op, env), strict=True))
    yields = [env.get(v, v) for v in regions.function.body.yields]
    return builder.successor(regions.function, yields)


def _is_whole(group: Group, op: Op) -> bool:
    """Whether a group is one region, all results of which are read."""
    return len(group.members) == 1 and group.stored == {*op.results}


def _write(around: Builder, fusion: Fusion, group: Group) -> BoundBlock:
    """Write the regions of a group one after the other."""
    writer = _Writer(around, fusion, group)
    for k in sorted(group.members):
        for placement in group.members[k]:
            if not is_computed(placement):
                writer.write(k, placement)
    return writer.finish()


def _emit_group(
    builder: Builder,
    fusion: Fusion,
    group: Group,
    written: BoundBlock,
    env: dict[Value, Value],
) -> None:
    """Emit the region of a group, by what was written for one like it."""
    theirs = fusion.regions.values(group.like.members)
    ours = fusion.regions.values(group.members)
    named = dict(zip(theirs, ours, strict=True))
    inputs, outputs = (
        tuple(named[tensor] for tensor in tensors)
        for tensors in (written.inputs, written.outputs)
    )
    results = BoundBlock(written.block, inputs, outputs).emit(builder, env)
    env.update(zip(outputs, results, strict=True))


class _Writer(RegionBuilder):
    """One fused region under construction."""

    def __init__(self, around: Builder, fusion: Fusion, group: Group) -> None:
        super().__init__(around)
        self.regions = fusion.regions
        self.places = fusion.places
        self.group = group
        summaries = (self.regions.summaries[k] for k in group.members)
        self.guarded = any(load.masked for s in summaries for _, load in s.loads)
        self.points: dict[tuple[Value, object], Value] = {}
        """Elements of fused tensors, by the index at which they are known."""
        self.computed: dict[Computed, Value] = {}
        """Coordinates that one region computes for another."""

    def write(self, k: int, placement: Placement) -> None:
        """Emit a region in place."""
        self.emit(k, self.regions.summaries[k].op.body.ops, placement, {})

    def emit(
        self, k: int, ops: Sequence[Op], placement: Placement, env: dict[Value, Value]
    ) -> None:
        """Emit some ops of region k in place; `env` receives what they become."""
        op = self.regions.summaries[k].op
        outer = dict(zip(op.body.params, (*op.inputs, *op.results), strict=True))
        for inner in ops:
            self.builder.loc = inner.loc if inner.loc.file else op.loc
            if isinstance(inner, Load):
                results = (self.load(inner, outer[inner.buffer], k, placement, env),)
            elif isinstance(inner, Store):
                self.store(inner, outer[inner.buffer], placement, env)
                continue
            elif isinstance(inner, Update):
                self.update(inner, outer, placement, env)
                continue
            elif isinstance(inner, Check):
                self.check(inner, k, placement, env)
                continue
            else:
                results = self.copy(inner, placement, env)
            env.update(zip(inner.results, results, strict=True))

    def copy(self, op: Op, placement: Placement, env: Mapping[Value, Value]) -> Values:
        """Emit an op that touches no memory."""
        if isinstance(op, Coordinate):
            return (self.number(coordinate(placement, op.axis)),)
        operands = [env.get(v, v) for v in op.operands]
        attrs = op.attrs
        if isinstance(op, Reduce):
            axes = [x for a in op.axes for x in coordinate(placement, a).axes]
            attrs = (tuple(axes), op.monoid)
        elif isinstance(op, Scan):
            attrs = (coordinate(placement, op.axis).axes[0], op.monoid)
        return self.builder.emit(type(op), operands, attrs, (), None, op.hints)

    def check(
        self, op: Check, k: int, placement: Placement, env: Mapping[Value, Value]
    ) -> None:
        """Emit a check of region k: it holds where nobody wants the region's element.

        A reader that pads or concatenates walks further than the tensor reaches.
        """
        b, ok = self.builder, env.get(op.ok, op.ok)
        if self.guarded:
            region = self.regions.summaries[k]
            tensor = next(iter((*region.stores, *region.updates)))
            written, shape = region.written(tensor)
            index = [self.entry(entry, placement) for entry in written]
            computed = [e for e in index if isinstance(e, Value)]
            inside = self.inside(index, shape, computed)
            ok = ok if inside is None else b(Or, ok, b(Not, inside))
        b.emit(Check, (ok,), op.attrs)

    def number(self, place: Place) -> Value:
        """A coordinate as a value."""
        if isinstance(place, Affine):
            return affine_value(self.builder, place)
        if place not in self.computed:
            self.computed[place] = self.compute(place)
        return self.computed[place]

    def compute(self, place: Computed) -> Value:
        """Emit what the reader computes the coordinate from, before its own turn."""
        body = self.regions.summaries[place.reader].op.body
        needed = _needed(body, place.value)
        env: dict[Value, Value] = {}
        ops = [op for op in body.ops if op in needed]
        self.emit(place.reader, ops, place.placement, env)
        return env[place.value]

    def place(
        self, op: Load | Write, placement: Placement, env: Mapping[Value, Value]
    ) -> list[Affine | Value]:
        """The index of an access in the group's axes."""
        index: list[Affine | Value] = []
        for entry in op.index:
            if isinstance(entry, Slot):
                index.append(env[op.slots[entry.index]])
            else:
                index.append(self.entry(entry, placement))
        return index

    def entry(self, entry: Affine, placement: Placement) -> Affine | Value:
        """One affine entry of an index in the group's axes."""
        place = placed(entry, placement)
        return place if isinstance(place, Affine) else self.total(entry, placement)

    def total(self, entry: Affine, placement: Placement) -> Value:
        """An index as a value, from axes some of which are computed."""
        b = self.builder
        total = b.size(entry.const)
        for axis, stride in entry.terms:
            number = self.number(coordinate(placement, axis))
            total = b(Add, total, b(Mul, number, b.size(stride)))
        return total

    def load(
        self,
        op: Load,
        tensor: Value,
        k: int,
        placement: Placement,
        env: Mapping[Value, Value],
    ) -> Value:
        index = self.place(op, placement, env)
        guard = [env[op.mask], env[op.other]] if op.masked else []
        if self.regions.maker.get(tensor) in self.group.members:
            at = tensor, _index_key(index, tensor.shape)
            if at not in self.points:
                wanted = self.places.wanted(op, k, placement)
                self.write_late(tensor, wanted)
            element = self.points[at]
            if not guard:
                return element
            return self.builder(Select, guard[0], element, guard[1])
        inside = None
        if self.guarded:
            checked = [e for e in index if isinstance(e, Value)]
            inside = self.inside(index, tensor.shape, checked)
        if inside is not None:
            zero = self.builder.const(0, tensor.dtype)
            guard = (
                [self.builder(And, guard[0], inside), guard[1]]
                if guard
                else [inside, zero]
            )
        return self.read(self.input(tensor), index, guard)

    def write_late(self, tensor: Value, wanted: Sequence[Place | None]) -> None:
        """Emit the maker of a tensor where a computed coordinate wants it."""
        maker = self.regions.maker[tensor]
        store = self.regions.summaries[maker].stores[tensor]

        def same(placement: Placement) -> bool:
            return all(
                extent == 1 or place_key(placed(entry, placement)) == place_key(place)
                for entry, place, extent in zip(
                    store, wanted, tensor.shape, strict=True
                )
            )

        for placement in self.group.members[maker]:
            if is_computed(placement) and same(placement):
                self.write(maker, placement)

    def read(
        self, buffer: Value, index: list[Affine | Value], guard: list[Value]
    ) -> Value:
        entries, slots = slotted(index)
        operands = (buffer, *slots, *guard)
        (value,) = self.builder.emit(Load, operands, (entries, bool(guard)))
        return value

    def inside(
        self,
        index: Sequence[Affine | Value],
        shape: tuple[Dim, ...],
        checked: Sequence[Value],
    ) -> Value | None:
        """Whether an index lies in its tensor; None where it always does.

        A producer that is read under a mask is computed at every point, also where
        its own index leaves the tensor and nobody wants the element. Of computed
        coordinates only the `checked` may do so.
        """
        b = self.builder
        checks: list[Value] = []
        for entry, extent in zip(index, shape, strict=True):
            if isinstance(entry, Affine):
                if within(entry, extent):
                    continue
                at = affine_value(b, entry)
            elif entry in checked:
                at = entry
            else:
                continue
            checks += [b(Ge, at, b.const(0, i64)), b(Lt, at, b.size(extent))]
        return reduce(lambda x, y: b(And, x, y), checks) if checks else None

    def store(
        self, op: Store, tensor: Value, placement: Placement, env: Mapping[Value, Value]
    ) -> None:
        index = self.place(op, placement, env)
        value = env.get(op.value, op.value)
        self.points[tensor, _index_key(index, tensor.shape)] = value
        wanted = tensor in self.group.stored and tensor not in self.outputs
        affine = [entry for entry in index if isinstance(entry, Affine)]
        if not wanted or len(affine) < len(index):
            return
        if not covers(affine, tensor.shape):
            return
        self.builder.emit(Store, (value, self.output(tensor)), (tuple(affine),))

    def update(
        self,
        op: Update,
        outer: Mapping[Value, Value],
        placement: Placement,
        env: Mapping[Value, Value],
    ) -> None:
        """Emit an update where its region meets each of its points once."""
        tensor, places = outer[op.buffer], [coordinate(placement, a) for a in op.axes]
        affine = [place for place in places if isinstance(place, Affine)]
        if tensor not in self.group.stored or tensor in self.outputs:
            return
        extents = tuple(axis.extent for axis in op.axes)
        if len(affine) < len(places) or not covers(affine, extents):
            return
        entries, slots = slotted(self.place(op, placement, env))
        mask = [env.get(op.mask, op.mask)] if op.masked else []
        start, value = self.input(outer[op.start]), env.get(op.value, op.value)
        axes = tuple(axis for place in affine for axis in place.axes)
        operands = (value, self.output(tensor), start, *slots, *mask)
        self.builder.emit(Update, operands, (entries, axes, op.combine, op.masked))


def _needed(block: Block, value: Value) -> set[Op]:
    """The ops of a block that a value is computed from."""
    made = definitions(block)
    needed: set[Op] = set()
    stack = [value]
    while stack:
        op = made.get(stack.pop())
        if op is not None and op not in needed:
            needed.add(op)
            stack.extend(op.operands)
    return needed


def _index_key(index: Sequence[Affine | Value], shape: Sequence[Dim]) -> object:
    """An index as something to compare by; in an extent of 1 all of them are 0."""
    return tuple(
        None
        if extent == 1
        else (frozenset(entry.terms), entry.const)
        if isinstance(entry, Affine)
        else entry
        for entry, extent in zip(index, shape, strict=True)
    )
