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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusec.analysis.affine import split
from fusec.analysis.factors import even_part, factors, groups
from fusec.ir.builder import Builder, without_dead_ops
from fusec.ir.core import Affine, Block, Function, Level, Op, Value, Values
from fusec.ir.dims import Dim, exact_div, product
from fusec.ir.dtypes import bool_, f64, i64
from fusec.ir.monoids import VALUES_ONLY, combine, monoid
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.checks import Check, Checked
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.contraction import Matmul
from fusec.ir.ops.elementwise import Add, And, FloorDiv, Ge, Lt, Mul, Rem, Select
from fusec.ir.ops.extern import Extern, Named, Slot
from fusec.ir.ops.loop import Coordinate, Load, Region, Store, View
from fusec.ir.ops.reduction import Reduce, ReduceDims, Scan, ScanDim
from fusec.ir.ops.view import (
    Broadcast,
    Concat,
    Gather,
    Index,
    Iota,
    Pad,
    Permute,
    Reshape,
    Restride,
    Slice,
)
from fusec.ir.types import Axis, Opaque, Scalar, Tensor, strides_of

AXIS_NAMES = "ijklmnopqrstuvwxy"

_NAMES = {bool_: "bool", i64: "int64", f64: "float64"}
"""torch's names of the dtypes that its scalars have."""

Coord = Affine | Value
"""Where a point reads along one dimension: linear in axes, or computed."""


def lower_to_loops(function: Function) -> Function:
    """The loop function of a graph function."""
    return _Lowering(function).run()


