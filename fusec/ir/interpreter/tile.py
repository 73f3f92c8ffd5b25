"""The tile level: the programs of a launch, one after the other.

A layout says where elements of a tile lie, never what they are: it plays no part here.
"""

# pyright: reportUnknownMemberType=false
# (numpy's stubs make Self unknown on an array of Any, so any .reshape is.)

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fusec.ir.core import Function, Value
from fusec.ir.dims import Symbol
from fusec.ir.dtypes import Array
from fusec.ir.interpreter import elements
from fusec.ir.interpreter.elements import fold_dims, poison, scan_along
from fusec.ir.interpreter.frame import Context, Frame, InterpretError, Rule
from fusec.ir.interpreter.graph import broadcast
from fusec.ir.interpreter.memory import (
    addresses,
    along,
    check_array,
    check_within,
    poisoned,
)
from fusec.ir.layout import MEM
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.pointwise import dtype_of, where
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.ops.tile import (
    Access,
    BlockCount,
    BlockExtent,
    BroadcastTile,
    Convert,
    FetchTile,
    For,
    Guard,
    IotaTile,
    LoadTile,
    Part,
    ProgramId,
    Scratch,
    Stage,
    StoreTile,
)
from fusec.ir.ops.updating import update
from fusec.ir.ops.view import Broadcast
from fusec.ir.types import Buffer


def launch(
    function: Function,
    arguments: Sequence[Any],
    sizes: Mapping[Symbol, int],
    programs: Iterable[int],
    context: Context,
) -> None:
    """Run programs of a tile function, in order, on these buffers and scalars."""
    frame = Frame(function, sizes, RULES, context)
    for param, argument in zip(function.params, arguments, strict=True):
        frame.values[param] = argument_of(param, argument)
    for program in programs:
        frame.program = program
        frame.run(function.body)


def argument_of(param: Value, argument: Any) -> Array:
    """A buffer, which the kernel will write to, or a scalar."""
    if not isinstance(param.type, Buffer):
        return elements.scalar(param, argument)
    array = check_array(param, argument)
    if array.ndim != 1:
        raise InterpretError(f"{param} takes flat memory, not {array.ndim} dimensions")
    return array


def program_id(frame: Frame, op: ProgramId) -> tuple[Array]:
    return (np.asarray(frame.program, np.int64),)


def part(frame: Frame, op: Part) -> tuple[()]:
    number = frame.program - frame.size(op.first)
    if 0 <= number < frame.size(op.programs):
        (param,) = op.body.params
        frame.values[param] = np.asarray(number, np.int64)
        frame.run(op.body)
    return ()


def block_extent(frame: Frame, op: BlockExtent) -> tuple[Array]:
    return (np.asarray(op.extent, np.int64),)


