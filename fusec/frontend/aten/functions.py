"""Functions of terms that the formulas of several families call."""

from __future__ import annotations

from fusec.frontend.aten.term import Operand, Term, call, where
from fusec.ir.ops import elementwise as ops


def absolute(x: Term) -> Term:
    return call(ops.Abs, x)


def exp(x: Term) -> Term:
    return call(ops.Exp, x)


def log(x: Term) -> Term:
    return call(ops.Log, x)


def sqrt(x: Term) -> Term:
    return call(ops.Sqrt, x)


def rsqrt(x: Term) -> Term:
    return call(ops.Rsqrt, x)


def clamped(x: Term, low: Operand | None, high: Operand | None) -> Term:
    """min(max(x, low), high); NaN for a NaN.

    A zero that is within a bound of the other sign keeps its own, as in torch.
    """
    if low is not None:
        x = where(x < low, low, x) if _compares(x, low) else x.maximum(low)
    if high is not None:
        x = where(x > high, high, x) if _compares(x, high) else x.minimum(high)
    return x


def _compares(x: Term, bound: Operand) -> bool:
    """Whether a comparison finds what a bound replaces: it is a number, so no NaN."""
    return x.dtype.is_float and isinstance(bound, (int, float)) and bound == bound
