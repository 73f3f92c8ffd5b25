"""The text form: what it looks like, that it reads back as the same IR, bad texts."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusec.errors import Loc, ParseError, VerificationError
from fusec.ir.builder import Builder, attrs_key
from fusec.ir.calls import Named, Slot
from fusec.ir.core import Affine, Block, Function, Level, Module, Op, Value
from fusec.ir.dims import Dim, Facts, Symbol, ceil_div, dim_max, dim_min
from fusec.ir.dtypes import bool_, codebook, f16, f32, f64, float_, i64
from fusec.ir.layout import LANE, REG, TIME, row_major, tile_layout
from fusec.ir.literals import DEEPEST_TUPLE, LARGEST_DIM
from fusec.ir.monoids import MAKERS, monoid
from fusec.ir.opdef import REGISTRY
from fusec.ir.ops.cast import Bitcast, Cast
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.elementwise import Add, Exp, Lt, Mul, Neg, Select, Sub
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.host import Alloc, CopyInto, Launch
from fusec.ir.ops.loop import Coordinate, Load, Region, Store, View
from fusec.ir.ops.reduction import Reduce, ReduceDims, ReduceTile
from fusec.ir.ops.tile import (
    BroadcastTile,
    Convert,
    For,
    Guard,
    LoadTile,
    ProgramId,
    Scratch,
    StoreTile,
)
from fusec.ir.ops.view import Broadcast, Reshape
from fusec.ir.parser import parse_function, parse_module
from fusec.ir.printer import format_function, format_module, format_op
from fusec.ir.types import (
    Axis,
    Buffer,
    Points,
    Scalar,
    Space,
    Tensor,
    Tile,
    Token,
    Type,
)
from fusec.ir.verifier import verify

S0, S1 = Symbol("s0"), Symbol("s1")


# One function per level, built, and as it reads.


def graph_function() -> Function:
    b = Builder(Level.GRAPH)
    x = b.param(Tensor(f32, (S0, 8), (16, 1)), "x")
    y = b.param(Scalar(f32), "scale")
    total = b(ReduceDims, b(Mul, b(Exp, x), y), dims=(1,), monoid=monoid("sum", f32))
    wide = b(Broadcast, b(Reshape, total, shape=(S0, 1)), shape=(S0, 8))
    call = ("aten.cumsum.default", (Slot(0), 1), (("dtype", Named("dtype", "f32")),))
    made = b.emit(Extern, (wide,), (*call, (Tensor(f32, (S0, 8)),)), (), None, ("c",))
    facts = Facts(((S0, 2, 4096), (S1, 1, None)), ((S0 * S1, 64),))
    return b.function("scan", made, symbols=(S0, S1), facts=facts, returns_into=(None,))


GRAPH = """\
graph @scan(%x: f32[s0, 8] strides [16, 1], %scale: f32) -> (f32[s0, 8])
    symbols [s0, s1]
    facts [2 <= s0 <= 4096, 1 <= s1, 64 divides s0*s1]
    returns_into [none] {
  %0 = exp %x : f32[s0, 8] strides [16, 1]
  %1 = mul %0, %scale : f32[s0, 8] strides [16, 1]
  %2 = reduce_dims %1 {dims=(1,), monoid=sum<f32>} : f32[s0]
  %3 = reshape %2 {shape=(s0, 1)} : f32[s0, 1]
  %4 = broadcast %3 {shape=(s0, 8)} : f32[s0, 8]
  %c = extern %4 {target="aten.cumsum.default", arguments=($0, 1), \
keywords=(("dtype", named("dtype", "f32")),)} : f32[s0, 8]
  yield %c
}
"""


def loop_function() -> Function:
    b = Builder(Level.LOOP)
    x = b.param(Tensor(f32, (S0, 768)), "x")
    i, j = Axis("i", S0), Axis("j", 768)
    inner = b.nested()
    source, target = inner.param(x.type, "x"), inner.param(x.type, "y")
    index = (Affine.of(i), Affine.of(j))
    (point,) = inner.emit(Load, (source,), (index, False))
    (most,) = inner.emit(Reduce, (point,), ((j,), monoid("max", f32)), (), None, ("m",))
    flipped = (Affine(((i, 1),)), Affine(((j, -1),), 767))
    inner.emit(Store, (inner(Sub, point, most), target), (flipped,))
    (y,) = b.emit(Region, (x,), (), (inner.block(),), Loc("model.py", 12), ("y",))
    return b.function("centre", (y,), symbols=(S0,))


LOOP = """\
loop @centre(%x: f32[s0, 768]) -> (f32[s0, 768])
    symbols [s0] {
  %y = region %x over i:s0, j:768 : f32[s0, 768] {
    ^(%x_1: f32[s0, 768], %y_1: f32[s0, 768]):
    %0 = load %x_1 [i, j] : f32{i, j}
    %m = reduce %0 {axes=(j,), monoid=max<f32>} : f32{i}
    %1 = sub %0, %m : f32{i, j}
    store %1, %y_1 [i, -j + 767]
  }
  yield %y
}
"""

MEMORY = row_major((1000,), 32)
REGISTERS = tile_layout((64,), [[(TIME, 2), (REG, 2), (LANE, 16)]])


def tile_function() -> Function:
    b = Builder(Level.TILE)
    x, y = (b.param(Buffer(f32, MEMORY), hint) for hint in "xy")
    offset = b(Mul, b(ProgramId), b.const(64, i64))
    limit = b(Sub, b.const(1000, i64), offset)
    type_ = Tile(f32, (64,), REGISTERS)
    t = b(LoadTile, x, offset, limit, type=type_, strides=(1,), limited=(0,))
    t = b(Guard, t, limit, limited=(0,), identity=-math.inf)
    body = b.nested()
    counter, carried = body.param(Scalar(i64), "k"), body.param(type_, "acc")
    scaled = body(Mul, carried, body(Cast, counter, dtype=f32))
    block = body.block((scaled,))
    bounds = (b.const(0, i64), limit, t)
    (looped,) = b.emit(For, bounds, (4, -1), (block,))
    attrs = ((1,), (0,), False, False, True, "")
    b.emit(StoreTile, (looped, y, offset, limit), attrs)
    return b.function("scale", (), symbols=(S0,))


TILE = """\
tile @scale(%x: buffer<f32, "(1000:mem@32)">, %y: buffer<f32, "(1000:mem@32)">) -> ()
    symbols [s0] {
  %0 = program_id : i64
  %1 = const(64) : i64
  %2 = mul %0, %1 : i64
  %3 = const(1000) : i64
  %4 = sub %3, %2 : i64
  %5 = load_tile %x, %2, %4 {strides=(1,), limited=(0,)} \
: tile<f32[64], "(2:time 2:reg 16:lane)">
  %6 = guard %5, %4 {limited=(0,), identity=-inf} \
: tile<f32[64], "(2:time 2:reg 16:lane)">
  %7 = const(0) : i64
  %8 = for %7, %4, %6 {step=4} : tile<f32[64], "(2:time 2:reg 16:lane)"> {
    ^(%k: i64, %acc: tile<f32[64], "(2:time 2:reg 16:lane)">):
    %9 = cast %k : f32
    %10 = mul %acc, %9 : tile<f32[64], "(2:time 2:reg 16:lane)">
    yield %10
  }
  store_tile %8, %y, %2, %4 {strides=(1,), limited=(0,), streaming=true}
}
"""


def host_function() -> Function:
    b = Builder(Level.HOST)
    x = b.param(Tensor(f32, (1000,)), "x")
    y = b(Alloc, type=x.type, escapes=True)
    b.emit(Launch, (x, y), ("scale", ceil_div(S0, 64), (S0,)))
    v = b(View, y, type=Tensor(f32, (10, 10), (10, 1)), offset=S0 // 2)
    b.emit(CopyInto, (y, x))
    return b.function("main", (y, v), symbols=(S0,))


HOST = """\
host @main(%x: f32[1000]) -> (f32[1000], f32[10, 10] strides [10, 1])
    symbols [s0] {
  %0 = alloc {escapes=true} : f32[1000]
  launch %x, %0 {kernel="scale", grid=(s0 + 63)//64, sizes=(s0,)}
  %1 = view %0 {offset=s0//2} : f32[10, 10] strides [10, 1]
  copy_into %0, %x
  yield %0, %1
}
"""

EXAMPLES = {
    "graph": (graph_function, GRAPH),
    "loop": (loop_function, LOOP),
    "tile": (tile_function, TILE),
    "host": (host_function, HOST),
}
TEXTS = [text for _, text in EXAMPLES.values()]


@pytest.mark.parametrize(("build", "text"), EXAMPLES.values(), ids=EXAMPLES)
def test_how_each_level_reads(build: Callable[[], Function], text: str) -> None:
    function = build()
    verify(function)
    assert format_function(function) == text
    assert_same(parse_function(text), function)


def test_a_module_is_its_functions() -> None:
    module = Module((host_function(), tile_function()))
    verify(module)
    text = format_module(module)
    assert text == f"{HOST}\n{TILE}"
    assert format_module(parse_module(text)) == text


# The same IR: a bijection of values and axes, all else equal.


class Same:
    """Asserts that two functions are equal but for the identity of their nodes."""

    def __init__(self) -> None:
        self.values: dict[Value, Value] = {}
        self.axes: dict[Axis, Axis] = {}

    def function(self, f: Function, g: Function) -> None:
        assert (f.name, f.level, f.symbols) == (g.name, g.level, g.symbols)
        assert (f.facts, f.returns_into) == (g.facts, g.returns_into)
        assert f.frozen == g.frozen
        self.block(f.body, g.body)

    def block(self, a: Block, b: Block) -> None:
        for x, y in zip(a.params, b.params, strict=True):
            self.define(x, y)
        for p, q in zip(a.ops, b.ops, strict=True):
            self.op(p, q)
        assert tuple(self.values[v] for v in a.yields) == b.yields

    def op(self, p: Op, q: Op) -> None:
        assert type(p) is type(q)
        assert tuple(self.values[v] for v in p.operands) == q.operands
        for a, b in zip(p.blocks, q.blocks, strict=True):
            self.block(a, b)
        assert attrs_key(self.image(p.attrs)) == attrs_key(q.attrs)
        for x, y in zip(p.results, q.results, strict=True):
            self.define(x, y)

    def define(self, x: Value, y: Value) -> None:
        self.values[x] = y
        assert self.image(x.type, y.type) == y.type

    def image(self, thing: Any, like: Any = None) -> Any:
        """A thing of the first function with the second's axes."""
        match thing:
            case Points(dtype, axes):
                for axis, other in zip(axes, like.axes if like else axes, strict=True):
                    self.pair(axis, other)
                return Points(dtype, tuple(self.axes[axis] for axis in axes))
            case Axis():
                return self.axes[thing]
            case Affine(terms, const):
                return Affine(tuple((self.axes[a], s) for a, s in terms), const)
            case tuple():
                return tuple(self.image(part) for part in thing)
            case _:
                return thing

    def pair(self, axis: Axis, other: Axis) -> None:
        assert axis.extent == other.extent
        assert self.axes.setdefault(axis, other) is other


def assert_same(f: Function, g: Function) -> None:
    same = Same()
    for p, q in zip(regions(f), regions(g), strict=True):
        for axis, other in zip(axes_in(p), axes_in(q), strict=True):
            same.pair(axis, other)
    same.function(f, g)


def regions(f: Function) -> list[Op]:
    return [op for op in f.body.ops if isinstance(op, Region)]


def axes_in(region: Op) -> list[Axis]:
    found: dict[Axis, None] = {}
    for op in region.blocks[0].ops:
        for value in op.results:
            if isinstance(value.type, Points):
                found.update(dict.fromkeys(value.type.axes))
        for attr in op.attrs:
            for part in attr if isinstance(attr, tuple) else (attr,):
                parts = part.axes if isinstance(part, Affine) else (part,)
                found.update((a, None) for a in parts if isinstance(a, Axis))
    return list(found)


def assert_round_trip(function: Function) -> None:
    text = format_function(function)
    parsed = parse_function(text)
    assert format_function(parsed) == text
    assert_same(function, parsed)
    canonical = format_function(function, canonical=True)
    assert format_function(parsed, canonical=True) == canonical
    again = parse_function(canonical)
    assert format_function(again, canonical=True) == canonical


# Random functions of each level.

HINTS = st.sampled_from(["", "", "x", "x_1", "y", "0", "bad name", "yield", "é", "inf"])
SIZES = st.integers(1, 64)


@st.composite
def dims(draw: st.DrawFn) -> Dim:
    atoms = st.one_of(st.integers(-9, 99), st.sampled_from([S0, S1]))
    dim: Dim = draw(atoms)
    for _ in range(draw(st.integers(0, 4))):
        other, n = draw(atoms), draw(st.integers(2, 9))
        steps = [dim + other, dim * other, dim // n, dim % n, other - dim]
        dim = draw(st.sampled_from([*steps, dim_max(dim, other), dim_min(dim, other)]))
    return dim


@st.composite
def graphs(draw: st.DrawFn) -> Function:
    b = Builder(Level.GRAPH)
    shape = draw(st.tuples(dims(), st.sampled_from([S0, 4, 1])))
    strides = draw(st.one_of(st.none(), st.tuples(dims(), dims())))
    values = [
        b.param(Tensor(f32, shape, strides), draw(HINTS)),
        b.param(Scalar(f32), draw(HINTS)),
    ]
    for _ in range(draw(st.integers(0, 8))):
        x, y = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        choice = draw(st.integers(0, 4))
        if choice == 0:
            new = b(draw(st.sampled_from([Exp, Neg])), x)
        elif choice == 1:
            new = b(draw(st.sampled_from([Add, Mul, Sub])), x, y)
        elif choice == 2:
            new = b(Select, b(Lt, x, y), x, y)
        elif choice == 3:
            new = b.const(draw(st.floats(width=32)), f32)
        else:
            new = b(Cast, b(Cast, x, dtype=f16), dtype=f32)
        values.append(new)
    symbols = draw(st.permutations([S0, S1]))
    ranges = draw(st.lists(st.tuples(st.sampled_from([S0, S1]), SIZES, st.none())))
    facts = Facts(tuple(ranges), tuple((S0 * n, n + 1) for n in range(len(ranges))))
    into = draw(st.sampled_from([(), (None, 0)]))
    yields = tuple(draw(st.lists(st.sampled_from(values), min_size=2, max_size=2)))
    function = b.function(
        draw(st.sampled_from(["f", "a.b$0", "two words", 'q"', ""])),
        yields,
        symbols=tuple(symbols),
        facts=facts,
        returns_into=into,
    )
    return replace(function, frozen=draw(st.sampled_from([(), (1,)])))


@st.composite
def loops(draw: st.DrawFn) -> Function:
    b = Builder(Level.LOOP)
    tensors = [b.param(Tensor(f32, (64, S0)), draw(HINTS))]
    for _ in range(draw(st.integers(1, 3))):
        inputs = tuple(draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3)))
        block = draw(bodies(b, inputs))
        hints = tuple(draw(HINTS) for _ in block.params[len(inputs) :])
        tensors += b.emit(Region, inputs, (), (block,), None, hints)
    return b.function("f", tensors[1:], symbols=(S0, S1))


@st.composite
def bodies(draw: st.DrawFn, outer: Builder, inputs: tuple[Value, ...]) -> Block:
    b = outer.nested()
    names = st.sampled_from(["i", "i", "j", "s0", "nan", "bad name"])
    axes = [Axis(draw(names), n) for n in (64, S0, draw(dims()))]
    params = [b.param(value.type, draw(HINTS)) for value in inputs]
    target = b.param(Tensor(f32, (64, S0)), draw(HINTS))
    points: list[Value] = []
    for param in params:
        index = tuple(draw(st.lists(entries(axes), min_size=2, max_size=2)))
        points += b.emit(Load, (param,), (index, False))
    where = b(Coordinate, axis=axes[draw(st.integers(0, 2))])
    zero, mask = b.const(-0.0, f32), b(Lt, where, b.size(S0))
    index = (Slot(0), Affine.of(axes[1]))
    points += b.emit(Load, (params[0], where, mask, zero), (index, True))
    total = points[0]
    for point in points[1:]:
        total = b(Add, total, point)
    if axes[2] in getattr(total.type, "axes", ()):
        name = draw(st.sampled_from(["sum", "max"]))
        (total,) = b.emit(Reduce, (total,), ((axes[2],), monoid(name, f32)))
    attrs = ((Affine.of(axes[0]), Affine.of(axes[1])),)
    b.emit(Store, (total, target), attrs)
    return b.block()


@st.composite
def entries(draw: st.DrawFn, axes: list[Axis]) -> Affine:
    total = Affine((), draw(dims()))
    for axis in draw(st.lists(st.sampled_from(axes), max_size=3)):
        stride = draw(st.one_of(st.sampled_from([1, -1]), dims()))
        total = total + Affine(((axis, 1),)) * stride
    return total


@st.composite
def tiles(draw: st.DrawFn) -> Function:
    b = Builder(Level.TILE)
    space = draw(st.sampled_from(list(Space)))
    x = b.param(Buffer(f32, row_major((draw(SIZES), S0), 32), space), draw(HINTS))
    laid = tile_layout((4, 8), [[(REG, 4)], [(TIME, 2), (LANE, 4)]])
    type_ = Tile(f32, (4, 8), draw(st.sampled_from([None, laid])))
    strides = draw(st.tuples(dims(), dims()))
    ahead = draw(dims())
    value = b(LoadTile, x, b.const(0, i64), type=type_, strides=strides, prefetch=ahead)
    if draw(st.booleans()):
        reduced = b(ReduceTile, value, dims=(1,), monoid=monoid("sum", f32))
        value = b(BroadcastTile, reduced, type=type_)
    depth = draw(st.integers(0, 3))
    value = draw(nests(b, value, depth))
    if type_.layout:
        value = b(Convert, value, layout=laid)
    b(Scratch, type=Buffer(f16, row_major((8,), 16), Space.SCRATCH))
    b.emit(
        StoreTile, (value, x, b.const(1, i64)), (strides, (), False, False, False, "")
    )
    return b.function("k", (), symbols=(S0, S1))


@st.composite
def nests(draw: st.DrawFn, b: Builder, value: Value, depth: int) -> Value:
    if depth == 0:
        return b(Exp, value)
    body = b.nested()
    body.param(Scalar(i64), draw(HINTS))
    carried = body.param(value.type, draw(HINTS))
    block = body.block((draw(nests(body, carried, depth - 1)),))
    bounds = (b.const(0, i64), b.size(S0), value)
    (result,) = b.emit(For, bounds, (draw(SIZES), -1), (block,))
    return result


@given(graphs())
def test_graphs_round_trip(function: Function) -> None:
    assert_round_trip(function)


@given(loops())
def test_loops_round_trip(function: Function) -> None:
    assert_round_trip(function)


@given(tiles())
def test_tiles_round_trip(function: Function) -> None:
    assert_round_trip(function)


# Attributes of every kind.


def one(op_class: Any, operands: tuple[Any, ...], *attrs: Any) -> Function:
    """A function of one op, on parameters of these types."""
    level = op_class.levels[0]
    b = Builder(level)
    params = [b.param(type_) for type_ in operands]
    types = op_class.infer(tuple(params), attrs, ())
    results = tuple(Value(type_) for type_ in types)
    body = Block(tuple(params), (op_class(tuple(params), attrs, (), results),), results)
    return Function("f", level, body, (S0, S1))


TREES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(),
        st.text(),
        dims(),
        st.integers(0, 9).map(Slot),
        st.builds(Named, st.text(), st.text()),
    ),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
)


