"""Transposes in registers: every permutation of the bits of a place."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from tiles import Kernel, Run

from fusec.codegen import llvm
from fusec.codegen.llvm_exchange import bit_permutation
from fusec.ir.dtypes import f32
from fusec.ir.layout import LANE, REG, Digit, Layout
from fusec.ir.ops.tile import Convert
from fusec.target import X86_64_V3

AXES = [(REG, 1), (REG, 2), (LANE, 1), (LANE, 2)]


def bits(order: tuple[int, ...]) -> Layout:
    """A tile of 16 elements whose bits lie so, the major one first."""
    return Layout([tuple(Digit(2, AXES[k][1], AXES[k][0]) for k in order)])


@pytest.mark.parametrize("source", [(0, 1, 2, 3), (2, 0, 3, 1)], ids=str)
def test_bits_go_everywhere(source: tuple[int, ...], run: Run) -> None:
    values = np.arange(16, dtype=np.float32)
    k = Kernel()
    x = k.load(values, f32, bits(source))
    orders = list(permutations(range(4)))
    outs = [k.store(k.b(Convert, x, layout=bits(order))) for order in orders]
    k.run(run)
    for out in outs:
        np.testing.assert_array_equal(out, values)


def test_eight_by_eight_takes_24_shuffles() -> None:
    rows = Layout([(Digit(8, 1, REG),), (Digit(8, 1, LANE),)])
    columns = Layout([(Digit(8, 1, LANE),), (Digit(8, 1, REG),)])
    k = Kernel()
    x = k.load(np.zeros((8, 8), np.float32), f32, rows)
    k.store(k.b(Convert, x, layout=columns))
    assert llvm.emit(k.b.function("f"), X86_64_V3).text.count("shufflevector") == 3 * 8


@pytest.mark.parametrize(
    "moves",
    [
        [[(0, 0), (0, 0)], [(1, 0), (1, 1)]],
        [[(0, 0), None], [(1, 0), (1, 1)]],
        [[(0, 1), (0, 0)], [(1, 1), (1, 0)]],
        [[(0, 0), (0, 1)]],
    ],
    ids=["copies", "padding", "reversed", "fewer registers"],
)
def test_what_permutes_no_bits_is_left_to_others(moves: Any) -> None:
    assert bit_permutation(moves, 2, 2) is None
