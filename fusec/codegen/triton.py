"""Tile IR → Triton source: one readable jit function a kernel.

    %t = load_tile %x, %o, %n  limited=(0,) strides=(1,) : tile<f32 [1024]>
    %e = neg %t
        →
    i = tl.arange(0, BLOCK_I)
    # softmax.py:4  return torch.softmax(-x, -1)
    t = tl.load(x + o + i, mask=i < n)
    neg = t * -1.0

Takes kernels in the form of `passes.pipeline.lower_kernel`: with loops, every tile one
block, whose extents are powers of two. Registers and lanes are Triton's own: of layouts
only the extents matter. A kernel takes the addresses of its buffers, then its sizes as
i64, then the extents of its blocks: those are constants that Triton is told, so one
text serves all blocks that hold whole what these hold and divide what these divide.
Tensor descriptors are made ahead of the loops whose blocks they bring:

    tile = tl.make_tensor_descriptor(x + o, [rows, 2000], [2000, 1], [BLOCK_M, BLOCK_K])
    for k in range(0, 2000, BLOCK_K):
        x_1 = tile.load([0, k])

What the rows of `triton_rows` lack was expanded before.
"""

from __future__ import annotations

import builtins
import keyword
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fusec.analysis.descriptors import descriptor_bytes
from fusec.codegen.backend import Emitted
from fusec.codegen.triton_rows import bitcast, cast, named, spelled, supports
from fusec.errors import InternalError, Loc
from fusec.ir.core import Block, Function, Monoid, Op, Value, walk
from fusec.ir.dims import Atom, Dim, Max, Min, Mod, Symbol, fold, terms_of
from fusec.ir.dtypes import DType, f32, f64, i32, i64, int_
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.cast import Bitcast, Cast
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.ops.tile import (
    Access,
    BlockCount,
    BlockExtent,
    BroadcastTile,
    Convert,
    FetchTile,
    For,
    Guard,
    IotaTile,
    LoadTile,
    Part,
    ProgramId,
    StoreTile,
)
from fusec.ir.ops.updating import ONE
from fusec.ir.sizes import used_symbols
from fusec.ir.types import Buffer, Tile
from fusec.target import Target

__all__ = ["emit", "supports"]

HEAD = "import triton\nimport triton.language as tl"
LIBRARY = "from triton.language.extra import libdevice"
RESERVED = frozenset({*keyword.kwlist, *dir(builtins), "libdevice", "tl", "triton"})
"""Names that mean something else."""
LONGEST = 1 << 14
"""Elements that no block is longer than, along a dimension."""


def emit(function: Function, target: Target) -> Emitted:
    """Python source that defines the kernel `function.name`.

    The same function gives the same text in every process. Raises `InternalError` on an
    op that no row covers and on blocks that are no powers of two long.
    """
    kernel = _Grids(function) if _parts(function) else _Kernel(function)
    text = kernel.text()
    buffers = (p.type for p in function.params if isinstance(p.type, Buffer))
    pointers = (f"*{_short(buffer.dtype)}" for buffer in buffers)
    types = (*pointers, *("i64" for _ in function.symbols))
    return Emitted(text, types, kernel.constants, descriptor_bytes(function))


def _short(dtype: DType) -> str:
    """`tl.float32` is fp32 in a signature."""
    name = named(dtype).removeprefix("tl.")
    if name == "bfloat16":
        return "bf16"
    for long, short in (("float", "fp"), ("uint", "u"), ("int", "i")):
        if name.startswith(long):
            return short + name.removeprefix(long)
    return name


class _Functions:
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
            self.named[key] = _fresh(base, names)
            self.texts.append(write(self.named[key]))
        return self.named[key]


