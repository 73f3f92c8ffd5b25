"""The host code of programs for a GPU: launches by its driver, on one stream.

    launch @f (%x, %y) grid s0
        →
    args[0], args[1] = %x, %y            params[0], params[1] = &args[0], &args[1]
    %status = call i32 %launch(ptr %f, i32 %grid, 1, 1, i32 %threads, 1, 1,
                               i32 %shared, ptr %stream, ptr %params, null)

A segment takes, where one on a CPU takes a number of threads, the address of a table
that `runtime.launcher_gpu` fills: the stream; the driver's functions that launch and
that make a context current; then of each kernel its function, its threads and its bytes
of shared memory. A kernel that makes tensor descriptors is told twice where: as one of
its arguments, and behind them, where Triton wants it. Launches of one stream run in
their order, so none has to wait for others. The context of the device is current
meanwhile, whatever is so in the thread that calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fusec.analysis.descriptors import scratch_at
from fusec.codegen.llvm_host import SegmentText
from fusec.codegen.llvm_text import module
from fusec.ir.core import Function
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.host import Launch
from fusec.runtime.plan import HostPlan, Segment
from fusec.runtime.recipe import (
    CONTEXT_WORD,
    ENTER_WORD,
    HIDDEN,
    KERNEL_WORDS,
    LAUNCH_WORD,
    LEAVE_WORD,
    MOST_PROGRAMS,
    STATUS_SLOT,
    STREAM_WORD,
    TABLE,
    hidden,
)
from fusec.target import Target


def emit_gpu_host(
    plan: HostPlan, kernels: Mapping[str, Function], target: Target
) -> str:
    """The module of all segments, for the processor `target`; the table has the rows of
    `kernels` in their order."""
    order = {name: k for k, name in enumerate(kernels)}
    segments = (_GpuSegment(plan, s, kernels, target, order) for s in plan.segments)
    return module([segment.emit() for segment in segments])


class _GpuSegment(SegmentText):
    """The state of emitting one segment."""

    def __init__(
        self,
        plan: HostPlan,
        segment: Segment,
        kernels: Mapping[str, Function],
        target: Target,
        order: Mapping[str, int],
    ) -> None:
        super().__init__(plan, segment, kernels, target)
        self.order = order

    def begin(self) -> None:
        """Make the context of the device current."""
        self.store(1, "%frame", STATUS_SLOT)
        context = f"ptr {self.pointer(self.word(CONTEXT_WORD))}"
        enter, leave = (self.pointer(self.word(k)) for k in (ENTER_WORD, LEAVE_WORD))
        self.leave = f"call i32 {leave}(ptr {self.at(0)})"
        self.check(self.writer.read(f"call i32 {enter}({context})", "status"))

    def end(self) -> None:
        """Make the one before it current again."""
        self.writer.effect(self.leave)

    def rounds(self) -> Iterator[tuple[int, Sequence[Launch | Extern]]]:
        """Every op by itself, as the stream has them one after the other."""
        for number, op in enumerate(self.segment.ops, start=1):
            yield number, (op,)

    def room(self, ops: Sequence[Launch | Extern]) -> int:
        """Two words for each argument: itself, and where it is."""
        (op,) = ops
        assert isinstance(op, Launch)
        return 2 * (len(op.operands) + len(op.sizes) + HIDDEN)

    def launch(self, op: Launch) -> None:
        """Have the driver start a kernel, if it has any programs to run."""
        w, programs = self.writer, self.index(op.grid)
        if isinstance(op.grid, int):
            self.check(self.start(op, programs), [self.leave])
            return
        arm = w.open_arm(self.lanes.test("icmp sgt", "i64", programs, "0"), "launch")
        status = self.start(op, programs)
        (status,) = w.close_arm(arm, [("i32", status, "0")])
        self.check(status, [self.leave])

    def start(self, op: Launch, programs: str) -> str:
        """The status that the driver gives."""
        w = self.writer
        if not isinstance(op.grid, int) or op.grid > MOST_PROGRAMS:
            many = self.lanes.test("icmp ugt", "i64", programs, str(MOST_PROGRAMS))
            programs = self.lanes.select("i64", many, "0", programs)  # the driver fails
        values = [self.address(value) for value in op.arguments]
        memory = hidden(scratch_at(self.kernels[op.kernel]), values)
        values += [self.index(size) for size in op.sizes]
        values += map(str, memory)
        self.fill(0, values)
        places = [self.number_of(self.at(k)) for k in range(len(values))]
        params = self.fill(len(values), places)
        row = TABLE + KERNEL_WORDS * self.order[op.kernel]
        function, threads, shared = (self.word(row + k) for k in range(KERNEL_WORDS))
        grid = w.value(f"trunc i64 {programs} to i32", "grid")
        block = w.value(f"trunc i64 {threads} to i32", "threads")
        bytes_ = w.value(f"trunc i64 {shared} to i32", "shared")
        stream, launch = self.word(STREAM_WORD), self.word(LAUNCH_WORD)
        one = "i32 1, i32 1"
        arguments = (
            f"ptr {self.pointer(function)}, i32 {grid}, {one}, i32 {block}, {one},"
            f" i32 {bytes_}, ptr {self.pointer(stream)}, ptr {params}, ptr null"
        )
        return w.read(f"call i32 {self.pointer(launch)}({arguments})", "status")

    def word(self, k: int) -> str:
        """A word of the table."""
        table = self.pointer("%threads")
        at = self.writer.value(f"getelementptr i64, ptr {table}, i64 {k}", "entry")
        return self.writer.value(f"load i64, ptr {at}", "word")

    def pointer(self, number: str) -> str:
        return self.writer.value(f"inttoptr i64 {number} to ptr", "p")
