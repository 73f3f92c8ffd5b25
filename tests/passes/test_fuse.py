"""Regions that the plan joins become one region, which computes what they did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from texts import SOFTMAX, ops, read, same_meaning, shows

from fusec.ir.builder import rewrite
from fusec.ir.core import Function
from fusec.ir.interpreter import interpret
from fusec.ir.ops.loop import Region
from fusec.ir.printer import format_function
from fusec.ir.verifier import verify
from fusec.passes.fuse import fuse
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.target import X86_64_V4


def fused(graph: str) -> Function:
    """The loops of a graph, fused, which mean what they meant."""
    loops = lower_to_loops(read(graph))
    after = fuse(loops, X86_64_V4, {})
    same_meaning(loops, after, lambda target, a, k, xs: [np.matmul(*xs)])
    return after


def test_a_producer_is_computed_where_it_is_read() -> None:
    shows(
        fused(
            """
            graph @f(%x: f32[40, 30]) -> (f32[40, 30]) {
              %a = exp %x : f32[40, 30]
              %y = neg %a : f32[40, 30]
              yield %y
            }
            """
        ),
        """
        loop @f(%x: f32[40, 30]) -> (f32[40, 30]) {
          %y = region %x over i:40, j:30 : f32[40, 30] {
            ^(%x_1: f32[40, 30], %y_1: f32[40, 30]):
            %0 = load %x_1 [i, j] : f32{i, j}
            %1 = exp %0 : f32{i, j}
            %2 = neg %1 : f32{i, j}
            store %2, %y_1 [i, j]
          }
          yield %y
        }
        """,
    )


def test_a_producer_that_is_returned_is_stored_on_the_way() -> None:
    shows(
        fused(
            """
            graph @f(%x: f32[40, 30]) -> (f32[40, 30], f32[40, 30]) {
              %a = exp %x : f32[40, 30]
              %y = neg %a : f32[40, 30]
              yield %y, %a
            }
            """
        ),
        """
        loop @f(%x: f32[40, 30]) -> (f32[40, 30], f32[40, 30]) {
          %a, %y = region %x over i:40, j:30 : f32[40, 30], f32[40, 30] {
            ^(%x_1: f32[40, 30], %a_1: f32[40, 30], %y_1: f32[40, 30]):
            %0 = load %x_1 [i, j] : f32{i, j}
            %1 = exp %0 : f32{i, j}
            store %1, %a_1 [i, j]
            %2 = neg %1 : f32{i, j}
            store %2, %y_1 [i, j]
          }
          yield %y, %a
        }
        """,
    )


def test_the_axes_of_a_producer_become_its_readers() -> None:
    shows(
        fused(
            """
            graph @f(%x: f32[40, 30]) -> (f32[30, 40]) {
              %a = exp %x : f32[40, 30]
              %t = permute %a {order=(1, 0)} : f32[30, 40]
              %y = neg %t : f32[30, 40]
              yield %y
            }
            """
        ),
        """
        loop @f(%x: f32[40, 30]) -> (f32[30, 40]) {
          %y = region %x over j:40, i:30 : f32[30, 40] {
            ^(%x_1: f32[40, 30], %y_1: f32[30, 40]):
            %0 = load %x_1 [j, i] : f32{j, i}
            %1 = exp %0 : f32{j, i}
            %2 = neg %1 : f32{j, i}
            store %2, %y_1 [i, j]
          }
          yield %y
        }
        """,
    )


def test_a_statistic_and_its_reader_sweep_one_axis() -> None:
    shows(
        fused(
            """
            graph @f(%x: f32[40, 30]) -> (f32[40, 30], f32[40]) {
              %m = reduce_dims %x {dims=(1,), monoid=max<f32>} : f32[40]
              %r = reshape %m {shape=(40, 1)} : f32[40, 1]
              %w = broadcast %r {shape=(40, 30)} : f32[40, 30]
              %y = sub %x, %w : f32[40, 30]
              yield %y, %m
            }
            """
        ),
        """
        loop @f(%x: f32[40, 30]) -> (f32[40, 30], f32[40]) {
          %m, %y = region %x over i:40, j:30 : f32[40], f32[40, 30] {
            ^(%x_1: f32[40, 30], %m_1: f32[40], %y_1: f32[40, 30]):
            %0 = load %x_1 [i, j] : f32{i, j}
            %1 = reduce %0 {axes=(j,), monoid=max<f32>} : f32{i}
            store %1, %m_1 [i]
            %2 = sub %0, %1 : f32{i, j}
            store %2, %y_1 [i, j]
          }
          yield %y, %m
        }
        """,
    )


def test_a_cheap_producer_is_computed_at_every_place_it_is_read_at() -> None:
    shows(
        fused(
            """
            graph @f(%x: f32[40, 40]) -> (f32[40, 40]) {
              %e = exp %x : f32[40, 40]
              %t = permute %e {order=(1, 0)} : f32[40, 40]
              %y = add %e, %t : f32[40, 40]
              yield %y
            }
            """
        ),
        """
        loop @f(%x: f32[40, 40]) -> (f32[40, 40]) {
          %y = region %x over i:40, j:40 : f32[40, 40] {
            ^(%x_1: f32[40, 40], %y_1: f32[40, 40]):
            %0 = load %x_1 [i, j] : f32{i, j}
            %1 = exp %0 : f32{i, j}
            %2 = load %x_1 [j, i] : f32{j, i}
            %3 = exp %2 : f32{j, i}
            %4 = add %1, %3 : f32{i, j}
            store %4, %y_1 [i, j]
          }
          yield %y
        }
        """,
    )


def test_a_producer_read_under_a_mask_reads_only_inside_its_tensor() -> None:
    shows(
        fused(
            """
            graph @f(%x: f32[8]) -> (f32[10]) {
              %c = const(1.5) : f32
              %e = exp %x : f32[8]
              %y = pad %e, %c {low=(1,), high=(1,)} : f32[10]
              yield %y
            }
            """
        ),
        """
        loop @f(%x: f32[8]) -> (f32[10]) {
          %y = region %x over i:10 : f32[10] {
            ^(%x_1: f32[8], %y_1: f32[10]):
            %0 = coordinate(i) : i64{i}
            %1 = const(-1) : i64
            %2 = add %0, %1 : i64{i}
            %3 = const(0) : i64
            %4 = ge %2, %3 : bool{i}
            %5 = const(8) : i64
            %6 = lt %2, %5 : bool{i}
            %7 = and %4, %6 : bool{i}
            %8 = const(0.0) : f32
            %9 = load %x_1, %7, %8 [i - 1] {masked=true} : f32{i}
            %10 = exp %9 : f32{i}
            %11 = const(9) : i64
            %12 = lt %0, %11 : bool{i}
            %13 = const(1) : i64
            %14 = ge %0, %13 : bool{i}
            %15 = and %14, %12 : bool{i}
            %c = const(1.5) : f32
            %16 = select %15, %10, %c : f32{i}
            store %16, %y_1 [i]
          }
          yield %y
        }
        """,
    )


def test_a_producer_that_is_gathered_from_is_computed_at_the_index() -> None:
    shows(
        fused(
            """
            graph @f(%x: f32[40, 30], %i: i64[40, 1]) -> (f32[40, 1]) {
              %e = exp %x : f32[40, 30]
              %y = gather %e, %i {dim=1} : f32[40, 1]
              yield %y
            }
            """
        ),
        """
        loop @f(%x: f32[40, 30], %i: i64[40, 1]) -> (f32[40, 1]) {
          %y = region %i, %x over i:40 : f32[40, 1] {
            ^(%i_1: i64[40, 1], %x_1: f32[40, 30], %y_1: f32[40, 1]):
            %0 = load %i_1 [i, 0] : i64{i}
            %1 = const(0) : i64
            %2 = ge %0, %1 : bool{i}
            %3 = const(30) : i64
            %4 = lt %0, %3 : bool{i}
            %5 = and %2, %4 : bool{i}
            check %5 {message="index out of range for dimension 1 of size 30"}
            %6 = const(0.0) : f32
            %7 = load %x_1, %0, %5, %6 [i, $0] {masked=true} : f32{i}
            %8 = exp %7 : f32{i}
            %9 = select %5, %8, %6 : f32{i}
            store %9, %y_1 [i, 0]
          }
          yield %y
        }
        """,
    )


def test_what_reads_the_same_becomes_one() -> None:
    shows(
        fused(
            """
            graph @f(%x: f32[40, 30]) -> (f32[40, 30], f32[40, 30]) {
              %a = exp %x : f32[40, 30]
              %y = neg %x : f32[40, 30]
              yield %y, %a
            }
            """
        ),
        """
        loop @f(%x: f32[40, 30]) -> (f32[40, 30], f32[40, 30]) {
          %a, %y = region %x over i:40, j:30 : f32[40, 30], f32[40, 30] {
            ^(%x_1: f32[40, 30], %a_1: f32[40, 30], %y_1: f32[40, 30]):
            %0 = load %x_1 [i, j] : f32{i, j}
            %1 = exp %0 : f32{i, j}
            store %1, %a_1 [i, j]
            %2 = neg %0 : f32{i, j}
            store %2, %y_1 [i, j]
          }
          yield %y, %a
        }
        """,
    )


def test_sums_of_the_same_columns_become_one() -> None:
    """The gradients of a norm's weight and bias."""
    after = fused(
        """
        graph @f(%x: f32[40, 30], %g: f32[40, 30]) -> (f32[30], f32[30]) {
          %m = mul %x, %g : f32[40, 30]
          %w = reduce_dims %m {dims=(0,), monoid=sum<f32>} : f32[30]
          %b = reduce_dims %g {dims=(0,), monoid=sum<f32>} : f32[30]
          yield %w, %b
        }
        """
    )
    assert len(after.body.ops) == 1


