"""Where the dimensions of a graph must be cut so that its reshapes become affine.

A reshape that splits 768 into (12, 64) is an affine index only if whoever computes
the 768 counts with two axes, 12·64. This analysis finds those cuts for a whole graph:

    %h: f32[5, 768]  --reshape-->  %s: f32[5, 12, 64]
    factors(%h)[1] == (12, 64)      and so for everything elementwise with %h

Dimensions that must agree (elementwise operands, permuted copies) form one class with
one extent and a set of cuts, each the size of what lies below it. A reshape carries
the cuts of one side over to the other until nothing changes. Cuts of a class that do
not divide one another cannot all hold; the later one is dropped, and the reshape that
wanted it becomes a computed index.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from fusec.ir.core import Function, Op, Value
from fusec.ir.dims import Dim, exact_div
from fusec.ir.ops.contraction import Matmul
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.reduction import ReduceDims
from fusec.ir.ops.view import Concat, Index, Permute, Reshape, Scatter
from fusec.ir.types import Tensor

Place = tuple[Value, int]
"""One dimension of one value."""


def factors(function: Function) -> Factors:
    """Cut the dimensions of every tensor of a graph function."""
    found = Factors()
    reshapes: list[Reshape] = []
    for op in function.body.ops:
        for a, b in _ties(op):
            found.tie(a, b)
        if isinstance(op, Reshape):
            reshapes.append(op)
        elif isinstance(op, Concat) and (part := even_part(op)) is not None:
            found.cut((op.result, op.dim), part)
    changed = True
    while changed:
        changed = sum(_carry(found, op) for op in reshapes) > 0
    return found


def even_part(op: Concat) -> Dim | None:
    """The extent of each operand of a concatenation, if all have the same."""
    extents = {x.shape[op.dim] for x in op.xs}
    part = next(iter(extents))
    return part if len(extents) == 1 < len(op.xs) and part not in (0, 1) else None


class Factors:
    """Classes of dimensions that are cut alike (union-find), and their cuts."""

    def __init__(self) -> None:
        self._parent: dict[Place, Place] = {}
        self._cuts: dict[Place, tuple[Dim, ...]] = {}

    def of(self, value: Value) -> tuple[tuple[Dim, ...], ...]:
        """Factors of each dimension, major to minor; they multiply to its extent."""
        return tuple(self.dimension(value, d) for d in range(len(_shape(value))))

    def dimension(self, value: Value, dim: int) -> tuple[Dim, ...]:
        """The factors of one dimension."""
        extent, cuts = _shape(value)[dim], self.cuts((value, dim))
        if not cuts:
            return (extent,)
        sizes = [extent, *reversed(cuts)]
        quotients = [exact_div(a, b) for a, b in pairwise(sizes)]
        return (*(q for q in quotients if q is not None), sizes[-1])

    def cuts(self, place: Place) -> tuple[Dim, ...]:
        """The cuts of a dimension, ascending, each dividing the next."""
        return self._cuts.get(self._find(place), ())

    def tie(self, a: Place, b: Place) -> None:
        """Two dimensions are to be cut alike."""
        root_a, root_b = self._find(a), self._find(b)
        if root_a == root_b:
            return
        self._parent[root_b] = root_a
        for cut in self._cuts.pop(root_b, ()):
            self.cut(a, cut)

    def cut(self, place: Place, size: Dim) -> bool:
        """Ask for a cut; whether it is new and possible. Nothing has no parts: every
        number divides it, and cuts would give rise to others without end."""
        root = self._find(place)
        held, extent = self._cuts.get(root, ()), _shape(place[0])[place[1]]
        if size in held or extent == 0:
            return False
        merged = _chain((*held, size), extent)
        if merged is None:
            return False
        self._cuts[root] = merged
        return True

    def _find(self, place: Place) -> Place:
        while (parent := self._parent.get(place, place)) != place:
            self._parent[place] = self._parent.get(parent, parent)
            place = parent
        return place


def _chain(cuts: tuple[Dim, ...], extent: Dim) -> tuple[Dim, ...] | None:
    """Cuts in an order in which each divides the next and the last the extent."""
    ordered: list[Dim] = []
    for cut in cuts:
        at = 0
        while at < len(ordered) and _divides(ordered[at], cut):
            at += 1
        ordered.insert(at, cut)
    whole = [*ordered, extent]
    fits = all(_divides(a, b) for a, b in pairwise(whole))
    return tuple(ordered) if fits and extent not in ordered else None


def _divides(a: Dim, b: Dim) -> bool:
    return exact_div(b, a) is not None


def _ties(op: Op) -> Iterator[tuple[Place, Place]]:
    """Dimensions of operands and results that one op walks in step."""
    if isinstance(op, Permute):
        for new, old in enumerate(op.order):
            yield (op.x, old), (op.result, new)
    elif isinstance(op, ReduceDims):
        yield from _reduce_ties(op)
    elif isinstance(op, Matmul):
        yield from _matmul_ties(op)
    elif isinstance(op, Scatter):
        for index in op.indices:
            yield from _equal_extents(op.src, index)
    elif not isinstance(op, (Reshape, Index, Extern)):
        for x in op.operands:
            for result in op.results:
                yield from _equal_extents(x, result)


def _reduce_ties(op: ReduceDims) -> Iterator[tuple[Place, Place]]:
    first = op.values[0]
    kept = [d for d in range(len(_shape(first))) if d not in op.dims]
    for value in op.values:
        for new, old in enumerate(kept):
            yield (value, old), (op.results[0], new)
        for dim in op.dims:
            yield (first, dim), (value, dim)
    for result in op.results[1:]:
        yield from _equal_extents(op.results[0], result)


def _matmul_ties(op: Matmul) -> Iterator[tuple[Place, Place]]:
    inner = len(op.x.shape) - 1
    rows, columns = inner - 1, inner
    for dim in range(rows):
        yield (op.x, dim), (op.y, dim)
        yield (op.x, dim), (op.result, dim)
    yield (op.x, rows), (op.result, rows)
    yield (op.y, columns), (op.result, columns)
    yield (op.x, inner), (op.y, rows)


def _equal_extents(x: Value, y: Value) -> Iterator[tuple[Place, Place]]:
    """Dimensions in the same position with the same extent, if the ranks agree."""
    if not isinstance(x.type, Tensor) or not isinstance(y.type, Tensor):
        return
    if len(x.shape) != len(y.shape):
        return
    for dim, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)):
        if a == b and a != 1:
            yield (x, dim), (y, dim)


def _carry(found: Factors, op: Reshape) -> bool:
    """Carry cuts across a reshape, both ways; whether anything changed."""
    changed = False
    for old, new in groups(_shape(op.x), op.shape):
        below_old = _boundaries(found, op.x, old)
        below_new = _boundaries(found, op.result, new)
        changed |= _cut_at(found, op.x, old, below_new)
        changed |= _cut_at(found, op.result, new, below_old)
    return changed


def groups(
    old: tuple[Dim, ...], new: tuple[Dim, ...]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Runs of dimensions with equal products, last first; extents of 1 left out.

    groups((5, 768), (5, 12, 64)) == [((1,), (1, 2)), ((0,), (0,))]
    """
    left = [d for d, n in enumerate(old) if n != 1]
    right = [d for d, n in enumerate(new) if n != 1]
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    while left and right:
        run_old, run_new = [left.pop()], [right.pop()]
        size_old, size_new = old[run_old[0]], new[run_new[0]]
        while size_old != size_new and (left or right):
            if left and (not right or not _divides(size_new, size_old)):
                run_old.append(left.pop())
                size_old = size_old * old[run_old[-1]]
            else:
                run_new.append(right.pop())
                size_new = size_new * new[run_new[-1]]
        found.append((tuple(reversed(run_old)), tuple(reversed(run_new))))
    return found


def _boundaries(found: Factors, value: Value, dims: tuple[int, ...]) -> list[Dim]:
    """The sizes of what lies below each cut and each dimension of a run."""
    sizes: list[Dim] = []
    below: Dim = 1
    for dim in reversed(dims):
        sizes.extend(below * cut for cut in found.cuts((value, dim)))
        below = below * _shape(value)[dim]
        sizes.append(below)
    return sizes[:-1]


def _cut_at(
    found: Factors, value: Value, dims: tuple[int, ...], sizes: list[Dim]
) -> bool:
    """Cut a run of dimensions where these sizes fall inside one of them."""
    changed = False
    below: Dim = 1
    for dim in reversed(dims):
        extent = _shape(value)[dim]
        for size in sizes:
            inner = exact_div(size, below)
            if inner is None or inner == 1 or inner == extent:
                continue
            if _divides(inner, extent):
                changed |= found.cut((value, dim), inner)
        below = below * extent
    return changed


def _shape(value: Value) -> tuple[Dim, ...]:
    assert isinstance(value.type, Tensor)
    return value.shape
