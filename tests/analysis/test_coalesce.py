"""Lanes that lie in a row in memory, by enumeration."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusec.analysis.coalesce import coalesced
from fusec.ir.dims import Symbol


@pytest.mark.parametrize(
    ("chunk", "strides", "lanes"),
    [
        ([(8, 1), (1, 8)], (1, 4096), [8, 1]),
        ([(16, 1), (1, 8)], (1, 4096), [8, 1]),
        ([(2, 1), (1, 8)], (1, 2), [2, 4]),
        ([(2, 1), (2, 8)], (1, 2), [2, 4]),
        ([(8, 1), (1, 8)], (1, Symbol("n")), [8, 1]),
    ],
    ids=["square", "wide", "interleaved", "longer", "symbolic"],
)
def test_lanes_move_to_where_memory_is_contiguous(
    chunk: list[tuple[int, int]], strides: tuple[int, ...], lanes: list[int]
) -> None:
    assert coalesced(chunk, strides) == lanes


@pytest.mark.parametrize(
    ("chunk", "strides"),
    [
        ([(4, 1), (1, 8)], (4096, 1)),
        ([(4, 1), (1, 8)], (4096, -1)),
        ([(4, 1), (1, 8)], (1, 0)),
        ([(4, 1), (1, 8)], (1, 4096)),
        ([(2, 1), (1, 8)], (1, 3)),
        ([(8, 1), (1, 8)], (2, 4096)),
        ([(3, 1), (1, 8)], (1, 3)),
        ([(8, 1), (4, 1)], (1, 8)),
    ],
    ids="in_a_row backwards one_element too_few gaps steps uneven no_lanes".split(),
)
def test_or_stay(chunk: list[tuple[int, int]], strides: tuple[int, ...]) -> None:
    assert coalesced(chunk, strides) is None


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 3, 4, 8]), st.sampled_from([1, 1, 2, 4, 8])),
        min_size=1,
        max_size=3,
    ),
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 16, 100]), min_size=3, max_size=3),
)
def test_the_lanes_cover_a_run(
    chunk: list[tuple[int, int]], strides: list[int]
) -> None:
    strides = strides[: len(chunk)]
    taken = coalesced(chunk, strides)
    if taken is None:
        return
    coords = product(*(range(n) for n in taken))
    places = sorted(
        sum(c * s for c, s in zip(coord, strides, strict=True)) for coord in coords
    )
    count = 1
    for _, lanes in chunk:
        count *= lanes
    assert places == list(range(count))
    for n, (registers, lanes) in zip(taken, chunk, strict=True):
        assert registers * lanes % n == 0
