"""Scans: what the elements up to each one come to.

As ATen's on the CPU, they accumulate a step wider than the result: f16 and bf16 in f32,
f32 in f64.
"""

from __future__ import annotations

from typing import Any

from fusec.frontend.aten.functions import log
from fusec.frontend.aten.registry import lowers
from fusec.frontend.aten.term import Emitter, Term, scan
from fusec.ir.dtypes import f32, f64, i64


@lowers("aten.cumsum.default")
def cumsum(e: Emitter, x: Term, dim: int, *, dtype: Any = None) -> Term:
    return _accumulated("sum", x.cast(e.dtype), dim)


@lowers("aten.cumprod.default")
def cumprod(e: Emitter, x: Term, dim: int, *, dtype: Any = None) -> Term:
    return _accumulated("prod", x.cast(e.dtype), dim)


def _accumulated(name: str, x: Term, dim: int) -> Term:
    if x.rank == 0:
        return x
    wide = x.cast(f64) if x.dtype is f32 else x.wide()
    return scan(name, (wide,), x.wrap(dim))[0]


@lowers("aten.logcumsumexp.default")
def logcumsumexp(e: Emitter, x: Term, dim: int) -> Term:
    if x.rank == 0:
        return x
    x = x.wide()
    top, total = scan("logsumexp", (x, x.e.full(1, x.shape, x.dtype)), x.wrap(dim))
    return top + log(total)


@lowers("aten.cummax.default")
def cummax(e: Emitter, x: Term, dim: int) -> tuple[Term, Term]:
    return _last("lastmax", x, dim)


@lowers("aten.cummin.default")
def cummin(e: Emitter, x: Term, dim: int) -> tuple[Term, Term]:
    return _last("lastmin", x, dim)


def _last(name: str, x: Term, dim: int) -> tuple[Term, Term]:
    """The extreme so far and the last index where it stands."""
    if x.rank == 0:
        return x, x.e.const(0, i64)
    dim = x.wrap(dim)
    # Bools have no extremes in the monoids; as integers they order the same.
    values = x.cast(i64) if x.dtype.is_bool else x.wide()
    value, place = scan(name, (values, x.e.iota(x.shape, dim)), dim)
    return value.cast(x.dtype), place
