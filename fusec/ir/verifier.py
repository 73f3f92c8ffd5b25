"""Checks that IR is what every pass may rely on, before it and after it.

The invariants, by number; an error names the one that is broken:

     1. An op belongs to the level of its function.
     2. A value is defined once, unless regions share its block, and its type is one
        of its level.
     3. What an op reads or a block yields was defined before, in scope.
     4. An op has the operands, attributes and blocks that its class declares.
     5. The results have the types that the op infers.
     6. The symbols of a function are declared once, and no dim has others.
     7. A loop function makes tensors by regions, externs and views, all else is scalar.
     8. A region takes its operands, then its results, as parameters and yields nothing.
     9. A closed block reads its parameters only; a region stores each result, no more.
    10. An index has an axis once per dimension and uses each computed index once.
    11. A store reaches other elements at other points: its index has all their axes.
    12. A loop counts in i64 by a positive step.
    13. All tiles of a function have layouts, of their shapes, or none has.
    14. The tiles that an elementwise op combines have one layout.
    15. A result returns into one parameter of its type, or into none.
    16. Memory that was freed is not used, and only what a call made is freed.
    17. The functions of a module have different names.
    18. A launch names a tile function and passes its buffers and sizes.
    19. A tile function has a spread, of its tiles' rank, only where they lack layouts.
    20. Frozen parameters are there, each named once, and no result returns into one.
    21. An updated result begins as an operand of the region and is not touched else.
    22. An update walks axes of its own, each once, and nothing of it has others.

An error shows the op among its neighbours:

    %y is not defined before it is read (invariant 3)
          graph @f(%x: f32[4]) -> (f32[4]) {
      >     %e = exp %y : f32[4]
            yield %e
          }
      invariant 3: What an op reads or a block yields was defined before, in scope.
      help: define it before, in this block or one around it

One pass over the function, without recursion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, NoReturn, cast

from fusec.errors import Loc, VerificationError
from fusec.ir.calls import Named, Slot
from fusec.ir.core import Affine, Block, Function, Level, Module, Monoid, Op, Value
from fusec.ir.dims import Dim, Expr, symbols
from fusec.ir.dtypes import DType, i64
from fusec.ir.layout import Layout
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.host import Free, Launch
from fusec.ir.ops.loop import Load, Region, Store, Update, View, Write
from fusec.ir.ops.pointwise import Elementwise
from fusec.ir.ops.tile import For
from fusec.ir.printer import RESERVED, Names, format_lines, format_type
from fusec.ir.sizes import dims_of
from fusec.ir.types import (
    Axis,
    Buffer,
    IllTyped,
    Opaque,
    Points,
    Scalar,
    Tensor,
    Tile,
    Token,
    Type,
)

INVARIANTS: dict[int, str] = {
    int(number): text
    for number, text in re.findall(r"^ *(\d+)\. (.+)$", __doc__ or "", re.MULTILINE)
}
"""The invariants of the header, for messages."""

TYPES: dict[Level, tuple[type, ...]] = {
    Level.GRAPH: (Tensor, Scalar, Token, Opaque),
    Level.LOOP: (Tensor, Points, Scalar, Token, Opaque),
    Level.TILE: (Tile, Buffer, Scalar, Token),
    Level.HOST: (Tensor, Scalar, Token, Opaque),
}
"""The types of values on each level."""

_NEIGHBOURS = 2


def verify(ir: Function | Module) -> None:
    """Raise `VerificationError` for the first invariant that `ir` breaks.

    Launches are checked against their kernels in a module only.
    """
    if isinstance(ir, Function):
        _Verifier(ir, None).run()
        return
    functions: dict[str, Function] = {}
    for function in ir.functions:
        if function.name in functions:
            verifier = _Verifier(function, None)
            verifier.fail(17, f"two functions are called @{function.name}")
        functions[function.name] = function
    for function in ir.functions:
        _Verifier(function, functions).run()


def arity(op_class: Any) -> tuple[str, int, float]:
    """How many operands an op takes: in words, at least, at most."""
    count = len(op_class.operand_fields)
    if op_class.variadic:
        return f"{count - 1} operands or more", count - 1, inf
    return f"{count} operand{'s' * (count != 1)}", count, count


def inferred_types(
    op_class: Any, operands: tuple[Value, ...], attrs: Any, blocks: tuple[Block, ...]
) -> tuple[Type, ...]:
    """The types that an op infers; `IllTyped`, with the reason, whatever is wrong.

    `infer` may take the number and kinds of operands, attributes and blocks for
    granted, but not that they fit together: a dimension may be out of range.
    """
    try:
        return tuple(op_class.infer(operands, attrs, blocks))
    except IllTyped:
        raise
    except Exception as error:
        raise IllTyped(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Frame:
    """A block being walked. `owner` is the op it belongs to."""

    block: Block
    owner: Op | None
    ops: Iterator[Op]
    defined: list[Value]
    region: int
    """The depth of the innermost closed block around it; 0 outside of such."""


class _Verifier:
    """The state of one walk over a function."""

    def __init__(
        self, function: Function, functions: Mapping[str, Function] | None
    ) -> None:
        self.function = function
        self.functions = functions
        self.names = Names()
        self.op: Op | None = None
        self.frames: list[_Frame] = []
        self.defined: set[Value] = set()
        self.visible: dict[Value, int] = {}
        """The depth of the block that defines each value in scope."""
        self.declared = frozenset(function.symbols)
        self.known: set[Expr] = set()
        """Dims whose symbols are all declared."""
        self.stored: set[Value] = set()
        self.tiles: dict[bool, Value] = {}
        """A tile with a layout, and one without."""
        self.memory: dict[Value, Value] = {}
        """The value whose memory a view shows."""
        self.freed: set[Value] = set()

    def run(self) -> None:
        self.check_symbols()
        self.enter(self.function.body, None, 0)
        while self.frames:
            frame = self.frames[-1]
            self.op = next(frame.ops, None)
            if self.op is None:
                self.leave(frame)
            else:
                self.check(self.op)
        self.check_returns()
        self.check_frozen()
        self.check_spread()

    # ---------------------------------------------------------------- blocks

    def enter(self, block: Block, owner: Op | None, region: int) -> None:
        self.frames.append(_Frame(block, owner, iter(block.ops), [], region))
        for param in block.params:
            self.define(param)

    def leave(self, frame: _Frame) -> None:
        self.op = frame.owner
        for value in frame.block.yields:
            self.check_read(value, frame)
        if isinstance(frame.owner, Region):
            self.check_stored(frame.owner)
        for value in frame.defined:
            del self.visible[value]
        if frame.owner is not None and frame.owner.closed:
            self.defined.difference_update(frame.defined)
        self.frames.pop()

    def define(self, value: Value) -> None:
        if value in self.defined:
            self.fail(2, f"{self.name(value)} is defined twice", "make a new value")
        level = self.function.level
        if not isinstance(value.type, TYPES[level]):
            kind = type(value.type).__name__
            what = f"{self.name(value)} is {kind}, which the {level.value} level lacks"
            self.fail(2, what, "lower it, or move it to its level")
        if any(isinstance(n, int) and n < 0 for n in extents_of(value.type)):
            self.fail(2, f"{self.name(value)} has a negative extent")
        self.defined.add(value)
        self.visible[value] = len(self.frames)
        self.frames[-1].defined.append(value)
        self.check_dims(value.type)
        self.check_layout(value)

    def check_read(self, value: Value, frame: _Frame) -> None:
        depth = self.visible.get(value)
        if depth is None:
            fix = "define it before, in this block or one around it"
            self.fail(3, f"{self.name(value)} is not defined before it is read", fix)
        if depth < frame.region:
            scalar = isinstance(value.type, Scalar)
            owner = self.frames[frame.region - 1].owner
            closed = owner.name if owner else "block"
            fix = f"make it an operand of the {closed}, and read the parameter"
            fix = "compute it inside" if scalar else fix
            self.fail(9, f"{self.name(value)} comes from outside of the {closed}", fix)
        if self.memory.get(value, value) in self.freed:
            fix = "free it after its last use"
            self.fail(16, f"{self.name(value)} was freed before", fix)

    # ------------------------------------------------------------------- ops

    def check(self, op: Op) -> None:
        frame = self.frames[-1]
        if self.function.level not in op.levels:
            levels = " and ".join(level.value for level in op.levels)
            what = f"{op.name} has no place at the {self.function.level.value} level"
            self.fail(1, what, f"it belongs to {levels}")
        for value in op.operands:
            self.check_read(value, frame)
        self.check_form(op)
        self.check_types(op)
        for attr in op.attrs:
            self.check_dims(attr)
        self.check_rules(op, frame)
        for value in op.results:
            self.define(value)
        for block in op.blocks:
            depth = len(self.frames) + 1
            self.enter(block, op, depth if op.closed else frame.region)

    def check_form(self, op: Op) -> None:
        cls = type(op)
        takes, least, most = arity(cls)
        if not least <= len(op.operands) <= most:
            self.fail(4, f"{op.name} takes {takes}, not {len(op.operands)}")
        if len(op.blocks) != len(cls.block_fields):
            blocks = len(cls.block_fields)
            self.fail(4, f"{op.name} has {blocks} blocks, not {len(op.blocks)}")
        if len(op.attrs) != len(cls.attr_fields):
            attrs = len(cls.attr_fields)
            self.fail(4, f"{op.name} has {attrs} attributes, not {len(op.attrs)}")
        for (name, field), value in zip(cls.attr_fields.items(), op.attrs, strict=True):
            if not is_of_kind(value, field.kind):
                what = f"{op.name} has {name}={value!r}, which is not {field.kind}"
                self.fail(4, what, "see the class of the op")

    def check_types(self, op: Op) -> None:
        try:
            inferred = inferred_types(type(op), op.operands, op.attrs, op.blocks)
        except IllTyped as error:
            self.fail(5, f"{op.name} does not fit its operands: {error}")
        stated = tuple(value.type for value in op.results)
        if inferred != stated:
            self.show()
            have, want = (
                ", ".join(format_type(t, self.names) for t in types) or "nothing"
                for types in (inferred, stated)
            )
            what = f"{op.name} gives {have}, but its results are {want}"
            self.fail(5, what, "build ops with a Builder, which infers their types")

    def check_rules(self, op: Op, frame: _Frame) -> None:
        """What holds for some families of ops."""
        if self.function.level is Level.LOOP:
            self.check_loop_op(op, frame)
        elif isinstance(op, For):
            self.check_for(op)
        elif isinstance(op, Free):
            self.check_free(op)
        elif isinstance(op, Launch):
            self.check_launch(op)
        elif isinstance(op, Elementwise):
            self.check_one_layout(op)
        if isinstance(op, View):
            (x,) = op.operands
            self.memory[op.result] = self.memory.get(x, x)

    # ------------------------------------------------------------ loop level

    def check_loop_op(self, op: Op, frame: _Frame) -> None:
        whole = isinstance(op, (Region, Extern, View))
        if whole == bool(frame.region):
            place = "inside" if whole else "outside of"
            scalar = all(isinstance(v.type, Scalar) for v in op.results)
            if whole or not (op.results and scalar):
                fix = "compute points inside, and whole tensors outside of regions"
                self.fail(7, f"{op.name} stands {place} a region", fix)
        if isinstance(op, Region):
            self.check_region(op)
        elif isinstance(op, (Load, Write)):
            self.check_index(op)
        if isinstance(op, Write):
            self.check_written(op, frame)
        if isinstance(op, Store):
            self.check_store(op)
        elif isinstance(op, Update):
            self.check_update(op, frame)

    def check_region(self, region: Region) -> None:
        params = region.blocks[0].params
        taken = params[: len(region.operands)]
        if [p.type for p in taken] != [v.type for v in region.operands]:
            fix = "give the block one parameter per operand, of its type, in order"
            self.fail(8, "parameters and operands of the region differ in type", fix)
        if region.blocks[0].yields:
            self.fail(8, "the region yields values", "store them in its results")

    def check_stored(self, region: Region) -> None:
        for param in region.blocks[0].params[len(region.operands) :]:
            if param not in self.stored:
                fix = "store it, or drop the result"
                self.fail(9, f"the result {self.name(param)} is never stored", fix)

    def check_index(self, op: Load | Write) -> None:
        computed = op.slots
        used = sorted(e.index for e in op.index if isinstance(e, Slot))
        if used != list(range(len(computed))):
            what = f"{len(computed)} computed indices, but the index uses {used}"
            self.fail(10, what, "let $k stand once for the k-th of them")
        for entry in op.index:
            if not isinstance(entry, Affine):
                continue
            axes = [id(axis) for axis in entry.axes]
            if len(set(axes)) < len(axes) or any(s == 0 for _, s in entry.terms):
                fix = "build indices by + and *, which collect terms"
                self.fail(
                    10, "an entry of the index has an axis twice, or times 0", fix
                )
        for value in computed:
            if getattr(value.type, "dtype", None) is not i64:
                what = f"the computed index {self.name(value)} is not i64"
                self.fail(10, what, "cast it")

    def check_written(self, op: Write, frame: _Frame) -> None:
        region = frame.owner
        results = region.blocks[0].params[len(region.operands) :] if region else ()
        if op.buffer not in results:
            fix = "make it a result of the region"
            self.fail(9, f"{self.name(op.buffer)} is stored, but no result", fix)
        self.stored.add(op.buffer)

    def check_update(self, update: Update, frame: _Frame) -> None:
        region = frame.owner
        assert region is not None
        if update.start not in region.blocks[0].params[: len(region.operands)]:
            what = f"{self.name(update.start)} is no operand of the region"
            self.fail(21, what, "let it begin as a tensor that was made before")
        touching = (op for op in region.blocks[0].ops if op is not update)
        if any(update.buffer in op.operands for op in touching):
            what = f"{self.name(update.buffer)} is updated, and read or stored as well"
            self.fail(21, what, "make the results of two regions of them")
        axes = [id(axis) for axis in update.axes]
        known = (a for e in update.index if isinstance(e, Affine) for a in e.axes)
        read = (a for v in (update.value, *update.indices) for a in _axes(v.type))
        if len(set(axes)) < len(axes):
            self.fail(22, "an axis is walked twice", "name each once behind `axes`")
        for axis in (*known, *read):
            if id(axis) not in axes:
                what = f"the update reads along {axis.name}, which it does not walk"
                self.fail(22, what, "add it to `axes`, or reduce over it")

    def check_store(self, store: Store) -> None:
        affine = [a for e in store.index if isinstance(e, Affine) for a in e.axes]
        twice = {axis.name for axis in affine if affine.count(axis) > 1}
        if twice:
            what = f"two dimensions of the index walk {', '.join(sorted(twice))}"
            self.fail(11, what, "walk each by an axis of its own")
        reached = {*affine, *(a for v in store.indices for a in _axes(v.type))}
        for axis in _axes(store.value.type):
            if axis not in reached and axis.extent != 1:
                what = f"all points of {axis.name} are stored in one element"
                self.fail(11, what, "reduce over it, or put it in the index")

    # ------------------------------------------------------------ tile level

    def check_for(self, loop: For) -> None:
        params = loop.blocks[0].params
        counters = [v.type for v in (loop.lo, loop.hi, *params[:1])]
        if counters != [Scalar(i64)] * 3 or loop.step < 1:
            fix = "let lo, hi and the block's first parameter be i64, and step > 0"
            self.fail(12, "the loop does not count in i64 by a positive step", fix)

    def check_layout(self, value: Value) -> None:
        if not isinstance(value.type, Tile):
            return
        layout = value.type.layout
        self.tiles.setdefault(layout is not None, value)
        if len(self.tiles) == 2:
            bare = self.name(self.tiles[False])
            what = f"{bare} has no layout, {self.name(self.tiles[True])} has one"
            self.fail(13, what, "assign layouts to all tiles in one pass")
        if layout is not None and layout.shape != value.type.shape:
            what = f"the layout of {self.name(value)} has the shape {layout.shape}"
            self.fail(13, what, f"give it a layout of shape {value.type.shape}")

    def check_one_layout(self, op: Op) -> None:
        types = [v.type for v in op.operands if isinstance(v.type, Tile)]
        if any(type_.layout != types[0].layout for type_ in types):
            fix = "convert them to one layout before"
            self.fail(14, f"{op.name} combines tiles of different layouts", fix)

    # ------------------------------------------------------------ host level

    def check_free(self, free: Free) -> None:
        (memory,) = free.operands
        if memory in self.function.params or memory in self.memory:
            fix = "free what alloc or extern gave, not parameters or views"
            self.fail(16, f"{self.name(memory)} is not this function's to free", fix)
        self.freed.add(memory)

    def check_launch(self, launch: Launch) -> None:
        if self.functions is None:
            return
        kernel = self.functions.get(launch.kernel)
        if kernel is None or kernel.level is not Level.TILE:
            fix = "add the kernel to the module"
            self.fail(18, f"there is no tile function @{launch.kernel}", fix)
        passed, taken = len(launch.operands), len(kernel.params)
        if passed != taken:
            self.fail(18, f"@{kernel.name} takes {taken} buffers, not {passed}")
        if len(launch.sizes) != len(kernel.symbols):
            what = f"@{kernel.name} takes {len(kernel.symbols)} sizes, "
            self.fail(18, what + f"not {len(launch.sizes)}")
        if kernel.body.yields:
            self.fail(18, f"@{kernel.name} yields values", "store them in a buffer")
        for value, param in zip(launch.operands, kernel.params, strict=True):
            if not _is_passed(value.type, param.type):
                have, want = format_type(value.type), format_type(param.type)
                what = f"{self.name(value)} is {have}, but its parameter {want}"
                self.fail(18, what, "pass a tensor of the buffer's dtype")

    # -------------------------------------------------------------- functions

    def check_symbols(self) -> None:
        declared = self.function.symbols
        if len(set(declared)) < len(declared):
            self.fail(6, "a symbol is declared twice")
        for symbol in declared:
            if symbol.name in RESERVED:
                self.fail(6, f"{symbol.name} means a value", "rename the symbol")

    def check_dims(self, thing: Any) -> None:
        for dim in dims_of(thing):
            if isinstance(dim, int) or dim in self.known:
                continue
            unknown = symbols(dim) - self.declared
            if unknown:
                names = ", ".join(sorted(symbol.name for symbol in unknown))
                fix = "add it to the symbols of the function"
                self.fail(6, f"{names} in {dim} is not declared", fix)
            self.known.add(dim)

    def check_returns(self) -> None:
        into, yields = self.function.returns_into, self.function.body.yields
        if into and len(into) != len(yields):
            self.fail(15, f"returns_into has {len(into)} entries for {len(yields)}")
        targets = [k for k in into if k is not None]
        if len(set(targets)) < len(targets):
            self.fail(15, "two results return into one parameter")
        params = self.function.params
        for value, k in zip(yields, into, strict=False):
            if k is None:
                continue
            if not 0 <= k < len(params):
                self.fail(15, f"there is no parameter {k} of {len(params)}")
            if value.type != params[k].type:
                have, want = format_type(value.type), format_type(params[k].type)
                self.fail(15, f"{self.name(value)} is {have}, its parameter {want}")

    def check_frozen(self) -> None:
        frozen, count = self.function.frozen, len(self.function.params)
        for k in frozen:
            if not 0 <= k < count:
                self.fail(20, f"there is no parameter {k} of {count} to be frozen")
            if frozen.count(k) > 1:
                self.fail(20, f"parameter {k} is frozen twice")
            if k in self.function.returns_into:
                self.fail(20, f"a result returns into parameter {k}, which is frozen")

    def check_spread(self) -> None:
        spread = self.function.spread
        if spread is None:
            return
        self.check_dims(spread)
        if self.function.level is not Level.TILE or True in self.tiles:
            self.fail(19, "there are no tiles to lay out", "leave the spread out")
        tile = self.tiles.get(False)
        if tile is not None and len(tile.shape) != spread.rank:
            what = f"{self.name(tile)} has {len(tile.shape)} dimensions"
            self.fail(19, f"{what}, the spread {spread.rank}", "give it the same")

    # ---------------------------------------------------------------- messages

    def show(self) -> list[str]:
        """The lines around the op, and the names that they give to values."""
        lines = format_lines(self.function, self.names)
        at = next((k for k, line in enumerate(lines) if line.op is self.op), 0)
        shown = range(max(at - _NEIGHBOURS, 0), min(at + _NEIGHBOURS + 1, len(lines)))
        return [f"{'>' if k == at else ' '} {lines[k].text}" for k in shown]

    def name(self, value: Value) -> str:
        """What the excerpt calls a value."""
        if not self.names.values:
            self.show()
        return self.names.value(value)

    def fail(self, invariant: int, what: str, fix: str = "") -> NoReturn:
        ir = [*self.show(), f"invariant {invariant}: {INVARIANTS.get(invariant, '')}"]
        if fix:
            ir.append(f"help: {fix}")
        where = self.op.loc if self.op else Loc.UNKNOWN
        raise VerificationError(f"{what} (invariant {invariant})", "\n".join(ir), where)


def is_of_kind(value: Any, kind: Any) -> bool:
    """Whether an attribute's value is of its declared kind."""
    if isinstance(value, tuple) or isinstance(kind, tuple):
        item = "tree" if kind == "tree" else _item(kind)
        return isinstance(value, tuple) and all(
            is_of_kind(part, item) for part in cast("tuple[Any, ...]", value)
        )
    if isinstance(value, bool):
        return kind in (bool, "number", "tree")
    return isinstance(value, _KINDS[kind])


