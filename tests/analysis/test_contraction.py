"""Contractions: what counts as a product of matrices, and how it is blocked."""

from __future__ import annotations

import pytest
from texts import ops, read

from fusec.analysis.accesses import Accesses, accesses
from fusec.analysis.choices import choose
from fusec.analysis.contraction import Contraction, contraction
from fusec.analysis.schedule import Schedule
from fusec.ir.dims import Symbol
from fusec.ir.ops.loop import Region
from fusec.target import TARGETS, X86_64_V3

PRODUCT = """
    loop @f(%x: {x}, %y: {y}) -> ({z}) symbols [s] {{
      %z = region %x, %y over i:{m}, j:{n}, k:{k} : {z} {{
        ^(%a: {x}, %b: {y}, %c: {z}):
        %0 = load %a [{ik}] : f32{{i, k}}
        %1 = load %b [{kj}] : f32{{{kj}}}
        %2 = mul %0, %1 : f32{{i, k, j}}
        %3 = reduce %2 {{axes=(k,), monoid={monoid}<f32>}} : f32{{i, j}}
        store %3, %c [i, j]
      }}
      yield %z
    }}
"""


def product(
    m: object, n: object, k: object, monoid: str = "sum", turned: bool = False
) -> Accesses:
    """The region of a product of these sizes, y turned or not."""
    text = PRODUCT.format(
        x=f"f32[{m}, {k}]",
        y=f"f32[{n}, {k}]" if turned else f"f32[{k}, {n}]",
        z=f"f32[{m}, {n}]",
        ik="i, k",
        kj="j, k" if turned else "k, j",
        m=m,
        n=n,
        k=k,
        monoid=monoid,
    )
    (region,) = ops(read(text), Region)
    return accesses(region)


def schedule(
    *sizes: object, target: str = "x86-64-v3", turned: bool = False
) -> Schedule:
    found = product(*sizes, turned=turned)
    return choose(found, TARGETS[target], {Symbol("s"): 900})


def found(*sizes: object, monoid: str = "sum") -> Contraction | None:
    return contraction(product(*sizes, monoid=monoid))


def test_rows_columns_and_what_is_summed_are_told_apart() -> None:
    c = found(60, 70, 80)
    assert c is not None
    names = [[a.name for a in axes] for axes in (c.rows, c.columns, c.summed)]
    assert names == [["i"], ["j"], ["k"]]
    assert [p.y for p in c.turned().products] == [p.x for p in c.products]


def test_what_is_not_summed_or_has_one_row_is_no_product_of_matrices() -> None:
    assert found(60, 70, 80, monoid="max") is None
    assert found(1, 70, 80) is None
    assert found(60, 1, 80) is None


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", [(64, 64, 64), (1024, 1024, 1024), (17, 1000, 333)])
def test_sums_and_factors_fit_the_registers(
    size: tuple[int, int, int], target: str
) -> None:
    *_, columns = (chosen := schedule(*size, target=target)).tile
    rows = chosen.tile[0]
    assert columns.lanes == TARGETS[target].lanes(32)
    held = rows.registers * columns.registers + columns.registers + 1
    assert held <= TARGETS[target].registers


def test_long_sums_run_by_parts_around_the_panels() -> None:
    long = schedule(512, 512, 4096)
    (inner,) = [s for s in long.tile if s.run is not None]
    assert inner.run is not None
    assert inner.run < 1024
    assert long.nest[0] == (long.tile.index(inner), 0)
    assert all(s.run is None for s in schedule(512, 512, 128).tile)


def test_a_size_that_is_not_known_is_swept_by_parts() -> None:
    chosen = schedule("s", "s", "s")
    assert [s.run is not None for s in chosen.tile] == [False, True, False]
    rows, _, columns = chosen.tile
    assert isinstance(rows.extent, int)
    assert isinstance(columns.extent, int)


def test_what_lies_across_the_lanes_is_packed() -> None:
    turned = schedule(64, 64, 64, turned=True)
    assert turned.dot is not None
    assert [*turned.packing] == [turned.dot.products[0].y]
    assert not schedule(64, 64, 64).packing


def test_no_run_is_longer_than_its_sums_are_good_for() -> None:
    """Over several axes, the outer ones stand around the panels."""
    text = """
        loop @f(%x: f32[160, 20, 40], %y: f32[160, 24, 40]) -> (f32[20, 24]) {
          %z = region %x, %y over a:160, i:20, j:24, k:40 : f32[20, 24] {
            ^(%a: f32[160, 20, 40], %b: f32[160, 24, 40], %c: f32[20, 24]):
            %0 = load %a [a, i, k] : f32{a, i, k}
            %1 = load %b [a, j, k] : f32{a, j, k}
            %2 = mul %0, %1 : f32{a, i, k, j}
            %3 = reduce %2 {axes=(a, k), monoid=sum<f32>} : f32{i, j}
            store %3, %c [i, j]
          }
          yield %z
        }
    """
    (region,) = ops(read(text), Region)
    chosen = choose(accesses(region), X86_64_V3, {})
    outermost = chosen.tile[chosen.nest[0][0]]
    assert outermost.axis.name == "a"


def test_every_core_has_a_program() -> None:
    for size in ((1024, 1024, 1024), (16, 4096, 512), (4096, 16, 512), (64, 64, 64)):
        programs = schedule(*size).programs
        assert isinstance(programs, int)
        assert programs >= X86_64_V3.cores


def test_columns_that_are_turned_come_in_powers_of_two() -> None:
    for m in (4, 16, 64):
        *_, columns = schedule(m, 11008, 4096, turned=True).tile
        assert columns.registers in (1, 2, 4)
