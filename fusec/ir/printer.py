"""IR as text. `parser` reads it back; `format(parse(format(f))) == format(f)`.

    loop @softmax(%x: f32[s0, 768]) -> (f32[s0, 768])
        symbols [s0]
        facts [1 <= s0 <= 4096] {
      %y = region %x over i:s0, j:768 : f32[s0, 768] {
        ^(%x_1: f32[s0, 768], %y_1: f32[s0, 768]):
        %0 = load %x_1 [i, j] : f32{i, j}
        %1 = reduce %0 {axes=(j,), monoid=max<f32>} : f32{i}
        %2 = sub %0, %1 : f32{i, j}
        store %2, %y_1 [i, j]
      }
      yield %y
    }

How an op looks follows from its class alone:

    %results = name %operands [index] {attribute=value, …} over axes : types { blocks }

- An op class without operands has its first attribute in parentheses: `const(1.0)`.
- An index of affine entries stands in brackets behind the operands.
- Left out are attributes that have their default, and those that repeat the types
  of the results.
- An axis is an object, not a name: `over` declares the axes that blocks walk.

A value is called by its hint, made unique (`%x`, `%x_1`), else by a number. Codebook
dtypes are spelled out before the functions, so that a text means the same anywhere.
Printing never fails, whatever the IR: messages about broken IR show it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from fusec.ir.builder import attrs_key
from fusec.ir.calls import Named, Slot
from fusec.ir.core import Affine, Block, Function, Module, Monoid, Op, Value, walk
from fusec.ir.dims import Dim, Expr, Facts, Max, Min, Symbol, format_dim
from fusec.ir.dtypes import DType, Kind
from fusec.ir.layout import Layout
from fusec.ir.types import (
    Axis,
    Buffer,
    Opaque,
    Points,
    Scalar,
    Space,
    Tensor,
    Tile,
    Token,
    Type,
)

RESERVED = frozenset({"true", "false", "none", "inf", "nan"})
"""Words that mean a value wherever a name may stand."""

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

INDEX = ("index",)
"""The kind of an attribute that is a tuple of `Affine` and `Slot`."""

_PLAIN_FUNCTION = re.compile(r"[A-Za-z0-9_.$]+")
_DEEPEST_INDENT = 40
_WIDTH = 88


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, and the op that begins on it."""

    text: str
    op: Op | None = None


def format_module(module: Module, *, locations: bool = False) -> str:
    """The text of a module; with `locations`, each op's source line as a comment."""
    names = Names()
    texts: list[str] = []
    for function in module.functions:
        printer = Printer(names.afresh(), locations)
        texts.append(_text(printer.function(function)))
    return names.prelude() + "\n".join(texts)


def format_function(
    function: Function, *, canonical: bool = False, locations: bool = False
) -> str:
    """The text of a function.

    With `canonical`, functions that differ only in the names of the function, its
    values and its axes have one text, as the key of a cache needs. Symbols keep
    their names. `locations` adds each op's source line as a comment.
    """
    names = Names(canonical)
    text = _text(Printer(names, locations).function(function))
    return names.prelude() + text


def format_op(op: Op, names: Names | None = None) -> str:
    """The line of an op, without its blocks, for messages."""
    return Printer(names or Names(), False).op(op)


def format_type(type_: Type, names: Names | None = None) -> str:
    """The text of a type."""
    return Printer(names or Names(), False).type(type_)


def format_lines(function: Function, names: Names) -> list[Line]:
    """The lines of a function, for messages that point into them."""
    return list(Printer(names, False).function(function))


def _text(lines: Iterable[Line]) -> str:
    return "".join(f"{line.text}\n" for line in lines)


