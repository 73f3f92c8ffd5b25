"""Functions written as text, what a pass makes of them, and whether it means the same.

before = read("graph @f(%x: f32[4]) -> (f32[4]) { … }")
after = lower_to_loops(before)
same_meaning(before, after)              # first what it means,
shows(after, '''loop @f …''')            # then how it looks
"""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import numpy as np

from fusec.ir.core import Function, Module, Op, Value, walk
from fusec.ir.dims import evaluate, symbols
from fusec.ir.interpreter import interpret
from fusec.ir.parser import parse_function
from fusec.ir.printer import format_function
from fusec.ir.verifier import verify

SIZE = 37
"""What symbols are in the calls that compare meanings: odd, and no vector's length."""

SOFTMAX = """
    graph @softmax(%x: f32[5, 1000]) -> (f32[5, 1000]) {
      %m = reduce_dims %x {dims=(1,), monoid=max<f32>} : f32[5]
      %c = reshape %m {shape=(5, 1)} : f32[5, 1]
      %w = broadcast %c {shape=(5, 1000)} : f32[5, 1000]
      %s = sub %x, %w : f32[5, 1000]
      %e = exp %s : f32[5, 1000]
      %t = reduce_dims %e {dims=(1,), monoid=sum<f32>} : f32[5]
      %u = reshape %t {shape=(5, 1)} : f32[5, 1]
      %v = broadcast %u {shape=(5, 1000)} : f32[5, 1000]
      %y = div %e, %v : f32[5, 1000]
      yield %y
    }
"""
"""What a graph of softmax over rows looks like."""


def read(text: str) -> Function:
    """The function of an indented text, verified."""
    function = parse_function(dedent(text))
    verify(function)
    return function


def shows(function: Function, text: str) -> None:
    """A function looks like an indented text, and the text reads back as it."""
    wanted = dedent(text).strip()
    assert format_function(function).strip() == wanted
    assert format_function(parse_function(wanted)).strip() == wanted


def same_meaning(
    before: Function, after: Function | Module, extern: Any = None
) -> None:
    """Both give the same results and leave the same in their arguments.

    Numbers are small integers; where ops keep them so, results have to be exact.
    """
    verify(after)
    module = after if isinstance(after, Module) else None
    entry = after.entry if isinstance(after, Module) else after
    ours, theirs = arguments(before), arguments(before)
    wanted = interpret(before, theirs, extern=extern)
    got = interpret(entry, ours, module=module, extern=extern)
    for a, b in zip((*wanted, *theirs), (*got, *ours), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6)


def arguments(function: Function) -> list[Any]:
    """Small integers for every parameter, from 0 for those that may be indices."""
    random = np.random.default_rng(0)
    return [_argument(param, random) for param in function.params]


def _argument(param: Value, random: np.random.Generator) -> Any:
    shape = [evaluate(n, dict.fromkeys(symbols(n), SIZE)) for n in param.shape]
    low = 0 if param.dtype.is_int else -4
    return random.integers(low, 4, shape).astype(param.dtype.carrier)


def ops(function: Function, op_class: type) -> list[Any]:
    """The ops of a class anywhere in a function, in program order."""
    return [op for op in walk(function.body) if isinstance(op, op_class)]


def maker(function: Function, hint: str) -> Op:
    """The op that makes the value that is called so."""
    return next(
        op for op in walk(function.body) if any(v.hint == hint for v in op.results)
    )
