"""How a host function runs: what is native, what is torch's, and where tensors lie.

Launches that follow each other, and calls that torch has a C function for, form a
*segment*: one native function, called once. Everything between them is a step of its
own. Memory is made before the segment that needs it and let go after it:

    %y = alloc f32[64]                       Make(%y)
    launch @f (%x, %y) grid 4                Segment(launch @f, launch @g)
    %v = view(%x)                     →      Drop(%x, %y)
    %z = alloc f32[64]                       %r = extern "aten.sort.stable"(%z)
    launch @g (%y, %v, %z) grid 4
    %r = extern "aten.sort.stable"(%z)

(%z is made and %v resolved before the segment too.) The numbers that segments read
form a *frame* of 64-bit slots: the address of the arena block, what op is under way,
then addresses of torch tensors and sizes. A tensor that only kernels touch needs no
slot of its own: it lies in the arena, or is a view, some bytes into another; the flags
of checks, which begin as zeros, are slots themselves, or lie *apart*, where a device
can write to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fusec.ir.core import Function, Op, Value
from fusec.ir.dims import Symbol, exact_div, product
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.checks import Raise
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.elementwise import Elementwise
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.host import Alloc, Free, Launch
from fusec.ir.ops.loop import View
from fusec.ir.types import Opaque, Tensor
from fusec.runtime.recipe import (
    ALIGNMENT,
    BASE_SLOT,
    CACHE_LINE,
    FIRST_SLOT,
    FLAGS_SLOT,
    FRAME,
    VECTOR,
    WORD,
    Place,
)

LONGEST = 32
"""Ops of a segment: Python looks for Ctrl-C, and frees tensors, between segments."""


@dataclass(frozen=True, slots=True)
class ArenaPlan:
    """Byte offsets of the tensors in the arena, and its size."""

    offsets: Mapping[Value, int]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Make:
    """Memory for a tensor that torch owns."""

    value: Value


@dataclass(frozen=True, slots=True)
class Drop:
    """Tensors that no later step needs."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Ops that one native function runs: launches, and calls in torch's C interface."""

    name: str
    ops: tuple[Launch | Extern, ...]


Step = Op | Segment | Make | Drop


@dataclass(frozen=True, slots=True, eq=False)
class HostPlan:
    """A host function in the order it runs."""

    function: Function
    steps: tuple[Step, ...]
    arena: ArenaPlan
    places: Mapping[Value, Place]
    """Of every tensor that segments touch."""
    slots: Mapping[Value | Symbol, int]
    """Of the torch tensors and the sizes that segments read, and the first of those
    that hold the flags of checks."""
    frame_size: int
    """Slots of a frame."""
    apart: int
    """Words of flags that lie apart; there is their first one counted."""

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(step for step in self.steps if isinstance(step, Segment))


def nothing_native(op: Extern) -> bool:
    """The externs that segments hold where torch's C interface is not used."""
    return False


def plan_host(
    function: Function,
    native: Callable[[Extern], bool] = nothing_native,
    apart: bool = False,
) -> HostPlan:
    """Divide a host function into segments; `native` externs may be inside them, and
    flags lie `apart` from the frame."""
    return _Planner(function, native, apart).run()


