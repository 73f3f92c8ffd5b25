"""The laws of the layout algebra, as properties against enumeration.

The oracle is the finite relation of a layout: from each coordinate to the set of its
places, written out by a formula of its own. Every operator must agree with it or
raise `NotRepresentable`; separate tests pin down where an answer must exist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product as cartesian
from math import prod
from typing import TypeVar

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fusec.ir.layout as layout_package
from fusec.ir.layout import (
    LANE,
    MEM,
    REG,
    TIME,
    WARP,
    Conversion,
    Digit,
    Kind,
    Layout,
    NotRepresentable,
    convert,
    convert_class,
    coordinate_axes,
    from_bits,
    identity,
    parse_layout,
    row_major,
    text,
    tile_layout,
    to_bits,
)

T = TypeVar("T")
Coords = tuple[int, ...]
Place = tuple[tuple[str, int], ...]  # the axes on which it is not 0, sorted
Relation = dict[Coords, frozenset[Place]]

LIMIT = 1 << 12
TILE_AXES = (TIME, WARP, LANE, REG)

# -------------------------------------------------------------------- oracle


def as_place(values: Mapping[str, int]) -> Place:
    return tuple(sorted((axis, v) for axis, v in values.items() if v))


def box(shape: Iterable[int]) -> list[Coords]:
    return list(cartesian(*map(range, shape)))


def places_of(layout: Layout, coords: Coords) -> frozenset[Place]:
    """The places of one element: digits, then copies, then shears, then offset."""
    base: Counter[str] = Counter()
    for digits, c in zip(layout.dims, coords, strict=True):
        for digit in reversed(digits):
            base[digit.axis] += c % digit.extent * digit.stride
            c //= digit.extent
    found = set[Place]()
    for copy in box(d.extent for d in layout.replicas):
        place = Counter(base)
        for digit, value in zip(layout.replicas, copy, strict=True):
            place[digit.axis] += digit.stride * value
        for s in layout.xor:
            window = place[s.axis] // 2**s.source % 2**s.width
            place[s.axis] ^= window * 2**s.target
        for axis, value in layout.offset:
            place[axis] += value
        found.add(as_place(place))
    return frozenset(found)


def relation(layout: Layout) -> Relation:
    return {coords: places_of(layout, coords) for coords in box(layout.shape)}


def padded_relation(layout: Layout) -> Relation:
    return {coords: places_of(layout, coords) for coords in box(layout.padded_shape)}


def at(places: Coords, axes: Sequence[str]) -> Place:
    return as_place(dict(zip(axes, places, strict=True)))


def maybe(operator: Callable[[], T]) -> T | None:
    """The answer, or None if the operator declined."""
    try:
        return operator()
    except NotRepresentable:
        return None


# ---------------------------------------------------------------- strategies


extents = st.sampled_from([1, 2, 2, 2, 3, 4, 4, 5, 6, 7, 8, 12])


@st.composite
def numerals(draw: st.DrawFn, dims: int = 2, limit: int = 256) -> list[list[int]]:
    """The extents of the digits of each dimension."""
    result: list[list[int]] = [[] for _ in range(draw(st.integers(1, dims)))]
    total = 1
    for _ in range(draw(st.integers(0, 4))):
        size = draw(extents)
        if total * size <= limit:
            total *= size
            draw(st.sampled_from(result)).append(size)
    return result


@st.composite
def shapes_below(draw: st.DrawFn, counted: Sequence[int]) -> list[int]:
    return [draw(st.integers(max(1, n // 2), n)) if n > 1 else 1 for n in counted]


def shape_of(dims: Sequence[Sequence[Digit]]) -> list[int]:
    return [prod(d.extent for d in digits) for digits in dims]


@st.composite
def wild(
    draw: st.DrawFn, axes: Sequence[str] = TILE_AXES, dims: int = 2, limit: int = 256
) -> Layout:
    """Any layout: digits may overlap, stand still, leave gaps; with padding."""
    strides = st.integers(0, 12)
    laid = [
        tuple(Digit(n, draw(strides), draw(st.sampled_from(axes))) for n in sizes)
        for sizes in draw(numerals(dims, limit))
    ]
    shape = shape_of(laid)
    if draw(st.booleans()):
        shape = draw(shapes_below(shape))
    offset = [(axes[0], draw(st.integers(0, 5)))]
    return Layout(laid, shape, (), offset)


@st.composite
def orderly(
    draw: st.DrawFn,
    axes: Sequence[str] = TILE_AXES,
    *,
    gaps: bool = False,
    copies: bool = True,
    pads: bool = True,
    dims: int = 2,
    limit: int = 256,
) -> Layout:
    """An injective layout: on each axis the strides are a mixed radix of their own."""
    sizes = draw(numerals(dims=dims, limit=limit))
    slots = [(i, k) for i, digits in enumerate(sizes) for k in range(len(digits))]
    replicas = draw(st.lists(st.sampled_from([2, 3]), max_size=2)) if copies else []
    slots += [(-1, k) for k in range(len(replicas))]
    reached = dict.fromkeys(axes, 1)
    digits: dict[tuple[int, int], Digit] = {}
    for i, k in draw(st.permutations(slots)):
        size = sizes[i][k] if i >= 0 else replicas[k]
        axis = draw(st.sampled_from(axes))
        stride = reached[axis] * (draw(st.sampled_from([1, 1, 2, 3])) if gaps else 1)
        digits[i, k] = Digit(size, stride, axis)
        reached[axis] = stride * size
    laid = [tuple(digits[i, k] for k in range(len(row))) for i, row in enumerate(sizes)]
    shape = shape_of(laid)
    if pads and draw(st.booleans()):
        shape = draw(shapes_below(shape))
    return Layout(laid, shape, [digits[-1, k] for k in range(len(replicas))])


compact = orderly(pads=False)
plain = orderly(pads=False, copies=False)
memory = orderly([MEM], gaps=True, copies=False)


@st.composite
def swizzled(draw: st.DrawFn) -> Layout:
    """A layout of powers of two in memory under one or two shears."""
    sizes = draw(st.lists(st.integers(0, 4), min_size=2, max_size=2))
    layout = row_major([2**n for n in sizes], 2 ** draw(st.integers(0, 3)))
    for _ in range(draw(st.integers(1, 2))):
        bits = draw(st.integers(1, 3))
        shift = draw(st.integers(bits, 4))
        layout = layout.swizzle(bits, draw(st.integers(0, 4)), shift)
    return layout


def feeding(rank: int) -> st.SearchStrategy[Layout]:
    """Layouts whose places can feed the dimensions of another."""
    axes = coordinate_axes(rank)
    orders = orderly(axes, gaps=True, copies=False)
    return st.one_of(orders, wild(axes, limit=64).map(without_offset))


def without_offset(layout: Layout) -> Layout:
    return Layout(layout.dims, layout.shape)


# ------------------------------------------------- evaluation and its inverse


@given(st.one_of(wild(), orderly(gaps=True), swizzled()))
def test_evaluate_and_places_are_the_relation(layout: Layout) -> None:
    for coords, places in padded_relation(layout).items():
        assert frozenset(map(as_place, layout.places(coords))) == places
        assert as_place(layout.evaluate(coords)) in places
        assert layout.contains(coords) == (coords in box(layout.shape))


@given(st.one_of(orderly(gaps=True), swizzled()))
def test_coordinate_undoes_places(layout: Layout) -> None:
    for coords in box(layout.padded_shape):
        for place in layout.places(coords):
            assert layout.coordinate(place) == coords


@given(orderly())
def test_copies_are_as_many_as_replicas_and_one_writes(layout: Layout) -> None:
    for coords, places in relation(layout).items():
        assert len(places) == prod(d.extent for d in layout.replicas)
        writers = [p for p in layout.places(coords) if layout.is_writer(p)]
        assert writers == [layout.evaluate(coords)]


@given(st.one_of(orderly(gaps=True), wild()))
def test_index_terms_are_the_place(layout: Layout) -> None:
    for axis in TILE_AXES:
        dims = layout.index_terms(axis)
        offset = dict(layout.offset).get(axis, 0)
        for coords in box(layout.padded_shape):
            total = sum(
                (c // t.div % t.mod if t.mod else c // t.div) * t.stride
                for c, terms in zip(coords, dims, strict=True)
                for t in terms
            )
            assert total + offset == layout.place(axis, coords)


@given(orderly(gaps=True))
def test_span_is_one_past_the_last_place(layout: Layout) -> None:
    places = [dict(p) for ps in padded_relation(layout).values() for p in ps]
    for axis in TILE_AXES:
        assert layout.span(axis) == 1 + max(p.get(axis, 0) for p in places)


@given(compact)
def test_size_counts_the_places_of_a_compact_layout(layout: Layout) -> None:
    places = {p for ps in relation(layout).values() for p in ps}
    assert prod(layout.size(axis) for axis in TILE_AXES) == len(places)
    assert layout.regs == layout.size(REG)
    assert layout.lanes == layout.size(LANE)


def test_nothing_lies_in_a_gap() -> None:
    layout = parse_layout("(4:mem@8)")
    assert layout.coordinate({MEM: 24}) == (3,)
    for gap in (4, 32):
        with pytest.raises(ValueError, match=f"nothing lies at mem {gap}"):
            layout.coordinate({MEM: gap})
    with pytest.raises(ValueError, match="nothing lies at lane 1"):
        layout.coordinate({LANE: 1})


# ------------------------------------------------------------- canonical form


@given(st.one_of(wild(), orderly(gaps=True), swizzled()))
def test_canonical_form_is_stable_and_means_the_same(layout: Layout) -> None:
    form = layout.canonicalize()
    assert form == form.canonicalize()
    assert relation(form) == relation(layout)


@given(st.one_of(wild(), orderly()), st.data())
def test_equal_functions_have_one_form(layout: Layout, data: st.DataObject) -> None:
    """Split digits at random: the function is the same, the spelling is not."""
    dims = [sum((broken(d, data) for d in ds), ()) for ds in layout.dims]
    replicas = sum((broken(d, data) for d in layout.replicas), ())
    shuffled = data.draw(st.permutations(replicas))
    other = Layout(dims, layout.shape, shuffled, layout.offset)
    assert padded_relation(other) == padded_relation(layout)
    assert other.canonicalize() == layout.canonicalize()


def broken(digit: Digit, data: st.DataObject) -> tuple[Digit, ...]:
    parts = [n for n in range(1, digit.extent + 1) if digit.extent % n == 0]
    inner = data.draw(st.sampled_from(parts))
    outer = Digit(digit.extent // inner, digit.stride * inner, digit.axis)
    return outer, Digit(inner, digit.stride, digit.axis)


def test_a_digit_that_stands_still_has_no_axis() -> None:
    forms = {
        parse_layout(source).canonicalize()
        for source in ("(4:reg@0 3:lane)", "(2:lane@0 2:reg@0 3:lane)")
    }
    assert forms == {parse_layout("(4:mem@0 3:lane)")}
    assert parse_layout("(4:reg@0 < 3)").canonicalize() == parse_layout("(3)")


@given(st.data())
def test_forms_differ_if_functions_do(data: st.DataObject) -> None:
    """Two layouts with the same extents, of strides that often agree."""
    sizes = data.draw(numerals(limit=24))
    strides, axes = st.sampled_from([0, 1, 2, 4]), st.sampled_from([LANE, REG])
    a, b = (
        Layout(
            [
                tuple(Digit(n, data.draw(strides), data.draw(axes)) for n in ns)
                for ns in sizes
            ]
        )
        for _ in range(2)
    )
    same = a.canonicalize() == b.canonicalize()
    assert same == (relation(a) == relation(b))


# ----------------------------------------------------- dimensions rearranged


@given(st.one_of(wild(), orderly(gaps=True)), st.data())
def test_permute(layout: Layout, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(layout.rank)))
    result = layout.permute(order)
    for coords, places in relation(layout).items():
        assert places_of(result, tuple(coords[i] for i in order)) == places


@given(st.one_of(wild(), orderly(gaps=True), swizzled()), st.data())
def test_slice(layout: Layout, data: st.DataObject) -> None:
    dim = data.draw(st.integers(0, layout.rank - 1))
    index = data.draw(st.integers(0, layout.shape[dim] - 1))
    result = maybe(lambda: layout.slice(dim, index))
    if result is None:
        assert layout.xor
        return
    whole = relation(layout)
    for coords, places in relation(result).items():
        assert places == whole[(*coords[:dim], index, *coords[dim:])]


@given(orderly(), st.integers(1, 9), st.data())
def test_broadcast(layout: Layout, size: int, data: st.DataObject) -> None:
    dim = data.draw(st.integers(0, layout.rank - 1))
    if layout.shape[dim] != 1:
        with pytest.raises(ValueError, match="only an extent of 1"):
            layout.broadcast(dim, size)
        return
    result = layout.broadcast(dim, size)
    assert result.shape[dim] == size
    for coords, places in relation(result).items():
        assert places == places_of(layout, (*coords[:dim], 0, *coords[dim + 1 :]))


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[Layout, list[int]]:
    layout = draw(st.one_of(wild(), orderly(gaps=True), orderly(dims=3)))
    rest, shape = prod(layout.shape), list[int]()
    while rest > 1:
        parts = [n for n in range(2, rest + 1) if rest % n == 0]
        shape.append(draw(st.sampled_from(parts)))
        rest //= shape[-1]
    for _ in range(draw(st.integers(0, 2))):
        shape.insert(draw(st.integers(0, len(shape))), 1)
    return layout, shape


@given(reshapes())
def test_reshape_keeps_row_major_order(case: tuple[Layout, list[int]]) -> None:
    layout, shape = case
    result = maybe(lambda: layout.reshape(shape))
    if result is None:
        return
    assert list(result.shape) == shape
    assert list(relation(result).values()) == list(relation(layout).values())
    back = result.reshape(layout.shape)
    assert relation(back) == relation(layout)


def test_reshape_reaches_through_padding_of_the_outermost_dimension() -> None:
    layout = parse_layout("(4:time 4:reg 16:lane < 240, 4:reg@4)")
    result = layout.reshape((15, 16, 2, 2))
    assert str(result) == "(4:time 4:reg < 15, 16:lane, 2:reg@8, 2:reg@4)"
    with pytest.raises(NotRepresentable, match="padding of dimension 1"):
        layout.permute((1, 0)).reshape((960,))


@given(orderly(pads=False), st.data())
def test_drop_numbers_registers_and_lanes_anew(
    layout: Layout, data: st.DataObject
) -> None:
    dim = data.draw(st.integers(0, layout.rank - 1))
    result = layout.drop(dim)
    assert result.shape[dim] == 1
    assert result == layout.reduce_to([i for i in range(layout.rank) if i != dim])
    rest = Layout(
        [() if i == dim else ds for i, ds in enumerate(layout.dims)],
        result.shape,
        layout.replicas,
    )
    for axis in (REG, LANE):
        numbers = used(rest, axis)
        assert used(result, axis) == list(range(len(numbers)))
        anew = {number: i for i, number in enumerate(numbers)}
        for coords in box(result.shape):
            assert result.place(axis, coords) == anew[rest.place(axis, coords)]
    assert used(result, TIME) == used(rest, TIME)


def used(layout: Layout, axis: str) -> list[int]:
    places = (p for ps in relation(layout).values() for p in ps)
    return sorted({dict(p).get(axis, 0) for p in places})


@given(orderly(), st.sampled_from(TILE_AXES))
def test_without_and_only_take_an_axis_apart(layout: Layout, axis: str) -> None:
    without, only = layout.without(axis), layout.only(axis)
    assert axis not in without.axes
    assert set(only.axes) <= {axis}
    for digits, rest, mine in zip(layout.dims, without.dims, only.dims, strict=True):
        assert prod(d.extent for d in (*rest, *mine)) == prod(d.extent for d in digits)
    for result in (without, only):
        for i, digits in enumerate(result.dims):
            if digits != layout.dims[i]:
                assert result.shape[i] == prod(d.extent for d in digits)


def test_without_time_is_one_iteration() -> None:
    tile = parse_layout("(2:reg@4, 4:time 4:reg 16:lane < 229)")
    assert str(tile.without(TIME)) == "(2:reg@4, 4:reg 16:lane)"
    assert str(tile.only(TIME)) == "(1, 4:time)"


@given(orderly(copies=False), st.data())
def test_pad_keeps_elements_and_takes_no_place(
    layout: Layout, data: st.DataObject
) -> None:
    least = [data.draw(st.integers(n, n + 9)) for n in layout.shape]
    result = maybe(lambda: layout.pad(least))
    if result is None:
        return
    assert result.shape == layout.shape
    assert relation(result) == relation(layout)
    for counted, size, digits in zip(
        result.padded_shape, least, layout.dims, strict=True
    ):
        assert counted >= size or not digits
    places = [p for ps in padded_relation(result).values() for p in ps]
    assert len(set(places)) == len(places)


# ---------------------------------------------------------------- composition


@st.composite
def compositions(draw: st.DrawFn) -> tuple[Layout, Layout]:
    outer = draw(st.one_of(wild(limit=LIMIT), orderly(gaps=True), swizzled()))
    return outer, draw(feeding(outer.rank))


@settings(max_examples=300)
@given(compositions(), st.integers(0, 3))
def test_compose_is_exact_or_declines(pair: tuple[Layout, Layout], offset: int) -> None:
    outer, inner = pair
    inner = Layout(inner.dims, inner.shape, (), [("d0", offset)])
    result = maybe(lambda: outer.compose(inner))
    if result is None:
        return
    assert result.shape == inner.shape
    assert relation(result) == composed_relation(outer, inner)


def composed_relation(outer: Layout, inner: Layout) -> Relation:
    axes = coordinate_axes(outer.rank)
    result: Relation = {}
    for coords, places in relation(inner).items():
        found = set[Place]()
        for place in places:
            middle = tuple(dict(place).get(axis, 0) for axis in axes)
            assert outer.contains(middle)
            found |= places_of(outer, middle)
        result[coords] = frozenset(found)
    return result


@given(st.one_of(wild(), orderly(gaps=True), swizzled()))
def test_identity_composes_with_everything(layout: Layout) -> None:
    left = layout.compose(identity(layout.shape))
    assert relation(left) == relation(layout)
    if layout.xor:
        return
    spans = {
        axis: layout.span(axis) + dict(layout.offset).get(axis, 0)
        for axis in layout.axes
    }
    unit = Layout([(Digit(n, 1, axis),) for axis, n in spans.items()])
    right = unit.compose(layout, layout.axes)
    assert relation(right) == relation(layout)


@given(plain, st.data())
def test_compose_accepts_every_split_of_its_own_digits(
    layout: Layout, data: st.DataObject
) -> None:
    """Refine the coordinates along the digits: composition must not decline."""
    dims: list[tuple[Digit, ...]] = []
    for axis, digits in zip(coordinate_axes(layout.rank), layout.dims, strict=True):
        whole = Digit(prod(d.extent for d in digits), 1, axis)
        weight, parts = whole.extent, list[Digit]()
        for digit in digits:
            weight //= digit.extent
            parts.append(Digit(digit.extent, weight, axis))
        dims += [(part,) for part in parts]
    inner = Layout(data.draw(st.permutations(dims)))
    assert relation(layout.compose(inner)) == composed_relation(layout, inner)


@given(st.data())
def test_compose_is_associative_where_both_sides_exist(data: st.DataObject) -> None:
    a = data.draw(wild(limit=256))
    b = data.draw(feeding(a.rank))
    c = data.draw(feeding(b.rank))
    left = maybe(lambda: a.compose(b).compose(c))
    right = maybe(lambda: a.compose(b.compose(c)))
    if left is not None and right is not None:
        assert relation(left) == relation(right)


def test_nested_modulo_that_does_not_divide_is_declined() -> None:
    """CuTe's 15%: ((c*3) // 4) % 6 is no sum of digits of c."""
    outer = parse_layout("(6:lane 4:reg)")
    with pytest.raises(NotRepresentable, match="stride 3 does not divide"):
        outer.compose(parse_layout("(8:d0@3)"))
    carrying = parse_layout("(2:d0@3, 2:d0@2)")  # 3 + 2 carries out of the digit
    with pytest.raises(NotRepresentable, match="carry"):
        outer.compose(carrying)
    exact = outer.compose(parse_layout("(8:d0@2)"))
    assert str(exact) == "(4:lane 2:reg@2)"


