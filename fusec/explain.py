"""What a compiled graph runs, what that costs by the cost model, what did not fuse.

    kernel fused_sum_exp_0: predicted 12.3 µs, 88% of the roofline
      softmax.py:4  return torch.softmax(x * w, -1)
        mul max sub exp sum div
      moves 256.0 KiB in, 256.0 KiB out; 2.1 Mop; bound by memory
      grid i:64 = 64 programs
      tile j:1000 = 16:time 4:reg 16:lane
    not fused
      sum at norm.py:7 (fused_sum_1) into mul at norm.py:8 (fused_mul_2): they reduce
      over different axes

A roofline is what the memory or the arithmetic units alone would take, whichever is
longer; every figure is the target's, none was measured, but for what tuning found out
(with `--option tune=1`).
"""

from __future__ import annotations

import linecache
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fusec.analysis.accesses import accesses
from fusec.analysis.choices import product_seconds
from fusec.analysis.contraction import contraction
from fusec.analysis.cost import Work, bandwidth, seconds
from fusec.analysis.fingerprint import Fingerprints
from fusec.analysis.fusion import Fusion
from fusec.analysis.library import as_call
from fusec.analysis.regions import called
from fusec.errors import Loc, Unsupported
from fusec.ir.core import Block, Function, Op, Value, uses, walk
from fusec.ir.dims import Symbol
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import Load, Region, Store, View
from fusec.logs import counted, sized
from fusec.passes.journey import Journey
from fusec.runtime.ahead import Binary, Failure, Resources
from fusec.target import Target

NO_BINARIES: Mapping[str, Binary | Failure] = MappingProxyType({})
_SILENT = (Load, Store, Const, SizeOf)


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of the user's and the ops that it became, in order."""

    place: str
    text: str
    ops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KernelReport:
    """A kernel and one of its launches. Bytes, seconds; all predicted."""

    name: str
    launches: int
    lines: tuple[SourceLine, ...]
    copies: tuple[str, ...]
    """Why it stores elements as it read them, if it does: each reason once."""
    bytes_read: int
    bytes_written: int
    operations: float
    seconds: float
    roofline: float
    bound: str
    """What the roofline is that of: memory or arithmetic."""
    grid: str
    tile: str
    call: float | None
    """What torch's library is predicted to take for the same, where it could do it."""
    tuned: float | None = None
    """How many times as fast as by the default schedule it was measured to be, where
    that was measured; 1 where the default is the fastest."""
    resources: Resources | None = None
    """What its code takes of a GPU's multiprocessor."""
    occupancy: float | None = None
    """The share of the threads that can be there at a time with that."""
    failure: str = ""
    """Why there is no such code."""


@dataclass(frozen=True, slots=True)
class ExternReport:
    """A call to torch. `why` is empty where torch's kernel is the one to use."""

    target: str
    place: str
    why: str


