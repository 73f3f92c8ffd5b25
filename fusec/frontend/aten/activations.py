"""Activations and other pointwise formulas, in ATen's order of operations.

Each computes in the dtype that ATen's kernel computes in (f32 for f16 and bf16) and is
rounded once, at the end, by the intake's cast to the result's dtype.
"""

from __future__ import annotations

import math

from fusec.frontend.aten.functions import absolute, clamped, exp
from fusec.frontend.aten.promotion import common_dtype
from fusec.frontend.aten.registry import lowers
from fusec.frontend.aten.term import Emitter, Number, Operand, Term, call, where
from fusec.ir.dtypes import DType
from fusec.ir.ops import elementwise as ops

SQRT_HALF = math.sqrt(0.5)
TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)
GELU_CUBIC = 0.044715


def _wide(e: Emitter, *operands: Operand) -> list[Term]:
    """Operands promoted, then widened."""
    dtype = common_dtype(e, operands)
    dtype = dtype if dtype.is_float else e.default_float
    return [e.term(x, dtype).wide() for x in operands]


@lowers("aten.clamp.default", "aten.clamp.Tensor")
def clamp(
    e: Emitter, x: Term, min: Operand | None = None, max: Operand | None = None
) -> Term:
    """Bounds promote x; NaN bounds win."""
    bounds = [b for b in (min, max) if b is not None]
    dtype = common_dtype(e, (x, *bounds))
    return clamped(x.cast(dtype), _bound(e, min, dtype), _bound(e, max, dtype))


def _bound(e: Emitter, bound: Operand | None, dtype: DType) -> Operand | None:
    if bound is None or isinstance(bound, (int, float)):
        return bound
    return e.term(bound, dtype)


@lowers("aten.clamp_min.default", "aten.clamp_min.Tensor")
def clamp_min(e: Emitter, x: Term, min: Operand) -> Term:
    return clamp(e, x, min)


@lowers("aten.clamp_max.default", "aten.clamp_max.Tensor")
def clamp_max(e: Emitter, x: Term, max: Operand) -> Term:
    return clamp(e, x, None, max)


@lowers("aten.relu.default")
def relu(e: Emitter, x: Term) -> Term:
    return clamped(x, 0, None)


@lowers("aten.relu6.default")
def relu6(e: Emitter, x: Term) -> Term:
    return clamped(x, 0, 6)


@lowers("aten.hardtanh.default")
def hardtanh(e: Emitter, x: Term, min_val: Number = -1, max_val: Number = 1) -> Term:
    return clamped(x, min_val, max_val)


@lowers("aten.leaky_relu.default")
def leaky_relu(e: Emitter, x: Term, negative_slope: Number = 0.01) -> Term:
    x = x.wide()
    return where(x > 0, x, x * negative_slope)


@lowers("aten.elu.default")
def elu(
    e: Emitter, x: Term, alpha: Number = 1, scale: Number = 1, input_scale: Number = 1
) -> Term:
    x = x.wide()
    return where(x < 0, call(ops.Expm1, x * input_scale) * (alpha * scale), x * scale)


@lowers("aten.gelu.default")
def gelu(e: Emitter, x: Term, *, approximate: str = "none") -> Term:
    x = x.wide()
    if approximate == "none":
        return x * 0.5 * (call(ops.Erf, x * SQRT_HALF) + 1)
    inner = (x + x * x * x * GELU_CUBIC) * (SQRT_HALF * TWO_OVER_SQRT_PI)
    return x * 0.5 * (call(ops.Tanh, inner) + 1)


@lowers("aten.silu.default")
def silu(e: Emitter, x: Term) -> Term:
    """x / (1 + e⁻ˣ), as ATen writes x·sigmoid(x)."""
    x = x.wide()
    return x / (exp(-x) + 1)


@lowers("aten.silu_backward.default")
def silu_backward(e: Emitter, grad: Term, x: Term) -> Term:
    grad, x = _wide(e, grad, x)
    s = 1 / (exp(-x) + 1)
    return grad * s * (x * (1 - s) + 1)


@lowers("aten.hardsigmoid.default")
def hardsigmoid(e: Emitter, x: Term) -> Term:
    return clamped(x.wide() + 3, 0, 6) / 6


@lowers("aten.hardswish.default")
def hardswish(e: Emitter, x: Term) -> Term:
    x = x.wide()
    return x * clamped(x + 3, 0, 6) / 6


@lowers("aten.softplus.default")
def softplus(e: Emitter, x: Term, beta: Number = 1, threshold: Number = 20) -> Term:
    x = x.wide()
    scaled = x * beta
    return where(scaled > threshold, x, call(ops.Log1p, exp(scaled)) / beta)


@lowers("aten.threshold.default")
def threshold(e: Emitter, x: Term, threshold: Number, value: Number) -> Term:
    return where(x <= threshold, value, x)


@lowers("aten.threshold_backward.default")
def threshold_backward(e: Emitter, grad: Term, x: Term, threshold: Number) -> Term:
    return where(x <= threshold, 0, grad)


@lowers("aten.sigmoid_backward.default")
def sigmoid_backward(e: Emitter, grad: Term, y: Term) -> Term:
    grad, y = _wide(e, grad, y)
    return grad * (1 - y) * y


@lowers("aten.tanh_backward.default")
def tanh_backward(e: Emitter, grad: Term, y: Term) -> Term:
    grad, y = _wide(e, grad, y)
    return grad * (1 - y * y)


@lowers("aten.addcmul.default")
def addcmul(e: Emitter, x: Term, y: Term, z: Term, *, value: Number = 1) -> Term:
    """x + (value·y)·z, the last product and the sum in one rounding."""
    if not common_dtype(e, (x, y, z)).is_float:
        x, y, z = (t.cast(e.dtype) for t in (x, y, z))
        return x + y * value * z
    x, y, z = _wide(e, x, y, z)
    return call(ops.Fma, y * value, z, x)


@lowers("prims.fma.default")
def fma(e: Emitter, x: Operand, y: Operand, z: Operand) -> Term:
    """x·y + z, of floats in one rounding."""
    a, b, c = (e.term(operand, e.dtype).wide() for operand in (x, y, z))
    return call(ops.Fma, a, b, c) if e.dtype.is_float else a * b + c


@lowers("aten.addcdiv.default")
def addcdiv(e: Emitter, x: Term, y: Term, z: Term, *, value: Number = 1) -> Term:
    """x + (value·y) / z, rounded three times."""
    x, y, z = _wide(e, x, y, z)
    return x + y * value / z


@lowers("aten.lerp.Scalar", "aten.lerp.Tensor")
def lerp(e: Emitter, start: Term, end: Term, weight: Operand) -> Term:
    """From the nearer end, so that a weight of 1 gives `end` exactly."""
    start, end = _wide(e, start, end)
    weight = e.term(weight, start.dtype)
    delta = end - start
    low = call(ops.Fma, delta, weight, start)
    high = call(ops.Fma, -delta, 1 - weight, end)
    return where(absolute(weight) < 0.5, low, high)
