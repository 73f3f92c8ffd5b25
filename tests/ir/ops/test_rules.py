"""Algebraic identities: what each rule leaves, and that not a bit changes.

A case is written once and run twice: into a builder, whose rules fire, and on numpy
arrays, which have none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusec.ir.builder import Builder
from fusec.ir.core import Level
from fusec.ir.dtypes import DType, bool_, f16, f32, f64, i8, i32, i64, u8
from fusec.ir.interpreter import interpret
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.cast import Bitcast, Cast, contains, convert, reinterpret
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.types import Axis, Points, Scalar, Tensor

Case = Callable[[Any, Any, Any], Any]


class Numpy:
    """Stands in for a builder: computes with the references at once."""

    def __init__(self) -> None:
        self._dtypes: dict[int, DType] = {}
        self._kept: list[Any] = []

    def hold(self, array: Any, dtype: DType) -> Any:
        self._dtypes[id(array)] = dtype
        self._kept.append(array)
        return array

    def dtype_of(self, array: Any) -> DType:
        return self._dtypes[id(array)]

    def const(self, value: Any, dtype: DType) -> Any:
        return self.hold(np.asarray(value).astype(dtype.carrier), dtype)

    def __call__(self, op: Any, *xs: Any, dtype: DType | None = None) -> Any:
        source = self._dtypes[id(xs[-1])]
        if op is Cast:
            return self.hold(np.asarray(convert(xs[0], source, dtype)), dtype)
        if op is Bitcast:
            return self.hold(np.asarray(reinterpret(xs[0], source, dtype)), dtype)
        if not op.takes(source):
            raise TypeError(f"{op.name} does not take {source.name}")
        result = op.gives or source
        return self.hold(result.quantize(np.asarray(op.numpy(*xs))), result)


def operands(dtype: DType) -> tuple[Any, Any]:
    """Every pair of telling numbers."""
    if dtype.is_bool:
        x = np.array([False, True])
    elif dtype.is_int:
        numbers = [dtype.min, dtype.min + 1, -7, -2, -1, 0, 1, 2, 5, dtype.max]
        x = np.array([v for v in numbers if dtype.min <= v], dtype.carrier)
    else:
        info = np.finfo(dtype.carrier)
        numbers = [
            0,
            1,
            2,
            1.5,
            3e-5,
            1e4,
            info.max,
            info.tiny,
            info.smallest_subnormal,
        ]
        half = np.array([*numbers, np.inf], dtype.carrier)
        x = np.concatenate([half, -half, np.array([np.nan], dtype.carrier)])
    grid = np.meshgrid(x, x)
    return grid[0].ravel(), grid[1].ravel()


def run(case: Case, dtype: DType) -> tuple[list[str], Any, Any]:
    """(names of the ops left, constants apart; their result; numpy's result)."""
    x, y = operands(dtype)
    b = Builder(Level.GRAPH)
    values = [b.param(Tensor(dtype, x.shape), hint) for hint in "xy"]
    result = case(b, *values)
    names = [op.name for op in b.block().ops if op.name != "const"]
    ((got,), n) = interpret(b.function("f", (result,)), [x, y]), Numpy()
    with np.errstate(all="ignore"):
        expected = case(n, n.hold(x, dtype), n.hold(y, dtype))
    return names, got, np.broadcast_to(expected, got.shape)


def assert_same_bits(got: Any, expected: Any) -> None:
    assert got.dtype == expected.dtype
    nan = expected != expected
    assert np.array_equal(got != got, nan)
    assert np.array_equal(got[~nan], expected[~nan])
    if got.dtype.kind == "f":
        assert np.array_equal(np.signbit(got[~nan]), np.signbit(expected[~nan]))


def constant(b: Any, x: Any, number: Any) -> Any:
    """A number in the dtype of x."""
    return b.const(number, b.dtype_of(x) if isinstance(b, Numpy) else dtype_of(x))


def one(op: Any, number: Any, *, left: bool = False) -> Case:
    """x op number, or number op x."""

    def case(b: Any, x: Any, y: Any) -> Any:
        c = constant(b, x, number)
        return b(op, c, x) if left else b(op, x, c)

    return case


def twice(outer: Any, inner: Any) -> Case:
    return lambda b, x, y: b(outer, b(inner, x))


def with_itself(op: Any) -> Case:
    return lambda b, x, y: b(op, x, x)


def around(outer: Any, inner: Any, *, right: bool = True) -> Case:
    """x outer (inner y), or (inner x) outer y."""
    if right:
        return lambda b, x, y: b(outer, x, b(inner, y))
    return lambda b, x, y: b(outer, b(inner, x), y)


FIRES: list[tuple[str, Case, DType, list[str]]] = [
    ("x + 0", one(ew.Add, 0), i32, []),
    ("0 + x", one(ew.Add, 0, left=True), i32, []),
    ("x + -0.0", one(ew.Add, -0.0), f32, []),
    ("x + -y", around(ew.Add, ew.Neg), f32, ["neg", "sub"]),
    ("-x + y", around(ew.Add, ew.Neg, right=False), f64, ["neg", "sub"]),
    ("x - 0", one(ew.Sub, 0), u8, []),
    ("x - 0.0", one(ew.Sub, 0.0), f32, []),
    ("0 - x", one(ew.Sub, 0, left=True), i32, ["neg"]),
    ("-0.0 - x", one(ew.Sub, -0.0, left=True), f32, ["neg"]),
    ("x - -y", around(ew.Sub, ew.Neg), f32, ["neg", "add"]),
    ("x * 1", one(ew.Mul, 1.0), f32, []),
    ("1 * x", one(ew.Mul, 1, left=True), u8, []),
    ("x * -1", one(ew.Mul, -1.0), f32, ["neg"]),
    ("-x * -y", lambda b, x, y: b(ew.Mul, b(ew.Neg, x), b(ew.Neg, y)), f32,
     ["neg", "neg", "mul"]),
    ("x / 1", one(ew.Div, 1.0), f32, []),
    ("x / 8", one(ew.Div, 8.0), f32, ["mul"]),
    ("x / -0.25", one(ew.Div, -0.25), f16, ["mul"]),
    ("--x", twice(ew.Neg, ew.Neg), f32, ["neg"]),
    ("-(x - y)", lambda b, x, y: b(ew.Neg, b(ew.Sub, x, y)), i32, ["sub", "sub"]),
    ("||x||", twice(ew.Abs, ew.Abs), f32, ["abs"]),
    ("|-x|", twice(ew.Abs, ew.Neg), i32, ["neg", "abs"]),
    ("|x| unsigned", lambda b, x, y: b(ew.Abs, x), u8, []),
    ("x * 1 + y", lambda b, x, y: b(ew.Fma, x, constant(b, x, 1.0), y), f32, ["add"]),
    ("x * y + -0.0",
     lambda b, x, y: b(ew.Fma, x, y, constant(b, x, -0.0)), f32, ["mul"]),
    ("x // 1", one(ew.FloorDiv, 1), i32, []),
    ("x // 8", one(ew.FloorDiv, 8), i32, ["shr"]),
    ("x % 8", one(ew.Rem, 8), i32, ["and"]),
    ("x trunc/ 8", one(ew.TruncDiv, 8), u8, ["shr"]),
    ("x trunc/ 1", one(ew.TruncDiv, 1), i8, []),
    ("max(x, x)", with_itself(ew.Maximum), f32, []),
    ("max(x, -inf)", one(ew.Maximum, -np.inf), f32, []),
    ("min(x, inf)", one(ew.Minimum, np.inf), f32, []),
    ("max(x, least)", one(ew.Maximum, -128), i8, []),
    ("min(x, largest)", one(ew.Minimum, 255), u8, []),
    ("fmax(x, x)", with_itself(ew.Fmax), f32, []),
    ("x & x", with_itself(ew.And), i32, []),
    ("x & -1", one(ew.And, -1), i32, []),
    ("x & 255", one(ew.And, 255), u8, []),
    ("x & true", one(ew.And, True), bool_, []),
    ("x | x", with_itself(ew.Or), bool_, []),
    ("x | 0", one(ew.Or, 0), i32, []),
    ("x ^ 0", one(ew.Xor, 0), i32, []),
    ("x ^ -1", one(ew.Xor, -1), i32, ["not"]),
    ("x ^ true", one(ew.Xor, True), bool_, ["not"]),
    ("~~x", twice(ew.Not, ew.Not), i32, ["not"]),
    ("x << 0", one(ew.Shl, 0), i32, []),
    ("x >> 0", one(ew.Shr, 0), i32, []),
    ("floor(round(x))", twice(ew.Floor, ew.Round), f32, ["round"]),
    ("x ^ 1", one(ew.Pow, 1.0), f32, []),
    ("x ^ 2", one(ew.Pow, 2.0), f32, ["mul"]),
    ("x ^ -1", one(ew.Pow, -1.0), f32, ["reciprocal"]),
    ("x = true", one(ew.Eq, True), bool_, []),
    ("x = false", one(ew.Eq, False), bool_, ["not"]),
    ("x != true", one(ew.Ne, True), bool_, ["not"]),
    ("3 < x", one(ew.Lt, 3.0, left=True), f32, ["gt"]),
    ("3 >= x", one(ew.Ge, 3.0, left=True), f32, ["le"]),
    ("select(true, x, y)",
     lambda b, x, y: b(ew.Select, b.const(True, bool_), x, y), f32, []),
    ("select(false, x, y)",
     lambda b, x, y: b(ew.Select, b.const(False, bool_), x, y), f32, []),
    ("select(c, x, x)",
     lambda b, x, y: b(ew.Select, b(ew.Lt, x, y), x, x), f32, ["lt"]),
    ("select(not c, x, y)",
     lambda b, x, y: b(ew.Select, b(ew.Not, b(ew.Lt, x, y)), x, y), f32,
     ["lt", "not", "select"]),
    ("select(c, select(c, x, y), y)",
     lambda b, x, y: b(ew.Select, b(ew.Lt, x, y),
                       b(ew.Select, b(ew.Lt, x, y), x, b(ew.Neg, y)), y), f32,
     ["lt", "neg", "select", "select"]),
    ("cast(cast x)",
     lambda b, x, y: b(Cast, b(Cast, x, dtype=f32), dtype=f16), f16, ["cast"]),
    ("cast(cast x) to another",
     lambda b, x, y: b(Cast, b(Cast, x, dtype=i32), dtype=f64), i8, ["cast", "cast"]),
    ("cast to itself", lambda b, x, y: b(Cast, x, dtype=f32), f32, []),
    ("bitcast(bitcast x)",
     lambda b, x, y: b(Bitcast, b(Bitcast, x, dtype=i32), dtype=f32), f32, ["bitcast"]),
]  # fmt: skip


@pytest.mark.parametrize(("case", "dtype", "left"), [row[1:] for row in FIRES],
                         ids=[row[0] for row in FIRES])  # fmt: skip
def test_a_rule_fires_and_changes_no_bit(
    case: Case, dtype: DType, left: list[str]
) -> None:
    names, got, expected = run(case, dtype)
    assert names == left
    assert_same_bits(got, expected)


@pytest.mark.parametrize("dtype", [bool_, u8, i8, i32, i64, f16, f32, f64], ids=str)
@pytest.mark.parametrize("case", [row[1] for row in FIRES], ids=[r[0] for r in FIRES])
def test_no_rule_changes_a_bit_in_another_dtype(case: Case, dtype: DType) -> None:
    """Whether it fires there or not."""
    try:
        _, got, expected = run(case, dtype)
    except (TypeError, OverflowError):
        pytest.skip("an op or a number of the case is of other dtypes only")
    assert_same_bits(got, expected)


KEEPS: list[tuple[str, Case, DType]] = [
    ("x + 0.0: -0.0 would stay", one(ew.Add, 0.0), f32),
    ("0.0 - x: 0.0 for x = 0.0", one(ew.Sub, 0.0, left=True), f32),
    ("x - x: NaN for inf", with_itself(ew.Sub), f32),
    ("x * 0: NaN for inf", one(ew.Mul, 0.0), f32),
    ("x / 3: rounds", one(ew.Div, 3.0), f32),
    ("x / 2^127: the inverse is subnormal", one(ew.Div, 2.0**127), f32),
    ("x / 0", one(ew.Div, 0.0), f32),
    ("x trunc/ 8: rounds the other way", one(ew.TruncDiv, 8), i32),
    ("x // 6", one(ew.FloorDiv, 6), i32),
    ("x // 1.0 floors", one(ew.FloorDiv, 1.0), f32),
    ("x % 0", one(ew.Rem, 0), i32),
    ("fmax(x, -inf): NaN becomes -inf", one(ew.Fmax, -np.inf), f32),
    ("x = x: NaN", with_itself(ew.Eq), f32),
    ("x & 1", one(ew.And, 1), i32),
    ("x ^ 0.5: √ differs at -inf", one(ew.Pow, 0.5), f32),
    ("|x|", lambda b, x, y: b(ew.Abs, x), i32),
]


@pytest.mark.parametrize(("case", "dtype"), [row[1:] for row in KEEPS],
                         ids=[row[0] for row in KEEPS])  # fmt: skip
def test_a_rule_holds_back(case: Case, dtype: DType) -> None:
    names, got, expected = run(case, dtype)
    assert len(names) == 1
    assert_same_bits(got, expected)


def test_negation_of_a_difference_of_floats_stays() -> None:
    """−(x − x) is −0.0 and x − x is 0.0."""
    names, got, expected = run(lambda b, x, y: b(ew.Neg, b(ew.Sub, x, y)), f32)
    assert names == ["sub", "neg"]
    assert_same_bits(got, expected)


def test_narrowing_casts_stay() -> None:
    def case(b: Any, x: Any, y: Any) -> Any:
        return b(Cast, b(Cast, x, dtype=f16), dtype=f32)

    names, got, expected = run(case, f32)
    assert names == ["cast", "cast"]
    assert_same_bits(got, expected)


def test_a_rule_never_narrows_the_space() -> None:
    """s + (x · 0 …): a scalar is no result for an op on points."""
    b = Builder(Level.LOOP)
    axis = Axis("i", 8)
    x, s = b.param(Points(i32, (axis,))), b.param(Scalar(i32))
    zero = b.const(0, i32)
    kept = b(ew.Select, b(ew.Lt, x, s), s, s)
    assert kept.type == Points(i32, (axis,))
    assert b(ew.Mul, x, zero).type == Points(i32, (axis,))
    assert b(ew.Sub, x, x).type == Points(i32, (axis,))
    assert b.constant(b(ew.Sub, s, s)) == 0
    assert b.constant(b(ew.Eq, s, s)) is True
    assert b.constant(b(ew.Lt, s, s)) is False


def test_constants_fold_as_the_references_compute() -> None:
    b = Builder(Level.GRAPH)
    assert b.constant(b(ew.Add, b.const(100, i8), b.const(100, i8))) == -56
    assert b.constant(b(ew.FloorDiv, b.const(-7, i64), b.const(2, i64))) == -4
    assert b.constant(b(ew.Div, b.const(1.0, f32), b.const(0.0, f32))) == np.inf
    assert b.constant(b(Cast, b.const(2.7, f32), dtype=i32)) == 2
    assert b.constant(b(Bitcast, b.const(1.0, f32), dtype=i32)) == 0x3F800000


def test_the_bits_of_nan_are_not_folded() -> None:
    b = Builder(Level.GRAPH)
    bits = b(Bitcast, b.const(0x7FC00001, i32), dtype=f32)
    assert b.constant(bits) is None
    assert b.constant(b(Bitcast, b.const(np.nan, f32), dtype=i32)) is None


@pytest.mark.parametrize(
    ("message", "op", "dtypes"),
    [
        ("add of f32 and i32; cast first", ew.Add, (f32, i32)),
        ("add does not take bool", ew.Add, (bool_, bool_)),
        ("div does not take i32", ew.Div, (i32, i32)),
        ("and does not take f32", ew.And, (f32, f32)),
        ("select by i32, not by bool", ew.Select, (i32, f32, f32)),
        ("ldexp of f32 by i64: widths differ", ew.Ldexp, (f32, i64)),
    ],
)
def test_wrong_dtypes_are_refused(
    message: str, op: Any, dtypes: tuple[DType, ...]
) -> None:
    b = Builder(Level.GRAPH)
    xs = [b.param(Tensor(d, (4,))) for d in dtypes]
    with pytest.raises(TypeError, match=message):
        b(op, *xs)


@pytest.mark.parametrize("wide", [bool_, u8, i8, i32, f16, f32, f64], ids=str)
@pytest.mark.parametrize("narrow", [bool_, u8, i8, i32, f16, f32, f64], ids=str)
def test_contains_means_that_a_cast_there_and_back_is_exact(
    wide: DType, narrow: DType
) -> None:
    x, _ = operands(narrow)
    with np.errstate(all="ignore"):
        there = convert(x, narrow, wide)
        back = convert(there, wide, narrow)
    if contains(wide, narrow):
        assert_same_bits(np.asarray(back), x)
    elif not narrow.is_float:  # some number is lost, which `operands` may not hold
        assert not (wide.bits > narrow.bits and wide.is_float and wide is not f16)
