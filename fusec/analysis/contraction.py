"""Sums of products: what a contraction is made of, wherever it came from.

    %p = mul %x, %y            %x: f32{b, i, k}   %y: f32{b, k, j}
    %s = reduce %p over k      batch b, rows i, columns j, summed k

A region that has such sums is a product of matrices, with anything computed before and
after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fusec.analysis.accesses import Accesses
from fusec.analysis.roles import Axes, reductions, roles
from fusec.ir.core import Op, Value
from fusec.ir.dtypes import DType
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.reduction import Reduce, Scan
from fusec.ir.products import summed_products
from fusec.ir.types import Axis


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
    along: Axis | None
    """The last of the rows or of the columns, if reductions combine the result along it
    and a program has all of it."""
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
    """The contraction of a region, if it has one: products, and reductions that have a
    role beside them (see `roles`)."""
    body = accesses.region.body
    if any(isinstance(op, Scan) for op in body.ops):
        return None
    muls = summed_products(body)
    reduces = [op for op in body.ops if isinstance(op, Reduce)]
    found = {
        op: each.placed(accesses.merged)
        for op, each in reductions(reduces, muls).items()
    }
    beside = roles(found.values())
    if beside is None:
        return None
    products: list[Product] = []
    first = next(each for each in found.values() if each.is_product)
    for op, each in found.items():
        if each.is_product:
            product = Product(op, muls[op], *muls[op].operands)
            products.append(product if each.rows == first.rows else product.turned())
    if len({product.sum.results[0].dtype for product in products}) > 1:
        return None

    def ordered(axes: Axes) -> tuple[Axis, ...]:
        """Axes from the outermost, the one that a program has all of the last."""
        inside = [axis for axis in accesses.axes if axis in axes]
        return tuple(sorted(inside, key=lambda axis: axis is beside.along))

    made = {value: op for op in body.ops for value in op.results}
    narrow: dict[Value, Value] = {}
    for value in (v for product in products for v in product.factors):
        op = made.get(value)
        narrow[value] = op.operands[0] if isinstance(op, Cast) else value
    rows, columns, summed = map(ordered, (first.rows, first.columns, beside.summed))
    return Contraction(tuple(products), rows, columns, summed, beside.along, narrow)