def test_a_tail_that_divides_nothing_rounds_up_in_the_outermost_digit() -> None:
    tile = parse_layout("(4:time 4:reg 16:lane)")
    row = tile.compose(parse_layout("(229:d0)"))
    assert str(row) == "(4:time 4:reg 16:lane < 229)"
    assert relation(row) == {c: places_of(tile, c) for c in box([229])}


def test_memory_seen_by_a_tile() -> None:
    tile = tile_layout((2, 256), [[(REG, 2)], [(TIME, 4), (REG, 4), (LANE, 16)]])
    seen = row_major((2, 256), 32).compose(tile.inverse())
    assert tile.axes == (TIME, LANE, REG)
    assert str(seen) == "(4:mem@2048, 16:mem@32, 2:mem@8192 4:mem@512)"


# --------------------------------------------------------------------- inverse


def converse(layout: Layout, axes: Sequence[str]) -> Relation:
    result: dict[Coords, set[Place]] = {}
    names = coordinate_axes(layout.rank)
    for coords, places in padded_relation(layout).items():
        for place in places:
            key = tuple(dict(place).get(axis, 0) for axis in axes)
            result.setdefault(key, set()).add(at(coords, names))
    return {key: frozenset(found) for key, found in result.items()}


@given(st.one_of(wild(limit=64), orderly(gaps=True), orderly()))
def test_inverse_is_the_converse_or_declines(layout: Layout) -> None:
    result = maybe(layout.inverse)
    if result is not None:
        assert relation(result) == converse(layout, layout.axes)