class _Lowering:
    """The state of one sweep over the graph."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.factors = factors(function)
        self.builder = Builder(Level.LOOP)
        self.made: dict[Value, Op] = {}
        """The graph op behind each value that is a view or a scalar."""
        self.stored: dict[Value, Value] = {}
        """The loop tensor that holds each graph tensor."""
        self.boxes: dict[Value, Value] = {}
        """The tensors that hold scalars for regions to read."""
        self.lent = set(function.body.yields)
        """Tensors whose memory a result has, or may have."""

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
        return self.builder.successor(self.function, self.results())

    def lower(self, op: Op) -> None:
        if isinstance(op, (Extern, Matmul)):
            self.lower_extern(op)
        elif _is_lazy(op):
            self.made.update(dict.fromkeys(op.results, op))
        elif isinstance(op, Restride) and (view := self.as_view(op)) is not None:
            self.stored[op.result] = view
        else:
            self.lower_region(op)

    def lower_extern(self, op: Op) -> None:
        read = self.strided if _takes_any_strides(op) else self.exact
        operands = [read(value) for value in op.operands]
        attrs = op.attrs if isinstance(op, Extern) else _matmul_call(op)
        hints = tuple(v.hint for v in op.results)
        results = self.builder.emit(Extern, operands, attrs, (), op.loc, hints)
        self.stored.update(zip(op.results, results, strict=True))

    def lower_region(self, op: Op) -> None:
        region = RegionBuilder(self)
        region.compute(op)
        made = self.close(region, op.results)
        self.stored.update(zip(op.results, made, strict=True))

    def close(self, region: RegionBuilder, results: Values) -> Values:
        """Emit a region; the tensors that hold its results."""
        hints = tuple(value.hint for value in results)
        return self.builder.emit(
            Region, region.inputs, (), (region.block(),), None, hints
        )

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
            held = self.materialise(value)
            found.append(self.copied(value) if held in taken else held)
            if k is None:
                given.add(found[-1])
        return found

    def copied(self, value: Value) -> Value:
        """A tensor of its own that holds a graph value."""
        if isinstance(value.type, Opaque):
            attrs = ("aten.clone.default", (Slot(0),), (), (value.type,))
            return self.builder.emit(Extern, (self.stored[value],), attrs)[0]
        region = RegionBuilder(self)
        region.copy(value)
        return self.close(region, (value,))[0]

    def scalar(self, value: Value) -> Value:
        """A scalar of the graph as one of the function."""
        return emit_scalar(self.builder, self.made, value, self.stored.__getitem__)

    def boxed(self, value: Value) -> Value:
        """A tensor of no dimensions that holds a scalar which only the host knows."""
        if value not in self.boxes:
            dtype = value.dtype
            target, named = "aten.scalar_tensor.default", Named("dtype", _NAMES[dtype])
            attrs = (target, (Slot(0),), (("dtype", named),), (Tensor(dtype, ()),))
            operands = (self.stored[value],)
            (box,) = self.builder.emit(Extern, operands, attrs, hints=(value.hint,))
            self.boxes[value] = box
        return self.boxes[value]

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
        base, place = _strided_view(self, value)
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
            _, place = _strided_view(self, value)
            if place is None or not _same_strides(place.type, strides_of(value.type)):
                return self.materialise(value)
        return self.strided(value)

    def as_view(self, op: Restride) -> Value | None:
        """A tensor with these strides that is there already, if it may be shared.

        Results of a program never share memory with each other or with a parameter,
        so a tensor is lent to one of them at most.
        """
        base, place = _strided_view(self, op.x)
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

    def axes(self, value: Value) -> tuple[tuple[Axis, ...], ...]:
        """New axes to walk a tensor by: one per factor of each dimension."""
        names = iter(AXIS_NAMES)
        return tuple(
            tuple(Axis(next(names, "z"), n) for n in parts if n != 1)
            for parts in self.factors.of(value)
        )


def _strided_view(lowering: _Lowering, value: Value) -> tuple[Value, _Place | None]:
    """The tensor that a view looks at, and how, if plain strides can say it."""
    axes = lowering.axes(value)
    coords: Sequence[Coord] = [coordinate(factors) for factors in axes]
    region, base = RegionBuilder(lowering), value
    while base not in lowering.stored:
        op = lowering.made[base]
        coords = VIEWS[type(op)](region, op, coords)
        base = op.operands[0]
    type_ = base.type
    assert isinstance(type_, Tensor)
    address = Affine()
    for coord, stride in zip(coords, strides_of(type_), strict=True):
        if not isinstance(coord, Affine):
            return base, None
        address = address + coord * stride
    strides = _single_strides(address, axes)
    if strides is None:
        return base, None
    return base, _Place(Tensor(type_.dtype, value.shape, strides), address.const)


def _single_strides(
    address: Affine, axes: Sequence[tuple[Axis, ...]]
) -> tuple[Dim, ...] | None:
    """The stride of each dimension, if all its factors step by one.

    A dimension of one element may have any; it gets that of a dense tensor. A flip
    steps backwards, which the strides of a tensor cannot.
    """
    strides: list[Dim] = []
    below: Dim = 1
    for digits in reversed(axes):
        stride = address.stride(digits[-1]) if digits else below
        if isinstance(stride, int) and stride < 0:
            return None
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


def _takes_any_strides(op: Op) -> bool:
    """Whether a call computes with elements only: ATen's do, but one; others may rely
    on how torch said that their arguments lie."""
    if not isinstance(op, Extern):
        return True
    return op.target.startswith("aten.") and not op.target.startswith("aten.as_strided")


def _matmul_call(op: Op) -> tuple[Any, ...]:
    """A matrix product as a call of ATen."""
    rank = len(op.result.shape)  # type: ignore[union-attr]
    target = "aten.mm.default" if rank == 2 else "aten.bmm.default"
    return (target, (Slot(0), Slot(1)), (), (op.result.type,))


def emit_scalar(
    builder: Builder,
    made: Mapping[Value, Op],
    value: Value,
    given: Callable[[Value], Value],
) -> Value:
    """Compute a scalar anew where it is needed.

    From constants, sizes, and what the host is `given` or finds out.
    """
    env: dict[Value, Value] = {}
    stack = [value]
    while stack:
        top = stack[-1]
        op = made.get(top)
        if op is None:
            env[stack.pop()] = given(top)
            continue
        missing = [v for v in op.operands if v not in env]
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        if top not in env:
            env.update(zip(op.results, builder.copy(op, env), strict=True))
    return env[value]


class RegionBuilder:
    """One region under construction: the inputs it reads and the points it computes."""

    def __init__(self, lowering: _Lowering) -> None:
        self.lowering = lowering
        self.builder = lowering.builder.isolated()
        self.inputs: list[Value] = []
        self.params: dict[Value, Value] = {}
        self.outputs: list[Value] = []

    def block(self) -> Block:
        params = (*self.params.values(), *self.outputs)
        return without_dead_ops(Block(params, self.builder.block().ops))

    def param(self, tensor: Value) -> Value:
        """The block's name for a tensor of the function."""
        if tensor not in self.params:
            self.inputs.append(tensor)
            self.params[tensor] = Value(tensor.type, tensor.hint)
        return self.params[tensor]

    def compute(self, op: Op) -> None:
        """Compute every result of an op and store it."""
        axes = self.lowering.axes(op.results[0])
        coords = [coordinate(factors) for factors in axes]
        if isinstance(op, ScanDim):
            coords[op.dim] = _scanned(op)
        values = POINTS.get(type(op), _elementwise)(self, op, coords)
        for result, value in zip(op.results, values, strict=True):
            self.store(result, value, coords)

    def copy(self, value: Value) -> None:
        """Store a view as a tensor."""
        coords = [coordinate(factors) for factors in self.lowering.axes(value)]
        self.store(value, self.read(value, coords), coords)

    def store(self, result: Value, value: Value, coords: Sequence[Affine]) -> None:
        target = Value(result.type, result.hint)
        self.outputs.append(target)
        self.builder.emit(Store, (value, target), (tuple(coords),))

    def read(
        self, value: Value, coords: Sequence[Coord], mask: Value | None = None
    ) -> Value:
        """The element of a graph value at these coordinates, through all views."""
        if isinstance(value.type, Tensor) and 0 in value.shape:
            return self.builder.const(0, value.dtype)  # nothing is read
        while value not in self.lowering.stored:
            op = self.lowering.made[value]
            if isinstance(value.type, Scalar):
                return self.scalar(value)
            coords = VIEWS[type(op)](self, op, coords)
            value = op.operands[0]
        if isinstance(value.type, Scalar):
            return self.scalar(value)
        return self.load(self.param(self.lowering.stored[value]), coords, mask)

    def scalar(self, value: Value) -> Value:
        """A scalar of the graph, computed in the region."""
        return emit_scalar(self.builder, self.lowering.made, value, self.unboxed)

    def unboxed(self, value: Value) -> Value:
        """What the host knows, read from the tensor that it puts it in."""
        return self.load(self.param(self.lowering.boxed(value)), (), None)

    def load(self, buffer: Value, coords: Sequence[Coord], mask: Value | None) -> Value:
        slots: list[Value] = []
        index: list[Affine | Slot] = []
        for coord in coords:
            if isinstance(coord, Affine):
                index.append(coord)
                continue
            index.append(Slot(len(slots)))
            slots.append(coord)
        if mask is not None:
            other = self.builder.const(0, buffer.dtype)  # type: ignore[union-attr]
            slots += [mask, other]
        attrs = (tuple(index), mask is not None)
        (value,) = self.builder.emit(Load, (buffer, *slots), attrs)
        return value

    def checked(self, x: Value, indices: Mapping[int, Value]) -> Value:
        """Check that indices lie in their dimensions; where they do, as bool."""
        b, shape = self.builder, x.shape  # type: ignore[union-attr]
        inside: Value | None = None
        for dim, index in indices.items():
            low = b(Ge, index, b.const(0, i64))
            within = b(And, low, b(Lt, index, b.size(shape[dim])))
            message = f"index out of range for dimension {dim} of size {shape[dim]}"
            b.emit(Check, (within,), (message, "IndexError"))
            inside = within if inside is None else b(And, inside, within)
        assert inside is not None
        return inside

    def integer(self, index: Value) -> Value:
        """An index of any integer dtype as i64."""
        return self.builder(Cast, index, dtype=i64)

    def value(self, coord: Coord) -> Value:
        """A coordinate as an i64 that can be computed with."""
        return coord if isinstance(coord, Value) else affine_value(self.builder, coord)