TURNED = """
    graph @f(%x: f32[40, 40]) -> (f32[40, 40], f32[40, 40]) {
      %t = permute %x {order=(1, 0)} : f32[40, 40]
      %a = exp %t : f32[40, 40]
      %b = abs %t : f32[40, 40]
      %y = sub %b, %x : f32[40, 40]
      yield %y, %a
    }
"""
ACROSS = """
    graph @f(%x: f32[40, 30]) -> (f32[40], f32[30]) {
      %a = reduce_dims %x {dims=(1,), monoid=max<f32>} : f32[40]
      %b = reduce_dims %x {dims=(0,), monoid=max<f32>} : f32[30]
      yield %a, %b
    }
"""
WAITING = """
    graph @f(%x: f32[40, 40]) -> (f32[40, 40], f32[40, 40]) {
      %a = exp %x : f32[40, 40]
      %m = matmul %a, %a : f32[40, 40]
      %y = sub %m, %x : f32[40, 40]
      yield %y, %a
    }
"""


@pytest.mark.parametrize("graph", [TURNED, ACROSS, WAITING])
def test_but_not_at_other_places_over_other_axes_or_later(graph: str) -> None:
    after = fused(graph)
    assert len(ops(after, Region)) == 2


CALL = 'target="aten.mm.default", arguments=($0, $1), keywords=()'


