"""The loop level: all points of a region's axes at once, read and written by index."""

# pyright: reportUnknownMemberType=false
# (numpy's stubs make Self unknown on an array of Any, so any .reshape is.)

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusec.errors import CHECK_ERRORS
from fusec.ir.calls import Slot
from fusec.ir.core import Affine, Value
from fusec.ir.dtypes import Array
from fusec.ir.interpreter import elements
from fusec.ir.interpreter.elements import (
    axes_of,
    fold,
    poison,
    scan_from_start,
    spread,
)
from fusec.ir.interpreter.extern import call
from fusec.ir.interpreter.frame import Frame, InterpretError, Rule
from fusec.ir.interpreter.memory import along, check_within, in_memory, poisoned
from fusec.ir.ops.checks import Check
from fusec.ir.ops.elementwise import Mul
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import (
    Coordinate,
    Load,
    Region,
    Store,
    Update,
    View,
    updates,
)
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.reduction import Reduce, Scan
from fusec.ir.ops.updating import update as combine
from fusec.ir.products import summed_products
from fusec.ir.types import Axis, Tensor, strides_of

Axes = tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """A result of a region in the making, and which of its elements are written."""

    array: Array
    written: Array


def region(frame: Frame, op: Region) -> Sequence[Array]:
    inputs = op.body.params[: len(op.inputs)]
    made = op.body.params[len(op.inputs) :]
    frame.values.update(zip(inputs, frame.all(op.inputs), strict=True))
    updated = updates(op.body)
    for value in made:
        if value in updated:
            frame.values[value] = _begun(frame[updated[value].start])
        else:
            frame.values[value] = _unwritten(frame, value)
    frame.products = {*summed_products(op.body).values()}
    frame.run(op.body)
    return [_finished(frame[value], value) for value in made]


def _unwritten(frame: Frame, value: Value) -> Output:
    assert isinstance(value.type, Tensor)
    shape = frame.shape(value.type.shape)
    return Output(poisoned(shape, value.type.dtype), np.zeros(shape, np.bool_))


def _begun(start: Array) -> Output:
    array = np.array(start, order="C")
    return Output(array, np.ones(array.shape, np.bool_))


def _finished(output: Output, value: Value) -> Array:
    if not output.written.all():
        missing = np.argwhere(~output.written)
        where = f"{tuple(missing[0].tolist())} and {len(missing) - 1} more"
        raise InterpretError(f"nothing wrote the elements {where} of {value}")
    return output.array


def coordinate(frame: Frame, op: Coordinate) -> tuple[Array]:
    return (along(0, frame.size(op.axis.extent), 1),)


def load(frame: Frame, op: Load) -> tuple[Array]:
    axes, dtype = axes_of(op.result.type), dtype_of(op.result)
    shape = frame.extents(axes)
    chosen = np.broadcast_to(
        _points(frame, op.mask, axes) if op.masked else True, shape
    )
    other = _points(frame, op.other, axes) if op.masked else poison(dtype)
    result = np.array(np.broadcast_to(other, shape))
    place = _place(frame, op, op.slots, axes, chosen)
    result[chosen] = _readable(frame[op.buffer], place, op.buffer)[place]
    return (result,)


def _readable(held: Any, place: Array, buffer: Value) -> Array:
    """The elements of a buffer in a row, those to be read being there by now."""
    if not isinstance(held, Output):
        return np.ravel(held)
    if not held.written.reshape(-1)[place].all():
        raise InterpretError(f"reads elements of {buffer} that nothing wrote yet")
    return np.ravel(held.array)


def store(frame: Frame, op: Store) -> tuple[()]:
    axes = _store_axes(op)
    everywhere = np.ones(frame.extents(axes), np.bool_)
    value = np.broadcast_to(_points(frame, op.value, axes), everywhere.shape)
    output = frame[op.buffer]
    if not isinstance(output, Output):
        raise InterpretError(f"{op.buffer} is no result of this region")
    place = _place(frame, op, op.indices, axes, everywhere)
    if len(np.unique(place)) != len(place):
        raise InterpretError(f"writes an element of {op.buffer} at several points")
    output.array.reshape(-1)[place] = value[everywhere]
    output.written.reshape(-1)[place] = True
    return ()


def update(frame: Frame, op: Update) -> tuple[()]:
    shape = frame.extents(op.axes)
    chosen = np.broadcast_to(
        _points(frame, op.mask, op.axes) if op.masked else True, shape
    )
    value = np.broadcast_to(_points(frame, op.value, op.axes), shape)[chosen]
    place = _place(frame, op, op.slots, op.axes, chosen)
    combine(op.combine, frame[op.buffer].array.reshape(-1), place, value)
    return ()


