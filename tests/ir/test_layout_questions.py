"""What compilers ask of layouts, by example: tiles, vectors, banks, sizes, text."""

from __future__ import annotations

import doctest
from collections.abc import Callable, Iterable
from itertools import product as cartesian
from math import gcd, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fusec.ir.layout as layout_package
import fusec.ir.layout.build as build_module
import fusec.ir.layout.grid as grid_module
from fusec.ir.dims import Symbol
from fusec.ir.dims import evaluate as value_of
from fusec.ir.layout import (
    GRID,
    LANE,
    MEM,
    REG,
    TIME,
    Digit,
    Layout,
    NotRepresentable,
    Shear,
    bank_conflicts,
    convert,
    grid_text,
    identity,
    parse_layout,
    row_major,
    strided,
    text,
    tile_layout,
    to_bits,
)


def box(shape: Iterable[int]) -> list[tuple[int, ...]]:
    return list(cartesian(*map(range, shape)))


# --------------------------------------------------------- tiles, vectors, banks


def test_a_row_of_229() -> None:
    tile = tile_layout((229,), [[(TIME, 4), (REG, 4), (LANE, 16)]])
    assert (tile.regs, tile.lanes, tile.size(TIME)) == (4, 16, 4)
    assert tile.padded_shape == (256,)
    coords = [
        tile.coordinate({TIME: t, REG: r, LANE: lane}) for t, r, lane in box((4, 4, 16))
    ]
    assert coords == [(c,) for c in range(256)]
    assert sum(map(tile.contains, coords)) == 229


def test_the_last_dimension_of_a_tile_is_minor() -> None:
    tile = tile_layout((3, 64), [[(REG, 3)], [(REG, 2), (LANE, 32)]])
    assert str(tile) == "(3:reg@2, 2:reg 32:lane)"
    assert str(tile.drop(1)) == "(3:reg, 1)"
    assert tile.drop(1).reg_of((2, 63)) == 2


def test_lane_questions() -> None:
    tile = parse_layout("(3:reg@2, 32:lane 2:reg)")
    assert (tile.lane_dim(), tile.lane_step()) == (1, 2)
    scalar = parse_layout("(3:reg)")
    assert (scalar.lane_dim(), scalar.lane_step()) == (None, 1)
    with pytest.raises(NotRepresentable, match=r"\[0, 1\]"):
        parse_layout("(4:lane@8, 8:lane)").lane_dim()
    with pytest.raises(NotRepresentable, match="equally far"):
        parse_layout("(4:lane 2:reg 8:lane@4)").lane_step()


def test_vector_widths() -> None:
    assert row_major((8, 64), 32).contiguous_width(unit=32) == 64
    assert row_major((8, 229), 32).contiguous_width(unit=32) == 229
    assert gcd(row_major((8, 229), 32).contiguous_width(unit=32), 16) == 1
    assert row_major((8, 64), 32).contiguous_width(0, unit=32) == 1
    assert row_major((8, 64), 32).contiguous_width(unit=32, divisibility=4) == 4
    assert row_major((8, 64), 16).swizzle(3, 7, 3).contiguous_width(unit=16) == 8
    assert parse_layout("(4:lane 4:reg)").contiguous_width(axis=REG) == 4
    rows = Symbol("rows")
    pitch = Symbol("pitch")
    any_pitch = strided((rows, 64), (pitch, 1), 32)
    assert any_pitch.contiguous_width(unit=32) == 1
    assert strided((rows, 64), (8 * pitch, 1), 32).contiguous_width(unit=32) == 8


def test_swizzles_free_the_banks() -> None:
    """Eight lanes read 16 bytes each down a column of 128-byte rows (ldmatrix)."""
    tile = parse_layout("(8:lane, 8:reg)")
    for row_bytes, bits in ((128, 3), (64, 2), (32, 1)):
        memory = row_major((8, row_bytes // 2), 16)
        assert bank_conflicts(memory, tile, 16, vector=8) == row_bytes // 16
        assert bank_conflicts(memory.swizzle(bits, 7, 3), tile, 16, vector=8) == 1


def test_lanes_that_share_a_word_do_not_conflict() -> None:
    memory = row_major((32, 32), 32)
    assert bank_conflicts(memory, parse_layout("(1, 32:lane)"), 32) == 1
    assert bank_conflicts(memory, parse_layout("(32:lane, 1)"), 32) == 32
    everywhere = Layout([(), ()], (1, 1), [Digit(32, 1, LANE)])
    assert bank_conflicts(memory, everywhere, 32) == 1
    padded = strided((32, 32), (33, 1), 32)
    assert bank_conflicts(padded, parse_layout("(32:lane, 1)"), 32) == 1


# --------------------------------------------------------------- strided, symbols


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 8))
def test_strides_round_trip(shape: list[int], bits: int) -> None:
    layout = row_major(shape, bits)
    strides = layout.to_strided()
    assert Layout(strided(shape, strides, 1).dims, shape) == layout
    linear = [layout.place(MEM, coords) for coords in box(shape)]
    assert linear == [bits * i for i in range(prod(shape))]


def test_more_than_strides_is_declined() -> None:
    for source in ("(2:mem@2 3:mem@8)", "(4:reg)", "(8:mem) ^ 1:mem@2>0"):
        with pytest.raises(NotRepresentable):
            parse_layout(source).to_strided()


