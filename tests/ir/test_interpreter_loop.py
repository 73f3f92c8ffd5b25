"""The loop level: points, indices, stores, reductions, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusec.errors import CHECK_ERRORS
from fusec.ir.builder import Builder
from fusec.ir.calls import Slot
from fusec.ir.core import Affine, Block, Function, Level, Op, Value, Values
from fusec.ir.dims import Dim, Symbol
from fusec.ir.dtypes import bool_, f32, i32, i64
from fusec.ir.interpreter import InterpretError, interpret
from fusec.ir.monoids import monoid
from fusec.ir.ops.checks import Check
from fusec.ir.ops.elementwise import Add, Exp, Lt, Mul, Neg, Sub
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import Coordinate, Load, Region, Store, View
from fusec.ir.ops.reduction import Reduce, ReduceDims
from fusec.ir.types import Axis, Points, Scalar, Tensor

Body = Callable[[Builder, Values, Values], None]


def region(
    inputs: list[Tensor], outputs: list[Tensor], body: Body, **facts: Any
) -> Function:
    """A function of one region whose block `body(builder, inputs, outputs)` fills."""
    b = Builder(Level.LOOP)
    params = tuple(b.param(type_, f"x{k}") for k, type_ in enumerate(inputs))
    inner = b.nested()
    reads = tuple(Value(type_, f"x{k}") for k, type_ in enumerate(inputs))
    writes = tuple(Value(type_, f"y{k}") for k, type_ in enumerate(outputs))
    body(inner, reads, writes)
    block = Block((*reads, *writes), inner.block().ops)
    return b.function("f", b.emit(Region, params, (), (block,)), **facts)


def load(b: Builder, buffer: Value, index: tuple[Any, ...], *more: Value) -> Value:
    masked = len(more) > sum(isinstance(entry, Slot) for entry in index)
    return b(Load, buffer, *more, index=index, masked=masked)


def at(*axes: Axis) -> tuple[Affine, ...]:
    return tuple(Affine.of(axis) for axis in axes)


def axes(**extents: Dim) -> tuple[Axis, ...]:
    return tuple(Axis(name, extent) for name, extent in extents.items())


def counted(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def test_points_align_by_axis_not_by_position() -> None:
    i, j = axes(i=2, j=3)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        x, y = load(b, xs[0], at(i, j)), load(b, xs[1], at(j))
        total = b(Sub, y, x)
        assert isinstance(total.type, Points)
        assert total.type.axes == (j, i)
        b(Mul, total, b.const(1.0, f32))
        b.emit(Store, (total, ys[0]), (at(i, j),))

    f = region([Tensor(f32, (2, 3)), Tensor(f32, (3,))], [Tensor(f32, (2, 3))], body)
    x, y = counted(2, 3), counted(3) * 10
    np.testing.assert_array_equal(interpret(f, [x, y])[0], y - x)


def test_axes_of_one_name_are_two_axes() -> None:
    first, second = Axis("i", 2), Axis("i", 2)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        outer = b(Add, load(b, xs[0], at(first)), load(b, xs[0], at(second)))
        b.emit(Store, (outer, ys[0]), (at(first, second),))

    f = region([Tensor(f32, (2,))], [Tensor(f32, (2, 2))], body)
    assert interpret(f, [np.array([1, 5], np.float32)])[0].tolist() == [[2, 6], [6, 10]]


def test_an_affine_index_reads_windows_and_flips() -> None:
    i, k = axes(i=3, k=2)
    window = Affine(((i, 1), (k, 1)))
    flipped = Affine(((i, -1),), 2)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        (total,) = b.emit(
            Reduce, (load(b, xs[0], (window,)),), ((k,), monoid("sum", f32))
        )
        b.emit(Store, (total, ys[0]), ((flipped,),))

    f = region([Tensor(f32, (4,))], [Tensor(f32, (3,))], body)
    result = interpret(f, [np.array([1, 2, 4, 8], np.float32)])[0]
    assert result.tolist() == [12, 6, 3]


def test_symbolic_extents_and_strides() -> None:
    n, m = Symbol("n"), Symbol("m")
    i, j = axes(i=n, j=m)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        x = load(b, xs[0], (Affine(((i, m), (j, 1))),))
        b.emit(Store, (b(Neg, x), ys[0]), (at(i, j),))

    body_of = region([Tensor(f32, (n * m,))], [Tensor(f32, (n, m))], body).body
    b = Builder(Level.LOOP)
    params = [b.param(Tensor(f32, (n * m,)), "x")]
    b.param(Scalar(i64), "m"), b.param(Scalar(i64), "n")
    f = b.function("f", b.inline(body_of, params), symbols=(n, m))
    result = interpret(f, [counted(6), 3, 2])[0]
    np.testing.assert_array_equal(result, -counted(2, 3))
    assert interpret(f, [counted(0), 3, 0])[0].shape == (0, 3)


def test_computed_indices_gather() -> None:
    i, j = axes(i=3, j=2)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        row = load(b, xs[1], at(i))
        x = load(b, xs[0], (Slot(0), Affine.of(j)), row)
        b.emit(Store, (x, ys[0]), (at(i, j),))

    types = [Tensor(f32, (4, 2)), Tensor(i64, (3,))]
    f = region(types, [Tensor(f32, (3, 2))], body)
    rows = np.array([3, 0, 3])
    np.testing.assert_array_equal(
        interpret(f, [counted(4, 2), rows])[0], counted(4, 2)[rows]
    )
    with pytest.raises(
        InterpretError, match=r"load: index 4 is out of bounds of %x0 in dimension 0"
    ):
        interpret(f, [counted(4, 2), rows + 1])


def test_a_masked_load_touches_nothing_outside() -> None:
    i, j = axes(i=4, j=2)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        mask = b(Lt, b(Coordinate, axis=i), b.const(3, i64))
        index = (Affine(((i, 1),)),)
        x = load(b, xs[0], index, mask, load(b, xs[1], at(j)))
        b.emit(Store, (x, ys[0]), (at(i, j),))

    types = [Tensor(f32, (3,)), Tensor(f32, (2,))]
    f = region(types, [Tensor(f32, (4, 2))], body)
    result = interpret(f, [counted(3), np.array([7, 8], np.float32)])[0]
    assert result.tolist() == [[0, 0], [1, 1], [2, 2], [7, 8]]


def test_a_masked_load_of_nothing_at_all() -> None:
    (i,) = axes(i=2)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        never = b.const(False, bool_)
        x = load(b, xs[0], at(i), never, b.const(5.0, f32))
        b.emit(Store, (x, ys[0]), (at(i),))

    f = region([Tensor(f32, (0,))], [Tensor(f32, (2,))], body)
    assert interpret(f, [counted(0)])[0].tolist() == [5, 5]


def test_an_unmasked_load_is_checked() -> None:
    (i,) = axes(i=4)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        b.emit(Store, (load(b, xs[0], at(i)), ys[0]), (at(i),))

    f = region([Tensor(f32, (3,))], [Tensor(f32, (4,))], body)
    with pytest.raises(InterpretError, match="load: index 3 is out of bounds of %x0"):
        interpret(f, [counted(3)])


@pytest.mark.parametrize("error", CHECK_ERRORS)
def test_a_check_must_hold_at_every_point(error: str) -> None:
    (i,) = axes(i=3)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        x = load(b, xs[0], at(i))
        b.emit(Check, (b(Lt, x, b.const(2.0, f32)),), ("too large", error))
        b.emit(Store, (x, ys[0]), (at(i),))

    f = region([Tensor(f32, (3,))], [Tensor(f32, (3,))], body)
    assert interpret(f, [np.ones(3, np.float32)])[0].tolist() == [1, 1, 1]
    with pytest.raises(CHECK_ERRORS[error], match="too large"):
        interpret(f, [counted(3)])


# ---------------------------------------------------------------------- stores


def copies(index: Affine, over: tuple[Axis, ...], size: int) -> Function:
    """Store a value over some axes into a vector at an index."""

    def body(b: Builder, xs: Values, ys: Values) -> None:
        value = load(b, xs[0], at(*over))
        b.emit(Store, (value, ys[0]), ((index,),))

    shape = tuple(axis.extent for axis in over)
    return region([Tensor(f32, shape)], [Tensor(f32, (size,))], body)


def test_a_store_writes_each_element_once() -> None:
    i, j = axes(i=2, j=2)
    overlapping = copies(Affine(((i, 1), (j, 1))), (i, j), 3)
    with pytest.raises(InterpretError, match="store: writes an element of %y0 at sev"):
        interpret(overlapping, [counted(2, 2)])
    across = copies(Affine.of(i), (i, j), 2)
    with pytest.raises(InterpretError, match="store: writes an element of %y0 at sev"):
        interpret(across, [counted(2, 2)])
    dense = copies(Affine(((i, 2), (j, 1))), (i, j), 4)
    assert interpret(dense, [counted(2, 2)])[0].tolist() == [0, 1, 2, 3]


def test_every_element_of_a_result_is_written() -> None:
    (i,) = axes(i=2)
    with pytest.raises(
        InterpretError, match=r"region: .* elements \(1,\) and 1 more of %y0"
    ):
        interpret(copies(Affine(((i, 2),)), (i,), 4), [counted(2)])
    with pytest.raises(InterpretError, match="store: index 2 is out of bounds of %y0"):
        interpret(copies(Affine(((i, 2),)), (i,), 2), [counted(2)])
    (none,) = axes(i=0)
    assert interpret(copies(Affine.of(none), (none,), 0), [counted(0)])[0].size == 0


def test_two_stores_concatenate_and_a_scalar_fills() -> None:
    i, j = axes(i=2, j=3)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        b.emit(Store, (load(b, xs[0], at(i)), ys[0]), (at(i),))
        b.emit(Store, (b.const(9.0, f32), ys[0]), ((Affine.of(j) + 2,),))

    f = region([Tensor(f32, (2,))], [Tensor(f32, (5,))], body)
    assert interpret(f, [counted(2)])[0].tolist() == [0, 1, 9, 9, 9]


def test_a_store_may_scatter() -> None:
    (i,) = axes(i=3)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        place = load(b, xs[1], at(i))
        operands = (load(b, xs[0], at(i)), ys[0], place)
        b.emit(Store, operands, ((Slot(0),),))

    f = region([Tensor(f32, (3,)), Tensor(i64, (3,))], [Tensor(f32, (3,))], body)
    assert interpret(f, [counted(3), np.array([2, 0, 1])])[0].tolist() == [1, 2, 0]
    with pytest.raises(InterpretError, match="at several points"):
        interpret(f, [counted(3), np.array([2, 0, 2])])


def test_a_result_can_be_read_where_it_is_written() -> None:
    i, j = axes(i=2, j=2)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        b.emit(Store, (load(b, xs[0], at(i)), ys[0]), (at(i),))
        b.emit(Store, (load(b, ys[0], at(j)), ys[0]), ((Affine.of(j) + 2,),))

    def ahead(b: Builder, xs: Values, ys: Values) -> None:
        b.emit(Store, (load(b, ys[0], at(j)), ys[0]), ((Affine.of(j) + 2,),))

    types: tuple[list[Tensor], list[Tensor]] = [Tensor(f32, (2,))], [Tensor(f32, (4,))]
    assert interpret(region(*types, body), [counted(2)])[0].tolist() == [0, 1, 0, 1]
    with pytest.raises(
        InterpretError, match="load: reads elements of %y0 that nothing"
    ):
        interpret(region(*types, ahead), [counted(2)])


def test_an_input_cannot_be_stored_to() -> None:
    (i,) = axes(i=2)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        b.emit(Store, (load(b, xs[0], at(i)), xs[0]), (at(i),))

    with pytest.raises(InterpretError, match="store: %x0 is no result of this region"):
        interpret(region([Tensor(f32, (2,))], [], body), [counted(2)])


def test_tensors_without_dimensions_and_of_one_element() -> None:
    (one,) = axes(i=1)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        x = load(b, xs[0], ())
        b.emit(Store, (b(Exp, x), ys[0]), ((),))
        b.emit(Store, (x, ys[1]), (at(one),))

    f = region([Tensor(f32, ())], [Tensor(f32, ()), Tensor(f32, (1,))], body)
    exp, same = interpret(f, [np.array(0, np.float32)])
    assert exp.shape == ()
    assert exp == 1
    assert same.tolist() == [0]


# ------------------------------------------------------------------ reductions


def test_a_reduction_equals_that_of_the_graph_level() -> None:
    i, j, k = axes(i=3, j=4, k=5)
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        values = (load(b, xs[0], at(i, j, k)), b(Coordinate, axis=k))
        results = b.emit(Reduce, values, ((k,), monoid("argmax", f32)))
        for value, output in zip(results, ys, strict=True):
            b.emit(Store, (value, output), (at(i, j),))

    outputs = [Tensor(f32, (3, 4)), Tensor(i64, (3, 4))]
    value, index = interpret(region([Tensor(f32, x.shape)], outputs, body), [x])
    np.testing.assert_array_equal(value, x.max(axis=2))
    np.testing.assert_array_equal(index, x.argmax(axis=2))

    b = Builder(Level.GRAPH)
    total = b(
        ReduceDims,
        b.param(Tensor(f32, x.shape)),
        dims=(0, 2),
        monoid=monoid("sum", f32),
    )
    expected = interpret(b.function("g", (total,)), [x])[0]

    def summed(b: Builder, xs: Values, ys: Values) -> None:
        operand = load(b, xs[0], at(i, j, k))
        (total,) = b.emit(Reduce, (operand,), ((i, k), monoid("sum", f32)))
        b.emit(Store, (total, ys[0]), (at(j),))

    f = region([Tensor(f32, x.shape)], [Tensor(f32, (4,))], summed)
    np.testing.assert_array_equal(interpret(f, [x])[0], expected)


def test_constants_and_absent_axes_count_at_every_point() -> None:
    i, k = axes(i=2, k=3)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        zero, one = b.const(0.0, f32), b.const(1.0, f32)
        values = (load(b, xs[0], at(i, k)), zero, one)
        mean, m2, count = b.emit(Reduce, values, ((k,), monoid("welford", f32)))
        (tripled,) = b.emit(Reduce, (mean,), ((k,), monoid("sum", f32)))
        for value, output in zip((mean, m2, count, tripled), ys, strict=True):
            b.emit(Store, (value, output), (at(i),))

    f = region([Tensor(f32, (2, 3))], [Tensor(f32, (2,))] * 4, body)
    mean, m2, count, tripled = interpret(f, [counted(2, 3)])
    assert mean.tolist() == [1, 4]
    assert m2.tolist() == [2, 2]
    assert count.tolist() == [3, 3]
    assert tripled.tolist() == [3, 12]


def test_an_empty_reduction_gives_the_identity() -> None:
    i, k = axes(i=2, k=0)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        x = load(b, xs[0], at(i, k))
        (largest,) = b.emit(Reduce, (x,), ((k,), monoid("max", i32)))
        b.emit(Store, (largest, ys[0]), (at(i),))

    f = region([Tensor(i32, (2, 0))], [Tensor(i32, (2,))], body)
    (result,) = interpret(f, [np.zeros((2, 0), np.int32)])
    assert result.tolist() == [-(2**31)] * 2


# -------------------------------------------------------- views, externs, calls


def test_a_view_looks_at_the_memory_of_a_tensor() -> None:
    b = Builder(Level.LOOP)
    x = b.param(Tensor(f32, (2, 3), (1, 2)), "x")
    (flat,) = b.emit(View, (x,), (Tensor(f32, (4,)), 1))
    (windows,) = b.emit(View, (x,), (Tensor(f32, (3, 2), (2, 1)), 0))
    f = b.function("f", (flat, windows))
    flat_array, windows_array = interpret(f, [counted(2, 3)])
    # Column-major, the memory is 0 3 1 4 2 5.
    assert flat_array.tolist() == [3, 1, 4, 2]
    assert windows_array.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_view_stays_within_its_storage() -> None:
    b = Builder(Level.LOOP)
    x = b.param(Tensor(f32, (4,)), "x")
    (y,) = b.emit(View, (x,), (Tensor(f32, (2,), (3,)), 1))
    with pytest.raises(
        InterpretError, match="view: index 4 is out of bounds of the st"
    ):
        interpret(b.function("f", (y,)), [counted(4)])


def test_regions_and_externs_chain_and_return_into() -> None:
    (i,) = axes(i=2)

    def body(b: Builder, xs: Values, ys: Values) -> None:
        b.emit(Store, (b(Neg, load(b, xs[0], at(i))), ys[0]), (at(i),))

    type_ = Tensor(f32, (2,))
    inner = region([type_], [type_], body).body
    b = Builder(Level.LOOP)
    x = b.param(type_, "x")
    (negated,) = b.inline(inner, (x,))
    (y,) = b.emit(Extern, (negated,), ("aten.g", (Slot(0),), (), (type_,)))
    seen: list[str] = []

    def observe(op: Op, results: tuple[Any, ...]) -> None:
        seen.append(type(op).name)

    x_array = np.array([1, 2], np.float32)
    f = b.function("f", (y,), returns_into=(0,))
    interpret(f, [x_array], extern=lambda *call: (call[3][0] * 3,), observe=observe)
    assert x_array.tolist() == [-3, -6]
    assert seen == ["load", "neg", "store", "region", "extern"]


@pytest.mark.parametrize("extent", [2**63 - 1, 2**62])
def test_axes_that_no_memory_holds(extent: int) -> None:
    """numpy gives nothing for as many, as if there were none."""
    axis = Axis("i", extent)

    def body(b: Builder, reads: Values, writes: Values) -> None:
        b.emit(
            Check,
            (b(Lt, b(Coordinate, axis=axis), b.const(0, i64)),),
            ("no", "IndexError"),
        )

    with pytest.raises(InterpretError, match="not enough memory"):
        interpret(region([], [], body), [])
