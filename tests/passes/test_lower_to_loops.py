"""Whole-tensor ops become regions; views become indices; externs keep their tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from texts import maker, read, same_meaning, shows

from fusec.errors import ParseError
from fusec.ir.interpreter import interpret
from fusec.ir.ops.loop import Region, View
from fusec.passes.lower_to_loops import lower_to_loops


def lowers(before: str, after: str) -> None:
    """A graph means the same as its loops, which look so."""
    graph = read(before)
    loops = lower_to_loops(graph)
    same_meaning(graph, loops)
    shows(loops, after)


def test_a_permutation_is_an_index_in_another_order() -> None:
    lowers(
        """
        graph @f(%x: f32[2, 3]) -> (f32[3, 2]) {
          %t = permute %x {order=(1, 0)} : f32[3, 2]
          %y = neg %t : f32[3, 2]
          yield %y
        }
        """,
        """
        loop @f(%x: f32[2, 3]) -> (f32[3, 2]) {
          %y = region %x over j:2, i:3 : f32[3, 2] {
            ^(%x_1: f32[2, 3], %y_1: f32[3, 2]):
            %0 = load %x_1 [j, i] : f32{j, i}
            %1 = neg %0 : f32{j, i}
            store %1, %y_1 [i, j]
          }
          yield %y
        }
        """,
    )


CALLED = """
        graph @f(%x: f32[4, 6], %w: f32[6, 6]) -> ({types}) {{
          %p = extern %x, %w {{target="aten.mm.default", arguments=($0, $1), keywords=()}} : f32[4, 6]
          {ops}
          yield {yields}
        }}