@dataclass
class Names:
    """The name of each value and axis, given when it is first mentioned."""

    canonical: bool = False
    codebooks: dict[DType, None] = field(default_factory=dict[DType, None])
    values: dict[Value, str] = field(default_factory=dict[Value, str])
    axes: dict[Axis, str] = field(default_factory=dict[Axis, str])
    _inside: dict[Op, dict[Value, str]] = field(
        default_factory=dict[Op, dict[Value, str]]
    )
    """The names in the block of each closed op."""
    _taken: set[str] = field(default_factory=set[str])
    _uses: dict[str, int] = field(default_factory=dict[str, int])
    _numbered: int = 0

    def afresh(self) -> Names:
        """No names yet, for another function of the same text."""
        return Names(self.canonical, self.codebooks)

    def prelude(self) -> str:
        """The declarations that the text needs before it."""
        return "".join(
            f"codebook {dtype.name} ({', '.join(map(_number, dtype.table))})\n"
            for dtype in self.codebooks
        )

    def value(self, value: Value) -> str:
        """What a value is called, with its `%`."""
        known = self.values.get(value)
        if known is None:
            known = self.values[value] = f"%{self._fresh(value.hint)}"
        return known

    def enter(self, block: Block, owner: Op) -> None:
        """Name what a closed block defines, anew for each op that shares it.

        Parameters without a name are called after what they stand for.
        """
        if owner not in self._inside:
            outer = (*owner.operands, *owner.results)
            hints = {
                p: value.hint for p, value in zip(block.params, outer, strict=False)
            }
            for value in block.params:
                named = IDENTIFIER.fullmatch(value.hint)
                hints[value] = value.hint if named else hints.get(value, "")
            hints |= {value: value.hint for op in walk(block) for value in op.results}
            self._inside[owner] = {v: f"%{self._fresh(h)}" for v, h in hints.items()}
        self.values |= self._inside[owner]

    def _fresh(self, hint: str) -> str:
        if self.canonical or not IDENTIFIER.fullmatch(hint):
            self._numbered += 1
            return str(self._numbered - 1)
        name = hint
        while name in self._taken:
            self._uses[hint] = self._uses.get(hint, 0) + 1
            name = f"{hint}_{self._uses[hint]}"
        self._taken.add(name)
        return name

    def axis(self, axis: Axis) -> str:
        """What an axis is called; its own name where nothing declares it."""
        return self.axes.get(axis, axis.name)

    def declare(self, axes: Iterable[Axis], taken: set[str]) -> set[str]:
        """Name axes apart from each other and from `taken`; returns all names."""
        taken = set(taken)
        for count, axis in enumerate(axes):
            plain = not self.canonical and IDENTIFIER.fullmatch(axis.name)
            hint = axis.name if plain else f"a{count}"
            name, suffix = hint, 0
            while name in taken:
                suffix += 1
                name = f"{hint}_{suffix}"
            taken.add(name)
            self.axes[axis] = name
        return taken


