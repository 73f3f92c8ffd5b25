"""Run the grids of small independent kernels one after the other in one launch.

    launch @f (%x, %y) grid 4               launch @joined_0 (%x, %y, %z, %w) grid 12
    launch @g (%z, %w) grid 8          →      part first=0 programs=4 { … of @f }
                                              part first=4 programs=8 { … of @g }

On a GPU a launch takes longer than what a small kernel does, whose programs leave most
cores idle. Kernels that are launched with nothing but memory between them, where none
touches what another one writes, become parts of one, if each takes less time by itself
than its launch and they are of like resources: as many warps, and no products, which
need shared memory. (A kernel has the registers of its greediest part.) A CPU's launches
are batched by its host code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fusec.analysis.accesses import accesses
from fusec.analysis.blocks import block_work
from fusec.analysis.cost import seconds
from fusec.analysis.schedule import Schedule
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level, Module, Op, Value, Values, walk
from fusec.ir.dims import Dim, Facts, Symbol
from fusec.ir.dtypes import i64
from fusec.ir.ops.host import Alloc, Free, Launch
from fusec.ir.ops.loop import View
from fusec.ir.ops.tile import Part, ProgramId, StoreTile
from fusec.ir.sizes import used_symbols
from fusec.ir.types import Scalar
from fusec.passes.lower_to_host import Kernel, Lowered
from fusec.passes.stripmine import stripmine
from fusec.target import Target

MOST = 16
"""Launches that become one: its code is as long as theirs together."""
WORDS = 480
"""What a launch passes at most: CUDA takes 4 KiB, some of which are hidden."""


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """A host function and the kernels that it launches, laid out."""

    host: Function
    kernels: Mapping[str, Function]
    schedules: Mapping[str, Schedule]
    parts: Mapping[str, tuple[str, ...]]
    """The kernels that each joined one runs, by name."""

    @property
    def module(self) -> Module:
        """All of it as one module, the host function first."""
        return Module((self.host, *self.kernels.values()))

    @property
    def together(self) -> tuple[tuple[str, ...], ...]:
        """The kernels that each launch of several starts."""
        launches = [op for op in self.host.body.ops if isinstance(op, Launch)]
        return tuple(
            self.parts[op.kernel] for op in launches if op.kernel in self.parts
        )

    @property
    def saved(self) -> int:
        """How many launches fewer there are."""
        return sum(len(names) - 1 for names in self.together)


def join_launches(
    lowered: Lowered,
    laid_out: Mapping[str, Function],
    target: Target,
    hints: Mapping[Symbol, int],
) -> Joined:
    """The program with fewer launches, on a GPU; on a CPU as it is."""
    schedules = {name: kernel.schedule for name, kernel in lowered.kernels.items()}
    if not target.is_gpu:
        return Joined(lowered.host, laid_out, schedules, {})
    return _Joining(lowered, laid_out, target, hints).run(schedules)


class _Joining:
    """The state of one sweep over a host function."""

    def __init__(
        self,
        lowered: Lowered,
        laid_out: Mapping[str, Function],
        target: Target,
        hints: Mapping[Symbol, int],
    ) -> None:
        self.host = lowered.host
        self.kernels = lowered.kernels
        self.laid_out = laid_out
        self.small = {
            name: is_small(kernel, target, hints)
            for name, kernel in lowered.kernels.items()
        }
        self.written = {name: _written(f) for name, f in laid_out.items()}
        self.builder = Builder(Level.HOST)
        self.env: dict[Value, Value] = {}
        self.base: dict[Value, Value] = {}
        """What a view is a view of."""
        self.waiting: list[Launch] = []
        """Launches that do not touch each other's results."""
        self.freed: list[Free] = []
        """What comes behind those."""
        self.made: dict[tuple[tuple[str, Dim], ...], Function] = {}

    def run(self, schedules: Mapping[str, Schedule]) -> Joined:
        for old in self.host.params:
            self.env[old] = self.builder.param(old.type, old.hint)
        for op in self.host.body.ops:
            self.visit(op)
        self.flush()
        yields = [self.env[v] for v in self.host.body.yields]
        host = self.builder.successor(self.host, yields)
        launched = {op.kernel for op in host.body.ops if isinstance(op, Launch)}
        parts = {f.name: tuple(n for n, _ in key) for key, f in self.made.items()}
        of_first = {name: schedules[first] for name, (first, *_) in parts.items()}
        kernels = {n: f for n, f in self.laid_out.items() if n in launched}
        kernels |= {function.name: function for function in self.made.values()}
        return Joined(host, kernels, {**schedules, **of_first}, parts)

    def visit(self, op: Op) -> None:
        if isinstance(op, Launch):
            if self.meets(op):
                self.flush()
            self.waiting.append(op)
        elif isinstance(op, Free) and self.waiting:
            self.freed.append(op)
        else:
            if not isinstance(op, (Alloc, View)):
                self.flush()
            elif isinstance(op, View):
                x: Value = op.x
                self.base[op.result] = self.base.get(x, x)
            self.copy(op)

    def copy(self, op: Op) -> None:
        new = self.builder.copy(op, self.env)
        self.env.update(zip(op.results, new, strict=True))

    def meets(self, op: Launch) -> bool:
        """Whether a launch writes what one that waits touches, or the other way."""
        read, written = self.touched(op)
        for other in self.waiting:
            theirs, made = self.touched(other)
            if written & (theirs | made) or read & made:
                return True
        return False

    def touched(self, op: Launch) -> tuple[set[Value], set[Value]]:
        """The memory that a launch reads or writes, and what it writes."""
        arguments: Values = op.arguments
        memory = [self.base.get(v, v) for v in arguments]
        return {*memory}, {memory[k] for k in self.written[op.kernel]}

    # Joining

    def flush(self) -> None:
        """Emit what waits: launches of one kind together."""
        kinds: dict[object, list[Launch]] = {}
        for op in self.waiting:
            kinds.setdefault(self.kind(op), []).append(op)
        for launches in kinds.values():
            for few in _in_reach(launches):
                self.launch(few)
        for op in self.freed:
            self.copy(op)
        self.waiting, self.freed = [], []

    def kind(self, op: Launch) -> object:
        """What launches have in common that may become one; itself, if none may."""
        own_sizes = op.sizes == self.laid_out[op.kernel].symbols
        if not own_sizes or not self.small[op.kernel]:
            return op
        return self.kernels[op.kernel].schedule.warps

    def launch(self, launches: Sequence[Launch]) -> None:
        if len(launches) == 1:
            self.copy(launches[0])
            return
        key = tuple((op.kernel, op.grid) for op in launches)
        if key not in self.made:
            first, *_ = key[0]
            prefix = "kept_" if first.startswith("kept_") else ""
            name = f"{prefix}joined_{len(self.made)}"
            self.made[key] = self.joined(name, key)
        function = self.made[key]
        operands = [self.env[v] for op in launches for v in op.arguments]
        grid: Dim = 0
        for _, programs in key:
            grid = grid + programs
        self.builder.loc = launches[0].loc
        self.builder.emit(Launch, operands, (function.name, grid, function.symbols))

    def joined(self, name: str, parts: Sequence[tuple[str, Dim]]) -> Function:
        b = Builder(Level.TILE)
        start: Dim = 0
        for kernel, programs in parts:
            function = stripmine(self.laid_out[kernel], peel=False)
            _append(b, function, start, programs)
            start = start + programs
        made = b.function(name)
        symbols = used_symbols(made.body)
        facts: Facts = self.host.facts.about(symbols)
        return b.function(name, symbols=symbols, facts=facts)