@given(orderly())
def test_a_compact_layout_has_an_inverse_whose_inverse_it_is(layout: Layout) -> None:
    names = coordinate_axes(layout.rank)
    back = layout.inverse().inverse(names)
    assert relation(back) == renamed(layout, layout.axes)


def renamed(layout: Layout, axes: Sequence[str]) -> Relation:
    """The padded relation with the axes called d0, d1, .. in order."""
    names = dict(zip(axes, coordinate_axes(len(axes)), strict=True))
    return {
        coords: frozenset(as_place({names[a]: v for a, v in p}) for p in places)
        for coords, places in padded_relation(layout).items()
    }


@given(plain, plain)
def test_going_through_places_and_back(a: Layout, b: Layout) -> None:
    """B ∘ (B⁻¹ ∘ A) = A."""
    middle = maybe(lambda: b.inverse(TILE_AXES).compose(a, TILE_AXES))
    if middle is None:
        return
    result = maybe(lambda: b.compose(middle))
    if result is not None:
        assert relation(result) == relation(a)


@given(plain)
def test_a_layout_after_its_inverse_is_the_identity(layout: Layout) -> None:
    spans = [layout.span(axis) for axis in layout.axes]
    there = layout.compose(layout.inverse())
    assert relation(there) == {
        place: frozenset([at(place, layout.axes)]) for place in box(spans)
    }
    back = layout.inverse().compose(layout, layout.axes)
    assert relation(back) == relation(identity(layout.shape))