class _Kernel:
    """The source of one kernel as it grows."""

    def __init__(self, function: Function, others: _Functions | None = None) -> None:
        self.function = function
        self.others = others or _Functions()
        """Those that it calls."""
        self.extents = _blocks(function)
        """The extent of blocks along each dimension that has one."""
        letters = _letters(function, self.extents)
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
        return _file([*self.others.texts, definition(self.function.name)])

    def definition(self) -> Callable[[str], str]:
        """The function, for any name."""
        self.taken.add(self.function.name)
        self.sizes = {each: self.fresh(each.name) for each in self.function.symbols}
        params = [self.fresh(p.hint or "x") for p in self.function.params]
        self.names.update(zip(self.function.params, params, strict=True))
        self.block(self.function.body)
        body = [*self.head, *self.lines] or ["    pass"]
        constants = (f"{name}: tl.constexpr" for name in self.blocks.values())
        given = ", ".join([*params, *self.sizes.values(), *constants])
        return lambda name: "\n".join([f"@triton.jit\ndef {name}({given}):", *body])

    # Text

    def fresh(self, hint: str) -> str:
        """A name that nobody has."""
        name = _fresh(hint, self.taken)
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
        return text if text.isidentifier() else _typed(dtype_of(value), text)

    # Ops

    def block(self, block: Block) -> None:
        self.filling.update(_filling(block))
        for op in block.ops:
            if isinstance(op, (ew.Elementwise, Cast, Bitcast)):
                self.comment(op)
                self.elementwise(op)
                continue
            handler = _HANDLERS.get(type(op))
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
        if type(op) in _DIVISIONS and op.operands[1] in self.positive:
            self.define(op.result, f"{xs[0]} {_DIVISIONS[type(op)]} {xs[1]}", op.name)
            return
        # A number is of its neighbour's type; without one, of what fits it.
        chosen = xs[1:] if isinstance(op, ew.Select) else xs
        if not any(x.isidentifier() for x in chosen):
            xs = [self.tensor(x) for x in op.operands]
        self.define(op.result, _bare(spelled(op, dtypes, *xs)), op.name)

    def size(self, dim: Dim) -> str:
        """A size as an expression that needs no parentheses."""
        if isinstance(dim, int):
            return str(dim) if dim >= 0 else f"({dim})"
        return fold(dim, self.atom, _sum)

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

    def combine(self, monoid: Monoid) -> str:
        """The name of a function that combines two states."""
        if monoid not in self.combines:
            base = re.sub(r"\W", "_", monoid.name.partition("<")[0])
            self.combines[monoid] = self.others.name(
                f"combine_{base}", self.taken, partial(_combine, monoid)
            )
            self.taken.add(self.combines[monoid])
        return self.combines[monoid]

    # Blocks: of a tile, the dimensions of more than one place.

    def aligned(self, value: Value, dims: Sequence[int]) -> str:
        """A block as one that has further dimensions, of extent 1."""
        text, own = self.names[value], _dims(value)
        if not own or own == [*dims]:
            return text
        return f"{text}[{', '.join(':' if d in own else 'None' for d in dims)}]"

    def shape(self, value: Value) -> str:
        """The extents of a block, those of one place left out."""
        return _tuple([self.blocks[d] for d in _dims(value)])

    def matrix(self, value: Value, dims: Sequence[int], shape: Sequence[str]) -> str:
        """A block as a matrix, its dimensions in this order."""
        text, own = self.names[value], _dims(value)
        if own != [*dims]:
            text = f"tl.permute({text}, {_tuple([own.index(d) for d in dims])})"
        return text if len(own) == 2 else f"tl.reshape({text}, {_tuple(shape)})"

    def place(self, dim: int, dims: Sequence[int]) -> str:
        """The coordinates along a dimension, in a block that has these."""
        if dim not in dims:
            return "0"
        key = dim, [*dims].index(dim), len(dims)
        if key not in self.places:
            name = self.places[key] = self.fresh(self.letters[dim])
            self.head.append(f"    {name} = {_arange(self.blocks[dim], *key[1:])}")
        return self.places[key]

    def existing(
        self,
        limits: Iterable[tuple[int, Value]],
        dims: Sequence[int],
    ) -> list[str]:
        """Where coordinates are below their limits; nothing where all are."""
        pairs = [(self.place(d, dims), self.names[v]) for d, v in limits]
        return [f"{x} < {n}" for x, n in pairs if x != "0" or not n.isdecimal()]

    def access(self, op: Access, value: Value) -> tuple[str, bool, list[str]]:
        """The pointers of an access, whether they are as many as the elements, and what
        masks it."""
        dims = _dims(value)
        parts = [self.names[op.buffer]]
        offset = self.names[op.offset]
        if offset != "0":
            parts.append(offset)
        met = {d for d in dims if op.strides[d] != 0}
        for d in sorted(met):
            parts.append(self.step(self.place(d, dims), op.strides[d]))
        if op.index is not None:
            met.update(_dims(op.index))
            parts.append(self.aligned(op.index, dims))
        pointers = " + ".join(parts)
        masks = self.existing(op.limits.items(), dims)
        if op.mask is not None:
            masks.append(self.aligned(op.mask, dims))
        whole = met == {*dims}
        if masks and not whole:
            wide = f"tl.broadcast_to({pointers}, {self.shape(value)})"
            pointers, whole = wide, True
        return pointers, whole, [f"mask={_all(masks)}"] if masks else []

    def descriptor(self, op: FetchTile) -> str:
        """The name of the descriptor of the matrix that a block is brought from."""
        key = *_matrix_of(op), op.strides
        if key not in self.descriptors:
            dims, offset = _rows_first(op), self.names[op.offset]
            base = self.names[op.buffer]
            base = base if offset == "0" else f"{base} + {offset}"
            extents = ", ".join(self.names[op.limits[d]] for d in dims)
            strides = ", ".join(self.size(op.strides[d]) for d in dims)
            block = ", ".join(self.blocks[d] for d in dims)
            name = self.descriptors[key] = self.fresh(f"{op.buffer.hint or 'x'}_tile")
            self.line(
                f"{name} = tl.make_tensor_descriptor({base}, [{extents}], [{strides}],"
                f" [{block}])"
            )
        return self.descriptors[key]

    def step(self, place: str, stride: Dim) -> str:
        """How far on the elements of a dimension lie: in 32 bits, if that is enough."""
        if stride == 1:
            return place
        far = isinstance(stride, int) and abs(stride) * LONGEST >= 1 << 31
        place = f"{place}.to(tl.int64)" if far else place
        return f"{place} * {self.size(stride)}"