@dataclass(frozen=True)
class Printer:
    """Prints the parts of one function."""

    names: Names
    locations: bool

    # --------------------------------------------------------------- functions

    def function(self, function: Function) -> Iterator[Line]:
        body = function.body
        symbols = {symbol.name for symbol in function.symbols}
        outer = outer_axes(function)
        taken = self.names.declare(outer, symbols | RESERVED)
        over = [self._over(outer)] if outer else []
        *head, last = [*over, *self._head(function), *_clauses(function)]
        yield from map(Line, head)
        yield Line(f"{last} {{")
        yield from self._body(body, set(outer), taken)
        yield Line("}")

    def _head(self, function: Function) -> list[str]:
        name = "_" if self.names.canonical else function.name
        called = name if _PLAIN_FUNCTION.fullmatch(name) else json.dumps(name)
        params = [self._param(value) for value in function.params]
        gives = ", ".join(self.type(value.type) for value in function.body.yields)
        start, end = f"{function.level.value} @{called}(", f") -> ({gives})"
        line = start + ", ".join(params) + end
        if len(f"{line} {{") <= _WIDTH or not params:
            return [line]
        return [start, *(f"    {p}," for p in params[:-1]), f"    {params[-1]}", end]

    def _param(self, value: Value) -> str:
        return f"{self.names.value(value)}: {self.type(value.type)}"

    # ------------------------------------------------------------------ blocks

    def _body(self, body: Block, outer: set[Axis], taken: set[str]) -> Iterator[Line]:
        """The lines of a block, its nested blocks' within: without recursion."""
        todo = self._content(body, 1)
        while todo:
            item, depth = todo.pop()
            if isinstance(item, _Params):
                if item.owner.closed:
                    self.names.enter(item.block, item.owner)
                params = ", ".join(map(self._param, item.block.params))
                yield _line(f"^({params}):", depth)
            elif isinstance(item, _Yields):
                names = ", ".join(map(self.names.value, item.values))
                yield _line(f"yield {names}", depth)
            elif isinstance(item, str):
                yield _line(item, depth)
            else:
                over: tuple[Axis, ...] = ()
                if item.blocks and depth == 1:
                    over = tuple(a for a in axes_within(item) if a not in outer)
                    self.names.declare(over, taken)
                yield self._op_line(item, over, depth)
                todo += self._nested(item, depth)

    def _content(self, block: Block, depth: int) -> list[_Todo]:
        """What is to be printed of a block, last first."""
        todo: list[_Todo] = [(_Yields(block.yields), depth)] if block.yields else []
        todo += [(op, depth) for op in reversed(block.ops)]
        return todo

    def _nested(self, op: Op, depth: int) -> list[_Todo]:
        todo: list[_Todo] = []
        for count, block in enumerate(reversed(op.blocks)):
            todo.append(("} {" if count else "}", depth))
            todo += self._content(block, depth + 1)
            todo.append((_Params(block, op), depth + 1))
        return todo

    def _op_line(self, op: Op, over: Iterable[Axis], depth: int) -> Line:
        text = self.op(op, over) + (" {" if op.blocks else "")
        if self.locations and op.loc.file:
            text += f"  # {' '.join(str(op.loc).split())}"
        return _line(text, depth, op)

    # --------------------------------------------------------------------- ops

    def op(self, op: Op, over: Iterable[Axis] = ()) -> str:
        """The line of an op, without its blocks."""
        cls = type(op)
        shown = [
            (name, attr, value)
            for (name, attr), value in zip(
                cls.attr_fields.items(), op.attrs, strict=False
            )
            if not _implied(attr, value, op)
        ]
        head = cls.name
        if not cls.operand_fields and shown and shown[0][0] == _first(cls):
            head += f"({self.attr(shown.pop(0)[2])})"
        parts = [head]
        if op.operands:
            parts.append(", ".join(map(self.names.value, op.operands)))
        parts += [self._index(v) for _, attr, v in shown if attr.kind == INDEX]
        named = [f"{n}={self.attr(v)}" for n, a, v in shown if a.kind != INDEX]
        if named:
            parts.append("{" + ", ".join(named) + "}")
        if declared := self._over(over):
            parts.append(declared)
        return self._results(op, " ".join(parts))

    def _results(self, op: Op, computed: str) -> str:
        if not op.results:
            return computed
        names = ", ".join(map(self.names.value, op.results))
        types = ", ".join(self.type(value.type) for value in op.results)
        return f"{names} = {computed} : {types}"

    def _index(self, index: Any) -> str:
        return f"[{', '.join(map(self.attr, _items(index)))}]"

    def _over(self, axes: Iterable[Axis]) -> str:
        declared = [f"{self.names.axis(a)}:{format_dim(a.extent)}" for a in axes]
        return f"over {', '.join(declared)}" if declared else ""

    def attr(self, value: Any) -> str:
        """The text of an attribute's value, by what it is."""
        match value:
            case None | bool():
                return {None: "none", True: "true", False: "false"}[value]
            case float():
                return _number(value)
            case int() | Expr():
                return format_dim(value)
            case str():
                return json.dumps(value)
            case tuple():
                return self._tuple(_items(value))
            case DType():
                return self.dtype(value)
            case Axis():
                return self.names.axis(value)
            case Affine():
                return self.affine(value)
            case Slot():
                return f"${value.index}"
            case Named():
                return f"named({json.dumps(value.kind)}, {json.dumps(value.name)})"
            case Monoid():
                return value.name
            case Layout():
                return json.dumps(str(value))
            case (
                Tensor() | Points() | Tile() | Buffer() | Scalar() | Token() | Opaque()
            ):
                return self.type(value)
            case _:
                return json.dumps(repr(value))

    def _tuple(self, values: tuple[Any, ...]) -> str:
        comma = "," if len(values) == 1 else ""
        return f"({', '.join(map(self.attr, values))}{comma})"

    def affine(self, affine: Affine) -> str:
        """`2*i + s0*j - 1`."""
        pieces = [self._term(axis, stride) for axis, stride in affine.terms]
        if affine.const != 0 or not pieces:
            pieces.append(format_dim(affine.const))
        text = pieces[0]
        for piece in pieces[1:]:
            text += f" - {piece[1:]}" if piece.startswith("-") else f" + {piece}"
        return text

    def _term(self, axis: Axis, stride: Dim) -> str:
        name = self.names.axis(axis)
        if isinstance(stride, int) and stride in (1, -1):
            return name if stride == 1 else f"-{name}"
        closed = isinstance(stride, (int, Symbol, Max, Min))
        text = format_dim(stride)
        return f"{text}*{name}" if closed else f"({text})*{name}"

    # ------------------------------------------------------------------- types

    def type(self, type_: Type) -> str:
        """The text of a type."""
        match type_:
            case Tensor(dtype, shape, strides):
                laid = "" if strides is None else f" strides [{_dims(strides)}]"
                return f"{self.dtype(dtype)}[{_dims(shape)}]{laid}"
            case Points(dtype, axes):
                return f"{self.dtype(dtype)}{{{', '.join(map(self.names.axis, axes))}}}"
            case Tile(dtype, shape, layout):
                laid = "" if layout is None else f", {json.dumps(str(layout))}"
                return f"tile<{self.dtype(dtype)}[{_dims(shape)}]{laid}>"
            case Buffer(dtype, layout, space):
                place = "" if space is Space.GLOBAL else f", {space.value}"
                return f"buffer<{self.dtype(dtype)}, {json.dumps(str(layout))}{place}>"
            case Scalar(dtype):
                return self.dtype(dtype)
            case Token():
                return "token"
            case Opaque():
                return "opaque"

    def dtype(self, dtype: DType) -> str:
        """The name of a dtype; a codebook is remembered for the prelude."""
        if dtype.kind is Kind.CODEBOOK:
            self.names.codebooks.setdefault(dtype)
        return dtype.name


