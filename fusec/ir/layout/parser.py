"""Layouts as text, in the one-line form that `notation` describes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from fusec.ir.dims import Dim, parse_dim
from fusec.ir.layout.core import Layout
from fusec.ir.layout.digits import (
    AXES,
    Digit,
    Digits,
    Shear,
    extent,
)

T = TypeVar("T")

_TOKEN = re.compile(r"\d+|[A-Za-z_]\w*|\{[^{}]*\}|\S", re.ASCII)


def text(layout: Layout) -> str:
    """The layout in one line; `parse_layout` reads it back."""
    return str(layout)


def parse_layout(source: str) -> Layout:
    """Read a layout as `text` writes it.

    Raises ValueError with the column for other text, and whatever `Layout` raises
    for parts that do not fit together.
    """
    return _Parser(source).layout()


def on_known_axes(layout: Layout) -> Layout:
    """The layout, if all its axes are a machine's; ValueError otherwise.

    In the algebra any name is an axis. A layout that a person writes means a place.
    """
    digits = [digit for dim in (*layout.dims, layout.replicas) for digit in dim]
    others = [*layout.xor, *digits]
    names = [each.axis for each in others] + [axis for axis, _ in layout.offset]
    for name in names:
        if name not in AXES:
            raise ValueError(f"no axis {name!r}; there are {', '.join(AXES)}")
    return layout


class _Parser:
    """Recursive descent over one line."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = list(_tokens(source))
        self.index = 0

    def layout(self) -> Layout:
        self.expect("(")
        dims: list[tuple[Digits, Dim]] = []
        while not self.accept(")"):
            if dims:
                self.expect(",")
            dims.append(self.dim())
        replicas = self.digits() if self.accept("*") else ()
        xor = self.many("^", self.shear)
        offset = self.many("+", self.offset)
        if self.token:
            raise self.error("the end")
        shape = [size for _, size in dims]
        return Layout([digits for digits, _ in dims], shape, replicas, offset, xor)

    def dim(self) -> tuple[Digits, Dim]:
        if [text for text, *_ in self.tokens[self.index + 1 :][:1]] != [":"]:
            return (), self.number()
        digits = self.digits()
        return digits, self.number() if self.accept("<") else extent(digits)

    def digits(self) -> Digits:
        found = [self.digit()]
        while self.token and (self.token.isdigit() or self.token[0] == "{"):
            found.append(self.digit())
        return tuple(found)

    def digit(self) -> Digit:
        size = self.number()
        self.expect(":")
        axis = self.name()
        return Digit(size, self.number() if self.accept("@") else 1, axis)

    def shear(self) -> Shear:
        width = self.integer()
        self.expect(":")
        axis = self.name()
        self.expect("@")
        source = self.integer()
        self.expect(">")
        return Shear(width, source, self.integer(), axis)

    def offset(self) -> tuple[str, Dim]:
        axis = self.name()
        self.expect("@")
        return axis, self.number()

    def number(self) -> Dim:
        if self.token.endswith("}") and len(self.token) > 1:
            return parse_dim(self.advance()[1:-1])
        return self.integer()

    def integer(self) -> int:
        if not self.token.isdigit():
            raise self.error("a number")
        return int(self.advance())

    def name(self) -> str:
        if not self.token.isidentifier():
            raise self.error("the name of an axis")
        return self.advance()

    def many(self, mark: str, item: Callable[[], T]) -> list[T]:
        found: list[T] = []
        while self.accept(mark):
            found.append(item())
        return found

    @property
    def token(self) -> str:
        return self.tokens[self.index][0]

    def accept(self, token: str) -> bool:
        if self.token != token:
            return False
        self.index += 1
        return True

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise self.error(repr(token))

    def advance(self) -> str:
        self.index += 1
        return self.tokens[self.index - 1][0]

    def error(self, expected: str) -> ValueError:
        token, column = self.tokens[self.index]
        found = repr(token) if token else "the end"
        where = f"column {column + 1} of {self.source!r}"
        return ValueError(f"expected {expected}, found {found} at {where}")


def _tokens(source: str) -> Iterator[tuple[str, int]]:
    """Each token with its column, then "" for the end."""
    for match in _TOKEN.finditer(source):
        yield match.group(), match.start()
    yield "", len(source)
