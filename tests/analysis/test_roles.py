"""Roles of reductions beside products: what fusion grants, schedules must know."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from texts import ops, read

from fusec.analysis.accesses import accesses
from fusec.analysis.contraction import contraction
from fusec.analysis.regions import summarise
from fusec.analysis.roles import OWNED, Reduction, Roles, roles
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level, Value
from fusec.ir.dtypes import f32
from fusec.ir.monoids import monoid
from fusec.ir.ops.contraction import Matmul
from fusec.ir.ops.elementwise import Maximum, Mul, Neg
from fusec.ir.ops.loop import Region
from fusec.ir.ops.reduction import ReduceDims
from fusec.ir.ops.view import Broadcast, Permute, Reshape
from fusec.ir.types import Axis, Tensor
from fusec.passes.fuse import fuse
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.target import X86_64_V3

N = 6
ROW, COLUMN, SUM = Axis("i", 60), Axis("j", 70), Axis("k", 80)
LONG = Axis("j", OWNED + 1)


def product(rows: Axis = ROW, columns: Axis = COLUMN, summed: Axis = SUM) -> Reduction:
    x, y = frozenset((rows, summed)), frozenset((summed, columns))
    return Reduction(frozenset((summed,)), x | y, x, y)


def over(axis: Axis, *others: Axis) -> Reduction:
    return Reduction(frozenset((axis,)), frozenset((axis, *others)))


def along(*found: Reduction) -> Axis | None:
    """What the result is reduced along, of reductions that have roles."""
    told = roles(found)
    assert told is not None
    assert told.summed == {SUM}
    return told.along


def test_a_product_alone_and_with_statistics() -> None:
    assert along(product()) is None
    assert along(product(), product(COLUMN, ROW)) is None  # which side is which is open
    assert along(over(SUM, ROW), product()) is None
    assert along(product(), over(SUM, COLUMN)) is None
    assert along(product(), over(COLUMN, ROW)) is COLUMN
    assert (
        along(product(), over(COLUMN, ROW), over(SUM, ROW), over(COLUMN, ROW)) is COLUMN
    )


def test_what_has_no_role() -> None:
    none: list[list[Reduction]] = [
        [],
        [over(SUM, ROW)],
        [product(), product(ROW, SUM, COLUMN)],
        [product(), over(SUM, ROW, COLUMN)],  # it has both factors
        [product(), over(COLUMN, ROW), over(ROW, COLUMN)],
        [product(), over(COLUMN, ROW, SUM)],  # of what is not summed up yet
        [product(), over(Axis("a", 9), ROW)],
        [product(columns=LONG), over(LONG, ROW)],
        [product(rows=Axis("i", 1))],
    ]
    assert [roles(each) for each in none] == [None] * len(none)
    assert roles([product(), over(COLUMN, ROW)], owned=0) is None


def test_roles_do_not_depend_on_the_order() -> None:
    told = [product(), over(SUM, ROW), over(COLUMN, ROW)]
    wanted = Roles(frozenset({SUM}), product().sides, COLUMN)
    assert roles(told) == roles(reversed(told)) == wanted


@st.composite
def nets(draw: st.DrawFn) -> Function:
    """Products and reductions of squares, each of any two values before it."""
    b = Builder(Level.GRAPH)
    values = [b.param(Tensor(f32, (N, N)), f"x{k}") for k in range(3)]
    kinds = st.sampled_from(["matmul", "matmul", "rows", "columns", "dots", "turn"])
    for _ in range(draw(st.integers(2, 8))):
        x, y = (draw(st.sampled_from(values)) for _ in range(2))
        values.append(_made(b, draw(kinds), x, y))
    return b.function("net", (values[-1],))


def _made(b: Builder, kind: str, x: Value, y: Value) -> Value:
    if kind == "matmul":
        return b(Neg, b(Matmul, x, y, dtype=f32))
    if kind == "turn":
        return b(Permute, b(Maximum, x, y), order=(1, 0))
    dim = 0 if kind == "columns" else 1
    terms = b(Mul, x, y) if kind == "dots" else x
    total = b(ReduceDims, terms, dims=(dim,), monoid=monoid("sum", f32))
    shape = (N, 1) if dim else (1, N)
    wide = b(Broadcast, b(Reshape, total, shape=shape), shape=(N, N))
    return b(Maximum, wide, y)


@settings(max_examples=200, deadline=None)
@given(nets())
def test_kernels_of_products_are_scheduled_as_such(net: Function) -> None:
    fused = fuse(lower_to_loops(net), X86_64_V3, {})
    for region in ops(fused, Region):
        if summarise(region).is_product:
            assert contraction(accesses(region)) is not None


def test_what_reads_both_factors_along_the_sum_stays_apart() -> None:
    """The distances between rows of x and of y, beside their products."""
    text = """
        graph @f(%x: f32[64, 50], %y: f32[48, 50]) -> (f32[64, 48], f32[64, 48]) {
          %a = reshape %x {shape=(64, 1, 50)} : f32[64, 1, 50]
          %b = broadcast %a {shape=(64, 48, 50)} : f32[64, 48, 50]
          %c = reshape %y {shape=(1, 48, 50)} : f32[1, 48, 50]
          %d = broadcast %c {shape=(64, 48, 50)} : f32[64, 48, 50]
          %e = permute %y {order=(1, 0)} : f32[50, 48]
          %f = matmul %x, %e {dtype=f32} : f32[64, 48]
          %g = sub %b, %d : f32[64, 48, 50]
          %h = abs %g : f32[64, 48, 50]
          %i = reduce_dims %h {dims=(2,), monoid=sum<f32>} : f32[64, 48]
          yield %f, %i
        }
    """
    regions = ops(fuse(lower_to_loops(read(text)), X86_64_V3, {}), Region)
    products = [summarise(region).is_product for region in regions]
    assert sorted(products) == [False, True]
