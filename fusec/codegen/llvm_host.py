"""The segments of a host function → LLVM assembly, one function for each.

    void segment(ptr frame, i64 threads)

`frame` is the array of 64-bit slots that `runtime.plan` lays out. A segment writes the
arguments of a kernel on its stack and has `fusec_parallel` run the grid:

    launch @exp (%x, %y) grid s0           %x = load i64, frame[2]
                                           %y = add i64 %arena, 4096
                                     →     scratch[0], scratch[1] = %x, %y
                                           call @fusec_parallel(@exp, scratch, %s0, …)

Before each op it notes the op's number in the frame, and returns early where a call
fails; whoever called it can go on from there. No address is in the text, so that
objects can be cached: kernels and torch's C functions are external.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from fusec.codegen.llvm_index import Index
from fusec.codegen.llvm_lanes import Lanes
from fusec.codegen.llvm_text import Writer, module, symbol
from fusec.ir.core import Block, Function, Value
from fusec.ir.dims import Dim, Symbol, product, substitute
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.host import Launch
from fusec.ir.types import Tensor, Tile, strides_of
from fusec.runtime.plan import STATUS_SLOT, HostPlan, Segment
from fusec.runtime.shims import (
    CREATE,
    DELETE,
    SCALAR_TYPES,
    SHIMS,
    factors_of,
    inputs_of,
)
from fusec.target import Target

SERIAL_WORK = 1 << 15
"""Elements computed, over all ops of a launch, below which threads do not pay: about
2 µs of one core's vector instructions, twice what waking a thread takes."""


def emit_host(plan: HostPlan, kernels: Mapping[str, Function], target: Target) -> str:
    """The module of all segments. `kernels` are laid out, by name."""
    return module([_Segment(plan, s, kernels, target).emit() for s in plan.segments])


class _Segment:
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
        room = max(map(_room, self.segment.ops))
        self.scratch = self.writer.at_entry(f"alloca i64, i64 {room}", "scratch")
        for number, op in enumerate(self.segment.ops, start=1):
            self.store(number, "%frame", STATUS_SLOT)
            if isinstance(op, Launch):
                self.launch(op)
            else:
                self.call(op)
        self.store(0, "%frame", STATUS_SLOT)
        return self.writer

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

    def __init__(self, segment: _Segment) -> None:
        self._segment = segment

    def __getitem__(self, key: Symbol) -> str:
        return self._segment.number(self._segment.plan.slots[key], key.name)

    def __iter__(self) -> Iterator[Symbol]:
        return iter(self._segment.plan.function.symbols)

    def __len__(self) -> int:
        return len(self._segment.plan.function.symbols)


def _room(op: Launch | Extern) -> int:
    """Words of scratch that an op needs."""
    if isinstance(op, Launch):
        return max(1, len(op.arguments) + len(op.sizes))
    tensors = (*op.results, *inputs_of(op))
    ranks = (len(v.type.shape) for v in tensors if isinstance(v.type, Tensor))
    return len(tensors) + 2 * max(ranks)


def _work(kernel: Function, sizes: Sequence[Dim]) -> Dim:
    """Elements that one program computes, summed over its ops."""
    known = dict(zip(kernel.symbols, sizes, strict=True))
    return substitute(_elements(kernel.body), known)


def _elements(block: Block) -> Dim:
    total: Dim = 0
    for op in block.ops:
        for value in op.results:
            if isinstance(value.type, Tile):
                total = total + product(value.type.shape)
        for inner in op.blocks:
            total = total + _elements(inner)
    return total


def _double(number: float) -> str:
    """A constant of LLVM's type double, exactly."""
    return f"0x{struct.pack('>d', number).hex().upper()}"
