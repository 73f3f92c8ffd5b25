"""What the host code shares out to threads: work, not elements."""

from __future__ import annotations

import re

from texts import read

from fusec.codegen.llvm_host import emit_host
from fusec.compiler import setting_of
from fusec.options import Options
from fusec.passes.journey import lower
from fusec.runtime.plan import plan_host

PRODUCTS = """
    graph @f(%x: f32[64, {deep}], %y: f32[{deep}, 64], %a: f32[64, {flat}],
             %b: f32[{flat}, 64]) -> (f32[64, 64], f32[64, 64]) {{
      %p = matmul %x, %y {{dtype=f32}} : f32[64, 64]
      %q = matmul %a, %b {{dtype=f32}} : f32[64, 64]
      yield %p, %q
    }}
"""
STORED = re.compile(r"store i64 (\d+), ptr %\S+")


def units(deep: int, flat: int) -> list[int]:
    """Units of work for each program of two products that run at the same time."""
    function = read(PRODUCTS.format(deep=deep, flat=flat))
    journey = lower(function, setting_of(Options(target="x86-64-v3")))
    text = emit_host(plan_host(journey.lowered.host), journey.kernels, journey.target)
    # The table: how many; then of each its first unit, its grid, units per program.
    table = [int(n) for n in STORED.findall(text.partition("@fusec_parallel")[0])][1:]
    assert (table[0], table[1]) == (2, 0)
    assert table[4] == table[2] * table[3]
    return [table[3], table[6]]


def test_a_product_takes_a_share_for_all_that_it_multiplies() -> None:
    """One whose sums are a hundred times as long is not given the same time."""
    deep, flat = units(6400, 64)
    assert deep > 20 * flat
    deep, flat = units(64, 64)
    assert deep == flat