def affine_value(b: Builder, affine: Affine) -> Value:
    """An affine index as an i64 value."""
    total: Value | None = None
    for axis, stride in affine.terms:
        term = b(Coordinate, axis=axis)
        if stride != 1:
            term = b(Mul, term, b.size(stride))
        total = term if total is None else b(Add, total, term)
    if total is None:
        return b.size(affine.const)
    return total if affine.const == 0 else b(Add, total, b.size(affine.const))


def coordinate(axes: Sequence[Axis]) -> Affine:
    """The coordinate that axes count together, the last one fastest."""
    total, below = Affine(), 1
    for axis in reversed(axes):
        total = Affine(((axis, below),)) + total
        below = below * axis.extent
    return total


# Points: how each graph op computes its results at given coordinates.


def _elementwise(r: RegionBuilder, op: Op, coords: Sequence[Coord]) -> Values:
    operands = [r.read(value, coords) for value in op.operands]
    return r.builder.emit(type(op), operands, op.attrs)


def _copy(r: RegionBuilder, op: Op, coords: Sequence[Coord]) -> Values:
    return (r.read(op.operands[0], coords),)


def _fill(r: RegionBuilder, op: Op, coords: Sequence[Coord]) -> Values:
    return (r.scalar(op.operands[0]),)


def _iota(r: RegionBuilder, op: Iota, coords: Sequence[Coord]) -> Values:
    dim: int = op.dim
    return (r.value(coords[dim]),)


