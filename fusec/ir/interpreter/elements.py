"""Arithmetic on arrays: the ops that mean the same on every level, and monoids."""

# pyright: reportUnknownMemberType=false
# (numpy's stubs make Self unknown on an array of Any, so any .reshape is.)

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from fusec.ir.core import Block, Monoid, Op, Value
from fusec.ir.dtypes import Array, DType
from fusec.ir.interpreter.frame import Frame, InterpretError, Rule
from fusec.ir.ops.cast import Bitcast, Cast, convert, reinterpret
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.pointwise import Elementwise, dtype_of, where
from fusec.ir.ops.rare import Rare
from fusec.ir.types import Axis, Points, Type


@cache
def poison(dtype: DType) -> Array:
    """What memory holds that nobody wrote: NaN, a number as odd, or true."""
    odd = dtype.quantize(np.asarray(0x5A5A5A5A5A5A5A5A))
    if dtype.carrier.kind == "f":
        odd = np.asarray(np.nan, dtype.carrier)
    odd.flags.writeable = False
    return odd


def compute(op: Op, arrays: Sequence[Array]) -> Array:
    """An elementwise op or a constant, on arrays that broadcast to one shape."""
    dtype = dtype_of(op.result)
    if isinstance(op, Const):
        return dtype.quantize(np.asarray(op.value))
    if isinstance(op, Cast):
        return convert(arrays[0], dtype_of(op.x), dtype)
    if isinstance(op, Bitcast):
        return reinterpret(arrays[0], dtype_of(op.x), dtype)
    if isinstance(op, Elementwise):
        return op.reference(dtype, *arrays)
    if isinstance(op, Rare):
        cond, usual, *xs = arrays
        (far,) = evaluate(op.body, xs)
        return where(cond, far, usual)
    raise InterpretError(f"{type(op).name} is no arithmetic")


def evaluate(block: Block, arrays: Sequence[Array]) -> list[Array]:
    """What a block of arithmetic on scalars yields, for every element of arrays."""
    held: dict[Value, Array] = dict(zip(block.params, arrays, strict=True))
    for op in block.ops:
        held[op.result] = compute(op, [held[v] for v in op.operands])
    return [held[v] for v in block.yields]


def scalar(value: Value, number: Any) -> Array:
    """A number as an array without dimensions, in the carrier of the value's dtype."""
    return dtype_of(value).quantize(np.asarray(number))


def axes_of(type_: Type) -> tuple[Axis, ...]:
    """The axes of points; a scalar has none."""
    return type_.axes if isinstance(type_, Points) else ()


def spread(array: Array, axes: Sequence[Axis], onto: Sequence[Axis]) -> Array:
    """Points over `axes` as an array that broadcasts against points over `onto`."""
    order = [axes.index(axis) for axis in onto if axis in axes]
    places = tuple(slice(None) if axis in axes else None for axis in onto)
    return np.transpose(array, order)[places]


def elementwise(frame: Frame, op: Op) -> tuple[Array]:
    onto = axes_of(op.result.type)
    arrays = [
        spread(frame[v], v.type.axes, onto) if isinstance(v.type, Points) else frame[v]
        for v in op.operands
    ]
    return (compute(op, arrays),)


def size_of(frame: Frame, op: SizeOf) -> tuple[Array]:
    return (np.asarray(frame.size(op.dim), np.int64),)


RULES: Mapping[type, Rule] = {
    Const: elementwise,
    Cast: elementwise,
    Bitcast: elementwise,
    Elementwise: elementwise,
    Rare: elementwise,
    SizeOf: size_of,
}


# -------------------------------------------------------------------- monoids

State = tuple[Array, ...]
"""One array for each component of a monoid, all of one shape."""


def combine(monoid: Monoid, left: State, right: State) -> State:
    """The product of two states, element by element."""
    made = evaluate(monoid.combine.body, (*left, *right))
    return tuple(np.broadcast_to(x, left[0].shape) for x in made)


def fold(monoid: Monoid, state: State) -> State:
    """Combine all elements along the first dimension, neighbours first.

    Pairs keep the order of a monoid that does not commute, and the error of a sum
    small (N. J. Higham, 1993: The accuracy of floating point summation).
    """
    count, *rest = state[0].shape
    if count == 0:
        return identity(monoid, rest)
    while count > 1:
        even = count - count % 2
        left = tuple(x[0:even:2] for x in state)
        right = tuple(x[1:even:2] for x in state)
        pairs = combine(monoid, left, right)
        state = tuple(
            np.concatenate((p, x[even:])) for p, x in zip(pairs, state, strict=True)
        )
        count = len(state[0])
    return tuple(np.asarray(x[0]) for x in state)


def identity(monoid: Monoid, shape: Sequence[int]) -> State:
    """The identity of a monoid, everywhere."""
    return _everywhere(monoid, monoid.identity, shape)


def _everywhere(
    monoid: Monoid, numbers: Sequence[float], shape: Sequence[int]
) -> State:
    params = monoid.combine.params[: len(numbers)]
    return tuple(
        np.full(shape, dtype_of(param).quantize(np.asarray(number)))
        for param, number in zip(params, numbers, strict=True)
    )


def fold_dims(monoid: Monoid, arrays: Sequence[Array], dims: Sequence[int]) -> State:
    """Combine all elements along dimensions, in row-major order; they go away."""
    dims = sorted(dims)
    kept = [d for d in range(arrays[0].ndim) if d not in dims]
    count = math.prod(arrays[0].shape[d] for d in dims)
    shape = (count, *(arrays[0].shape[d] for d in kept))
    moved: list[Array] = [x.transpose(dims + kept).reshape(shape) for x in arrays]
    return fold(monoid, tuple(moved))


def scan(monoid: Monoid, state: State) -> State:
    """All elements up to each one along the first dimension, in their order.

    In doubling steps (W. D. Hillis, G. L. Steele, 1986: Data parallel algorithms), so
    that the error of a sum stays small; one by one where order matters.
    """
    if monoid.ordered:
        return _scan_in_order(monoid, state)
    count, step = len(state[0]), 1
    while step < count:
        left = tuple(x[:-step] for x in state)
        joined = combine(monoid, left, tuple(x[step:] for x in state))
        state = tuple(
            np.concatenate((x[:step], j)) for x, j in zip(state, joined, strict=True)
        )
        step *= 2
    return state


def _scan_in_order(monoid: Monoid, state: State) -> State:
    results = tuple(np.array(x) for x in state)
    for k in range(1, len(results[0])):
        before, here = (tuple(x[n] for x in results) for n in (k - 1, k))
        for result, x in zip(results, combine(monoid, before, here), strict=True):
            result[k] = x
    return results


def scan_along(monoid: Monoid, arrays: Sequence[Array], dim: int) -> State:
    """`scan` along any dimension."""
    moved = tuple(np.moveaxis(x, dim, 0) for x in arrays)
    return tuple(np.moveaxis(x, 0, dim) for x in scan(monoid, moved))


def scan_from_start(monoid: Monoid, arrays: Sequence[Array], dim: int) -> State:
    """`scan_along`, after what scans of this monoid begin with."""
    scanned = scan_along(monoid, arrays, dim)
    if not monoid.start:
        return scanned
    start = _everywhere(monoid, monoid.start, scanned[0].shape)
    return combine(monoid, start, scanned)
