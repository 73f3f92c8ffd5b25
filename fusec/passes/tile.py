"""Loop level → tile level: one region becomes one kernel, by its schedule.

    %y = region(%x) over i:4096, j:1000 {      tile @exp(%x: buffer, %y: buffer) {
      %0 = load %x [i, j]                        %i = program_id
      %1 = exp %0                         →      %o = mul %i, 1000
      store %1, %y [i, j]                        %0 = load_tile %x, %o  strides=(1,)
    }                                            %1 = exp %0
                                                 store_tile %1, %y, %o  strides=(1,) }

Grid axes become arithmetic on the program's number, the others dimensions of tiles.
The program is straight-line: a tile is as long as its axis, and loops come later, from
the time digits of layouts. Every tile has the rank of the schedule; an axis that a
value does not have is a dimension of extent 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from fusec.analysis.accesses import Access, Accesses
from fusec.analysis.affine import axes_of
from fusec.analysis.contraction import Product
from fusec.analysis.descriptors import fetched
from fusec.analysis.schedule import Schedule, Split
from fusec.ir.builder import Builder
from fusec.ir.core import Affine, Function, Level, Op, Value, Values
from fusec.ir.dims import Dim, Facts, exact_div
from fusec.ir.dtypes import bool_, i64, u8
from fusec.ir.layout import LANE, REG, TIME, Digit, Layout, strided, tile_layout
from fusec.ir.monoids import monoid
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.checks import Check
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.elementwise import (
    Add,
    Fmod,
    Minimum,
    Mul,
    Not,
    Rem,
    Sub,
    TruncDiv,
)
from fusec.ir.ops.loop import Coordinate, Load, Region, Store, Update, updates
from fusec.ir.ops.reduction import Reduce, ReduceTile, Scan, ScanTile
from fusec.ir.ops.tile import (
    DESCRIPTOR,
    BlockCount,
    BlockExtent,
    BroadcastTile,
    FetchTile,
    Guard,
    IotaTile,
    LoadTile,
    ProgramId,
    Stage,
    StoreTile,
)
from fusec.ir.sizes import used_symbols
from fusec.ir.types import Axis, Buffer, Scalar, Tensor, Tile, strides_of


def tile(accesses: Accesses, schedule: Schedule, name: str, facts: Facts) -> Function:
    """The kernel of a region; `facts` are those of the function around it."""
    function = _Tiling(schedule.accesses or accesses, schedule, facts).run(name)
    symbols = used_symbols(function.body)
    return replace(function, symbols=symbols, facts=facts.about(symbols))


class _Tiling:
    """The state of one sweep over a region."""

    def __init__(self, accesses: Accesses, schedule: Schedule, facts: Facts) -> None:
        self.accesses = accesses
        self.schedule = schedule
        self.fetched: set[Op] = set()
        """Loads by tensor descriptors."""
        if schedule.descriptors:
            self.fetched = {a.op for a in fetched(schedule, accesses, facts)}
        self.builder = Builder(Level.TILE)
        self.dims = {split.axis: d for d, split in enumerate(schedule.tile)}
        self.extents = [split.extent for split in schedule.tile]
        tiles = (schedule.tile, *schedule.packing.values())
        self.lane_dims = {d for t in tiles for d, s in enumerate(t) if s.lanes > 1}
        """The dimensions along which lanes lie, somewhere in the kernel."""
        self.env: dict[Value, Value] = {}
        products = schedule.dot.products if schedule.dot else ()
        self.products = {each.sum: each for each in products}
        self.multiplied = {each.mul for each in products}
        self.access = {id(access.op): access for access in accesses.all}
        self.limit: dict[int, Value] = {}
        """How many elements of a dimension exist in this program, if not always all."""
        self.origin: dict[Axis, Value] = {}
        """Where the program stands on each axis that programs share."""

    def run(self, name: str) -> Function:
        region = self.accesses.region
        begun = unpassed(region)
        outer = (*region.operands, *region.results)
        for param, value in zip(region.body.params, outer, strict=True):
            if param in begun:
                continue
            hint = param.hint or value.hint
            self.env[param] = self.builder.param(_buffer(param.type), hint)
        self.checks = checks(region)
        if self.checks:
            type_ = _buffer(Tensor(i64, (len(self.checks),)))
            self.flags = self.builder.param(type_, "flags")
        if self.fetched:
            size = DESCRIPTOR * len(self.fetched) * self.schedule.programs
            self.scratch = self.builder.param(_buffer(Tensor(u8, (size,))), "scratch")
        self.locate()
        ops: tuple[Op, ...] = region.body.ops
        for op in ops:
            if op in self.multiplied:
                continue  # it is part of the sum
            self.builder.loc = op.loc
            rule = RULES.get(type(op), _elementwise)
            self.env.update(zip(op.results, rule(self, op), strict=True))
        return replace(self.builder.function(name), spread=_spread(self.schedule))

    def locate(self) -> None:
        """Find the program's place, on every axis that programs share, from its
        number."""
        b, schedule = self.builder, self.schedule
        shared: list[tuple[Axis, Split | None]] = [
            (axis, None) for axis in schedule.grid if axis.extent != 1
        ]
        shared += [(s.axis, s) for s in schedule.tile if s.blocked]
        if not shared:
            return
        # Neither is negative: what is left of them needs no correcting.
        remainder = Fmod if self.in_blocks else Rem
        rest = b(ProgramId)
        for k, (axis, split) in reversed(list(enumerate(shared))):
            place = rest
            if k:
                count = self.count(split) if split else b.size(axis.extent)
                place, rest = b(remainder, rest, count), b(TruncDiv, rest, count)
            step = self.extent(split) if split and split.extent != 1 else None
            self.origin[axis] = b(Mul, place, step) if step else place
        for dim, split in enumerate(schedule.tile):
            whole = exact_div(split.axis.extent, split.extent) is not None
            if not split.blocked or whole:
                continue
            origin, extent = self.origin[split.axis], b.size(split.axis.extent)
            if self.may_overlap(split):
                last = b(Sub, extent, self.extent(split))
                self.origin[split.axis] = b(Minimum, origin, last)
            else:
                exist = b(Sub, extent, origin)
                if not self.in_blocks:
                    exist = b(Minimum, exist, b.size(split.extent))
                self.limit[dim] = exist

    @property
    def in_blocks(self) -> bool:
        """Whether a compiler of the target's own shares out what a program has."""
        return self.schedule.warps > 0

    def count(self, split: Split) -> Value:
        """How many programs share an axis."""
        if not self.in_blocks:
            return self.builder.size(split.blocks)
        size, dim = split.axis.extent, self.dims[split.axis]
        return self.builder(BlockCount, dim=dim, extent=split.chunk, size=size)

    def extent(self, split: Split) -> Value:
        """How many elements of an axis a program has."""
        if not self.in_blocks:
            return self.builder.size(split.extent)
        dim = self.dims[split.axis]
        return self.builder(BlockExtent, dim=dim, extent=split.chunk)

    def may_overlap(self, split: Split) -> bool:
        """Whether the last program may begin early instead of ending late, and write
        some elements a second time: to sweep whole registers takes no masks.

        A region that sweeps never writes over what it reads (see `in_place`). What is
        updated is met once.
        """
        known = isinstance(split.axis.extent, int) and isinstance(split.extent, int)
        return known and bool(self.accesses.swept) and not self.accesses.updates

    # Values

    def shape(self, axes: Sequence[Axis]) -> tuple[Dim, ...]:
        """The shape of a tile that has these axes of the original region."""
        held = set(self.accesses.merged(axes))
        return tuple(
            split.extent if split.axis in held else 1 for split in self.schedule.tile
        )

    def wide(self, value: Value, shape: tuple[Dim, ...]) -> Value:
        """A value as a tile of this shape."""
        type_ = Tile(value.dtype, shape)  # type: ignore[union-attr]
        return self.builder(BroadcastTile, value, type=type_)

    def across(self, shape: tuple[Dim, ...]) -> bool:
        """Whether a tile of this shape varies from lane to lane."""
        return any(shape[d] != 1 for d in self.lane_dims)

    def joined(self, values: Sequence[Value]) -> tuple[Dim, ...]:
        """The shape that broadcasting these values gives."""
        shapes = [v.shape for v in values if isinstance(v.type, Tile)]
        return tuple(
            next((n for n in extents if n != 1), 1)
            for extents in zip(*shapes, strict=True)
        )

    # Memory

    def offset(self, address: Affine) -> Value:
        """Where in its buffer the program's tile begins."""
        b = self.builder
        total = b.size(address.const)
        for axis, stride in address.terms:
            if axis in self.origin:
                step = b(Mul, self.origin[axis], b.size(stride))
                total = b(Add, total, step)
        return total

    def strides(self, address: Affine, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
        return tuple(
            address.stride(split.axis) if n != 1 or split.extent == 1 else 0
            for split, n in zip(self.schedule.tile, shape, strict=True)
        )

    def ahead(self, address: Affine) -> Dim:
        """How far on in memory lies what is to be fetched meanwhile."""
        if self.schedule.ahead is None:
            return 0
        axis, elements = self.schedule.ahead
        return address.stride(axis) * elements

    def limits(self, shape: tuple[Dim, ...]) -> tuple[tuple[int, ...], Values]:
        """The limited dimensions of a tile of this shape, and their limits."""
        limited = tuple(d for d in self.limit if shape[d] != 1)
        return limited, tuple(self.limit[d] for d in limited)

    def sides(self, shape: tuple[Dim, ...]) -> tuple[tuple[int, ...], Values]:
        """The dimensions of a tile, and how many elements its program may meet along
        them; those along which it has one block, within that."""
        b = self.builder
        found: dict[int, Value] = {}
        for d, split in enumerate(self.schedule.tile):
            if shape[d] == 1:
                continue
            held = self.extent(split) if split.blocked else b.size(split.extent)
            limit = self.limit.get(d)
            found[d] = held if limit is None else b(Minimum, limit, held)
        return tuple(found), tuple(found.values())

    def reach(
        self, access: Access, shape: tuple[Dim, ...]
    ) -> tuple[tuple[int, ...], list[Value], Value | None]:
        """The dimensions along which an access is limited, its limits with its index
        behind them, and that index, if any of it is computed."""
        limited, limits = self.limits(shape)
        index = self.index(access, shape)
        return limited, [*limits, *([] if index is None else [index])], index

    def index(self, access: Access, shape: tuple[Dim, ...]) -> Value | None:
        """The computed part of an address, in elements.

        One number for all lanes of a register, where it does not vary along them.
        """
        if not access.computed:
            return None
        b = self.builder
        parts = [b(Mul, self.env[v], b.size(stride)) for v, stride in access.computed]
        own = self.joined(parts) or (1,) * len(shape)
        place = shape if self.across(own) else own
        return reduce(lambda x, y: b(Add, x, y), (self.wide(p, place) for p in parts))


def _elementwise(t: _Tiling, op: Op) -> Values:
    operands = [t.env.get(v, v) for v in op.operands]
    if all(isinstance(v.type, Scalar) for v in operands):
        return t.builder.emit(type(op), operands, op.attrs, (), None, op.hints)
    shape = t.joined(operands)
    spread = [v if isinstance(v.type, Scalar) else t.wide(v, shape) for v in operands]
    return t.builder.emit(type(op), spread, op.attrs, (), None, op.hints)


def _coordinate(t: _Tiling, op: Coordinate) -> Values:
    b = t.builder
    (axis,) = t.accesses.merged([op.axis])
    origin = t.origin.get(axis)
    if axis not in t.dims:
        return (origin if origin is not None else b.size(0),)
    type_ = Tile(i64, t.shape([op.axis]))
    start = origin if origin is not None else b.size(0)
    return (b(IotaTile, start, type=type_, dim=t.dims[axis]),)


def _load(t: _Tiling, op: Load) -> Values:
    access = t.access[id(op)]
    shape = t.shape(op.result.axes)
    if op in t.fetched:
        return _fetch(t, op, access, shape)
    limited, rest, index = t.reach(access, shape)
    if op.masked:
        mask: Value = t.env[op.mask]
        rows = index is None or not t.across(index.shape)
        if isinstance(mask.type, Scalar) or not rows or t.across(mask.shape):
            mask = t.wide(mask, shape)
        rest += [mask, t.wide(t.env[op.other], shape)]
    operands = (t.env[op.buffer], t.offset(access.address), *rest)
    attrs = (
        Tile(op.buffer.dtype, shape),
        t.strides(access.address, shape),
        limited,
        index is not None,
        op.masked,
        t.ahead(access.address),
    )
    return t.builder.emit(LoadTile, operands, attrs, (), None, op.hints)


def _fetch(t: _Tiling, op: Load, access: Access, shape: tuple[Dim, ...]) -> Values:
    limited, limits = t.sides(shape)
    type_ = Tile(op.buffer.dtype, shape)
    operands = (t.env[op.buffer], t.offset(access.address), t.scratch, *limits)
    attrs = (type_, t.strides(access.address, shape), limited, ())
    return t.builder.emit(FetchTile, operands, attrs, (), None, op.hints)


def _store(t: _Tiling, op: Store) -> Values:
    access = t.access[id(op)]
    axes = [a for e in op.index if isinstance(e, Affine) for a in e.axes]
    shape = t.shape(axes)
    limited, limits = t.limits(shape)
    operands = (
        t.wide(t.env[op.value], shape),
        t.env[op.buffer],
        t.offset(access.address),
        *limits,
    )
    strides = t.strides(access.address, shape)
    attrs = (strides, limited, False, False, t.schedule.streaming, "")
    return t.builder.emit(StoreTile, operands, attrs)


def _update(t: _Tiling, op: Update) -> Values:
    access, shape = t.access[id(op)], t.shape(op.axes)
    limited, rest, index = t.reach(access, shape)
    if op.masked:
        rest.append(t.wide(t.env[op.mask], shape))
    value, offset = t.wide(t.env[op.value], shape), t.offset(access.address)
    strides = t.strides(access.address, shape)
    attrs = (strides, limited, index is not None, op.masked, False, op.combine)
    return t.builder.emit(StoreTile, (value, t.env[op.buffer], offset, *rest), attrs)


def _reduce(t: _Tiling, op: Reduce) -> Values:
    if op in t.products:
        return _dot(t, t.products[op])
    axes = t.accesses.merged(op.axes)
    dims = tuple(sorted(t.dims[axis] for axis in axes))
    operands = [t.env[v] for v in op.values]
    shape = list(t.joined(operands) or [1] * len(t.extents))
    for dim in dims:
        shape[dim] = t.extents[dim]
    spread = [t.wide(v, tuple(shape)) for v in operands]
    return t.builder.emit(ReduceTile, spread, (dims, op.monoid), (), None, op.hints)


def _dot(t: _Tiling, product: Product) -> Values:
    """A sum of products onto nothing, its factors packed where the schedule says so."""
    b = t.builder
    factors: list[Value] = []
    for value in product.factors:
        factor = t.wide(_narrow(t, value), t.shape(axes_of(value)))
        tile = t.schedule.packing.get(value)
        if tile is not None:
            spread = _spread(replace(t.schedule, tile=tile))
            factor = b(Stage, factor, type=factor.type, spread=spread)
        factors.append(factor)
    (total,) = product.sum.results
    start = t.wide(b.const(0, total.dtype), t.shape(axes_of(total)))
    return b.emit(DotTile, (start, *factors), (), (), None, product.sum.hints)


def _narrow(t: _Tiling, value: Value) -> Value:
    """A factor in the dtype that the instruction takes."""
    dot, instruction = t.schedule.dot, t.schedule.instruction
    if dot is None or instruction is None:
        return t.env[value]
    return t.builder(Cast, t.env[dot.narrow[value]], dtype=instruction.factor)


def _scan(t: _Tiling, op: Scan) -> Values:
    """From the start: what other programs have does not come before it."""
    dim = t.dims[op.axis]
    operands = [t.env[v] for v in op.values]
    shape = list(t.joined(operands) or [1] * len(t.extents))
    shape[dim] = t.extents[dim]
    values = [t.wide(v, tuple(shape)) for v in operands]
    shape[dim] = 1
    start = zip(op.values, op.monoid.start or op.monoid.identity, strict=True)
    consts = [t.builder.const(number, v.dtype) for v, number in start]  # type: ignore[union-attr]
    starts = [t.wide(v, tuple(shape)) for v in consts]
    attrs = (dim, op.monoid)
    hints = (*op.hints, *("total" for _ in values))
    results = t.builder.emit(ScanTile, (*values, *starts), attrs, (), None, hints)
    return results[: len(values)]


def _check(t: _Tiling, op: Check) -> Values:
    """Raise the flag of a check if it fails anywhere in the program's tile."""
    b, rank = t.builder, len(t.extents)
    bad = b(Not, t.env[op.ok])
    if isinstance(bad.type, Scalar):
        bad = t.wide(bad, (1,) * rank)
    limited, limits = t.limits(bad.shape)
    if limited:  # what lies beyond is not looked for
        (bad,) = b.emit(Guard, (bad, *limits), (limited, False))
    dims = tuple(d for d, n in enumerate(bad.shape) if n != 1)
    if dims:
        bad = b(ReduceTile, bad, dims=dims, monoid=monoid("any", bool_))
    one = t.wide(b.const(1, i64), (1,) * rank)
    place = b.const(t.checks.index(op.attrs), i64)
    attrs = ((0,) * rank, (), False, True, False, "")
    return b.emit(StoreTile, (one, t.flags, place, bad), attrs)


def unpassed(region: Region) -> set[Value]:
    """The parameters of a region's block that its kernel lacks: what an updated result
    begins as is in its memory already."""
    begun = {op.start for op in updates(region.body).values()}
    read = {v for op in region.body.ops for v in _read(op)}
    return begun - read


def _read(op: Op) -> Values:
    return (op.value, *op.indices) if isinstance(op, Update) else op.operands


def checks(region: Region) -> tuple[tuple[str, str], ...]:
    """The messages and errors of a region's checks, each once: one flag for each."""
    found = (op.attrs for op in region.body.ops if isinstance(op, Check))
    return tuple(dict.fromkeys(found))


RULES: Mapping[type[Op], Any] = {
    Check: _check,
    Coordinate: _coordinate,
    Load: _load,
    Store: _store,
    Update: _update,
    Reduce: _reduce,
    Scan: _scan,
}


def _spread(schedule: Schedule) -> Layout:
    """The layout of a tile that has every dimension: time × registers × lanes, the
    loops in time as the schedule nests them."""
    splits = [
        [*((TIME, n) for n in split.loops), (REG, split.registers), (LANE, split.lanes)]
        for split in schedule.tile
    ]
    layout = tile_layout([split.extent for split in schedule.tile], splits)
    return _in_order(layout, schedule) if schedule.nest else layout


def _in_order(layout: Layout, schedule: Schedule) -> Layout:
    """The layout with its strides in time those of the schedule's nest of loops."""
    strides: dict[tuple[int, int], Dim] = {}
    below: Dim = 1
    for dim, level in reversed(schedule.nest):
        strides[dim, level] = below
        below = below * schedule.tile[dim].loops[level]
    dims: list[tuple[Digit, ...]] = []
    for dim, digits in enumerate(layout.dims):
        levels = (k for k, n in enumerate(schedule.tile[dim].loops) if n != 1)
        dims.append(
            tuple(
                replace(g, stride=strides[dim, next(levels)]) if g.axis == TIME else g
                for g in digits
            )
        )
    return Layout(dims, layout.shape)


def _buffer(type_: Any) -> Buffer:
    assert isinstance(type_, Tensor)
    bits = type_.dtype.bits
    shape = [1 if n == 0 else n for n in type_.shape]
    return Buffer(type_.dtype, strided(shape, strides_of(type_), bits))
