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
from fusec.analysis.affine import index_axes
from fusec.analysis.choices import product_seconds
from fusec.analysis.contraction import Contraction, contraction
from fusec.analysis.cost import bandwidth, likely
from fusec.ir.core import Affine, Op, Value
from fusec.ir.dims import Dim, Facts, Symbol, product
from fusec.ir.dtypes import DType, i8, i32
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.contraction import summed_in
from fusec.ir.ops.loop import Load, Region, Store, Write
from fusec.ir.types import Axis, Tensor, strides_of
from fusec.target import Target

CALL = 3e-6
"""Seconds that a call takes beside its work."""


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
    region: Region, facts: Facts, target: Target, hints: Mapping[Symbol, int]
) -> Product | None:
    """The call that a region comes to, where the target's library is known for such.

    `facts` are those of the function around it.
    """
    rates = dict(target.library)
    if not rates:
        return None
    found = accesses(region)
    c = contraction(found)
    plain = _plain(region, c) if c else None
    if c is None or plain is None:
        return None
    x, y, store = plain
    dtype: DType = x.buffer.dtype
    axes = _axes(store)
    fits = (
        dtype is y.buffer.dtype
        and c.dtype is (i32 if dtype is i8 else summed_in(dtype))
        and store.buffer.dtype is (i32 if dtype is i8 else dtype)
        and len(axes) in (2, 3)
        and dtype.name in rates
    )
    if not fits:
        return None
    *batch, row, column = axes
    if row in _loaded(y):
        x, y = y, x
    (inner,) = c.products[0].sum.axes
    wanted = {*batch, row, inner}, {*batch, inner, column}
    if (_loaded(x), _loaded(y)) != wanted or (dtype is i8 and batch):
        return None
    left = _operand(x, region, [*batch, row, inner])
    right = _operand(y, region, [*batch, inner, column])
    strides = (n for each in (left, right) for n in strides_of(each.view))
    if not all(facts.proves_le(0, n) for n in strides):
        return None  # torch's tensors do not step backwards
    name = "_int_mm" if dtype is i8 else "bmm" if batch else "mm"
    work = product(axis.extent for axis in (*batch, row, column, inner))
    theirs = _seconds(likely(work, hints), found, rates[dtype.name], target, hints)
    ours = product_seconds(c, found, target, hints)
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
    memory = moved / bandwidth(moved, target.cores, target)
    return CALL + target.latency + max(compute, memory)


def _plain(region: Region, c: Contraction) -> tuple[Load, Load, Store] | None:
    """The loads and the store of a region that does nothing besides one product: its
    factors are what is loaded and its result is what is stored, cast at most once."""
    ops: tuple[Op, ...] = region.body.ops
    loads = {op.result: op for op in ops if isinstance(op, Load)}
    writes = [op for op in ops if isinstance(op, Write)]
    if len(c.products) != 1 or len(loads) != 2 or len(writes) != 1:
        return None
    product, store = c.products[0], writes[0]
    if not isinstance(store, Store):
        return None
    factors = [loads.get(c.narrow[value]) for value in product.factors]
    made = {value: op for op in ops for value in op.results}
    last = made[store.value]
    total = last.operands[0] if isinstance(last, Cast) else store.value
    x, y = factors
    if x is None or y is None or (total,) != product.sum.results:
        return None
    if any(op.masked or op.slots for op in (x, y)) or len(product.sum.axes) != 1:
        return None
    tensor = store.buffer.type
    assert isinstance(tensor, Tensor)
    dense = strides_of(Tensor(tensor.dtype, tensor.shape))
    if strides_of(tensor) != dense or len(_axes(store)) != len(tensor.shape):
        return None
    return x, y, store


def _axes(store: Store) -> list[Axis]:
    """The axes that the dimensions of the result are stored along, as far as each has
    one of its own."""
    entries = [entry for entry in store.index if isinstance(entry, Affine)]
    plain = (e for e in entries if e.const == 0 and [s for _, s in e.terms] == [1])
    return [entry.axes[0] for entry in plain]


def _loaded(load: Load) -> set[Axis]:
    return {*index_axes(load.index)}


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
