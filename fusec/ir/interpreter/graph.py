"""The graph level: ops on whole tensors, as numpy spells them."""

# pyright: reportUnknownMemberType=false
# (numpy's stubs make Self unknown on an array of Any, so any .reshape is.)

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fusec.errors import CHECK_ERRORS
from fusec.ir.core import Value
from fusec.ir.dtypes import Array
from fusec.ir.interpreter import elements
from fusec.ir.interpreter.elements import fold_dims, scan_from_start
from fusec.ir.interpreter.extern import call
from fusec.ir.interpreter.frame import Frame, InterpretError, Rule
from fusec.ir.interpreter.memory import along, check_within
from fusec.ir.ops.checks import Checked
from fusec.ir.ops.contraction import Matmul
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.reduction import ReduceDims, ScanDim
from fusec.ir.ops.updating import update
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
    Scatter,
    Slice,
)


def iota(frame: Frame, op: Iota) -> tuple[Array]:
    shape, dim = frame.shape(op.shape), int(op.dim)
    counted = along(dim, shape[dim], len(shape))
    return (np.broadcast_to(counted, shape),)


def reshape(frame: Frame, op: Reshape) -> tuple[Array]:
    x, shape = frame[op.x], frame.shape(op.shape)
    if x.size != np.prod(shape, dtype=np.int64):
        raise InterpretError(f"cannot reshape {x.shape} to {shape}: sizes differ")
    return (x.reshape(shape),)


def permute(frame: Frame, op: Permute) -> tuple[Array]:
    return (frame[op.x].transpose(op.order),)


def broadcast(frame: Frame, op: Broadcast) -> tuple[Array]:
    return (np.broadcast_to(frame[op.x], frame.shape(op.shape)),)


def slice_(frame: Frame, op: Slice) -> tuple[Array]:
    x = frame[op.x]
    picked = frame.size(op.start) + op.step * np.arange(frame.size(op.length))
    check_within(picked, x.shape[op.dim], _dim(op.x, op.dim))
    return (x.take(picked, axis=op.dim),)


def pad(frame: Frame, op: Pad) -> tuple[Array]:
    x, low, high = frame[op.x], frame.numbers(op.low), frame.numbers(op.high)
    if min((*low, *high), default=0) < 0:
        raise InterpretError(f"negative padding: {low} before, {high} after")
    shape = [a + n + z for a, n, z in zip(low, x.shape, high, strict=True)]
    result = np.full(shape, frame[op.value])
    result[tuple(slice(a, a + n) for a, n in zip(low, x.shape, strict=True))] = x
    return (result,)


def concat(frame: Frame, op: Concat) -> tuple[Array]:
    return (np.concatenate(frame.all(op.xs), axis=op.dim),)


def index(frame: Frame, op: Index) -> tuple[Array]:
    x, indices = frame[op.x], frame.all(op.indices)
    for dim, picked in zip(op.dims, indices, strict=True):
        check_within(picked, x.shape[dim], _dim(op.x, dim))
    kept = [d for d in range(x.ndim) if d not in op.dims]
    elements = x.transpose([*op.dims, *kept])[tuple(indices)]
    rank = indices[0].ndim
    return (np.moveaxis(elements, range(rank), range(op.at, op.at + rank)),)


def checked(frame: Frame, op: Checked) -> tuple[Array]:
    x, ok = frame.all(op.operands)
    if not ok.all():
        raise CHECK_ERRORS[op.error](op.message)
    return (np.broadcast_arrays(x, ok)[0],)


def gather(frame: Frame, op: Gather) -> tuple[Array]:
    x, picked = frame[op.x], frame[op.index]
    coords = [along(d, n, picked.ndim) for d, n in enumerate(picked.shape)]
    coords[op.dim] = picked
    if picked.size:
        for dim, coord in enumerate(coords):
            check_within(coord, x.shape[dim], _dim(op.x, dim))
    return (x[tuple(np.broadcast_arrays(*coords))],)


def scatter(frame: Frame, op: Scatter) -> tuple[Array]:
    x, src, picks = frame[op.x], frame[op.src], frame.all(op.picks)
    chosen = np.broadcast_to(True if op.mask is None else frame[op.mask], src.shape)
    place = np.zeros(np.count_nonzero(chosen), np.int64)
    for dim, (at, extent) in enumerate(zip(op.places, x.shape, strict=True)):
        coord = along(at, src.shape[at], src.ndim) if at >= 0 else picks[-1 - at]
        index = np.broadcast_to(coord, src.shape)[chosen]
        check_within(index, extent, _dim(op.x, dim))
        place = place * extent + index
    result = np.array(x, order="C")
    update(op.combine, result.reshape(-1), place, src[chosen])
    return (result,)


def restride(frame: Frame, op: Restride) -> tuple[Array]:
    return (frame[op.x],)


def reduce_dims(frame: Frame, op: ReduceDims) -> Sequence[Array]:
    return fold_dims(op.monoid, frame.all(op.values), op.dims)


def scan_dim(frame: Frame, op: ScanDim) -> Sequence[Array]:
    values = frame.all(op.values)
    if not op.reverse:
        return scan_from_start(op.monoid, values, op.dim)
    flipped = [np.flip(x, op.dim) for x in values]
    return [np.flip(x, op.dim) for x in scan_from_start(op.monoid, flipped, op.dim)]


def matmul(frame: Frame, op: Matmul) -> tuple[Array]:
    """Floats accumulate in float64 and round once; integers wrap, which is exact."""
    x, y = frame.all(op.operands)
    wide = np.float64 if op.dtype.is_float else np.int64
    x, y = x.astype(wide), y.astype(wide)
    return (dtype_of(op.result).quantize(np.matmul(x, y)),)


def extern(frame: Frame, op: Extern) -> Iterable[Array | None]:
    return call(frame, op, frame.all(op.inputs))


def _dim(value: Value, dim: int) -> str:
    return f"{value} in dimension {dim}"


RULES: Mapping[type, Rule] = {
    **elements.RULES,
    Iota: iota,
    Reshape: reshape,
    Permute: permute,
    Broadcast: broadcast,
    Slice: slice_,
    Pad: pad,
    Concat: concat,
    Checked: checked,
    Index: index,
    Gather: gather,
    Scatter: scatter,
    Restride: restride,
    ReduceDims: reduce_dims,
    ScanDim: scan_dim,
    Matmul: matmul,
    Extern: extern,
}
