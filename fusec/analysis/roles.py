"""Which part every reduction of a kernel has where products of matrices are summed up.

    s[i, j] = Σk x[i, k]·y[k, j]     a product: both factors have an axis of their own
    q[i]    = Σk x[i, k]²            a statistic of a factor, along what is summed up
    m[i]    = Σj s[i, j]             a statistic of the result, all of whose j a program
                                     has

A kernel of products has these and no others. Fusion asks it of the regions of a group,
and the schedule of the one region that they became: both tell their reductions in the
same terms, so that what is fused for its products is scheduled as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fusec.analysis.affine import axes_of
from fusec.ir.ops.elementwise import Mul
from fusec.ir.ops.reduction import Reduce
from fusec.ir.types import Axis

Axes = frozenset[Axis]


@dataclass(frozen=True, slots=True)
class Reduction:
    """What a reduction combines, whatever it is."""

    over: Axes
    """The axes that it combines along."""
    space: Axes
    """All axes of what it combines."""
    x: Axes = frozenset()
    """The axes of one factor, where it sums up products, as `y` are the other's."""
    y: Axes = frozenset()

    @property
    def rows(self) -> Axes:
        """The axes that the first factor has alone."""
        return frozenset(axis for axis in self.x - self.y if axis.extent != 1)

    @property
    def columns(self) -> Axes:
        """The axes that the second one has alone."""
        return frozenset(axis for axis in self.y - self.x if axis.extent != 1)

    @property
    def sides(self) -> frozenset[Axes]:
        """Rows and columns, whichever is which."""
        return frozenset((self.rows, self.columns))

    @property
    def is_product(self) -> bool:
        """Whether both factors have an axis of their own, so that each element is used
        often, and what is summed up in common."""
        both = self.over <= self.x & self.y
        return bool(both and self.over and self.rows and self.columns)

    def placed(self, place: Callable[[Axes], Iterable[Axis]]) -> Reduction:
        """The same where its axes are others."""
        sets = (self.over, self.space, self.x, self.y)
        return Reduction(*(frozenset(place(axes)) for axes in sets))


@dataclass(frozen=True, slots=True)
class Roles:
    """The axes of a kernel of products, by what they are to them."""

    summed: Axes
    sides: frozenset[Axes]
    along: Axis | None
    """The axis of the result that statistics of it are along, if there are such."""


def reductions(
    found: Iterable[Reduce], products: Mapping[Reduce, Mul]
) -> dict[Reduce, Reduction]:
    """What reductions combine; `products` are those of them that sum up products."""
    return {op: _reduction(op, products.get(op)) for op in found}


def _reduction(op: Reduce, product: Mul | None) -> Reduction:
    over = frozenset(op.axes)
    space = over.union(*map(axes_of, op.operands))
    factors = product.operands if product is not None else ()
    return Reduction(over, space, *(frozenset(axes_of(v)) for v in factors))


OWNED = 1040
"""Places of the longest rows of a result that a program may have: so many sums of a few
dozen rows fit the second-level cache."""


def roles(found: Iterable[Reduction], owned: int = OWNED) -> Roles | None:
    """The roles of reductions that share a kernel; None where there is no product, or
    one of them has no role beside it. A program may have all of an axis of the result
    that has at most `owned` places."""
    products: list[Reduction] = []
    others: list[Reduction] = []
    for each in found:
        (products if each.is_product else others).append(each)
    kinds = {(each.over, each.sides) for each in products}
    if len(kinds) != 1:
        return None
    ((summed, sides),) = kinds
    ends = [each for each in others if not _is_of_a_factor(each, summed, sides)]
    if not ends:
        return Roles(summed, sides, None)
    along = frozenset[Axis]().union(*(each.over for each in ends))
    space = along.union(*(each.space for each in ends))
    if len(along) != 1 or not space.isdisjoint(summed):
        return None
    (axis,) = along
    of_result = any(axis in side for side in sides)
    fits = isinstance(axis.extent, int) and axis.extent <= owned
    return Roles(summed, sides, axis) if of_result and fits else None


def _is_of_a_factor(each: Reduction, summed: Axes, sides: frozenset[Axes]) -> bool:
    """Whether it combines what one factor has, along what is summed up."""
    return each.over == summed and any(each.space.isdisjoint(side) for side in sides)
