"""What two kernels can both compute is stored by neither, and means what it meant."""

from __future__ import annotations

import pytest
from texts import ops, read, same_meaning

from fusec.ir.core import Function
from fusec.ir.ops.checks import Check
from fusec.ir.ops.loop import Region
from fusec.passes.fuse import fuse
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.passes.recompute import recompute
from fusec.target import X86_64_V4


def recomputed(graph: str) -> Function:
    """The loops of a graph, fused and then spared of stores; the same results."""
    loops = fuse(lower_to_loops(read(graph)), X86_64_V4, {})
    after = recompute(loops, X86_64_V4, {})
    same_meaning(loops, after)
    return after


def results(function: Function) -> list[int]:
    """How many tensors each region stores."""
    return [len(op.results) for op in ops(function, Region)]


ROWS_AND_COLUMNS = """
    graph @f(%x: f32[64, 96], %g: f32[64, 96]) -> (f32[96], f32[64]) {{
      %e = {op} %x : f32[64, 96]
      %p = mul %e, %g : f32[64, 96]
      %c = reduce_dims %p {{dims=(0,), monoid=sum<f32>}} : f32[96]
      %r = reduce_dims %e {{dims=(1,), monoid=sum<f32>}} : f32[64]
      {more}
      yield %c, %r
    }}
"""


def test_what_rows_and_columns_both_read_is_computed_for_each() -> None:
    function = recomputed(ROWS_AND_COLUMNS.format(op="neg", more=""))
    assert results(function) == [1, 1]


def test_what_is_returned_is_stored_and_read() -> None:
    graph = ROWS_AND_COLUMNS.format(op="neg", more="").replace(
        "-> (f32[96], f32[64])", "-> (f32[96], f32[64], f32[64, 96])"
    )
    function = recomputed(graph.replace("yield %c, %r", "yield %c, %r, %e"))
    assert sum(results(function)) == 3


def test_what_is_dear_is_stored() -> None:
    """A chain of logarithms costs more than to write and read one number."""
    chain = "\n".join(f"%l{k} = log %l{k - 1} : f32[64, 96]" for k in range(1, 9))
    graph = f"""
        graph @f(%l0: f32[64, 96], %g: f32[64, 96]) -> (f32[96], f32[64]) {{
          {chain}
          %p = mul %l8, %g : f32[64, 96]
          %c = reduce_dims %p {{dims=(0,), monoid=sum<f32>}} : f32[96]
          %r = reduce_dims %l8 {{dims=(1,), monoid=sum<f32>}} : f32[64]
          yield %c, %r
        }}
    """
    assert sum(results(recomputed(graph))) == 3


def test_what_a_call_to_torch_reads_is_stored() -> None:
    graph = """
        graph @f(%x: f32[64, 96]) -> (f32[96], f32[64], f32[64, 96]) {
          %e = neg %x : f32[64, 96]
          %s = extern %e {target="aten.sort", arguments=($0,), keywords=(),
            types=(f32[64, 96],)} : f32[64, 96]
          %c = reduce_dims %e {dims=(0,), monoid=sum<f32>} : f32[96]
          %r = reduce_dims %e {dims=(1,), monoid=sum<f32>} : f32[64]
          yield %c, %r, %s
        }
    """
    loops = fuse(lower_to_loops(read(graph)), X86_64_V4, {})
    after = recompute(loops, X86_64_V4, {})
    assert sum(results(after)) == sum(results(loops)) == 3


def test_what_a_reduction_gives_is_stored() -> None:
    """Only what is computed point by point is copied."""
    graph = """
        graph @f(%x: f32[64, 96]) -> (f32[96], f32[64, 96]) {
          %m = reduce_dims %x {dims=(1,), monoid=sum<f32>} : f32[64]
          %n = reshape %m {shape=(64, 1)} : f32[64, 1]
          %b = broadcast %n {shape=(64, 96)} : f32[64, 96]
          %d = sub %x, %b : f32[64, 96]
          %c = reduce_dims %d {dims=(0,), monoid=sum<f32>} : f32[96]
          %o = reshape %c {shape=(1, 96)} : f32[1, 96]
          %k = broadcast %o {shape=(64, 96)} : f32[64, 96]
          %y = mul %d, %k : f32[64, 96]
          yield %c, %y
        }
    """
    assert results(recomputed(graph)) == [1, 2]


@pytest.mark.parametrize("count", [1, 2])
def test_checks_stay_where_they_were(count: int) -> None:
    """Every index is checked once, by the region that did."""
    more = "%q = add %e, %e : f32[64, 96]" if count == 2 else ""
    graph = f"""
        graph @f(%t: f32[10, 96], %at: i64[64, 96]) -> (f32[96], f32[64]) {{
          %e = gather %t, %at {{dim=0}} : f32[64, 96]
          {more}
          %c = reduce_dims %e {{dims=(0,), monoid=sum<f32>}} : f32[96]
          %r = reduce_dims %e {{dims=(1,), monoid=sum<f32>}} : f32[64]
          yield %c, %r
        }}
    """
    loops = fuse(lower_to_loops(read(graph)), X86_64_V4, {})
    after = recompute(loops, X86_64_V4, {})
    assert len(ops(after, Check)) == len(ops(loops, Check)) > 0


def test_what_a_region_checks_only_the_shape_of_is_stored() -> None:
    """A gather of which nothing is wanted still raises its error."""
    graph = """
        graph @f(%x: f32[9], %at: i64[5]) -> (f32[0], f32[9]) {
          %e = neg %x : f32[9]
          %g = gather %e, %at {dim=0} : f32[5]
          %n = slice %g {dim=0, start=5, length=0, step=1} : f32[0]
          %y = exp %e : f32[9]
          yield %n, %y
        }
    """
    loops = fuse(lower_to_loops(read(graph)), X86_64_V4, {})
    after = recompute(loops, X86_64_V4, {})
    assert len(ops(after, Check)) == len(ops(loops, Check)) > 0
