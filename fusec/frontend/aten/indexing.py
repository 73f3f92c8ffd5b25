"""Elements picked by tensors of indices.

Each declines unless `bounds.within` shows that no index is out of range, for then
ATen has to raise. A negative index counts from the end, except where ATen refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusec.frontend.aten.bounds import within
from fusec.frontend.aten.registry import lowers
from fusec.frontend.aten.term import Emitter, Term, broadcast_shapes
from fusec.ir.dims import Dim
from fusec.ir.ops.view import Gather, Index


@lowers("aten.index_select.default")
def index_select(e: Emitter, x: Term, dim: int, index: Term) -> Term | None:
    if x.rank == 0 or index.rank == 0:
        return None
    dim = x.wrap(dim)
    return _index(e, x, {dim: index}, dim)


@lowers("aten.embedding.default")
def embedding(
    e: Emitter,
    weight: Term,
    indices: Term,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Term | None:
    """Rows of the weight; the other arguments concern its gradient."""
    return _index(e, weight, {0: indices}, 0)


@lowers("aten.index.Tensor")
def index_tensor(e: Emitter, x: Term, indices: Sequence[Term | None]) -> Term | None:
    """numpy's advanced indexing, by integers.

    The dimensions of the indices stand where the first index stood, or in front if
    indexed dimensions are apart.
    """
    found = {d: index for d, index in enumerate(indices) if index is not None}
    if any(not index.dtype.is_int for index in found.values()):
        return None
    dims = sorted(found)
    together = dims == list(range(dims[0], dims[0] + len(dims)))
    return _index(e, x, found, dims[0] if together else 0)


@lowers("aten.gather.default")
def gather(
    e: Emitter, x: Term, dim: int, index: Term, *, sparse_grad: bool = False
) -> Term | None:
    if x.rank == 0 or index.rank == 0:
        return None
    place = within(e, index, x.shape[x.wrap(dim)])
    if place is None:
        return None
    return Term(e, e.b(Gather, x.value, place.value, dim=x.wrap(dim)))


def _index(e: Emitter, x: Term, indices: dict[int, Term], at: int) -> Term | None:
    shape: tuple[Dim, ...] = ()
    for index in indices.values():
        shape = broadcast_shapes(shape, index.shape)
    places = [within(e, index, x.shape[d]) for d, index in indices.items()]
    known = [p.broadcast(shape).value for p in places if p is not None]
    if len(known) != len(places):
        return None
    dims = tuple(indices)
    return Term(e, e.b(Index, x.value, *known, dims=dims, at=at))