@dataclass(slots=True)
class _Planner:
    """One sweep over a host function. Only launches and native externs wait: what else
    is emitted meanwhile runs before them, what dies meanwhile is dropped after them."""

    function: Function
    native: Callable[[Extern], bool]
    apart: bool
    steps: list[Step] = field(default_factory=list[Step])
    waiting: list[Launch | Extern] = field(default_factory=list["Launch | Extern"])
    dying: list[Value] = field(default_factory=list[Value])
    segments: int = 0
    flags: dict[Value, int] = field(init=False)
    """What begins as zeros, with the number of its words."""

    def __post_init__(self) -> None:
        allocs = [op for op in self.function.body.ops if isinstance(op, Alloc)]
        self.flags = {op.result: _words(op.type) for op in allocs if op.zeroed}

    def run(self) -> HostPlan:
        ops = self.function.body.ops
        owned = self.tensors()
        unit = CACHE_LINE if self.apart else ALIGNMENT
        arena = plan_arena(self.function, owned, self.is_native, unit)
        dead = self.last_uses(owned)
        for op in ops:
            self.place(op, owned, arena)
            self.dying += dead.get(op, ())
            if len(self.waiting) in (0, LONGEST):
                self.flush()
        self.flush()
        while self.steps and isinstance(self.steps[-1], Drop):
            self.steps.pop()  # the frame goes anyway
        slots, places, size = self.addresses(arena)
        apart = sum(self.flags.values()) if self.apart else 0
        return HostPlan(
            self.function, tuple(self.steps), arena, places, slots, size, apart
        )

    def place(self, op: Op, owned: set[Value], arena: ArenaPlan) -> None:
        """Make one op part of a segment, or a step, or nothing."""
        if isinstance(op, (Launch, Extern)) and self.is_native(op):
            made = [v for v in op.results if v not in arena.offsets]
            self.steps += [Make(value) for value in made]
            self.waiting.append(op)
        elif isinstance(op, Alloc):
            if op.result not in arena.offsets and op.result not in self.flags:
                self.steps.append(Make(op.result))
        elif isinstance(op, View):
            if op.result in owned:
                self.steps.append(op)
        elif isinstance(op, (Const, SizeOf, Cast, Elementwise)):
            self.steps.append(op)
        elif not isinstance(op, Free):
            self.flush()
            self.steps.append(op)

    def flush(self) -> None:
        """Close the segment."""
        if self.waiting:
            name = f"host.segment_{self.segments}"
            self.steps.append(Segment(name, tuple(self.waiting)))
            self.segments += 1
            self.waiting = []
        if self.dying:
            self.steps.append(Drop(tuple(self.dying)))
            self.dying = []

    def is_native(self, op: Op) -> bool:
        return isinstance(op, Launch) or (isinstance(op, Extern) and self.native(op))

    def tensors(self) -> set[Value]:
        """The values that have to be torch tensors, as Python code reads them."""
        needed = set(self.function.body.yields)
        for op in reversed(self.function.body.ops):
            if isinstance(op, View):
                if op.result in needed:
                    needed.add(op.x)
            elif not isinstance(op, (Free, Raise)) and not self.is_native(op):
                needed.update(op.operands)
        return needed

    def last_uses(self, owned: set[Value]) -> dict[Op, list[Value]]:
        """The tensors after whose last use each op is, uses through views counted."""
        root: dict[Value, Value] = {}
        last: dict[Value, Op] = {}
        for op in self.function.body.ops:
            for value in op.operands:
                last[value] = last[root.get(value, value)] = op
            if isinstance(op, View):
                source: Value = op.x
                root[op.result] = root.get(source, source)
            last.update((value, op) for value in op.results)
        dead: dict[Op, list[Value]] = {}
        for value, op in last.items():
            held = value in owned or (value not in root and value not in self.flags)
            kept = value in self.function.body.yields
            if held and not kept and isinstance(value.type, (Tensor, Opaque)):
                dead.setdefault(op, []).append(value)
        return dead

    def addresses(
        self, arena: ArenaPlan
    ) -> tuple[dict[Value | Symbol, int], dict[Value, Place], int]:
        """Slots for what segments read, the place of every tensor there, and how many
        slots there are."""
        slots: dict[Value | Symbol, int] = {}
        size = 0 if self.apart else FIRST_SLOT
        for value, count in self.flags.items():
            slots[value] = size
            size += count
        size = FIRST_SLOT if self.apart else size
        held = len(slots)
        flags = FLAGS_SLOT if self.apart else FRAME
        views = {op.result: op for op in self.function.body.ops if isinstance(op, View)}

        def find(value: Value) -> Place:
            if value in arena.offsets:
                return Place(BASE_SLOT, arena.offsets[value])
            if value in self.flags:
                return Place(flags, slots[value] * WORD)
            if value not in views:
                return Place(slots.setdefault(value, size + len(slots) - held), 0)
            view = views[value]
            base = find(view.x)
            width = view.type.dtype.itembytes
            return Place(base.slot, base.offset + view.offset * width)

        waiting = [op for s in self.steps if isinstance(s, Segment) for op in s.ops]
        values = [value for op in waiting for value in (*op.operands, *op.results)]
        places = {value: find(value) for value in values}
        for symbol in self.function.symbols:
            slots[symbol] = size + len(slots) - held
        return slots, places, size + len(slots) - held


def aligned(plan: HostPlan) -> dict[str, tuple[bool, ...]]:
    """Of each kernel which buffers begin at multiples of `VECTOR` bytes in all of its
    launches, if arguments and what torch makes do."""
    found: dict[str, list[bool]] = {}
    launches = [op for s in plan.segments for op in s.ops if isinstance(op, Launch)]
    for op in launches:
        offsets = (plan.places[value].offset for value in op.arguments)
        whole = [exact_div(offset, VECTOR) is not None for offset in offsets]
        before = found.setdefault(op.kernel, whole)
        found[op.kernel] = [a and b for a, b in zip(before, whole, strict=True)]
    return {name: tuple(whole) for name, whole in found.items()}


def plan_arena(
    function: Function,
    owned: Iterable[Value],
    native: Callable[[Op], bool],
    unit: int = ALIGNMENT,
) -> ArenaPlan:
    """Place what torch need not own and whose size is known, at multiples of `unit`
    bytes.

    Offsets are shared by what never lives together. Greedy by lifetime: a tensor takes
    the lowest gap that fits among those alive, and gives it back at its `free`.
    """
    owned = set(owned)
    offsets: dict[Value, int] = {}
    alive: dict[Value, tuple[int, int]] = {}
    top = 0
    for op in function.body.ops:
        for value in _memory(op, native):
            size = None if value in owned else _bytes(value.type, unit)
            if size is None:
                continue
            start = _lowest_gap(list(alive.values()), size)
            offsets[value] = start
            alive[value] = start, start + size
            top = max(top, start + size)
        if isinstance(op, Free):
            alive.pop(op.x, None)
    return ArenaPlan(offsets, top)


def _memory(op: Op, native: Callable[[Op], bool]) -> Sequence[Value]:
    """The tensors that need memory for an op to run."""
    if isinstance(op, Alloc):
        return () if op.zeroed else op.results
    return op.results if native(op) else ()


def _words(type_: object) -> int:
    """The slots that a tensor of flags takes."""
    assert isinstance(type_, Tensor)
    count = product(type_.shape)
    assert isinstance(count, int)
    assert type_.dtype.itembytes == WORD
    return count


def _bytes(type_: object, unit: int) -> int | None:
    """Whole units that a tensor takes; None where sizes are symbolic."""
    if not isinstance(type_, Tensor) or type_.strides is not None:
        return None
    count = product(type_.shape)
    if not isinstance(count, int):
        return None
    return -(-count * type_.dtype.itembytes // unit) * unit


def _lowest_gap(taken: list[tuple[int, int]], size: int) -> int:
    start = 0
    for first, last in sorted(taken):
        if first - start >= size:
            return start
        start = max(start, last)
    return start
