"""`rare`: what few elements need means a choice, on every level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusec.errors import VerificationError
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level, walk
from fusec.ir.dtypes import DType, bool_, f32, i32
from fusec.ir.interpreter import interpret
from fusec.ir.interpreter.elements import combine
from fusec.ir.monoids import Monoid
from fusec.ir.ops.elementwise import Select
from fusec.ir.ops.formula import Term, rarely
from fusec.ir.ops.rare import Rare
from fusec.ir.parser import parse_function
from fusec.ir.printer import format_function
from fusec.ir.types import Points, Scalar, Tensor, Type
from fusec.ir.verifier import verify
from fusec.passes.expand import expand

X = np.array([-np.inf, -3, 0, 1, 2, 5, np.inf, np.nan], np.float32)


def halved(x: Term) -> Term:
    return x * 0.5


def shrink(x: Term) -> Term:
    """x, and half of it above 1."""
    return rarely(x > 1.0, halved, (x,), x)


def function(level: Level = Level.GRAPH, type_: Type | None = None) -> Function:
    b = Builder(level)
    x = b.param(type_ or Tensor(f32, (8,)), "x")
    return b.function("f", (shrink(Term(b, x)).value,))


TEXT = """\
graph @f(%x: f32[8]) -> (f32[8]) {
  %0 = const(1.0) : f32
  %1 = gt %x, %0 : bool[8]
  %2 = rare %1, %x, %x : f32[8] {
    ^(%3: f32):
    %4 = const(0.5) : f32
    %5 = mul %3, %4 : f32
    yield %5
  }
  yield %2
}
"""


def test_it_reads_back_as_it_is_written() -> None:
    f = function()
    verify(f)
    assert format_function(f) == TEXT
    again = parse_function(TEXT)
    verify(again)
    assert format_function(again) == TEXT


def test_the_block_counts_where_the_condition_holds() -> None:
    (got,) = interpret(function(), [X])
    np.testing.assert_array_equal(got, np.where(X > 1, X * 0.5, X))


def test_a_backend_without_branches_has_a_select() -> None:
    f = expand(function(), lambda op, dtype: op is not Rare)
    verify(f)
    kinds = {type(op) for op in walk(f.body)}
    assert Select in kinds
    assert Rare not in kinds
    np.testing.assert_array_equal(interpret(f, [X])[0], np.where(X > 1, X * 0.5, X))


def test_one_that_branches_keeps_one_block_of_a_formula() -> None:
    b = Builder(Level.GRAPH)
    x = Term(b, b.param(Tensor(f32, (8,)), "x"))
    f = b.function("f", (shrink(x).value, shrink(x + 1.0).value))
    first, second = [op for op in f.body.ops if isinstance(op, Rare)]
    assert first.body is second.body
    verify(expand(f, lambda op, dtype: True))


def test_what_never_happens_is_dropped() -> None:
    b = Builder(Level.TILE)
    x = Term(b, b.const(0.5, f32))
    assert shrink(x).value is x.value


def test_a_scalar_condition_takes_the_space_of_the_others() -> None:
    b = Builder(Level.LOOP)
    x = Term(b, b.param(Points(f32, ()), "x"))
    never = Term(b, b.const(False, bool_))
    assert rarely(never, halved, (x,), x.like(1.0)).value.type == Points(f32, ())


def test_it_may_stand_in_a_monoid() -> None:
    def right(x: Term, y: Term) -> Term:
        return y

    b = Builder(Level.LOOP)
    x, y = (Term(b, b.param(Scalar(f32), name)) for name in "xy")
    larger = rarely(y > x, right, (x, y), x)
    maximum = Monoid("m", (-np.inf,), b.function("m", (larger.value,)))
    (got,) = combine(maximum, (X[:7],), (X[6::-1],))
    np.testing.assert_array_equal(got, np.maximum(X[:7], X[6::-1]))


@pytest.mark.parametrize(
    ("condition", "usual", "takes", "gives", "why"),
    [
        (f32, f32, f32, f32, "not bool"),
        (bool_, f32, i32, f32, "other scalars"),
        (bool_, f32, f32, i32, "no scalar such as"),
        (bool_, bool_, f32, bool_, "no bools"),
    ],
)
def test_types_fit(
    condition: DType, usual: DType, takes: DType, gives: DType, why: str
) -> None:
    b = Builder(Level.GRAPH)
    operands: list[Any] = [
        b.param(Tensor(dtype, (8,))) for dtype in (condition, usual, f32)
    ]
    inner = b.isolated()
    inner.param(Scalar(takes))
    block = inner.block((inner.const(1, gives),))
    with pytest.raises(TypeError, match=why):
        b.emit(Rare, operands, (), (block,))


def test_shapes_fit() -> None:
    b = Builder(Level.GRAPH)
    x, y = (Term(b, b.param(Tensor(f32, (n,)))) for n in (8, 4))
    with pytest.raises(TypeError, match="differ in shape"):
        rarely(x > 1.0, halved, (y,), x)


def test_the_block_reads_its_parameters_only() -> None:
    text = TEXT.replace("mul %3, %4", "mul %3, %0")
    with pytest.raises(VerificationError, match="%0 comes from outside of the rare"):
        verify(parse_function(text))
