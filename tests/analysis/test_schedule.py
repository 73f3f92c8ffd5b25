"""Schedules: every point is met once, and the choice follows the shape of memory."""

from __future__ import annotations

from math import prod

import pytest
from texts import ops, read

from fusec.analysis.accesses import Accesses, accesses
from fusec.analysis.choices import choose
from fusec.analysis.schedule import Schedule
from fusec.ir.dims import Symbol
from fusec.ir.ops.loop import Region
from fusec.target import TARGETS

V4 = TARGETS["x86-64-v4"]


def scheduled(text: str, target: str = "x86-64-v4") -> tuple[Accesses, Schedule]:
    (region,) = ops(read(text), Region)
    found = accesses(region)
    return found, choose(found, TARGETS[target], {Symbol("n"): 4096})


def exp_of(shape: str, index: str, axes: str) -> str:
    return f"""
        loop @f(%x: f32[{shape}]) -> (f32[{shape}]) symbols [n] {{
          %y = region %x over {axes} : f32[{shape}] {{
            ^(%a: f32[{shape}], %b: f32[{shape}]):
            %0 = load %a [{index}] : f32{{{index}}}
            %1 = exp %0 : f32{{{index}}}
            store %1, %b [{index}]
          }}
          yield %y
        }}
    """


ROWS = """
    loop @f(%x: f32[64, 1000]) -> (f32[64]) {
      %y = region %x over i:64, j:1000 : f32[64] {
        ^(%a: f32[64, 1000], %b: f32[64]):
        %0 = load %a [i, j] : f32{i, j}
        %1 = reduce %0 {axes=(j,), monoid=sum<f32>} : f32{i}
        store %1, %b [i]
      }
      yield %y
    }
"""


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("shape", ["1", "7", "64, 1000", "3, 5, 7", "1, 1"])
def test_grid_and_tile_hold_every_point(shape: str, target: str) -> None:
    names = "ijk"[: shape.count(",") + 1]
    sizes = shape.split(", ")
    axes = ", ".join(f"{a}:{n}" for a, n in zip(names, sizes, strict=True))
    found, schedule = scheduled(exp_of(shape, ", ".join(names), axes), target)
    points = prod(map(int, sizes))
    assert prod(axis.extent for axis in found.axes) == points
    each = prod(split.extent for split in schedule.tile)
    programs = schedule.programs
    assert isinstance(programs, int)
    assert points <= programs * each < points + each
    for split in schedule.tile:
        assert split.chunk * split.trips >= split.extent


def test_dense_dimensions_become_one_long_loop() -> None:
    found, schedule = scheduled(exp_of("64, 1000", "i, j", "i:64, j:1000"))
    assert [axis.extent for axis in found.axes] == [64000]
    assert schedule.tile[-1].blocked


def test_a_row_that_is_reduced_is_swept_within_a_program() -> None:
    found, schedule = scheduled(ROWS)
    assert [axis.name for axis in found.swept] == ["j"]
    assert [axis.name for axis in schedule.grid] == ["i"]
    (split,) = schedule.tile
    assert (split.axis.name, split.lanes, split.registers) == ("j", 16, 4)


def test_a_column_that_is_reduced_has_its_lanes_along_the_row() -> None:
    """Neighbours in memory are neighbours in a register."""
    text = ROWS.replace("axes=(j,)", "axes=(i,)").replace("f32{i}\n", "f32{j}\n")
    text = text.replace("store %1, %b [i]", "store %1, %b [j]")
    text = text.replace("f32[64])", "f32[1000])").replace(
        ": f32[64] {", ": f32[1000] {"
    )
    found, schedule = scheduled(text.replace("%b: f32[64]", "%b: f32[1000]"))
    assert [axis.name for axis in found.swept] == ["i"]
    assert schedule.tile[-1].axis.name == "j"
    assert schedule.tile[-1].blocked


SCAN = """
    loop @f(%x: f32[ROWS, 1000]) -> (f32[ROWS, 1000]) {
      %y = region %x over i:ROWS, j:1000 : f32[ROWS, 1000] {
        ^(%a: f32[ROWS, 1000], %b: f32[ROWS, 1000]):
        %0 = load %a [i, j] : f32{i, j}
        %1, %2 = scan %0, %0 {axis=j, monoid=MONOID<f32>} : f32{i, j}, f32{i, j}
        store %1, %b [i, j]
      }
      yield %y
    }
"""


@pytest.mark.parametrize(
    ("monoid", "rows", "lanes", "chunk"),
    [
        ("sum", 4096, "j", [64]),  # a few steps within a register
        ("logsumexp", 4096, "i", [16, 16]),  # one a row, for a square that is turned
        ("logsumexp", 3, "j", [64]),  # too few rows to fill lanes
    ],
)
def test_what_is_dear_to_combine_is_scanned_across_rows(
    monoid: str, rows: int, lanes: str, chunk: list[int]
) -> None:
    text = SCAN.replace("ROWS", str(rows)).replace("MONOID", monoid)
    if monoid == "sum":
        text = text.replace("%1, %2 = scan %0, %0", "%1 = scan %0")
        text = text.replace(": f32{i, j}, f32{i, j}", ": f32{i, j}")
    _, schedule = scheduled(text)
    assert schedule.tile[-1].axis.name == lanes
    assert [split.chunk for split in schedule.tile] == chunk


def test_large_results_bypass_the_caches_and_small_ones_do_not() -> None:
    large = scheduled(exp_of("8192, 8192", "i, j", "i:8192, j:8192"))[1]
    small = scheduled(exp_of("8, 8", "i, j", "i:8, j:8"))[1]
    assert (large.streaming, large.ahead is None) == (True, False)
    assert (small.streaming, small.ahead) == (False, None)


def test_sizes_that_are_open_are_likely_what_was_seen() -> None:
    found, schedule = scheduled(exp_of("n, 4096", "i, j", "i:n, j:4096"))
    assert str(found.axes[0].extent) == "4096*n"
    assert schedule.ahead is not None