def _reduce(r: RegionBuilder, op: ReduceDims, coords: Sequence[Coord]) -> Values:
    first = op.values[0]
    if any(first.shape[dim] == 0 for dim in op.dims):
        identity = zip(op.values, op.monoid.identity, strict=True)
        return tuple(r.builder.const(i, v.dtype) for v, i in identity)
    reduced = {
        dim: tuple(
            Axis(f"r{dim}{k or ''}", n)
            for k, n in enumerate(r.lowering.factors.dimension(first, dim))
            if n != 1
        )
        for dim in op.dims
    }
    kept = iter(coords)
    inner = [
        coordinate(reduced[dim]) if dim in reduced else next(kept)
        for dim in range(len(first.shape))
    ]
    values = [r.read(value, inner) for value in op.values]
    axes = tuple(axis for dim in op.dims for axis in reduced[dim])
    return r.builder.emit(Reduce, values, (axes, op.monoid))


def _scanned(op: ScanDim) -> Affine:
    """Where a scan stands along its dimension: on one axis, maybe from its end."""
    extent: Dim = op.values[0].shape[op.dim]
    if extent == 1:
        return Affine()
    axis = Affine.of(Axis(f"s{op.dim}", extent))
    return axis * -1 + (extent - 1) if op.reverse else axis


def _scan(r: RegionBuilder, op: ScanDim, coords: Sequence[Coord]) -> Values:
    values = [r.read(value, coords) for value in op.values]
    at: Coord = coords[int(op.dim)]
    assert isinstance(at, Affine)
    if not at.axes:
        return _begun(r.builder, op, values)
    return r.builder.emit(Scan, values, (at.axes[0], op.monoid))


