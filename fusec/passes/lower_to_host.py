"""Loop level → host level: regions become kernels, tensors become memory.

    %y = region(%x) { … }              %y = alloc f32[4096, 1000]
    %z = extern "aten.mm.default"  →   launch @fused_exp_0 (%x, %y) grid 4096
    yield %z                           %z = extern "aten.mm.default" …
                                       free %y

Regions that are the same but for names share one kernel. A result that replaces a
parameter is written in its place, where the region is the last to read the parameter
and reads each element where it writes it; else it is copied when all has been read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fusec.analysis.accesses import accesses
from fusec.analysis.candidates import DEFAULT, Choice, Choices, chosen, no_choices
from fusec.analysis.choices import choose
from fusec.analysis.descriptors import UNIT, scratch_at
from fusec.analysis.fingerprint import Fingerprint, Fingerprints
from fusec.analysis.in_place import replaced_in_place, taken_over
from fusec.analysis.regions import called
from fusec.analysis.schedule import Schedule
from fusec.errors import UserError
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level, Module, Value
from fusec.ir.dims import Dim, Symbol, product, substitute
from fusec.ir.dtypes import i64, u8
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.checks import Raise
from fusec.ir.ops.elementwise import Elementwise
from fusec.ir.ops.host import Alloc, CopyInto, Free, Launch
from fusec.ir.ops.loop import Region, Update, View
from fusec.ir.ops.reduction import Reduce, Scan
from fusec.ir.types import Buffer, Tensor
from fusec.passes.freeze import KEPT
from fusec.passes.tile import checks, tile, unpassed
from fusec.target import Target


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """One distinct region, tiled, with the schedule it was tiled by."""

    region: Region
    function: Function
    """The kernel before layouts: what a backend with its own registers takes."""
    schedule: Schedule
    fingerprint: Fingerprint
    choice: Choice | None = None
    """What was measured, where the schedule was chosen by that."""

    @property
    def checks(self) -> tuple[tuple[str, str], ...]:
        """What its flags stand for: messages and errors. The buffer of flags comes
        behind all that the region reads and writes."""
        return checks(self.region)

    @property
    def scratch(self) -> Dim:
        """Bytes of memory that all programs make tensor descriptors in. It is the last
        parameter, if there is any."""
        place = scratch_at(self.function)
        if place is None:
            return 0
        type_ = self.function.params[place].type
        assert isinstance(type_, Buffer)
        return product(type_.layout.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """A host function and the kernels that it launches, by name."""

    host: Function
    kernels: Mapping[str, Kernel]

    @property
    def module(self) -> Module:
        """All of it as one module, the host function first."""
        return Module((self.host, *(k.function for k in self.kernels.values())))


def lower_to_host(
    function: Function,
    target: Target,
    hints: Mapping[Symbol, int],
    choices: Choices = no_choices,
) -> Lowered:
    """The program of a loop function; `choices` say which schedules were measured to be
    the best."""
    return _Lowering(function, target, hints, choices).run()


class _Lowering:
    """The state of one sweep over a loop function."""

    def __init__(
        self,
        function: Function,
        target: Target,
        hints: Mapping[Symbol, int],
        choices: Choices,
    ) -> None:
        self.function = function
        self.target = target
        self.hints = hints
        self.choices = choices
        self.builder = Builder(Level.HOST)
        self.env: dict[Value, Value] = {}
        self.kernels: dict[str, Kernel] = {}
        self.fingerprints = Fingerprints(function.facts, hints)
        self.named: dict[Any, str] = {}
        """The kernel of each fingerprint."""
        self.taken = taken_over(function)
        """The tensor whose memory each updated result has."""
        self.escaping = _escaping(function, self.taken)
        self.last_use = _last_uses(function)
        self.held = _held(function)
        has_descriptors = target.has("descriptors")
        self.shifted = _shifted(function) if has_descriptors else set[Value]()
        views = (op.result for op in function.body.ops if isinstance(op, View))
        self.replacing = {**replaced_in_place(function), **self.updated_in_place()}
        self.borrowed = {*function.params, *views, *self.replacing}
        """Memory that is not the function's own."""

    def run(self) -> Lowered:
        for old in self.function.params:
            self.env[old] = self.builder.param(old.type, old.hint)
        self.reserve_flags()
        for k, op in enumerate(self.function.body.ops):
            self.builder.loc = op.loc
            if isinstance(op, Region):
                self.launch(op)
            else:
                new = self.builder.copy(op, self.env)
                self.env.update(zip(op.results, new, strict=True))
            self.free(self.last_use.get(k, ()))
        if self.checks:
            attrs = tuple(zip(*self.checks, strict=True))
            self.builder.emit(Raise, (self.flags,), attrs)
        self.write_back()
        yields = [self.env[v] for v in self.function.body.yields]
        return Lowered(self.builder.successor(self.function, yields), self.kernels)

    def updated_in_place(self) -> dict[Value, Value]:
        """For each result that is updated in the memory of a parameter, that."""
        found: dict[Value, Value] = {}
        for value, start in reversed(self.taken.items()):
            start = found.get(start, start)
            if start in self.function.params:
                found[value] = start
        return found

    def launch(self, op: Region) -> None:
        """Allocate what a region makes and launch its kernel."""
        for value in op.results:
            held = self.replacing.get(value, self.taken.get(value))
            if held is not None:
                self.env[value] = self.env[held]
                continue
            attrs = (value.type, value in self.escaping, False)
            (made,) = self.builder.emit(Alloc, (), attrs, (), None, (value.hint,))
            self.env[value] = made
        self.require_taken(op)
        if all(0 in value.shape for value in op.results):
            return
        name = self.kernel(op)
        kernel = self.kernels[name]
        begun, outer = unpassed(op), (*op.inputs, *op.results)
        pairs = zip(op.body.params, outer, strict=True)
        operands = [self.env[v] for param, v in pairs if param not in begun]
        if kernel.checks:
            operands.append(self.next_flags(kernel))
        here = self.sizes(op, kernel)
        scratch = substitute(kernel.scratch, here)
        if scratch != 0:
            type_ = Tensor(u8, (scratch,))
            operands.append(self.builder(Alloc, type=type_, escapes=False))
        sizes = tuple(here[symbol] for symbol in kernel.function.symbols)
        programs = substitute(kernel.schedule.programs, here)
        self.builder.emit(Launch, operands, (name, programs, sizes))
        if scratch != 0:
            self.builder.emit(Free, operands[-1:])

    def require_taken(self, op: Region) -> None:
        """Raise `UserError` for an updated result that would need a copy."""
        for value in op.starts:
            if value not in self.taken:
                raise UserError(
                    f"{value} is updated, and what it begins as is read again",
                    fix="run the pass copy_updated before",
                )

    def sizes(self, op: Region, kernel: Kernel) -> Mapping[Symbol, Dim]:
        """What the symbols of a kernel are in one region that it serves."""
        regions = (kernel.region, op)
        theirs, ours = (self.fingerprints.of(each.body).symbols for each in regions)
        return dict(zip(theirs, ours, strict=True))

    def reserve_flags(self) -> None:
        """One flag for every check of every launch, in their order."""
        regions = (op for op in self.function.body.ops if isinstance(op, Region))
        count = sum(len(checks(op)) for op in regions)
        self.checks: list[tuple[str, str]] = []
        if count:
            self.flags = self.builder(
                Alloc, type=Tensor(i64, (count,)), escapes=True, zeroed=True
            )

    def next_flags(self, kernel: Kernel) -> Value:
        """The flags of the next launch."""
        type_ = Tensor(i64, (len(kernel.checks),))
        place = len(self.checks)
        where = f" ({self.builder.loc})" if self.builder.loc.file else ""
        self.checks += [(text + where, error) for text, error in kernel.checks]
        return self.builder(View, self.flags, type=type_, offset=place)

    def kernel(self, op: Region) -> str:
        """The name of the kernel of a region, made at its first appearance."""
        fingerprint = self.fingerprints.of(op.body)
        anywhere = not self.shifted.isdisjoint(op.inputs)
        key = fingerprint.key, anywhere
        if key not in self.named:
            prefix = "kept_" if self.function.name.endswith(KEPT) else ""
            name = f"{prefix}{_title(op)}_{len(self.kernels)}"
            self.kernels[name] = self.made(op, name, fingerprint, anywhere)
            self.named[key] = name
        return self.named[key]

    def made(
        self, op: Region, name: str, fingerprint: Fingerprint, anywhere: bool
    ) -> Kernel:
        """A kernel by the schedule that was measured to be the best, or the default.
        Descriptors do not tell of what begins `anywhere`."""
        found, choice = accesses(op), None
        if self.choices is not no_choices:  # the text of a large region takes a while
            choice = self.choices(fingerprint.text)
        schedule = chosen(choice, found, self.target, self.hints)
        if schedule is None:
            schedule = choose(found, self.target, self.hints)
            choice = choice if choice and choice.schedule == DEFAULT else None
        if anywhere:
            schedule = replace(schedule, descriptors=False)
        function = tile(found, schedule, name, self.function.facts)
        return Kernel(op, function, schedule, fingerprint, choice)

    def free(self, values: Iterable[Value]) -> None:
        """Let go of tensors that nobody reads any more."""
        for value in values:
            if value in self.taken.values():
                continue
            if value not in self.held and value not in self.borrowed:
                self.builder.emit(Free, (self.env[value],))

    def write_back(self) -> None:
        """Copy results into the parameters that they replace."""
        pairs = zip(self.function.body.yields, self.function.returns_into, strict=False)
        for value, position in pairs:
            if position is not None and value not in self.replacing:
                target = self.env[self.function.params[position]]
                self.builder.emit(CopyInto, (self.env[value], target))


