"""Random graphs: every stage of the compiler has to give them the same meaning.

Numbers are small integers, also in floating point, and ops keep them so: reductions
may then be reassociated at will and results still compare exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level, Value
from fusec.ir.dtypes import DType, bool_, f32, i64
from fusec.ir.monoids import monoid
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.elementwise import (
    Abs,
    Add,
    And,
    Eq,
    Lt,
    Maximum,
    Minimum,
    Mul,
    Neg,
    Not,
    Select,
    Sub,
)
from fusec.ir.ops.reduction import ReduceDims
from fusec.ir.ops.view import (
    Broadcast,
    Concat,
    Gather,
    Index,
    Iota,
    Pad,
    Permute,
    Reshape,
    Restride,
    Scatter,
    Slice,
)
from fusec.ir.types import Tensor

EXTENTS = st.sampled_from([1, 2, 3, 4, 5, 6, 12, 17, 70])


@dataclass
class Graph:
    """A graph under construction, and what there is to build on."""

    draw: Any
    builder: Builder = field(default_factory=lambda: Builder(Level.GRAPH))
    pool: list[Value] = field(default_factory=list)

    def pick(self, *dtypes: DType) -> Value:
        wanted = dtypes or (f32, i64, bool_)
        fitting = [v for v in self.pool if v.type.dtype in wanted]
        return self.draw(st.sampled_from(fitting))

    def alike(self, x: Value) -> Value:
        """A value of the same dtype and shape as another."""
        same = [v for v in self.pool if v.type == x.type]
        return self.draw(st.sampled_from(same))

    def bounded(self, x: Value) -> Value:
        """A float kept small, so that products stay exact."""
        b = self.builder
        low, high = b.const(-64.0, f32), b.const(64.0, f32)
        return b(Minimum, b(Maximum, x, low), high)


@st.composite
def graphs(draw: Any, size: int = 8) -> Function:
    """A graph of up to `size` ops over tensors of rank 0 to 4."""
    g = Graph(draw)
    for k in range(draw(st.integers(1, 3))):
        shape = tuple(draw(st.lists(EXTENTS, min_size=0, max_size=3)))
        g.pool.append(g.builder.param(Tensor(f32, shape), f"x{k}"))
    for _ in range(draw(st.integers(1, size))):
        made = draw(st.sampled_from(STEPS))(g)
        if made is not None and np.prod(made.type.shape) <= 20_000:
            g.pool.append(made)
    results = [v for v in g.pool if g.builder.definition(v) is not None] or g.pool
    count = min(len(results), draw(st.integers(1, 3)))
    chosen = [results[-1], *results[: count - 1]]
    copies = [_result(g, v) for v in dict.fromkeys(chosen)]
    return g.builder.function("random", copies)


def _result(g: Graph, value: Value) -> Value:
    """Parameters are not results; a copy of one is."""
    if g.builder.definition(value) is not None:
        return value
    return g.builder(Abs, value)


def arguments(draw: Any, function: Function) -> list[np.ndarray]:
    """Arrays of small integers for the parameters."""
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    return [
        random.integers(-8, 9, p.type.shape).astype(p.type.dtype.carrier)
        for p in function.params
    ]


def unary(g: Graph) -> Value:
    x = g.pick(f32)
    return g.builder(g.draw(st.sampled_from([Neg, Abs])), x)


def binary(g: Graph) -> Value:
    x = g.pick(f32)
    op = g.draw(st.sampled_from([Add, Sub, Mul, Maximum, Minimum]))
    return g.bounded(g.builder(op, x, g.alike(x)))


def select(g: Graph) -> Value:
    x = g.pick(f32)
    y = g.alike(x)
    return g.builder(Select, g.builder(Lt, x, y), y, g.builder(Neg, x))


def logic(g: Graph) -> Value:
    x = g.pick(f32)
    y = g.alike(x)
    b = g.builder
    mask = b(And, b(Eq, x, y), b(Not, b(Lt, x, y)))
    return b(Cast, mask, dtype=f32)


def with_iota(g: Graph) -> Value | None:
    x = g.pick(f32)
    shape = x.type.shape
    if not shape:
        return None
    dim = g.draw(st.integers(0, len(shape) - 1))
    iota = g.builder(Iota, shape=shape, dim=dim)
    return g.bounded(g.builder(Add, x, g.builder(Cast, iota, dtype=f32)))


def reshape(g: Graph) -> Value:
    x = g.pick(f32)
    size = int(np.prod(x.type.shape))
    return g.builder(Reshape, x, shape=g.draw(factorisations(size)))


@st.composite
def factorisations(draw: Any, size: int) -> tuple[int, ...]:
    shape: list[int] = []
    while size > 1 and len(shape) < 3:
        factor = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
        shape.append(factor)
        size //= factor
    return (*shape, size)


def permute(g: Graph) -> Value:
    x = g.pick(f32)
    order = tuple(g.draw(st.permutations(range(len(x.type.shape)))))
    return g.builder(Permute, x, order=order)


def broadcast(g: Graph) -> Value:
    x = g.pick(f32)
    extents = [n if n != 1 else g.draw(EXTENTS) for n in x.type.shape]
    return g.builder(Broadcast, x, shape=tuple(extents))


def slice_(g: Graph) -> Value | None:
    x = g.pick(f32)
    if not x.type.shape:
        return None
    dim = g.draw(st.integers(0, len(x.type.shape) - 1))
    extent = x.type.shape[dim]
    if g.draw(st.booleans()):
        return g.builder(Slice, x, dim=dim, start=extent - 1, length=extent, step=-1)
    start = g.draw(st.integers(0, extent - 1))
    step = g.draw(st.integers(1, 3))
    length = g.draw(st.integers(1, (extent - start + step - 1) // step))
    return g.builder(Slice, x, dim=dim, start=start, length=length, step=step)


def pad(g: Graph) -> Value | None:
    x = g.pick(f32)
    amounts = st.tuples(*[st.integers(0, 2) for _ in x.type.shape])
    value = g.builder.const(3.0, f32)
    if not x.type.shape:
        return None
    return g.builder(Pad, x, value, low=g.draw(amounts), high=g.draw(amounts))


def concat(g: Graph) -> Value | None:
    x = g.pick(f32)
    if not x.type.shape:
        return None
    dim = g.draw(st.integers(0, len(x.type.shape) - 1))
    return g.builder(Concat, x, g.alike(x), g.builder(Neg, x), dim=dim)


def reduce_(g: Graph) -> Value | None:
    x = g.pick(f32)
    if not x.type.shape:
        return None
    rank = len(x.type.shape)
    dims = g.draw(st.sets(st.integers(0, rank - 1), min_size=1))
    name = g.draw(st.sampled_from(["sum", "max", "min"]))
    made = g.builder(ReduceDims, x, dims=tuple(sorted(dims)), monoid=monoid(name, f32))
    return g.bounded(made)


def centred(g: Graph) -> Value | None:
    """x less a statistic of its rows: what norms and softmax are made of."""
    x = g.pick(f32)
    if not x.type.shape:
        return None
    shape, last = x.type.shape, len(x.type.shape) - 1
    b = g.builder
    name = g.draw(st.sampled_from(["sum", "max"]))
    row = b(ReduceDims, x, dims=(last,), monoid=monoid(name, f32))
    wide = b(Broadcast, b(Reshape, row, shape=(*shape[:-1], 1)), shape=shape)
    return g.bounded(b(Sub, x, wide))


def argmax(g: Graph) -> Value | None:
    x = g.pick(f32)
    if not x.type.shape:
        return None
    dim = len(x.type.shape) - 1
    iota = g.builder(Iota, shape=x.type.shape, dim=dim)
    name = g.draw(st.sampled_from(["argmax", "argmin"]))
    m = monoid(name, f32)
    _, index = g.builder.emit(ReduceDims, (x, iota), ((dim,), m))
    return g.builder(Cast, index, dtype=f32)


def index_of(g: Graph, x: Value, shape: tuple[int, ...], extent: int) -> Value:
    """Indices below an extent, made from values."""
    b = g.builder
    small = b(Minimum, b(Abs, x), b.const(float(extent - 1), f32))
    index = b(Cast, small, dtype=i64)
    return index if index.type.shape == shape else b(Reshape, index, shape=shape)


def gather(g: Graph) -> Value | None:
    x = g.pick(f32)
    if not x.type.shape:
        return None
    dim = g.draw(st.integers(0, len(x.type.shape) - 1))
    index = index_of(g, g.alike(x), x.type.shape, x.type.shape[dim])
    return g.builder(Gather, x, index, dim=dim)


def take(g: Graph) -> Value | None:
    x, other = g.pick(f32), g.pick(f32)
    if not x.type.shape:
        return None
    dim = g.draw(st.integers(0, len(x.type.shape) - 1))
    index = index_of(g, other, other.type.shape, x.type.shape[dim])
    return g.builder(Index, x, index, dims=(dim,), at=dim)


def scatter(g: Graph) -> Value | None:
    """Elements combined in ways whose result no order changes."""
    x, src = g.pick(f32), g.pick(f32)
    if not src.type.shape:
        return None
    b, shape = g.builder, src.type.shape
    free, places, indices = list(range(len(shape))), [], []
    for n in x.type.shape:
        fitting = [d for d in free if shape[d] <= n]
        if fitting and g.draw(st.booleans()):
            places.append(g.draw(st.sampled_from(fitting)))
            free.remove(places[-1])
            continue
        places.append(-1 - len(indices))
        indices.append(index_of(g, g.alike(src), shape, n))
    masked = g.draw(st.booleans())
    mask = [b(Lt, g.alike(src), src)] if masked else []
    way = g.draw(st.sampled_from(["sum", "max", "min", "one"]))
    if way == "one":
        src = b(Broadcast, b.const(2.0, f32), shape=shape)
    dtype = i64 if way in ("max", "min") else f32
    operands = (b(Cast, x, dtype=dtype), b(Cast, src, dtype=dtype), *indices, *mask)
    attrs = (tuple(places), way, masked)
    (made,) = b.emit(Scatter, operands, attrs)
    return g.bounded(b(Cast, made, dtype=f32))


def restride(g: Graph) -> Value | None:
    x = g.pick(f32)
    if len(x.type.shape) != 2:
        return None
    return g.builder(Restride, x, strides=(1, x.type.shape[0]))


STEPS: Sequence[Any] = (
    unary,
    binary,
    binary,
    select,
    logic,
    with_iota,
    reshape,
    reshape,
    permute,
    broadcast,
    slice_,
    pad,
    concat,
    reduce_,
    reduce_,
    centred,
    argmax,
    gather,
    take,
    scatter,
    restride,
)
