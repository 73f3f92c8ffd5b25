"""Regions that are the same but for names share a kernel, and only those."""

from __future__ import annotations

from texts import ops, read, same_meaning

from fusec.ir.core import Module
from fusec.ir.dims import Symbol
from fusec.ir.ops.host import Launch
from fusec.passes.assign_layouts import assign_layouts
from fusec.passes.lower_to_host import Lowered, lower_to_host
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.target import X86_64_V4

S0, S1 = Symbol("s0"), Symbol("s1")

TWO_SIZES = """
    graph @f(%x: f32[s0, 8], %y: f32[s1, 8]) -> (f32[s0, 8], f32[s1, 8])
        symbols [s0, s1] {{
      %a = exp %x : f32[s0, 8]
      %b = {op} %y : f32[s1, 8]
      yield %a, %b
    }}
"""


def lowered(op: str, hints: dict[Symbol, int]) -> Lowered:
    """The program of two ops on tensors of two sizes, which means what it meant."""
    graph = read(TWO_SIZES.format(op=op))
    found = lower_to_host(lower_to_loops(graph), X86_64_V4, hints)
    kernels = [assign_layouts(kernel.function) for kernel in found.kernels.values()]
    same_meaning(graph, Module((found.host, *kernels)))
    return found


def test_a_kernel_serves_regions_of_other_sizes() -> None:
    found = lowered("exp", {S0: 40, S1: 40})
    assert len(found.kernels) == 1
    first, second = ops(found.host, Launch)
    assert (first.sizes, second.sizes) == ((S0,), (S1,))


def test_sizes_that_are_likely_to_differ_have_kernels_of_their_own() -> None:
    assert len(lowered("exp", {S0: 40, S1: 4000}).kernels) == 2


def test_other_ops_have_kernels_of_their_own() -> None:
    assert len(lowered("abs", {S0: 40, S1: 40}).kernels) == 2
