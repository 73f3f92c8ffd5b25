"""Checks that the program itself makes of its data while it runs, once per level.

    %z = checked %y, %ok {message="ZeroDivisionError", error="RuntimeError"}    graph
    check %ok {message="ZeroDivisionError", error="RuntimeError"}               loop
    raise %flags {messages=("ZeroDivisionError",), errors=("RuntimeError",)}    host

A launch does not raise: a check is a flag there, and the flags are looked at when the
launches are done. So what depends on a check is computed all the same, and must do no
harm: a load at an index that is checked is masked by the check, and a quotient by zero
is some number.
"""

from __future__ import annotations

from typing import Any

from fusec.errors import CHECK_ERRORS
from fusec.ir.core import Block, Level, Op, Values
from fusec.ir.dtypes import bool_
from fusec.ir.opdef import attr, operand
from fusec.ir.ops.space import common_space
from fusec.ir.types import IllTyped, Type, with_dtype


class Checked(Op, name="checked", levels=(Level.GRAPH,)):
    """x. Whoever computes it fails if `ok` is false anywhere."""

    x = operand()
    ok = operand()
    message = attr(str)
    error = attr(str, default="IndexError")

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        x, ok = operands
        _require(ok.type, attrs[1:])
        space = common_space([x.type, ok.type])  # type: ignore[list-item]
        return (with_dtype(space, x.type.dtype),)  # type: ignore[union-attr]


class Check(Op, name="check", levels=(Level.LOOP,)):
    """The program fails if `ok` is false anywhere."""

    pure = False

    ok = operand()
    message = attr(str)
    error = attr(str, default="IndexError")

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        _require(operands[0].type, attrs[1:])
        return ()


class Raise(Op, name="raise", levels=(Level.HOST,)):
    """Fail with `messages[k]` and `errors[k]` for the first nonzero flag k."""

    pure = False

    flags = operand()
    messages = attr((str,))
    errors = attr((str,))

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        messages, errors = attrs
        if len(errors) != len(messages):
            raise IllTyped(f"{len(errors)} errors, but {len(messages)} messages")
        _require_known(errors)
        return ()

    def failure(self, k: int) -> Exception:
        """What flag k stands for."""
        return CHECK_ERRORS[self.errors[k]](self.messages[k])


def _require(ok: Type, errors: tuple[str, ...]) -> None:
    if ok.dtype is not bool_:  # type: ignore[union-attr]
        raise IllTyped(f"check of {ok}")
    _require_known(errors)


def _require_known(errors: tuple[str, ...]) -> None:
    unknown = [error for error in errors if error not in CHECK_ERRORS]
    if unknown:
        raise IllTyped(f"no error {unknown[0]!r}; there are {', '.join(CHECK_ERRORS)}")