class _Grids(_Kernel):
    """The source of a kernel that runs several grids: a function for each distinct one,
    which gets the number of its program."""

    def __init__(self, function: Function) -> None:
        super().__init__(replace(function, body=replace(function.body, ops=())))
        self.parts = _parts(function)
        self.told_of: dict[tuple[str, tuple[int, ...]], list[str]] = {}
        """The names of a part's constants, by its function and their values."""
        self.values: dict[str, int] = {}

    @property
    def constants(self) -> tuple[tuple[str, int], ...]:
        return tuple(self.values.items())

    def definition(self) -> Callable[[str], str]:
        self.taken.add(self.function.name)
        self.sizes = {each: self.fresh(each.name) for each in self.function.symbols}
        params = [self.fresh(p.hint or "x") for p in self.function.params]
        self.names.update(zip(self.function.params, params, strict=True))
        pid = self.fresh("pid")
        self.line(f"{pid} = tl.program_id(0).to(tl.int64)")
        for k, op in enumerate(self.parts):
            end = _bare(self.size(op.first + op.programs))
            last = k == len(self.parts) - 1
            test = "else" if last else f"{'elif' if k else 'if'} {pid} < {end}"
            self.line(f"{test}:")
            first = self.size(op.first)
            number = pid if first == "0" else f"{pid} - {first}"
            self.lines.append(f"        {self.call(op, number)}")
        constants = (f"{name}: tl.constexpr" for name in self.values)
        given = ", ".join([*params, *self.sizes.values(), *constants])
        lines = self.lines
        return lambda name: "\n".join([f"@triton.jit\ndef {name}({given}):", *lines])

    def call(self, op: Part, number: str) -> str:
        """The call of a part's function."""
        used = {v for inner in walk(op.body) for v in inner.operands}
        params = [p for p in self.function.params if p in used]
        body = replace(op.body, params=(*op.body.params, *params))
        symbols = used_symbols(Block(tuple(params), op.body.ops, ()))
        inner = _Kernel(replace(self.function, body=body, symbols=symbols), self.others)
        name = self.others.name("part", self.taken, inner.definition())
        self.taken.add(name)
        given = [number, *(self.names[p] for p in params)]
        given += [self.sizes[symbol] for symbol in symbols]
        return f"{name}({', '.join([*given, *self.told_as(name, inner)])})"

    def told_as(self, name: str, inner: _Kernel) -> list[str]:
        """What the constants of a part are called here."""
        values = tuple(value for _, value in inner.constants)
        key = name, values
        if key not in self.told_of:
            names = [self.fresh(f"{n}_{len(self.told_of)}") for n, _ in inner.constants]
            self.told_of[key] = names
            self.values.update(zip(names, values, strict=True))
        return self.told_of[key]


