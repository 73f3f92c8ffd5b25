"""Calls, symbols, errors, arithmetic and monoids: what all levels share."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fusec.errors import Loc
from fusec.ir.builder import Builder
from fusec.ir.calls import Named, Slot
from fusec.ir.core import Function, Level, Module, Monoid, Op
from fusec.ir.dims import Symbol
from fusec.ir.dtypes import (
    DType,
    bf16,
    bool_,
    f16,
    f32,
    float_,
    i8,
    i32,
    i64,
    int_,
    u8,
    u64,
)
from fusec.ir.interpreter import InterpretError, bind_symbols, interpret
from fusec.ir.interpreter.elements import combine, fold, identity
from fusec.ir.monoids import monoid
from fusec.ir.ops.cast import Bitcast, Cast
from fusec.ir.ops.elementwise import Add, Div, Exp, Mul, Neg, Select, Sub
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.view import Broadcast, Slice
from fusec.ir.types import Scalar, Tensor, Token

S0, S1 = Symbol("s0"), Symbol("s1")
F4 = Tensor(f32, (4,))


def f32s(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def unary(op: Any, source: DType, shape: tuple[int, ...], **attrs: Any) -> Function:
    b = Builder(Level.GRAPH)
    x = b.param(Tensor(source, shape), "x")
    return b.function("f", (b(op, x, **attrs),))


def binary(op: Any, dtype: DType, shape: tuple[int, ...]) -> Function:
    b = Builder(Level.GRAPH)
    x, y = (b.param(Tensor(dtype, shape), name) for name in "xy")
    return b.function("f", (b(op, x, y),))


# ------------------------------------------------------------------ arithmetic


def test_each_op_rounds_to_its_dtype() -> None:
    b = Builder(Level.GRAPH)
    x, y = (b.param(Tensor(bf16, (1,)), name) for name in "xy")
    total = b(Sub, b(Add, x, y), x)
    # 256 + 1 is 256 in bf16, which has 8 bits of significand.
    (result,) = interpret(b.function("f", (total,)), [f32s(256), f32s(1)])
    assert result == [0.0]


@pytest.mark.parametrize(
    ("dtype", "x", "y", "expected"),
    [(i8, 127, 1, -128), (u8, 255, 1, 0), (int_(5), 15, 1, -16), (int_(3), -4, -1, 3)],
)
def test_integers_wrap_at_their_own_width(
    dtype: DType, x: int, y: int, expected: int
) -> None:
    operands = [np.array([v], dtype.carrier) for v in (x, y)]
    assert interpret(binary(Add, dtype, (1,)), operands)[0] == [expected]


def test_special_values_pass_without_warnings() -> None:
    x = f32s(np.nan, -0.0, np.inf, -1.0)
    with np.errstate(all="raise"):
        (negated,) = interpret(unary(Neg, f32, (4,)), [x])
        (quotient,) = interpret(binary(Div, f32, (4,)), [x, f32s(0, 0, np.inf, 0)])
        (large,) = interpret(unary(Exp, f32, (1,)), [f32s(1000)])
    np.testing.assert_array_equal(negated, f32s(np.nan, 0.0, -np.inf, 1.0))
    assert not np.signbit(negated[1])
    np.testing.assert_array_equal(quotient, f32s(np.nan, np.nan, np.nan, -np.inf))
    assert large == [np.inf]


def test_what_select_does_not_choose_has_no_influence() -> None:
    b = Builder(Level.GRAPH)
    cond, x = b.param(Tensor(bool_, (2,)), "cond"), b.param(Tensor(f32, (2,)), "x")
    zero = b(Broadcast, b.const(0.0, f32), shape=(2,))
    f = b.function("f", (b(Select, cond, x, zero),))
    chosen = interpret(f, [np.array([True, False]), f32s(1, np.nan)])[0]
    np.testing.assert_array_equal(chosen, f32s(1, 0))


def test_casts_truncate_wrap_and_saturate() -> None:
    to_int = interpret(unary(Cast, f32, (2,), dtype=i32), [f32s(-1.9, 2.9)])[0]
    np.testing.assert_array_equal(to_int, np.array([-1, 2], np.int32))
    to_bool = interpret(unary(Cast, f32, (3,), dtype=bool_), [f32s(0, -0.0, np.nan)])[0]
    np.testing.assert_array_equal(to_bool, [False, False, True])
    fp4 = float_(2, 1)
    narrow = interpret(unary(Cast, f32, (3,), dtype=fp4), [f32s(100, 0.3, -7)])[0]
    np.testing.assert_array_equal(narrow, f32s(6, 0.5, -6))


def test_a_bitcast_reads_the_same_bits() -> None:
    bits = interpret(unary(Bitcast, f32, (2,), dtype=i32), [f32s(-0.0, 1.0)])[0]
    np.testing.assert_array_equal(bits, np.array([-(2**31), 0x3F800000], np.int32))
    fp4 = interpret(
        unary(Bitcast, int_(4), (2,), dtype=float_(2, 1)), [np.array([5, -7], np.int8)]
    )[0]
    np.testing.assert_array_equal(fp4, f32s(3.0, -0.5))


def test_scalars_come_back_as_numbers() -> None:
    b = Builder(Level.GRAPH)
    n = b.param(Scalar(i64), "n")
    top = b.const(u64.max, u64)
    f = b.function("f", (b(Mul, n, n), top, b.const(0.1, f16)))
    assert interpret(f, [7]) == (49, 2**64 - 1, float(np.float16(0.1)))


# --------------------------------------------------------------------- symbols


def test_symbols_come_from_shapes_and_named_scalars() -> None:
    b = Builder(Level.GRAPH)
    b.param(Scalar(i64), "s1")
    b.param(Tensor(f32, (S0, S0 * S1 + 1)), "x")
    f = b.function("f", symbols=(S0, S1))
    assert bind_symbols(f, [3, np.zeros((2, 7), np.float32)]) == {S0: 2, S1: 3}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3), (4,)), "s0 is 2, but 4 by %y"),
        (((2, 4), (2,)), r"%x has shape \(2, 3\), not \(2, 4\)"),
        (((2,), (2,)), r"%x has 2 dimensions, not \(2,\)"),
    ],
)
def test_shapes_that_contradict_are_refused(
    shapes: tuple[tuple[int, ...], ...], message: str
) -> None:
    b = Builder(Level.GRAPH)
    b.param(Tensor(f32, (S0, S0 + 1)), "x")
    b.param(Tensor(f32, (S0,)), "y")
    with pytest.raises(InterpretError, match=message):
        bind_symbols(b.function("f"), [np.zeros(s, np.float32) for s in shapes])


def test_a_symbol_without_value_is_named() -> None:
    b = Builder(Level.GRAPH)
    b.param(Tensor(f32, (2 * S0,)), "x")
    with pytest.raises(InterpretError, match="%x: no value for s0"):
        interpret(b.function("f"), [np.zeros(4, np.float32)])


def test_sizes_are_those_of_the_call() -> None:
    b = Builder(Level.GRAPH)
    b.param(Tensor(f32, (S0,)), "x")
    f = b.function("f", (b.size(3 * S0 // 2),))
    assert interpret(f, [np.zeros(5, np.float32)]) == (7,)


# ------------------------------------------------------------- calls and errors


def test_arguments_must_fit_the_parameters() -> None:
    f = unary(Neg, bf16, (2,))
    with pytest.raises(InterpretError, match="f takes 1 arguments, not 2"):
        interpret(f, [f32s(1, 2), f32s(1, 2)])
    with pytest.raises(InterpretError, match="%x takes an array of float32, not uint"):
        interpret(f, [np.zeros(2, np.uint16)])
    with pytest.raises(InterpretError, match="%x takes an array of float32, not float"):
        interpret(unary(Neg, f32, ()), [1.0])


def test_an_error_names_the_op_and_its_source() -> None:
    b = Builder(Level.GRAPH)
    x = b.param(F4, "x")
    b.loc = Loc("model.py", 12, "forward", "  y = x[3:6]")
    f = b.function("f", (b(Slice, x, dim=0, start=3, length=3, step=1),))
    with pytest.raises(InterpretError) as caught:
        interpret(f, [np.zeros(4, np.float32)])
    assert str(caught.value) == (
        "slice: index 5 is out of bounds of %x in dimension 0, extent 4\n"
        "  at model.py:12, in forward\n"
        "    y = x[3:6]"
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_ops_of_another_level_are_refused() -> None:
    graph = unary(Exp, f32, (4,))
    b = Builder(Level.GRAPH)
    x = b.param(F4, "x")
    f = Function(
        "f", Level.LOOP, b.block((b(Slice, x, dim=0, start=0, length=2, step=1),))
    )
    with pytest.raises(InterpretError, match=r"slice: .* belong to the loop level"):
        interpret(f, [np.zeros(4, np.float32)])
    assert interpret(graph, [np.zeros(4, np.float32)])[0].sum() == 4


def test_a_result_returns_into_its_parameter() -> None:
    b = Builder(Level.GRAPH)
    x, y = b.param(F4, "x"), b.param(F4, "y")
    yields = (b(Add, x, y), x)
    f = b.function("f", yields, returns_into=(0, None))
    x_array, y_array = f32s(1, 2, 3, 4), f32s(1, 1, 1, 1)
    total, old = interpret(f, [x_array, y_array])
    np.testing.assert_array_equal(x_array, f32s(2, 3, 4, 5))
    np.testing.assert_array_equal(total, x_array)
    np.testing.assert_array_equal(old, f32s(1, 2, 3, 4))
    np.testing.assert_array_equal(y_array, f32s(1, 1, 1, 1))


def test_results_share_no_memory_with_arguments() -> None:
    b = Builder(Level.GRAPH)
    f = b.function("f", (b.param(F4, "x"),))
    x = f32s(1, 2, 3, 4)
    (result,) = interpret(f, [x])
    assert not np.shares_memory(result, x)


def test_every_op_is_observed_in_order() -> None:
    seen: list[tuple[str, float]] = []

    def observe(op: Op, results: tuple[Any, ...]) -> None:
        seen.append((type(op).name, float(results[0][0])))

    b = Builder(Level.GRAPH)
    x = b.param(Tensor(f32, (1,)), "x")
    f = b.function("f", (b(Neg, b(Mul, x, x)),))
    interpret(f, [f32s(3)], observe=observe)
    assert seen == [("mul", 9.0), ("neg", -9.0)]


def test_an_extern_is_called_with_sizes_numbers_and_arrays() -> None:
    calls: list[tuple[Any, ...]] = []

    def extern(*call: Any) -> tuple[np.ndarray, ...]:
        calls.append(call)
        return (np.array([1 / 3, 2.0]),)

    b = Builder(Level.GRAPH)
    x, n = b.param(Tensor(f32, (S0,)), "x"), b.param(Scalar(f32), "n")
    token = b.param(Token(), "t")
    attrs = (
        "aten.f.default",
        (Slot(0), (S0 + 1, Slot(1))),
        (("dtype", Named("dtype", "bfloat16")),),
        (Token(), Tensor(bf16, (S1,))),
    )
    after, y = b.emit(Extern, (x, n, token), attrs)
    f = b.function("f", (y, after, b.size(S1)), symbols=(S0, S1))
    y_array, nothing, size = interpret(f, [f32s(1, 2, 3), 0.5, None], extern=extern)
    (target, arguments, keywords, inputs) = calls[0]
    assert (target, arguments) == ("aten.f.default", (Slot(0), (4, Slot(1))))
    assert keywords == {"dtype": Named("dtype", "bfloat16")}
    assert inputs[0].tolist() == [1, 2, 3]
    assert inputs[1:] == (0.5, None)
    np.testing.assert_array_equal(y_array, bf16.quantize(f32s(1 / 3, 2)))
    assert (nothing, size) == (None, 2)


def test_an_extern_needs_a_callable_and_must_keep_its_types() -> None:
    b = Builder(Level.GRAPH)
    (y,) = b.emit(Extern, (b.param(F4, "x"),), ("aten.f", (Slot(0),), (), (F4,)))
    f, x = b.function("f", (y,)), np.zeros(4, np.float32)
    with pytest.raises(InterpretError, match=r"calls aten\.f, but no `extern`"):
        interpret(f, [x])
    with pytest.raises(InterpretError, match=r"aten\.f gave 2 results of 1"):
        interpret(f, [x], extern=lambda *_: (x, x))
    with pytest.raises(InterpretError, match=r"has shape \(4,\), not \(3,\)"):
        interpret(f, [x], extern=lambda *_: (x[:3],))


def test_a_module_is_not_needed_by_its_entry() -> None:
    f = unary(Neg, f32, (1,))
    assert interpret(f, [f32s(1)], module=Module((f,)))[0] == [-1]


# --------------------------------------------------------------------- monoids

FLOATS = arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.sampled_from([0.0, -0.0, 1.0, -3.5, 2.0, np.inf, -np.inf, np.nan]),
)


def folded(m: Monoid, *components: np.ndarray) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        return list(fold(m, components))


@given(FLOATS)
def test_extremes_propagate_nan(x: np.ndarray) -> None:
    np.testing.assert_array_equal(folded(monoid("max", f32), x)[0], x.max())
    np.testing.assert_array_equal(folded(monoid("min", f32), x)[0], x.min())


@given(FLOATS)
def test_arg_extremes_take_the_first_and_nan_over_all(x: np.ndarray) -> None:
    index = np.arange(len(x))
    for name, find in (("argmax", np.argmax), ("argmin", np.argmin)):
        value, at = folded(monoid(name, f32), x, index)
        assert at == find(x)
        np.testing.assert_array_equal(value, x[at])


@given(arrays(np.int8, st.integers(1, 40)))
def test_integer_monoids_wrap(x: np.ndarray) -> None:
    assert folded(monoid("sum", i8), x)[0] == x.sum(dtype=np.int8)
    assert folded(monoid("prod", i8), x)[0] == x.prod(dtype=np.int8)
    assert folded(monoid("max", i8), x)[0] == x.max()


@given(arrays(np.bool_, st.integers(1, 9)))
def test_any_and_all(x: np.ndarray) -> None:
    assert folded(monoid("any", bool_), x)[0] == x.any()
    assert folded(monoid("all", bool_), x)[0] == x.all()


@given(arrays(np.float32, st.integers(1, 60), elements=st.floats(-99, 99, width=32)))
def test_welford_is_mean_and_variance(x: np.ndarray) -> None:
    ones, zeros = np.ones_like(x), np.zeros_like(x)
    mean, m2, count = folded(monoid("welford", f32), x, zeros, ones)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(), atol=1e-4)
    np.testing.assert_allclose(m2 / count, wide.var(), rtol=1e-4, atol=1e-4)
    assert count == len(x)


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("sum", f32, (0,)),
        ("prod", i32, (1,)),
        ("max", f32, (-np.inf,)),
        ("min", i8, (127,)),
        ("any", bool_, (False,)),
        ("all", bool_, (True,)),
        ("argmax", f32, (-np.inf, i64.max)),
        ("welford", f32, (0, 0, 0)),
    ],
)
def test_nothing_folds_to_the_identity(
    name: str, dtype: DType, expected: tuple[float, ...]
) -> None:
    m = monoid(name, dtype)
    params = m.combine.params[: len(m.identity)]
    empty = [np.zeros((0, 2), p.type.dtype.carrier) for p in params]
    for result, number, param in zip(folded(m, *empty), expected, params, strict=True):
        assert result.dtype == param.type.dtype.carrier
        np.testing.assert_array_equal(result, [number, number])


@given(FLOATS, st.sampled_from(["max", "argmax", "argmin"]))
def test_the_identity_is_neutral(x: np.ndarray, name: str) -> None:
    m = monoid(name, f32)
    state = (x, np.arange(len(x)))[: len(m.identity)]
    empty = identity(m, x.shape)
    for product in (combine(m, state, empty), combine(m, empty, state)):
        for found, expected in zip(product, state, strict=True):
            np.testing.assert_array_equal(found, expected)


@given(st.integers(0, 40))
def test_a_fold_keeps_the_order_of_a_monoid_that_does_not_commute(count: int) -> None:
    """Affine maps under composition: (a, b) then (c, d) is (c·a, c·b + d)."""
    b = Builder(Level.TILE)
    a0, b0, a1, b1 = (b.param(Scalar(i64), name) for name in ("a0", "b0", "a1", "b1"))
    yields = (b(Mul, a1, a0), b(Add, b(Mul, a1, b0), b1))
    affine = Monoid("affine", (1, 0), b.function("affine", yields), commutative=False)
    rng = np.random.default_rng(count)
    slopes, offsets = rng.integers(-3, 4, (2, count))
    slope, offset = 1, 0
    for a, o in zip(slopes, offsets, strict=True):
        slope, offset = int(a) * slope, int(a) * offset + int(o)
    wrapped = [np.array(v % 2**64, np.uint64).view(np.int64) for v in (slope, offset)]
    assert folded(affine, slopes, offsets) == wrapped


def test_a_sum_of_floats_is_pairwise_in_its_own_dtype() -> None:
    # Added one by one, 2**24 ones would be lost beyond 2**24 in f32.
    x = np.ones(2**20, np.float32) * np.float32(0.1)
    (total,) = folded(monoid("sum", f32), x)
    assert total.dtype == np.float32
    np.testing.assert_allclose(total, float(np.float32(0.1)) * 2**20, rtol=1e-6)
