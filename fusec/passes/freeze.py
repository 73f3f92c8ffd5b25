"""Compute what depends on frozen parameters alone once, and keep it:

    loop @f(%x: f32[64, 512], %w: f32[1024, 512]) frozen [1] {
      %y = region(%x, %w) over i, j, k { … load %w [j, k] … mul, reduce k … } }
        →
    loop @f(%x, %w, %p: f32[64, 512, 16, 1]) {
      %y = region(%x, %p) over i, j, j0, k { … load %p [j, k, j0, 0] … } }
    loop @f_kept(%x, %w) {
      %p = region(%w) { load %w [16*j + j0, k]; store %p [j, k, j0, 0] }
      yield %p }

The second function takes what the first was given, and makes what the first is given
besides. It has whole regions whose operands are frozen, but for those whose results the
caller gets, who may write to them; and the factors of products, computed and packed in
the panels that a product is made of, where the cost model sees a gain. What is kept has
no more than twice the bytes that the frozen parameters have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fusec.analysis.accesses import accesses
from fusec.analysis.affine import axes_of
from fusec.analysis.blocking import Panels, packings
from fusec.analysis.choices import product_seconds
from fusec.analysis.contraction import Contraction, contraction
from fusec.analysis.frozen import frozen_values
from fusec.ir.builder import Builder, without_dead_ops
from fusec.ir.core import (
    Affine,
    Block,
    Function,
    Level,
    Op,
    Value,
    Values,
    definitions,
)
from fusec.ir.dims import Symbol
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.checks import Check
from fusec.ir.ops.loop import Load, Region, Store, View, Write
from fusec.ir.sizes import used_symbols
from fusec.ir.types import Axis, Tensor
from fusec.passes.region_builder import BoundBlock, RegionBuilder, relocated
from fusec.target import Target

KEPT = "_kept"
"""What the name of the function ends with that makes what is kept."""
MOST = 2
"""Bytes that may be kept for each of a frozen parameter: those of integers widen."""
GAIN = 0.97
"""The share of its time that a product must come down to."""


def freeze(
    function: Function, target: Target, hints: Mapping[Symbol, int]
) -> tuple[Function, ...]:
    """The function that is given what is kept, and the one that makes it; the function
    alone, where there is nothing to keep."""
    if not function.frozen:
        return (function,)
    return _Freezing(function, target, hints).run()


@dataclass(frozen=True, slots=True, eq=False)
class _Packed:
    """A product that reads packed factors, over the parameters of its block."""

    product: BoundBlock
    factors: tuple[BoundBlock, ...]
    """What makes each of them."""

    @property
    def bytes(self) -> int:
        return sum(_bytes(value) for each in self.factors for value in each.outputs)


class _Freezing:
    """One sweep over a function, which is taken apart."""

    def __init__(
        self, function: Function, target: Target, hints: Mapping[Symbol, int]
    ) -> None:
        self.function = function
        self.target = target
        self.hints = hints
        self.main, self.once = Builder(function.level), Builder(function.level)
        self.env = {v: self.main.param(v.type, v.hint) for v in function.params}
        """The values of the function in the one that is left of it."""
        known = {v: self.once.param(v.type, v.hint) for v in function.params}
        frozen = [function.params[k] for k in function.frozen]
        self.known = {v: known[v] for v in frozen}
        """Those that stay the same, in the one that makes what is kept."""
        self.room = MOST * sum(map(_bytes, frozen))
        self.made = definitions(function.body)
        self.frozen = frozen_values(function)
        self.kept: dict[Value, Value] = {}
        """What is kept, and the parameter that it is given as."""
        self.packed: dict[tuple[Block, frozenset[Value]], _Packed | None] = {}

    def run(self) -> tuple[Function, ...]:
        for op in self.function.body.ops:
            self.main.loc = self.once.loc = op.loc
            if self.is_kept(op):
                copied = self.once.copy(op, self.known)
                self.known.update(zip(op.results, copied, strict=True))
                continue
            packed = self.packing(op) if isinstance(op, Region) else None
            if packed is not None:
                assert isinstance(op, Region)
                results = self.product(op, packed)
            else:
                here = {v: self.here(v) for v in op.operands}
                results = self.main.copy(op, here)
            self.env.update(zip(op.results, results, strict=True))
        yields = [self.here(v) for v in self.function.body.yields]
        main = replace(self.main.successor(self.function, yields), frozen=())
        if not self.kept:
            return (main,)
        once = without_dead_ops(self.once.block(self.kept))
        return main, replace(
            main, name=self.function.name + KEPT, body=once, returns_into=()
        )

    # What stays the same as a whole

    def is_kept(self, op: Op) -> bool:
        """Whether an op gives the same in each call, and there is room for that."""
        if not op.results or not self.frozen.issuperset(op.results):
            return False
        size = 0 if isinstance(op, View) else sum(map(_bytes, op.results))
        if not self.known.keys() >= {*op.operands} or size > self.room:
            return False
        self.room -= size
        return True

    def here(self, value: Value) -> Value:
        """A value in what is left of the function: kept, if it stays the same."""
        views: list[View] = []
        base = value
        while base not in self.env:
            op = self.made[base]
            if isinstance(op, View):
                views.append(op)
                base = op.x
            else:
                self.env[base] = self.keep(self.known[base])
        for view in reversed(views):
            (self.env[view.result],) = self.main.copy(view, self.env)
        return self.env[value]

    def keep(self, value: Value) -> Value:
        """The parameter that a value which is made once is given as."""
        if value not in self.kept:
            self.kept[value] = self.main.param(value.type, value.hint)
        return self.kept[value]

    # Factors of products

    def product(self, op: Region, packed: _Packed) -> Values:
        """A product on factors that are kept."""
        given = dict(zip(op.body.params, (*op.inputs, *op.results), strict=True))
        env: dict[Value, Value] = {}
        for block in packed.factors:
            (factor,) = block.outputs
            given[factor] = factor
            (made,) = block.on(given).emit(self.once, self.known)
            env[factor] = self.keep(made)
        product = packed.product.on(given)
        env |= {v: self.here(v) for v in product.inputs if v not in env}
        return product.emit(self.main, env)

    def packing(self, op: Region) -> _Packed | None:
        """The product that a region is, with packed factors, if that is faster and
        there is room for them."""
        tensors = zip(op.body.params, op.inputs, strict=False)
        frozen = frozenset(p for p, v in tensors if v in self.known)
        if not frozen:
            return None
        key = op.body, frozen
        if key not in self.packed:
            self.packed[key] = self.fastest(op, frozen)
        packed = self.packed[key]
        if packed is None or packed.bytes > self.room:
            return None
        self.room -= packed.bytes
        return packed

    def fastest(self, op: Region, frozen: frozenset[Value]) -> _Packed | None:
        """The fastest form of a product, if that has packed factors."""
        found = accesses(op)
        c = contraction(found)
        if c is None:
            return None
        c, forms = packings(c, found, self.target)
        part = [each for y in c.ys for each in _part(op.body, y)]
        read = {each.buffer for each in part if isinstance(each, Load)}
        digits = {c.columns[-1], c.summed[-1]}  # none that others are merged into
        whole = all(digits <= {*axes_of(y)} for y in c.ys)
        if not read <= frozen or not whole or used_symbols(Block((), tuple(part))):
            return None
        best, least = None, GAIN * self.seconds(op)
        for form in forms:
            packed = _Packing(op, c, form).run()
            seconds = self.seconds(_region(packed.product))
            if seconds < least:
                best, least = packed, seconds
        return best

    def seconds(self, op: Region) -> float:
        """What a product is predicted to take."""
        found = accesses(op)
        c = contraction(found)
        return product_seconds(c, found, self.target, self.hints) if c else float("inf")


class _Packing:
    """The state of packing the columns of one product in panels of one form."""

    def __init__(self, op: Region, c: Contraction, form: Panels) -> None:
        self.op = op
        self.ys = {*c.ys}
        self.narrow = c.narrow
        self.form = form
        column, summed = c.columns[-1], c.summed[-1]
        self.digits = {
            axis: (Axis(axis.name, axis.extent // n), Axis(f"{axis.name}0", n))
            for axis, n in ((column, form.width), (summed, form.depth))
        }
        self.places = {
            axis: Affine.of(outer) * inner.extent + Affine.of(inner)
            for axis, (outer, inner) in self.digits.items()
        }
        """What the columns, and what is summed up, come to."""
        (panels, across), (places, together) = self.digits.values()
        self.panel = panels, places, across, together
        self.factors: list[BoundBlock] = []

    def run(self) -> _Packed:
        builder = Builder(Level.LOOP)
        product = RegionBuilder(builder)
        body, count = self.op.body, len(self.op.inputs)
        env = {p: product.input(p) for p in body.params[:count]}
        env |= {p: product.output(p) for p in body.params[count:]}
        for op in body.ops:
            product.builder.loc = op.loc
            if self.ys.isdisjoint(op.results):
                made = relocated(product.builder, op, env, self.places)
            else:
                made = (self.read(product, op.results[0]),)
            env.update(zip(op.results, made, strict=True))
        return _Packed(product.finish(), tuple(self.factors))

    def read(self, product: RegionBuilder, y: Value) -> Value:
        """A factor in the product, from its panels."""
        axes = self.axes(y)
        shape = tuple(axis.extent for axis in axes)
        panels = Value(Tensor(self.form.dtype, shape), "packed")
        self.factors.append(self.written(y, panels))
        b, place = product.builder, tuple(map(Affine.of, axes))
        (held,) = b.emit(Load, (product.input(panels),), (place, False))
        return b(Cast, held, dtype=y.dtype)

    def axes(self, y: Value) -> tuple[Axis, ...]:
        """The dimensions of the panels of a factor: batches, panels, other axes that
        are summed along, places, and the columns of a panel."""
        panels, places, across, together = self.panel
        batches = [axis for axis in axes_of(y) if axis not in self.digits]
        return (*batches, panels, places, across, together)

    def written(self, y: Value, panels: Value) -> BoundBlock:
        """The region that computes a factor and packs it."""
        region = RegionBuilder(Builder(Level.LOOP))
        b, env = region.builder, dict[Value, Value]()
        for param in self.op.body.params:
            env[param] = region.input(param)
        for op in _part(self.op.body, y):
            env.update(zip(op.results, relocated(b, op, env, self.places), strict=True))
        taken = y if self.form.dtype is y.dtype else self.narrow[y]
        value = b(Cast, env[taken], dtype=self.form.dtype)
        index = tuple(map(Affine.of, self.axes(y)))
        b.emit(Store, (value, region.output(panels)), (index,))
        return region.finish()


def _part(body: Block, y: Value) -> tuple[Op, ...]:
    """The ops of a region that a value comes from."""
    return without_dead_ops(
        replace(
            body,
            yields=(y,),
            ops=tuple(op for op in body.ops if not isinstance(op, (Write, Check))),
        )
    ).ops


def _region(bound: BoundBlock) -> Region:
    """A block as an op of a function that has nothing else."""
    builder = Builder(Level.LOOP)
    env = {v: builder.param(v.type, v.hint) for v in bound.inputs}
    op = builder.definition(bound.emit(builder, env)[0])
    assert isinstance(op, Region)
    return op


def _bytes(value: Value) -> int:
    """The size of a tensor, as far as it is known."""
    assert isinstance(value.type, Tensor)
    return value.type.bytes if isinstance(value.type.bytes, int) else 0
