"""The segments of a host function → LLVM assembly, one function for each.

    void segment(ptr frame, i64 threads)

`frame` is the array of 64-bit slots that `runtime.plan` lays out. A segment writes the
arguments of a kernel on its stack and has `fusec_parallel` run the grid:

    launch @exp (%x, %y) grid s0           %x = load i64, frame[2]
                                           %y = add i64 %arena, 4096
                                     →     scratch[0], scratch[1] = %x, %y
                                           call @fusec_parallel(@exp, scratch, %s0, …)

Launches that follow one another and do not touch what another writes run as one, by
`fusec_batch`, so that threads meet once for all of them.

Before each op it notes the op's number in the frame, and returns early where a call
fails; whoever called it can go on from there. No address is in the text, so that
objects can be cached: kernels and torch's C functions are external.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fusec.codegen.llvm_index import Index
from fusec.codegen.llvm_lanes import Lanes
from fusec.codegen.llvm_text import Writer, module, symbol
from fusec.codegen.native_calls import SCALAR_TYPES, factors_of, inputs_of
from fusec.ir.core import Block, Function, Value, walk
from fusec.ir.dims import Dim, Symbol, product, substitute
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.host import Launch
from fusec.ir.ops.tile import StoreTile
from fusec.ir.types import Tensor, Tile, strides_of
from fusec.runtime.plan import HostPlan, Segment
from fusec.runtime.recipe import FRAME, STATUS_SLOT
from fusec.runtime.shims import CREATE, DELETE, SHIMS
from fusec.target import Target

SERIAL_WORK = 1 << 15
"""Elements computed, over all ops of a launch, below which threads do not pay: about
2 µs of one core's vector instructions, twice what waking a thread takes."""

PRODUCTS = 4
"""Elements that are multiplied and added up in the time of another op on one."""


def emit_host(plan: HostPlan, kernels: Mapping[str, Function], target: Target) -> str:
    """The module of all segments. `kernels` are laid out, by name."""
    return module([SegmentText(plan, s, kernels, target).emit() for s in plan.segments])


