"""Cuts of dimensions: what reshapes ask for, carried to everything walked in step."""

from __future__ import annotations

from texts import maker, read

from fusec.analysis.factors import factors, groups


def cut(text: str, *hints: str) -> list[tuple[tuple[object, ...], ...]]:
    function = read(text)
    found = factors(function)
    values = [
        value
        for hint in hints
        for value in maker(function, hint).results
        if value.hint == hint
    ]
    return [found.of(value) for value in values]


def test_a_reshape_cuts_what_it_splits_and_all_in_step() -> None:
    text = """
        graph @heads(%x: f32[5, 768]) -> (f32[5, 12, 64]) {
          %h = exp %x : f32[5, 768]
          %t = permute %h {order=(1, 0)} : f32[768, 5]
          %u = neg %t : f32[768, 5]
          %s = reshape %h {shape=(5, 12, 64)} : f32[5, 12, 64]
          yield %s
        }
    """
    assert cut(text, "h", "u", "s") == [
        ((5,), (12, 64)),
        ((12, 64), (5,)),
        ((5,), (12,), (64,)),
    ]


def test_cuts_cross_several_reshapes() -> None:
    text = """
        graph @f(%x: f32[24]) -> (f32[2, 12], f32[6, 4]) {
          %a = exp %x : f32[24]
          %b = reshape %a {shape=(2, 12)} : f32[2, 12]
          %c = reshape %a {shape=(6, 4)} : f32[6, 4]
          yield %b, %c
        }
    """
    assert cut(text, "a", "b", "c") == [
        ((2, 3, 4),),
        ((2,), (3, 4)),
        ((2, 3), (4,)),
    ]


def test_cuts_that_do_not_divide_one_another_drop_the_later() -> None:
    text = """
        graph @f(%x: f32[12]) -> (f32[3, 4], f32[2, 6]) {
          %a = exp %x : f32[12]
          %b = reshape %a {shape=(3, 4)} : f32[3, 4]
          %c = reshape %a {shape=(2, 6)} : f32[2, 6]
          yield %b, %c
        }
    """
    assert cut(text, "a", "b", "c") == [((3, 4),), ((3,), (4,)), ((2,), (6,))]


def test_reductions_tie_what_they_keep() -> None:
    text = """
        graph @f(%x: f32[768, 5]) -> (f32[12, 64]) {
          %e = exp %x : f32[768, 5]
          %r = reduce_dims %e {dims=(1,), monoid=sum<f32>} : f32[768]
          %s = reshape %r {shape=(12, 64)} : f32[12, 64]
          yield %s
        }
    """
    assert cut(text, "e", "r") == [((12, 64), (5,)), ((12, 64),)]


def test_symbolic_sizes_are_cut_too() -> None:
    text = """
        graph @f(%x: f32[64*n]) -> (f32[n, 64]) symbols [n] {
          %e = exp %x : f32[64*n]
          %s = reshape %e {shape=(n, 64)} : f32[n, 64]
          yield %s
        }
    """
    ((outer, inner),) = cut(text, "e")[0]
    assert (str(outer), inner) == ("n", 64)


def test_groups_are_runs_of_equal_products() -> None:
    assert groups((5, 768), (5, 12, 64)) == [((1,), (1, 2)), ((0,), (0,))]
    assert groups((6, 4), (4, 6)) == [((0, 1), (0, 1))]
    assert groups((1, 6, 1), (2, 1, 3)) == [((1,), (0, 2))]
    assert groups((), ()) == []