def _begun(b: Builder, op: ScanDim, values: Sequence[Value]) -> Values:
    """What a scan of one element gives."""
    if not op.monoid.start:
        return tuple(values)
    pairs = zip(op.monoid.start, values, strict=True)
    start = tuple(b.const(number, v.dtype) for number, v in pairs)  # type: ignore[union-attr]
    return combine(b, op.monoid, start, tuple(values))


def _concat(r: RegionBuilder, op: Concat, coords: Sequence[Coord]) -> Values:
    """The operand whose range the coordinate falls in; the others are not read."""
    b = r.builder
    dim: int = op.dim
    parts, total = _with_starts(op), op.result.shape[dim]
    at, unit = _part_of(r, op, coords[dim])
    result: Value | None = None
    for value, start, length in reversed(parts):
        inside = _between(b, at, *(exact(n, unit) for n in (start, length, total)))
        shifted = list(coords)
        shifted[dim] = _shift(b, coords[dim], -1 * start)
        element = r.read(value, shifted, inside)
        result = element if result is None else b(Select, inside, element, result)
    if result is None:  # all are empty
        return (b.const(0, op.result.dtype),)
    return (result,)


def _part_of(r: RegionBuilder, op: Concat, coord: Coord) -> tuple[Value, Dim]:
    """Where in a concatenation a coordinate is, and in what unit: which of even parts,
    where its axes tell, else which element."""
    part = even_part(op)
    if part is not None and isinstance(coord, Affine):
        digits = split(coord, (len(op.xs), part))
        if digits is not None:
            return r.value(digits[0]), part
    return r.value(coord), 1


def exact(a: Dim, b: Dim) -> Dim:
    """A quotient that is known to be one."""
    quotient = exact_div(a, b)
    assert quotient is not None
    return quotient


def _with_starts(op: Concat) -> list[tuple[Value, Dim, Dim]]:
    start: Dim = 0
    parts: list[tuple[Value, Dim, Dim]] = []
    for x in op.xs:
        length = x.shape[op.dim]
        if length != 0:
            parts.append((x, start, length))
        start = start + length
    return parts


def _pad(r: RegionBuilder, op: Pad, coords: Sequence[Coord]) -> Values:
    b = r.builder
    inside: Value | None = None
    shifted: list[Coord] = []
    for coord, low, high, n in zip(coords, op.low, op.high, op.x.shape, strict=True):
        shifted.append(_shift(b, coord, -1 * low))
        if low == 0 and high == 0:
            continue
        within = _between(b, r.value(coord), low, n, low + n + high)
        inside = within if inside is None else b(And, inside, within)
    value = r.scalar(op.value)
    if inside is None:
        return (r.read(op.x, coords),)
    return (b(Select, inside, r.read(op.x, shifted, inside), value),)


def _between(b: Builder, at: Value, start: Dim, length: Dim, total: Dim) -> Value:
    """start <= at < start + length, given 0 <= at < total."""
    below = b(Lt, at, b.size(start + length)) if start + length != total else None
    above = b(Ge, at, b.size(start)) if start != 0 else None
    if below is None:
        return above if above is not None else b.const(True, bool_)
    return below if above is None else b(And, above, below)


def _checked(r: RegionBuilder, op: Checked, coords: Sequence[Coord]) -> Values:
    x, ok = (r.read(value, coords) for value in op.operands)
    r.builder.emit(Check, (ok,), op.attrs)
    return (x,)


def _gather(r: RegionBuilder, op: Gather, coords: Sequence[Coord]) -> Values:
    index = r.integer(r.read(op.index, coords))
    inner = list(coords)
    inner[op.dim] = index
    return (r.read(op.x, inner, r.checked(op.x, {op.dim: index})),)


def _index(r: RegionBuilder, op: Index, coords: Sequence[Coord]) -> Values:
    rank = len(op.indices[0].shape)
    chosen = coords[op.at : op.at + rank]
    kept = iter([*coords[: op.at], *coords[op.at + rank :]])
    picked = {
        dim: r.integer(r.read(index, chosen))
        for dim, index in zip(op.dims, op.indices, strict=True)
    }
    dims = range(len(op.x.shape))
    inner = [picked[d] if d in picked else next(kept) for d in dims]
    return (r.read(op.x, inner, r.checked(op.x, picked)),)


