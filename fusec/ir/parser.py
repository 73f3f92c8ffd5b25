"""Reads the text form of the IR, as `printer` writes it and `grammar.lark` defines it.

    >>> f = parse_function('''
    ... graph @f(%x: f32[4, 8]) -> (f32[4, 8]) {
    ...   %e = exp %x : f32[4, 8]
    ...   yield %e
    ... }''')
    >>> [op.name for op in f.body.ops]
    ['exp']

The text becomes a tree (LALR(1), linear time), and the tree becomes IR from the leaves
up and from left to right, so that whatever a line names was read before it. Types that
the text states are compared with those the ops infer. All else that makes IR valid is
`verify`'s to say.

Every text, however wrong, gives a module or a `ParseError`: with its line, a caret,
and what to do. The text is data: nothing in it is executed or imported.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (lark's annotations leave out the parameters of its generic types.)

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NoReturn

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedInput
from lark.exceptions import UnexpectedToken
from lark.lexer import PatternStr

import fusec.ir.ops as _ops
from fusec.errors import Loc, ParseError
from fusec.ir import literals
from fusec.ir.calls import Slot
from fusec.ir.core import Affine, Block, Function, Level, Module, Monoid, Op, Value
from fusec.ir.dims import Dim, Facts, Symbol
from fusec.ir.dtypes import codebook
from fusec.ir.layout import Layout
from fusec.ir.literals import Misfit, Quoted, Tuple, listing, nearest, short
from fusec.ir.opdef import REGISTRY, REQUIRED, Attr
from fusec.ir.printer import (
    IDENTIFIER,
    INDEX,
    RESERVED,
    Names,
    format_type,
    implied_by,
    repeats_types,
)
from fusec.ir.types import Axis, Buffer, IllTyped, Points, Space, Tensor, Tile, Type
from fusec.ir.verifier import arity, inferred_types

__all__ = ["parse_function", "parse_module"]

assert _ops.__all__  # imported for its effect: the registry knows every op


def parse_module(text: str, filename: str = "<text>") -> Module:
    """The module that `text` describes.

    Raises `ParseError`, which calls the text `filename`.
    """
    try:
        tree = _grammar().parse(text, start="start")
    except UnexpectedInput as error:
        raise _syntax_error(error, text, filename) from None
    return _evaluate(tree, _Reader(text, filename))


def parse_function(text: str, filename: str = "<text>") -> Function:
    """The only function that `text` describes; raises as `parse_module`."""
    functions = parse_module(text, filename).functions
    if len(functions) != 1:
        message = f"expected one function, found {len(functions)}"
        raise ParseError(text, 1, 1, message, "use parse_module", filename)
    return functions[0]


@cache
def _grammar() -> Lark:
    source = files("fusec.ir").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(
        source,
        parser="lalr",
        lexer="contextual",
        maybe_placeholders=True,
        start=["start", "expr"],
    )


def _evaluate(tree: Tree[Token], reader: _Reader) -> Any:
    """Call the reader's method of each rule on what its parts became, in text order.

    Without recursion, for texts that nest deeply.
    """
    pending: list[Any] = [tree]
    ordered: list[Any] = []
    while pending:
        node = pending.pop()
        ordered.append(node)
        if isinstance(node, Tree):
            pending.extend(node.children)
    done: list[Any] = []
    for node in reversed(ordered):
        if not isinstance(node, Tree):
            done.append(node)
            continue
        first = len(done) - len(node.children)
        parts = done[first:]
        del done[first:]
        done.append(getattr(reader, node.data)(*parts))
    return done.pop()


# What the parts of a line become before their meaning is known. A name that stands
# alone stays a lark `Token`, for it may be an axis, a symbol, a dtype or a word.


@dataclass(frozen=True, slots=True)
class _Over:
    axes: dict[str, Axis]


@dataclass(frozen=True, slots=True)
class _Typed:
    at: Token
    types: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class _Attributes:
    given: dict[str, tuple[Token, Any]]


@dataclass(frozen=True, slots=True)
class _Head:
    """A line up to its types: the op with its operands and attributes."""

    at: Token
    op: Any
    defined: tuple[Token, ...]
    operands: tuple[Value, ...]
    attributes: dict[str, tuple[Token, Any]]


@dataclass(frozen=True, slots=True)
class _Header:
    at: Token
    level: Level
    name: str
    params: tuple[Value, ...]
    types: tuple[Type, ...]
    symbols: tuple[Symbol, ...]
    facts: Facts
    into: tuple[int | None, ...]
    frozen: tuple[int, ...]
    spread: Layout | None


@dataclass(frozen=True, slots=True)
class _Range:
    symbol: Symbol
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class _Divisor:
    dim: Dim
    n: int


class _Reader:
    """Gives each rule of the grammar its meaning, in the order of the text."""

    def __init__(self, text: str, filename: str) -> None:
        self._text = text
        self._filename = filename
        self._values: dict[str, Value] = {}
        self._scopes: list[list[str]] = []
        """The names that each open block has defined."""
        self._axes: list[dict[str, Axis]] = [{}]

    def _fail(self, at: Token, message: str, hint: str = "") -> NoReturn:
        line, column = at.line or 1, at.column or 1
        raise ParseError(self._text, line, column, message, hint, self._filename)

    def _at(self, at: Token, read: Callable[..., Any], *values: Any) -> Any:
        """What `read` makes of the values; what it refuses is reported at a place."""
        try:
            return read(*values)
        except Misfit as misfit:
            self._fail(at, str(misfit), misfit.hint)

    def _read(self, at: Token, read: Callable[..., Any], *values: Any) -> Any:
        """`_at`, of what depends on the axes in scope."""
        return self._at(at, read, *values, self._axes[-1])

    # --------------------------------------------------------- modules, functions

    def start(self, *items: Any) -> Module:
        functions = tuple(f for f in items if f is not None)
        if not functions:
            hint = "write one, as in `graph @f(%x: f32[4]) -> (f32[4]) { yield %x }`"
            self._fail(Token("END", ""), "there is no function here", hint)
        return Module(functions)

    def codebook(self, name: Token, *values: Any) -> None:
        numbers = [float(self._read(name, literals.number, value)) for value in values]
        try:
            codebook(str(name), numbers)
        except ValueError as error:
            self._fail(name, str(error))

    def function(self, header: _Header, *rest: Any) -> Function:
        block = self._close(header.params, rest)
        self._axes = [{}]
        found = tuple(value.type for value in block.yields)
        if found != header.types:
            self._mismatch(header.at, "the function yields", found, header.types)
        return Function(
            header.name,
            header.level,
            block,
            header.symbols,
            header.facts,
            header.into,
            header.frozen,
            header.spread,
        )

    def header(
        self,
        over: _Over | None,
        level: Token,
        name: Token,
        params: tuple[tuple[Token, Type], ...],
        types: tuple[Type, ...],
        symbols: tuple[Symbol, ...] | None,
        facts: Facts | None,
        into: tuple[int | None, ...] | None,
        frozen: tuple[int, ...] | None,
        spread: Layout | None,
    ) -> _Header:
        levels = {each.value: each for each in Level}
        if level not in levels:
            self._fail(
                level, f"no level {short(level)}", f"there are {listing(levels)}"
            )
        called = name[1:]
        if called.startswith('"'):
            called = self._string(name, called)
        return _Header(
            name,
            levels[level],
            called,
            self._open(params),
            types,
            symbols or (),
            facts or Facts(),
            into or (),
            frozen or (),
            spread,
        )

    def params(self, *params: Any) -> tuple[Any, ...]:
        return _present(params)

    def param(self, name: Token, type_: Type) -> tuple[Token, Type]:
        return name, type_

    def types(self, *types: Any) -> tuple[Any, ...]:
        return _present(types)

    def symbols(self, *names: Token | None) -> tuple[Symbol, ...]:
        return tuple(Symbol(name) for name in names if name is not None)

    def facts(self, *facts: _Range | _Divisor | None) -> Facts:
        return Facts(
            tuple((f.symbol, f.low, f.high) for f in facts if isinstance(f, _Range)),
            tuple((f.dim, f.n) for f in facts if isinstance(f, _Divisor)),
        )

    def fact_range(self, low: Any, name: Token, high: Any) -> _Range:
        limit = None if high is None else self._read(name, literals.whole, high)
        return _Range(Symbol(name), self._read(name, literals.whole, low), limit)

    def fact_divisor(self, divisor: Any, at: Token, dim: Any) -> _Divisor:
        n = self._read(at, literals.whole, divisor)
        if n < 1:
            self._fail(at, f"a divisor is at least 1, not {n}")
        return _Divisor(self._read(at, literals.dim, dim), n)

    def into(self, at: Token, *entries: Any) -> tuple[int | None, ...]:
        return tuple(
            None if entry == "none" else self._read(at, literals.whole, entry)
            for entry in _present(entries)
        )

    def frozen(self, at: Token, *entries: Any) -> tuple[int, ...]:
        return tuple(self._read(at, literals.whole, each) for each in _present(entries))

    def spread(self, _: Token, layout: Token) -> Layout:
        return self._layout(layout)

    # --------------------------------------------------------------------- blocks

    def block_params(
        self, _: Token, params: tuple[tuple[Token, Type], ...]
    ) -> tuple[Value, ...]:
        return self._open(params)

    def block(self, params: tuple[Value, ...], *rest: Any) -> Block:
        return self._close(params, rest)

    def yields(self, *names: Token) -> tuple[Value, ...]:
        return tuple(map(self._value, names))

    def _open(self, params: Iterable[tuple[Token, Type]]) -> tuple[Value, ...]:
        self._scopes.append([])
        return tuple(self._define(name, type_) for name, type_ in params)

    def _close(self, params: tuple[Value, ...], rest: tuple[Any, ...]) -> Block:
        for name in self._scopes.pop():
            del self._values[name]
        *ops, yields = rest
        return Block(params, tuple(ops), yields or ())

    def _define(self, name: Token, type_: Type) -> Value:
        if name in self._values:
            hint = "a name means one value; choose another"
            self._fail(name, f"{short(name)} is defined twice", hint)
        hint = name[1:] if IDENTIFIER.fullmatch(name[1:]) else ""
        value = self._values[str(name)] = Value(type_, hint)
        self._scopes[-1].append(str(name))
        return value

    def _value(self, name: Token) -> Value:
        value = self._values.get(name)
        if value is None:
            near = nearest(name, self._values)
            hint = near or "define it before, in this block or one around it"
            self._fail(name, f"{short(name)} is not defined here", hint)
        return value

    # ------------------------------------------------------------------------ ops

    def statement(self, head: _Head, *rest: Any) -> Op:
        typed = next((part for part in rest if isinstance(part, _Typed)), None)
        blocks = tuple(part for part in rest if isinstance(part, Block))
        stated = typed.types if typed else ()
        attrs = self._attrs(head, stated)
        expected = len(head.op.block_fields)
        if len(blocks) != expected:
            self._fail(head.at, f"{head.at} has {expected} blocks, not {len(blocks)}")
        try:
            inferred = inferred_types(head.op, head.operands, attrs, blocks)
        except IllTyped as error:
            self._fail(head.at, f"{head.at} does not fit its operands: {error}")
        if inferred != stated:
            at = typed.at if typed else head.at
            self._mismatch(at, f"{head.at} gives", inferred, stated)
        if any(isinstance(part, _Over) for part in rest):
            self._axes.pop()
        return self._finish(head, attrs, blocks, stated)

    def _finish(
        self,
        head: _Head,
        attrs: tuple[Any, ...],
        blocks: tuple[Block, ...],
        types: tuple[Type, ...],
    ) -> Op:
        if len(head.defined) != len(types):
            message = f"{len(types)} types for {len(head.defined)} results"
            self._fail(head.at, message, "name every result: `%a, %b = ...`")
        results = tuple(map(self._define, head.defined, types))
        loc = Loc(self._filename, head.at.line or 0)
        return head.op(head.operands, attrs, blocks, results, loc)

    def op(
        self,
        defined: tuple[Token, ...] | None,
        name: Token,
        first: tuple[Any] | None,
        operands: tuple[Value, ...] | None,
        index: tuple[Any, ...] | None,
        attributes: _Attributes | None,
    ) -> _Head:
        op = REGISTRY.get(name)
        if op is None:
            self._fail(name, f"no op {short(name)}", nearest(name, REGISTRY))
        given = dict(attributes.given) if attributes else {}
        if first is not None:
            self._positional(name, op, given, "(...)", first[0], _first(op))
        if index is not None:
            self._positional(name, op, given, "[...]", Tuple(index), _index(op))
        operands = operands or ()
        takes, least, most = arity(op)
        if not least <= len(operands) <= most:
            self._fail(name, f"{name} takes {takes}, not {len(operands)}")
        return _Head(name, op, defined or (), operands, given)

    def _positional(
        self,
        at: Token,
        op: Any,
        given: dict[str, tuple[Token, Any]],
        form: str,
        value: Any,
        name: str | None,
    ) -> None:
        """Enter an attribute that is written without its name."""
        if name is None:
            message = f"{at} has no attribute in the form {form}"
            self._fail(at, message, "write attributes as {name=value}")
        if name in given:
            self._fail(given[name][0], f"{name} is given twice")
        given[name] = at, value

    def defined(self, *names: Token) -> tuple[Token, ...]:
        return names

    def first(self, value: Any) -> tuple[Any]:
        return (value,)

    def operands(self, *names: Token) -> tuple[Value, ...]:
        return tuple(map(self._value, names))

    def index(self, *entries: Any) -> tuple[Any, ...]:
        return _present(entries)

    def attributes(self, *pairs: tuple[Token, Any]) -> _Attributes:
        given: dict[str, tuple[Token, Any]] = {}
        for name, value in pairs:
            if name in given:
                self._fail(name, f"{short(name)} is given twice")
            given[str(name)] = name, value
        return _Attributes(given)

    def attribute(self, name: Token, value: Any) -> tuple[Token, Any]:
        return name, value

    def typed(self, colon: Token, *types: Type) -> _Typed:
        return _Typed(colon, types)

    def _attrs(self, head: _Head, types: tuple[Type, ...]) -> tuple[Any, ...]:
        fields: dict[str, Attr[Any]] = head.op.attr_fields
        for name, (at, _) in head.attributes.items():
            if name not in fields:
                known = f"it has {listing(fields)}" if fields else "it has none"
                self._fail(at, f"{head.at} has no attribute {short(name)}", known)
        return tuple(
            self._attr(head, name, field, types) for name, field in fields.items()
        )

    def _attr(
        self, head: _Head, name: str, field: Attr[Any], types: tuple[Type, ...]
    ) -> Any:
        if name in head.attributes:
            at, value = head.attributes[name]
            return self._read(at, literals.convert, field.kind, value)
        if field.default is not REQUIRED:
            return field.default
        implied = implied_by(field.kind, types) if repeats_types(field.kind) else None
        if implied is None:
            hint = f"write it as {{{name}=...}}"
            self._fail(head.at, f"{head.at} needs its attribute {name}", hint)
        return implied

    def _mismatch(
        self,
        at: Token,
        subject: str,
        found: tuple[Type, ...],
        stated: tuple[Type, ...],
    ) -> NoReturn:
        names = Names()
        for name, axis in self._axes[-1].items():
            names.axes[axis] = name
        have, want = (
            ", ".join(format_type(t, names) for t in types) or "nothing"
            for types in (found, stated)
        )
        hint = "correct the types, or the operands they follow from"
        self._fail(at, f"{subject} {have}, but the text says {want}", hint)

    # ----------------------------------------------------------------------- axes

    def over(self, *axes: tuple[Token, Axis]) -> _Over:
        scope = dict(self._axes[-1])
        for name, axis in axes:
            if name in scope or name in RESERVED:
                hint = "choose another name"
                self._fail(name, f"{short(name)} cannot name another axis", hint)
            scope[str(name)] = axis
        self._axes.append(scope)
        return _Over(scope)

    def axis(self, name: Token, extent: Any) -> tuple[Token, Axis]:
        return name, Axis(str(name), self._read(name, literals.dim, extent))

    # ---------------------------------------------------------------------- types

    def plain(self, name: Token) -> Type:
        return self._read(name, literals.type_, name)

    def dims(self, *dims: Any) -> tuple[Any, ...]:
        return _present(dims)

    def tensor(self, name: Token, shape: Any, strides: Any) -> Tensor:
        dtype = self._read(name, literals.element, name)
        laid = None if strides is None else self._dims(name, strides)
        return Tensor(dtype, self._dims(name, shape), laid)

    def points(self, name: Token, *axes: Token | None) -> Points:
        dtype = self._read(name, literals.element, name)
        return Points(
            dtype, tuple(self._read(a, literals.axis, a) for a in _present(axes))
        )

    def tile(self, word: Token, name: Token, shape: Any, layout: Token | None) -> Tile:
        self._expect(word, "tile")
        dtype = self._read(name, literals.element, name)
        laid = None if layout is None else self._layout(layout)
        return Tile(dtype, self._dims(name, shape), laid)

    def buffer(
        self, word: Token, name: Token, layout: Token, place: Token | None
    ) -> Buffer:
        self._expect(word, "buffer")
        spaces = {space.value: space for space in Space}
        if place is not None and place not in spaces:
            self._fail(
                place, f"no space {short(place)}", f"there are {listing(spaces)}"
            )
        space = spaces[place] if place is not None else Space.GLOBAL
        return Buffer(
            self._read(name, literals.element, name), self._layout(layout), space
        )

    def _expect(self, word: Token, expected: str) -> None:
        if word != expected:
            hint = "types in angle brackets are tile<f32[8]> and buffer<f32, ...>"
            self._fail(word, f"expected {expected}, not {short(word)}", hint)

    def _dims(self, at: Token, dims: Iterable[Any]) -> tuple[Dim, ...]:
        return tuple(self._read(at, literals.dim, dim) for dim in dims)

    def _layout(self, text: Token) -> Layout:
        source = self._string(text, text)
        for dim in re.findall(r"\{([^{}]*)\}", source):
            self._check_dim(text, dim)
        return self._at(text, literals.layout, source)

    def _check_dim(self, at: Token, dim: str) -> None:
        """Refuse a dim in a layout that would take too long to read."""
        try:
            tree = _grammar().parse(dim, start="expr")
            _evaluate(tree, _Reader(dim, self._filename))
        except UnexpectedInput:
            self._fail(at, f"no layout: {short(dim)} is no dim")
        except ParseError as error:
            self._fail(at, f"no layout: {error.what}", error.fix)

    # --------------------------------------------------------------------- values

    def string(self, text: Token) -> Quoted:
        return Quoted(self._string(text, text))

    def _string(self, at: Token, text: str) -> str:
        try:
            return json.loads(text)
        except ValueError as error:
            hint = "strings are written as in JSON"
            self._fail(at, f"no string: {error}", hint)

    def monoid(self, name: Token, dtype: Token) -> Monoid:
        return self._at(name, literals.monoid_of, name, dtype)

    def tuple(self, at: Token, *items: Any) -> Tuple:
        return self._at(at, Tuple.of, _present(items))

    def integer(self, digits: Token) -> int:
        return self._at(digits, literals.integer, digits)

    def float(self, digits: Token) -> float:
        return float(digits)

    def slot(self, text: Token) -> Slot:
        return Slot(self._at(text, literals.integer, text[1:]))

    def call(self, name: Token, *arguments: Any) -> Any:
        return self._read(name, literals.call, str(name), arguments)

    def negative(self, sign: Token, value: Any) -> Any:
        return self._read(sign, literals.negative, value)

    def binary(self, left: Any, sign: Token, right: Any) -> Affine | Dim:
        return self._read(sign, literals.arithmetic, str(sign), left, right)


def _present(items: Iterable[Any]) -> tuple[Any, ...]:
    """The items of a list; an empty one has a None in their place."""
    return tuple(item for item in items if item is not None)


def _first(op: Any) -> str | None:
    return None if op.operand_fields else next(iter(op.attr_fields), None)


def _index(op: Any) -> str | None:
    indices = (name for name, attr in op.attr_fields.items() if attr.kind == INDEX)
    return next(indices, None)


# ---------------------------------------------------------------------- messages


def _syntax_error(error: UnexpectedInput, text: str, filename: str) -> ParseError:
    line, column = error.line, error.column
    if isinstance(error, UnexpectedToken):
        found, expected = short(error.token), set(error.expected)
        if error.token.type == "$END":
            found = "the end"
            line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
    elif isinstance(error, UnexpectedCharacters):
        found, expected = short(error.char), set(error.allowed)
    else:
        found, expected = "this", set[str]()
    options = sorted(_spellings(expected))
    hint = f"expected {listing(options, 'or')}" if options else ""
    message = f"{found} does not belong here"
    return ParseError(text, line, column, message, hint, filename)


_SPELLED = {
    "NAME": "a name",
    "VALUE": "a value, as %x",
    "FUNCTION": "a function's name, as @f",
    "SLOT": "the place of an operand, as $0",
    "INT": "a number",
    "FLOAT": "a number",
    "STRING": "a string",
    "BLOCK": "a block, as { ^(%x: f32): yield %x }",
    "$END": "the end",
}


def _spellings(terminals: Iterable[str]) -> set[str]:
    """What terminals look like to people."""
    fixed = {
        each.name: f"'{each.pattern.value}'"
        for each in _grammar().terminals
        if isinstance(each.pattern, PatternStr)
    }
    return {_SPELLED.get(name) or fixed.get(name, name) for name in terminals}