def _held(function: Function) -> set[Value]:
    """What must still be there when the call ends."""
    replaced = [p for p in function.returns_into if p is not None]
    held = {*function.body.yields, *(function.params[p] for p in replaced)}
    for op in reversed(function.body.ops):
        if isinstance(op, View) and op.result in held:
            held.add(op.x)
    return held


def _shifted(function: Function) -> set[Value]:
    """Views that may begin elsewhere than where descriptors want matrices to."""
    found: set[Value] = set()
    for op in function.body.ops:
        if isinstance(op, View):
            bits = op.offset * op.type.dtype.bits
            if op.x in found or not function.facts.divides(8 * UNIT, bits):
                found.add(op.result)
    return found


def _escaping(function: Function, taken: Mapping[Value, Value]) -> set[Value]:
    """Values whose memory somebody may hold when the call is over."""
    escaping = set(function.body.yields)
    for op in reversed(function.body.ops):
        if not isinstance(op, Region):
            # An extern may return its operand, and a view needs a tensor to view.
            escaping.update(op.operands)
        escaping.update(taken[v] for v in op.results if v in taken and v in escaping)
    return escaping


def _last_uses(function: Function) -> dict[int, list[Value]]:
    """The values that each op is the last to use, their views' uses counted."""
    base: dict[Value, Value] = {}
    last: dict[Value, int] = {}
    for k, op in enumerate(function.body.ops):
        for value in op.operands:
            last[base.get(value, value)] = k
        if isinstance(op, View):
            x: Value = op.x
            base[op.result] = base.get(x, x)
        for value in op.results:
            last.setdefault(base.get(value, value), k)
    uses: dict[int, list[Value]] = {}
    for value, k in last.items():
        if isinstance(value.type, Tensor):
            uses.setdefault(k, []).append(value)
    return uses


def _title(op: Region) -> str:
    """A name for a kernel from what it does, the weightiest ops first."""
    kinds = Reduce, Scan, Elementwise, Cast, Update
    computing = (name for op, name in called(op.body) if isinstance(op, kinds))
    names = dict.fromkeys(computing)
    plain = {"cast", "add", "mul", "sub", "select", "lt", "ge", "and"}
    chosen = [n for n in names if n not in plain] or list(names)
    return "_".join(["fused", *chosen[:4]]) if chosen else "copy"
