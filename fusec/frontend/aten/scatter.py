"""Elements put where tensors of indices say.

What is scattered may be gathered: each place looks through the indices for those that
name it.

    x.scatter_add(1, index, src)    →    x[i, j] + Σₖ (index[i, k] = j) · src[i, k]

That compares every place with every index. Of one index, as the gradients of selections
have it, that is the best there is, and it fuses; of more, it is done where those are
few. Many are combined in memory where the target does that (see `updates`), else by a
call to ATen. An index that lies outside raises IndexError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fusec.frontend.aten.indexing import picked, ranked, wrapped
from fusec.frontend.aten.pointwise import mul
from fusec.frontend.aten.reductions import from_zero, vector_norm
from fusec.frontend.aten.registry import lowers
from fusec.frontend.aten.term import (
    Emitter,
    Number,
    Operand,
    Term,
    broadcast_shapes,
    call,
    negate,
    scan,
    where,
)
from fusec.frontend.aten.updates import Points, updated
from fusec.frontend.aten.views import strided_places
from fusec.ir.dims import Dim, product
from fusec.ir.dtypes import bool_, f32, i64
from fusec.ir.monoids import monoid
from fusec.ir.ops import elementwise as ops
from fusec.ir.ops.view import Gather, Pad

FEW_PLACES = 32
"""ATen spends 4 ns on an index; 8 comparisons take 1 ns."""
FEW_PAIRS = 1 << 15
"""How many comparisons take as long as a call of ATen's does, whatever it works on."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How what meets in one place is combined: a monoid and its op, by dtype."""

    monoid: str
    op: Any
    bool_monoid: str
    bool_op: Any
    mean: bool = False

    def name(self, x: Term) -> str:
        """The monoid over the elements of x."""
        return self.bool_monoid if x.dtype.is_bool else self.monoid

    def call(self, x: Term, y: Term) -> Term:
        """Two terms, combined."""
        return call(self.bool_op if x.dtype.is_bool else self.op, x, y)


SUM = Rule("sum", ops.Add, "any", ops.Or)
PRODUCT = Rule("prod", ops.Mul, "all", ops.And)
RULES: dict[str, Rule | None] = {
    "last": None,
    "add": SUM,
    "sum": SUM,
    "mean": replace(SUM, mean=True),
    "multiply": PRODUCT,
    "prod": PRODUCT,
    "amax": Rule("max", ops.Maximum, "any", ops.Or),
    "amin": Rule("min", ops.Minimum, "all", ops.And),
}
"""By ATen's names; "last" replaces, and of several the last wins."""


def scattered(
    x: Term, dim: int, index: Term, src: Term, how: str, include_self: bool = True
) -> Term | None:
    """torch's scatter_reduce along `dim`, 0 ≤ dim < rank; None where ATen is quicker.

    `index` and `src` have the rank of x, and may be smaller; `src` is of x's dtype.
    """
    picks, places = index.shape[dim], x.shape[dim]
    if picks == 0 or x.elements == 0:
        return x
    for d, size in enumerate(index.shape):
        src = src.slice(d, 0, size)
    others = x.count(d for d in range(x.rank) if d != dim)
    if _is_updated(x, picks, places * picks * others):
        at = tuple(-1 if d == dim else d for d in range(x.rank))
        made = updated(x, Points(src, at, (index,)), how, include_self)
        if made is not None:
            return made
    if not _is_dense(places, picks, others):
        return None
    index = _within(index.cast(i64), places)
    index, src = (_widened(t, x, dim, fill) for t, fill in ((index, -1), (src, 0)))
    pairs = _Pairs(dim, _pairwise(x, dim, index), src)
    rule = RULES[how]
    if rule is None:
        return pairs.last(x)
    return pairs.combined(x, rule, include_self)


def _is_dense(places: Dim, picks: Dim, others: Dim) -> bool:
    """Whether comparing each place with each index is as good as a call to ATen."""
    if picks == 1:
        return True
    if isinstance(places, int) and places <= FEW_PLACES:
        return True
    pairs = places * picks * others
    return isinstance(pairs, int) and pairs <= FEW_PAIRS


