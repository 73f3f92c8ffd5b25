"""Products of matrices that torch's library may do faster: which, and what they take.

    %c = region(%x, %y) over i, j, k { … mul, reduce k sum … store %c [i, j] }
    %c = extern "aten.mm.default" %x, %y              the same, in one call

A region that is a product and nothing else may become a call, on the tensors as they
lie. What a library reaches on a target is a fact of the target, as what we reach is
`blocking`'s count of cycles: the smaller of both is what fusion reckons with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusec.analysis.accesses import Accesses, accesses
from fusec.analysis.blocking import predicted
from fusec.analysis.contraction import contraction
from fusec.analysis.cost import LAUNCH, bandwidth, likely
from fusec.ir.core import Affine, Op, Value
from fusec.ir.dims import Dim, Symbol, product
from fusec.ir.dtypes import DType, bf16, f16, f32, f64, i8, i32
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.loop import Load, Region, Store
from fusec.ir.types import Axis, Tensor, strides_of
from fusec.target import Target

CALL = 3e-6
"""Seconds that a call takes beside its work."""

SUMMED_IN = {f32: f32, f64: f64, bf16: f32, f16: f32, i8: i32}
"""What products of each dtype are summed up in, by the library and by us."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor of the region, and the strided view of it that is a matrix."""

    value: Value
    view: Tensor
    offset: Dim


@dataclass(frozen=True, slots=True)
class Product:
    """A region as a call: `target` on two matrices, or batches of them."""

    target: str
    x: Operand
    y: Operand
    ours: float
    """Seconds that a kernel of ours is predicted to take."""
    theirs: float
    """Seconds that the call is."""


def as_call(
    region: Region, target: Target, hints: Mapping[Symbol, int]
) -> Product | None:
    """The call that a region comes to, where the target's library is known for such."""
    rates = dict(target.library)
    if not rates:
        return None
    found = accesses(region)
    c = contraction(found)
    plain = _plain(region)
    if c is None or plain is None or len(c.products) != 1 or len(c.summed) != 1:
        return None
    x, y, store = plain
    dtype: DType = x.buffer.dtype
    axes = _axes(store)
    fits = (
        dtype is y.buffer.dtype
        and SUMMED_IN.get(dtype) is c.dtype
        and store.buffer.dtype is (i32 if dtype is i8 else dtype)
        and len(axes) in (2, 3)
        and dtype.name in rates
    )
    if not fits or None in axes:
        return None
    *batch, row, column = (axis for axis in axes if axis is not None)
    (inner,) = [axis for axis in _loaded(x) if axis not in _loaded_by(store)]
    if inner not in _loaded(y) or (dtype is i8 and batch):
        return None
    if row in _loaded(y):
        x, y = y, x
    if row not in _loaded(x) or column not in _loaded(y):
        return None
    left = _operand(x, region, [*batch, row, inner])
    right = _operand(y, region, [*batch, inner, column])
    name = "_int_mm" if dtype is i8 else "bmm" if batch else "mm"
    work = product(axis.extent for axis in (*batch, row, column, inner))
    theirs = _seconds(likely(work, hints), found, rates[dtype.name], target, hints)
    ours = LAUNCH + predicted(c, found, target, hints)
    return Product(f"aten.{name}.default", left, right, ours, theirs)


def _seconds(
    multiplied: int,
    found: Accesses,
    rate: float,
    target: Target,
    hints: Mapping[Symbol, int],
) -> float:
    """What a library takes that reaches `rate` multiply-adds for each of f32's."""
    lanes = target.lanes(32) * target.vector_pipes
    compute = multiplied / (lanes * rate * target.hertz * target.cores)
    moved = likely(found.bytes, hints)
    return CALL + max(compute, moved / bandwidth(moved, target.cores, target))


def _plain(region: Region) -> tuple[Load, Load, Store] | None:
    """The loads and the store of a region that does nothing besides multiplying."""
    ops: tuple[Op, ...] = region.body.ops
    loads = [op for op in ops if isinstance(op, Load)]
    stores = [op for op in ops if isinstance(op, Store)]
    others = [op for op in ops if not isinstance(op, (Load, Store, Cast))]
    names = sorted(op.name for op in others)
    if len(loads) != 2 or len(stores) != 1 or names != ["mul", "reduce"]:
        return None
    if any(op.masked or op.slots for op in loads):
        return None
    return loads[0], loads[1], stores[0]


def _axes(store: Store) -> list[Axis | None]:
    """The axis that each dimension of the result is stored along; None for others."""
    found: list[Axis | None] = []
    for entry in store.index:
        plain = isinstance(entry, Affine) and entry.const == 0 and len(entry.terms) == 1
        one = plain and entry.terms[0][1] == 1
        found.append(entry.terms[0][0] if one else None)
    return found


def _loaded(load: Load) -> set[Axis]:
    return {axis for entry in load.index for axis in entry.axes}


def _loaded_by(store: Store) -> set[Axis]:
    return {axis for axis in _axes(store) if axis is not None}


def _operand(load: Load, region: Region, axes: list[Axis]) -> Operand:
    """The matrix that a load reads, its dimensions along these axes."""
    tensor = load.buffer.type
    assert isinstance(tensor, Tensor)
    address = Affine()
    for entry, stride in zip(load.index, strides_of(tensor), strict=True):
        address = address + entry * stride
    shape = tuple(axis.extent for axis in axes)
    strides = tuple(address.stride(axis) for axis in axes)
    outer = dict(
        zip(region.body.params, (*region.inputs, *region.results), strict=True)
    )
    return Operand(
        outer[load.buffer], Tensor(tensor.dtype, shape, strides), address.const
    )
