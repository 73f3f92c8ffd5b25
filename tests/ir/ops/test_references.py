"""The numpy references against torch in eager mode, on adversarial operands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusec.ir.dtypes import DType, bool_, f32, f64, i8, i32, i64, u8
from fusec.ir.opdef import REGISTRY
from fusec.ir.ops import elementwise as ew

torch = pytest.importorskip("torch")

OPS = [op for op in REGISTRY.values() if issubclass(op, ew.Elementwise) and op.aten]


def pairs(*dtypes: DType) -> Any:
    """Every op on each of these dtypes that it takes."""
    taken = [(op, dtype) for op in OPS for dtype in dtypes if op.takes(dtype)]
    names = [f"{op.name}-{dtype}" for op, dtype in taken]
    return pytest.mark.parametrize(("op", "dtype"), taken, ids=names)


DIVISIONS = (ew.FloorDiv, ew.Rem, ew.Fmod)
EXTREMES = (ew.Maximum, ew.Minimum, ew.Fmax, ew.Fmin)

NEAR = {
    ew.Sqrt, ew.Rsqrt, ew.Exp, ew.Exp2, ew.Expm1, ew.Log, ew.Log2, ew.Log10, ew.Log1p,
    ew.Pow, ew.Sigmoid, ew.Sin, ew.Cos, ew.Tan, ew.Asin, ew.Acos, ew.Atan, ew.Atan2,
    ew.Hypot, ew.Sinh, ew.Cosh, ew.Tanh, ew.Asinh, ew.Acosh, ew.Atanh, ew.Erf, ew.Erfc,
    ew.Erfinv, ew.Lgamma,
}  # fmt: skip
"""What torch itself computes with an error in the last places, √ by MKL included."""


def overload(name: str) -> Any:
    _, packet, kind = name.split(".")
    return getattr(getattr(torch.ops.aten, packet), kind)


def eager(op: Any, arrays: list[Any]) -> Any:
    return overload(op.aten[0])(*(torch.from_numpy(x) for x in arrays)).numpy()


def floats(dtype: DType) -> Any:
    info = np.finfo(dtype.carrier)
    numbers = [
        0,
        1,
        2,
        0.5,
        1.5,
        2.5,
        3.5,
        3,
        1e-3,
        0.1,
        10,
        27,
        80,
        1e10,
        np.inf,
        np.nan,
    ]
    numbers += [
        np.pi,
        np.pi / 2,
        0.999999,
        1 - info.eps,
        1 + info.eps,
        1e-5,
        1e-30,
        1e30,
    ]
    numbers += [info.max, info.tiny, info.smallest_subnormal]
    values = np.array(numbers, dtype.carrier)
    return np.concatenate([values, -values])


def integers(dtype: DType) -> Any:
    if dtype.is_bool:
        return np.array([False, True])
    limits = [dtype.min, dtype.min + 1, dtype.max, dtype.max - 1]
    numbers = [v for v in range(-9, 10) if v >= dtype.min] + limits
    return np.array([*numbers, 31, 32, 33, 63, 64, 65], dtype.carrier)


def operands(op: Any, values: Any) -> list[Any]:
    count = len(op.operand_fields)
    if op is ew.Select:
        cond = np.arange(len(values)) % 3 == 0
        return [cond, values, values[::-1].copy()]
    return [np.ascontiguousarray(v.ravel()) for v in np.meshgrid(*[values] * count)]


def assert_same(op: Any, got: Any, expected: Any) -> None:
    nan = np.isnan(expected)
    assert np.array_equal(np.isnan(got), nan)
    exact = ~np.isfinite(expected) | (expected == 0) if op in NEAR else ~nan
    assert np.array_equal(got[exact & ~nan], expected[exact & ~nan])
    if op not in EXTREMES:  # torch itself gives either zero, by the operands' size
        assert np.array_equal(np.signbit(got[~nan]), np.signbit(expected[~nan]))
    rest = np.isfinite(expected)
    with np.errstate(over="ignore"):
        bound = 2.5 * np.spacing(np.abs(expected[rest])).astype(np.float64)
    bound += 1e-14 if op is ew.Lgamma else 0.0  # cancels near 1 and 2, and below 0
    assert np.all(np.abs(got[rest].astype(np.float64) - expected[rest]) <= bound)


@pairs(f32, f64)
def test_floats(op: Any, dtype: DType) -> None:
    arrays = operands(op, floats(dtype))
    if op in DIVISIONS:
        arrays = _of_moderate_quotient(arrays)
    if op in (ew.Sigmoid, ew.Sinh, ew.Cosh, ew.Log1p):
        arrays = _within_torch_domain(op, arrays)
    with np.errstate(all="ignore"):
        got = np.asarray(op.numpy(*arrays))
    expected = eager(op, arrays)
    assert got.dtype == expected.dtype
    if expected.dtype == bool:
        assert np.array_equal(got, expected)
    else:
        assert_same(op, got, expected)


def _of_moderate_quotient(arrays: list[Any]) -> list[Any]:
    """torch's vectorised fmod gives NaN where the quotient is vast."""
    x, y = arrays
    with np.errstate(all="ignore"):
        keep = ~(np.abs(x / y) > 2.0**20) | (y == 0) | np.isinf(x)
    return [x[keep], y[keep]]


def _within_torch_domain(op: Any, arrays: list[Any]) -> list[Any]:
    """Where torch neither overflows early nor flushes subnormals to zero."""
    (x,) = arrays
    if op is ew.Log1p:
        return [x[~((x != 0) & (np.abs(x) < np.finfo(x.dtype).tiny))]]
    return [x[~(np.abs(x) > 80) | np.isinf(x)]]


@pairs(bool_, i8, u8, i32, i64)
def test_integers(op: Any, dtype: DType) -> None:
    arrays = operands(op, integers(dtype))
    if op in DIVISIONS:  # torch raises for a divisor of zero
        arrays = [x[arrays[1] != 0] for x in arrays]
    with np.errstate(all="ignore"):
        got = np.asarray(op.numpy(*arrays))
    expected = eager(op, arrays)
    assert got.dtype == expected.dtype
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("dtype", [i8, u8, i64], ids=str)
def test_dividing_an_integer_by_zero_leaves_it_as_the_remainder(dtype: DType) -> None:
    x = np.array([v for v in (-3, 0, 5, dtype.max) if v >= dtype.min], dtype.carrier)
    zero = np.zeros_like(x)
    with np.errstate(all="ignore"):
        for op in (ew.FloorDiv, ew.TruncDiv):
            assert np.array_equal(op.numpy(x, zero), zero)
        for op in (ew.Rem, ew.Fmod):
            assert np.array_equal(op.numpy(x, zero), x)


def test_every_overload_exists() -> None:
    for op in OPS:
        for name in op.aten:
            assert overload(name) is not None


def test_ldexp_rounds_once() -> None:
    x = np.array([1.5, 1 + 2.0**-23, -3.0, np.inf, np.nan], np.float32)
    n = np.array([-149, -127, 200, -5, 5], np.int32)
    expected = [2.0**-148, 2.0**-127, -np.inf, np.inf, np.nan]
    with np.errstate(all="ignore"):
        got = ew.Ldexp.numpy(x, n)
    assert got.dtype == np.float32
    assert np.array_equal(got, np.array(expected, np.float32), equal_nan=True)
