"""Elements from memory and to it: pointers, masks, descriptors.

    %t = load_tile %x, %o, %n {…}            t = tl.load(x + o + i, mask=i < n)
    store_tile %t, %y, %o {strides=(8,)}     tl.store(y + o + i * 8, t)
      combine="sum"                          tl.atomic_add(y + o + i * 8, t, …)

Tensor descriptors are made ahead of the loops whose blocks they bring:

    x_tile = tl.make_tensor_descriptor(x + o, [rows, 2000], [2000, 1], [BLOCK_M, …])
    for k in range(0, 2000, BLOCK_K):
        x_1 = x_tile.load([0, k])
"""

from __future__ import annotations

from collections.abc import Sequence

from fusec.codegen.triton_blocks import dims_of
from fusec.codegen.triton_filling import nothing
from fusec.codegen.triton_kernel import Kernel
from fusec.codegen.triton_text import all_of
from fusec.errors import InternalError
from fusec.ir.core import Block, Value, walk
from fusec.ir.dims import Dim
from fusec.ir.dtypes import f32, f64, i32, i64
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.tile import Access, FetchTile, Guard, LoadTile, StoreTile
from fusec.ir.ops.updating import ONE

LONGEST = 1 << 14
"""Elements that no block is longer than, along a dimension."""


def load_tile(k: Kernel, op: LoadTile) -> None:
    """Elements by pointers, and something else where none exist."""
    pointers, whole, extras = _access(k, op, op.result)
    if op.other is not None:
        extras.append(f"other={k.aligned(op.other, dims_of(op.result))}")
    elif extras and op.result in k.filling:
        extras.append(f"other={k.filling[op.result]}")
    text = f"tl.load({', '.join([pointers, *extras])})"
    shape = k.shape(op.result)
    k.define(op.result, text if whole else f"tl.broadcast_to({text}, {shape})", "x")


def fetch_tile(k: Kernel, op: FetchTile) -> None:
    """A block of a matrix, by its descriptor."""
    dims, places = _rows_first(op), op.places
    at = (k.names[places[d]] if d in places else "0" for d in dims)
    starts = ", ".join(x if x.isdecimal() else f"{x}.to(tl.int32)" for x in at)
    turned = "" if dims == sorted(dims) else ".T"
    k.define(op.result, f"{_descriptor(k, op)}.load([{starts}]){turned}", "x")


def store_tile(k: Kernel, op: StoreTile) -> None:
    """Elements to memory, in place of what is there or combined with it."""
    pointers, whole, extras = _access(k, op, op.value)
    if not whole:
        pointers = f"tl.broadcast_to({pointers}, {k.shape(op.value)})"
    if op.combine not in ("", ONE):
        given = ", ".join([pointers, k.tensor(op.value), *extras, 'sem="relaxed"'])
        k.line(f"{_atomic(op)}({given})")
        return
    if op.streaming:
        extras.append('eviction_policy="evict_first"')
    k.line(f"tl.store({', '.join([pointers, k.tensor(op.value), *extras])})")


def _atomic(op: StoreTile) -> str:
    """Triton's function that combines in memory. Extremes of floats it takes by their
    bits, which loses NaN."""
    dtype = dtype_of(op.value)
    fits = (i32, i64) if op.combine in ("max", "min") else (f32, f64, i32, i64)
    if dtype not in fits:
        raise InternalError(
            f"the Triton backend has no {op.combine} of {dtype.name} in memory", op.loc
        )
    return _ATOMIC[op.combine]


_ATOMIC = {"sum": "tl.atomic_add", "max": "tl.atomic_max", "min": "tl.atomic_min"}


def guard(k: Kernel, op: Guard) -> None:
    """A number where nothing exists, unless the load gave that already."""
    if op.x in k.filling and k.filling[op.x] == nothing(op):
        k.names[op.result] = k.names[op.x]
        return
    limits = zip(op.limited, op.limits, strict=True)
    there = k.existing(limits, dims_of(op.result))
    text = f"tl.where({all_of(there)}, {k.names[op.x]}, {nothing(op)})"
    k.define(op.result, text if there else k.names[op.x])


def describe(k: Kernel, body: Block) -> None:
    """Make the descriptors of matrices that are known ahead of a loop."""
    for op in walk(body):
        if isinstance(op, FetchTile) and k.names.keys() >= {*_matrix_of(op)}:
            _descriptor(k, op)


def _access(k: Kernel, op: Access, value: Value) -> tuple[str, bool, list[str]]:
    """The pointers of an access, whether they are as many as the elements, and what
    masks it."""
    dims = dims_of(value)
    parts = [k.names[op.buffer]]
    offset = k.names[op.offset]
    if offset != "0":
        parts.append(offset)
    met = {d for d in dims if op.strides[d] != 0}
    for d in sorted(met):
        parts.append(_step(k, k.place(d, dims), op.strides[d]))
    if op.index is not None:
        met.update(dims_of(op.index))
        parts.append(k.aligned(op.index, dims))
    pointers = " + ".join(parts)
    masks = k.existing(op.limits.items(), dims)
    if op.mask is not None:
        masks.append(k.aligned(op.mask, dims))
    whole = met == {*dims}
    if masks and not whole:
        wide = f"tl.broadcast_to({pointers}, {k.shape(value)})"
        pointers, whole = wide, True
    return pointers, whole, [f"mask={all_of(masks)}"] if masks else []


def _step(k: Kernel, place: str, stride: Dim) -> str:
    """How far on the elements of a dimension lie: in 32 bits, if that is enough."""
    if stride == 1:
        return place
    far = isinstance(stride, int) and abs(stride) * LONGEST >= 1 << 31
    place = f"{place}.to(tl.int64)" if far else place
    return f"{place} * {k.size(stride)}"


def _descriptor(k: Kernel, op: FetchTile) -> str:
    """The name of the descriptor of the matrix that a block is brought from."""
    key = *_matrix_of(op), op.strides
    if key not in k.descriptors:
        dims, offset = _rows_first(op), k.names[op.offset]
        base = k.names[op.buffer]
        base = base if offset == "0" else f"{base} + {offset}"
        extents = ", ".join(k.names[op.limits[d]] for d in dims)
        strides = ", ".join(k.size(op.strides[d]) for d in dims)
        block = ", ".join(k.blocks[d] for d in dims)
        name = k.descriptors[key] = k.fresh(f"{op.buffer.hint or 'x'}_tile")
        k.line(
            f"{name} = tl.make_tensor_descriptor({base}, [{extents}], [{strides}],"
            f" [{block}])"
        )
    return k.descriptors[key]


def _rows_first(op: FetchTile) -> list[int]:
    """The dimensions of a block, those of elements in a row the last."""
    return sorted(dims_of(op.result), key=lambda d: op.strides[d] == 1)


def _matrix_of(op: FetchTile) -> Sequence[Value]:
    """What the descriptor of a block's matrix is made of."""
    return (op.buffer, op.offset, *op.limits.values())