def _is_updated(x: Term, picks: Dim, pairs: Dim) -> bool:
    """Whether to combine in memory is better than to compare: where there is much to
    compare; and of what is there already, to be updated, few elements change."""
    if not x.e.updates or (isinstance(pairs, int) and pairs <= FEW_PAIRS):
        return False
    return picks != 1 or x.e.b.definition(x.value) is None


def _within(index: Term, size: Dim) -> Term:
    """The index itself, checked to lie in [0, size)."""
    return picked(index.e.iota((size,), 0), {0: index}, 0)


def _widened(t: Term, x: Term, dim: int, fill: Number) -> Term:
    """As large as x but along `dim`: filled where no index is."""
    shape = [n if d == dim else x.shape[d] for d, n in enumerate(t.shape)]
    high = tuple(n - m for n, m in zip(shape, t.shape, strict=True))
    if not any(high):
        return t
    filler = t.e.const(fill, t.dtype).value
    return Term(t.e, t.e.b(Pad, t.value, filler, low=(0,) * t.rank, high=high))


def _pairwise(x: Term, dim: int, index: Term) -> Term:
    """Whether an index names a place: places at `dim`, indices at `dim` + 1."""
    shape = (*x.shape[: dim + 1], index.shape[dim], *x.shape[dim + 1 :])
    places = x.e.iota(shape, dim)
    return places.equals(index.unsqueeze(dim))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Every place with every index: `hits` where they meet, and what to put there."""

    dim: int
    hits: Term
    src: Term

    def last(self, x: Term) -> Term:
        """x with the last of what meets in a place put there."""
        if self.src.shape[self.dim] == 1:
            hit = self.hits.reshape(x.shape)
            return where(hit, self.src.broadcast(x.shape), x)
        order = x.e.iota(self.hits.shape, self.dim + 1)
        latest = where(self.hits, order, -1).reduce("max", (self.dim + 1,))
        place = latest.maximum(0).value
        found = Term(x.e, x.e.b(Gather, self.src.value, place, dim=self.dim))
        return where(latest >= 0, found, x)

    def combined(self, x: Term, rule: Rule, include_self: bool) -> Term:
        """x combined with all that meets in a place, or replaced by it."""
        x, src = x.wide(), self.src.wide()
        neutral = monoid(rule.name(x), x.dtype).identity[0]
        spread = where(self.hits, src.unsqueeze(self.dim), neutral)
        found = self._reduced(spread, rule.name(x))
        if include_self:
            found = rule.call(x, found)
        elif rule.op is ops.Add:
            found = from_zero(found)
        if rule.mean:
            found = self._mean(found, include_self)
        return found if include_self else where(self._any(), found, x)

    def _mean(self, total: Term, include_self: bool) -> Term:
        count = self._reduced(self.hits.cast(i64), "sum")
        count = count + 1 if include_self else count.maximum(1)
        quotient = ops.Div if total.dtype.is_float else ops.FloorDiv
        return call(quotient, total, count.cast(total.dtype))

    def _any(self) -> Term:
        return self._reduced(self.hits, "any")

    def _reduced(self, x: Term, name: str) -> Term:
        return x.reduce(name, (self.dim + 1,))


def _scatter(
    e: Emitter,
    x: Term,
    dim: int,
    index: Term,
    src: Operand,
    how: str,
    include_self: bool = True,
) -> Term | None:
    if how not in RULES:
        return None
    dim, shape, index = x.wrap(dim), x.shape, ranked(index)
    x = ranked(x)
    if isinstance(src, Term) and not src.is_scalar:
        src = ranked(src).cast(x.dtype)
    else:
        src = e.term(src, x.dtype).broadcast(index.shape)
    made = scattered(x, dim, index, src, how, include_self)
    return None if made is None else made.reshape(shape)


@lowers("aten.scatter.src", "aten.scatter.value")
def scatter(e: Emitter, x: Term, dim: int, index: Term, src: Operand) -> Term | None:
    return _scatter(e, x, dim, index, src, "last")


@lowers("aten.scatter.reduce", "aten.scatter.value_reduce")
def scatter_with(
    e: Emitter, x: Term, dim: int, index: Term, src: Operand, *, reduce: str
) -> Term | None:
    return _scatter(e, x, dim, index, src, reduce)


@lowers("aten.scatter_add.default")
def scatter_add(e: Emitter, x: Term, dim: int, index: Term, src: Term) -> Term | None:
    return _scatter(e, x, dim, index, src, "sum")


@lowers("aten.scatter_reduce.two")
def scatter_reduce(
    e: Emitter,
    x: Term,
    dim: int,
    index: Term,
    src: Term,
    reduce: str,
    *,
    include_self: bool = True,
) -> Term | None:
    return _scatter(e, x, dim, index, src, reduce, include_self)


def _along(x: Term, dim: int, index: Term, src: Term) -> tuple[Term, Term]:
    """Index and source of an op that moves whole slices, as scatter has them."""
    picks = index.elements
    shape = (*x.shape[:dim], picks, *x.shape[dim + 1 :])
    line = (1,) * dim + (picks,) + (1,) * (x.rank - dim - 1)
    return index.reshape(line).broadcast(shape), src.broadcast(shape)


@lowers("aten.index_add.default")
def index_add(
    e: Emitter, x: Term, dim: int, index: Term, source: Term, *, alpha: Operand = 1
) -> Term | None:
    source = source if alpha == 1 else mul(e, source, alpha)
    return _index(e, x, dim, index, source, "sum")


@lowers("aten.index_reduce.default")
def index_reduce(
    e: Emitter,
    x: Term,
    dim: int,
    index: Term,
    source: Term,
    reduce: str,
    *,
    include_self: bool = True,
) -> Term | None:
    return _index(e, x, dim, index, source, reduce, include_self)


def _index(
    e: Emitter,
    x: Term,
    dim: int,
    index: Term,
    source: Term,
    how: str,
    include_self: bool = True,
) -> Term | None:
    dim, shape = x.wrap(dim), x.shape
    x = ranked(x)
    index, src = _along(x, dim, index, ranked(source).cast(x.dtype))
    made = scattered(x, dim, index, src, how, include_self)
    return None if made is None else made.reshape(shape)


@lowers("aten.index_put.default", "aten._unsafe_index_put.default")
def index_put(
    e: Emitter,
    x: Term,
    indices: Sequence[Term | None],
    values: Term,
    accumulate: bool = False,
    unsafe: bool = False,
) -> Term | None:
    """x[indices] = values: indexed dimensions become one, the first, and back."""
    found = {d: index for d, index in enumerate(indices) if index is not None}
    if any(index.dtype.is_bool for index in found.values()):
        return _masked(x, indices, values, accumulate)
    if any(not (i.dtype.is_int and i.dtype.is_signed) for i in found.values()):
        return None
    dims, others = list(found), [d for d in range(x.rank) if d not in found]
    order = (*dims, *others)
    places = [wrapped(i.cast(i64), x.shape[d]) for d, i in found.items()]
    shape: tuple[Dim, ...] = ()
    for place in places:
        shape = broadcast_shapes(shape, place.shape)
    rest = [x.shape[d] for d in others]
    src = _in_front(values, shape, rest, dims).cast(x.dtype)
    how = "sum" if accumulate else "last"
    if 0 not in src.shape and _is_updated(
        x, product(shape), x.elements * product(shape)
    ):
        made = updated(x, _points(src, places, shape, dims, x.rank), how)
        if made is not None:
            return made
    made = _put_in_front(x.permute(order), places, shape, src, accumulate)
    if made is None:
        return None
    return made.permute(order.index(d) for d in range(x.rank))


def _points(
    src: Term,
    indices: Sequence[Term],
    shape: tuple[Dim, ...],
    dims: Sequence[int],
    rank: int,
) -> Points:
    """Where a source goes whose first dimensions are those of indices along `dims`."""
    rest = iter(range(len(shape), src.rank))
    at = tuple(-1 - dims.index(d) if d in dims else next(rest) for d in range(rank))
    line = (1,) * (src.rank - len(shape))
    lifted = (i.broadcast(shape) for i in indices)
    return Points(src, at, tuple(i.reshape((*i.shape, *line)) for i in lifted))


def _put_in_front(
    x: Term,
    places: Sequence[Term],
    shape: tuple[Dim, ...],
    src: Term,
    accumulate: bool,
) -> Term | None:
    """index_put by places, of this shape together, in the first dimensions."""
    if accumulate and (axes := _separate_axes(places, len(shape))):
        return _added_by_dim(x, places, axes, src)
    count = len(places)
    sizes, rest = x.shape[:count], x.shape[count:]
    lines = x.reshape((product(sizes), product(rest)))
    flat = _flat_index(places, sizes).broadcast(shape)
    index, src = _along(lines, 0, flat, src.reshape((product(shape), product(rest))))
    made = scattered(lines, 0, index, src, "sum" if accumulate else "last")
    return None if made is None else made.reshape(x.shape)


def _flat_index(places: Sequence[Term], sizes: Sequence[Dim]) -> Term:
    """Places in row-major order.

    Each is checked by itself: together they could lie within, and one of them outside.
    """
    first, *others = map(_within, places, sizes)
    for place, size in zip(others, sizes[1:], strict=True):
        first = first * place.e.size(size) + place
    return first


def _separate_axes(places: Sequence[Term], rank: int) -> list[int] | None:
    """The one axis that each of several indices varies along; None if they share."""
    axes: list[int] = []
    for place in places:
        lead = rank - place.rank
        own = [lead + d for d, n in enumerate(place.shape) if n != 1]
        if len(own) != 1 or own[0] in axes:
            return None
        axes += own
    return axes if len(axes) == rank > 1 else None


def _added_by_dim(
    x: Term, places: Sequence[Term], axes: Sequence[int], src: Term
) -> Term | None:
    """A product of indices, as resampling has it: the source is summed dim by dim."""
    src = src.permute((*axes, *range(len(axes), src.rank))).wide()
    for dim, place in enumerate(places):
        shape = (*src.shape[:dim], x.shape[dim], *src.shape[dim + 1 :])
        zeros = x.e.full(0, shape, src.dtype)
        index, src = _along(zeros, dim, place, src)
        made = scattered(zeros, dim, index, src, "sum")
        if made is None:
            return None
        src = made.wide()
    return SUM.call(x.wide(), src)


def _in_front(
    values: Term, shape: tuple[Dim, ...], rest: Sequence[Dim], dims: Sequence[int]
) -> Term:
    """Values with the dimensions of the indices first: see `indexing.index_tensor`."""
    together = list(dims) == list(range(dims[0], dims[0] + len(dims)))
    at = dims[0] if together else 0
    whole = values.broadcast((*rest[:at], *shape, *rest[at:]))
    middle = range(at, at + len(shape))
    return whole.permute((*middle, *(d for d in range(whole.rank) if d not in middle)))


def _masked(
    x: Term, indices: Sequence[Term | None], values: Term, accumulate: bool
) -> Term | None:
    """One mask, and one value for all that it chooses."""
    (first, *others) = indices
    alone = first is not None and not any(index is not None for index in others)
    one = values.elements == 1
    if not alone or not one or first.dtype is not bool_:  # type: ignore[union-attr]
        return None
    assert first is not None
    mask = first.reshape((*first.shape, *(1,) * (x.rank - first.rank)))
    value = values.cast(x.dtype).reshape((1,) * x.rank)
    return where(mask, SUM.call(x, value) if accumulate else value, x)


@lowers("aten.index_fill.int_Scalar", "aten.index_fill.int_Tensor")
def index_fill(
    e: Emitter, x: Term, dim: int, index: Term, value: Operand
) -> Term | None:
    indices = (*(None for _ in range(x.wrap(dim))), index)
    made = index_put(e, ranked(x), indices, e.term(value, x.dtype))
    return None if made is None else made.reshape(x.shape)


@lowers("aten.put.default")
def put(
    e: Emitter, x: Term, index: Term, source: Term, accumulate: bool = False
) -> Term | None:
    """By the position in row-major order."""
    source = source.cast(x.dtype).reshape((index.elements,))
    made = index_put(e, x.flat(), [index.flat()], source, accumulate)
    return None if made is None else made.reshape(x.shape)


@lowers("aten.as_strided_scatter.default")
def as_strided_scatter(
    e: Emitter,
    x: Term,
    src: Term,
    size: Sequence[Dim],
    stride: Sequence[Dim],
    storage_offset: Dim | None = None,
) -> Term | None:
    """By the place in memory, where that is the place in x."""
    if not e.whole:
        return None
    return put(e, x, strided_places(e, size, stride, storage_offset or 0), src)


@lowers("aten.masked_scatter.default")
def masked_scatter(e: Emitter, x: Term, mask: Term, source: Term) -> Term | None:
    """Where the mask holds, the elements of the source, one after the other.

    How many there were up to a place is a scan.
    """
    if mask.dtype is not bool_:
        return None
    x, mask = x.broadcast(e.shape), mask.broadcast(e.shape)
    if x.elements == 0:
        return x
    ones = scan("sum", (mask.flat().cast(i64),), 0)[0].reshape(e.shape)
    enough = negate(mask) | (ones <= e.size(source.elements))
    mask = mask.checked(
        enough, "Number of elements of source < number of ones in mask", "RuntimeError"
    )
    if source.elements == 0:
        return where(mask, 0, x)
    place = where(mask & enough, ones - 1, 0)
    return where(mask, picked(source.flat(), {0: place}, 0), x)


@lowers("aten.embedding_renorm.default")
def embedding_renorm(
    e: Emitter, x: Term, indices: Term, max_norm: Number, norm_type: Number
) -> Term | None:
    """Rows that are named and longer than `max_norm` are shortened to it."""
    rows = e.full(False, (x.shape[0],), bool_)
    named = e.full(True, (indices.elements,), bool_)
    chosen = scattered(rows, 0, indices.flat(), named, "last")
    if chosen is None:
        return None
    norm = vector_norm(e, x, norm_type, 1, True)
    scale = where(norm > max_norm, max_norm / (norm + 1e-7), 1)
    return where(chosen.unsqueeze(1), x.wide() * scale, x.wide())


@lowers("aten.embedding_dense_backward.default")
def embedding_backward(
    e: Emitter,
    grad: Term,
    indices: Term,
    num_weights: Dim,
    padding_idx: int,
    scale_grad_by_freq: bool,
) -> Term | None:
    """The sum of what came to each row of the weight."""
    if scale_grad_by_freq:
        return None
    picks, width = indices.elements, grad.shape[-1]
    lines = grad.reshape((picks, width)).cast(
        f32 if grad.dtype.bits < 32 else grad.dtype
    )
    rows = indices.reshape((picks,)).cast(i64)
    kept = call(ops.Ne, rows, padding_idx).reshape((picks, 1))
    zeros = e.full(0, (num_weights, width), lines.dtype)
    if _is_updated(zeros, picks, num_weights * picks * width) and picks != 0:
        mask = kept if padding_idx >= 0 else None
        points = Points(lines, (-1, 1), (rows.reshape((picks, 1)),), mask)
        made = updated(zeros, points, "sum")
        if made is not None:
            return made
    index, src = _along(zeros, 0, rows, where(kept, lines, 0))
    return scattered(zeros, 0, index, src, "sum")