def test_symbolic_memory() -> None:
    n, m = Symbol("n"), Symbol("m")
    layout = row_major((n, m), 16)
    assert layout.to_strided() == (16 * m, 16)
    place = layout.evaluate((3, 5))[MEM]
    assert value_of(place, {m: 100}) == 16 * 305
    assert layout.evaluate((n - 1, 0)) == {MEM: 16 * n * m - 16 * m}
    assert layout.permute((1, 0)) == strided((m, n), (1, m), 16)
    assert layout.slice(0, 2).offset == ((MEM, 32 * m),)
    one = strided((1, m), (m, 1), 16)
    assert one.broadcast(0, n).evaluate((7, 2)) == {MEM: 32}


def test_a_static_tile_of_symbolic_memory() -> None:
    n, m = Symbol("n"), Symbol("m")
    tile = tile_layout((2, 64), [[(REG, 2)], [(REG, 4), (LANE, 16)]])
    seen = row_major((n, m), 32).compose(tile.inverse())
    rows = Layout([(Digit(16, 32, MEM),), (Digit(2, 32 * m, MEM), Digit(4, 512, MEM))])
    assert seen == rows
    grid = Layout([(Digit(n, 1, GRID), Digit(16, 1, REG))])
    assert grid.index_terms(GRID) == (((16, None, 1),),)
    assert grid.padded_shape == (16 * n,)


def test_symbols_out_of_place() -> None:
    n = Symbol("n")
    for make in (
        lambda: Digit(n, 1, REG),
        lambda: Digit(2, n, LANE),
        lambda: Layout([(Digit(2, 1, REG), Digit(n, 1, TIME))]),
        lambda: Layout([(Digit(n, 1, TIME),)]).inverse(),
        lambda: Layout([(Digit(n, 1, TIME),)]).reshape((2, n * 1, 1)),
        lambda: to_bits(row_major((n,), 8)),
    ):
        with pytest.raises((NotRepresentable, ValueError)):
            make()


# ------------------------------------------------------------------- validation


def test_malformed_layouts() -> None:
    cases: list[tuple[str, Callable[[], object]]] = [
        ("not the name of an axis", lambda: Digit(2, 1, "no axis")),
        ("at least 1", lambda: Digit(0, 1, REG)),
        ("not negative", lambda: Digit(2, -1, REG)),
        ("the shape", lambda: Layout([()], (1, 2))),
        ("count 4", lambda: Layout([(Digit(4, 1, REG),)], (5,))),
        ("share a place", lambda: Layout([], (), [Digit(2, 0, REG)])),
        ("two offsets", lambda: Layout([], (), (), [(REG, 1), (REG, 2)])),
        ("disjoint", lambda: Shear(3, 4, 2)),
        ("outside the extent", lambda: parse_layout("(4:reg)").evaluate((4,))),
        ("no order", lambda: parse_layout("(4:reg)").permute((1,))),
        ("no coordinate 3", lambda: parse_layout("(4:reg < 3)").slice(0, 3)),
        ("does not reshape", lambda: parse_layout("(4:reg)").reshape((5,))),
        ("do not feed", lambda: parse_layout("(4:reg)").compose(identity(()), ())),
        ("do not all feed", lambda: identity((4,)).compose(parse_layout("(4:reg)"))),
        ("ranks", lambda: identity((4,)).product(identity(()))),
        ("shapes", lambda: convert(identity((4,)), identity((5,)))),
        ("no size", lambda: parse_layout("(4:reg)").complement({})),
    ]
    for message, make in cases:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(NotRepresentable, match="overlap"):
        Layout([], (), [Digit(3, 1, REG), Digit(2, 2, REG)])


# ------------------------------------------------------------------------- text


@pytest.mark.parametrize(
    "source",
    [
        "()",
        "(1, 8)",
        "(2:reg@4, 4:time 4:reg 16:lane < 229)",
        "(4:lane) * 2:warp@4 2:warp ^ 3:mem@10>7 + grid@3 + mem@64",
        "({n}:mem@{16*m}, {m}:mem@16)",
        "({8*n}:time 4:reg < {32*n - 1})",
    ],
)
def test_notation(source: str) -> None:
    assert text(parse_layout(source)) == source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", r"expected '\(', found the end at column 1"),
        ("(4:reg", r"expected ',', found the end at column 7"),
        ("(4:)", r"expected the name of an axis, found '\)' at column 4"),
        ("(4:reg) 5", "expected the end, found '5' at column 9"),
        ("(4:reg@!)", "expected a number, found '!' at column 8"),
        ("(4:reg)) ", r"expected the end, found '\)' at column 8"),
        ("(2:reg < 3)", "count 2 for an extent of 3"),
    ],
)
def test_notation_errors(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_layout(source)


def test_grid_of_a_row() -> None:
    assert grid_text(parse_layout("(2:reg 3:lane < 5)")).splitlines() == [
        "  0      1      2      3      4",
        "l0 r0  l1 r0  l2 r0  l0 r1  l1 r1",
    ]
    assert grid_text(parse_layout("(2:lane) * 2:warp")).splitlines()[1] == (
        "w0 l0|w1 l0  w0 l1|w1 l1"
    )
    with pytest.raises(NotRepresentable, match="rank 3"):
        grid_text(identity((2, 2, 2)))


def test_examples_in_docstrings() -> None:
    for module in (layout_package, build_module, grid_module):
        names = {**vars(layout_package), **vars(module)}
        failed, tried = doctest.testmod(module, extraglobs=names)
        assert tried > 0
        assert failed == 0
