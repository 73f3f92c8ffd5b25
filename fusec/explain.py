"""What a compiled graph runs, what that costs by the cost model, what did not fuse.

    kernel fused_sum_exp_0                    predicted 12.3 µs, 88% of the roofline
      softmax.py:4  return torch.softmax(x * w, -1)
                    mul max sub exp sum div
      moves         256.0 KiB in, 256.0 KiB out; 2.1 Mop; bound by memory
      schedule      grid i:64 = 64 programs; tile j:1000 = 16:time 4:reg 16:lane
    not fused
      sum at norm.py:7 into mul at norm.py:8: they reduce over different axes

A roofline is what the memory or the arithmetic units alone would take, whichever is
longer; every figure is the target's, none was measured.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fusec.analysis.cost import Work, bandwidth, seconds
from fusec.analysis.fingerprint import Fingerprints
from fusec.analysis.fusion import Fusion
from fusec.analysis.regions import called
from fusec.compiler import Journey
from fusec.errors import Loc, Unsupported
from fusec.ir.core import Op, walk
from fusec.ir.dims import Symbol
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import Load, Region, Store
from fusec.target import Target

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
    bytes_read: int
    bytes_written: int
    operations: float
    seconds: float
    roofline: float
    bound: str
    """What the roofline is that of: memory or arithmetic."""
    grid: str
    tile: str


@dataclass(frozen=True, slots=True)
class ExternReport:
    """A call to torch. `why` is empty where torch's kernel is the one to use."""

    target: str
    place: str
    why: str


@dataclass(frozen=True, slots=True)
class RefusalReport:
    """Two neighbours that run apart."""

    producer: str
    consumer: str
    reason: str


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

    @property
    def data(self) -> dict[str, Any]:
        """The same as dictionaries, lists and numbers."""
        return asdict(self)

    def __str__(self) -> str:
        launches = sum(kernel.launches for kernel in self.kernels)
        lines = [
            f"{self.graph} for {self.target}: {_count(launches, 'launch', 'es')} of"
            f" {_count(len(self.kernels), 'kernel')}, predicted {_time(self.seconds)};"
            f" {_count(len(self.externs), 'call')} to torch"
        ]
        for kernel in self.kernels:
            lines += ["", *_kernel_lines(kernel)]
        lines += _section("calls to torch", map(_extern_line, self.externs))
        lines += _section(
            "not fused",
            (f"{r.producer} into {r.consumer}: {r.reason}" for r in self.refusals),
        )
        return "\n".join(lines)


def explain(
    journey: Journey,
    hints: Mapping[Symbol, int],
    fallbacks: Sequence[Unsupported] = (),
) -> Report:
    """The report of a graph. `hints` are the sizes to predict for."""
    fusion = Fusion(journey.split, journey.target, hints)
    launched: dict[str, list[int]] = {}
    fingerprints = Fingerprints(journey.split.facts, hints)
    names = {
        fingerprints.of(kernel.region.body).key: name
        for name, kernel in journey.lowered.kernels.items()
    }
    for k, op in enumerate(journey.split.body.ops):
        if isinstance(op, Region):
            name = names.get(fingerprints.of(op.body).key)
            if name is not None:
                launched.setdefault(name, []).append(k)
    kernels = tuple(
        _kernel(journey, fusion, name, places) for name, places in launched.items()
    )
    return Report(
        journey.graph.name,
        journey.target.name,
        sum(kernel.seconds * kernel.launches for kernel in kernels),
        kernels,
        _externs(journey, fallbacks),
        tuple(
            RefusalReport(r.producer, r.consumer, r.reason) for r in journey.refusals
        ),
    )


def _externs(
    journey: Journey, fallbacks: Sequence[Unsupported]
) -> tuple[ExternReport, ...]:
    why = {(each.what, str(each.where)): each.reason for each in fallbacks}
    externs = [op for op in journey.split.body.ops if isinstance(op, Extern)]
    return tuple(
        ExternReport(op.target, _place(op.loc), why.get((op.target, str(op.loc)), ""))
        for op in externs
    )


def _kernel(
    journey: Journey, fusion: Fusion, name: str, places: Sequence[int]
) -> KernelReport:
    kernel = journey.lowered.kernels[name]
    work = fusion.prices.work(fusion.group_of[places[0]])
    roofline, bound = _roofline(work, journey.target)
    grid, tile = kernel.schedule.grid_text, kernel.schedule.tile_text
    return KernelReport(
        name,
        len(places),
        _source_lines(walk(kernel.region.body)),
        work.read,
        work.written,
        work.operations,
        seconds(work, journey.target),
        roofline,
        bound,
        grid,
        tile,
    )


def _roofline(work: Work, target: Target) -> tuple[float, str]:
    """The least seconds on all cores, and what sets them."""
    moved = work.read + work.written
    memory = moved / bandwidth(moved, target.cores, target)
    rate = target.lanes(32) * target.vector_pipes * target.hertz * target.cores
    arithmetic = work.operations / rate
    return max((memory, "memory"), (arithmetic, "arithmetic"))


def _source_lines(ops: Iterable[Op]) -> tuple[SourceLine, ...]:
    found: dict[tuple[str, int], list[str]] = {}
    texts: dict[tuple[str, int], str] = {}
    for op in ops:
        if not isinstance(op, _SILENT):
            at = op.loc.file, op.loc.line
            found.setdefault(at, []).append(called(op))
            texts.setdefault(at, op.loc.text or linecache.getline(*at))
    return tuple(
        SourceLine(_place(Loc(*at)), texts[at].strip(), tuple(names))
        for at, names in found.items()
    )


def _place(loc: Loc) -> str:
    """`file:line`, the file relative to where we are if it is below."""
    if not loc.file:
        return "(no source line)"
    path = Path(loc.file)
    inside = path.is_relative_to(Path.cwd())
    return f"{path.relative_to(Path.cwd()) if inside else path}:{loc.line}"


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
    lines.append(
        f"  moves {_bytes(kernel.bytes_read)} in, {_bytes(kernel.bytes_written)} out;"
        f" {kernel.operations / 1e6:.3g} Mop; bound by {kernel.bound}"
    )
    lines.append(f"  grid {kernel.grid}")
    lines.append(f"  tile {kernel.tile}")
    return lines


def _extern_line(extern: ExternReport) -> str:
    why = f": {extern.why}" if extern.why else ""
    return f"{extern.target} at {extern.place}{why}"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    found = [f"  {line}" for line in lines]
    return ["", title, *found] if found else []


def _count(n: int, what: str, plural: str = "s") -> str:
    return f"{n} {what}{'' if n == 1 else plural}"


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
