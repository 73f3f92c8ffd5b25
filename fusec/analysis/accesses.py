"""What a region does to memory: every access as one linear address.

On the loop level a load names one coordinate per dimension; with the strides of its
tensor they add up to an address that is affine in the axes:

    load %x [i, 2*j + 1]     %x: f32[8, 100]         →    100*i + 2*j + 1

Axes that all addresses count together, as rows and columns of dense tensors are, are
merged into one, so that a kernel sees long loops wherever there are any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from fusec.analysis.affine import index_axes
from fusec.analysis.cost import update_bytes
from fusec.ir.calls import Slot
from fusec.ir.core import Affine, Op, Value, walk
from fusec.ir.dims import Dim, exact_div, product
from fusec.ir.ops.loop import Coordinate, Load, Region, Update, Write
from fusec.ir.ops.reduction import Reduce, Scan
from fusec.ir.types import Axis, Points, Tensor, strides_of


@dataclass(frozen=True, slots=True)
class Access:
    """One load or write: an affine address, plus computed indices times strides."""

    op: Load | Write
    address: Affine
    computed: tuple[tuple[Value, Dim], ...] = ()

    @property
    def buffer(self) -> Value:
        return self.op.buffer


@dataclass(slots=True)
class Accesses:
    """The memory behaviour of a region, over merged axes."""

    region: Region
    all: list[Access] = field(default_factory=list[Access])
    axes: list[Axis] = field(default_factory=list[Axis])
    swept: list[Axis] = field(default_factory=list[Axis])
    """Axes that a program walks: reduced and scanned ones, those some store lacks."""
    reduced: list[Axis] = field(default_factory=list[Axis])
    """Those of them along which elements are combined into one."""
    again: bool = False
    """What sweeping them gives is needed to sweep them again."""
    renamed: dict[Axis, tuple[Axis, ...]] = field(
        default_factory=dict[Axis, tuple[Axis, ...]]
    )
    """What became of each original axis: the axis that it lies in, the axes that it is
    split into, or nothing."""

    @property
    def grid(self) -> list[Axis]:
        """Axes that programs may share out."""
        return [axis for axis in self.axes if axis not in self.swept]

    @property
    def narrowest(self) -> int:
        """Bits of the narrowest element that is loaded or stored."""
        return min((a.buffer.dtype.bits for a in self.all), default=32)

    @property
    def bytes(self) -> Dim:
        """Memory that the region touches, each tensor once; of an updated one what is
        read and written of it."""
        plain = (a.buffer for a in self.all if not isinstance(a.op, Update))
        whole = (product(b.shape) * (b.dtype.bits // 8) for b in dict.fromkeys(plain))
        updated = (update_bytes(a.op) for a in self.all if isinstance(a.op, Update))
        return sum((*whole, *updated), 0)

    def of(self, op: Op) -> Access:
        """The access of a load or store."""
        return next(access for access in self.all if access.op is op)

    def written(self, access: Access) -> set[Axis]:
        """The axes at whose points a write does so."""
        if isinstance(access.op, Update):
            return set(self.merged(access.op.axes))
        return set(access.address.axes)

    @property
    def updates(self) -> list[Access]:
        """The updates among the accesses."""
        return [access for access in self.all if isinstance(access.op, Update)]

    def merged(self, axes: Iterable[Axis]) -> list[Axis]:
        """Original axes as merged ones."""
        kept = (self.renamed.get(axis, (axis,)) for axis in axes)
        return list(dict.fromkeys(axis for found in kept for axis in found))

    def split(self, axis: Axis, inner: int) -> Accesses:
        """The same with one of the axes as two, the inner one so long. It divides the
        extent, and nobody asks where on the axis a point is."""
        extent = exact_div(axis.extent, inner)
        assert extent is not None
        parts = Axis(axis.name, extent), Axis(f"{axis.name}0", inner)
        place = {axis: Affine.of(parts[0]) * inner + Affine.of(parts[1])}

        def several(axes: list[Axis]) -> list[Axis]:
            return [p for a in axes for p in (parts if a is axis else (a,))]

        renamed = {old: tuple(several([*new])) for old, new in self.renamed.items()}
        return Accesses(
            self.region,
            [replace(a, address=a.address.substitute(place)) for a in self.all],
            several(self.axes),
            several(self.swept),
            several(self.reduced),
            self.again,
            {axis: parts, **renamed},
        )


def accesses(region: Region) -> Accesses:
    """Read a region, merge its axes, and part them into grid and swept."""
    found = Accesses(region)
    spaces: list[set[Axis]] = []
    fixed: set[Axis] = set()
    reduced: list[tuple[Axis, ...]] = []
    scanned: list[Axis] = []
    for op in walk(region.body):
        if isinstance(op, (Load, Write)):
            found.all.append(_access(op))
            spaces.append({*index_axes(op.index)})
        if isinstance(op, Update):
            spaces.append({*op.axes})
        elif isinstance(op, Coordinate):
            fixed.add(op.axis)
        elif isinstance(op, Reduce):
            reduced.append(op.axes)
            spaces.append(set(op.axes))
        elif isinstance(op, Scan):
            scanned.append(op.axis)
        points = (v for v in op.results if isinstance(v.type, Points))
        spaces.extend(set(v.axes) for v in points)
    found.axes = list(dict.fromkeys(a for space in map(_sorted, spaces) for a in space))
    _order(found)
    _merge(found, spaces, fixed | set(scanned), reduced)
    _part(found, reduced, scanned)
    found.again = _sweeps_again(found)
    return found


def _sorted(space: set[Axis]) -> list[Axis]:
    return sorted(space, key=lambda axis: axis.name)


def _access(op: Load | Write) -> Access:
    tensor = op.buffer.type
    assert isinstance(tensor, Tensor)
    address = Affine()
    computed: list[tuple[Value, Dim]] = []
    for entry, stride in zip(op.index, strides_of(tensor), strict=True):
        if isinstance(entry, Slot):
            computed.append((op.slots[entry.index], stride))
        else:
            address = address + entry * stride
    return Access(op, address, tuple(computed))


def _order(found: Accesses) -> None:
    """Axes from the widest step in memory to the narrowest, as the last store walks."""
    stores = [a for a in found.all if isinstance(a.op, Write)] or found.all
    position: Mapping[Axis, int] = {
        axis: k for k, (axis, _) in enumerate(_by_stride(stores))
    }
    steps = {axis: _widest_step(found, axis) for axis in found.axes}
    found.axes.sort(key=lambda a: (position.get(a, len(position)), -steps[a]))


def _widest_step(found: Accesses, axis: Axis) -> int:
    """The widest stride of an axis that is known; symbolic ones count as wide."""
    strides = [access.address.stride(axis) for access in found.all]
    return max((s if isinstance(s, int) else 1 << 62 for s in strides), default=0)


def _by_stride(stores: list[Access]) -> list[tuple[Axis, Dim]]:
    """The terms of stores in index order: dimensions, then digits, major first."""
    terms: dict[Axis, Dim] = {}
    widest = max(stores, key=lambda a: len(a.address.terms), default=None)
    for access in ([widest] if widest else []) + stores:
        if isinstance(access.op, Update):
            terms.update({a: 1 for a in access.op.axes if a not in terms})
        for entry in access.op.index:
            if isinstance(entry, Affine):
                terms.update({a: s for a, s in entry.terms if a not in terms})
    return list(terms.items())


def _merge(
    found: Accesses,
    spaces: list[set[Axis]],
    fixed: set[Axis],
    reduced: list[tuple[Axis, ...]],
) -> None:
    """Merge neighbouring axes while every access counts them as one."""
    together = [*spaces, *(set(axes) for axes in reduced)]
    done: list[Axis] = []
    for axis in found.axes:
        if done and _mergeable(found, together, fixed, done[-1], axis):
            outer = done.pop()
            axis = _join(found, together, outer, axis)
        done.append(axis)
    found.axes = done


def _mergeable(
    found: Accesses,
    together: list[set[Axis]],
    fixed: set[Axis],
    outer: Axis,
    inner: Axis,
) -> bool:
    if outer in fixed or inner in fixed:
        return False
    if any((outer in space) != (inner in space) for space in together):
        return False
    return all(
        a.address.stride(outer) == a.address.stride(inner) * inner.extent
        for a in found.all
    )


def _join(found: Accesses, together: list[set[Axis]], outer: Axis, inner: Axis) -> Axis:
    joined = Axis(outer.name + inner.name, outer.extent * inner.extent)
    for old, new in [*found.renamed.items()]:
        if new == (inner,):
            found.renamed[old] = (joined,)
        elif new == (outer,):
            found.renamed[old] = ()
    found.renamed.update({inner: (joined,), outer: ()})
    for space in together:
        if inner in space:
            space -= {outer, inner}
            space.add(joined)
    found.all = [_renamed(access, outer, inner, joined) for access in found.all]
    return joined


def _renamed(access: Access, outer: Axis, inner: Axis, joined: Axis) -> Access:
    terms = tuple(
        (joined if axis is inner else axis, stride)
        for axis, stride in access.address.terms
        if axis is not outer
    )
    return Access(access.op, Affine(terms, access.address.const), access.computed)


def _part(
    found: Accesses, reduced: list[tuple[Axis, ...]], scanned: list[Axis]
) -> None:
    """Tell swept axes from those that programs may share out."""
    combined = {axis for axes in reduced for axis in found.merged(axes)}
    swept = combined.union(scanned)
    for access in found.all:
        if isinstance(access.op, Write):
            swept |= set(found.axes) - found.written(access)
    found.swept = [axis for axis in found.axes if axis in swept]
    found.reduced = [axis for axis in found.axes if axis in combined]


def _sweeps_again(found: Accesses) -> bool:
    """Whether an op at points of a swept axis needs what a reduction gives."""
    swept, after = set(found.swept), set[Value]()
    for op in found.region.body.ops:
        late = not after.isdisjoint(op.operands)
        values = [v for v in (*op.operands, *op.results) if isinstance(v.type, Points)]
        axes = {axis for value in values for axis in found.merged(value.axes)}
        if isinstance(op, Write):
            axes |= found.written(found.of(op))
        if late and axes & swept:
            return True
        if late or isinstance(op, Reduce):
            after.update(op.results)
    return False
