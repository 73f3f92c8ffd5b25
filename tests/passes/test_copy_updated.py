"""What updates begin as: whose memory is taken over, and what is copied before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from texts import ops, read, same_meaning

from fusec.analysis.in_place import taken_over
from fusec.errors import UserError
from fusec.ir.core import Function, Module
from fusec.ir.ops.host import Alloc, CopyInto
from fusec.ir.ops.loop import Region
from fusec.ir.verifier import verify
from fusec.passes.copy_updated import copy_updated
from fusec.passes.lower_to_host import lower_to_host
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.target import SM_90

HEAD = "graph @f(%x: f32[6], %s: f32[9]) -> ({}) {{"
"""A tensor, and what indices are made of as well."""
PLACES = """
      %a = abs %s : f32[9]
      %five = const(5.0) : f32
      %low = minimum %a, %five : f32[9]
      %i = cast %low : i64[9]
"""


def scatter(result: str, x: str, combine: str = "sum") -> str:
    attrs = f'places=(-1,), combine="{combine}"'
    return f"%{result} = scatter %{x}, %s, %i {{{attrs}}} : f32[6]\n"


def loops(
    body: str, results: str = "f32[6]", into: tuple[int | None, ...] = ()
) -> Function:
    """The loops of a graph after the pass, which mean what it means."""
    graph = read(HEAD.format(results) + PLACES + body + "}")
    graph = replace(graph, returns_into=into)
    owned = copy_updated(lower_to_loops(graph))
    verify(owned)
    same_meaning(graph, Module((owned,)))
    lowered = lower_to_host(owned, SM_90, {})
    verify(lowered.module)
    same_meaning(graph, lowered.module)
    return owned


def copies(function: Function) -> int:
    """How many regions only copy, or fill."""
    regions = ops(function, Region)
    kinds = [{type(op).name for op in region.body.ops} for region in regions]
    return sum(names <= {"load", "store", "const"} for names in kinds)


def test_a_parameter_is_copied() -> None:
    assert copies(loops(scatter("y", "x") + "yield %y")) == 1


def test_a_parameter_that_is_replaced_is_not() -> None:
    chain = scatter("y", "x") + scatter("z", "y") + "yield %z"
    function = loops(chain, into=(0,))
    assert copies(function) == 0
    host = lower_to_host(function, SM_90, {}).host
    assert not ops(host, CopyInto)
    assert not [op for op in ops(host, Alloc) if op.type == function.params[0].type]


@pytest.mark.parametrize(
    "body",
    [
        scatter("y", "x") + "%z = neg %x : f32[6]\n yield %y, %z",
        scatter("y", "x") + scatter("z", "x") + "yield %y, %z",
        scatter("y", "x") + "%z = neg %y : f32[6]\n yield %y, %y",
    ],
    ids=["read again", "begun again", "returned as well"],
)
def test_a_parameter_that_is_replaced_is_copied_if(body: str) -> None:
    assert copies(loops(body, "f32[6], f32[6]", (0, None))) >= 1


def test_what_was_made_is_taken_over() -> None:
    body = "%e = neg %x : f32[6]\n" + scatter("y", "e") + "yield %y"
    assert copies(loops(body)) == 0


@pytest.mark.parametrize("later", ["%z = neg %e : f32[6]", scatter("z", "e")])
def test_what_was_made_is_copied_if_it_is_read_again(later: str) -> None:
    body = "%e = neg %x : f32[6]\n" + scatter("y", "e") + later + "\nyield %y, %z"
    assert copies(loops(body, "f32[6], f32[6]")) == 1


def test_what_is_read_in_the_same_kernel_is_copied() -> None:
    """Programs may be done with an element before others read it."""
    body = """
      %e = neg %s : f32[9]
      %y = scatter %e, %e, %i {places=(-1,), combine="sum"} : f32[9]
      yield %y
    """
    assert copies(loops(body, "f32[9]")) == 1


def test_what_a_call_had_is_copied() -> None:
    """A call may give the memory that it took."""
    body = (
        "%e = neg %x : f32[6]\n"
        '%w = extern %e {target="aten.neg.default", arguments=($0,), keywords=()}'
        " : f32[6]\n" + scatter("y", "e") + "yield %y, %w"
    )
    graph = read(HEAD.format("f32[6], f32[6]") + PLACES + body + "}")
    assert not taken_over(lower_to_loops(graph))
    assert copies(copy_updated(lower_to_loops(graph))) == 1


def test_zeros_are_made_for_each() -> None:
    body = """
      %zero = const(0.0) : f32
      %e = broadcast %zero {shape=(6,)} : f32[6]
    """
    body += scatter("y", "e") + scatter("z", "e", "max") + "yield %y, %z, %e"
    function = loops(body, "f32[6], f32[6], f32[6]")
    fills = [op for op in ops(function, Region) if not op.inputs]
    assert len(fills) == 3


def test_without_the_pass_the_error_tells_of_it() -> None:
    graph = read(HEAD.format("f32[6]") + PLACES + scatter("y", "x") + "yield %y }")
    with pytest.raises(UserError, match="copy_updated"):
        lower_to_host(lower_to_loops(graph), SM_90, {})
