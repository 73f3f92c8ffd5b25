"""Where tensors lie in the arena: apart while they live, in little room."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level, Value
from fusec.ir.dims import Symbol
from fusec.ir.dtypes import f32
from fusec.ir.ops.host import Alloc, Free
from fusec.ir.types import Tensor
from fusec.runtime.plan import nothing_native, plan_arena
from fusec.runtime.recipe import ALIGNMENT

Steps = list[tuple[int, int]]
"""A size in elements, and how many later steps the tensor lives."""
STEPS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 6)), max_size=20)


def allocating(steps: Steps) -> tuple[Function, list[tuple[Value, int, int]]]:
    """A function that allocates and frees; each tensor with its life."""
    b = Builder(Level.HOST)
    ends: dict[int, list[Value]] = {}
    lives: list[tuple[Value, int, int]] = []
    for at, (size, life) in enumerate(steps):
        for value in ends.pop(at, []):
            b.emit(Free, (value,))
        (value,) = b.emit(Alloc, (), (Tensor(f32, (size,)), False, False))
        ends.setdefault(at + life + 1, []).append(value)
        lives.append((value, at, at + life))
    return b.function("f"), lives


def room(value: Any) -> int:
    return -(-4 * value.shape[0] // ALIGNMENT) * ALIGNMENT


@given(STEPS)
def test_what_lives_together_lies_apart(steps: Steps) -> None:
    function, lives = allocating(steps)
    plan = plan_arena(function, (), nothing_native)
    assert plan.offsets.keys() == {value for value, _, _ in lives}
    for k, (a, a_from, a_to) in enumerate(lives):
        begin, end = plan.offsets[a], plan.offsets[a] + room(a)
        assert begin % ALIGNMENT == 0
        assert end <= plan.nbytes
        for b, b_from, b_to in lives[:k]:
            if a_from <= b_to and b_from <= a_to:
                other = plan.offsets[b]
                assert end <= other or other + room(b) <= begin


@given(STEPS)
def test_a_chain_takes_no_more_room_than_three_of_its_largest(steps: Steps) -> None:
    """Each lives until the next one is made; between them a gap may be left."""
    function, lives = allocating([(max(1, size), 1) for size, _ in steps])
    sizes = [room(value) for value, _, _ in lives]
    plan = plan_arena(function, (), nothing_native)
    assert plan.nbytes <= 3 * max(sizes, default=0)


def test_what_others_own_or_nobody_knows_the_size_of_is_left_out() -> None:
    b = Builder(Level.HOST)
    types = Tensor(f32, (8,)), Tensor(f32, (8,)), Tensor(f32, (Symbol("n"),))
    owned, ours, unknown = (b.emit(Alloc, (), (t, False, False))[0] for t in types)
    plan = plan_arena(b.function("f"), [owned], nothing_native)
    assert plan.offsets == {ours: 0}
    assert unknown not in plan.offsets
    assert plan.nbytes == ALIGNMENT