@dataclass(frozen=True, slots=True)
class _Params:
    block: Block
    owner: Op


@dataclass(frozen=True, slots=True)
class _Yields:
    values: tuple[Value, ...]


_Todo = tuple["Op | _Params | _Yields | str", int]


def axes_of(thing: Any) -> Iterator[Axis]:
    """The axes that a type or an attribute mentions, in order."""
    match thing:
        case Axis():
            yield thing
        case Points() | Affine():
            yield from thing.axes
        case tuple():
            for part in _items(thing):
                yield from axes_of(part)
        case _:
            pass


def axes_within(op: Op) -> tuple[Axis, ...]:
    """The axes that an op and the ops of its blocks mention, each once."""
    found: dict[Axis, None] = {}
    for inner in (op, *(o for block in op.blocks for o in walk(block))):
        params = (p for block in inner.blocks for p in block.params)
        for value in (*params, *inner.results):
            found.update(dict.fromkeys(axes_of(value.type)))
        found.update(dict.fromkeys(axes_of(inner.attrs)))
    return tuple(found)


def outer_axes(function: Function) -> tuple[Axis, ...]:
    """The axes that a function mentions outside all nested blocks, each once."""
    found: dict[Axis, None] = {}
    plain = [op for op in function.body.ops if not op.blocks]
    for value in (*function.params, *(r for op in plain for r in op.results)):
        found.update(dict.fromkeys(axes_of(value.type)))
    for op in plain:
        found.update(dict.fromkeys(axes_of(op.attrs)))
    return tuple(found)


def _line(text: str, depth: int, op: Op | None = None) -> Line:
    return Line("  " * min(depth, _DEEPEST_INDENT) + text, op)


def _first(cls: Any) -> str | None:
    return next(iter(cls.attr_fields), None)


def _implied(attr: Any, value: Any, op: Op) -> bool:
    """Whether the rest of the line says what the attribute is."""
    if attrs_key((value,)) == attrs_key((attr.default,)):
        return True
    types = tuple(result.type for result in op.results)
    return repeats_types(attr.kind) and value == implied_by(attr.kind, types)


def repeats_types(kind: Any) -> bool:
    """Whether attributes of this kind are left out where the results' types agree."""
    return kind == (Type,) or kind is DType or kind == Type


def implied_by(kind: Any, types: tuple[Type, ...]) -> Any:
    """The attribute of this kind that the types of the results stand for, or None."""
    if kind == (Type,):
        return types
    if not types:
        return None
    return getattr(types[0], "dtype", None) if kind is DType else types[0]


def _clauses(function: Function) -> Iterator[str]:
    if function.symbols:
        yield f"    symbols [{', '.join(s.name for s in function.symbols)}]"
    if facts := _facts(function.facts):
        yield f"    facts [{', '.join(facts)}]"
    if function.returns_into:
        into = ("none" if k is None else str(k) for k in function.returns_into)
        yield f"    returns_into [{', '.join(into)}]"
    if function.frozen:
        yield f"    frozen [{', '.join(map(str, function.frozen))}]"
    if function.spread is not None:
        yield f"    spread {json.dumps(str(function.spread))}"


def _facts(facts: Facts) -> list[str]:
    texts: list[str] = []
    for symbol, low, high in facts.ranges:
        limit = "" if high is None else f" <= {high}"
        texts.append(f"{low} <= {symbol.name}{limit}")
    for dim, n in facts.divisors:
        texts.append(f"{n} divides {format_dim(dim)}")
    return texts


def _items(value: Any) -> tuple[Any, ...]:
    return cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)


def _dims(dims: Iterable[Dim]) -> str:
    return ", ".join(map(format_dim, dims))


def _number(value: float) -> str:
    return float.__repr__(float(value))