def _in_reach(launches: Sequence[Launch]) -> Iterator[list[Launch]]:
    """As many at a time as one launch can do."""
    few: list[Launch] = []
    words = 0
    for op in launches:
        own = len(op.arguments) + len(op.sizes)
        if few and (len(few) == MOST or words + own > WORDS):
            yield few
            few, words = [], 0
        few.append(op)
        words += own
    yield few


def _append(b: Builder, function: Function, first: Dim, programs: Dim) -> None:
    """One more part, with parameters of its own."""
    env = {p: b.param(p.type, p.hint) for p in function.params}
    inner = b.nested()
    number = inner.param(Scalar(i64), "pid")
    for op in function.body.ops:
        is_number = isinstance(op, ProgramId)
        new = (number,) if is_number else inner.copy(op, env)
        env.update(zip(op.results, new, strict=True))
    b.emit(Part, (), (first, programs), (inner.block(),))


def is_small(kernel: Kernel, target: Target, hints: Mapping[Symbol, int]) -> bool:
    """Whether a kernel takes less time than its launch, and no shared memory."""
    if kernel.schedule.dot is not None:
        return False
    work = block_work(accesses(kernel.region), kernel.schedule, hints)
    return seconds(work, target) < 2 * target.launch


def _written(function: Function) -> tuple[int, ...]:
    """The parameters that a kernel stores to."""
    stored = {op.buffer for op in _stores(function)}
    return tuple(k for k, p in enumerate(function.params) if p in stored)


def _stores(function: Function) -> Iterator[StoreTile]:
    return (op for op in walk(function.body) if isinstance(op, StoreTile))