def test_the_order_of_externs_and_of_what_they_need_is_kept() -> None:
    after = fused(
        """
        graph @f(%x: f32[40, 40]) -> (f32[40, 40]) {
          %a = exp %x : f32[40, 40]
          %b = extern %a, %a {CALL} : f32[40, 40]
          %c = neg %a : f32[40, 40]
          %d = extern %b, %c {CALL} : f32[40, 40]
          %y = add %b, %d : f32[40, 40]
          yield %y
        }
        """.replace("CALL", CALL)
    )
    assert [op.name for op in after.body.ops] == ["region", *["extern"] * 2, "region"]


def test_softmax_is_one_region(golden: Callable[[str, str], None]) -> None:
    after = fused(SOFTMAX)
    assert [op.name for op in after.body.ops] == ["region"]
    x = np.random.default_rng(0).standard_normal((5, 1000)).astype(np.float32)
    e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    (y,) = interpret(after, [x])
    np.testing.assert_allclose(y, e / e.sum(axis=1, keepdims=True), rtol=1e-5)
    golden("softmax.fused.ir", format_function(after))


def test_fusing_again_changes_nothing() -> None:
    once = fused(SOFTMAX)
    assert format_function(fuse(once, X86_64_V4, {})) == format_function(once)


def test_symbolic_sizes_need_no_hints() -> None:
    text = SOFTMAX.replace("]) {", "])\n        symbols [s0, s1] {")
    after = fused(text.replace("1000", "s1").replace("5", "s0"))
    assert [op.name for op in after.body.ops] == ["region"]


def test_a_region_computes_its_own_scalars_though_equal_ones_stand_outside() -> None:
    """Of a scalar that is computed outside, a region would have no value."""
    graph = read(
        """
        graph @f(%x: f32[s0, 8]) -> (f32[s0, 8], f32[s0, 8]) symbols [s0] {
          %n = size(s0) : i64
          extern %n {target="host.reads", arguments=($0,), keywords=()}
          %m = cast %n : f32
          %y = add %x, %m : f32[s0, 8]
          %z = extern %y {target="t.f", arguments=($0,), keywords=()} : f32[s0, 8]
          %w = mul %z, %m : f32[s0, 8]
          yield %y, %w
        }
        """
    )
    loops = lower_to_loops(graph)
    for after in (fuse(loops, X86_64_V4, {}), rewrite(loops, lambda b, op, env: None)):
        verify(after)
