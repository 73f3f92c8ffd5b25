"""A compiled graph as bytes."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fusec.frontend.compiled import CompiledGraph, Kept, Made, compiled
from fusec.frontend.outputs import Argument, Program, View
from fusec.frontend.torch_private import BypassAOTAutogradCache


@dataclass(frozen=True)
class Adds:
    """An artifact whose program adds a number to its argument."""

    number: float

    def load(self) -> Program:
        return lambda arguments: [arguments.pop() + self.number]


def graph(backward: bool = False) -> CompiledGraph:
    view = View(0, (2,), (1,), 1)
    kept = Kept(Adds(0.5), (Argument(0), 0, view), backward, negated=backward)
    return CompiledGraph(kept)


def through_pickle(thing: CompiledGraph) -> CompiledGraph:
    other = pickle.loads(pickle.dumps(thing))
    other.post_compile()
    return other


def test_a_graph_comes_back_with_its_outputs() -> None:
    x = torch.arange(3.0)
    same, sum_, view = through_pickle(graph())([x])
    assert same is x
    assert sum_.tolist() == [0.5, 1.5, 2.5]
    assert view.tolist() == [1.5, 2.5]
    assert view.data_ptr() == sum_[1:].data_ptr()


def test_a_backward_pass_takes_lazy_negations() -> None:
    negated = torch.complex(torch.zeros(3), torch.arange(3.0)).conj().imag
    assert negated.is_neg()
    assert through_pickle(graph(backward=True))([negated])[1].tolist() == [
        0.5,
        -0.5,
        -1.5,
    ]


@given(st.integers(0), st.integers(0, 7))
def test_a_flipped_bit_is_noticed(place: int, bit: int) -> None:
    revive, (data,) = graph().__reduce__()
    damaged = bytearray(data)
    damaged[place % len(data)] ^= 1 << bit
    with pytest.raises(ValueError, match="damaged"):
        revive(bytes(damaged))


@pytest.mark.parametrize("length", [0, 31, 32, 33])
def test_missing_bytes_are_noticed(length: int) -> None:
    revive, (data,) = graph().__reduce__()
    with pytest.raises(ValueError, match="damaged"):
        revive(data[:length])


def test_what_cannot_be_pickled_is_left_out_of_the_cache() -> None:
    """Torch takes this for "do not keep it"; the graph runs all the same."""
    here: Any = lambda: None  # noqa: E731, as no other process could have it
    program = Made(lambda arguments: [arguments.pop() + 1], artifact=here)
    run: Any = compiled(program, (0,))
    assert run([torch.ones(())])[0] == 2
    for made in (run.__wrapped__, CompiledGraph()):
        with pytest.raises(BypassAOTAutogradCache):
            made.prepare_for_serialization()
