"""Views: other shapes and orders of the same elements.

Values of the graph level are functional, so a view is a copy in meaning; whether
elements move is decided far below. What no affine index expresses declines.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusec.frontend.aten.functions import clamped
from fusec.frontend.aten.indexing import picked
from fusec.frontend.aten.registry import lowers
from fusec.frontend.aten.term import Emitter, Operand, Term, call, where
from fusec.ir.dims import Dim, dim_max, dim_min, product
from fusec.ir.ops import elementwise as ops
from fusec.ir.ops.view import Pad


@lowers(
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.view_copy.default",
    "aten._reshape_copy.default",
)
def view(e: Emitter, x: Term, size: Sequence[Dim]) -> Term | None:
    """One size may be −1; the result's type says which it is."""
    return x.reshape(e.shape) if product(x.shape) == product(e.shape) else None


@lowers("aten.permute.default", "aten.permute_copy.default")
def permute(e: Emitter, x: Term, dims: Sequence[int]) -> Term:
    return x.permute(x.wrap(d) for d in dims)


@lowers("aten.t.default")
def t(e: Emitter, x: Term) -> Term:
    return x.permute(reversed(range(x.rank)))


@lowers("aten.transpose.int")
def transpose(e: Emitter, x: Term, dim0: int, dim1: int) -> Term:
    order = list(range(x.rank))
    if order:
        a, b = x.wrap(dim0), x.wrap(dim1)
        order[a], order[b] = order[b], order[a]
    return x.permute(order)


@lowers("aten.expand.default", "aten.expand_copy.default")
def expand(e: Emitter, x: Term, size: Sequence[Dim], *, implicit: bool = False) -> Term:
    return x.broadcast(e.shape)


@lowers(
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
)
def resize(e: Emitter, x: Term, dim: Sequence[int] | int = ()) -> Term:
    """Dimensions of extent 1 come and go."""
    return x.reshape(e.shape)


@lowers("aten.slice.Tensor", "aten.slice_copy.Tensor")
def slice_(
    e: Emitter,
    x: Term,
    dim: int = 0,
    start: Dim | None = None,
    end: Dim | None = None,
    step: int = 1,
) -> Term | None:
    dim = x.wrap(dim)
    first = _clamped(e, start or 0, x.shape[dim])
    return None if first is None else x.slice(dim, first, e.shape[dim], step)


def _clamped(e: Emitter, index: Dim, size: Dim) -> Dim | None:
    """An index as slicing reads it: from the end where negative, at most the size.

    None where its sign depends on the call.
    """
    low, high = e.facts.range(index)
    if high is not None and high < 0:
        return dim_max(index + size, 0)
    if low is None or low < 0:
        return None
    return index if e.facts.proves_le(index, size) else dim_min(index, size)


def _counted(e: Emitter, index: Dim, size: Dim) -> Dim | None:
    """An index that lies within, counted from 0; None as above."""
    low, high = e.facts.range(index)
    if high is not None and high < 0:
        return index + size
    return None if low is None or low < 0 else index


@lowers("aten.narrow_copy.default")
def narrow(e: Emitter, x: Term, dim: int, start: Dim, length: Dim) -> Term | None:
    return slice_(e, x, dim, start)


@lowers("aten.unfold.default", "aten.unfold_copy.default")
def unfold(e: Emitter, x: Term, dim: int, size: int, step: int) -> Term:
    """Windows along a dimension; what is in a window becomes the last one."""
    if x.rank == 0:
        return x.reshape(e.shape)
    dim = x.wrap(dim)
    shape = (e.shape[dim], size)
    places = e.iota(shape, 0) * step + e.iota(shape, 1)
    windows = picked(x, {dim: places}, dim)
    others = [d for d in range(windows.rank) if d != dim + 1]
    return windows.permute((*others, dim + 1))


@lowers("aten.as_strided.default", "aten.as_strided_copy.default")
def as_strided(
    e: Emitter,
    x: Term,
    size: Sequence[Dim],
    stride: Sequence[Dim],
    storage_offset: Dim | None = None,
) -> Term | None:
    """Elements by their place in memory, where that is their place in x."""
    if not e.whole:
        return None
    places = strided_places(e, size, stride, storage_offset or 0)
    return picked(x.flat(), {0: places}, 0)


def strided_places(
    e: Emitter, size: Sequence[Dim], stride: Sequence[Dim], offset: Dim
) -> Term:
    """Where in memory the elements of a tensor lie."""
    places = e.size(offset).broadcast(tuple(size))
    for dim, step in enumerate(stride):
        places = places + e.iota(size, dim) * e.size(step)
    return places


@lowers("aten.select.int", "aten.select_copy.int")
def select(e: Emitter, x: Term, dim: int, index: Dim) -> Term | None:
    dim = x.wrap(dim)
    place = _counted(e, index, x.shape[dim])
    return None if place is None else x.slice(dim, place, 1).reshape(e.shape)


