"""Tile IR → LLVM assembly for a CPU: hand-vectorised, for a code generator alone.

A kernel is one function that runs the programs `lo .. hi-1` of its grid:

    define void @scale(ptr %args, i64 %lo, i64 %hi)

`args` has a slot of 8 bytes for each parameter, a pointer, then one for each symbol of
the function, an i64. Every tile has a layout with reg and lane digits; a register is
one LLVM vector with a lane of the layout in each of its lanes. Ops are emitted one
after the other, each for all its registers, so that neighbours are independent.

    llvm_text      names, scopes, loops         llvm_rows      elementwise ops
    llvm_lanes     one register                 llvm_cast      casts among them
    llvm_kernel    which value is where         llvm_math      what CPUs lack
    llvm_places    which element is where       llvm_memory    loads and stores
    llvm_mask      which elements exist         llvm_tile      moving elements
    llvm_index     sizes as arithmetic          llvm_exchange  transposes
                                                llvm_reduce    reductions
                                                llvm_dot       products
                                                llvm_scan      scans
                                                llvm_rare      what few elements need
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from fusec.codegen.backend import Emitted
from fusec.codegen.llvm_dot import dot_tiles, may_join
from fusec.codegen.llvm_kernel import Kernel, Register, dtype_of, hint_of
from fusec.codegen.llvm_known import constant, define_if_known, folded
from fusec.codegen.llvm_lanes import element
from fusec.codegen.llvm_memory import load_tile, store_tile
from fusec.codegen.llvm_pieces import pieces
from fusec.codegen.llvm_rare import rare
from fusec.codegen.llvm_reduce import reduce_tile
from fusec.codegen.llvm_rows import spelling, supports
from fusec.codegen.llvm_scan import scan_tile
from fusec.codegen.llvm_spans import (
    decided,
    note,
    note_counter,
    note_program,
    note_size,
    spans_of,
)
from fusec.codegen.llvm_tile import broadcast_tile, convert, guard, iota_tile, scratch
from fusec.errors import InternalError
from fusec.ir.core import Block, Function, Op, Value
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.cast import Bitcast, Cast
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.rare import Rare
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.ops.tile import (
    BroadcastTile,
    Convert,
    For,
    Guard,
    IotaTile,
    LoadTile,
    ProgramId,
    Scratch,
    StoreTile,
)
from fusec.ir.types import Scalar
from fusec.target import Target

__all__ = ["emit", "supports"]


def emit(function: Function, target: Target) -> Emitted:
    """LLVM assembly that defines the kernel `function.name`.

    The same function gives the same text in every process. Raises `InternalError` on an
    op that no row covers (`passes.expand` leaves none) and on tiles without layout.
    """
    k = Kernel(function, target)
    _emit_block(k, function.body)
    k.writer.close_loop(k.programs, ())
    k.give_back()
    if k.streams:
        # Streaming stores are not ordered with what tells others that we are done.
        k.writer.declare("void @llvm.x86.sse.sfence()")
        k.writer.effect("call void @llvm.x86.sse.sfence()")
    metadata = "!0 = !{i32 1}\n" if k.streams else ""
    return Emitted(k.text() + metadata)


def _emit_block(k: Kernel, block: Block) -> None:
    """Emit ops in their order, but products that can go together, together."""
    waiting: list[DotTile] = []
    for op in block.ops:
        results = {each.result for each in waiting}
        if isinstance(op, DotTile) and may_join(waiting, op):
            waiting.append(op)
            continue
        if not op.pure or op.blocks or not results.isdisjoint(op.operands):
            _emit_dots(k, waiting)
        if isinstance(op, DotTile):
            _emit_dots(k, waiting)
            waiting.append(op)
        else:
            _emit_op(k, op)
    _emit_dots(k, waiting)


def _emit_dots(k: Kernel, waiting: list[DotTile]) -> None:
    for op in waiting:
        k.comment(op)
    if waiting:
        dot_tiles(k, waiting)
    waiting.clear()


def _emit_op(k: Kernel, op: Op) -> None:
    if isinstance(op, (ew.Elementwise, Cast, Bitcast)):
        k.comment(op)
        _elementwise(k, op)
        note(k, op)
        return
    handler = _HANDLERS.get(type(op))
    if handler is None:
        raise InternalError(f"the LLVM backend has no code for {type(op).name}", op.loc)
    if not isinstance(op, (Const, SizeOf, ProgramId)):
        k.comment(op)
    handler(k, op)
    if isinstance(op, (IotaTile, BroadcastTile)):
        note(k, op)


def _elementwise(k: Kernel, op: Op) -> None:
    result = op.result
    dtypes = tuple(dtype_of(x) for x in (*op.operands, result))
    spell = spelling(op, dtypes)
    if isinstance(result.type, Scalar):
        (always,) = decided(k, op, 1) or (None,)
        if always is not None:
            k.define_number(result, always)
            return
        scalar = k.scalar_lanes(hint_of(op))
        k.define(result, (spell(scalar, *(k.scalar(x) for x in op.operands)),))
        return
    places = k.places(result)
    v = k.lanes(places.lanes, hint_of(op))
    if define_if_known(k, op):
        return
    count = len(places.origins)
    columns = [k.spread(x, v, count) for x in op.operands]
    always = decided(k, op, count) or (None,) * count
    registers: list[Register] = []
    for register, row in enumerate(zip(*columns, strict=True)):
        known = always[register]
        chosen = folded(k, op, row, register)
        if known is not None:
            chosen = constant(k, result, known)
        if chosen is not None or _is_void(op, row):
            registers.append(chosen)
            continue
        filled = zip(row, dtypes, strict=False)
        registers.append(
            spell(v, *(v.zero(dtype) if x is None else x for x, dtype in filled))
        )
    k.define(result, registers)


def _is_void(op: Op, row: tuple[Register, ...]) -> bool:
    """Whether the op's elements do not exist, since those of an operand do not."""
    if isinstance(op, ew.Select):  # it does not depend on what it does not choose
        cond, *choice = row
        return cond is None or choice.count(None) == 2
    if isinstance(op, (ew.And, ew.Or)) and dtype_of(op.result).is_bool:
        return row.count(None) == len(row)  # one operand may decide
    return None in row


