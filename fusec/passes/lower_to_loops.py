"""Graph level → loop level: whole-tensor ops become loops over named axes.

    %s = reshape %x {shape=(5, 12, 64)}          %e = region(%x) over a:5, h:12, d:64 {
    %e = exp %s                            →       %0 = load %x [a, 64*h + d]
                                                   %1 = exp %0
                                                   store %1, %e [a, h, d] }

Every op that computes becomes a region of its own; views become part of the index by
which their users read. Nothing is fused yet. What fusec does not compile stays an
`extern`; its operands are tensors or strided `view`s of them, copied where neither
will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fusec.analysis.factors import factors
from fusec.errors import Loc
from fusec.ir.builder import Builder, attrs_key
from fusec.ir.calls import Slot
from fusec.ir.core import Affine, Function, Level, Op, Value, Values, definitions
from fusec.ir.dims import Dim, product
from fusec.ir.monoids import VALUES_ONLY, monoid
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import Region, View
from fusec.ir.ops.reduction import ScanDim
from fusec.ir.ops.view import Broadcast, Permute, Reshape, Restride, Scatter, Slice
from fusec.ir.types import Axis, Opaque, Scalar, Tensor, strides_of
from fusec.passes.graph_regions import GraphRegion, Sources, emit_scalar
from fusec.passes.points import compute, scatter
from fusec.passes.region_forms import Forms
from fusec.passes.views import VIEWS, Coord, coordinate


def lower_to_loops(function: Function) -> Function:
    """The loop function of a graph function."""
    return _Lowering(function).run()


class _Lowering:
    """The state of one sweep over the graph."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.builder = Builder(Level.LOOP)
        self.sources = Sources(self.builder, factors(function))
        self.stored, self.made = self.sources.stored, self.sources.made
        self.forms = Forms(self.sources)
        self.made_by = definitions(function.body)
        self.lent = set(function.body.yields)
        """Tensors whose memory a result has, or may have."""
        self.fixed = set[Value]()
        """Tensors that no other region can compute: what calls gave, and what was
        updated."""

    def run(self) -> Function:
        for old in self.function.params:
            self.stored[old] = self.builder.param(old.type, old.hint)
        needed = _needed(self.function)
        used = {v for op in needed for v in op.operands}.union(
            self.function.body.yields
        )
        for op in self.function.body.ops:
            if op in needed:
                self.builder.loc = op.loc
                self.lower(_values_only(op, used) if isinstance(op, ScanDim) else op)
        self.builder.loc = Loc.UNKNOWN
        return self.builder.successor(self.function, self.results())

    def lower(self, op: Op) -> None:
        if isinstance(op, Extern):
            self.lower_extern(op)
        elif _is_lazy(op):
            self.made.update(dict.fromkeys(op.results, op))
        elif isinstance(op, Restride) and (view := self.as_view(op)) is not None:
            self.stored[op.result] = view
        elif isinstance(op, Scatter):
            self.lower_scatter(op)
        else:
            self.lower_region(op)

    def lower_extern(self, op: Extern) -> None:
        operands = [self.exact(value) for value in op.operands]
        results = self.builder.emit(Extern, operands, op.attrs, (), op.loc, op.hints)
        self.stored.update(zip(op.results, results, strict=True))
        self.fixed.update(op.results)

    def lower_region(self, op: Op) -> None:
        kind = type(op), attrs_key(op.attrs)
        made = self.region(
            kind, op.operands, op.results, lambda region: compute(region, op)
        )
        self.stored.update(zip(op.results, made, strict=True))

    def lower_scatter(self, op: Scatter) -> None:
        """A region over the elements that are combined into a tensor."""
        if 0 in op.src.shape:
            self.stored[op.result] = self.in_rows(op.x)
            return
        start = Value(op.result.type, op.x.hint)
        self.stored[start] = self.begun(op.x)
        kind = Scatter, attrs_key(op.attrs)
        operands, results = (op.src, *op.indices, start), op.results
        made = self.region(kind, operands, results, lambda r: scatter(r, op, start))
        self.stored.update(zip(results, made, strict=True))
        self.fixed.update(results)

    def begun(self, x: Value) -> Value:
        """The tensor that a result begins as, row by row in memory: what is the same
        everywhere is made for it alone."""
        made = self.made_by.get(x)
        if isinstance(made, Broadcast) and isinstance(made.x.type, Scalar):
            kind, own = (Broadcast, attrs_key(made.attrs)), (Value(x.type, x.hint),)
            alone = Broadcast(made.operands, made.attrs, (), own, made.loc)
            return self.region(kind, made.operands, own, lambda r: compute(r, alone))[0]
        held = self.stored.get(x)
        if held is not None and held.type == Tensor(x.dtype, x.shape):
            return held
        return self.in_rows(x)

    def in_rows(self, x: Value) -> Value:
        """A tensor of its own that holds a graph value, row by row in memory."""
        own = Value(Tensor(x.dtype, x.shape), x.hint)
        coords = [coordinate(axes) for axes in self.sources.axes(x)]

        def copy(r: GraphRegion) -> None:
            r.store(own, r.read(x, coords), coords)

        return self.region("rows", (x,), (own,), copy)[0]

    def region(
        self,
        kind: object,
        operands: Values,
        results: Values,
        build: Callable[[GraphRegion], None],
    ) -> Values:
        """Emit a region; the tensors that hold its results."""
        inputs, block = self.forms.lowered(kind, operands, results, build)
        hints = tuple(value.hint for value in results)
        return self.builder.emit(Region, inputs, (), (block,), None, hints)

    def results(self) -> list[Value]:
        """What the function yields: each tensor once, and none that is a parameter.

        One that replaces a parameter is copied when the call ends, so it may be any
        tensor, but for one that itself has been replaced by then.
        """
        yields, params = self.function.body.yields, self.function.params
        into = self.function.returns_into or (None,) * len(yields)
        replaced = {self.stored[params[k]] for k in into if k is not None}
        given = {self.stored[param] for param in params}
        found: list[Value] = []
        for value, k in zip(yields, into, strict=True):
            if isinstance(value.type, Scalar):
                found.append(self.scalar(value))
                continue
            taken = given if k is None else replaced - {self.stored[params[k]]}
            if k is None and value not in self.stored:
                self.reform(value)
            held = self.materialise(value)
            found.append(self.copied(value) if held in taken else held)
            if k is None:
                given.add(found[-1])
        return found

    def copied(self, value: Value) -> Value:
        """A tensor of its own that holds a graph value, on the line of that value."""
        before, op = self.builder.loc, self.made_by.get(value)
        self.builder.loc = op.loc if op and op.loc.file else before
        held = self.cloned(value)
        self.builder.loc = before
        return held

    def cloned(self, value: Value) -> Value:
        if isinstance(value.type, Opaque):
            attrs = ("aten.clone.default", (Slot(0),), (), (value.type,))
            return self.builder.emit(Extern, (self.stored[value],), attrs)[0]
        values = (value,)
        return self.region("copy", values, values, lambda r: r.copy(value))[0]

    def scalar(self, value: Value) -> Value:
        """A scalar of the graph as one of the function."""
        return emit_scalar(self.builder, self.made, value, self.stored.__getitem__)

    def materialise(self, value: Value) -> Value:
        """The tensor that holds a graph value, copied out of a view if need be."""
        if value not in self.stored:
            self.stored[value] = self.copied(value)
        return self.stored[value]

    def strided(self, value: Value) -> Value:
        """A graph value for an op that takes any strides: a view where one exists."""
        if isinstance(value.type, Scalar):
            return self.scalar(value)
        if value in self.stored:
            return self.stored[value]
        base, place = self.strided_view(value)
        if place is None:
            return self.materialise(value)
        held = self.stored[base]
        (view,) = self.builder.emit(
            View, (held,), (place.type, place.offset), (), None, (value.hint,)
        )
        return view

    def exact(self, value: Value) -> Value:
        """A graph value for a call that may look at memory: laid out as typed."""
        if isinstance(value.type, Tensor) and value not in self.stored:
            _, place = self.strided_view(value)
            if place is None or not _same_strides(place.type, strides_of(value.type)):
                return self.materialise(value)
        return self.strided(value)

    def reform(self, value: Value) -> None:
        """Let what no other region can compute be a result as it lies there, but for
        its shape."""
        base, place = self.strided_view(value)
        if base not in self.fixed or base in self.lent or place is None:
            return
        assert isinstance(value.type, Tensor)
        whole = product(value.shape) == product(base.shape) and place.offset == 0
        if whole and _same_strides(place.type, strides_of(value.type)):
            self.lent.add(base)
            held, hints = self.stored[base], (value.hint,)
            attrs = (value.type, place.offset)
            self.stored[value] = self.builder.emit(
                View, (held,), attrs, (), None, hints
            )[0]

    def as_view(self, op: Restride) -> Value | None:
        """A tensor with these strides that is there already, if it may be shared.

        Results of a program never share memory with each other or with a parameter,
        so a tensor is lent to one of them at most.
        """
        base, place = self.strided_view(op.x)
        held = self.stored[base]
        if place is None or not _same_strides(place.type, op.strides):
            return None
        if op.result in self.function.body.yields:
            if base in self.function.params or base in self.lent:
                return None
            self.lent.add(base)
        type_ = Tensor(op.x.dtype, op.x.shape, op.strides)
        hints = (op.result.hint,)
        (view,) = self.builder.emit(
            View, (held,), (type_, place.offset), (), None, hints
        )
        return view

    def strided_view(self, value: Value) -> tuple[Value, _Place | None]:
        """The tensor that a view looks at, and how, if plain strides can say it."""
        sources = self.sources
        axes = sources.axes(value)
        coords: Sequence[Coord] = [coordinate(factors) for factors in axes]
        builder, base = sources.builder.isolated(), value
        while base not in sources.stored:
            op = sources.made[base]
            coords = VIEWS[type(op)](builder, op, coords)
            base = op.operands[0]
        type_ = base.type
        assert isinstance(type_, Tensor)
        address = Affine()
        for coord, stride in zip(coords, strides_of(type_), strict=True):
            if not isinstance(coord, Affine):
                return base, None
            address = address + coord * stride
        strides = _single_strides(address, axes)
        # A flip steps backwards, which the strides of a tensor cannot.
        known = self.function.facts
        if strides is None or not all(known.proves_le(0, n) for n in strides):
            return base, None
        return base, _Place(Tensor(type_.dtype, value.shape, strides), address.const)