@given(TREES)
def test_arguments_of_calls_round_trip(tree: Any) -> None:
    assert_round_trip(one(Extern, (), "t", (tree,), (), ()))


@given(st.one_of(st.floats(), st.integers(-(2**64), 2**64), st.booleans()))
def test_constants_are_exact(number: Any) -> None:
    function = one(Const, (), number, f64)
    (op,) = parse_function(format_function(function)).body.ops
    assert attrs_key(op.attrs) == attrs_key((number, f64))


@given(dims())
def test_dims_round_trip(dim: Dim) -> None:
    function = one(SizeOf, (), dim)
    (op,) = parse_function(format_function(function)).body.ops
    assert op.attrs == (dim,)


MONOIDS = [monoid(name, bool_ if name in ("any", "all") else f32) for name in MAKERS]


@pytest.mark.parametrize("found", MONOIDS, ids=lambda found: found.name)
def test_every_monoid_is_found_again(found: Any) -> None:
    types = [Tensor(param.type.dtype, (4,)) for param in found.combine.params]
    function = one(ReduceDims, tuple(types[: len(types) // 2]), (0,), found)
    (op,) = parse_function(format_function(function)).body.ops
    assert op.attrs[1] is found


@pytest.mark.parametrize(
    "type_",
    [
        Token(),
        Tensor(f32, ()),
        Tensor(f32, (), ()),
        Tensor(float_(4, 3), (0, 1)),
        Scalar(bool_),
        Tensor(f32, (S0 * S1 + 1, ceil_div(S0, 4)), (dim_max(S0, 1), -1)),
    ],
)
def test_types_round_trip(type_: Type) -> None:
    b = Builder(Level.GRAPH)
    assert_round_trip(b.function("f", (b.param(type_),), symbols=(S0, S1)))


def test_axes_outside_of_regions_are_the_function_s() -> None:
    b = Builder(Level.LOOP)
    x = b.param(Points(f32, (Axis("i", 4),)), "x")
    y = b.param(Points(f32, (Axis("i", S0),)), "y")
    function = b.function("f", (b(Add, x, y),), symbols=(S0,))
    text = format_function(function)
    assert text.startswith("over i:4, i_1:s0\nloop @f(%x: f32{i}, %y: f32{i_1})")
    assert format_function(parse_function(text)) == text


def test_long_heads_are_broken() -> None:
    b = Builder(Level.GRAPH)
    params = [b.param(Tensor(f32, (S0,)), f"a_rather_long_name_{k}") for k in range(3)]
    text = format_function(b.function("f", params[:1], symbols=(S0,)))
    assert text.startswith("""\
graph @f(
    %a_rather_long_name_0: f32[s0],
    %a_rather_long_name_1: f32[s0],
    %a_rather_long_name_2: f32[s0]
) -> (f32[s0])
    symbols [s0] {
""")
    assert format_function(parse_function(text)) == text


def test_codebooks_travel_with_the_text() -> None:
    ternary = codebook("ternary_of_test", (-1.0, 0.0, 1.0, math.nan))
    b = Builder(Level.GRAPH)
    text = format_function(b.function("f", (b.param(Tensor(ternary, (4,))),)))
    assert text.startswith("codebook ternary_of_test (-1.0, 0.0, 1.0, nan)\ngraph @f(")
    assert format_function(parse_function(text)) == text
    (param,) = parse_function(text.replace("of_test", "of_text")).params
    assert param.type.dtype.table[:3] == (-1.0, 0.0, 1.0)


def test_attributes_that_contradict_the_results_are_shown() -> None:
    b = Builder(Level.GRAPH)
    x = b.param(Tensor(f32, (4,)), "x")
    op = Bitcast((x,), (i64,), (), (Value(Tensor(f32, (4,)), "y"),))
    assert format_op(op) == "%y = bitcast %x {dtype=i64} : f32[4]"


# Names.


def test_hints_are_made_unique() -> None:
    b = Builder(Level.GRAPH)
    for hint in ("x", "x", "x_1", "", "not a name", "x"):
        b.param(Scalar(f32), hint)
    head = format_function(b.function("f")).splitlines()[0]
    assert head == (
        "graph @f(%x: f32, %x_1: f32, %x_1_1: f32, %0: f32, %1: f32, %x_2: f32) -> () {"
    )


def test_the_canonical_text_knows_no_names() -> None:
    function = loop_function()
    renamed = LOOP
    for old, new in {"%x": "%a", "%m": "%z", "@centre": "@b"}.items():
        renamed = renamed.replace(old, new)
    for before in ("over ", "{", "["):
        renamed = renamed.replace(f"{before}i", f"{before}row")
    other = parse_function(renamed)
    assert format_function(other) != format_function(function)
    canonical = format_function(function, canonical=True)
    assert format_function(other, canonical=True) == canonical
    assert "region %0 over a0:s0, a1:768" in canonical


def test_canonical_texts_differ_where_meaning_does() -> None:
    changed = parse_function(LOOP.replace("767", "766"))
    canonical = format_function(loop_function(), canonical=True)
    assert format_function(changed, canonical=True) != canonical


def test_locations_are_comments() -> None:
    text = format_function(loop_function(), locations=True)
    assert "%y = region %x over i:s0, j:768 : f32[s0, 768] {  # model.py:12\n" in text
    assert format_function(parse_function(text)) == LOOP


def test_parsed_ops_know_their_line() -> None:
    function = parse_function(LOOP, "softmax.ir")
    assert function.body.ops[0].loc == Loc("softmax.ir", 3)


# Wrong texts.


def fails(text: str) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse_module(text)
    return caught.value


def body(*lines: str) -> str:
    inner = "\n".join(lines)
    return f"graph @f(%x: f32[4], %n: i64) -> () {{\n{inner}\n}}\n"


WRONG_LINES = [
    # column, line of a graph function, message, hint
    (6, "%y = exq %x : f32[4]", "no op 'exq'", "exp"),
    (10, "%y = exp %z : f32[4]", "'%z' is not defined", "define it before"),
    (1, "%x = exp %x : f32[4]", "'%x' is defined twice", "another"),
    (13, "%y = exp %x : f32[5]", "f32[4], but the text says f32[5]", "correct"),
    (6, "%y = exp %x", "f32[4], but the text says nothing", "correct"),
    (6, "%y = exp %x, %x : f32[4]", "takes 1 operand, not 2", ""),
    (6, "%y = exp %n : i64", "does not take i64", ""),
    (1, "exp %x : f32[4]", "1 types for 0 results", "name every result"),
    (6, "%y = exp(1) %x : f32[4]", "in the form (...)", ""),
    (6, "%y = exp %x [1] : f32[4]", "in the form [...]", ""),
    (6, "%y = const(x) : f32", "expected a number, not 'x'", ""),
    (6, "%y = const : f32", "needs its attribute value", "{value=...}"),
    (16, "%y = const(1) {value=1} : f32", "value is given twice", ""),
    (18, "%y = reshape %x {shap=(4,)} : f32[4]", "no attribute 'shap'", "shape"),
    (18, "%y = reshape %x {shape=4} : f32[4]", "expected a tuple", "(a,)"),
    (18, "%y = reshape %x {shape=(0.5,)} : f32[4]", "a dim, not 0.5", ""),
    (6, "%y = reshape %x {shape=(3,)} : f32[3]", "sizes differ", ""),
    (14, "%y = size(s0 // 0) : i64", "division by 0", ""),
    (15, "%y = exp %x : f33[4]", "no element type is called 'f33'", ""),
    (19, "%y = exp %x : f32{i}", "expected an axis, not 'i'", "over i:4"),
    (28, '%y = exp %x : tile<f32[4], "(4:no">', "no layout", ""),
    (28, '%y = exp %x : tile<f32[4], "\\q">', "no string", "JSON"),
    (15, "%y = exp %x : tale<f32[4]>", "expected tile, not 'tale'", "tile<"),
    (26, "%y = broadcast %x {shape=sun<f32>} : f32[4]", "no monoid 'sun'", ""),
    (1, "yield %x\n%y = exp %x : f32[4]", "'%y' does not belong", "'}'"),
]


@pytest.mark.parametrize(("column", "line", "what", "hint"), WRONG_LINES)
def test_what_is_wrong_with_a_line(
    column: int, line: str, what: str, hint: str
) -> None:
    error = fails(body(line))
    assert what in error.what
    assert hint in error.fix
    assert (error.line, error.column) == (2 + line.count("\n"), column)


WRONG_TEXTS = [
    # line, column, text, message, hint
    (1, 1, "", "no function", "write one"),
    (1, 10, "graph @f(", "the end does not belong", "')'"),
    (1, 1, "grap @f() -> () {}", "no level 'grap'", "graph, loop"),
    (1, 7, body("yield %x"), "f32[4], but the text says nothing", "correct"),
    (5, 22, LOOP.replace("%x_1 [i, j]", "%x_1 [i*j]"), "on the right of *", "sum"),
    (3, 29, LOOP.replace("j:768", "i:768"), "'i' cannot name another axis", ""),
    (3, 23, LOOP.replace("i:s0", "i:0.5"), "expected a dim, not 0.5", ""),
]


@pytest.mark.parametrize(("line", "column", "text", "what", "hint"), WRONG_TEXTS)
def test_what_is_wrong_with_a_text(
    line: int, column: int, text: str, what: str, hint: str
) -> None:
    error = fails(text)
    assert what in error.what
    assert hint in error.fix
    assert (error.line, error.column) == (line, column)


def test_an_error_shows_the_line() -> None:
    assert str(fails(body("  %y = exq %x : f32[4]"))) == dedent("""\
        <text>:2:8: no op 'exq'
          2 |   %y = exq %x : f32[4]
            |        ^
          help: did you mean eq or exp?""")


@pytest.mark.parametrize(
    "dim",
    [
        "*".join(["(a + b + c + d)"] * 50),
        " + ".join(f"s{k}" for k in range(LARGEST_DIM + 1)),
        "9" * 1000,
        "*".join(["9" * 40] * 9),
        "max(s1, 1 + " * 600 + "s0" + ")" * 600,
    ],
)
def test_dims_are_bounded(dim: str) -> None:
    error = fails(body(f"%y = size({dim}) : i64"))
    assert "this dim is too long" in error.what or "digits" in error.what


@pytest.mark.parametrize(
    "layout",
    [
        "({" + "*".join(["(a + b + c + d)"] * 50) + "}:mem)",
        "({" + "(" * 10_000 + "4" + ")" * 10_000 + "}:mem)",
        "({4 +}:mem)",
        "(4:reg@{0//0})",
        "({0.5}:mem)",
        "(",
        "(" + "9" * 5000 + ":mem)",
    ],
)
def test_layouts_are_refused_with_a_reason(layout: str) -> None:
    error = fails(f'tile @f(%x: buffer<f32, "{layout}">) -> () {{}}')
    assert error.what.startswith("no layout: ")
    assert error.column == 25


def test_deep_texts_take_no_stack() -> None:
    deep = "(" * 10_000 + "s0" + ")" * 10_000
    (op,) = parse_function(body(f"%y = size({deep}) : i64")).body.ops
    assert op.attrs == (S0,)
    minus = "-" * 10_000 + "7"
    (op,) = parse_function(body(f"%y = size({minus}) : i64")).body.ops
    assert op.attrs == (7,)
    nested = "(" * (DEEPEST_TUPLE + 1) + ",)" * (DEEPEST_TUPLE + 1)
    call = f'extern {{target="t", arguments={nested}, keywords=()}}'
    assert "nested tuples" in fails(body(call.replace("(,)", "(1,)"))).what


def test_long_and_deep_functions_take_no_stack() -> None:
    count = 3000
    chain = "".join(f"  %{k + 1} = exp %{k} : f32[4]\n" for k in range(count))
    text = f"graph @f(%0: f32[4]) -> (f32[4]) {{\n{chain}  yield %{count}\n}}\n"
    function = parse_function(text)
    verify(function)
    assert format_function(function) == text
    opened = "".join(f"for %n, %n {{step=1}} {{^(%{k}: i64):\n" for k in range(count))
    nest = parse_function(f"tile @f(%n: i64) -> () {{ {opened} {'}' * count} }}")
    verify(nest)
    printed = format_function(nest)
    assert format_function(parse_function(printed)) == printed


# Mutations: a text is read, or refused with a place.

PIECES = [*'()[]{}<>,:=^%@$#-+*/"\n ', "%x", "%0", "i", "j", "f32", "1", "0.5", "->"]
PIECES += ["yield", "over", "strides", "exp", "region", "//", "nan", "(1,)", "{^("]


@st.composite
def mutants(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from([0, 1, 1, 2, 5, 20]))
        piece = draw(st.sampled_from(["", *PIECES]) | st.text(max_size=2))
        text = text[:start] + piece + text[start + length :]
    return text


@st.composite
def shuffles(draw: st.DrawFn) -> str:
    """Words of one text replaced by words of another."""
    words = draw(st.sampled_from(TEXTS)).split(" ")
    others = " ".join(TEXTS).split(" ")
    for _ in range(draw(st.integers(1, 3))):
        words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(others))
    return " ".join(words)


@settings(max_examples=400)
@given(mutants() | shuffles() | st.text(max_size=40))
def test_no_text_crashes(text: str) -> None:
    try:
        module = parse_module(text)
    except ParseError as refused:
        error = refused
    else:
        printed = format_module(module)
        assert format_module(parse_module(printed)) == printed
        with suppress(VerificationError):
            verify(module)
        return
    assert min(error.line, error.column) >= 1
    assert error.what in str(error)


def test_every_op_is_known_to_the_parser() -> None:
    for name, op in REGISTRY.items():
        assert op.name == name
        error = fails(body(f"{name} {{no_such_attribute=1}}"))
        assert name in error.what or "operand" in error.what
