"""Elements picked by tensors of indices.

The IR counts indices from 0 and raises IndexError for one that lies outside. Of ATen's
ops only `x[i, j]` counts negative indices from the end; the others refuse them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusec.frontend.aten.promotion import common_dtype
from fusec.frontend.aten.registry import lowers
from fusec.frontend.aten.term import Emitter, Operand, Term, broadcast_shapes, where
from fusec.ir.dims import Dim
from fusec.ir.dtypes import i64
from fusec.ir.ops.view import Gather, Index


@lowers("aten.index_select.default")
def index_select(e: Emitter, x: Term, dim: int, index: Term) -> Term:
    dim, x = x.wrap(dim), ranked(x)
    return picked(x, {dim: index.flat()}, dim).reshape(e.shape)


@lowers("aten.embedding.default")
def embedding(
    e: Emitter,
    weight: Term,
    indices: Term,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Term:
    """Rows of the weight; the other arguments concern its gradient."""
    return picked(weight, {0: indices}, 0)


@lowers("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index_tensor(e: Emitter, x: Term, indices: Sequence[Term | None]) -> Term | None:
    """numpy's advanced indexing, by integers.

    The dimensions of the indices stand where the first index stood, or in front if
    indexed dimensions are apart. Indexing by a mask gives a size that data decides.
    """
    found = {d: index for d, index in enumerate(indices) if index is not None}
    if any(not (i.dtype.is_int and i.dtype.is_signed) for i in found.values()):
        return None
    places = {d: wrapped(i, x.shape[d]) for d, i in found.items()}
    dims = sorted(found)
    together = dims == list(range(dims[0], dims[0] + len(dims)))
    return picked(x, places, dims[0] if together else 0)


@lowers("aten.take.default")
def take(e: Emitter, x: Term, index: Term) -> Term:
    """By the position in row-major order."""
    return picked(x.flat(), {0: wrapped(index, x.elements)}, 0)


@lowers("aten.gather.default")
def gather(
    e: Emitter, x: Term, dim: int, index: Term, *, sparse_grad: bool = False
) -> Term:
    dim, x, index = x.wrap(dim), ranked(x), ranked(index)
    return Term(e, e.b(Gather, x.value, index.value, dim=dim)).reshape(e.shape)


FEW_BOUNDARIES = 64
"""ATen's binary search takes some ns; 8 comparisons take 1 ns."""


@lowers("aten.bucketize.Tensor", "aten.bucketize.Scalar")
def bucketize(
    e: Emitter,
    x: Operand,
    boundaries: Term,
    *,
    out_int32: bool = False,
    right: bool = False,
) -> Term | None:
    return searchsorted(e, boundaries, x, right=right)


@lowers("aten.searchsorted.Tensor", "aten.searchsorted.Scalar")
def searchsorted(
    e: Emitter,
    boundaries: Term,
    x: Operand,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Term | None = None,
) -> Term | None:
    """How many boundaries are less, or as much: where they are few, by counting.

    NaN lies beyond all. Boundaries are one row, or a row for each row of x.
    """
    count = boundaries.shape[-1]
    few = isinstance(count, int) and count <= FEW_BOUNDARIES
    if sorter is not None or not few:
        return None
    dtype = common_dtype(e, (boundaries, x))
    values = e.term(x, dtype).broadcast(e.shape)
    rows = boundaries.cast(dtype)
    if boundaries.rank > 1:
        rows = rows.unsqueeze(rows.rank - 1)
    inclusive = right or side == "right"
    values = values.unsqueeze(values.rank)
    beyond = rows > values if inclusive else rows >= values
    passed = where(beyond, e.const(0, i64), 1)
    return passed.reduce("sum", (passed.rank - 1,))


def ranked(x: Term) -> Term:
    """A tensor of no dimensions as one of one element."""
    return x if x.rank else x.reshape((1,))


def wrapped(index: Term, size: Dim) -> Term:
    """An index counted from 0."""
    return where(index < 0, index + index.e.size(size).cast(index.dtype), index)


def picked(x: Term, indices: Mapping[int, Term], at: int) -> Term:
    """Elements at indices along dimensions, which the shape of the indices replaces."""
    shape: tuple[Dim, ...] = ()
    for index in indices.values():
        shape = broadcast_shapes(shape, index.shape)
    places = [index.broadcast(shape).value for index in indices.values()]
    made = x.e.b(Index, x.value, *places, dims=tuple(indices), at=at)
    return Term(x.e, made)