class SegmentText:
    """The state of emitting one segment."""

    def __init__(
        self,
        plan: HostPlan,
        segment: Segment,
        kernels: Mapping[str, Function],
        target: Target,
    ) -> None:
        self.plan = plan
        self.segment = segment
        self.kernels = kernels
        self.writer = Writer(segment.name, "ptr %frame, i64 %threads")
        self.lanes = Lanes(self.writer, target, 1)
        sizes = _Sizes(self)
        self.index = Index(self.lanes, sizes, plan.function.facts)

    def emit(self) -> Writer:
        rounds = list(self.rounds())
        room = max(self.room(launches) for _, launches in rounds)
        self.scratch = self.writer.at_entry(f"alloca i64, i64 {room}", "scratch")
        self.begin()
        for number, ops in rounds:
            self.store(number, "%frame", STATUS_SLOT)
            first = ops[0]
            if isinstance(first, Extern):
                self.call(first)
            elif len(ops) == 1:
                self.launch(first)
            else:
                self.batch([op for op in ops if isinstance(op, Launch)])
        self.end()
        self.store(0, "%frame", STATUS_SLOT)
        return self.writer

    def begin(self) -> None:
        """Emit what stands before the first op."""

    def end(self) -> None:
        """Emit what stands after the last one."""

    def rounds(self) -> Iterator[tuple[int, Sequence[Launch | Extern]]]:
        """Ops that run at the same time, with the number of the first among those
        between two calls: launches cannot fail one by one."""
        run: list[Launch] = []
        for number, op in enumerate((*self.segment.ops, None), start=1):
            if isinstance(op, Launch):
                run.append(op)
                continue
            for launches in self.independent(run):
                yield number - len(run), launches
            run = []
            if op is not None:
                yield number, (op,)

    def independent(self, run: Sequence[Launch]) -> list[list[Launch]]:
        """Launches in rounds: each after the last one that it has to wait for."""
        rounds: list[list[Launch]] = []
        held: list[list[_Touched]] = []
        for op in run:
            mine = self.touched(op)
            waits = [n for n, others in enumerate(held) if _clash(mine, others)]
            at = waits[-1] + 1 if waits else 0
            if at == len(rounds):
                rounds.append([])
                held.append([])
            rounds[at].append(op)
            held[at] += mine
        return rounds

    def touched(self, op: Launch) -> list[_Touched]:
        """What memory a launch reads and writes."""
        kernel = self.kernels[op.kernel]
        written = {x.buffer for x in walk(kernel.body) if isinstance(x, StoreTile)}
        found: list[_Touched] = []
        for param, value in zip(kernel.params, op.arguments, strict=True):
            place, size = self.plan.places[value], _bytes(value)
            found.append(_Touched(place.slot, place.offset, size, param in written))
        return found

    def room(self, ops: Sequence[Launch | Extern]) -> int:
        """Words of scratch that ops of one round need."""
        if isinstance(ops[0], Launch):
            words = sum(len(op.operands) + len(op.sizes) for op in ops)  # type: ignore[union-attr]
            return max(1, words + (1 + 5 * len(ops) if len(ops) > 1 else 0))
        tensors = (*ops[0].results, *inputs_of(ops[0]))
        ranks = (len(v.type.shape) for v in tensors if isinstance(v.type, Tensor))
        return len(tensors) + 2 * max(ranks)

    # ---------------------------------------------------------------- launches

    def launch(self, op: Launch) -> None:
        """Run a kernel; threads share the grid where there is enough to share."""
        values = [self.address(value) for value in op.arguments]
        args = self.fill(0, [*values, *map(self.index, op.sizes)])
        work = op.grid * _work(self.kernels[op.kernel], op.sizes)
        kernel, grid = symbol(op.kernel), self.index(op.grid)
        self.writer.declare(f"void {kernel}(ptr, i64, i64)")
        if isinstance(work, int) and (work < SERIAL_WORK or op.grid == 1):
            self.writer.effect(f"call void {kernel}(ptr {args}, i64 0, i64 {grid})")
            return
        grid, threads = f"i64 {grid}", f"i64 {self.threads(work)}"
        self.invoke("fusec_parallel", f"ptr {kernel}", f"ptr {args}", grid, threads)

    def batch(self, ops: Sequence[Launch]) -> None:
        """Run several kernels as one; threads share their work evenly."""
        at = 1 + 5 * len(ops)
        entries: list[str] = [str(len(ops))]
        total: Dim = 0
        for op in ops:
            values = [self.address(value) for value in op.arguments]
            args = self.fill(at, [*values, *map(self.index, op.sizes)])
            at += len(op.arguments) + len(op.sizes)
            units = _work(self.kernels[op.kernel], op.sizes)
            kernel = symbol(op.kernel)
            self.writer.declare(f"void {kernel}(ptr, i64, i64)")
            addresses = (f"ptrtoint (ptr {kernel} to i64)", self.number_of(args))
            entries += [*addresses, *map(self.index, (total, op.grid, units))]
            total = total + op.grid * units
        table = f"ptr {self.fill(0, entries)}"
        count = f"i64 {self.index(total)}"
        self.writer.declare("void @fusec_batch(ptr, i64, i64)")
        if isinstance(total, int) and total < SERIAL_WORK:
            self.writer.effect(f"call void @fusec_batch({table}, i64 0, {count})")
            return
        threads = f"i64 {self.threads(total)}"
        self.invoke("fusec_parallel", "ptr @fusec_batch", table, count, threads)

    def number_of(self, pointer: str) -> str:
        return self.writer.value(f"ptrtoint ptr {pointer} to i64", "args")

    def threads(self, work: Dim) -> str:
        """All of them, or one for little work."""
        if isinstance(work, int):
            return "%threads"
        little = self.lanes.test("icmp slt", "i64", self.index(work), str(SERIAL_WORK))
        return self.lanes.select("i64", little, "1", "%threads")

    # ------------------------------------------------------------------- calls

    def call(self, op: Extern) -> None:
        """Call torch's C function on tensors made around the memory, then free them.

        The scratch area holds the handles, then the sizes and strides of one tensor.
        """
        tensors = (*op.results, *inputs_of(op))
        self.writer.declare(f"i32 @{DELETE}(ptr)")
        pointers: list[str] = []
        for k, value in enumerate(tensors):
            undo = [f"call i32 @{DELETE}({pointer})" for pointer in pointers]
            self.create(value, self.at(k), len(tensors), undo)
            handle = self.writer.read(f"load ptr, ptr {self.at(k)}", "handle")
            pointers.append(f"ptr {handle}")
        factors = [f"double {_double(factor)}" for factor in factors_of(op)]
        status = self.result(SHIMS[op.target].symbol, *pointers, *factors)
        for pointer in pointers:
            self.result(DELETE, pointer)
        self.check(status)

    def create(
        self, value: Value, handle: str, start: int, undo: Sequence[str]
    ) -> None:
        """Write the handle of a tensor; undo and leave where there is no memory."""
        type_ = value.type
        assert isinstance(type_, Tensor)
        rank = len(type_.shape)
        dims = (*type_.shape, *strides_of(type_))
        sizes = self.fill(start, [self.index(dim) for dim in dims])
        data = self.writer.value(f"inttoptr i64 {self.address(value)} to ptr", "data")
        dtype = f"i32 {SCALAR_TYPES[type_.dtype.name]}"
        place = self.at(start + rank)
        shape = (f"i64 {rank}", f"ptr {sizes}", f"ptr {place}", "i64 0")
        device = ("i32 0", "i32 0")
        arguments = (f"ptr {data}", *shape, dtype, *device, f"ptr {handle}")
        self.check(self.result(CREATE, *arguments), undo)

    # ------------------------------------------------------------------- parts

    def invoke(self, function: str, *arguments: str) -> None:
        """Call a function that returns a status; leave where it is not 0."""
        self.check(self.result(function, *arguments))

    def result(self, function: str, *arguments: str) -> str:
        """Call a function that returns an i32; `arguments` carry their types."""
        types = ", ".join(argument.split()[0] for argument in arguments)
        self.writer.declare(f"i32 @{function}({types})")
        return self.writer.read(f"call i32 @{function}({', '.join(arguments)})")

    def check(self, status: str, undo: Sequence[str] = ()) -> None:
        self.writer.leave_if(self.lanes.test("icmp ne", "i32", status, "0"), undo)

    def address(self, value: Value) -> str:
        """Where a tensor begins, an i64."""
        place = self.plan.places[value]
        offset = self.index(place.offset)
        if place.slot == FRAME:
            base = self.writer.value("ptrtoint ptr %frame to i64", "frame")
        else:
            base = self.number(place.slot, "base")
        return base if offset == "0" else self.lanes.op("add", "i64", base, offset)

    def number(self, slot: int, hint: str) -> str:
        """What a slot of the frame holds; a segment changes only the status."""
        at = self.writer.value(f"getelementptr i64, ptr %frame, i64 {slot}", "slot")
        return self.writer.value(f"load i64, ptr {at}", hint)

    def at(self, k: int) -> str:
        """The address of a word of the scratch area."""
        return self.writer.value(f"getelementptr i64, ptr {self.scratch}, i64 {k}", "p")

    def fill(self, start: int, values: Sequence[str]) -> str:
        """Write numbers to the scratch area; where they are."""
        for k, value in enumerate(values, start):
            self.store(value, self.scratch, k)
        return self.at(start)

    def store(self, value: str | int, array: str, k: int) -> None:
        at = self.writer.value(f"getelementptr i64, ptr {array}, i64 {k}", "p")
        self.writer.effect(f"store i64 {value}, ptr {at}")