Point = Callable[[RegionBuilder, Any, Sequence[Coord]], Values]

POINTS: dict[type, Point] = {
    Broadcast: _fill,
    Iota: _iota,
    Restride: _copy,
    ReduceDims: _reduce,
    ScanDim: _scan,
    Concat: _concat,
    Pad: _pad,
    Checked: _checked,
    Gather: _gather,
    Index: _index,
}


# Views: from coordinates in the view to coordinates in what it is a view of.


def _permute(r: RegionBuilder, op: Permute, coords: Sequence[Coord]) -> list[Coord]:
    inner: list[Coord] = list(coords)
    for coord, dim in zip(coords, op.order, strict=True):
        inner[dim] = coord
    return inner


def _broadcast(r: RegionBuilder, op: Broadcast, coords: Sequence[Coord]) -> list[Coord]:
    shape = op.x.shape
    return [Affine() if n == 1 else c for c, n in zip(coords, shape, strict=True)]


def _slice(r: RegionBuilder, op: Slice, coords: Sequence[Coord]) -> list[Coord]:
    inner = list(coords)
    dim: int = op.dim
    inner[dim] = _shift(r.builder, coords[dim], op.start, op.step)
    return inner


def _shift(b: Builder, coord: Coord, start: Dim, step: int = 1) -> Coord:
    if isinstance(coord, Affine):
        return coord * step + start
    scaled = b(Mul, coord, b.const(step, i64)) if step != 1 else coord
    return b(Add, scaled, b.size(start)) if start != 0 else scaled


def _reshape(r: RegionBuilder, op: Reshape, coords: Sequence[Coord]) -> list[Coord]:
    old, new = op.x.shape, op.shape
    inner: list[Coord] = [Affine() for _ in old]
    for run_old, run_new in groups(old, new):
        run = [(coords[d], new[d]) for d in run_new]
        extents = [old[d] for d in run_old]
        for dim, coord in zip(run_old, _regroup(r, run, extents), strict=True):
            inner[dim] = coord
    return inner


def _regroup(
    r: RegionBuilder, run: list[tuple[Coord, Dim]], extents: list[Dim]
) -> list[Coord]:
    """Coordinates of some extents, as those of other extents of the same product."""
    if [n for _, n in run] == extents:
        return [coord for coord, _ in run]
    if 0 in extents:
        return [Affine() for _ in extents]
    linear = _linear(run)
    if linear is not None:
        parts = split(linear, extents)
        if parts is not None:
            return list(parts)
    return _divided(r, run, extents)


def _linear(run: list[tuple[Coord, Dim]]) -> Affine | None:
    total, below = Affine(), 1
    for coord, extent in reversed(run):
        if not isinstance(coord, Affine):
            return None
        total = coord * below + total
        below = below * extent
    return total


def _divided(
    r: RegionBuilder, run: list[tuple[Coord, Dim]], extents: list[Dim]
) -> list[Coord]:
    """The same by dividing the linear index at every point."""
    b = r.builder
    total: Value = r.value(run[0][0])
    for coord, extent in run[1:]:
        total = b(Add, b(Mul, total, b.size(extent)), r.value(coord))
    coords: list[Coord] = []
    below: Dim = product(extents)
    for k, extent in enumerate(extents):
        below = below // extent
        part = b(FloorDiv, total, b.size(below)) if below != 1 else total
        coords.append(b(Rem, part, b.size(extent)) if k else part)
    return coords


VIEWS: dict[type, Callable[[RegionBuilder, Any, Sequence[Coord]], list[Coord]]] = {
    Permute: _permute,
    Broadcast: _broadcast,
    Slice: _slice,
    Reshape: _reshape,
}
