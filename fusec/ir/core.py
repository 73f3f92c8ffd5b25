"""The nodes of the IR: values, ops, blocks, functions, modules.

A node is immutable and is itself only (identity, never equality of contents), so a
value can key a dictionary and a pass can share what it does not change:

    graph @f(%x: f32[4, 8]) {
      %e = exp %x : f32[4, 8]        one Op: class Exp, operand %x, result %e
      yield %e                       the block's yields
    }

Values do not know their op and ops do not know their users; both are analyses
(`definitions`, `uses`) that a pass computes when it needs them. A pass builds a new
function in one forward sweep (see `builder`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from fusec.errors import Loc
from fusec.ir.dims import NO_FACTS, Dim, Facts, Symbol
from fusec.ir.dtypes import DType
from fusec.ir.layout import Layout
from fusec.ir.opdef import OpMeta
from fusec.ir.types import Axis, IllTyped, Opaque, Points, Tensor, Tile, Token, Type


class Level(Enum):
    """The four stages of a program, from what torch said to what runs."""

    GRAPH = "graph"
    LOOP = "loop"
    TILE = "tile"
    HOST = "host"


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """What an op computes or a block receives. `hint` is a name for people."""

    type: Type
    hint: str = ""

    def __repr__(self) -> str:
        return f"%{self.hint or hex(id(self) & 0xFFFF)}"

    @property
    def dtype(self) -> DType:
        """The element type. Raises `IllTyped` for what has none that we know."""
        if isinstance(self.type, (Token, Opaque)):
            raise IllTyped(f"{self} is {self.type} and has no elements")
        return self.type.dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The extents of a tensor or tile. Raises `IllTyped` for what has none."""
        if not isinstance(self.type, (Tensor, Tile)):
            raise IllTyped(f"{self} is {self.type} and has no shape")
        return self.type.shape

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of points. Raises `IllTyped` for what has none."""
        if not isinstance(self.type, Points):
            raise IllTyped(f"{self} is {self.type} and has no axes")
        return self.type.axes


Values = tuple[Value, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Straight-line ops between parameters and the values they yield."""

    params: Values
    ops: tuple[Op, ...]
    yields: Values = ()


class Op(metaclass=OpMeta):
    """One operation. A subclass is its whole definition (see `opdef`)."""

    name: ClassVar[str]
    levels: ClassVar[tuple[Level, ...]] = ()
    pure: ClassVar[bool] = True
    """Without effect: equal ops may be merged, unused ones dropped."""
    closed: ClassVar[bool] = False
    """The blocks read their own parameters, and what is computed inside, only."""

    operands: Values
    attrs: tuple[Any, ...]
    blocks: tuple[Block, ...]
    results: Values
    loc: Loc

    def __init__(
        self,
        operands: Values,
        attrs: tuple[Any, ...] = (),
        blocks: tuple[Block, ...] = (),
        results: Values = (),
        loc: Loc = Loc.UNKNOWN,
    ) -> None:
        put = object.__setattr__
        put(self, "operands", operands)
        put(self, "attrs", attrs)
        put(self, "blocks", blocks)
        put(self, "results", results)
        put(self, "loc", loc)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __reduce__(self) -> tuple[Any, ...]:
        fields = self.operands, self.attrs, self.blocks, self.results, self.loc
        return type(self), fields

    def __repr__(self) -> str:
        return f"<{type(self).name} {self.operands} {self.attrs}>"

    @property
    def result(self) -> Value:
        """The only result."""
        (value,) = self.results
        return value

    @property
    def hints(self) -> tuple[str, ...]:
        """What the results are called."""
        return tuple(value.hint for value in self.results)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        """The types of the results.

        Raises `IllTyped` with the reason when operands or attributes do not fit.
        """
        raise NotImplementedError(cls.name)

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        """Results to use instead of a new op, or None. Exact, never to worse code."""
        return None