@st.composite
def bijections(draw: st.DrawFn, shape: Sequence[int]) -> Layout:
    """A layout whose places are all coordinates below a shape, in another order."""
    digits: list[Digit] = []
    for axis, size in zip(coordinate_axes(len(shape)), shape, strict=True):
        reached = 1
        while reached < size:
            rest = size // reached
            parts = [n for n in range(2, rest + 1) if rest % n == 0]
            digits.append(Digit(draw(st.sampled_from(parts)), reached, axis))
            reached *= digits[-1].extent
    cut = draw(st.integers(0, len(digits)))
    order = draw(st.permutations(digits))
    return Layout([tuple(order[:cut]), tuple(order[cut:])])


@given(st.data())
def test_inverse_of_a_composition(data: st.DataObject) -> None:
    """(A ∘ B)⁻¹ = B⁻¹ ∘ A⁻¹."""
    a = data.draw(plain)
    b = data.draw(bijections(a.shape))
    both = maybe(lambda: a.compose(b))
    if both is None:
        return
    right = maybe(lambda: b.inverse(coordinate_axes(a.rank)).compose(a.inverse()))
    if right is not None:
        assert relation(both.inverse(a.axes)) == relation(right)


@given(st.one_of(wild(limit=64), orderly(gaps=True)))
def test_a_left_inverse_exists_only_for_injective_layouts(layout: Layout) -> None:
    result = maybe(layout.left_inverse)
    if result is None:
        return
    names = coordinate_axes(layout.rank)
    for coords, places in padded_relation(layout).items():
        for place in places:
            key = tuple(dict(place).get(axis, 0) for axis in layout.axes)
            assert places_of(result, key) == {at(coords, names)}