"""  # noqa: E501
FLAT = "%a = reshape %p {shape=(24,)} : f32[24]"
TALL = "%b = reshape %p {shape=(6, 4)} : f32[6, 4]"
TURNED = "%t = permute %p {order=(1, 0)} : f32[6, 4]"
BACK = TURNED + "\n %u = permute %t {order=(1, 0)} : f32[4, 6]"
PART = "%s = slice %p {dim=0, start=0, length=2, step=1} : f32[2, 6]"


@pytest.mark.parametrize(
    ("ops", "yields", "types", "kinds"),
    [
        ("", "%p", "f32[4, 6]", ["extern"]),
        (FLAT, "%a", "f32[24]", ["view"]),
        (BACK, "%u", "f32[4, 6]", ["view"]),
        # What lies otherwise, is only a part, or is a result already, is copied.
        (TURNED, "%t", "f32[6, 4]", ["region"]),
        (PART, "%s", "f32[2, 6]", ["region"]),
        (FLAT, "%a, %p", "f32[24], f32[4, 6]", ["region", "extern"]),
        (f"{FLAT}\n {TALL}", "%a, %b", "f32[24], f32[6, 4]", ["view", "region"]),
    ],
)
def test_what_a_call_gave_is_a_result_in_another_shape(
    ops: str, yields: str, types: str, kinds: list[str]
) -> None:
    """Without a copy, as long as no two results lie in one memory."""
    loops = lower_to_loops(read(CALLED.format(ops=ops, yields=yields, types=types)))
    made = {value: op for op in loops.body.ops for value in op.results}
    assert [type(made[value]).name for value in loops.body.yields] == kinds


def test_slices_compose_into_one_stride_and_start() -> None:
    lowers(
        """
        graph @f(%x: f32[10]) -> (f32[4]) {
          %s = slice %x {dim=0, start=1, length=4, step=2} : f32[4]
          %r = slice %s {dim=0, start=3, length=4, step=-1} : f32[4]
          %y = neg %r : f32[4]
          yield %y
        }
        """,
        """
        loop @f(%x: f32[10]) -> (f32[4]) {
          %y = region %x over i:4 : f32[4] {
            ^(%x_1: f32[10], %y_1: f32[4]):
            %0 = load %x_1 [-2*i + 7] : f32{i}
            %1 = neg %0 : f32{i}
            store %1, %y_1 [i]
          }
          yield %y
        }
        """,
    )


def test_a_broadcast_reads_one_element_at_many_points() -> None:
    lowers(
        """
        graph @f(%x: f32[5, 1], %z: f32[5, 7]) -> (f32[5, 7]) {
          %w = broadcast %x {shape=(5, 7)} : f32[5, 7]
          %y = add %w, %z : f32[5, 7]
          yield %y
        }
        """,
        """
        loop @f(%x: f32[5, 1], %z: f32[5, 7]) -> (f32[5, 7]) {
          %y = region %x, %z over i:5, j:7 : f32[5, 7] {
            ^(%x_1: f32[5, 1], %z_1: f32[5, 7], %y_1: f32[5, 7]):
            %0 = load %x_1 [i, 0] : f32{i}
            %1 = load %z_1 [i, j] : f32{i, j}
            %2 = add %0, %1 : f32{i, j}
            store %2, %y_1 [i, j]
          }
          yield %y
        }
        """,
    )


def test_a_reshape_that_splits_counts_the_dimension_with_two_axes() -> None:
    lowers(
        """
        graph @f(%x: f32[5, 12]) -> (f32[5, 3, 4]) {
          %s = reshape %x {shape=(5, 3, 4)} : f32[5, 3, 4]
          %y = neg %s : f32[5, 3, 4]
          yield %y
        }
        """,
        """
        loop @f(%x: f32[5, 12]) -> (f32[5, 3, 4]) {
          %y = region %x over i:5, j:3, k:4 : f32[5, 3, 4] {
            ^(%x_1: f32[5, 12], %y_1: f32[5, 3, 4]):
            %0 = load %x_1 [i, 4*j + k] : f32{i, j, k}
            %1 = neg %0 : f32{i, j, k}
            store %1, %y_1 [i, j, k]
          }
          yield %y
        }
        """,
    )


def test_a_producer_counts_as_its_readers_reshape_wants() -> None:
    lowers(
        """
        graph @f(%x: f32[5, 12]) -> (f32[5, 3, 4]) {
          %h = neg %x : f32[5, 12]
          %s = reshape %h {shape=(5, 3, 4)} : f32[5, 3, 4]
          %y = exp %s : f32[5, 3, 4]
          yield %y
        }
        """,
        """
        loop @f(%x: f32[5, 12]) -> (f32[5, 3, 4]) {
          %h = region %x over i:5, j:3, k:4 : f32[5, 12] {
            ^(%x_1: f32[5, 12], %h_1: f32[5, 12]):
            %0 = load %x_1 [i, 4*j + k] : f32{i, j, k}
            %1 = neg %0 : f32{i, j, k}
            store %1, %h_1 [i, 4*j + k]
          }
          %y = region %h over i:5, j:3, k:4 : f32[5, 3, 4] {
            ^(%h_2: f32[5, 12], %y_1: f32[5, 3, 4]):
            %2 = load %h_2 [i, 4*j + k] : f32{i, j, k}
            %3 = exp %2 : f32{i, j, k}
            store %3, %y_1 [i, j, k]
          }
          yield %y
        }
        """,
    )


def test_a_symbolic_extent_is_the_extent_of_an_axis() -> None:
    lowers(
        """
        graph @f(%x: f32[s0, 64]) -> (f32[s0, 8, 8])
            symbols [s0] {
          %s = reshape %x {shape=(s0, 8, 8)} : f32[s0, 8, 8]
          %y = neg %s : f32[s0, 8, 8]
          yield %y
        }
        """,
        """
        loop @f(%x: f32[s0, 64]) -> (f32[s0, 8, 8])
            symbols [s0] {
          %y = region %x over i:s0, j:8, k:8 : f32[s0, 8, 8] {
            ^(%x_1: f32[s0, 64], %y_1: f32[s0, 8, 8]):
            %0 = load %x_1 [i, 8*j + k] : f32{i, j, k}
            %1 = neg %0 : f32{i, j, k}
            store %1, %y_1 [i, j, k]
          }
          yield %y
        }
        """,
    )


def test_a_reshape_without_common_axes_divides_the_index() -> None:
    lowers(
        """
        graph @f(%x: f32[4, 6]) -> (f32[8, 3]) {
          %t = permute %x {order=(1, 0)} : f32[6, 4]
          %s = reshape %t {shape=(8, 3)} : f32[8, 3]
          %y = neg %s : f32[8, 3]
          yield %y
        }
        """,
        """
        loop @f(%x: f32[4, 6]) -> (f32[8, 3]) {
          %y = region %x over i:8, j:3 : f32[8, 3] {
            ^(%x_1: f32[4, 6], %y_1: f32[8, 3]):
            %0 = coordinate(i) : i64{i}
            %1 = const(3) : i64
            %2 = mul %0, %1 : i64{i}
            %3 = coordinate(j) : i64{j}
            %4 = add %2, %3 : i64{i, j}
            %5 = const(2) : i64
            %6 = shr %4, %5 : i64{i, j}
            %7 = and %4, %1 : i64{i, j}
            %8 = load %x_1, %7, %6 [$0, $1] : f32{i, j}
            %9 = neg %8 : f32{i, j}
            store %9, %y_1 [i, j]
          }
          yield %y
        }
        """,
    )


def test_a_concatenation_reads_only_where_each_part_lies() -> None:
    lowers(
        """
        graph @f(%x: f32[3], %z: f32[4]) -> (f32[7]) {
          %y = concat %x, %z {dim=0} : f32[7]
          yield %y
        }
        """,
        """
        loop @f(%x: f32[3], %z: f32[4]) -> (f32[7]) {
          %y = region %z, %x over i:7 : f32[7] {
            ^(%z_1: f32[4], %x_1: f32[3], %y_1: f32[7]):
            %0 = coordinate(i) : i64{i}
            %1 = const(3) : i64
            %2 = ge %0, %1 : bool{i}
            %3 = const(0.0) : f32
            %4 = load %z_1, %2, %3 [i - 3] {masked=true} : f32{i}
            %5 = lt %0, %1 : bool{i}
            %6 = load %x_1, %5, %3 [i] {masked=true} : f32{i}
            %7 = select %5, %6, %4 : f32{i}
            store %7, %y_1 [i]
          }
          yield %y
        }
        """,
    )


def test_padding_reads_only_what_is_there() -> None:
    lowers(
        """
        graph @f(%x: f32[3]) -> (f32[6]) {
          %c = const(1.5) : f32
          %y = pad %x, %c {low=(1,), high=(2,)} : f32[6]
          yield %y
        }
        """,
        """
        loop @f(%x: f32[3]) -> (f32[6]) {
          %y = region %x over i:6 : f32[6] {
            ^(%x_1: f32[3], %y_1: f32[6]):
            %0 = coordinate(i) : i64{i}
            %1 = const(4) : i64
            %2 = lt %0, %1 : bool{i}
            %3 = const(1) : i64
            %4 = ge %0, %3 : bool{i}
            %5 = and %4, %2 : bool{i}
            %c = const(1.5) : f32
            %6 = const(0.0) : f32
            %7 = load %x_1, %5, %6 [i - 1] {masked=true} : f32{i}
            %8 = select %5, %7, %c : f32{i}
            store %8, %y_1 [i]
          }
          yield %y
        }
        """,
    )


def test_a_gather_checks_what_it_reads_at() -> None:
    lowers(
        """
        graph @f(%x: f32[5, 9], %i: i64[5, 2]) -> (f32[5, 2]) {
          %y = gather %x, %i {dim=1} : f32[5, 2]
          yield %y
        }
        """,
        """
        loop @f(%x: f32[5, 9], %i: i64[5, 2]) -> (f32[5, 2]) {
          %y = region %i, %x over i:5, j:2 : f32[5, 2] {
            ^(%i_1: i64[5, 2], %x_1: f32[5, 9], %y_1: f32[5, 2]):
            %0 = load %i_1 [i, j] : i64{i, j}
            %1 = const(0) : i64
            %2 = ge %0, %1 : bool{i, j}
            %3 = const(9) : i64
            %4 = lt %0, %3 : bool{i, j}
            %5 = and %2, %4 : bool{i, j}
            check %5 {message="index out of range for dimension 1 of size 9"}
            %6 = const(0.0) : f32
            %7 = load %x_1, %0, %5, %6 [i, $0] {masked=true} : f32{i, j}
            store %7, %y_1 [i, j]
          }
          yield %y
        }
        """,
    )


def test_an_index_of_any_integer_counts_in_i64() -> None:
    lowers(
        """
        graph @f(%x: f32[9, 4], %i: i32[5]) -> (f32[5, 4]) {
          %y = index %x, %i {dims=(0,), at=0} : f32[5, 4]
          yield %y
        }
        """,
        """
        loop @f(%x: f32[9, 4], %i: i32[5]) -> (f32[5, 4]) {
          %y = region %i, %x over i:5, j:4 : f32[5, 4] {
            ^(%i_1: i32[5], %x_1: f32[9, 4], %y_1: f32[5, 4]):
            %0 = load %i_1 [i] : i32{i}
            %1 = cast %0 : i64{i}
            %2 = const(0) : i64
            %3 = ge %1, %2 : bool{i}
            %4 = const(9) : i64
            %5 = lt %1, %4 : bool{i}
            %6 = and %3, %5 : bool{i}
            check %6 {message="index out of range for dimension 0 of size 9"}
            %7 = const(0.0) : f32
            %8 = load %x_1, %1, %6, %7 [$0, j] {masked=true} : f32{j, i}
            store %8, %y_1 [i, j]
          }
          yield %y
        }
        """,
    )


def test_a_reduction_walks_axes_of_its_own() -> None:
    lowers(
        """
        graph @f(%x: f32[4, 6]) -> (f32[4]) {
          %s = reshape %x {shape=(4, 2, 3)} : f32[4, 2, 3]
          %e = neg %s : f32[4, 2, 3]
          %y = reduce_dims %e {dims=(1, 2), monoid=sum<f32>} : f32[4]
          yield %y
        }
        """,
        """
        loop @f(%x: f32[4, 6]) -> (f32[4]) {
          %e = region %x over i:4, j:2, k:3 : f32[4, 2, 3] {
            ^(%x_1: f32[4, 6], %e_1: f32[4, 2, 3]):
            %0 = load %x_1 [i, 3*j + k] : f32{i, j, k}
            %1 = neg %0 : f32{i, j, k}
            store %1, %e_1 [i, j, k]
          }
          %y = region %e over i:4, r1:2, r2:3 : f32[4] {
            ^(%e_2: f32[4, 2, 3], %y_1: f32[4]):
            %2 = load %e_2 [i, r1, r2] : f32{i, r1, r2}
            %3 = reduce %2 {axes=(r1, r2), monoid=sum<f32>} : f32{i}
            store %3, %y_1 [i]
          }
          yield %y
        }
        """,
    )


def test_a_reduction_of_nothing_is_the_identity() -> None:
    lowers(
        """
        graph @f(%x: f32[4, 0]) -> (f32[4]) {
          %y = reduce_dims %x {dims=(1,), monoid=max<f32>} : f32[4]
          yield %y
        }
        """,
        """
        loop @f(%x: f32[4, 0]) -> (f32[4]) {
          %y = region over i:4 : f32[4] {
            ^(%y_1: f32[4]):
            %0 = const(-inf) : f32
            store %0, %y_1 [i]
          }
          yield %y
        }
        """,
    )


def test_an_iota_is_the_coordinate() -> None:
    lowers(
        """
        graph @f() -> (i64[2, 3]) {
          %y = iota {shape=(2, 3), dim=1} : i64[2, 3]
          yield %y
        }
        """,
        """
        loop @f() -> (i64[2, 3]) {
          %y = region over j:3, i:2 : i64[2, 3] {
            ^(%y_1: i64[2, 3]):
            %0 = coordinate(j) : i64{j}
            store %0, %y_1 [i, j]
          }
          yield %y
        }
        """,
    )


def test_scalars_are_computed_where_they_are_needed() -> None:
    lowers(
        """
        graph @f(%x: f32[s0]) -> (f32[s0], i64)
            symbols [s0] {
          %n = size(s0) : i64
          %c = cast %n {dtype=f32} : f32
          %y = div %x, %c : f32[s0]
          yield %y, %n
        }
        """,
        """
        loop @f(%x: f32[s0]) -> (f32[s0], i64)
            symbols [s0] {
          %y = region %x over i:s0 : f32[s0] {
            ^(%x_1: f32[s0], %y_1: f32[s0]):
            %0 = load %x_1 [i] : f32{i}
            %n = size(s0) : i64
            %c = cast %n : f32
            %1 = div %0, %c : f32{i}
            store %1, %y_1 [i]
          }
          %n_1 = size(s0) : i64
          yield %y, %n_1
        }
        """,
    )


def test_a_view_that_is_returned_is_copied() -> None:
    lowers(
        """
        graph @f(%x: f32[2, 3]) -> (f32[3, 2]) {
          %t = permute %x {order=(1, 0)} : f32[3, 2]
          yield %t
        }
        """,
        """
        loop @f(%x: f32[2, 3]) -> (f32[3, 2]) {
          %t = region %x over j:2, i:3 : f32[3, 2] {
            ^(%x_1: f32[2, 3], %t_1: f32[3, 2]):
            %0 = load %x_1 [j, i] : f32{j, i}
            store %0, %t_1 [i, j]
          }
          yield %t
        }
        """,
    )


# What externs take: the tensor itself, a strided view of it, or a copy.


def test_a_matrix_product_is_a_sum_of_products_read_through_views() -> None:
    graph = read(
        """
        graph @f(%x: bf16[2, 3]) -> (f32[3, 3]) {
          %t = permute %x {order=(1, 0)} : bf16[3, 2]
          %y = matmul %t, %x {dtype=f32} : f32[3, 3]
          yield %y
        }
        """
    )
    loops = lower_to_loops(graph)
    same_meaning(graph, loops)
    shows(
        loops,
        """
        loop @f(%x: bf16[2, 3]) -> (f32[3, 3]) {
          %y = region %x over k:2, i:3, j:3 : f32[3, 3] {
            ^(%x_1: bf16[2, 3], %y_1: f32[3, 3]):
            %0 = load %x_1 [k, i] : bf16{k, i}
            %1 = cast %0 : f32{k, i}
            %2 = load %x_1 [k, j] : bf16{k, j}
            %3 = cast %2 : f32{k, j}
            %4 = mul %1, %3 : f32{k, i, j}
            %5 = reduce %4 {axes=(k,), monoid=sum<f32>} : f32{i, j}
            store %5, %y_1 [i, j]
          }
          yield %y
        }
        """,
    )


def test_a_product_over_nothing_is_zero() -> None:
    graph = read(
        """
        graph @f(%x: f32[2, 0], %z: f32[0, 3]) -> (f32[2, 3]) {
          %y = matmul %x, %z {dtype=f32} : f32[2, 3]
          yield %y
        }
        """
    )
    nothing = [np.ones((2, 0), np.float32), np.ones((0, 3), np.float32)]
    (y,) = interpret(lower_to_loops(graph), nothing)
    np.testing.assert_array_equal(y, np.zeros((2, 3)))


EXTERN_OF_A_VIEW = """
    graph @f(%x: f32[4, 6]) -> (f32[{shape}]) {{
      %v = {view} : f32[{shape}]
      %y = extern %v {{target="aten.twice", arguments=($0,), \
keywords=()}} : f32[{shape}]
      yield %y
    }}
