"""Long reductions become parts and a rest, which mean what the whole meant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from texts import ops, read, same_meaning

from fusec.analysis.cost import likely
from fusec.compiler import setting_of
from fusec.ir.core import Function
from fusec.ir.dims import Symbol
from fusec.ir.interpreter import interpret
from fusec.ir.ops.checks import Check
from fusec.ir.ops.loop import Region
from fusec.options import Options
from fusec.passes.fuse import fuse
from fusec.passes.journey import lower
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.passes.split_reductions import split_reductions
from fusec.target import GPUS, X86_64_V4

TARGET = replace(X86_64_V4, cores=8)
SM_90 = Options(target="sm_90")
HINTS = {Symbol("n"): 1 << 20}


def split(graph: str, hints: dict[Symbol, int] = HINTS) -> Function:
    """The loops of a graph, fused and split, which mean what they meant."""
    loops = fuse(lower_to_loops(read(graph)), TARGET, hints)
    after = split_reductions(loops, TARGET, hints)
    same_meaning(loops, after)
    return after


def total(shape: str, dims: str, monoid: str = "max<f32>", left: str = "") -> str:
    return f"""
        graph @f(%x: f32[{shape}]) -> (f32[{left}]) symbols [n] {{
          %s = reduce_dims %x {{dims={dims}, monoid={monoid}}} : f32[{left}]
          yield %s
        }}
    """


def regions(function: Function) -> int:
    return len(ops(function, Region))


@pytest.mark.parametrize("n", [1 << 20, 1000003, 1048573])
def test_a_long_row_is_shared_out(n: int) -> None:
    assert regions(split(total(f"{n}", "(0,)"))) == 2


@pytest.mark.parametrize("target", GPUS)
@pytest.mark.parametrize("n", ["16777216", "n"])
def test_all_cores_of_a_gpu_share_a_sum(target: str, n: str) -> None:
    """To one number: several programs to each core, then one kernel more."""
    hints = {Symbol("n"): 1 << 24}
    setting = setting_of(Options(target=target), hints)
    found = lower(read(total(n, "(0,)", "sum<f32>")), setting)
    first, second = found.lowered.kernels.values()
    assert likely(first.schedule.programs, hints) >= 2 * setting.target.cores
    assert second.schedule.programs == 1


def test_what_the_cores_of_a_gpu_add_up() -> None:
    found = lower(read(total("n", "(0,)", "sum<f32>")), setting_of(SM_90))
    x = np.ones(5_000_001, np.float32)
    (got,) = interpret(found.joined.host, [x], module=found.joined.module)
    assert got == 5_000_001


def test_few_columns_of_many_rows_are() -> None:
    assert regions(split(total("300000, 2", "(0,)", left="2"))) == 2


def test_sizes_that_only_the_call_knows() -> None:
    assert regions(split(total("n", "(0,)"))) == 2


@pytest.mark.parametrize(
    ("shape", "dims", "left"),
    [("1000", "(0,)", ""), ("4096, 64", "(1,)", "4096"), ("64, 8192", "(0,)", "8192")],
)
def test_what_is_short_or_keeps_all_cores_busy_is_not(
    shape: str, dims: str, left: str
) -> None:
    assert regions(split(total(shape, dims, left=left))) == 1


def test_reductions_that_wait_for_one_another_follow_in_order() -> None:
    """How far elements are below the largest, less the largest such distance."""
    loops = read(
        """
        loop @f(%x: f32[1000003]) -> (f32[1000003]) {
          %y = region %x over i:1000003 : f32[1000003] {
            ^(%a: f32[1000003], %b: f32[1000003]):
            %0 = load %a [i] : f32{i}
            %1 = reduce %0 {axes=(i,), monoid=max<f32>} : f32{}
            %2 = sub %1, %0 : f32{i}
            %3 = reduce %2 {axes=(i,), monoid=max<f32>} : f32{}
            %4 = sub %2, %3 : f32{i}
            store %4, %b [i]
          }
          yield %y
        }
        """
    )
    after = split_reductions(loops, TARGET, {})
    same_meaning(loops, after)
    assert regions(after) == 3


def test_places_of_extremes_are_those_of_the_whole() -> None:
    graph = """
        graph @f(%x: f32[1000003]) -> (i64[]) {
          %i = iota {shape=(1000003,), dim=0} : i64[1000003]
          %m, %k = reduce_dims %x, %i {dims=(0,), monoid=argmax<f32>} : f32[], i64[]
          yield %k
        }
    """
    assert regions(split(graph)) == 2


@pytest.mark.parametrize("n", [1 << 20, 1000003])
def test_what_is_checked_need_not_be_what_is_reduced(n: int) -> None:
    """The largest element times one that an index names: the index is checked."""
    after = split(f"""
        graph @f(%x: f32[{n}], %t: f32[10], %i: i64[1]) -> (f32[1]) {{
          %m = reduce_dims %x {{dims=(0,), monoid=max<f32>}} : f32[]
          %r = reshape %m {{shape=(1,)}} : f32[1]
          %g = index %t, %i {{dims=(0,), at=0}} : f32[1]
          %y = mul %r, %g : f32[1]
          yield %y
        }}
    """)
    assert regions(after) == 2
    assert len(ops(after, Check)) == 1


def test_nothing_is_read_where_a_place_beyond_the_axis_leads() -> None:
    """Rows of a matrix that is turned and cut anew: places are divided, and those of
    the last block that lie beyond the axis would lead beyond the matrix."""
    after = split("""
        graph @f(%x: f32[1009, 1013]) -> (f32[]) {
          %t = permute %x {order=(1, 0)} : f32[1013, 1009]
          %r = reshape %t {shape=(1009, 1013)} : f32[1009, 1013]
          %m = reduce_dims %r {dims=(0, 1), monoid=max<f32>} : f32[]
          yield %m
        }
    """)
    assert regions(after) == 2
