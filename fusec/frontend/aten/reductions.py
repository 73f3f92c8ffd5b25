"""Reductions along dimensions, as monoids.

f16 and bf16 are summed in f32 and rounded once. An argument `dim` may be absent, one
dimension or several; none and [] mean all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fusec.frontend.aten.functions import absolute, exp, log, sqrt
from fusec.frontend.aten.registry import lowers
from fusec.frontend.aten.term import Emitter, Number, Term, call, reduce, where
from fusec.ir.dims import Dim
from fusec.ir.dtypes import bool_, i64
from fusec.ir.ops import elementwise as ops

Dims = Sequence[int] | int | None


def dims_of(x: Term, dim: Dims) -> tuple[int, ...]:
    """The dimensions that an argument names, counted from 0."""
    if dim is None or (not isinstance(dim, int) and not dim):
        return tuple(range(x.rank))
    if x.rank == 0:
        return ()
    named = (dim,) if isinstance(dim, int) else dim
    return tuple(sorted(x.wrap(d) for d in named))


@lowers("aten.sum.dim_IntList")
def sum_dims(
    e: Emitter, x: Term, dim: Dims, keepdim: bool = False, *, dtype: Any = None
) -> Term:
    return total(x.cast(e.dtype), dims_of(x, dim), keepdim)


@lowers("aten.sum.default")
def sum_all(e: Emitter, x: Term, *, dtype: Any = None) -> Term:
    return sum_dims(e, x, None, dtype=dtype)


def total(x: Term, dims: Sequence[int], keep: bool = False) -> Term:
    """The sum, accumulated in f32 at least; of bools, whether any is true."""
    if x.dtype.is_bool:
        return x.reduce("any", dims, keep)
    return from_zero(x.wide().reduce("sum", dims, keep))


def from_zero(x: Term) -> Term:
    """A sum, or several, as begun with 0, as ATen does: of nothing but −0 it is 0."""
    return x + 0 if x.dtype.is_float else x


def average(x: Term, dims: Sequence[int], keep: bool = False) -> Term:
    """The mean, in the accumulator's dtype."""
    return total(x, dims, keep) / x.count(dims)


@lowers("aten.mean.dim")
def mean(
    e: Emitter, x: Term, dim: Dims, keepdim: bool = False, *, dtype: Any = None
) -> Term:
    return average(x.cast(e.dtype), dims_of(x, dim), keepdim)


@lowers("aten.mean.default")
def mean_all(e: Emitter, x: Term, *, dtype: Any = None) -> Term:
    return mean(e, x, None, dtype=dtype)


@lowers("aten.prod.dim_int")
def prod(
    e: Emitter, x: Term, dim: int, keepdim: bool = False, *, dtype: Any = None
) -> Term:
    return multiplied(x.cast(e.dtype), dims_of(x, dim), keepdim)


@lowers("aten.prod.default")
def prod_all(e: Emitter, x: Term, *, dtype: Any = None) -> Term:
    return multiplied(x.cast(e.dtype), range(x.rank))


def multiplied(x: Term, dims: Sequence[int], keep: bool = False) -> Term:
    """The product, accumulated in f32 at least; of bools, whether all are true."""
    return x.wide().reduce("all" if x.dtype.is_bool else "prod", dims, keep)


@lowers("aten.amax.default")
def amax(e: Emitter, x: Term, dim: Dims = None, keepdim: bool = False) -> Term:
    return extreme("max", x, dims_of(x, dim), keepdim)


@lowers("aten.amin.default")
def amin(e: Emitter, x: Term, dim: Dims = None, keepdim: bool = False) -> Term:
    return extreme("min", x, dims_of(x, dim), keepdim)


@lowers("aten.max.default")
def max_all(e: Emitter, x: Term) -> Term:
    return extreme("max", x, range(x.rank))


@lowers("aten.min.default")
def min_all(e: Emitter, x: Term) -> Term:
    return extreme("min", x, range(x.rank))


def extreme(name: str, x: Term, dims: Sequence[int], keep: bool = False) -> Term:
    """ "max" or "min"; of bools these are any and all."""
    if x.dtype.is_bool:
        name = {"max": "any", "min": "all"}[name]
    # Halves compare as f32, and are exact there.
    return x.wide().reduce(name, dims, keep)


@lowers("aten.max.dim")
def max_dim(e: Emitter, x: Term, dim: int, keepdim: bool = False) -> tuple[Term, Term]:
    return _first("argmax", x, dim, keepdim)


@lowers("aten.min.dim")
def min_dim(e: Emitter, x: Term, dim: int, keepdim: bool = False) -> tuple[Term, Term]:
    return _first("argmin", x, dim, keepdim)


@lowers("aten.argmax.default")
def argmax(e: Emitter, x: Term, dim: int | None = None, keepdim: bool = False) -> Term:
    return _argument("argmax", x, dim, keepdim)


@lowers("aten.argmin.default")
def argmin(e: Emitter, x: Term, dim: int | None = None, keepdim: bool = False) -> Term:
    return _argument("argmin", x, dim, keepdim)


def _argument(name: str, x: Term, dim: int | None, keep: bool) -> Term:
    """Without `dim`, the position in row-major order."""
    if dim is not None:
        return _first(name, x, dim, keep)[1]
    index = _first(name, x.flat(), 0, False)[1]
    return index.reshape((1,) * x.rank) if keep else index


def _first(name: str, x: Term, dim: int, keep: bool) -> tuple[Term, Term]:
    """The extreme and the first index where it stands."""
    if x.rank == 0:
        return x, x.e.const(0, i64)
    dim = x.wrap(dim)
    # Bools have no extremes in the monoids; as bytes they order the same.
    values = x.cast(i64) if x.dtype.is_bool else x.wide()
    index = x.e.iota(x.shape, dim)
    value, place = reduce(name, (values, index), (dim,), keep)
    return value.cast(x.dtype), place