"""


VIEWS = [
    ("permute %x {order=(1, 0)}", "6, 4", Region),
    ("slice %x {dim=1, start=1, length=2, step=2}", "4, 2", Region),
    ("broadcast %r {shape=(9, 4, 6)}", "9, 4, 6", Region),
    ("reshape %x {shape=(2, 12)}", "2, 12", View),
    ("reshape %t {shape=(3, 8)}", "3, 8", Region),
    ("slice %x {dim=0, start=3, length=4, step=-1}", "4, 6", Region),
]


@pytest.mark.parametrize(("view", "shape", "kind"), VIEWS)
def test_an_extern_finds_its_operand_as_it_is_typed(
    view: str, shape: str, kind: type
) -> None:
    """It may look at strides: a view is one that is row-major."""
    source = EXTERN_OF_A_VIEW.format(view=view, shape=shape)
    before = {"%t": "%t = permute %x {order=(1, 0)} : f32[6, 4]\n      "}
    before["%r"] = "%r = reshape %x {shape=(1, 4, 6)} : f32[1, 4, 6]\n      "
    for name, line in before.items():
        source = source.replace("%v =", line + "%v =") if name in view else source
    graph = read(source)
    loops = lower_to_loops(graph)
    same_meaning_with_calls(graph, loops)
    assert [type(op) for op in loops.body.ops[:-1]] == [kind]


def test_a_restride_lends_a_tensor_that_has_the_strides() -> None:
    graph = read(RESTRIDE.format(x="%e"))
    loops = lower_to_loops(graph)
    same_meaning(graph, loops)
    assert isinstance(maker(loops, "y"), View)


def test_a_restride_of_a_parameter_copies_it() -> None:
    graph = read(RESTRIDE.format(x="%x"))
    loops = lower_to_loops(graph)
    same_meaning(graph, loops)
    assert isinstance(maker(loops, "y"), Region)


RESTRIDE = """
    graph @f(%x: f32[2, 3]) -> (f32[3, 2] strides [1, 3]) {{
      %e = neg %x : f32[2, 3]
      %t = permute {x} {{order=(1, 0)}} : f32[3, 2]
      %y = restride %t {{strides=(1, 3)}} : f32[3, 2] strides [1, 3]
      yield %y
    }}
