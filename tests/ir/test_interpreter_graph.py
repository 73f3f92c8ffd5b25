"""The graph level against numpy, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusec.ir.builder import Builder
from fusec.ir.core import Level, Value
from fusec.ir.dims import Symbol
from fusec.ir.dtypes import DType, bf16, f32, i8, i64
from fusec.ir.interpreter import InterpretError, interpret
from fusec.ir.monoids import monoid
from fusec.ir.ops.contraction import Matmul
from fusec.ir.ops.reduction import ReduceDims
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
from fusec.ir.types import Tensor


def run(op: Any, *arrays: np.ndarray, **attrs: Any) -> np.ndarray:
    """One op on tensors of f32, i64 or i8."""
    dtypes = {"float32": f32, "int64": i64, "int8": i8}
    b = Builder(Level.GRAPH)
    params = [b.param(Tensor(dtypes[x.dtype.name], x.shape), "x") for x in arrays]
    (result,) = interpret(b.function("f", (b(op, *params, **attrs),)), arrays)
    return result


def counted(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


# ----------------------------------------------------------------------- views


class Chain:
    """The same views, as ops and as numpy says them."""

    def __init__(self, draw: st.DrawFn, shape: tuple[int, ...]) -> None:
        self.draw = draw
        self.builder = Builder(Level.GRAPH)
        self.array = counted(*shape)
        self.value: Value = self.builder.param(Tensor(f32, shape), "x")

    def step(self) -> None:
        rank = self.array.ndim
        steps = [self.reshape, self.restride, self.broadcast]
        steps += [self.permute, self.slice, self.pad, self.concat] if rank else []
        self.draw(st.sampled_from(steps))()

    def emit(self, op: Any, *more: Value, **attrs: Any) -> None:
        self.value = self.builder(op, self.value, *more, **attrs)

    def reshape(self) -> None:
        shape = (1, *self.array.shape[::-1])
        self.emit(Reshape, shape=shape)
        self.array = self.array.reshape(shape)

    def restride(self) -> None:
        # Column-major: what a tensor is does not depend on it.
        shape = self.array.shape
        strides = tuple(int(np.prod(shape[:d])) for d in range(len(shape)))
        self.emit(Restride, strides=strides)

    def broadcast(self) -> None:
        shape = tuple(3 if n == 1 else n for n in self.array.shape)
        self.emit(Broadcast, shape=shape)
        self.array = np.broadcast_to(self.array, shape)

    def permute(self) -> None:
        order = tuple(self.draw(st.permutations(range(self.array.ndim))))
        self.emit(Permute, order=order)
        self.array = self.array.transpose(order)

    def slice(self) -> None:
        dim = self.draw(st.integers(0, self.array.ndim - 1))
        step = self.draw(st.sampled_from([-2, -1, 1, 2]))
        picked = np.arange(self.array.shape[dim])[::step]
        picked = picked[self.draw(st.integers(0, len(picked))) :]
        start = int(picked[0]) if len(picked) else 0
        self.emit(Slice, dim=dim, start=start, length=len(picked), step=step)
        self.array = self.array.take(picked, axis=dim)

    def pad(self) -> None:
        width = st.tuples(st.integers(0, 2), st.integers(0, 2))
        widths = [self.draw(width) for _ in self.array.shape]
        low, high = tuple(a for a, _ in widths), tuple(z for _, z in widths)
        self.emit(Pad, self.builder.const(-1.0, f32), low=low, high=high)
        self.array = np.pad(self.array, widths, constant_values=-1)

    def concat(self) -> None:
        dim = self.draw(st.integers(0, self.array.ndim - 1))
        self.emit(Concat, self.value, dim=dim)
        self.array = np.concatenate([self.array, self.array], axis=dim)


@given(st.data())
def test_chains_of_views_are_those_of_numpy(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 4), max_size=3).map(tuple))
    chain = Chain(data.draw, shape)
    for _ in range(data.draw(st.integers(1, 5))):
        if chain.array.size < 1000 and chain.array.ndim < 6:
            chain.step()
    f = chain.builder.function("f", (chain.value,))
    np.testing.assert_array_equal(interpret(f, [counted(*shape)])[0], chain.array)


def test_two_slices_are_no_two_flips_because_they_look_alike() -> None:
    """Each takes one element, going back from it: the first of two, then of one."""
    b = Builder(Level.GRAPH)
    x = b.param(Tensor(f32, (2,)), "x")
    for _ in range(2):
        x = b(Slice, x, dim=0, start=0, length=1, step=-1)
    assert interpret(b.function("f", (x,)), [counted(2)])[0].tolist() == [0]


def test_iota_counts_along_one_dimension() -> None:
    b = Builder(Level.GRAPH)
    f = b.function("f", (b(Iota, shape=(2, 3), dim=1), b(Iota, shape=(0,), dim=0)))
    across, empty = interpret(f, [])
    assert across.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert empty.shape == (0,)


def test_symbolic_shapes_are_those_of_the_call() -> None:
    s0 = Symbol("s0")
    b = Builder(Level.GRAPH)
    x = b.param(Tensor(f32, (s0, 6)), "x")
    flat = b(Reshape, x, shape=(6 * s0,))
    half = b(Slice, flat, dim=0, start=3 * s0, length=3 * s0, step=1)
    (result,) = interpret(b.function("f", (half,)), [counted(3, 6)])
    np.testing.assert_array_equal(result, counted(18)[9:])


@pytest.mark.parametrize(
    ("start", "length", "step", "index"), [(-1, 2, 1, -1), (2, 3, 1, 4), (1, 3, -1, -1)]
)
def test_slices_stay_within(start: int, length: int, step: int, index: int) -> None:
    with pytest.raises(InterpretError, match=f"slice: index {index} is out of bounds"):
        run(Slice, counted(4), dim=0, start=start, length=length, step=step)


def test_negative_padding_is_refused() -> None:
    b = Builder(Level.GRAPH)
    x = b.param(Tensor(f32, (4,)), "x")
    y = b(Pad, x, b.const(0.0, f32), low=(-1,), high=(0,))
    with pytest.raises(InterpretError, match="pad: negative padding"):
        interpret(b.function("f", (y,)), [counted(4)])


def test_index_places_the_indices_where_it_says() -> None:
    x = counted(3, 4, 5)
    i, j = np.array([[0, 2], [1, 1]]), np.array([[4, 0], [2, 3]])
    at_front = run(Index, x, i, j, dims=(0, 2), at=0)
    np.testing.assert_array_equal(at_front, x[i, :, j])
    at_back = run(Index, x, i, dims=(1,), at=1)
    np.testing.assert_array_equal(at_back, x[:, i])
    with pytest.raises(InterpretError, match="index 3 is out of bounds of %x in dim"):
        run(Index, x, i + 1, dims=(0,), at=0)
    with pytest.raises(InterpretError, match="index -1 is out of bounds"):
        run(Index, x, i - 1, dims=(0,), at=0)


def test_gather_takes_along_a_dimension() -> None:
    x, index = counted(3, 4), np.array([[3, 0], [1, 1]])
    expected = [[3.0, 0.0], [5.0, 5.0]]
    assert run(Gather, x, index, dim=1).tolist() == expected
    with pytest.raises(InterpretError, match="index 4 is out of bounds"):
        run(Gather, x, index + 1, dim=1)
    with pytest.raises(
        InterpretError, match=r"index 1 is out of bounds .* dimension 0"
    ):
        run(Gather, counted(1, 4), index, dim=1)
    assert run(Gather, x, np.zeros((0, 4), np.int64), dim=0).shape == (0, 4)


# ------------------------------------------------------- reductions, contraction


@given(st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple), st.data())
def test_reductions_over_any_dims(shape: tuple[int, ...], data: st.DataObject) -> None:
    dims = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1))))
    x = counted(*shape)
    total = run(ReduceDims, x, dims=dims, monoid=monoid("sum", f32))
    np.testing.assert_array_equal(total, x.sum(axis=dims))
    largest = run(ReduceDims, x, dims=dims, monoid=monoid("max", f32))
    np.testing.assert_array_equal(largest, x.max(axis=dims, initial=-np.inf))


def test_a_reduction_of_several_components() -> None:
    b = Builder(Level.GRAPH)
    x, i = b.param(Tensor(f32, (2, 4)), "x"), b(Iota, shape=(2, 4), dim=1)
    results = b.emit(ReduceDims, (x, i), ((1,), monoid("argmax", f32)))
    x_array = np.array([[1, 5, 5, 0], [2, np.nan, 9, np.nan]], np.float32)
    value, index = interpret(b.function("f", results), [x_array])
    np.testing.assert_array_equal(value, np.array([5, np.nan], np.float32))
    np.testing.assert_array_equal(index, [1, 1])


def test_matmul_rounds_once() -> None:
    # In float32 the ones would vanish beside 2**24.
    x = np.array([[2.0**24, 1, 1, -(2.0**24)]], np.float32)
    ones = np.ones((4, 1), np.float32)
    assert run(Matmul, x, ones, dtype=f32).tolist() == [[2.0]]


@pytest.mark.parametrize(("dtype", "sum_"), [(f32, 258.5), (bf16, 258)])
def test_narrow_factors_are_summed_in_the_dtype_of_the_product(
    dtype: DType, sum_: float
) -> None:
    b = Builder(Level.GRAPH)
    p, q = (b.param(Tensor(bf16, (1, 2)), "p"), b.param(Tensor(bf16, (2, 1)), "q"))
    f = b.function("f", (b(Matmul, p, q, dtype=dtype),))
    narrow = np.array([[256.0, 2.5]], np.float32)
    assert interpret(f, [narrow, np.ones((2, 1), np.float32)])[0].item() == sum_


def test_matmul_of_integers_wraps_and_batches() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(-128, 128, (3, 2, 5)), rng.integers(-128, 128, (3, 5, 4))
    narrow = x.astype(np.int8), y.astype(np.int8)
    result = run(Matmul, *narrow, dtype=i8)
    np.testing.assert_array_equal(result, (x @ y).astype(np.int8))
    np.testing.assert_array_equal(run(Matmul, *narrow, dtype=i64), x @ y)
    nothing = np.zeros((2, 0), np.float32), np.zeros((0, 3), np.float32)
    np.testing.assert_array_equal(run(Matmul, *nothing, dtype=f32), np.zeros((2, 3)))
