"""Share a long reduction out among programs where few points would keep cores idle.

    %s = region(%x) over r:1000000 { load %x [r]; reduce r sum; store %s [] }
        →
    %p = region(%x) over b:8, k:125000 {
      load %x [125000*b + k]; reduce k sum; store %p [b] }
    %s = region(%p) over b:8 { load %p [b]; reduce b sum; store %s [] }

Each reduction that others wait for makes a region of its own, whose programs first
combine the parts of the reductions before it: they are few. Blocks of the axis are of
one size; of the last one, elements beyond the axis are masked, and count as the
identity. How many there are depends on the target, never on how many threads run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from fusec.analysis.accesses import Accesses, accesses
from fusec.analysis.affine import axes_of
from fusec.analysis.choices import SHARES, choose, work
from fusec.analysis.cost import Work, likely, seconds
from fusec.analysis.fingerprint import Fingerprints
from fusec.ir.builder import Builder
from fusec.ir.core import Affine, Block, Function, Op, Value, Values, definitions
from fusec.ir.dims import Dim, Symbol, ceil_div, exact_div, product
from fusec.ir.ops.checks import Check
from fusec.ir.ops.elementwise import And, Lt, Not, Or, Select
from fusec.ir.ops.loop import Coordinate, Load, Region, Store, Update, Write
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.reduction import Reduce, Scan
from fusec.ir.types import Axis, Tensor
from fusec.passes.region_builder import RegionBuilder
from fusec.passes.views import affine_value
from fusec.target import Target

LEAST = 1 << 13
"""Elements below which a part of a reduction is not worth a program."""
LANES = 64
"""Blocks of an axis that has no even parts are multiples of so many elements."""
GAIN = 0.8
"""The share of its time that a region must come down to."""


def split_reductions(
    function: Function, target: Target, hints: Mapping[Symbol, int]
) -> Function:
    """The function with reductions split where the cost model expects a gain."""
    builder = Builder(function.level)
    env: dict[Value, Value] = {}
    for old in function.params:
        env[old] = builder.param(old.type, old.hint)
    fingerprints = Fingerprints(function.facts, hints)
    whole: set[object] = set()
    """The fingerprints of regions that stay: models repeat their layers."""
    for op in function.body.ops:
        builder.loc = op.loc
        split = None
        if isinstance(op, Region) and (known := fingerprints.of(op.body)) not in whole:
            split = _split_of(op, target, hints)
            whole.update([] if split else [known])
        if split is None:
            results = builder.copy(op, env)
        else:
            assert isinstance(op, Region)
            results = _Splitting(builder, op, split).run(env)
        env.update(zip(op.results, results, strict=True))
    return builder.successor(function, [env.get(v, v) for v in function.body.yields])


@dataclass(frozen=True, slots=True)
class _Split:
    """An axis as `blocks` runs of `inner` elements."""

    axis: Axis
    blocks: Axis
    inner: Axis

    @property
    def place(self) -> Affine:
        """Where on the axis an element is."""
        stride = self.inner.extent
        return Affine.of(self.blocks) * stride + Affine.of(self.inner)

    @property
    def exact(self) -> bool:
        """Whether the blocks hold no more than the axis."""
        return self.blocks.extent * self.inner.extent == self.axis.extent


def _split_of(op: Region, target: Target, hints: Mapping[Symbol, int]) -> _Split | None:
    """How to split a region, if that pays."""
    reduces = [inner for inner in op.body.ops if isinstance(inner, Reduce)]
    if not reduces or any(isinstance(inner, Scan) for inner in op.body.ops):
        return None
    axes = reduces[0].axes
    if not axes or any(set(r.axes) != set(axes) for r in reduces):
        return None
    found = accesses(op)
    now = work(found, choose(found, target, hints), hints)
    wanted = -(-SHARES * target.cores // max(1, now.programs))
    axis = _longest(axes, wanted, hints)
    most = likely(product(a.extent for a in axes), hints) // LEAST
    count = _count(axis.extent, min(wanted, most, likely(axis.extent, hints)))
    if count < 2 or not _pays(found, now, count, target):
        return None
    inner = ceil_div(axis.extent, count)
    if inner * count != axis.extent:
        inner = ceil_div(inner, LANES) * LANES
        filled = ceil_div(axis.extent, inner)
        count = filled if isinstance(filled, int) else count
    return _Split(axis, Axis("b", count), Axis(axis.name, inner))


def _longest(axes: tuple[Axis, ...], wanted: int, hints: Mapping[Symbol, int]) -> Axis:
    """The outermost axis that has enough to share, or the one that has most."""
    extents = {axis: likely(axis.extent, hints) for axis in axes}
    enough = (axis for axis in axes if extents[axis] >= 2 * wanted)
    return next(enough, max(axes, key=extents.__getitem__))


def _count(extent: Dim, wanted: int) -> int:
    """How many blocks: near what is wanted, and even parts if there are such."""
    near = sorted(range(wanted, 2 * wanted), key=lambda n: n - wanted)
    return next((n for n in near if exact_div(extent, n) is not None), wanted)


def _pays(found: Accesses, now: Work, count: int, target: Target) -> bool:
    """Whether more programs save more than another launch costs."""
    shared = Work(now.read, now.written, now.operations, now.programs * count)
    return seconds(shared, target) + target.launch < GAIN * seconds(now, target)


class _Part(RegionBuilder):
    """A region under construction that computes part of another."""

    def __init__(self, around: Builder) -> None:
        super().__init__(around)
        self.env: dict[Value, Value] = {}
        """What values of the whole region are here."""

    def here(self, value: Value) -> Value:
        """A value of the region as it is known in this part."""
        return self.env.get(value, value)


class _Splitting:
    """The state of splitting one region."""

    def __init__(self, builder: Builder, op: Region, split: _Split) -> None:
        self.builder = builder
        self.op = op
        self.split = split
        self.levels = _levels(op.body)
        self.made = definitions(op.body)
        self.checks = [inner for inner in op.body.ops if isinstance(inner, Check)]
        self.parts: dict[Reduce, Values] = {}
        """The tensors of parts of each reduction, a dimension of blocks last."""

    def run(self, env: Mapping[Value, Value]) -> Values:
        outer = (*self.op.inputs, *self.op.results)
        self.outer = dict(zip(self.op.body.params, outer, strict=True))
        self.env = env
        reduces = [op for op in self.op.body.ops if isinstance(op, Reduce)]
        for level in range(1 + max(self.levels[op] for op in reduces)):
            self.reduce([op for op in reduces if self.levels[op] == level])
        return self.finish()

    def reduce(self, reduces: list[Reduce]) -> None:
        """A region that stores the parts of some reductions."""
        part = _Part(self.builder)
        inside = None if self.split.exact else self.inside(part.builder)
        # What waits for no reduction is checked once, beside the first ones.
        early = [] if self.parts else [op for op in self.checks if not self.levels[op]]
        needed = self.before([*reduces, *early])
        for op in self.op.body.ops:
            if op in early or op in needed:
                self.emit(part, op, inside)
        for op in reduces:
            for k, value in enumerate(self.partial(part, op, inside)):
                self.store(part, op, k, value)
        tensors = iter(part.finish().emit(self.builder, {}))
        self.parts.update(
            {op: tuple(islice(tensors, len(op.results))) for op in reduces}
        )

    def partial(self, part: _Part, op: Reduce, inside: Value | None) -> Values:
        """What a block of a reduction comes to."""
        b = part.builder
        values = [part.here(v) for v in op.values]
        if inside is not None:
            pairs = zip(values, op.monoid.identity, strict=True)
            values = [
                b(Select, inside, v, b.const(nothing, dtype_of(v)))
                for v, nothing in pairs
            ]
        inner = self.split.inner
        axes = tuple(inner if a is self.split.axis else a for a in op.axes)
        return b.emit(Reduce, values, (axes, op.monoid), (), op.loc)

    def store(self, part: _Part, op: Reduce, k: int, value: Value) -> None:
        """Store one component of the parts of a reduction."""
        axes = (*axes_of(op.results[0]), self.split.blocks)
        shape = tuple(axis.extent for axis in axes)
        hint = op.results[k].hint or "part"
        target = part.output(Value(Tensor(op.results[k].dtype, shape), hint))
        index = tuple(map(Affine.of, axes))
        part.builder.emit(Store, (value, target), (index,), (), op.loc)

    def finish(self) -> Values:
        """The region that combines the last parts and stores the results."""
        part = _Part(self.builder)
        made = set(self.op.results)
        for param, tensor in self.outer.items():
            if tensor in made:
                part.env[param] = part.output(tensor)
        stores = [op for op in self.op.body.ops if isinstance(op, Write)]
        ends = [*stores, *(op for op in self.checks if self.levels[op])]
        needed = self.before(ends)
        for op in self.op.body.ops:
            if op in ends or op in needed:
                self.emit(part, op, None, whole=True)
        return part.finish().emit(self.builder, {})

    def before(self, ends: Sequence[Op]) -> set[Op]:
        """The ops that others need, back to the reductions before them."""
        needed: set[Op] = set()
        stack = [value for op in ends for value in op.operands]
        while stack:
            op = self.made.get(stack.pop())
            if op is None or op in needed:
                continue
            needed.add(op)
            if not isinstance(op, Reduce):
                stack.extend(op.operands)
        return needed

    def emit(
        self, part: _Part, op: Op, inside: Value | None, whole: bool = False
    ) -> None:
        """Emit an op of the region at the points of a part."""
        b = part.builder
        b.loc = op.loc
        if isinstance(op, Reduce):
            results = self.combined(part, op)
        elif isinstance(op, Load):
            results = (self.load(part, op, inside, whole),)
        elif isinstance(op, Coordinate) and op.axis is self.split.axis and not whole:
            results = (affine_value(b, self.split.place),)
        elif isinstance(op, Check) and inside is not None:
            held = part.here(op.ok)
            ok = b(Or, held, b(Not, inside))
            results = b.emit(Check, (ok,), op.attrs)
        else:
            if isinstance(op, Update):
                begun = self.outer[op.start]
                part.env[op.start] = part.input(self.env.get(begun, begun))
            results = b.copy(op, part.env)
        part.env.update(zip(op.results, results, strict=True))

    def combined(self, part: _Part, op: Reduce) -> Values:
        """A reduction of an earlier region, from its parts."""
        axes = (*axes_of(op.results[0]), self.split.blocks)
        index = tuple(map(Affine.of, axes))
        loads = [
            part.builder.emit(Load, (part.input(tensor),), (index, False))[0]
            for tensor in self.parts[op]
        ]
        attrs = ((self.split.blocks,), op.monoid)
        return part.builder.emit(Reduce, loads, attrs, (), op.loc, op.hints)

    def load(self, part: _Part, op: Load, inside: Value | None, whole: bool) -> Value:
        """A load where the part stands; nothing is read beyond the axis."""
        b = part.builder
        tensor = self.outer[op.buffer]
        operands: list[Value] = [part.here(v) for v in op.indices]
        places = {} if whole else {self.split.axis: self.split.place}
        index = tuple(
            entry.substitute(places) if isinstance(entry, Affine) else entry
            for entry in op.index
        )
        masked: bool = op.masked
        if inside is not None and self.split.axis in axes_of(op.result):
            if masked:
                operands[-2] = b(And, operands[-2], inside)
            else:
                operands += [inside, b.const(0, op.buffer.dtype)]
            masked = True
        held = part.input(self.env.get(tensor, tensor))
        hints = (op.result.hint,)
        attrs = (index, masked)
        return b.emit(Load, (held, *operands), attrs, (), op.loc, hints)[0]

    def inside(self, b: Builder) -> Value:
        """Whether a place is on the axis."""
        at = affine_value(b, self.split.place)
        return b(Lt, at, b.size(self.split.axis.extent))


def _levels(block: Block) -> dict[Op, int]:
    """For each op, the longest chain of reductions before it."""
    levels: dict[Op, int] = {}
    ready: dict[Value, int] = {}
    for op in block.ops:
        levels[op] = max((ready.get(v, 0) for v in op.operands), default=0)
        after = levels[op] + isinstance(op, Reduce)
        ready.update(dict.fromkeys(op.results, after))
    return levels
