"""The source of one kernel as it grows: its names, its lines, its blocks.

k = Kernel(function, handlers)      handlers: what writes each kind of op
k.text()                            import triton …
                                    @triton.jit
                                    def scale(x, n, BLOCK_I: tl.constexpr): …
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fusec.codegen.triton_blocks import blocks_of, dims_of, letters_of
from fusec.codegen.triton_filling import filling
from fusec.codegen.triton_rows import spelled
from fusec.codegen.triton_text import (
    RESERVED,
    arange,
    bare,
    defined,
    fresh,
    module,
    polynomial,
    tupled,
    typed,
)
from fusec.errors import InternalError, Loc
from fusec.ir.core import Block, Function, Monoid, Op, Value
from fusec.ir.dims import Atom, Dim, Max, Min, Mod, Symbol, fold
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.cast import Bitcast, Cast
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.tile import BlockCount, BlockExtent, ProgramId

Handlers = Mapping[Any, Callable[..., None]]
"""What writes each kind of op, but for elementwise ones: `handler(kernel, op)`."""

DIVISIONS: dict[Any, str] = {ew.TruncDiv: "//", ew.Fmod: "%"}
"""How Triton divides integers, as C does."""


class Functions:
    """The functions of a text, each distinct one once."""

    def __init__(self) -> None:
        self.named: dict[str, str] = {}
        self.texts: list[str] = []

    def name(self, base: str, taken: set[str], write: Callable[[str], str]) -> str:
        """The name of a function that is called nothing else: `write` gives its text,
        whatever it is called."""
        key = write("")
        if key not in self.named:
            names = {*taken, *self.named.values()}
            self.named[key] = fresh(base, names)
            self.texts.append(write(self.named[key]))
        return self.named[key]


class Kernel:
    """The source of one kernel as it grows."""

    def __init__(
        self,
        function: Function,
        handlers: Handlers,
        others: Functions | None = None,
    ) -> None:
        self.function = function
        self.handlers = handlers
        self.others = others or Functions()
        """Those that it calls."""
        self.extents = blocks_of(function)
        """The extent of blocks along each dimension that has one."""
        letters = letters_of(function, self.extents)
        self.blocks = {d: f"BLOCK_{letter}" for d, letter in letters.items()}
        """What those are called."""
        self.letters = {d: letter.lower() for d, letter in letters.items()}
        self.head: list[str] = []
        """What the body begins with: the coordinates in blocks."""
        self.lines: list[str] = []
        self.depth = 1
        self.names: dict[Value, str] = {}
        self.taken = {*RESERVED, *self.blocks.values()}
        self.sizes: dict[Atom, str] = {}
        self.positive: set[Value] = set()
        """Numbers that are known to be no less than 1."""
        self.combines: dict[Monoid, str] = {}
        self.places: dict[tuple[int, int, int], str] = {}
        """Coordinates by dimension, position and rank."""
        self.told = Loc.UNKNOWN
        self.filling: dict[Value, str] = {}
        """What loads give where nothing exists, of those that a guard follows."""
        self.descriptors: dict[Any, str] = {}
        """Those that are made, by what they tell of."""

    @property
    def constants(self) -> tuple[tuple[str, int], ...]:
        """The extents of blocks, as parameters."""
        return tuple((self.blocks[d], n) for d, n in self.extents.items())

    def text(self) -> str:
        definition = self.definition()
        return module([*self.others.texts, definition(self.function.name)])

    def definition(self) -> Callable[[str], str]:
        """The function, for any name."""
        params = self.named_params()
        self.body()
        body = [*self.head, *self.lines] or ["    pass"]
        constants = (f"{name}: tl.constexpr" for name, _ in self.constants)
        given = [*params, *self.sizes.values(), *constants]
        return lambda name: "\n".join([defined(name, given), *body])

    def named_params(self) -> list[str]:
        """The names of the parameters; sizes have theirs before them."""
        self.taken.add(self.function.name)
        self.sizes = {each: self.fresh(each.name) for each in self.function.symbols}
        params = [self.fresh(p.hint or "x") for p in self.function.params]
        self.names.update(zip(self.function.params, params, strict=True))
        return params

    def body(self) -> None:
        """Write the lines of the function."""
        self.block(self.function.body)

    # Text

    def fresh(self, hint: str) -> str:
        """A name that nobody has."""
        name = fresh(hint, self.taken)
        self.taken.add(name)
        return name

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def define(self, value: Value, text: str, hint: str = "") -> None:
        """A variable for a value."""
        self.names[value] = self.fresh(value.hint or hint or "t")
        self.line(f"{self.names[value]} = {text}")

    def comment(self, op: Op) -> None:
        """The user's line that an op came from, where another one begins."""
        if op.loc.file and (op.loc.file, op.loc.line) != (
            self.told.file,
            self.told.line,
        ):
            self.told = op.loc
            text = " ".join(op.loc.text.split())
            name = op.loc.file.rpartition("/")[2]
            self.line(f"# {name}:{op.loc.line}  {text}".rstrip())

    def tensor(self, value: Value) -> str:
        """A value as what has methods, which a number has not."""
        text = self.names[value]
        return text if text.isidentifier() else typed(dtype_of(value), text)

    # Ops

    def block(self, block: Block) -> None:
        self.filling.update(filling(block))
        for op in block.ops:
            if isinstance(op, (ew.Elementwise, Cast, Bitcast)):
                self.comment(op)
                self.elementwise(op)
                continue
            handler = self.handlers.get(type(op))
            if handler is None:
                name = type(op).name
                raise InternalError(
                    f"the Triton backend has no code for {name}", op.loc
                )
            if not isinstance(op, (Const, SizeOf, ProgramId, BlockExtent, BlockCount)):
                self.comment(op)
            handler(self, op)

    def elementwise(self, op: Op) -> None:
        dtypes = tuple(dtype_of(x) for x in (*op.operands, op.result))
        xs = [self.names[x] for x in op.operands]
        if type(op) in DIVISIONS and op.operands[1] in self.positive:
            self.define(op.result, f"{xs[0]} {DIVISIONS[type(op)]} {xs[1]}", op.name)
            return
        # A number is of its neighbour's type; without one, of what fits it.
        chosen = xs[1:] if isinstance(op, ew.Select) else xs
        if not any(x.isidentifier() for x in chosen):
            xs = [self.tensor(x) for x in op.operands]
        self.define(op.result, bare(spelled(op, dtypes, *xs)), op.name)

    def size(self, dim: Dim) -> str:
        """A size as an expression that needs no parentheses."""
        if isinstance(dim, int):
            return str(dim) if dim >= 0 else f"({dim})"
        return fold(dim, self.atom, polynomial)

    def atom(self, atom: Atom, operands: list[str]) -> str:
        """A part of a size. Triton divides toward zero, sizes do downward."""
        if isinstance(atom, Symbol):
            return self.sizes[atom]
        if isinstance(atom, (Max, Min)):
            return f"{atom.spelling}({', '.join(operands)})"
        x, y = operands
        low, _ = self.function.facts.range(atom.operands[0])
        if low is None or low < 0:
            rest = f"(({x} % {y} + {y}) % {y})"
            return rest if isinstance(atom, Mod) else f"(({x} - {rest}) // {y})"
        return f"({x} {'%' if isinstance(atom, Mod) else '//'} {y})"

    # Blocks: of a tile, the dimensions of more than one place.

    def aligned(self, value: Value, dims: Sequence[int]) -> str:
        """A block as one that has further dimensions, of extent 1."""
        text, own = self.names[value], dims_of(value)
        if not own or own == [*dims]:
            return text
        return f"{text}[{', '.join(':' if d in own else 'None' for d in dims)}]"

    def shape(self, value: Value) -> str:
        """The extents of a block, those of one place left out."""
        return tupled([self.blocks[d] for d in dims_of(value)])

    def place(self, dim: int, dims: Sequence[int]) -> str:
        """The coordinates along a dimension, in a block that has these."""
        if dim not in dims:
            return "0"
        key = dim, [*dims].index(dim), len(dims)
        if key not in self.places:
            name = self.places[key] = self.fresh(self.letters[dim])
            self.head.append(f"    {name} = {arange(self.blocks[dim], *key[1:])}")
        return self.places[key]

    def existing(
        self,
        limits: Iterable[tuple[int, Value]],
        dims: Sequence[int],
    ) -> list[str]:
        """Where coordinates are below their limits; nothing where all are."""
        pairs = [(self.place(d, dims), self.names[v]) for d, v in limits]
        return [f"{x} < {n}" for x, n in pairs if x != "0" or not n.isdecimal()]