class _Sizes(Mapping[Symbol, str]):
    """The registers of sizes, each read from the frame where it is first needed."""

    def __init__(self, segment: SegmentText) -> None:
        self._segment = segment

    def __getitem__(self, key: Symbol) -> str:
        return self._segment.number(self._segment.plan.slots[key], key.name)

    def __iter__(self) -> Iterator[Symbol]:
        return iter(self._segment.plan.function.symbols)

    def __len__(self) -> int:
        return len(self._segment.plan.function.symbols)


@dataclass(frozen=True, slots=True)
class _Touched:
    """Memory that a launch touches: bytes from an address in a slot of the frame."""

    slot: int
    start: Dim
    size: Dim
    written: bool

    def meets(self, other: _Touched) -> bool:
        """Whether both may touch the same byte. Slots hold memory of their own, but
        for that of parameters, which nobody writes to that others share."""
        if self.slot != other.slot:
            return False
        return not (_ends_before(self, other) or _ends_before(other, self))


def _ends_before(a: _Touched, b: _Touched) -> bool:
    gap = b.start - a.start - a.size
    return isinstance(gap, int) and gap >= 0


def _clash(mine: Sequence[_Touched], others: Sequence[_Touched]) -> bool:
    """Whether one writes what the other touches."""
    return any((a.written or b.written) and a.meets(b) for a in mine for b in others)


def _bytes(value: Value) -> Dim:
    """From a tensor's first element to its last."""
    type_ = value.type
    assert isinstance(type_, Tensor)
    if 0 in type_.shape:
        return 0
    pairs = zip(type_.shape, strides_of(type_), strict=True)
    last = sum(((n - 1) * stride for n, stride in pairs), 0)
    return (last + 1) * type_.dtype.itembytes


def _work(kernel: Function, sizes: Sequence[Dim]) -> Dim:
    """Elements that one program computes, summed over its ops, and one for itself."""
    known = dict(zip(kernel.symbols, sizes, strict=True))
    return 1 + substitute(_elements(kernel.body), known)


def _elements(block: Block) -> Dim:
    total: Dim = 0
    for op in block.ops:
        if isinstance(op, DotTile):
            total = total + product(op.joined) // PRODUCTS
        for value in op.results:
            if isinstance(value.type, Tile):
                total = total + product(value.type.shape)
        for inner in op.blocks:
            total = total + _elements(inner)
    return total


def _double(number: float) -> str:
    """A constant of LLVM's type double, exactly."""
    return f"0x{struct.pack('>d', number).hex().upper()}"