@dataclass(frozen=True, slots=True)
class RefusalReport:
    """Two neighbours that run apart, and the kernels that they became, where these can
    be told."""

    producer: str
    consumer: str
    reason: str
    kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All there is to tell of one graph."""

    graph: str
    target: str
    seconds: float
    """Of all kernels; calls to torch are not predicted."""
    kernels: tuple[KernelReport, ...]
    externs: tuple[ExternReport, ...]
    refusals: tuple[RefusalReport, ...]
    kept: int
    """Bytes that are made once, of frozen parameters, and kept."""
    together: tuple[tuple[str, ...], ...] = ()
    """Kernels whose launches became one."""

    @property
    def data(self) -> dict[str, Any]:
        """The same as dictionaries, lists and numbers."""
        return asdict(self)

    def __str__(self) -> str:
        launches = sum(kernel.launches for kernel in self.kernels)
        launches -= sum(len(names) - 1 for names in self.together)
        predicted = f", predicted {_time(self.seconds)}" if launches else ""
        lines = [
            f"{self.graph} for {self.target}: {counted(launches, 'launch', 'launches')}"
            f" of {counted(len(self.kernels), 'kernel')}{predicted};"
            f" {counted(len(self.externs), 'call')} to torch"
        ]
        if self.kept:
            lines[0] += f"; {sized(self.kept)} kept of frozen parameters"
        for kernel in self.kernels:
            lines += ["", *_kernel_lines(kernel)]
        lines += _section("calls to torch", map(_extern_line, self.externs))
        lines += _section("launched together", map(", ".join, self.together))
        lines += _section("not fused", map(_refusal_line, self.refusals))
        return "\n".join(lines)


def explain(
    journey: Journey,
    hints: Mapping[Symbol, int],
    fallbacks: Sequence[Unsupported] = (),
    binaries: Mapping[str, Binary | Failure] = NO_BINARIES,
) -> Report:
    """The report of a graph. `hints` are the sizes to predict for, `binaries` what came
    of compiling its kernels for a GPU."""
    fusion = Fusion(journey.loops, journey.target, hints)
    launched: dict[str, list[int]] = {}
    fingerprints = Fingerprints(journey.loops.facts, hints)
    names = {
        fingerprints.of(kernel.region.body).key: name
        for name, kernel in journey.lowered.kernels.items()
    }
    for k, op in enumerate(journey.loops.body.ops):
        if isinstance(op, Region):
            name = names.get(fingerprints.of(op.body).key)
            if name is not None:
                launched.setdefault(name, []).append(k)
    readers = uses(journey.loops.body)
    kernels = tuple(
        _compiled(
            _kernel(journey, fusion, name, places, readers),
            binaries.get(name),
            journey.target,
        )
        for name, places in launched.items()
    )
    order = {k: name for name, places in launched.items() for k in places}
    saved = journey.joined.saved * journey.target.launch
    return Report(
        journey.graph.name,
        journey.target.name,
        sum(kernel.seconds * kernel.launches for kernel in kernels) - saved,
        kernels,
        _externs(journey, hints, fallbacks),
        _refusals(journey, [order[k] for k in sorted(order)]),
        journey.kept_bytes,
        journey.joined.together,
    )


def _refusals(journey: Journey, kernels: Sequence[str]) -> tuple[RefusalReport, ...]:
    """`kernels` are the names of all launches, in order; they are known to be the
    groups of fusion where no later pass dropped a region or made one."""
    stages = journey.functions["fused"], journey.functions["recomputed"]
    counts = {sum(isinstance(op, Region) for op in f.body.ops) for f in stages}
    same = counts == {len(kernels)}
    return tuple(
        RefusalReport(
            _near(r.producer),
            _near(r.consumer),
            _near(r.reason),
            tuple(kernels[k] for k in r.regions) if same else (),
        )
        for r in journey.refusals
    )


def _calls(journey: Journey, hints: Mapping[Symbol, int]) -> dict[tuple[str, str], str]:
    """Why products of matrices are calls."""
    found: dict[tuple[str, str], str] = {}
    function, target = journey.functions["recomputed"], journey.target
    for op in function.body.ops if target.library else ():
        if not isinstance(op, Region):
            continue
        call = as_call(op, function.facts, target, hints)
        if call is not None and call.theirs < call.ours:
            times = f"{_time(call.theirs)}, {_time(call.ours)} as a kernel"
            found[call.target, str(op.loc)] = f"predicted {times}"
    return found


def _externs(
    journey: Journey, hints: Mapping[Symbol, int], fallbacks: Sequence[Unsupported]
) -> tuple[ExternReport, ...]:
    why = {(each.what, str(each.where)): each.reason for each in fallbacks}
    why |= _calls(journey, hints)
    externs = [op for op in journey.loops.body.ops if isinstance(op, Extern)]
    return tuple(
        ExternReport(op.target, _place(op.loc), why.get((op.target, str(op.loc)), ""))
        for op in externs
    )


def _kernel(
    journey: Journey,
    fusion: Fusion,
    name: str,
    places: Sequence[int],
    readers: Mapping[Value, Sequence[Op]],
) -> KernelReport:
    kernel = journey.lowered.kernels[name]
    work = fusion.prices.work(fusion.group_of[places[0]])
    roofline, bound = _roofline(work, journey.target)
    grid, tile = kernel.schedule.grid_text, kernel.schedule.tile_text
    region, target, hints = kernel.region, journey.target, journey.setting.hints
    call = as_call(region, journey.loops.facts, target, hints)
    return KernelReport(
        name,
        len(places),
        _source_lines(kernel.region.body),
        _copies(journey.loops, places[0], readers),
        work.read,
        work.written,
        work.operations,
        _seconds(journey, region, work),
        roofline,
        bound,
        grid,
        tile,
        call.theirs if call else None,
        kernel.choice.gain if kernel.choice else None,
    )


def _compiled(
    report: KernelReport, outcome: Binary | Failure | None, target: Target
) -> KernelReport:
    """The report with what is known of the kernel's code."""
    if outcome is None:
        return report
    if isinstance(outcome, Failure):
        return replace(report, failure=outcome.what)
    taken = outcome.resources
    return replace(report, resources=taken, occupancy=taken.occupancy(target))


def _seconds(journey: Journey, region: Region, work: Work) -> float:
    """What a kernel takes; of products of matrices their cycles are counted."""
    target, found = journey.target, accesses(region)
    product, own = contraction(found), seconds(work, target)
    if product is None:
        return own
    return max(own, product_seconds(product, found, target, journey.setting.hints))


def _roofline(work: Work, target: Target) -> tuple[float, str]:
    """The least seconds on all cores, and what sets them."""
    moved = work.read + work.written
    memory = moved / bandwidth(moved, target.cores, target)
    rate = target.lanes(32) * target.vector_pipes * target.hertz * target.cores
    arithmetic = work.operations / rate
    return max((memory, "memory"), (arithmetic, "arithmetic"))