@given(orderly(gaps=True, copies=False, pads=False))
def test_an_injective_layout_has_a_left_inverse(layout: Layout) -> None:
    names = coordinate_axes(layout.rank)
    result = layout.left_inverse()
    for coords, places in relation(layout).items():
        (place,) = places
        key = tuple(dict(place).get(axis, 0) for axis in layout.axes)
        assert places_of(result, key) == {at(coords, names)}


def test_a_left_inverse_bridges_a_pitch_that_is_no_multiple_of_the_row() -> None:
    memory = parse_layout("(4:mem@32, 3:mem@8)")
    assert str(memory.left_inverse()) == "(4:d0 4:d1 8:mem@0)"
    with pytest.raises(NotRepresentable, match="nothing lies at mem 1"):
        memory.inverse()


@given(st.one_of(wild(limit=64), orderly(gaps=True)))
def test_right_inverse(layout: Layout) -> None:
    result = maybe(layout.right_inverse)
    if result is None:
        return
    names = coordinate_axes(layout.rank)
    spans = [layout.span(axis) for axis in layout.axes]
    assert list(result.shape) == spans
    for place, (found,) in ((p, tuple(c)) for p, c in relation(result).items()):
        coords = tuple(dict(found).get(name, 0) for name in names)
        assert places_of(layout, coords) == {at(place, layout.axes)}


# ------------------------------------------------------------------ complement


@given(orderly(gaps=True, limit=12), st.integers(1, 2))
def test_complement_is_disjoint_ordered_and_covering(
    layout: Layout, times: int
) -> None:
    sizes = {a: sizes_up(layout, a) * times for a in (*layout.axes, "spare")}
    rest = layout.complement(sizes)
    assume(prod(sizes.values()) <= LIMIT)
    filled = Counter(
        tuple(dict(a).get(x, 0) + dict(b).get(x, 0) for x in sizes)
        for places in padded_relation(layout).values()
        for a in places
        for others in relation(rest).values()
        for b in others
    )
    assert filled == Counter(box(sizes.values()))
    for dim, axis in enumerate(sizes):
        zero = [0] * rest.rank
        line = [
            rest.place(axis, (*zero[:dim], i, *zero[dim + 1 :]))
            for i in range(rest.shape[dim])
        ]
        assert line == sorted(set(line))
    again = rest.complement(sizes).complement(sizes)
    assert again.canonicalize() == rest.canonicalize()


def sizes_up(layout: Layout, axis: str) -> int:
    """The smallest size that the digits on an axis divide."""
    digits = [d for ds in (*layout.dims, layout.replicas) for d in ds if d.moves]
    ends = [d.stride * d.extent for d in digits if d.axis == axis]
    return max(ends, default=1)


def test_complement_declines_what_does_not_divide() -> None:
    with pytest.raises(NotRepresentable, match="100 is no multiple of 96"):
        parse_layout("(4:mem@100, 3:mem@32)").complement({MEM: 400})
    with pytest.raises(NotRepresentable):
        parse_layout("(3:reg, 2:reg@2)").complement({REG: 12})


# ------------------------------------------------------------ product, divide