@lowers("aten.flip.default")
def flip(e: Emitter, x: Term, dims: Sequence[int]) -> Term:
    if x.rank == 0:
        return x
    for dim in {x.wrap(d) for d in dims}:
        size = x.shape[dim]
        x = x.slice(dim, dim_max(size - 1, 0), size, -1)
    return x


@lowers("aten.roll.default")
def roll(e: Emitter, x: Term, shifts: Sequence[Dim], dims: Sequence[int] = ()) -> Term:
    """The last elements first; without `dims`, of all elements in their order."""
    if not dims:
        return roll(e, x.flat(), shifts, (0,)).reshape(x.shape)
    for shift, dim in zip(shifts, map(x.wrap, dims), strict=True):
        size = x.shape[dim]
        start = -shift % dim_max(size, 1)
        parts = x.slice(dim, start, size - start), x.slice(dim, 0, start)
        x = x if start == 0 else e.concat(parts, dim)
    return x


@lowers("aten.cat.default")
def cat(e: Emitter, tensors: Sequence[Term], dim: int = 0) -> Term:
    """Of mixed dtypes, promoted; torch lets a tensor of shape [0] join any others."""
    if len(e.shape) > 1:
        tensors = [x for x in tensors if x.shape != (0,)]
    return e.concat([x.cast(e.dtype) for x in tensors], dim % len(e.shape))


@lowers("aten.stack.default")
def stack(e: Emitter, tensors: Sequence[Term], dim: int = 0) -> Term:
    dim = dim % len(e.shape)
    return e.concat([x.cast(e.dtype).unsqueeze(dim) for x in tensors], dim)


@lowers("aten.split_with_sizes.default")
def split_with_sizes(
    e: Emitter, x: Term, split_sizes: Sequence[Dim], dim: int = 0
) -> tuple[Term, ...]:
    dim = x.wrap(dim)
    parts: list[Term] = []
    start: Dim = 0
    for length in split_sizes:
        parts.append(x.slice(dim, start, length))
        start = start + length
    return tuple(parts)


@lowers("aten.split.Tensor")
def split(e: Emitter, x: Term, split_size: Dim, dim: int = 0) -> tuple[Term, ...]:
    lengths = [result.shape[x.wrap(dim)] for result in e.results]
    return split_with_sizes(e, x, lengths, dim)


@lowers("aten.unbind.int", "aten.unbind_copy.int")
def unbind(e: Emitter, x: Term, dim: int = 0) -> tuple[Term, ...]:
    dim = x.wrap(dim)
    return tuple(
        x.slice(dim, k, 1).reshape(result.shape) for k, result in enumerate(e.results)
    )