def block_count(frame: Frame, op: BlockCount) -> tuple[Array]:
    return (np.asarray(-(-frame.size(op.size) // op.extent), np.int64),)


class Elements(NamedTuple):
    """What an access touches."""

    address: Array
    inside: Array
    """Which elements are within the limits."""
    touched: Array
    """Which of them the mask lets through as well."""


def load_tile(frame: Frame, op: LoadTile) -> tuple[Array]:
    at = _elements(frame, op, frame.shape(op.type.shape))
    buffer = frame[op.buffer]
    nothing = poison(op.type.dtype)
    other = nothing if op.other is None else frame[op.other]
    result = np.array(where(at.inside, other, nothing))
    result[at.touched] = buffer[_checked(at, buffer, op.buffer)]
    return (result,)


def fetch_tile(frame: Frame, op: FetchTile) -> tuple[Array]:
    shape, strides = frame.shape(op.type.shape), frame.numbers(op.strides)
    address = addresses(shape, strides) + frame[op.offset]
    limits = {d: frame[limit] for d, limit in op.limits.items()}
    for d, place in op.places.items():
        address = address + frame[place] * strides[d]
        limits[d] = limits.get(d, shape[d]) - frame[place]
    inside = np.ones(shape, np.bool_)
    for d, limit in limits.items():
        inside &= along(d, shape[d], len(shape)) < limit
    result = np.zeros(shape, op.type.dtype.carrier)
    buffer, place = frame[op.buffer], address[inside]
    check_within(place, len(buffer), op.buffer)
    result[inside] = buffer[place]
    return (result,)


def store_tile(frame: Frame, op: StoreTile) -> tuple[()]:
    value = frame[op.value]
    at = _elements(frame, op, value.shape)
    buffer = frame[op.buffer]
    place, written = _checked(at, buffer, op.buffer), value[at.touched]
    if op.combine:
        update(op.combine, buffer, place, written)
        return ()
    buffer[place] = written
    if not np.array_equal(buffer[place], written, equal_nan=written.dtype.kind == "f"):
        raise InterpretError(f"two elements go to one place in {op.buffer}")
    return ()


def _elements(frame: Frame, op: Access, shape: tuple[int, ...]) -> Elements:
    address = addresses(shape, frame.numbers(op.strides)) + frame[op.offset]
    if op.index is not None:
        address = address + frame[op.index]
    inside = _within(frame, op.limits, shape)
    mask = True if op.mask is None else frame[op.mask]
    return Elements(address, inside, inside & mask)


def _within(frame: Frame, limits: Mapping[int, Value], shape: tuple[int, ...]) -> Array:
    """Which elements of a tile exist, their coordinates being below all limits."""
    inside = np.ones(shape, np.bool_)
    for dim, limit in limits.items():
        inside &= along(dim, shape[dim], len(shape)) < frame[limit]
    return inside


def _checked(at: Elements, buffer: Array, name: Value) -> Array:
    place = at.address[at.touched]
    check_within(place, len(buffer), name)
    return place


def guard(frame: Frame, op: Guard) -> tuple[Array]:
    x = frame[op.x]
    limits = dict(zip(op.limited, op.limits, strict=True))
    nothing = dtype_of(op.x).quantize(np.asarray(op.identity))
    return (where(_within(frame, limits, x.shape), x, nothing),)


def iota_tile(frame: Frame, op: IotaTile) -> tuple[Array]:
    shape, dim = frame.shape(op.type.shape), int(op.dim)
    counted = frame[op.origin] + along(dim, shape[dim], len(shape))
    return (np.broadcast_to(counted, shape),)


def broadcast_tile(frame: Frame, op: BroadcastTile) -> tuple[Array]:
    return (np.broadcast_to(frame[op.x], frame.shape(op.type.shape)),)


def convert(frame: Frame, op: Convert) -> tuple[Array]:
    return (frame[op.x],)


def stage(frame: Frame, op: Stage) -> tuple[Array]:
    return (frame[op.x],)


def dot_tile(frame: Frame, op: DotTile) -> tuple[Array]:
    """Floats accumulate in float64 and round once; integers wrap, which is exact."""
    wide = np.float64 if op.state.dtype.is_float else np.int64
    state, x, y = (frame[v].astype(wide) for v in op.operands)
    return (dtype_of(op.state).quantize(state + contracted(x, y, op.dims)),)


def contracted(x: Array, y: Array, dims: Sequence[int]) -> Array:
    """Products summed over dimensions, which stay with extent 1."""
    all_dims = range(x.ndim)
    held = [[d for d in all_dims if a.shape[d] != 1 or d in dims] for a in (x, y)]
    parts = [
        a.reshape([a.shape[d] for d in h]) for a, h in zip((x, y), held, strict=True)
    ]
    kept = [d for d in all_dims if (d in held[0] or d in held[1]) and d not in dims]
    total = np.einsum(parts[0], held[0], parts[1], held[1], kept, optimize=True)
    sizes = [max(x.shape[d], y.shape[d]) if d in kept else 1 for d in all_dims]
    return np.asarray(total).reshape(sizes)


def reduce_tile(frame: Frame, op: ReduceTile) -> Iterator[Array]:
    folded = fold_dims(op.monoid, frame.all(op.values), op.dims)
    return (np.expand_dims(x, tuple(op.dims)) for x in folded)


def scan_tile(frame: Frame, op: ScanTile) -> Iterator[Array]:
    """The starts stand before the first elements; the last result is the total."""
    pairs = zip(frame.all(op.starts), frame.all(op.values), strict=True)
    values = [np.concatenate(pair, axis=op.dim) for pair in pairs]
    results = [np.moveaxis(x, op.dim, 0) for x in scan_along(op.monoid, values, op.dim)]
    yield from (np.moveaxis(x[1:], 0, op.dim) for x in results)
    yield from (np.moveaxis(x[-1:], 0, op.dim) for x in results)


def for_(frame: Frame, op: For) -> Iterable[Array]:
    if op.step <= 0:
        raise InterpretError(f"a loop that steps by {op.step}")
    counter, *carried = op.body.params
    held = frame.all(op.inits)
    for count in range(frame.number(op.lo), frame.number(op.hi), op.step):
        frame.values[counter] = np.asarray(count, np.int64)
        frame.values.update(zip(carried, held, strict=True))
        frame.run(op.body)
        held = frame.all(op.body.yields)
    return held


def scratch(frame: Frame, op: Scratch) -> tuple[Array]:
    """Memory up to the last element that the layout places, found as poison."""
    bits = op.type.dtype.bits
    count = (op.type.layout.span(MEM) - 1) // bits + 1
    return (poisoned((count,), op.type.dtype),)


RULES: Mapping[type, Rule] = {
    **elements.RULES,
    ProgramId: program_id,
    BlockExtent: block_extent,
    Part: part,
    BlockCount: block_count,
    LoadTile: load_tile,
    FetchTile: fetch_tile,
    StoreTile: store_tile,
    Guard: guard,
    IotaTile: iota_tile,
    Broadcast: broadcast,
    BroadcastTile: broadcast_tile,
    Convert: convert,
    Stage: stage,
    DotTile: dot_tile,
    ReduceTile: reduce_tile,
    ScanTile: scan_tile,
    For: for_,
    Scratch: scratch,
}