def _parts(function: Function) -> list[Part]:
    return [op for op in function.body.ops if isinstance(op, Part)]


def _const(k: _Kernel, op: Const) -> None:
    k.names[op.result] = literal(op.dtype, op.value)


def _size(k: _Kernel, op: SizeOf) -> None:
    k.names[op.result] = k.size(op.dim)
    low, _ = k.function.facts.range(op.dim)
    if low is not None and low > 0:
        k.positive.add(op.result)


def _block_extent(k: _Kernel, op: BlockExtent) -> None:
    k.names[op.result] = k.blocks[op.dim]


def _block_count(k: _Kernel, op: BlockCount) -> None:
    k.names[op.result] = f"tl.cdiv({_bare(k.size(op.size))}, {k.blocks[op.dim]})"
    k.positive.add(op.result)


def _program_id(k: _Kernel, op: ProgramId) -> None:
    k.define(op.result, "tl.program_id(0).to(tl.int64)", "pid")


def _load(k: _Kernel, op: LoadTile) -> None:
    pointers, whole, extras = k.access(op, op.result)
    if op.other is not None:
        extras.append(f"other={k.aligned(op.other, _dims(op.result))}")
    elif extras and op.result in k.filling:
        extras.append(f"other={k.filling[op.result]}")
    text = f"tl.load({', '.join([pointers, *extras])})"
    shape = k.shape(op.result)
    k.define(op.result, text if whole else f"tl.broadcast_to({text}, {shape})", "x")


def _fetch(k: _Kernel, op: FetchTile) -> None:
    dims, places = _rows_first(op), op.places
    at = (k.names[places[d]] if d in places else "0" for d in dims)
    starts = ", ".join(x if x.isdecimal() else f"{x}.to(tl.int32)" for x in at)
    turned = "" if dims == sorted(dims) else ".T"
    k.define(op.result, f"{k.descriptor(op)}.load([{starts}]){turned}", "x")


def _store(k: _Kernel, op: StoreTile) -> None:
    pointers, whole, extras = k.access(op, op.value)
    if not whole:
        pointers = f"tl.broadcast_to({pointers}, {k.shape(op.value)})"
    if op.combine not in ("", ONE):
        given = ", ".join([pointers, k.tensor(op.value), *extras, 'sem="relaxed"'])
        k.line(f"{_atomic(op)}({given})")
        return
    if op.streaming:
        extras.append('eviction_policy="evict_first"')
    k.line(f"tl.store({', '.join([pointers, k.tensor(op.value), *extras])})")


def _atomic(op: StoreTile) -> str:
    """Triton's function that combines in memory. Extremes of floats it takes by their
    bits, which loses NaN."""
    dtype = dtype_of(op.value)
    fits = (i32, i64) if op.combine in ("max", "min") else (f32, f64, i32, i64)
    if dtype not in fits:
        raise InternalError(
            f"the Triton backend has no {op.combine} of {dtype.name} in memory", op.loc
        )
    return _ATOMIC[op.combine]


_ATOMIC = {"sum": "tl.atomic_add", "max": "tl.atomic_max", "min": "tl.atomic_min"}


def _iota(k: _Kernel, op: IotaTile) -> None:
    dim: int = op.dim
    dims = _dims(op.result)
    text = k.tensor(op.origin)
    if dim in dims:
        text = f"{text} + {k.place(dim, dims)}.to(tl.int64)"
    if {*dims} - {dim}:
        text = f"tl.broadcast_to({text}, {k.shape(op.result)})"
    k.define(op.result, text, "place")


def _broadcast(k: _Kernel, op: BroadcastTile) -> None:
    text, shape = k.aligned(op.x, _dims(op.result)), k.shape(op.result)
    if text.isidentifier() or "[" in text:
        text = f"tl.broadcast_to({text}, {shape})"
    else:
        text = f"tl.full({shape}, {text}, {named(dtype_of(op.x))})"
    k.define(op.result, text, op.x.hint or "wide")


def _convert(k: _Kernel, op: Convert) -> None:
    k.names[op.result] = k.names[op.x]