def product_relation(a: Layout, b: Layout) -> Relation:
    result: Relation = {}
    spans = {axis: b.span(axis) for axis in TILE_AXES}
    for x, y in cartesian(box(a.shape), box(b.shape)):
        pairs = zip(x, y, b.shape, strict=True)
        coords = tuple(i * n + j for i, j, n in pairs)
        result[coords] = frozenset(
            as_place(
                {s: dict(p).get(s, 0) * spans[s] + dict(q).get(s, 0) for s in spans}
            )
            for p in places_of(a, x)
            for q in places_of(b, y)
        )
    return result


small = st.one_of(orderly(dims=1, gaps=True, limit=24), wild(dims=1, limit=24))


@given(small, small)
def test_product_is_a_copy_of_the_right_at_each_place_of_the_left(
    a: Layout, b: Layout
) -> None:
    result = maybe(lambda: a.product(b))
    if result is None:
        assert b.padded_shape != b.shape
        return
    assert relation(result) == product_relation(a, b)


@given(small, small)
def test_divide_undoes_the_product_on_either_side(a: Layout, b: Layout) -> None:
    both = maybe(lambda: a.product(b))
    if both is None:
        return
    left = maybe(lambda: both.right_divide(b))
    assert left is not None, "(A ⊗ B) / B exists"
    assert left.canonicalize() == a.canonicalize()
    right = maybe(lambda: both.left_divide(a))
    assert right is not None, "A \\ (A ⊗ B) exists"
    assert right.canonicalize() == b.canonicalize()


@given(small, small)
def test_a_quotient_multiplies_back(whole: Layout, part: Layout) -> None:
    quotient = maybe(lambda: whole.right_divide(part))
    if quotient is not None:
        assert relation(quotient.product(part)) == relation(whole)
    quotient = maybe(lambda: whole.left_divide(part))
    if quotient is not None:
        assert relation(part.product(quotient)) == relation(whole)


@given(small, small, small)
def test_product_is_associative_with_a_unit(a: Layout, b: Layout, c: Layout) -> None:
    unit = Layout([()])
    assert unit.product(a).canonicalize() == a.canonicalize()
    assert a.product(unit).canonicalize() == a.canonicalize()
    left = maybe(lambda: a.product(b).product(c))
    right = maybe(lambda: a.product(b.product(c)))
    if left is not None and right is not None:
        assert left.canonicalize() == right.canonicalize()


def test_a_swizzled_atom_tiles() -> None:
    atom = row_major((8, 8), 16).swizzle(2, 4, 3)
    tiled = parse_layout("(2:mem@2, 2:mem)").product(atom)
    spans = atom.span(MEM)
    assert spans == 1024
    for (i, j), (p, q) in cartesian(box((2, 2)), box((8, 8))):
        inside = atom.evaluate((p, q))[MEM]
        assert tiled.evaluate((8 * i + p, 8 * j + q)) == {
            MEM: (2 * i + j) * spans + inside
        }
    assert tiled.right_divide(atom) == parse_layout("(2:mem@2, 2:mem)")


def test_an_instruction_tiles_a_layout() -> None:
    """mma.m16n8: the accumulator is (2:reg@2 8:lane@4, 4:lane 2:reg)."""
    operand = parse_layout("(2:reg@2 8:lane@4, 4:lane 2:reg)")
    tile = parse_layout("(2:warp@2 2:reg@2, 2:warp 2:reg)").product(operand)
    assert str(tile.right_divide(operand)) == "(2:warp@2 2:reg@2, 2:warp 2:reg)"
    other = parse_layout("(8:lane@4 2:reg@2, 4:lane 2:reg)")
    with pytest.raises(NotRepresentable):
        tile.right_divide(other)


@given(orderly(limit=24), orderly(limit=24), st.data())
def test_direct_sum_adds_places(a: Layout, b: Layout, data: st.DataObject) -> None:
    result = maybe(lambda: a.direct_sum(b))
    if result is None:
        return
    x = data.draw(st.sampled_from(box(a.shape)))
    y = data.draw(st.sampled_from(box(b.shape)))
    assert places_of(result, x + y) == {
        as_place(Counter(dict(p)) + Counter(dict(q)))
        for p in places_of(a, x)
        for q in places_of(b, y)
    }


# ---------------------------------------------------------------- bits, recast


def bits_of(layout: Layout, width: int, axis: str = MEM) -> list[frozenset[int]]:
    """The places of all bits, in row-major order of elements and up in each one."""
    scale = 1 if axis == MEM else width
    return [
        frozenset(dict(p).get(axis, 0) * scale + bit for p in places)
        for places in relation(layout).values()
        for bit in range(width)
    ]


@given(
    memory,
    st.integers(1, 16),
    st.integers(1, 16),
)
def test_recast_keeps_every_bit_and_comes_back(
    words: Layout, width: int, other: int
) -> None:
    """`words` counted in elements; made to count bits."""
    dims = [
        tuple(Digit(d.extent, d.stride * width, MEM) for d in ds) for ds in words.dims
    ]
    layout = Layout(dims, words.shape)
    result = maybe(lambda: layout.recast(width, other))
    if result is None:
        return
    assert bits_of(result, other) == bits_of(layout, width)
    back = result.recast(other, width)
    assert relation(back) == relation(layout)


@given(swizzled(), st.integers(0, 4))
def test_recast_declines_where_a_swizzle_tears_elements(
    layout: Layout, log_other: int
) -> None:
    last, other = layout.dims[-1], 2**log_other
    width = last[0].stride if last else 1
    result = maybe(lambda: layout.recast(width, other))
    if result is not None:
        assert bits_of(result, other) == bits_of(layout, width)


@pytest.mark.parametrize("width", range(1, 17))
def test_packed_elements_recast_to_bytes(width: int) -> None:
    packed = row_major((3, 16), width)
    assert packed.recast(width, 8) == row_major((3, 2 * width), 8)
    assert packed.recast(width, 8).recast(8, width) == packed