"""


def test_an_index_out_of_range_is_an_error_of_the_program() -> None:
    loops = lower_to_loops(
        read(
            """
            graph @f(%x: f32[5], %i: i64[2]) -> (f32[2]) {
              %y = gather %x, %i {dim=0} : f32[2]
              yield %y
            }
            """
        )
    )
    x, i = np.arange(5, dtype=np.float32), np.array([1, 5])
    with pytest.raises(IndexError, match="index out of range for dimension 0 of"):
        interpret(loops, [x, i])


CHECKED = """
    graph @f(%x: i32[5], %y: i32[5]) -> (i32[5]) {
      %0 = const(0) : i32
      %ok = ne %y, %0 : bool[5]
      %z = checked %y, %ok {message="by 0", error="RuntimeError"} : i32[5]
      %q = floor_div %x, %z : i32[5]
      yield %q
    }
"""


def test_a_check_fails_with_the_error_that_it_names() -> None:
    graph = read(CHECKED)
    loops = lower_to_loops(graph)
    x = np.arange(5, dtype=np.int32)
    for function in (graph, loops):
        assert interpret(function, [x, x + 1])[0].tolist() == [0, 0, 0, 0, 0]
        with pytest.raises(RuntimeError, match="by 0"):
            interpret(function, [x, x])
    with pytest.raises(ParseError, match="no error 'OSError'"):
        read(CHECKED.replace("RuntimeError", "OSError"))


def same_meaning_with_calls(before: Any, after: Any) -> None:
    """The same as `same_meaning` for functions that call `CALLS`."""
    same_meaning(before, after, lambda target, a, k, xs: [CALLS[target](*xs)])


CALLS = {"aten.mm.default": np.matmul, "aten.twice": lambda x: x * 2}


def test_a_call_beyond_aten_takes_memory_as_its_type_says() -> None:
    """Another's kernel may read by the strides that torch said there would be."""
    source = EXTERN_OF_A_VIEW.format(view="permute %x {order=(1, 0)}", shape="6, 4")
    graph = read(source.replace("aten.twice", "my.twice"))
    (made, _) = lower_to_loops(graph).body.ops
    assert isinstance(made, Region)
