"""Expansions: how far they are from the truth, and that they end in primitive ops."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level, walk
from fusec.ir.dims import Symbol
from fusec.ir.dtypes import (
    DType,
    bf16,
    bool_,
    f16,
    f32,
    f64,
    i8,
    i32,
    i64,
    int_,
    u8,
    u32,
)
from fusec.ir.interpreter import interpret
from fusec.ir.opdef import REGISTRY
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.cast import Bitcast, Cast
from fusec.ir.types import Tensor
from fusec.passes.expand import expand

PRIMITIVE = {
    ew.Add, ew.Sub, ew.Mul, ew.Fma, ew.Div, ew.Neg, ew.Abs, ew.Sqrt,
    ew.Floor, ew.Ceil, ew.Trunc, ew.Round,
    ew.And, ew.Or, ew.Xor, ew.Not, ew.Shl, ew.Shr,
    ew.Eq, ew.Ne, ew.Lt, ew.Le, ew.Gt, ew.Ge, ew.Select, Cast, Bitcast,
}  # fmt: skip
"""What any processor has."""

CHUNK = 1 << 15
Truth = Callable[..., Any]


def primitive(op: Any, dtype: DType) -> bool:
    """The rows of the poorest processor; division of integers and fmod are among."""
    if op is ew.TruncDiv:
        return dtype.is_int
    if op is ew.Fmod:
        return dtype in (f32, f64)
    narrow = dtype in (f16, bf16) and op not in (Cast, Bitcast)
    return op in PRIMITIVE and not narrow


def single(op: Any, dtype: DType, *, level: Level = Level.GRAPH) -> Function:
    """A function of one op on vectors."""
    n = Symbol("n")
    b = Builder(level)
    dtypes = [dtype] * len(op.operand_fields)
    if op is ew.Select:
        dtypes[0] = bool_
    if op is ew.Ldexp:
        dtypes[1] = int_(dtype.bits)
    xs = [b.param(Tensor(d, (n,))) for d in dtypes]
    return b.function(op.name, (b(op, *xs),), symbols=(n,))


def expanded(op: Any, dtype: DType, *arrays: Any) -> Any:
    """The expansion's results, on arrays in the carriers of the operands."""
    function = expand(single(op, dtype), primitive)
    parts = [
        interpret(function, [x[k : k + CHUNK] for x in arrays])[0]
        for k in range(0, len(arrays[0]), CHUNK)
    ]
    return np.concatenate(parts)


def adversarial(dtype: np.dtype[Any]) -> Any:
    """Limits, specials, and the numbers where formulas switch, with neighbours."""
    info = np.finfo(dtype)
    numbers = [
        0,
        1,
        2,
        0.5,
        1.5,
        2.5,
        3,
        1e-3,
        0.1,
        10,
        16.7,
        17.4,
        1e10,
        np.inf,
        np.nan,
    ]
    numbers += [math.pi * k / 4 for k in range(1, 9)] + [math.sqrt(0.5), math.sqrt(2)]
    numbers += [0.55, math.log(2), math.log(2) / 2, 0.41421356, 2.41421356, 4.0, 27.2]
    numbers += [87.0, 88.72, 89, 103, 104, 709, 709.79, 710, 745.2, 746, 1e-5, 1e-10]
    numbers += [info.max, info.max / 2, info.tiny, info.tiny * 1.5, info.eps, 1e30]
    numbers += [info.eps / 2, info.eps / 4, info.smallest_subnormal]
    numbers += [2.0**52, 2.0**24, 2.0**20]
    values = np.array(numbers, dtype)
    values = np.concatenate(
        [
            values,
            np.nextafter(values, dtype.type(0)),
            np.nextafter(values, dtype.type(9)),
        ]
    )
    halves = np.arange(0, 32, 0.5, dtype)  # where rounding ties
    return np.concatenate([values, -values, halves])


def samples(dtype: np.dtype[Any], count: int, low: float, high: float) -> Any:
    """Any bit pattern, and uniform numbers where the function varies most."""
    rng = np.random.default_rng(7)
    codes = rng.integers(0, 2 ** (8 * dtype.itemsize), count, np.uint64)
    bits = codes.astype(f"u{dtype.itemsize}").view(dtype)
    uniform = rng.uniform(low, high, count).astype(dtype)
    return np.concatenate([adversarial(dtype), bits, uniform])


