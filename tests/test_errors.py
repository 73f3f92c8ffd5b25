"""Messages say what, where and what to do; errors pickle."""

from __future__ import annotations

import pickle

import pytest

from fusec.errors import (
    FusecError,
    InternalError,
    Loc,
    OptionError,
    ParseError,
    Unsupported,
    UnsupportedError,
    UserError,
    VerificationError,
)

LOC = Loc("model.py", 12, "forward", "    y = f(x)\n")


def test_loc_prints_file_and_line() -> None:
    assert str(LOC) == "model.py:12"
    assert str(Loc.UNKNOWN) == "<unknown>"
    assert Loc.UNKNOWN.describe() == ""


def test_locs_are_equal_by_content() -> None:
    assert Loc("a.py", 1) == Loc("a.py", 1)
    assert len({Loc("a.py", 1), Loc("a.py", 1), Loc("a.py", 2)}) == 2


def test_user_error_says_what_where_and_what_to_do() -> None:
    assert str(UserError("x has no rows", LOC, "pass at least one row")) == (
        "x has no rows\n"
        "  at model.py:12, in forward\n"
        "    y = f(x)\n"
        "  help: pass at least one row"
    )


def test_user_error_leaves_out_what_it_does_not_know() -> None:
    assert str(UserError("x has no rows")) == "x has no rows"


def test_parse_error_points_at_the_column() -> None:
    text = "graph @f {\n\t%y = exp %x\n}"
    error = ParseError(text, 2, 13, "expected a type", "write `: f32`", "a.ir")
    assert str(error) == (
        "a.ir:2:13: expected a type\n"
        "  2 | \t%y = exp %x\n"
        "    | \t           ^\n"
        "  help: write `: f32`"
    )


def test_parse_error_past_the_end_of_the_text() -> None:
    assert str(ParseError("", 1, 1, "expected a function")) == (
        "<text>:1:1: expected a function"
    )


def test_unsupported_error_lists_everything() -> None:
    things = [Unsupported("aten.foo", "unknown op", LOC), Unsupported("c64", "dtype")]
    assert str(UnsupportedError(things)) == (
        "fusec cannot compile all of this graph\n"
        "  aten.foo: unknown op (model.py:12)\n"
        "  c64: dtype\n"
        "  help: set fallback=True to run these parts through ATen"
    )


def test_verification_error_shows_the_ir() -> None:
    error = VerificationError("%x is used before it is defined", "%y = exp %x", LOC)
    assert str(error) == (
        "%x is used before it is defined\n"
        "  %y = exp %x\n"
        "  at model.py:12, in forward\n"
        "    y = f(x)"
    )


def test_internal_error_asks_for_a_report() -> None:
    message = str(InternalError("no schedule fits", reproducer="/tmp/r.py"))
    assert "bug in fusec" in message
    assert "attach /tmp/r.py" in message


ERRORS = [
    UserError("what", LOC, "fix"),
    OptionError("what", fix="fix"),
    ParseError("a\nb", 2, 1, "message", "hint", "file.ir"),
    UnsupportedError([Unsupported("a", "b", LOC)]),
    VerificationError("what", "ir", LOC),
    InternalError("what", LOC, "path"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling(error: FusecError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