@lowers("aten.any.dim", "aten.any.dims")
def any_dims(e: Emitter, x: Term, dim: Dims = None, keepdim: bool = False) -> Term:
    """Along no dimension, of which [] is a way to name it, each is its own result."""
    dims = () if dim == [] else dims_of(x, dim)
    return x.cast(bool_).reduce("any", dims, keepdim)


@lowers("aten.any.default")
def any_all(e: Emitter, x: Term) -> Term:
    return any_dims(e, x)


@lowers("aten.all.dim", "aten.all.dims")
def all_dims(e: Emitter, x: Term, dim: Dims = None, keepdim: bool = False) -> Term:
    dims = () if dim == [] else dims_of(x, dim)
    return x.cast(bool_).reduce("all", dims, keepdim)


@lowers("aten.all.default")
def all_all(e: Emitter, x: Term) -> Term:
    return all_dims(e, x)


def moments(
    x: Term, dims: Sequence[int], correction: Number = 0, keep: bool = True
) -> tuple[Term, Term]:
    """(variance, mean) in two passes: the mean, then the sum of squared deviations.

    The second also sums the deviations, which repairs what the mean was off by: T. F.
    Chan, G. H. Golub, R. J. LeVeque, 1983, "Algorithms for computing the sample
    variance". The sum is divided by max(n − correction, 0), as torch does.
    """
    first = average(x, dims, True)
    deviation = x.wide() - first
    squares = total(deviation * deviation, dims, True)
    count = first.like(x.count(dims))
    missed = total(deviation, dims, True) / count
    squares = (squares - missed * missed * count).maximum(0)
    variance = squares / (count - correction).maximum(0)
    mean = first + missed
    if keep:
        return variance, mean
    return _squeezed(variance, dims), _squeezed(mean, dims)


@lowers("aten.var.correction")
def var(
    e: Emitter,
    x: Term,
    dim: Dims = None,
    *,
    correction: Number | None = None,
    keepdim: bool = False,
) -> Term:
    unbiased = 1 if correction is None else correction
    return moments(x, dims_of(x, dim), unbiased, keepdim)[0]


@lowers("aten.var_mean.correction")
def var_mean(
    e: Emitter,
    x: Term,
    dim: Dims = None,
    *,
    correction: Number | None = None,
    keepdim: bool = False,
) -> tuple[Term, Term]:
    unbiased = 1 if correction is None else correction
    return moments(x, dims_of(x, dim), unbiased, keepdim)


@lowers("aten._softmax.default")
def softmax(e: Emitter, x: Term, dim: int, half_to_float: bool) -> Term | None:
    if not x.dtype.is_float:
        return None
    x, dims = x.wide(), dims_of(x, dim)
    powers = exp(x - x.reduce("max", dims, True))
    return powers / powers.reduce("sum", dims, True)


@lowers("aten._log_softmax.default")
def log_softmax(e: Emitter, x: Term, dim: int, half_to_float: bool) -> Term | None:
    if not x.dtype.is_float:
        return None
    x, dims = x.wide(), dims_of(x, dim)
    shifted = x - x.reduce("max", dims, True)
    return shifted - log(exp(shifted).reduce("sum", dims, True))


@lowers("aten._softmax_backward_data.default")
def softmax_backward(e: Emitter, grad: Term, y: Term, dim: int, dtype: Any) -> Term:
    grad, y = grad.wide(), y.wide()
    product = grad * y
    return product - y * product.reduce("sum", dims_of(y, dim), True)


@lowers("aten._log_softmax_backward_data.default")
def log_softmax_backward(e: Emitter, grad: Term, y: Term, dim: int, dtype: Any) -> Term:
    grad, y = grad.wide(), y.wide()
    return grad - exp(y) * grad.reduce("sum", dims_of(y, dim), True)


@lowers("aten.logsumexp.default")
def logsumexp(e: Emitter, x: Term, dim: Dims, keepdim: bool = False) -> Term:
    """An infinite maximum is not subtracted: inf − inf would be NaN."""
    x, dims = x.cast(e.dtype).wide(), dims_of(x, dim)
    top = x.reduce("max", dims, True)
    shift = where(call(ops.IsInf, top), 0, top)
    result = log(exp(x - shift).reduce("sum", dims, True)) + shift
    return result if keepdim else _squeezed(result, dims)


@lowers("aten.linalg_vector_norm.default")
def vector_norm(
    e: Emitter,
    x: Term,
    ord: Number = 2,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Term:
    """(Σ|x|ᵖ)^(1/p); its limits at ±inf, and at 0 the number of nonzeros."""
    x, dims = absolute(x.cast(e.dtype).wide()), dims_of(x, dim)
    if ord in (math.inf, -math.inf):
        return x.reduce("max" if ord > 0 else "min", dims, keepdim)
    if ord == 0:
        return total(call(ops.Ne, x, 0).cast(x.dtype), dims, keepdim)
    if ord == 1:
        return total(x, dims, keepdim)
    if ord == 2:
        return sqrt(total(x * x, dims, keepdim))
    powers = total(call(ops.Pow, x, ord), dims, keepdim)
    return call(ops.Pow, powers, 1 / ord)


@lowers("aten.dist.default")
def dist(e: Emitter, x: Term, y: Term, p: Number = 2) -> Term:
    return vector_norm(e, x - y, p)


def _squeezed(x: Term, dims: Sequence[int]) -> Term:
    shape: tuple[Dim, ...] = tuple(n for d, n in enumerate(x.shape) if d not in dims)
    return x.reshape(shape)