@pytest.mark.parametrize("width", range(1, 17))
def test_pack_and_unpack_agree_with_a_bit_array(width: int) -> None:
    """Store codes at the layout's places in an array of bits; read its bytes."""
    layout = row_major((5, 8), width).permute((1, 0))
    codes = {c: (c[0] * 37 + c[1] * 11) % 2**width for c in box(layout.shape)}
    array = 0
    for coords, code in codes.items():
        array |= code << layout.place(MEM, coords)
    dense = "".join(f"{codes[j, i]:0{width}b}" for i, j in reversed(box((5, 8))))
    assert f"{array:0{40 * width}b}" == dense
    as_bytes = layout.permute((1, 0)).recast(width, 8)
    data = array.to_bytes(5 * width, "little")
    for coords in box(as_bytes.shape):
        at_bit = as_bytes.place(MEM, coords)
        assert array >> at_bit & 255 == data[at_bit // 8]


def test_registers_recast_too() -> None:
    loaded = parse_layout("(16:lane 8:reg)")
    assert str(loaded.recast(32, 4, axis=REG)) == "(16:lane 64:reg)"
    assert str(loaded.recast(4, 32, axis=REG)) == "(16:lane)"
    with pytest.raises(NotRepresentable):
        parse_layout("(4:reg 16:lane)").recast(4, 8, axis=REG)


def test_a_swizzle_of_vectors_survives_a_recast() -> None:
    words = row_major((8, 64), 16).swizzle(3, 7, 3)
    assert words.recast(16, 8) == row_major((8, 128), 8).swizzle(3, 7, 3)
    with pytest.raises(NotRepresentable, match="parts of 256-bit elements"):
        words.recast(16, 256)


def test_the_nibble_interleave_is_one_more_permutation() -> None:
    """[0, 2, 4, 6, 1, 3, 5, 7]: nibble i of a word is weight 2*(i % 4) + i // 4."""
    word = parse_layout("(4:mem@4 2:mem@16)")
    order = sorted(range(8), key=lambda i: word.place(MEM, (i,)))
    assert order == [0, 2, 4, 6, 1, 3, 5, 7]


# --------------------------------------------------------------------------- F2


powers = st.one_of(
    swizzled(),
    st.lists(st.integers(0, 3), min_size=1, max_size=3).map(
        lambda ns: row_major([2**n for n in ns], 4)
    ),
)


@given(st.one_of(powers, wild(limit=64), orderly(gaps=True)), st.data())
def test_the_matrix_is_linear_and_is_the_layout(
    layout: Layout, data: st.DataObject
) -> None:
    matrix = maybe(lambda: to_bits(layout))
    if matrix is None:
        return
    for coords in box(layout.padded_shape):
        place = dict(zip(matrix.axes, matrix(coords), strict=True))
        assert as_place(place) == as_place(layout.evaluate(coords))
    x, y = (
        tuple(data.draw(st.integers(0, n - 1)) for n in layout.padded_shape)
        for _ in range(2)
    )
    both = tuple(a ^ b for a, b in zip(x, y, strict=True))
    summed = tuple(a ^ b for a, b in zip(matrix(x), matrix(y), strict=True))
    assert matrix(both) == summed


@given(st.one_of(powers, wild(limit=64).map(without_offset)))
def test_image_times_kernel_is_domain(layout: Layout) -> None:
    matrix = maybe(lambda: to_bits(layout))
    if matrix is None:
        return
    images = Counter(p for ps in padded_relation(layout).values() for p in ps)
    assert len(images) == 2**matrix.rank
    assert set(images.values()) == {2**matrix.nullity}
    assert 2**matrix.bits == prod(layout.padded_shape)


@given(st.one_of(orderly(gaps=True), wild(limit=64)))
def test_matrix_round_trip(layout: Layout) -> None:
    matrix = maybe(lambda: to_bits(layout))
    if matrix is not None:
        assert from_bits(matrix) == layout.padded().canonicalize()


@given(st.integers(1, 3), st.integers(0, 4), st.integers(0, 4))
def test_a_swizzle_is_an_involution(bits: int, base: int, more: int) -> None:
    once = row_major((64, 32), 2).swizzle(bits, base, bits + more)
    shear = once.xor[0]
    assert all(shear.apply(shear.apply(p)) == p for p in range(LIMIT))
    twice = once.swizzle(bits, base, bits + more)
    assert twice.canonicalize() == row_major((64, 32), 2).canonicalize()
    assert sorted(map(shear.apply, range(LIMIT))) == list(range(LIMIT))


def test_what_is_no_power_of_two_is_no_matrix() -> None:
    with pytest.raises(NotRepresentable, match="48 is no power of two"):
        to_bits(parse_layout("(48:lane)"))
    with pytest.raises(NotRepresentable, match="meet in a bit"):
        to_bits(parse_layout("(4:reg@3)"))
    with pytest.raises(NotRepresentable, match="several axes"):
        from_bits(layout_package.BitMatrix((LANE, REG), (((1, 1),),)))


# ----------------------------------------------------------------------- convert


@st.composite
def conversions(draw: st.DrawFn) -> list[Layout]:
    """Three layouts of one tile."""
    shape = draw(st.sampled_from([(12,), (16,), (4, 6), (2, 8), (48,), (13,)]))
    return [draw(tilings(shape)) for _ in range(3)]


@st.composite
def tilings(draw: st.DrawFn, shape: Sequence[int]) -> Layout:
    splits: list[list[tuple[str, int]]] = []
    for size in shape:
        rest, split = size, list[tuple[str, int]]()
        while rest > 1 and len(split) < 3:
            part = draw(st.sampled_from([n for n in (2, 3, 4, 6, rest) if n <= rest]))
            split.insert(0, (draw(st.sampled_from([LANE, REG, REG, WARP])), part))
            rest = -(-rest // part)
        if split:
            split[0] = (split[0][0], split[0][1] * rest)
        splits.append(split)
    order = draw(st.permutations(range(len(shape))))
    tile = tile_layout([shape[i] for i in order], [splits[i] for i in order])
    tile = tile.permute([order.index(i) for i in range(len(shape))])
    copies = draw(st.sampled_from([None, None, LANE, REG, WARP]))
    if copies is None:
        return tile
    replica = Digit(2, tile.span(copies), copies)
    return Layout(tile.dims, tile.shape, [replica])


Held = dict[Place, Coords]


def held(layout: Layout) -> Held:
    return {p: coords for coords, ps in relation(layout).items() for p in ps}


def moved(conversion: Conversion, data: Held) -> Held:
    """What lies where after the conversion, given what lay where before."""
    target = conversion.target
    if conversion.kind is Kind.SCRATCH:
        present = set(data.values())
        return {p: c for p, c in held(target).items() if c in present}
    result: Held = {}
    for place in box(target.span(axis) for axis in (TIME, WARP)):
        rest = dict(zip((TIME, WARP), place, strict=True))
        for reg, row in enumerate(conversion.moves):
            for lane, move in enumerate(row):
                if move is None:
                    continue
                source = as_place({**rest, REG: move[0], LANE: move[1]})
                if source in data:
                    result[as_place({**rest, REG: reg, LANE: lane})] = data[source]
    return result


@settings(max_examples=200)
@given(conversions())
def test_conversion_moves_every_datum_to_its_place(tiles: list[Layout]) -> None:
    a, b, c = tiles
    conversion = convert(a, b)
    assert covers(moved(conversion, held(a)), held(b))
    through = moved(convert(b, c), moved(conversion, held(a)))
    direct = moved(convert(a, c), held(a))
    assert covers(through, held(c))
    assert covers(direct, held(c))


def covers(data: Held, wanted: Held) -> bool:
    """Every place that should hold an element does; more may be where padding is."""
    return all(data.get(place) == coords for place, coords in wanted.items())


@given(conversions())
def test_the_class_is_the_cheapest_that_is_true(tiles: list[Layout]) -> None:
    a, b, _ = tiles
    assert convert_class(a, a) is Kind.IDENTITY
    kind = convert_class(a, b)
    before, after = held(a), held(b)
    there = all(before.get(place) == coords for place, coords in after.items())
    assert there == (kind is Kind.IDENTITY)
    if kind is Kind.RENAME:
        registers = convert(a, b).registers
        for place, coords in after.items():
            at_ = dict(place)
            at_[REG] = registers[at_.get(REG, 0)]
            assert before[as_place(at_)] == coords


def test_classes_of_conversions() -> None:
    rows = parse_layout("(4:reg 16:lane)")
    assert convert_class(rows, parse_layout("(2:reg 2:reg@2 16:lane)")) is Kind.RENAME
    assert convert(rows, parse_layout("(2:reg 2:reg@2 16:lane)")).registers == (
        0,
        2,
        1,
        3,
    )
    assert convert_class(rows, parse_layout("(16:lane 4:reg)")) is Kind.SHUFFLE
    assert convert_class(rows, parse_layout("(4:warp 16:lane)")) is Kind.SCRATCH
    swept = parse_layout("(8:time 4:reg 16:lane < 500)")
    more = parse_layout("(16:time 2:reg 2:reg@2 16:lane < 500)")
    assert convert_class(swept, more) is Kind.RENAME
    with pytest.raises(NotRepresentable, match="more than registers"):
        _ = convert(rows, parse_layout("(16:lane 4:reg)")).registers


def test_each_lane_selects_its_own_register_of_a_copied_tile() -> None:
    everywhere = parse_layout("(4:reg) * 4:lane")
    conversion = convert(everywhere, parse_layout("(4:lane)"))
    assert conversion.kind is Kind.SHUFFLE
    assert conversion.moves == (((0, 0), (1, 1), (2, 2), (3, 3)),)


def test_a_butterfly_of_48_threads() -> None:
    """48 lanes fold as 2*2*2*2*3: each step a shuffle over one digit of the lane."""
    lanes = parse_layout("(3:lane@16 2:lane@8 2:lane@4 2:lane@2 2:lane)")
    assert lanes.canonicalize() == parse_layout("(48:lane)")
    rotated = parse_layout("(2:lane 3:lane@16 2:lane@8 2:lane@4 2:lane@2)")
    conversion = convert(lanes, rotated)
    assert conversion.kind is Kind.SHUFFLE
    assert covers(moved(conversion, held(lanes)), held(rotated))


# ------------------------------------------------------------ vectors and text


@given(memory, st.integers(1, 8), st.integers(0, 12), st.integers(0, 16))
def test_contiguous_width(
    words: Layout, bits: int, offset: int, divisibility: int
) -> None:
    dims = [
        tuple(Digit(d.extent, d.stride * bits, MEM) for d in ds) for ds in words.dims
    ]
    layout = Layout(dims, words.shape, (), [(MEM, offset * bits)])
    width = layout.contiguous_width(unit=bits, divisibility=divisibility)
    assert width >= 1
    assert layout.shape[-1] % width == 0
    assert divisibility % width == 0
    for coords in box(layout.shape):
        inside = coords[-1] % width
        start = layout.place(MEM, (*coords[:-1], coords[-1] - inside))
        assert width == 1 or start % (width * bits) == 0
        assert layout.place(MEM, coords) == start + inside * bits


@given(st.one_of(wild(), orderly(gaps=True), swizzled()))
def test_text_round_trip(layout: Layout) -> None:
    spelled = Layout(
        layout.dims, layout.shape, layout.replicas, layout.offset, layout.xor
    )
    assert parse_layout(text(layout)) == spelled
    assert hash(parse_layout(text(layout))) == hash(layout)
