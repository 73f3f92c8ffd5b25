"""Sums of products: what a contraction is made of, wherever it came from.

    %p = mul %x, %y            %x: f32{b, i, k}   %y: f32{b, k, j}
    %s = reduce %p over k      batch b, rows i, columns j, summed k

A region that has one such sum and no other reduction is a product of matrices, with
anything computed before and after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fusec.analysis.accesses import Accesses
from fusec.analysis.affine import axes_of
from fusec.ir.core import Op, Value
from fusec.ir.dims import Dim
from fusec.ir.dtypes import DType
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.reduction import Reduce, Scan
from fusec.ir.products import summed_products
from fusec.ir.types import Axis, Points

OWNED = 1040
"""Places of the longest rows of a result that a program may have: so many sums of a few
dozen rows fit the second-level cache."""


@dataclass(frozen=True, slots=True)
class Product:
    """A sum of products x·y."""

    sum: Reduce
    mul: Op
    x: Value
    """The factor that has the rows."""
    y: Value
    """The factor that has the columns."""

    def turned(self) -> Product:
        """The same with rows for columns."""
        return Product(self.sum, self.mul, self.y, self.x)

    @property
    def factors(self) -> tuple[Value, Value]:
        return self.x, self.y


@dataclass(frozen=True, slots=True)
class Contraction:
    """Sums of products over one set of axes, told apart by which factor has them."""

    products: tuple[Product, ...]
    rows: tuple[Axis, ...]
    """Axes of x alone."""
    columns: tuple[Axis, ...]
    """Axes of y alone."""
    summed: tuple[Axis, ...]
    narrow: Mapping[Value, Value]
    """What each factor is a cast of; itself if it is none."""

    @property
    def dtype(self) -> DType:
        """What it is computed in."""
        return self.products[0].sum.results[0].dtype

    @property
    def xs(self) -> tuple[Value, ...]:
        """The factors that have the rows, each once."""
        return tuple(dict.fromkeys(each.x for each in self.products))

    @property
    def ys(self) -> tuple[Value, ...]:
        """The factors that have the columns, each once."""
        return tuple(dict.fromkeys(each.y for each in self.products))

    def turned(self) -> Contraction:
        """The same with rows for columns."""
        products = tuple(product.turned() for product in self.products)
        return replace(self, products=products, rows=self.columns, columns=self.rows)


def contraction(accesses: Accesses) -> Contraction | None:
    """The contraction of a region, if it has one: sums of products in which both
    factors have an axis of their own, so that each element is used often.

    What else is reduced are statistics: of a factor's rows before the product, or of
    the rows of the result, which are few enough to have a program own them whole.
    """
    body = accesses.region.body
    muls = summed_products(body)
    found: list[Product] = []
    others: list[Reduce] = []
    shared: _Axes | None = None
    for op in body.ops:
        if isinstance(op, Scan):
            return None
        if not isinstance(op, Reduce):
            continue
        product = Product(op, muls[op], *muls[op].operands) if op in muls else None
        axes = _axes(accesses, product) if product else None
        if product is None or axes is None:
            others.append(op)
            continue
        shared = shared or axes
        if axes != shared:
            product, axes = product.turned(), (axes[1], axes[0], axes[2])
        if axes != shared:
            return None
        found.append(product)
    if shared is None or len({product.sum.results[0].dtype for product in found}) > 1:
        return None
    ends = [op for op in others if not _of_rows(accesses, op, shared)]
    shared = _owned(accesses, ends, shared)
    if shared is None:
        return None
    made = {value: op for op in body.ops for value in op.results}
    narrow: dict[Value, Value] = {}
    for value in (v for product in found for v in product.factors):
        op = made.get(value)
        narrow[value] = op.operands[0] if isinstance(op, Cast) else value
    return Contraction(tuple(found), *shared, narrow)


def _of_rows(accesses: Accesses, op: Reduce, axes: _Axes) -> bool:
    """Whether a reduction combines what one factor has along what is summed over."""
    rows, columns, summed = axes
    own = {a for v in op.operands for a in accesses.merged(axes_of(v))}
    apart = own.isdisjoint(columns) or own.isdisjoint(rows)
    return apart and set(accesses.merged(op.axes)) == {*summed}


def _owned(accesses: Accesses, ends: list[Reduce], axes: _Axes) -> _Axes | None:
    """The axes of a product behind which all reductions combine the result along one of
    its axes, which becomes the last of its kind: a program has all of it."""
    rows, columns, summed = axes
    values = {v for op in ends for v in op.operands}
    own = {a for v in values for a in accesses.merged(axes_of(v))}
    along = {a for op in ends for a in accesses.merged(op.axes)}
    if not along:
        return None if ends else axes
    if len(along) > 1 or not own.isdisjoint(summed):
        return None
    (last,) = along
    if last not in (*rows, *columns) or not is_owned(last.extent):
        return None

    def ordered(parts: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(sorted(parts, key=lambda axis: axis is last))

    return ordered(rows), ordered(columns), summed


def is_owned(extent: Dim) -> bool:
    """Whether a program may have all of an axis of a product's result."""
    return isinstance(extent, int) and extent <= OWNED


_Axes = tuple[tuple[Axis, ...], tuple[Axis, ...], tuple[Axis, ...]]


def _axes(accesses: Accesses, product: Product) -> _Axes | None:
    """Rows, columns and what is summed over, where there are all three."""
    x, y = product.x, product.y
    if not isinstance(x.type, Points) or not isinstance(y.type, Points):
        return None
    ours, theirs = (accesses.merged(axes_of(value)) for value in (x, y))
    summed = accesses.merged(product.sum.axes)
    if not summed or not {*summed} <= {*ours} & {*theirs}:
        return None
    axes = [axis for axis in accesses.axes if axis.extent != 1]
    rows = tuple(a for a in axes if a in ours and a not in theirs)
    columns = tuple(a for a in axes if a in theirs and a not in ours)
    inner = tuple(a for a in accesses.axes if a in summed)
    return (rows, columns, inner) if rows and columns else None