def _guard(k: _Kernel, op: Guard) -> None:
    if op.x in k.filling and k.filling[op.x] == _nothing(op):
        k.names[op.result] = k.names[op.x]
        return
    limits = zip(op.limited, op.limits, strict=True)
    there = k.existing(limits, _dims(op.result))
    text = f"tl.where({_all(there)}, {k.names[op.x]}, {_nothing(op)})"
    k.define(op.result, text if there else k.names[op.x])


def _reduce(k: _Kernel, op: ReduceTile) -> None:
    """Dimension by dimension; single numbers of the plain kinds by Triton's own."""
    values = [k.names[v] for v in op.values]
    dtype, name = dtype_of(op.values[0]), op.monoid.name.partition("<")[0]
    dims = _dims(op.values[0])
    reduced = [d for d in op.dims if d in dims]
    for d in reduced:
        axis = dims.index(d)
        dims.remove(d)
        if name == "sum" and dtype in (f32, f64, i32, i64):
            values = [f"tl.sum({values[0]}, {axis})"]
        elif name in ("any", "all"):
            of = "tl.max" if name == "any" else "tl.min"
            values = [f"({of}({values[0]}.to(tl.int32), {axis}) != 0)"]
        else:
            given = values[0] if len(values) == 1 else f"({', '.join(values)})"
            call = f"tl.reduce({given}, {axis}, {k.combine(op.monoid)})"
            values = [k.fresh(v.hint or name) for v in op.results]
            k.line(f"{', '.join(values)} = {call}")
            if d == reduced[-1]:
                k.names.update(zip(op.results, values, strict=True))
                return
    for result, text in zip(op.results, values, strict=True):
        k.define(result, _bare(text), name)


def _scan(k: _Kernel, op: ScanTile) -> None:
    """The starts come before all of what is scanned; the totals are its last."""
    first, dim = op.values[0], int(op.dim)
    dims, combine = _dims(first), k.combine(op.monoid)
    parts = [k.names[v] for v in op.values]
    if dim in dims:
        given = parts[0] if len(parts) == 1 else f"({', '.join(parts)})"
        parts = [k.fresh("part") for _ in parts]
        axis = dims.index(dim)
        k.line(f"{', '.join(parts)} = tl.associative_scan({given}, {axis}, {combine})")
    starts = [k.aligned(v, dims) for v in op.starts]
    wide = [f"tl.broadcast_to({x}, {k.shape(first)})" if dims else x for x in starts]
    for value in op.scanned:
        k.names[value] = k.fresh(value.hint or "scanned")
    made = ", ".join(k.names[v] for v in op.scanned)
    k.line(f"{made} = {combine}({', '.join([*wide, *parts])})")
    for value, total in zip(op.scanned, op.totals, strict=True):
        if dim not in dims:
            k.names[total] = k.names[value]
            continue
        last = f"{k.place(dim, dims)} == {k.blocks[dim]} - 1"
        text = _picked(dtype_of(value), k.names[value], last, dims.index(dim))
        k.define(total, text, "total")


def _dot(k: _Kernel, op: DotTile) -> None:
    """As matrices: what one factor has alone, and what is summed over."""
    dims = [d for d in op.dims if d in k.blocks]
    rows = [d for d in _dims(op.x) if d not in dims]
    columns = [d for d in _dims(op.y) if d not in dims]
    m, n, depth = (
        " * ".join(k.blocks[d] for d in own) or "1" for own in (rows, columns, dims)
    )
    left = k.matrix(op.x, [*rows, *dims], (m, depth))
    right = k.matrix(op.y, [*dims, *columns], (depth, n))
    start = k.matrix(op.state, [*rows, *columns], (m, n))
    exact = f'input_precision="ieee", out_dtype={named(dtype_of(op.state))}'
    text = f"tl.dot({left}, {right}, {start}, {exact})"
    order = [*rows, *columns]
    if len(order) != 2:
        text = f"tl.reshape({text}, {_tuple([k.blocks[d] for d in order])})"
    if order != sorted(order):
        back = _tuple([order.index(d) for d in sorted(order)])
        text = f"tl.permute({text}, {back})"
    k.define(op.result, text, "dot")


