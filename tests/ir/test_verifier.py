"""The verifier: each invariant broken once, the message on the line that breaks it."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import pytest

from fusec.errors import ParseError, VerificationError
from fusec.ir.builder import Builder
from fusec.ir.core import Affine, Block, Function, Level, Module, Op, Value
from fusec.ir.dims import Symbol
from fusec.ir.dtypes import f32, i64
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.elementwise import Add, Exp
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import Load
from fusec.ir.ops.view import Reshape
from fusec.ir.parser import parse_module
from fusec.ir.types import Axis, Tensor
from fusec.ir.verifier import INVARIANTS, inferred_types, verify

# Each text has one mark, `#! message`, on the line of the op that is at fault.

BROKEN: dict[str, tuple[int, str]] = {
    "an op of another level": (
        1,
        """\
        graph @f(%x: f32[4]) -> () {
          %p = program_id : i64  #! program_id has no place at the graph level
        }""",
    ),
    "a type of another level": (
        2,
        """\
        graph @f() -> () {
          %t = extern {target="t", arguments=(), keywords=()} : tile<f32[4]> #! is Tile
        }""",
    ),
    "a symbol that is not declared": (
        6,
        """\
        graph @f(%x: f32[s0]) -> ()
            symbols [s0] {
          %y = size(s0*s1 + 1) : i64  #! s1 in s0*s1 + 1 is not declared
        }""",
    ),
    "a symbol in a layout": (
        6,
        """\
        tile @f() -> () {
          %y = scratch : buffer<f32, "({s0}:mem@32)">  #! s0 in s0 is not declared
        }""",
    ),
    "a symbol in the extent of an axis": (
        6,
        """\
        loop @f(%x: f32[4]) -> () {
          %y = region %x over i:s0 : f32[4] {
            ^(%a: f32[4], %b: f32[4]):
            %k = coordinate(i) : i64{i}  #! s0 in s0 is not declared
          }
        }""",
    ),
    "points outside of regions": (
        7,
        """\
        loop @f(%x: f32[4]) -> () {
          %y = exp %x : f32[4]  #! exp stands outside of a region
        }""",
    ),
    "an extern inside of a region": (
        7,
        """\
        loop @f(%x: f32[4]) -> () {
          %y = region %x : f32[4] {
            ^(%a: f32[4], %b: f32[4]):
            %z = extern {target="t", arguments=(), keywords=()} : f32 #! inside a region
          }
        }""",
    ),
    "a store outside of regions": (
        7,
        """\
        loop @f(%x: f32[4], %c: f32) -> () {
          store %c, %x [0]  #! store stands outside of a region
        }""",
    ),
    "parameters that are not the operands": (
        8,
        """\
        loop @f(%x: f32[4]) -> () {
          %y = region %x : f32[4] {  #! parameters and operands of the region differ
            ^(%a: f32[5], %b: f32[4]):
          }
        }""",
    ),
    "a region that yields": (
        8,
        """\
        loop @f(%x: f32[4]) -> () {
          %y = region %x : f32[4] {  #! the region yields values
            ^(%a: f32[4], %b: f32[4]):
            yield %b
          }
        }""",
    ),
    "a tensor read from outside": (
        9,
        """\
        loop @f(%x: f32[4]) -> () {
          %y = region over i:4 : f32[4] {
            ^(%b: f32[4]):
            %0 = load %x [i] : f32{i}  #! %x comes from outside of the region
          }
        }""",
    ),
    "a store into an input": (
        9,
        """\
        loop @f(%x: f32[4]) -> () {
          %y = region %x over i:4 : f32[4] {
            ^(%a: f32[4], %b: f32[4]):
            %0 = load %a [i] : f32{i}
            store %0, %a [i]  #! %a is stored, but no result
          }
        }""",
    ),
    "a result without a store": (
        9,
        """\
        loop @f(%x: f32[4]) -> () {
          %y = region %x : f32[4] {  #! the result %b is never stored
            ^(%a: f32[4], %b: f32[4]):
          }
        }""",
    ),
    "a computed index that is not used": (
        10,
        """\
        loop @f(%x: f32[4]) -> () {
          %y = region %x over i:4 : f32[4] {
            ^(%a: f32[4], %b: f32[4]):
            %k = coordinate(i) : i64{i}
            %0 = load %a, %k [i] : f32{i}  #! 1 computed indices, but the index uses []
          }
        }""",
    ),
    "a computed index that is no index": (
        10,
        """\
        loop @f(%x: f32[4]) -> () {
          %y = region %x over i:4 : f32[4] {
            ^(%a: f32[4], %b: f32[4]):
            %c = const(0.0) : f32
            store %c, %b, %c [$0]  #! the computed index %c is not i64
          }
        }""",
    ),
    "two dimensions along one axis": (
        11,
        """\
        loop @f(%x: f32[4, 4]) -> () {
          %y = region %x over i:4 : f32[4, 4] {
            ^(%a: f32[4, 4], %b: f32[4, 4]):
            %0 = load %a [i, i] : f32{i}
            store %0, %b [i, i]  #! two dimensions of the index walk i
          }
        }""",
    ),
    "an axis that the index lacks": (
        11,
        """\
        loop @f(%x: f32[4, 4]) -> () {
          %y = region %x over i:4, j:4 : f32[4] {
            ^(%a: f32[4, 4], %b: f32[4]):
            %0 = load %a [i, j] : f32{i, j}
            store %0, %b [i]  #! all points of j are stored in one element
          }
        }""",
    ),
    "a step of 0": (
        12,
        """\
        tile @f(%n: i64) -> () {
          for %n, %n {step=0} {  #! the loop does not count in i64 by a positive step
            ^(%k: i64):
          }
        }""",
    ),
    "a counter of another dtype": (
        12,
        """\
        tile @f(%n: i64) -> () {
          for %n, %n {step=1} {  #! the loop does not count in i64
            ^(%k: i32):
          }
        }""",
    ),
    "an update of what was made there": (
        21,
        """\
        loop @f(%x: f32[4]) -> (f32[4]) {
          %y = region %x over i:4 : f32[4] {
            ^(%x_1: f32[4], %y_1: f32[4]):
            %v = load %x_1 [i] : f32{i}
            update %v, %y_1, %y_1 [i] {axes=(i,), combine="sum"}  #! %y_1 is no operand
          }
          yield %y
        }""",
    ),
    "an updated result that is stored": (
        21,
        """\
        loop @f(%x: f32[4]) -> (f32[4]) {
          %y = region %x over i:4 : f32[4] {
            ^(%x_1: f32[4], %y_1: f32[4]):
            %v = load %x_1 [i] : f32{i}
            store %v, %y_1 [i]
            update %v, %y_1, %x_1 [i] {axes=(i,), combine="sum"}  #! and read or stored
          }
          yield %y
        }""",
    ),
    "an update along an axis that it does not walk": (
        22,
        """\
        loop @f(%x: f32[4]) -> (f32[4]) {
          %y = region %x over i:4 : f32[4] {
            ^(%x_1: f32[4], %y_1: f32[4]):
            %v = load %x_1 [i] : f32{i}
            update %v, %y_1, %x_1 [i] {axes=(), combine="sum"}  #! reads along i, which
          }
          yield %y
        }""",
    ),
    "a layout of another shape": (
        13,
        """\
        tile @f(%x: f32) -> () {
          %t = broadcast_tile %x : tile<f32[8], "(4:lane)">  #! has the shape (4,)
        }""",
    ),
    "a tile without a layout": (
        13,
        """\
        tile @f(%x: f32) -> () {
          %t = broadcast_tile %x : tile<f32[4], "(4:lane)">
          %u = broadcast_tile %x : tile<f32[4]>  #! %u has no layout, %t has one
        }""",
    ),
    "tiles of different layouts": (
        14,
        """\
        tile @f(%x: f32) -> () {
          %t = broadcast_tile %x : tile<f32[4], "(4:lane)">
          %u = broadcast_tile %x : tile<f32[4], "(4:reg)">
          %v = add %t, %u : tile<f32[4], "(4:lane)">  #! combines tiles of different
        }""",
    ),
    "a use after the end": (
        16,
        """\
        host @f() -> () {
          %x = alloc {escapes=false} : f32[4]
          %v = view %x {offset=0} : f32[2, 2]
          free %x
          %y = extern %v {target="t", arguments=($0,), keywords=()} : f32 #! %v was
        }""",
    ),
    "memory freed twice": (
        16,
        """\
        host @f() -> () {
          %x = alloc {escapes=false} : f32[4]
          free %x
          free %x  #! %x was freed before
        }""",
    ),
    "a parameter freed": (
        16,
        """\
        host @f(%x: f32[4]) -> () {
          free %x  #! %x is not this function's to free
        }""",
    ),
    "a launch of nothing": (
        18,
        """\
        host @f(%x: f32[4]) -> () {
          launch %x {kernel="k", grid=1, sizes=()}  #! there is no tile function @k
        }""",
    ),
    "a launch with too few buffers": (
        18,
        """\
        host @f(%x: f32[4]) -> () {
          launch %x {kernel="k", grid=1, sizes=()}  #! @k takes 2 buffers, not 1
        }
        tile @k(%x: buffer<f32, "(4:mem@32)">, %y: buffer<f32, "(4:mem@32)">) -> () {}
        """,
    ),
    "a launch with too few sizes": (
        18,
        """\
        host @f(%x: f32[4]) -> () {
          launch %x {kernel="k", grid=1, sizes=()}  #! @k takes 1 sizes, not 0
        }
        tile @k(%x: buffer<f32, "(4:mem@32)">) -> () symbols [s0] {}""",
    ),
    "a launch with another dtype": (
        18,
        """\
        host @f(%x: f16[4]) -> () {
          launch %x {kernel="k", grid=1, sizes=()}  #! but its parameter buffer<f32
        }
        tile @k(%x: buffer<f32, "(4:mem@32)">) -> () {}""",
    ),
    "a launch of a function with results": (
        18,
        """\
        host @f() -> () {
          launch {kernel="k", grid=1, sizes=()}  #! @k yields values
        }
        tile @k() -> (i64) { %p = program_id : i64  yield %p }""",
    ),
}


def broken(ir: Any) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        verify(ir)
    return caught.value


@pytest.mark.parametrize(("invariant", "text"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_said_of_its_op(invariant: int, text: str) -> None:
    text = dedent(text)
    (number,) = (n for n, line in enumerate(text.splitlines(), 1) if "#!" in line)
    source, expected = text.splitlines()[number - 1].split("#!")
    error = broken(parse_module(text))
    assert expected.strip() in error.what
    assert f"(invariant {invariant})" in error.what
    assert error.where.line == number
    (shown,) = (line[2:] for line in error.ir.splitlines() if line.startswith(">"))
    assert shown.split("=")[0].strip() == source.split("=")[0].strip()


HEADS = {
    "a symbol declared twice": (6, "() -> () symbols [s0, s0] {}", "declared twice"),
    "a reserved word": (6, "() -> () symbols [nan] {}", "nan means a value"),
    "a parameter of another level": (2, "(%x: tile<f32[4]>) -> () {}", "is Tile"),
    "too few returns": (
        15,
        "(%x: f32) -> (f32, f32) returns_into [0] { yield %x, %x }",
        "returns_into has 1 entries for 2",
    ),
    "two returns into one": (
        15,
        "(%x: f32) -> (f32, f32) returns_into [0, 0] { yield %x, %x }",
        "two results return into one parameter",
    ),
    "a return into nothing": (
        15,
        "(%x: f32) -> (f32) returns_into [1] { yield %x }",
        "there is no parameter 1 of 1",
    ),
    "a return into another type": (
        15,
        "(%x: f32, %y: f16) -> (f32) returns_into [1] { yield %x }",
        "%x is f32, its parameter f16",
    ),
    "a frozen parameter that is not there": (
        20,
        "(%x: f32) -> (f32) frozen [1] { yield %x }",
        "there is no parameter 1 of 1 to be frozen",
    ),
    "a parameter frozen twice": (
        20,
        "(%x: f32) -> (f32) frozen [0, 0] { yield %x }",
        "parameter 0 is frozen twice",
    ),
    "a return into what is frozen": (
        20,
        "(%x: f32) -> (f32) returns_into [0] frozen [0] { yield %x }",
        "a result returns into parameter 0, which is frozen",
    ),
}


@pytest.mark.parametrize(("invariant", "text", "what"), HEADS.values(), ids=HEADS)
def test_what_is_broken_is_said_of_functions(
    invariant: int, text: str, what: str
) -> None:
    error = broken(parse_module(f"graph @f{text}"))
    assert what in error.what
    assert f"(invariant {invariant})" in error.what


@pytest.mark.parametrize(
    ("spread", "layout", "what"),
    [
        ("(4:reg)", ', "(4:reg)"', "there are no tiles to lay out"),
        ("(2:reg, 2:lane)", "", "%0 has 1 dimensions, the spread 2"),
        ("(4:reg < {s0})", "", "s0 in s0 is not declared"),
    ],
)
def test_a_spread_is_for_tiles_without_layouts(
    spread: str, layout: str, what: str
) -> None:
    text = f"""\
    tile @f(%x: buffer<f32, "(4:mem@32)">) -> () spread "{spread}" {{
      %o = const(0) : i64
      %0 = load_tile %x, %o {{strides=(1,)}} : tile<f32[4]{layout}>
    }}"""
    assert what in broken(parse_module(text)).what
    verify(parse_module(text.replace(spread, "(4:reg)").replace(layout, "")))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("%0 = load_tile %x, %x {strides=(1,)}", "the offset is Buffer, not an i64"),
        (
            "%0 = load_tile %x, %o, %m, %i {strides=(1,), masked=true}",
            r"load_tile: i64\[4\] where f32\[4\] belongs",
        ),
        (
            "%0 = load_tile %x, %o, %m {strides=(1,), indirect=true}",
            r"load_tile: bool\[4\] where i64\[4\] belongs",
        ),
        (
            "%0 = load_tile %x, %o, %o {strides=(1,), limited=(1,)}",
            r"load_tile: dims \(1,\) of 1",
        ),
        (
            "%0 = load_tile %x, %o, %o, %o {strides=(1,), limited=(0, 0)}",
            r"load_tile: dims \(0, 0\) of 1",
        ),
        (
            "%0 = load_tile %x, %o, %i {strides=(1,), limited=(0,)}",
            "a limit is Tile, not an i64",
        ),
        (
            "%0 = load_tile %x, %o {strides=(1,), limited=(0,)}",
            "load_tile: 0 operands where 1 belong",
        ),
        ("store_tile %f, %x, %o, %o {strides=(1,), limited=(-1,)} %0 = neg %f",
         r"store_tile: dims \(-1,\) of 1"),
        ("%0 = guard %f, %o {limited=(2,), identity=0.0}", r"guard: dims \(2,\) of 1"),
        ("%0 = iota_tile %o {dim=1}", r"iota_tile: dims \(1,\) of 1"),
        ("%0 = iota_tile %i {dim=0}", "the origin is Tile, not an i64"),
        ("%0 = iota_tile %o {dim=0}", "coordinates are i64, not f32"),
        ("%0 = reduce_tile %f {dims=(1,), monoid=sum<f32>}",
         r"reduce_tile: dims \(1,\) of 1"),
        ("%0 = reduce_tile %o {dims=(0,), monoid=sum<i64>}",
         "reduce_tile of Scalar.*, which has no dimensions"),
    ],
)  # fmt: skip
def test_what_a_tile_is_read_by(line: str, what: str) -> None:
    text = f"""\
    tile @f(%x: buffer<f32, "(4:mem@32)">) -> () {{
      %o = const(0) : i64
      %i = iota_tile %o {{dim=0}} : tile<i64[4], "(4:reg)">
      %m = lt %i, %i : tile<bool[4], "(4:reg)">
      %f = load_tile %x, %o {{strides=(1,)}} : tile<f32[4], "(4:reg)">
      {line} : tile<f32[4], "(4:reg)">
    }}"""
    with pytest.raises(ParseError, match=what):
        parse_module(text)


def test_functions_have_different_names() -> None:
    error = broken(parse_module("graph @f() -> () {} graph @f() -> () {}"))
    assert error.what == "two functions are called @f (invariant 17)"


def test_a_freed_tensor_is_not_returned() -> None:
    text = """\
    host @f() -> (f32[4]) {
      %x = alloc {escapes=true} : f32[4]
      free %x
      yield %x
    }"""
    assert "%x was freed before (invariant 16)" in broken(parse_module(text)).what


# What no text can say, because the parser refuses it.


def function(*ops: Op, params: tuple[Value, ...] = (), yields: Any = ()) -> Function:
    return Function("f", Level.GRAPH, Block(params, ops, yields))


X = Value(Tensor(f32, (4,)), "x")
Y = Value(Tensor(f32, (4,)), "y")


def test_a_value_is_defined_once() -> None:
    op = Exp((X,), (), (), (Y,))
    error = broken(function(op, op, params=(X,)))
    assert error.what == "%y is defined twice (invariant 2)"
    assert broken(function(params=(X, X))).what == "%x is defined twice (invariant 2)"


def test_values_are_defined_before_they_are_read() -> None:
    op, use = Exp((X,), (), (), (Y,)), Exp((Y,), (), (), (Value(Y.type, "z"),))
    assert "%y is not defined before" in broken(function(use, op, params=(X,))).what
    error = broken(function(op, params=(X,), yields=(use.result,)))
    assert error.what == "%z is not defined before it is read (invariant 3)"


def test_values_of_a_block_end_with_it() -> None:
    text = """\
    tile @f(%n: i64) -> () {
      for %n, %n {step=1} {
        ^(%k: i64):
        %c = add %k, %n : i64
      }
    }"""
    (f,) = parse_module(text).functions
    (inner,) = f.body.ops[0].blocks[0].ops
    late = Add((inner.result, inner.result), (), (), (Value(inner.result.type, "z"),))
    body = Block(f.params, (*f.body.ops, late))
    error = broken(Function("f", Level.TILE, body))
    assert error.what == "%c is not defined before it is read (invariant 3)"


@pytest.mark.parametrize(
    ("op", "what"),
    [
        (Exp((X, X), (), (), (Y,)), "exp takes 1 operand, not 2"),
        (Exp((X,), (1,), (), (Y,)), "exp has 0 attributes, not 1"),
        (Exp((X,), (), (Block((), ()),), (Y,)), "exp has 0 blocks, not 1"),
        (Reshape((X,), ([4],), (), (Y,)), "reshape has shape=[4], which is not"),
        (Reshape((X,), ((4.0,),), (), (Y,)), "reshape has shape=(4.0,)"),
        (Reshape((X,), ((True,),), (), (Y,)), "reshape has shape=(True,)"),
        (Cast((X,), ("f32",), (), (Y,)), "cast has dtype='f32'"),
        (Extern((), (1, (), (), ()), (), ()), "extern has target=1"),
        (Extern((), ("t", ({},), (), ()), (), ()), "extern has arguments=({},)"),
        (Extern((), ("t", None, (), ()), (), ()), ""),
    ],
)
def test_ops_have_the_form_of_their_class(op: Op, what: str) -> None:
    ir = function(op, params=(X,))
    if not what:
        verify(ir)
        return
    error = broken(ir)
    assert what in error.what
    assert error.what.endswith("(invariant 4)")


def test_results_have_the_types_that_are_inferred() -> None:
    wrong = Exp((X,), (), (), (Value(Tensor(f32, (5,)), "y"),))
    error = broken(function(wrong, params=(X,)))
    assert error.what == "exp gives f32[4], but its results are f32[5] (invariant 5)"
    misfit = Reshape((X,), ((5,),), (), (Y,))
    assert "sizes differ (invariant 5)" in broken(function(misfit, params=(X,))).what
    none = Exp((X,), (), (), ())
    assert "its results are nothing" in broken(function(none, params=(X,))).what


def test_inference_that_stumbles_is_a_type_error() -> None:
    class Stumble(Op):
        @classmethod
        def infer(cls, operands: Any, attrs: Any, blocks: Any) -> Any:
            raise IndexError("tuple index out of range")

    with pytest.raises(TypeError, match="IndexError: tuple index out of range"):
        inferred_types(Stumble, (), (), ())


@pytest.mark.parametrize("terms", [((0, 0),), ((0, 1), (0, 2))])
def test_an_index_is_in_normal_form(terms: Any) -> None:
    i = Axis("i", 4)
    affine = Affine(tuple((i, stride) for _, stride in terms))
    b = Builder(Level.LOOP)
    a = b.param(X.type, "a")
    point = Value(Load.infer((a,), ((affine,), False), ())[0])
    load = Load((a,), ((affine,), False), (), (point,))
    block = "{^(%a: f32[4], %b: f32[4]): }"
    text = f"loop @f(%x: f32[4]) -> () {{ %y = region %x : f32[4] {block} }}"
    (f,) = parse_module(text).functions
    region = f.body.ops[0]
    params = (a, region.blocks[0].params[1])
    new = type(region)(region.operands, (), (Block(params, (load,)),), region.results)
    error = broken(Function("f", Level.LOOP, Block(f.params, (new,))))
    assert "has an axis twice, or times 0 (invariant 10)" in error.what


# What the message looks like, and what is valid.


def test_the_op_is_shown_among_its_neighbours() -> None:
    text = """\
    graph @f(%x: f32[4], %s: f32) -> () {
      %a = exp %x : f32[4]
      %b = exp %a : f32[4]
      %c = size(s0) : i64
      %d = exp %b : f32[4]
      %e = exp %d : f32[4]
      %g = exp %e : f32[4]
    }"""
    error = broken(parse_module(dedent(text), "model.ir"))
    assert str(error) == dedent(f"""\
        s0 in s0 is not declared (invariant 6)
              %a = exp %x : f32[4]
              %b = exp %a : f32[4]
          >   %c = size(s0) : i64
              %d = exp %b : f32[4]
              %e = exp %d : f32[4]
          invariant 6: {INVARIANTS[6]}
          help: add it to the symbols of the function
          at model.ir:4""")


def test_the_invariants_are_numbered_in_order() -> None:
    assert list(INVARIANTS) == list(range(1, 23))
    tested = {k for k, _ in BROKEN.values()} | {k for k, *_ in HEADS.values()}
    assert tested | {3, 4, 5, 17, 19} == set(INVARIANTS)


def test_a_scalar_is_computed_inside_the_region() -> None:
    text = """\
    loop @f(%x: f32[s0]) -> (f32[s0]) symbols [s0] {
      %n = size(s0) : i64
      %y = region %x over i:s0 : f32[s0] {
        ^(%a: f32[s0], %b: f32[s0]):
        %0 = load %a [i] : f32{i}
        %c = cast %n : f32
        %1 = mul %0, %c : f32{i}
        store %1, %b [i]
      }
      yield %y
    }"""
    error = broken(parse_module(text))
    assert "%n comes from outside of the region (invariant 9)" in error.what
    assert "help: compute it inside" in error.ir


def test_stores_may_scatter_and_repeat() -> None:
    text = """\
    loop @f(%x: f32[4], %k: i64[4]) -> () {
      %y = region %x, %k over i:4, j:8, one:1 : f32[8], f32[9, 8] {
        ^(%a: f32[4], %at: i64[4], %b: f32[8], %c: f32[9, 8]):
        %0 = load %a [i] : f32{i}
        %1 = load %at [i] : i64{i}
        store %0, %b, %1 [$0]
        %z = const(0.0) : f32
        store %z, %c [8, j]
        %p = coordinate(one) : i64{one}
        %q = cast %p : f32{one}
        store %q, %c [i, j]
      }
    }"""
    text = text.replace("%y = region", "%y, %w = region")
    verify(parse_module(text))


def test_a_launch_alone_needs_no_module() -> None:
    text = 'host @f() -> () { launch {kernel="k", grid=1, sizes=()} }'
    module = parse_module(text)
    verify(module.functions[0])
    assert "no tile function" in broken(module).what


def test_symbols_of_facts_need_no_use() -> None:
    b = Builder(Level.GRAPH)
    verify(b.function("f", symbols=(Symbol("s0"),)))
    verify(Module((b.function("f"), b.function("g", (b.const(1, i64),)))))


_SCATTER = 'scatter %x, {} {{places=({}), combine="{}"}}'


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("pad %x, %x {low=(0,), high=(0,)}", "pad of .*, which is no element"),
        ("pad %x, %n {low=(0,), high=(0,)}", "pad of .*, which is no element"),
        ("slice %x {dim=1, start=0, length=4, step=1}", r"slice: dims \(1,\) of 1"),
        ("concat %x, %x {dim=-1}", r"concat: dims \(-1,\) of 1"),
        ("index %x, %i, %i {dims=(0, 0), at=0}", r"index: dims \(0, 0\) of 1"),
        ("gather %x, %i {dim=2}", r"gather: dims \(2,\) of 1"),
        ("iota((4,)) {dim=1}", r"iota: dims \(1,\) of 1"),
        ("reduce_dims %x {dims=(1,), monoid=sum<f32>}", r"dims \(1,\) of 1"),
        ("scan_dim %x {dim=1, monoid=sum<f32>}", r"dims \(1,\) of 1"),
        (_SCATTER.format("%x, %i", "-1,", "xor"), "no way 'xor' to combine"),
        (_SCATTER.format("%x, %i", "-1, 0", "sum"), r"scatter of .* by \(-1, 0\)"),
        (_SCATTER.format("%x", "1,", "sum"), r"scatter: dims \(1,\) of 1"),
        (_SCATTER.format("%x", "-1,", "sum"), r"0 indices, but places \(-1,\)"),
        (_SCATTER.format("%x, %i, %i", "-1,", "sum"), "2 indices, but places"),
        (_SCATTER.format("%i, %i", "-1,", "sum"), "scatter of .* into"),
    ],
)
def test_what_moves_elements_names_dimensions_that_there_are(
    line: str, what: str
) -> None:
    text = f"""\
    graph @f(%x: f32[4], %i: i64[4], %n: i64) -> (f32[4]) {{
      %y = {line} : f32[4]
      yield %y
    }}"""
    with pytest.raises(ParseError, match=what):
        parse_module(text)


def test_what_is_stored_is_an_element() -> None:
    text = """\
    loop @f(%x: f32[4]) -> (f32[4]) {
      %y = region %x over i:4 : f32[4] {
        ^(%a: f32[4], %b: f32[4]):
        store %a, %b [i]
      }
      yield %y
    }"""
    with pytest.raises(ParseError, match=r"store of .* into"):
        parse_module(text)


@pytest.mark.parametrize(
    ("update", "what"),
    [
        ('%v, %y, %x [i] {axes=(i,), combine="xor"}', "no way 'xor' to combine"),
        ('%v, %y, %i [i] {axes=(i,), combine="sum"}', "cannot begin as"),
        ('%i, %y, %x [i] {axes=(i,), combine="sum"}', "update of .* into"),
        ('%v, %y, %x [i, i] {axes=(i,), combine="sum"}', "does not fit"),
        ('%v, %y, %x, %v [i] {axes=(i,), combine="sum", masked=true}', "mask of type"),
    ],
)
def test_what_an_update_takes(update: str, what: str) -> None:
    text = f"""\
    loop @f(%a: f32[4], %b: i64[4]) -> (f32[4]) {{
      %c = region %a, %b over i:4 : f32[4] {{
        ^(%x: f32[4], %i: i64[4], %y: f32[4]):
        %v = load %x [i] : f32{{i}}
        update {update}
      }}
      yield %c
    }}"""
    with pytest.raises(ParseError, match=what):
        parse_module(text)
