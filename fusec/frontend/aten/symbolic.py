"""Python's arithmetic on numbers, where the result is no dim.

    x / math.sqrt(x.shape[-1])       torch.sym_sqrt(s0), a SymFloat
    n if n > 3 else -n               torch.sym_ite(u0 > 3, u0, -u0), a SymInt

Integers that are dims never get here: the intake reads them off. Floats compute in f64
as Python does, integers in i64.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from fusec.frontend.aten.term import Emitter, Operand, Term, call, where
from fusec.ir.dtypes import DType, bool_, f64, i64
from fusec.ir.ops import elementwise as ops

_ARITHMETIC: dict[Any, type] = {
    operator.add: ops.Add,
    operator.sub: ops.Sub,
    operator.mul: ops.Mul,
    operator.truediv: ops.Div,
    operator.floordiv: ops.FloorDiv,
    operator.mod: ops.Rem,
    operator.neg: ops.Neg,
    operator.pow: ops.Pow,
    torch.sym_max: ops.Maximum,
    torch.sym_min: ops.Minimum,
}
_FUNCTIONS: dict[str, type] = {
    "sqrt": ops.Sqrt,
    "sin": ops.Sin,
    "cos": ops.Cos,
    "tanh": ops.Tanh,
    "log2": ops.Log2,
}
_COMPARISONS: dict[Any, type] = {
    operator.eq: ops.Eq,
    operator.ne: ops.Ne,
    operator.lt: ops.Lt,
    operator.le: ops.Le,
    operator.gt: ops.Gt,
    operator.ge: ops.Ge,
}
_LOGIC: dict[Any, type] = {
    operator.and_: ops.And,
    operator.or_: ops.Or,
    torch.sym_not: ops.Not,
}


def symbolic(
    e: Emitter, dtype: DType, target: Callable[..., Any], *xs: Operand
) -> Term | None:
    """A scalar of `dtype` for `target(*xs)`, or None where the IR has no op for it."""
    if target is torch.sym_float:
        return e.term(xs[0], f64)
    if target is torch.sym_ite:
        condition, *choices = xs
        return where(e.term(condition, bool_), *(e.term(x, dtype) for x in choices))
    if target in _LOGIC:
        return call(_LOGIC[target], *(e.term(x, bool_) for x in xs))
    if target in _COMPARISONS:
        common = f64 if any(_is_float(x) for x in xs) else i64
        return call(_COMPARISONS[target], *(e.term(x, common) for x in xs))
    op = _ARITHMETIC.get(target) or _function(target)
    return None if op is None else call(op, *(e.term(x, dtype) for x in xs))


def _is_float(x: Operand) -> bool:
    if isinstance(x, Term):
        return x.dtype.is_float
    return isinstance(x, float)


def _function(target: Callable[..., Any]) -> type | None:
    """`math.sqrt` or what torch traces it as, `torch._sym_sqrt`."""
    name = getattr(target, "__name__", "").removeprefix("_").removeprefix("sym_")
    known = (getattr(math, name, None), getattr(torch, f"_sym_{name}", None))
    return _FUNCTIONS.get(name) if target in known else None
