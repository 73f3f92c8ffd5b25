"""Results that take the place of parameters, and all that forbids it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from texts import read

from fusec.analysis.in_place import replaced_in_place
from fusec.ir.core import Function
from fusec.passes.fuse import fuse
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.target import X86_64_V4


def replaced(text: str, into: tuple[int | None, ...]) -> list[str]:
    """The parameters that results are written to, by name."""
    graph = replace(read(text), returns_into=into)
    loops: Function = fuse(lower_to_loops(graph), X86_64_V4, {})
    return [param.hint for param in replaced_in_place(loops).values()]


def function(body: str, results: str = "f32[4, 4]") -> str:
    return f"graph @f(%x: f32[4, 4], %y: f32[4, 4]) -> ({results}) {{\n{body}\n}}"


TURNED = "%t = permute %x {order=(1, 0)} : f32[4, 4]\n"


@pytest.mark.parametrize(
    "body",
    [
        "%z = add %x, %y : f32[4, 4]\n yield %z",
        "%z = neg %y : f32[4, 4]\n yield %z",
        "%a = mul %x, %y : f32[4, 4]\n %z = add %a, %x : f32[4, 4]\n yield %z",
    ],
    ids=["reads it there", "reads it not", "reads it twice there"],
)
def test_a_chain_writes_where_it_reads(body: str) -> None:
    assert replaced(function(body), (0,)) == ["x"]


@pytest.mark.parametrize(
    "body",
    [
        TURNED + "%z = add %x, %t : f32[4, 4]\n yield %z",
        TURNED + "%z = add %t, %y : f32[4, 4]\n yield %z",
        "%m = reduce_dims %x {dims=(1,), monoid=max<f32>} : f32[4]\n"
        "%r = reshape %m {shape=(4, 1)} : f32[4, 1]\n"
        "%b = broadcast %r {shape=(4, 4)} : f32[4, 4]\n"
        "%z = sub %x, %b : f32[4, 4]\n yield %z",
    ],
    ids=["also elsewhere", "only elsewhere", "a whole row"],
)
def test_not_where_other_elements_are_read(body: str) -> None:
    assert replaced(function(body), (0,)) == []


def test_not_before_a_later_reader() -> None:
    body = (
        "%z = add %x, %y : f32[4, 4]\n"
        '%w = extern %x {target="aten.sort.default", arguments=($0,), '
        "keywords=()} : f32[4, 4]\n"
        "yield %z, %w"
    )
    assert replaced(function(body, "f32[4, 4], f32[4, 4]"), (0, None)) == []


def test_not_where_the_result_is_returned_as_well() -> None:
    body = "%z = add %x, %y : f32[4, 4]\n yield %z, %z"
    both = replace(read(function(body, "f32[4, 4], f32[4, 4]")), returns_into=(0, None))
    found = replaced_in_place(lower_to_loops(both))
    assert len(found) <= 1
    assert all(list(lower_to_loops(both).body.yields).count(v) <= 1 for v in found)


def test_an_exchange_keeps_one_copy() -> None:
    """Each parameter becomes the other: neither is written before it is read."""
    body = "%a = neg %y : f32[4, 4]\n%b = neg %x : f32[4, 4]\n yield %a, %b"
    found = replaced(function(body, "f32[4, 4], f32[4, 4]"), (0, 1))
    assert len(found) <= 1