def _single_strides(
    address: Affine, axes: Sequence[tuple[Axis, ...]]
) -> tuple[Dim, ...] | None:
    """The stride of each dimension, if all its factors step by one.

    A dimension of one element may have any; it gets that of a dense tensor.
    """
    strides: list[Dim] = []
    below: Dim = 1
    for digits in reversed(axes):
        stride = address.stride(digits[-1]) if digits else below
        below = stride
        for axis in reversed(digits):
            if address.stride(axis) != below:
                return None
            below = below * axis.extent
        strides.append(stride)
    return tuple(reversed(strides))


def _same_strides(tensor: Tensor, strides: tuple[Dim, ...]) -> bool:
    """Whether a tensor has these strides, wherever a stride matters."""
    pairs = zip(tensor.shape, strides_of(tensor), strides, strict=True)
    return all(n == 1 or a == b for n, a, b in pairs)


def _needed(function: Function) -> set[Op]:
    """The ops that a result or an effect depends on."""
    live = set(function.body.yields)
    needed: set[Op] = set()
    for op in reversed(function.body.ops):
        if not op.pure or not live.isdisjoint(op.results):
            needed.add(op)
            live.update(op.operands)
    return needed


@dataclass(frozen=True, slots=True)
class _Place:
    """A strided view: its type, and how many elements in it begins."""

    type: Tensor
    offset: Dim


def _values_only(op: ScanDim, used: set[Value]) -> Op:
    """A scan for extremes without their places, which nobody asks for."""
    plain = VALUES_ONLY.get(op.monoid.name.partition("<")[0])
    if plain is None or op.results[1] in used:
        return op
    attrs = (op.dim, monoid(plain, op.values[0].dtype), op.reverse)
    return ScanDim(op.operands[:1], attrs, (), op.results[:1], op.loc)


def _is_lazy(op: Op) -> bool:
    """Whether an op costs nothing until somebody reads its result."""
    if isinstance(op, (Reshape, Permute, Slice, Const, SizeOf)):
        return True
    if isinstance(op, Broadcast):
        return not isinstance(op.x.type, Scalar)
    return all(isinstance(value.type, Scalar) for value in op.results)