def errors(got: Any, truth: Any) -> Any:
    """Distances in units of the last place that a result of `got`'s dtype has there.

    `truth` is in a wider dtype. Inf where one is NaN, inf, or −0 and the other not.
    """
    info = np.finfo(got.dtype)
    rounded = truth.astype(got.dtype)
    size = np.maximum(np.abs(truth), truth.dtype.type(info.tiny))
    place = np.ldexp(truth.dtype.type(1), np.frexp(size)[1] - 1 - info.nmant)
    distance = np.abs(got.astype(truth.dtype) - truth) / place
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    special = ~np.isfinite(rounded) | ~np.isfinite(got) | (got == 0)
    signs = (np.signbit(got) == np.signbit(rounded)) | np.isnan(got)
    exact = np.where(same, 0.0, np.where(got == 0, distance, np.inf))
    return np.where(special, np.where(signs, exact, np.inf), distance).astype(float)


def erf(x: Any) -> Any:
    return ew.Erf.numpy(x.astype(np.float64))


def erfc(x: Any) -> Any:
    return ew.Erfc.numpy(x.astype(np.float64))


def logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


UNARY: dict[Any, tuple[Truth, float, float]] = {
    ew.Exp: (np.exp, -104, 89),
    ew.Exp2: (np.exp2, -150, 128),
    ew.Expm1: (np.expm1, -20, 89),
    ew.Log: (np.log, 0, 3),
    ew.Log2: (np.log2, 0, 3),
    ew.Log10: (np.log10, 0, 3),
    ew.Log1p: (np.log1p, -1, 3),
    ew.Sin: (np.sin, -10, 10),
    ew.Cos: (np.cos, -10, 10),
    ew.Tan: (np.tan, -10, 10),
    ew.Asin: (np.arcsin, -1, 1),
    ew.Acos: (np.arccos, -1, 1),
    ew.Atan: (np.arctan, -3, 3),
    ew.Sinh: (np.sinh, -5, 5),
    ew.Cosh: (np.cosh, -5, 5),
    ew.Tanh: (np.tanh, -3, 3),
    ew.Asinh: (np.arcsinh, -3, 3),
    ew.Acosh: (np.arccosh, 1, 4),
    ew.Atanh: (np.arctanh, -1, 1),
}
"""The truth in a wider dtype, and where to look closely."""

IN_DOUBLE: dict[Any, tuple[Truth, float, float]] = {
    ew.Erf: (ew.Erf.numpy, -4, 4),
    ew.Erfc: (ew.Erfc.numpy, -5, 10),
    ew.Erfinv: (ew.Erfinv.numpy, -1, 1),
    ew.Lgamma: (ew.Lgamma.numpy, -30, 9),
}
"""The truth in f64 only, which will do for f32."""

BINARY: dict[Any, tuple[Truth, float, float]] = {
    ew.Pow: (np.power, -3, 3),
    ew.Atan2: (np.arctan2, -3, 3),
    ew.Hypot: (np.hypot, -3, 3),
}

WIDE = np.dtype(np.longdouble)
needs_long_double = pytest.mark.skipif(
    np.finfo(WIDE).nmant < 60, reason="the platform has no float wider than f64"
)


def worst(op: Any, dtype: DType, truth: Truth, *xs: Any) -> tuple[float, Any]:
    """The largest error of an expansion and where it is."""
    wide = np.float64 if op in IN_DOUBLE else np.longdouble
    with np.errstate(all="ignore"):
        expected = np.asarray(truth(*(x.astype(wide) for x in xs)))
        found = errors(expanded(op, dtype, *xs), expected)
    at = int(np.argmax(found))
    return float(found[at]), [float(x[at]) for x in xs]


def check(op: Any, dtype: DType, truth: Truth, *xs: Any) -> None:
    error, where = worst(op, dtype, truth, *xs)
    bound = op.ulps[dtype is f64]
    print(f"{op.name} {dtype.name}: {error:.3f} ulp at {where}, bound {bound}")
    assert error <= bound, f"{error} ulp at {where}"