def _for(k: _Kernel, op: For) -> None:
    counter, *carried = op.body.params
    for value, init in zip(carried, op.inits, strict=True):
        k.define(value, k.tensor(init), "state")
    raw = k.fresh(counter.hint or "k")
    block = k.extents.get(op.along, 1)
    step = k.blocks[op.along] if op.step == block > 1 else str(op.step)
    bounds = f"{k.names[op.lo]}, {k.names[op.hi]}, {step}"
    for inner in walk(op.body):
        if isinstance(inner, FetchTile) and k.names.keys() >= {*_matrix_of(inner)}:
            k.descriptor(inner)
    descriptors = dict(k.descriptors)
    k.line(f"for {raw} in range({bounds}):")
    k.depth += 1
    told = k.told
    k.define(counter, f"tl.cast({raw}, tl.int64)", "at")
    k.block(op.body)
    if carried:
        names = ", ".join(k.names[v] for v in carried)
        k.line(f"{names} = {', '.join(k.tensor(v) for v in op.body.yields)}")
    k.depth -= 1
    k.told, k.descriptors = told, descriptors
    for result, value in zip(op.results, carried, strict=True):
        k.names[result] = k.names[value]


_HANDLERS: dict[Any, Callable[[_Kernel, Any], None]] = {
    Const: _const,
    SizeOf: _size,
    ProgramId: _program_id,
    BlockExtent: _block_extent,
    BlockCount: _block_count,
    LoadTile: _load,
    FetchTile: _fetch,
    StoreTile: _store,
    IotaTile: _iota,
    BroadcastTile: _broadcast,
    Convert: _convert,
    Guard: _guard,
    ReduceTile: _reduce,
    ScanTile: _scan,
    DotTile: _dot,
    For: _for,
}
_DIVISIONS: dict[Any, str] = {ew.TruncDiv: "//", ew.Fmod: "%"}
"""How Triton divides integers, as C does."""


# Pieces of text.


def _file(functions: Sequence[str]) -> str:
    called = any("libdevice." in text for text in functions)
    head = f"{HEAD}\n{LIBRARY}" if called else HEAD
    return "\n\n\n".join([head, *functions]) + "\n"


def _fresh(hint: str, taken: Collection[str]) -> str:
    """A name like `hint` that is not taken."""
    base = re.sub(r"\W", "_", hint) or "x"
    base = f"x{base}" if base[0].isdigit() else base
    name, count = base, 1
    while name in taken:
        name, count = f"{base}_{count}", count + 1
    return name


def _sum(dim: Dim, known: Mapping[Atom, str]) -> str:
    """A polynomial as an expression that needs no parentheses."""
    terms: list[str] = []
    for monomial, coefficient in terms_of(dim):
        factors = [known[atom] for atom in monomial]
        alone = bool(factors) and coefficient == 1
        terms.append(" * ".join(factors if alone else [str(coefficient), *factors]))
    whole = " + ".join(terms) or "0"
    simple = whole.isidentifier() or whole.isdecimal() or _bare(whole) != whole
    return whole if simple else f"({whole})"


def _all(conditions: Sequence[str]) -> str:
    """Where all conditions hold."""
    if len(conditions) == 1:
        return conditions[0]
    return " & ".join(c if c.isidentifier() else f"({c})" for c in conditions)


def _picked(dtype: DType, x: str, where: str, axis: int) -> str:
    """The one element along a dimension that is there: the sum of its bits and zeros,
    for a sum of floats would lose the sign of a zero."""
    whole = int_(dtype.bits) if dtype.is_float else i32 if dtype.is_bool else dtype
    bits = cast(dtype, i32, x) if dtype.is_bool else bitcast(dtype, whole, x)
    text = f"tl.sum(tl.where({where}, {bits}, 0), {axis})"
    if dtype.is_bool:
        return f"{text} != 0"
    return bitcast(whole, dtype, f"{text}.to({named(whole)})")


def literal(dtype: DType, number: float | int | bool) -> str:
    """A number of a dtype: as Python writes it, where Triton takes that for no other
    number than it is."""
    if dtype.is_bool:
        return _typed(dtype, str(bool(number)))
    if dtype.is_float:
        text = (
            f'float("{number}")' if not math.isfinite(number) else repr(float(number))
        )
        normal = number == 0 or not math.isfinite(number) or abs(number) >= 2.0**-126
        if dtype is f32 and normal:
            return text
        return _typed(dtype, text)
    plain = dtype in (i32, i64) and -(1 << 31) <= number < 1 << 31
    return str(int(number)) if plain else _typed(dtype, str(int(number)))