@lowers("aten.constant_pad_nd.default")
def constant_pad(e: Emitter, x: Term, pad: Sequence[Dim], value: Operand = 0) -> Term:
    """`pad` lists (low, high) from the last dimension on; negative ones crop."""
    low: list[Dim] = [0] * x.rank
    high: list[Dim] = [0] * x.rank
    for k in range(len(pad) // 2):
        dim = x.rank - 1 - k
        x, low[dim] = _cropped(e, x, dim, pad[2 * k], front=True)
        x, high[dim] = _cropped(e, x, dim, pad[2 * k + 1], front=False)
    fill = e.term(value, x.dtype).value
    return Term(e, e.b(Pad, x.value, fill, low=tuple(low), high=tuple(high)))


def _cropped(
    e: Emitter, x: Term, dim: int, pad: Dim, *, front: bool
) -> tuple[Term, Dim]:
    """x without what a negative `pad` takes away, and what is left to add."""
    if not isinstance(pad, int) or pad >= 0:
        return x, pad
    length = x.shape[dim] + pad
    return x.slice(dim, -pad if front else 0, length), 0


@lowers(
    "aten.replication_pad1d_backward.default",
    "aten.replication_pad2d_backward.default",
    "aten.replication_pad3d_backward.default",
)
def replication_pad_backward(
    e: Emitter, grad: Term, x: Term, padding: Sequence[int]
) -> Term:
    """What came to the copies of an edge is added to the edge."""
    for k in range(len(padding) // 2):
        low, high = padding[2 * k : 2 * k + 2]
        grad = _folded(grad, x.rank - 1 - k, low, high)
    return grad


def _folded(grad: Term, dim: int, low: int, high: int) -> Term:
    e, size = grad.e, grad.shape[dim]
    bounds = [0] * grad.rank, [0] * grad.rank
    bounds[0][dim], bounds[1][dim] = max(-low, 0), max(-high, 0)
    middle = grad.slice(dim, max(low, 0), size - max(low, 0) - max(high, 0))
    zero = e.const(0, grad.dtype).value
    low_pads, high_pads = map(tuple, bounds)
    result = Term(e, e.b(Pad, middle.value, zero, low=low_pads, high=high_pads))
    place, last = e.iota(result.shape, dim), e.size(result.shape[dim]) - 1
    for pad, start, edge in ((low, 0, place.equals(0)), (high, -1, place.equals(last))):
        if pad > 0:
            first = size - pad if start else 0
            extra = grad.slice(dim, first, pad).wide().reduce("sum", (dim,), True)
            result = where(edge, result.wide() + extra, result.wide())
    return result


@lowers("aten.repeat.default")
def repeat(e: Emitter, x: Term, repeats: Sequence[Dim]) -> Term:
    """Each dimension n becomes [times, n], and the two are merged."""
    shape = (1,) * (len(repeats) - x.rank) + x.shape
    split = [n for size in shape for n in (1, size)]
    wide = [n for pair in zip(repeats, shape, strict=True) for n in pair]
    return x.reshape(split).broadcast(tuple(wide)).reshape(e.shape)


@lowers("aten.diagonal.default", "aten.diagonal_copy.default")
def diagonal(
    e: Emitter, x: Term, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Term | None:
    """The two dimensions merged, every (n + 1)-th element of them."""
    rows, columns = x.wrap(dim1), x.wrap(dim2)
    m, n, length = x.shape[rows], x.shape[columns], e.shape[-1]
    if length == 0:
        return e.full(0, e.shape, x.dtype)
    if not isinstance(n, int):
        return None
    others = [d for d in range(x.rank) if d not in (rows, columns)]
    flat = x.permute((*others, rows, columns)).reshape((*e.shape[:-1], m * n))
    start = offset if offset >= 0 else -offset * n
    return flat.slice(flat.rank - 1, start, length, n + 1)


@lowers("aten.slice_scatter.default")
def slice_scatter(
    e: Emitter,
    x: Term,
    src: Term,
    dim: int = 0,
    start: Dim | None = None,
    end: Dim | None = None,
    step: int = 1,
) -> Term | None:
    """x before the slice, the source, x after it; or every `step`-th of the source."""
    dim = x.wrap(dim)
    first = _clamped(e, start or 0, x.shape[dim])
    if first is None or src.shape[dim] == 0:
        return None if first is None else x
    if step != 1:
        return _interleaved(e, x, src.cast(x.dtype), dim, first, step)
    return _spliced(e, x, src, dim, first)


@lowers("aten.select_scatter.default")
def select_scatter(e: Emitter, x: Term, src: Term, dim: int, index: Dim) -> Term | None:
    dim = x.wrap(dim)
    place = _counted(e, index, x.shape[dim])
    return None if place is None else _spliced(e, x, src.unsqueeze(dim), dim, place)


def _spliced(e: Emitter, x: Term, src: Term, dim: int, start: Dim) -> Term:
    src = src.cast(x.dtype)
    src = src.broadcast((*x.shape[:dim], src.shape[dim], *x.shape[dim + 1 :]))
    after = start + src.shape[dim]
    parts = [
        x.slice(dim, 0, start),
        src,
        x.slice(dim, after, x.shape[dim] - after),
    ]
    return e.concat([p for p in parts if p.shape[dim] != 0] or parts[:1], dim)


def _interleaved(
    e: Emitter, x: Term, src: Term, dim: int, start: Dim, step: int
) -> Term:
    distance = e.iota((x.shape[dim],), 0) - start
    place = call(ops.FloorDiv, distance, step)
    last = e.size(src.shape[dim]) - 1
    hit = (place * step).equals(distance) & (place >= 0) & (place <= last)
    spread = picked(src, {dim: clamped(place, 0, last)}, dim)
    line = tuple(n if d == dim else 1 for d, n in enumerate(x.shape))
    return where(hit.reshape(line), spread, x)


@lowers("aten.diagonal_scatter.default")
def diagonal_scatter(
    e: Emitter, x: Term, src: Term, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Term:
    """The source by its row, where column − row is the offset."""
    rows, columns = x.wrap(dim1), x.wrap(dim2)
    length = src.shape[-1]
    if length == 0:
        return x
    low = max(-offset, 0)
    high = x.shape[rows] - length - low
    fill = e.const(0, x.dtype).value
    padded = e.b(
        Pad,
        src.cast(x.dtype).value,
        fill,
        low=(0,) * (src.rank - 1) + (low,),
        high=(0,) * (src.rank - 1) + (high,),
    )
    line = Term(e, padded).unsqueeze(src.rank)
    others = iter(range(src.rank - 1))
    places = {rows: src.rank - 1, columns: src.rank}
    order = [places[d] if d in places else next(others) for d in range(x.rank)]
    spread = line.permute(order)
    place = e.iota(x.shape, columns) - e.iota(x.shape, rows)
    return where(place.equals(offset), spread, x)


@lowers("aten.tril.default")
def tril(e: Emitter, x: Term, diagonal: Dim = 0) -> Term:
    return where(_column_minus_row(e, x) <= diagonal, x, 0)


@lowers("aten.triu.default")
def triu(e: Emitter, x: Term, diagonal: Dim = 0) -> Term:
    return where(_column_minus_row(e, x) >= diagonal, x, 0)


def _column_minus_row(e: Emitter, x: Term) -> Term:
    plane = x.shape[-2:]
    return e.iota(plane, 1) - e.iota(plane, 0)