@dataclass(frozen=True, slots=True)
class Affine:
    """`const + Σ stride·axis`, an index that is linear in axes."""

    terms: tuple[tuple[Axis, Dim], ...] = ()
    const: Dim = 0

    @staticmethod
    def of(axis: Axis) -> Affine:
        """The coordinate on `axis`; nothing to add on an axis of one point."""
        return Affine(((axis, 1),)) if axis.extent != 1 else Affine()

    def __add__(self, other: Affine | Dim) -> Affine:
        if not isinstance(other, Affine):
            return Affine(self.terms, self.const + other)
        sums: dict[Axis, Dim] = dict(self.terms)
        for axis, stride in other.terms:
            sums[axis] = sums.get(axis, 0) + stride
        kept = tuple((axis, stride) for axis, stride in sums.items() if stride != 0)
        return Affine(kept, self.const + other.const)

    def __mul__(self, factor: Dim) -> Affine:
        if factor == 0:
            return Affine()
        scaled = tuple((axis, stride * factor) for axis, stride in self.terms)
        return Affine(scaled, self.const * factor)

    def substitute(self, env: Mapping[Axis, Affine]) -> Affine:
        """Replace axes by affine expressions over others."""
        sums: dict[Axis, Dim] = {}
        const = self.const
        for axis, stride in self.terms:
            place = env.get(axis)
            if place is None:
                sums[axis] = sums.get(axis, 0) + stride
                continue
            for inner, step in place.terms:
                sums[inner] = sums.get(inner, 0) + step * stride
            const = const + place.const * stride
        return Affine(tuple(t for t in sums.items() if t[1] != 0), const)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(axis for axis, _ in self.terms)

    def stride(self, axis: Axis) -> Dim:
        """How far one step on `axis` goes."""
        return next((stride for a, stride in self.terms if a is axis), 0)


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A program at one level.

    `returns_into[k]` is the parameter whose storage result k replaces when the call
    ends, or None: the only form in which mutation appears. `frozen` are parameters that
    hold the same from call to call. `spread` is the layout of a tile that has every
    dimension of a kernel, until each tile has its part of it.
    """

    name: str
    level: Level
    body: Block
    symbols: tuple[Symbol, ...] = ()
    facts: Facts = NO_FACTS
    returns_into: tuple[int | None, ...] = ()
    frozen: tuple[int, ...] = ()
    spread: Layout | None = None

    @property
    def params(self) -> Values:
        return self.body.params


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """Functions that call one another by name; the first is the entry."""

    functions: tuple[Function, ...]

    @property
    def entry(self) -> Function:
        return self.functions[0]

    def __getitem__(self, name: str) -> Function:
        return next(f for f in self.functions if f.name == name)


@dataclass(frozen=True, slots=True, eq=False)
class Monoid:
    """An associative `combine` with an identity, over tuples of elements.

    `combine` takes the elements of two states and yields those of their product, as
    elementwise ops on scalars; a reduction re-emits it on points or tiles.
    """

    name: str
    identity: tuple[float | int | bool, ...]
    combine: Function
    commutative: bool = True
    rounds: bool = False
    """`combine` rounds: long chains of it lose digits."""
    start: tuple[float | int | bool, ...] = ()
    """What a scan begins with, where it is not the identity."""
    ordered: bool = False
    """Scans combine elements one by one: runs of them may leave the range of numbers
    where the whole does not, as 10²⁰⁰·10²⁰⁰ does, but not 0·10²⁰⁰·10²⁰⁰."""


def walk(block: Block) -> Iterator[Op]:
    """Every op of a block in program order, a nested block's after its op."""
    stack: list[Iterator[Op]] = [iter(block.ops)]
    while stack:
        op = next(stack[-1], None)
        if op is None:
            stack.pop()
            continue
        yield op
        for inner in reversed(op.blocks):
            stack.append(iter(inner.ops))


def definitions(block: Block) -> dict[Value, Op]:
    """The op that defines each value of a block (its own ops only)."""
    return {value: op for op in block.ops for value in op.results}


def uses(block: Block) -> dict[Value, list[Op]]:
    """The ops of a block that read each value, in order, once per reading."""
    users: dict[Value, list[Op]] = {}
    for op in block.ops:
        for value in op.operands:
            users.setdefault(value, []).append(op)
    return users