@pytest.mark.parametrize(
    "count", [1 << 13, pytest.param(1 << 19, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("op", [*UNARY, *IN_DOUBLE], ids=lambda op: op.name)
def test_f32_is_as_near_as_stated(op: Any, count: int) -> None:
    truth, low, high = (UNARY | IN_DOUBLE)[op]
    check(op, f32, truth, samples(np.dtype(np.float32), count, low, high))


@needs_long_double
@pytest.mark.parametrize(
    "count", [1 << 11, pytest.param(1 << 19, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.name)
def test_f64_is_as_near_as_stated(op: Any, count: int) -> None:
    truth, low, high = UNARY[op]
    check(op, f64, truth, samples(np.dtype(np.float64), count, low, high))


@needs_long_double
@pytest.mark.parametrize(
    "count", [1 << 10, pytest.param(1 << 18, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.name)
def test_binary_is_as_near_as_stated(op: Any, dtype: DType, count: int) -> None:
    truth, low, high = BINARY[op]
    x = samples(dtype.carrier, count, low, high)
    y = np.random.default_rng(8).permutation(x)
    grid = np.meshgrid(adversarial(dtype.carrier)[::3], adversarial(dtype.carrier)[::2])
    xs = [np.concatenate([a, b.ravel()]) for a, b in zip((x, y), grid, strict=True)]
    check(op, dtype, truth, *xs)


def log_gamma(mpmath: Any, x: Any) -> Any:
    """log |Γ(x)|; by reflection below, where mpmath's own may not end."""
    if x > 0:
        return mpmath.loggamma(x)
    mirrored = mpmath.log(mpmath.pi / abs(mpmath.sinpi(x)))
    return mirrored - mpmath.loggamma(1 - x)


@pytest.mark.parametrize("op", IN_DOUBLE, ids=lambda op: op.name)
def test_f64_beyond_numpy_is_as_near_as_stated(op: Any) -> None:
    mpmath = pytest.importorskip("mpmath")
    truth, low, high = IN_DOUBLE[op]
    xs = samples(np.dtype(np.float64), 500, low, high)
    with np.errstate(all="ignore"):
        expected = truth(xs)
    keep = np.isfinite(expected) & ((expected != 0) | (op is ew.Lgamma))
    exact_function = getattr(mpmath, op.name, partial(log_gamma, mpmath))
    got = expanded(op, f64, xs)
    with mpmath.workdps(40):
        for x, y in zip(xs[keep].tolist(), got[keep].tolist(), strict=True):
            exact = exact_function(mpmath.mpf(x))
            least = np.finfo(np.float64).tiny
            if op is ew.Lgamma and x < -0.5:  # a difference from this
                least = max(1.0, float(mpmath.loggamma(1 - mpmath.mpf(x))))
            place = math.ulp(max(abs(float(exact)), least))
            assert abs(exact - mpmath.mpf(y)) <= op.ulps[1] * place, x
    assert np.array_equal(got[~keep], expected[~keep], equal_nan=True)


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_sigmoid(dtype: DType) -> None:
    """Near to where e⁻ˣ overflows, and 0 from there on, as torch."""
    limit = {f32: -88.0, f64: -709.0}[dtype]
    xs = samples(dtype.carrier, 1 << 13, -40, 40)
    near = xs[~(xs < limit)]
    check(ew.Sigmoid, dtype, logistic, near)
    assert np.all(
        expanded(ew.Sigmoid, dtype, xs[xs < limit]) < np.finfo(dtype.carrier).tiny * 8
    )


EXACT = [
    ew.Rsqrt, ew.Reciprocal, ew.FloorDiv, ew.Rem, ew.TruncDiv, ew.Sign, ew.Copysign,
    ew.Nextafter, ew.IsNan, ew.IsInf, ew.SignBit,
    ew.Maximum, ew.Minimum, ew.Fmax, ew.Fmin,
]  # fmt: skip


def same(got: Any, expected: Any, *, zeros: bool = True) -> bool:
    """Equal numbers, NaN to NaN, and zeros of one sign unless told otherwise."""
    equal = (got == expected) | ((got != got) & (expected != expected))
    if zeros and got.dtype.kind == "f":
        equal &= (np.signbit(got) == np.signbit(expected)) | (got != got)
    return bool(np.all(equal))


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("op", EXACT, ids=lambda op: op.name)
def test_floats_are_exact(op: Any, dtype: DType) -> None:
    x = adversarial(dtype.carrier)
    arrays = [v.ravel() for v in np.meshgrid(*[x] * len(op.operand_fields))]
    with np.errstate(all="ignore"):
        expected = (
            dtype.quantize(op.numpy(*arrays)) if not op.gives else op.numpy(*arrays)
        )
    either_zero = op in (ew.Maximum, ew.Minimum, ew.Fmax, ew.Fmin)
    assert same(expanded(op, dtype, *arrays), expected, zeros=not either_zero)


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_every_neighbour_of_a_narrow_float(dtype: DType) -> None:
    """Each number's next one up and down, to and from the infinities and NaN."""
    every = dtype.decode(np.arange(1 << 16, dtype=np.uint16))
    ordered = np.unique(every[~np.isnan(every)])  # −0 and 0 are one
    inf, nan = np.full_like(ordered, np.inf), np.full_like(ordered, np.nan)

    def after(y: Any) -> Any:
        return expanded(ew.Nextafter, dtype, ordered, y)

    assert same(after(inf), np.append(ordered[1:], np.inf), zeros=False)
    assert same(after(-inf), np.append(-np.inf, ordered[:-1]), zeros=False)
    assert same(after(ordered), ordered)
    assert np.isnan(after(nan)).all()


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_ldexp_is_exact(dtype: DType) -> None:
    x = adversarial(dtype.carrier)
    n = np.array(
        [0, 1, -1, 23, 127, 128, -126, -127, -149, -160, 300, -300, 1023, 1024]
    )
    n = np.concatenate([n, [-1022, -1074, -1100, 2098, -2098, 2**31 - 1, -(2**31)]])
    xs, ns = (v.ravel() for v in np.meshgrid(x, n.astype(f"i{dtype.itembytes}")))
    with np.errstate(all="ignore"):
        expected = ew.Ldexp.numpy(xs, ns)
    assert same(expanded(ew.Ldexp, dtype, xs, ns), expected)


@pytest.mark.parametrize("dtype", [i8, u8, i32, u32, i64], ids=str)
@pytest.mark.parametrize(
    "op",
    [
        ew.FloorDiv, ew.Rem, ew.Fmod, ew.Sign, ew.Pow,
        ew.Maximum, ew.Minimum, ew.Fmax, ew.Fmin,
    ],
    ids=lambda op: op.name,
)  # fmt: skip
def test_integers_are_exact(op: Any, dtype: DType) -> None:
    """Division by zero and of the least number by −1 included."""
    near = [dtype.min, dtype.min + 1, -7, -3, -2, -1, 0, 1, 2, 3, 7, 8, dtype.max]
    x = np.array([v for v in near if dtype.min <= v], dtype.carrier)
    arrays = [v.ravel() for v in np.meshgrid(*[x] * len(op.operand_fields))]
    with np.errstate(all="ignore"):
        expected = dtype.quantize(op.numpy(*arrays))
    assert same(expanded(op, dtype, *arrays), expected)


ELEMENTWISE = [op for op in REGISTRY.values() if issubclass(op, ew.Elementwise)]


@pytest.mark.parametrize(
    "dtype", [bool_, i8, u8, i32, i64, f16, bf16, f32, f64], ids=str
)
@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
def test_expansions_end_in_primitive_ops(op: Any, dtype: DType) -> None:
    if not op.takes(dtype):
        return
    function = expand(single(op, dtype), primitive)
    for made in walk(function.body):
        if isinstance(made, ew.Elementwise):
            at = made.operands[isinstance(made, ew.Select)].type.dtype
            assert primitive(type(made), at), made


@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.name)
def test_scalars_expand_too(op: Any) -> None:
    """A formula does not depend on the space: 0.7 computed as a constant folds away."""
    b = Builder(Level.TILE)
    value = 1.3 if op is ew.Acosh else 0.7
    result = op.expand(b, b.const(float(np.float32(value)), f32))
    assert b.constant(result) == pytest.approx(op.numpy(np.float32(value)), rel=1e-6)