def _item(kind: Any) -> Any:
    """The kind of the items of a tuple."""
    return cast("tuple[Any]", kind)[0] if isinstance(kind, tuple) else "nothing"


_KINDS: dict[Any, Any] = {
    "nothing": (),
    int: int,
    bool: bool,
    str: str,
    "number": (int, float),
    Dim: (int, Expr),
    "dim": (int, Expr),
    DType: DType,
    Type: (Tensor, Points, Tile, Buffer, Scalar, Token, Opaque),
    Axis: Axis,
    Monoid: Monoid,
    Layout: Layout,
    "index": (Affine, Slot),
    "tree": (int, float, str, Expr, Slot, Named, type(None)),
}


def extents_of(type_: Type) -> tuple[Dim, ...]:
    """How many elements a type has along each dimension or axis."""
    if isinstance(type_, (Tensor, Tile)):
        return type_.shape
    return tuple(axis.extent for axis in _axes(type_))


def _axes(type_: Type) -> tuple[Axis, ...]:
    return type_.axes if isinstance(type_, Points) else ()


def _is_passed(value: Type, param: Type) -> bool:
    """Whether a launch may pass such a value for such a parameter."""
    if not isinstance(value, Tensor) or not isinstance(param, Buffer):
        return False
    return value.dtype is param.dtype