# ------------------------------------------------------------------- control


def _const(k: Kernel, op: Const) -> None:
    k.define_number(op.result, op.value)


def _size(k: Kernel, op: SizeOf) -> None:
    if isinstance(op.dim, int):
        k.define_number(op.result, op.dim)
    else:
        k.define(op.result, (k.index(op.dim),))
        note_size(k, op.result, op.dim)


def _program_id(k: Kernel, op: ProgramId) -> None:
    k.define(op.result, (k.programs.counter,))
    note_program(k, op.result)


def _for(k: Kernel, op: For) -> None:
    """Run the body for each trip, in pieces where its bounds are known; behind a
    condition if there is one trip at most."""
    lo, hi = k.number(op.lo), k.number(op.hi)
    held = [k.registers(init) for init in op.inits]
    if lo is None or hi is None:
        emit = _arm if _runs_once_at_most(k, op) else _loop
        held = emit(k, op, k.scalar(op.lo), k.scalar(op.hi), held)
    else:
        for first, end in pieces(k, op, int(lo), int(hi)):
            if first + op.step >= end > first:
                held = _run_once(k, op, first, held)
            elif end > first:
                held = _loop(k, op, str(first), str(end), held, (first, end))
    for result, registers in zip(op.results, held, strict=True):
        k.define(result, registers)


State = list[tuple[Register, ...]]
"""The registers of each value that a loop carries."""


def _runs_once_at_most(k: Kernel, op: For) -> bool:
    """Whether a loop is a condition: from where its bounds are, one trip ends it."""
    lo, hi = spans_of(k, op.lo), spans_of(k, op.hi)
    return lo is not None and hi is not None and hi[0][1] - lo[0][0] <= op.step


def _arm(k: Kernel, op: For, lo: str, hi: str, held: State) -> State:
    """The body, behind its condition."""
    some = k.writer.value(f"icmp slt i64 {lo}, {hi}", "some", hoist=True)
    arm = k.writer.open_arm(some, "once")
    counter, *carried = op.body.params
    k.define(counter, (lo,))
    note_counter(k, op, None)
    last = _flat(k, carried, _body(k, op, held))
    pairs = zip(last, _flat(k, carried, held), strict=True)
    ways = [(type_, x, y) for (type_, x), (_, y) in pairs]
    return _dealt(k, carried, k.writer.close_arm(arm, ways))


def _run_once(k: Kernel, op: For, counter: int, held: State) -> State:
    k.define_number(op.body.params[0], counter)
    return _body(k, op, held)


def _loop(
    k: Kernel,
    op: For,
    lo: str,
    hi: str,
    held: State,
    known: tuple[int, int] | None = None,
) -> State:
    """`known` are the bounds if they are, with at least one trip between them."""
    counter, *carried = op.body.params
    firsts = _flat(k, carried, held)
    hint = counter.hint or "i"
    loop = k.writer.open_loop(lo, hi, op.step, firsts, hint, known is not None)
    k.define(counter, (loop.counter,))
    note_counter(k, op, known)
    last = _body(k, op, _dealt(k, carried, loop.names))
    following = [register for _, register in _flat(k, carried, last)]
    return _dealt(k, carried, k.writer.close_loop(loop, following))


def _body(k: Kernel, op: For, held: State) -> State:
    """One trip; what it carries on."""
    for param, registers in zip(op.body.params[1:], held, strict=True):
        k.define(param, registers)
    _emit_block(k, op.body)
    return [k.registers(last) for last in op.body.yields]


def _flat(k: Kernel, values: Sequence[Value], held: State) -> list[tuple[str, str]]:
    """Type and name of every register of some values, zeros where none exists."""
    flat: list[tuple[str, str]] = []
    for value, registers in zip(values, held, strict=True):
        v, dtype = k.lanes(k.width(value), "carried"), dtype_of(value)
        type_, zero = v.type(element(dtype)), v.zero(dtype)
        flat += [(type_, zero if x is None else x) for x in registers]
    return flat


def _dealt(k: Kernel, values: Sequence[Value], registers: Sequence[str]) -> State:
    """The registers by values, to each as many as it takes."""
    rest = iter(registers)
    counts = (
        1 if isinstance(v.type, Scalar) else len(k.places(v).origins) for v in values
    )
    return [tuple(islice(rest, count)) for count in counts]


_HANDLERS: dict[Any, Callable[[Kernel, Any], None]] = {
    Const: _const,
    SizeOf: _size,
    ProgramId: _program_id,
    For: _for,
    LoadTile: load_tile,
    StoreTile: store_tile,
    BroadcastTile: broadcast_tile,
    Convert: convert,
    IotaTile: iota_tile,
    Guard: guard,
    Scratch: scratch,
    ReduceTile: reduce_tile,
    ScanTile: scan_tile,
    Rare: rare,
}