def _store_axes(op: Store) -> Axes:
    """The axes of the value and of all that its place depends on."""
    axes = dict.fromkeys(axes_of(op.value.type))
    for entry in op.index:
        axes.update(dict.fromkeys(entry.axes if isinstance(entry, Affine) else ()))
    for index in op.indices:
        axes.update(dict.fromkeys(axes_of(index.type)))
    return tuple(axes)


def _points(frame: Frame, value: Value, axes: Axes) -> Array:
    return spread(frame[value], axes_of(value.type), axes)


def _place(
    frame: Frame, op: Any, slots: Sequence[Value], axes: Axes, chosen: Array
) -> Array:
    """Which element of the buffer, counted row by row, at each chosen point."""
    place = np.zeros(np.count_nonzero(chosen), np.int64)
    extents = frame.shape(op.buffer.type.shape)
    for dim, (entry, extent) in enumerate(zip(op.index, extents, strict=True)):
        index = _index(frame, entry, slots, axes)
        index = np.broadcast_to(index, chosen.shape)[chosen]
        check_within(index, extent, f"{op.buffer} in dimension {dim}")
        place = place * extent + index
    return place


def _index(
    frame: Frame, entry: Affine | Slot, slots: Sequence[Value], axes: Axes
) -> Array:
    if isinstance(entry, Slot):
        return _points(frame, slots[entry.index], axes)
    total = np.asarray(frame.size(entry.const), np.int64)
    for axis, stride in entry.terms:
        counted = along(axes.index(axis), frame.size(axis.extent), len(axes))
        total = total + frame.size(stride) * counted
    return total


@dataclass(frozen=True, slots=True)
class Factors:
    """A product that is not there at all its points, as they may be very many."""

    x: Value
    y: Value


def mul(frame: Frame, op: Mul) -> Iterable[Any]:
    if op in frame.products:
        return (Factors(op.x, op.y),)
    return elements.elementwise(frame, op)


def contract(frame: Frame, op: Reduce, product: Factors) -> Array:
    """Floats accumulate in float64 and round once; integers wrap, which is exact."""
    kept, dtype = axes_of(op.results[0].type), dtype_of(op.results[0])
    numbers: dict[Axis, int] = {}
    parts: list[Any] = []
    for value in (product.x, product.y):
        array = frame[value]
        parts.append(array.astype(np.float64) if dtype.is_float else array)
        axes = axes_of(value.type)
        parts.append([numbers.setdefault(axis, len(numbers)) for axis in axes])
    places = [numbers[axis] for axis in kept]
    total = np.einsum(*parts, places, optimize=True)
    held = {axis for axis in op.axes if axis in numbers}
    repeats = int(np.prod(frame.extents(a for a in op.axes if a not in held)))
    return dtype.quantize(np.asarray(total) * repeats)


def reduce(frame: Frame, op: Reduce) -> Iterator[Array]:
    """Every operand at every point of all axes, the reduced ones first, as one."""
    product = frame[op.values[0]]
    if isinstance(product, Factors):
        return iter((contract(frame, op, product),))
    kept = axes_of(op.results[0].type)
    axes = (*op.axes, *kept)
    rest = frame.extents(kept)
    shape = frame.extents(op.axes)
    flat = (int(np.prod(shape, dtype=np.int64)), *rest)
    state = tuple(
        np.broadcast_to(_points(frame, value, axes), shape + rest).reshape(flat)
        for value in op.values
    )
    return iter(fold(op.monoid, state))


def scan(frame: Frame, op: Scan) -> Iterator[Array]:
    """Every operand at every point of all axes."""
    axes = axes_of(op.results[0].type)
    shape = frame.extents(axes)
    values = [np.broadcast_to(_points(frame, v, axes), shape) for v in op.values]
    return iter(scan_from_start(op.monoid, values, axes.index(op.axis)))


def check(frame: Frame, op: Check) -> tuple[()]:
    if not frame[op.ok].all():
        raise CHECK_ERRORS[op.error](op.message)
    return ()


def view(frame: Frame, op: View) -> tuple[Array]:
    memory = in_memory(frame, op.x.type, frame[op.x])
    shape, strides = frame.shape(op.type.shape), frame.numbers(strides_of(op.type))
    return (memory.view(shape, strides, frame.size(op.offset)).read(),)


def extern(frame: Frame, op: Extern) -> Iterable[Array | None]:
    return call(frame, op, frame.all(op.inputs))


RULES: Mapping[type, Rule] = {
    **elements.RULES,
    Region: region,
    Coordinate: coordinate,
    Load: load,
    Store: store,
    Update: update,
    Mul: mul,
    Reduce: reduce,
    Scan: scan,
    View: view,
    Check: check,
    Extern: extern,
}