def _source_lines(body: Block) -> tuple[SourceLine, ...]:
    found: dict[tuple[str, int], list[str]] = {}
    texts: dict[tuple[str, int], str] = {}
    copies = set(_copying(body))
    for op, name in called(body):
        if op in copies or not isinstance(op, _SILENT):
            at = op.loc.file, op.loc.line
            found.setdefault(at, []).append("copy" if op in copies else name)
            texts.setdefault(at, op.loc.text or linecache.getline(*at))
    return tuple(
        SourceLine(_place(Loc(*at)), texts[at].strip(), tuple(names))
        for at, names in found.items()
    )


def _copying(body: Block) -> list[Store]:
    """The stores of elements as they were read."""
    loaded = {v for op in walk(body) if isinstance(op, Load) for v in op.results}
    return [op for op in walk(body) if isinstance(op, Store) and op.value in loaded]


def _copies(
    function: Function, place: int, readers: Mapping[Value, Sequence[Op]]
) -> tuple[str, ...]:
    """Why a region copies, as far as the tensors that it stores tell."""
    op = function.body.ops[place]
    assert isinstance(op, Region)
    outer = dict(zip(op.body.params, (*op.inputs, *op.results), strict=True))
    reasons: dict[str, None] = {}
    for store in _copying(op.body):
        value = outer[store.buffer]
        views = [r for r in readers.get(value, ()) if isinstance(r, View)]
        held = [value, *(view.result for view in views)]
        if not set(held).isdisjoint(function.body.yields):
            reasons["a result has to have memory of its own"] = None
        for reader in readers.get(value, ()):
            if isinstance(reader, Region) and value in reader.starts.values():
                reasons["an update overwrites it, and others read what it was"] = None
        for call in (r for v in held for r in readers.get(v, ())):
            if isinstance(call, Extern):
                reasons[f"{call.target} reads it from memory"] = None
    return tuple(reasons)


def _place(loc: Loc) -> str:
    return _near(str(loc)) if loc.file else "(no source line)"


def _near(text: str) -> str:
    """A text with the paths of files below where we are relative to that."""
    return text.replace(f"{Path.cwd()}/", "")


def _kernel_lines(kernel: KernelReport) -> list[str]:
    times = f" × {kernel.launches}" if kernel.launches > 1 else ""
    share = kernel.roofline / kernel.seconds
    lines = [
        f"kernel {kernel.name}{times}: predicted {_time(kernel.seconds)},"
        f" {share:.0%} of the roofline"
    ]
    for line in kernel.lines:
        lines.append(f"  {line.place}  {line.text}".rstrip())
        lines.append(f"    {' '.join(line.ops)}")
    lines += [f"  copy: {reason}" for reason in kernel.copies]
    lines.append(
        f"  moves {sized(kernel.bytes_read)} in, {sized(kernel.bytes_written)} out;"
        f" {_operations(kernel.operations)}; bound by {kernel.bound}"
    )
    lines.append(f"  grid {kernel.grid}")
    lines.append(f"  tile {kernel.tile}")
    if kernel.tuned is not None:
        gain = "nothing was faster than the default"
        won = f"{kernel.tuned:.2f}× the default"
        lines.append(f"  tuned: {won if kernel.tuned > 1 else gain}")
    if kernel.resources is not None and kernel.occupancy is not None:
        taken = kernel.resources
        spilled = f", {taken.spilled} B spilled" if taken.spilled else ""
        lines.append(
            f"  each of {taken.threads} threads takes"
            f" {counted(taken.registers, 'register')}{spilled}; together"
            f" {sized(taken.shared)} shared; occupancy {kernel.occupancy:.0%}"
        )
    if kernel.failure:
        lines.append(f"  not compiled: {kernel.failure.splitlines()[0]}")
    if kernel.call is not None:
        lines.append(f"  as a call to torch's library: predicted {_time(kernel.call)}")
    return lines


def _extern_line(extern: ExternReport) -> str:
    why = f": {extern.why}" if extern.why else ""
    return f"{extern.target} at {extern.place}{why}"


def _refusal_line(refusal: RefusalReport) -> str:
    pair = refusal.producer, refusal.consumer
    kernels = [f" ({name})" for name in refusal.kernels] or ["", ""]
    a, b = map("".join, zip(pair, kernels, strict=True))
    return f"{a} into {b}: {refusal.reason}"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    """Lines under a title, equal ones once."""
    counts = Counter(lines)
    found = [f"  {x} (× {n})" if n > 1 else f"  {x}" for x, n in counts.items()]
    return ["", title, *found] if found else []


def _time(seconds: float) -> str:
    if seconds < 1e-6:
        return f"{seconds * 1e9:.0f} ns"
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def _operations(count: float) -> str:
    """Three digits: `12 op`, `39.6 kop`, `143 Mop`."""
    for unit, size in (("Top", 1e12), ("Gop", 1e9), ("Mop", 1e6), ("kop", 1e3)):
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g} op" if count else "no arithmetic"
