"""Scatters as updates of memory, for targets whose programs combine there at once.

    x.index_add(0, rows, src)    →    scatter %x, %src, %rows {places=(-1, 1), …}

Memory adds few dtypes: narrow floats are added up in f32, narrow integers in i32. The
extremes of floats are those of integers in the same order, with NaN beyond all:

    amax of floats   →   max of keys, as i32; the float with the bits of that key
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fusec.frontend.aten.term import Term, call, where
from fusec.ir.dtypes import DType, bool_, f32, f64, i32, i64, u32
from fusec.ir.ops import elementwise as ops
from fusec.ir.ops.updating import ONE
from fusec.ir.ops.view import Scatter

COMBINED = {
    "last": ONE,
    "add": "sum",
    "sum": "sum",
    "mean": "sum",
    "amax": "max",
    "amin": "min",
}
"""How each of ATen's ways is done in memory."""
OF_BOOLS = {"sum": "max", "max": "max", "min": "min", "prod": "min", "multiply": "min"}
"""And of bools, as integers."""


@dataclass(frozen=True, slots=True)
class Points:
    """Where the elements of a source go: see `view.Scatter`."""

    src: Term
    places: tuple[int, ...]
    indices: tuple[Term, ...]
    """Each of a shape that broadcasts to that of the source."""
    mask: Term | None = None

    def put(self, x: Term, src: Term, combine: str) -> Term:
        """A tensor with a source of this one's shape combined into it."""
        shape = self.src.shape
        given = (*self.indices, *((self.mask,) if self.mask is not None else ()))
        operands = [t.broadcast(shape).value for t in (src, *given)]
        masked = self.mask is not None
        how: dict[str, Any] = {"combine": combine, "masked": masked}
        return Term(x.e, x.e.b(Scatter, x.value, *operands, places=self.places, **how))

    def counted(self, x: Term) -> Term:
        """How many elements go to each place."""
        zeros = x.e.full(0, x.shape, i32)
        return self.put(zeros, x.e.full(1, self.src.shape, i32), "sum")

    def hit(self, x: Term) -> Term:
        """Which places elements go to."""
        nowhere = x.e.full(False, x.shape, bool_)
        return self.put(nowhere, x.e.full(True, self.src.shape, bool_), ONE)


@dataclass(frozen=True, slots=True)
class _Form:
    """What elements are while they are combined in memory."""

    dtype: DType
    combine: str
    to: Callable[[Term], Term]
    back: Callable[[Term], Term]

    @property
    def neutral(self) -> int:
        """What nothing has to be combined with."""
        by = {"max": self.dtype.min, "min": self.dtype.max}
        return int(by.get(self.combine, 0))


def updated(
    x: Term, points: Points, how: str, include_self: bool = True
) -> Term | None:
    """x with what a source has combined into it; None where memory cannot do that, or
    would in an order that changes the result and torch is to be reproducible."""
    exact = torch.are_deterministic_algorithms_enabled()
    if how == "last":
        possible = x.e.updates and not exact
        return points.put(x, points.src, ONE) if possible else None
    form = _form(x.dtype, how)
    if form is None or form.dtype.name not in x.e.updates:
        return None
    if exact and form.dtype.is_float:
        return None
    start = form.to(x) if include_self else x.e.full(form.neutral, x.shape, form.dtype)
    found = form.back(points.put(start, form.to(points.src), form.combine))
    if how != "mean":
        return found if include_self else where(points.hit(x), found, x.wide())
    count = points.counted(x)
    parts = count + 1 if include_self else count.maximum(1)
    quotient = ops.Div if found.dtype.is_float else ops.FloorDiv
    mean = call(quotient, found, parts.cast(found.dtype))
    return mean if include_self else where(count > 0, mean, x.wide())


def _form(dtype: DType, how: str) -> _Form | None:
    if dtype.is_bool:
        combine = None if how == "mean" else OF_BOOLS.get(COMBINED.get(how, how))
        return None if combine is None else _Form(i32, combine, _as(i32), _as(bool_))
    combine = COMBINED.get(how)
    if combine is None:
        return None
    if not dtype.is_float:
        held = i32 if dtype.bits < 32 else i64 if dtype is u32 else dtype
        return _Form(held, combine, _as(held), _as(dtype))
    if combine == "sum":
        return _Form(dtype if dtype.bits > 16 else f32, combine, Term.wide, _same)
    return _ordered(f64 if dtype is f64 else f32, combine)


def _as(dtype: DType) -> Callable[[Term], Term]:
    return lambda x: x.cast(dtype)


def _same(x: Term) -> Term:
    return x


def _ordered(dtype: DType, combine: str) -> _Form:
    """Floats as integers of the same order: the bits of those below 0 are turned, but
    for the sign. NaN is the extreme that is looked for."""
    held = i64 if dtype is f64 else i32
    extreme = held.max if combine == "max" else held.min

    def turned(bits: Term) -> Term:
        return where(bits < 0, call(ops.Xor, bits, int(held.max)), bits)

    def to(x: Term) -> Term:
        wide = x.wide()
        return where(call(ops.IsNan, wide), int(extreme), turned(wide.bitcast(held)))

    return _Form(held, combine, to, lambda key: turned(key).bitcast(dtype))
