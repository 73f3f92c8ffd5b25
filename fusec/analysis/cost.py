"""What work costs on a target: one model, for fusion and for schedules.

    time = launch + max(bytes / bandwidth, bytes / L2 bandwidth + operations / rate),
           shared among the cores that there are programs for

Bandwidth is that of the smallest memory that holds everything moved. From beyond the
second-level cache, bytes arrive while the core computes on others; to load them from
there, and to store, is what it does between operations. The figures are the target's:
defaults, where `fusec calibrate` has not measured this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusec.ir.core import Affine, Monoid, Op
from fusec.ir.dims import Dim, Symbol, evaluate, product, symbols
from fusec.ir.ops.elementwise import Elementwise
from fusec.ir.ops.loop import Update
from fusec.ir.ops.reduction import Reduce, Scan, ScanTile
from fusec.target import Target

MIDDLING = 512
"""A size to reckon with where none was seen."""
SCAN = 8.0
"""How often a scan along the lanes combines for each vector of elements, about."""
SECTOR = 32
"""Bytes of memory that each element of an update meets, where they lie in no row."""
UPDATE = 2.0
"""Simple operations that take as long as to combine an element in memory."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one kernel does."""

    read: int
    """Bytes that it must read, each once."""
    written: int
    """Bytes that it must write."""
    operations: float
    """Simple f32 operations."""
    programs: int
    """Parts that may run at the same time."""


def weigh(op: Op) -> float:
    """The simple operations that an op takes for one element."""
    if isinstance(op, Reduce):
        return float(len(op.results))
    if isinstance(op, (Scan, ScanTile)):
        return SCAN * combining(op.monoid)
    if isinstance(op, Update):
        return UPDATE
    return op.cost if isinstance(op, Elementwise) else 0.0


def update_bytes(op: Update) -> Dim:
    """Bytes that an update reads and writes: each element's, or a sector for each."""
    steps = [s for e in op.index[-1:] if isinstance(e, Affine) for _, s in e.terms]
    row = any(step in (1, -1) for step in steps)
    each = op.buffer.dtype.itembytes if row else SECTOR
    return product(axis.extent for axis in op.axes) * (2 * each)


def combining(monoid: Monoid) -> float:
    """The simple operations that it takes to combine two elements."""
    return sum(max(1.0, weigh(op)) for op in monoid.combine.body.ops)


def likely(dim: Dim, hints: Mapping[Symbol, int]) -> int:
    """A size to reckon with: exact where it is known, else by the hints."""
    if isinstance(dim, int):
        return dim
    return evaluate(dim, {s: hints.get(s, MIDDLING) for s in symbols(dim)})


def seconds(work: Work, target: Target, among: int = 0) -> float:
    """Predicted time of a kernel, one of several that move `among` bytes together."""
    cores = max(1, min(target.cores, work.programs))
    moved = work.read + work.written
    memory = moved / bandwidth(max(moved, among), cores, target)
    lanes = target.lanes(32) * target.vector_pipes
    compute = work.operations / (lanes * target.hertz * cores)
    issue = moved / (target.l2_rate * cores)
    return target.launch + max(memory, issue + compute)


def bandwidth(footprint: int, cores: int, target: Target) -> float:
    """Bytes per second that `cores` move together, everything in `footprint` bytes."""
    if target.keeps and footprint <= target.l2_bytes * cores:
        return target.l2_rate * cores
    if footprint <= target.llc_bytes:
        return target.llc_rate * cores
    return min(target.dram_rate * cores, target.dram_rate_all)