def _typed(dtype: DType, text: str) -> str:
    return f"tl.full((), {text}, {named(dtype)})"


def _combine(monoid: Monoid, name: str) -> str:
    """A function of two states, for reductions and scans."""
    inner = _Kernel(monoid.combine)
    names = [inner.fresh(p.hint or "x") for p in monoid.combine.params]
    inner.names.update(zip(monoid.combine.params, names, strict=True))
    inner.block(monoid.combine.body)
    yields = ", ".join(inner.tensor(v) for v in monoid.combine.body.yields)
    lines = [f"@triton.jit\ndef {name}({', '.join(names)}):", *inner.lines]
    return "\n".join([*lines, f"    return {yields}"])


def _rows_first(op: FetchTile) -> list[int]:
    """The dimensions of a block, those of elements in a row the last."""
    return sorted(_dims(op.result), key=lambda d: op.strides[d] == 1)


def _matrix_of(op: FetchTile) -> Sequence[Value]:
    """What the descriptor of a block's matrix is made of."""
    return (op.buffer, op.offset, *op.limits.values())


def _nothing(op: Guard) -> str:
    return literal(dtype_of(op.x), op.identity)


def _filling(block: Block) -> dict[Value, str]:
    """What loads, and conversions of them, may as well give where nothing exists: what
    the guard that follows would put there. Copies that run ahead can do that, so that
    tensor cores find factors where those put them; vector units, which have them in
    registers anyway, would run out of those sooner."""
    loads: dict[Value, LoadTile] = {}
    dots = [op for op in block.ops if isinstance(op, DotTile)]
    held = {v for op in dots for v in (op.x, op.y) if v.dtype is op.state.dtype}
    found: dict[Value, str] = {}
    for op in block.ops:
        if isinstance(op, LoadTile) and not op.masked:
            loads[op.result] = op
        elif isinstance(op, Convert) and op.x in loads:
            loads[op.result] = loads[op.x]
        elif isinstance(op, Guard) and op.x in loads and op.result not in held:
            load = loads[op.x]
            own = zip(op.limited, op.limits, strict=True)
            if {*own} <= {*load.limits.items()}:
                text = found.setdefault(load.result, _nothing(op))
                found[op.x] = text
    return found


def _extents(value: Value) -> list[int]:
    """The extents of a block. Raises `InternalError` if one is no power of two."""
    type_ = value.type
    assert isinstance(type_, Tile)
    shape = [n for n in type_.shape if isinstance(n, int)]
    if len(shape) < len(type_.shape) or any(n <= 0 or n & (n - 1) for n in shape):
        raise InternalError(f"a block of {list(type_.shape)} for Triton")
    return shape


def _dims(value: Value) -> list[int]:
    """The dimensions that a block has: those of more than one place; a number none."""
    if not isinstance(value.type, Tile):
        return []
    return [d for d, n in enumerate(_extents(value)) if n != 1]


def _blocks(function: Function) -> dict[int, int]:
    """The extents of blocks by dimension: all that have it are as long."""
    found: dict[int, int] = {}
    for op in walk(function.body):
        for value in op.results:
            if isinstance(value.type, Tile):
                found |= {d: n for d, n in enumerate(_extents(value)) if n != 1}
    return dict(sorted(found.items()))


def _letters(function: Function, dims: Iterable[int]) -> dict[int, str]:
    """What dimensions are called: of products M, N and K, otherwise I, J, …"""
    dots = [op for op in walk(function.body) if isinstance(op, DotTile)]
    found: dict[int, str] = {}
    if dots:
        x, y, summed = ({*_dims(dots[0].x)}, {*_dims(dots[0].y)}, {*dots[0].dims})
        sides = (("M", x - y - summed), ("N", y - x - summed), ("K", summed))
        found = {d: name for name, own in sides for d in own if len(own) == 1}
    rest = (letter for letter in "IJLPQRSTUV")
    return {d: found.get(d) or next(rest) for d in dims}


def _arange(extent: str, at: int, rank: int) -> str:
    text = f"tl.arange(0, {extent})"
    if rank == 1:
        return text
    return f"{text}[{', '.join(':' if k == at else 'None' for k in range(rank))}]"


def _tuple(shape: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _bare(text: str) -> str:
    """An expression without parentheses around all of it."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:-1] if at == len(text) - 1 else text
    return text
