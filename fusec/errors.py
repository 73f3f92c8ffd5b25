"""Every error that a user of fusec can meet.

Three kinds, told apart by class because they call for different action:

    FusecError
    ├── UserError            the user's mistake: change the program
    │   ├── OptionError      an option or environment variable
    │   └── ParseError       IR text
    ├── UnsupportedError     fusec lacks it, and fallback=False forbade running ATen
    ├── VerificationError    IR that breaks an invariant of its level
    └── InternalError        a bug of ours: report it

Each message says what happened, where, and what to do:

    fusec has no option 'numeric'
      at train.py:12, in main
        model = torch.compile(model, backend="fusec", options={"numeric": "fast"})
      help: did you mean 'numerics'?

Errors cross process boundaries: all of them pickle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Loc:
    """A line of source: where a user wrote what an op came from.

    `line` counts from 1. `text` is the source line itself, where it is known.
    """

    UNKNOWN: ClassVar[Loc]

    file: str
    line: int
    function: str = ""
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else "<unknown>"

    def describe(self) -> str:
        """`at file:line, in function`, with the source line below; "" if unknown."""
        if not self.file:
            return ""
        inside = f", in {self.function}" if self.function else ""
        source = f"\n  {self.text.strip()}" if self.text.strip() else ""
        return f"at {self}{inside}{source}"


Loc.UNKNOWN = Loc("", 0)


CHECK_ERRORS: Mapping[str, type[Exception]] = {
    "IndexError": IndexError,
    "RuntimeError": RuntimeError,
}
"""What a check in a program may fail with, by name: what eager torch raises there."""


class FusecError(Exception):
    """The base of all fusec errors."""


class UserError(FusecError):
    """The user's mistake: `what` happened, `where` in their source, how to `fix` it."""

    def __init__(self, what: str, where: Loc = Loc.UNKNOWN, fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        return _message(self.what, self.where.describe(), _help(self.fix))


class OptionError(UserError):
    """An option, a mode, a target's name or an environment variable is wrong."""


class ParseError(UserError):
    """IR text that cannot be read, shown with a caret under the offending column.

    `text` is the whole source, `line` and `column` count from 1:

        <text>:2:12: expected a type
          2 | %y = exp %x
            |            ^
          help: write the type after a colon, as in `%y = exp %x : f32[4]`
    """

    def __init__(
        self,
        text: str,
        line: int,
        column: int,
        message: str,
        hint: str = "",
        file: str = "<text>",
    ) -> None:
        super().__init__(message, Loc(file, line), hint)
        self.args = (text, line, column, message, hint, file)
        self.text = text
        self.line = line
        self.column = column

    def __str__(self) -> str:
        head = f"{self.where}:{self.column}: {self.what}"
        return _message(head, self._excerpt(), _help(self.fix))

    def _excerpt(self) -> str:
        lines = self.text.splitlines()
        if not 1 <= self.line <= len(lines):
            return ""
        source = lines[self.line - 1]
        before = source[: self.column - 1].ljust(self.column - 1)
        # A tab stays a tab, so that the caret lands under its column in any terminal.
        pad = "".join("\t" if char == "\t" else " " for char in before)
        number = str(self.line)
        return f"{number} | {source}\n{' ' * len(number)} | {pad}^"


@dataclass(frozen=True, slots=True)
class Unsupported:
    """One thing that fusec does not compile: `what` it is, the `reason`, and where."""

    what: str
    reason: str
    where: Loc = Loc.UNKNOWN

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where.file else ""
        return f"{self.what}: {self.reason}{place}"


class UnsupportedError(FusecError):
    """Parts of a graph would run through ATen, and `fallback=False` forbids that."""

    def __init__(self, things: Sequence[Unsupported]) -> None:
        super().__init__(tuple(things))
        self.things = tuple(things)

    def __str__(self) -> str:
        return _message(
            "fusec cannot compile all of this graph",
            "\n".join(str(thing) for thing in self.things),
            _help("set fallback=True to run these parts through ATen"),
        )


class VerificationError(FusecError):
    """IR breaks an invariant of its level. `ir` shows the op amid its neighbours."""

    def __init__(self, what: str, ir: str = "", where: Loc = Loc.UNKNOWN) -> None:
        super().__init__(what, ir, where)
        self.what = what
        self.ir = ir
        self.where = where

    def __str__(self) -> str:
        return _message(self.what, self.ir, self.where.describe())


class InternalError(FusecError):
    """A bug in fusec. `reproducer` is the path of a file that shows it again."""

    def __init__(
        self, what: str, where: Loc = Loc.UNKNOWN, reproducer: str = ""
    ) -> None:
        super().__init__(what, where, reproducer)
        self.what = what
        self.where = where
        self.reproducer = reproducer

    def __str__(self) -> str:
        attach = f" and attach {self.reproducer}" if self.reproducer else ""
        return _message(
            f"internal error: {self.what}",
            self.where.describe(),
            _help(
                f"this is a bug in fusec, not in your program; please report it{attach}"
            ),
        )


def _help(fix: str) -> str:
    return f"help: {fix}" if fix else ""


def _message(head: str, *parts: str) -> str:
    """`head`, and below it each part that is not empty, indented by two."""
    lines = [line for part in parts if part for line in part.splitlines()]
    return "\n".join([head, *(f"  {line}" for line in lines)])
