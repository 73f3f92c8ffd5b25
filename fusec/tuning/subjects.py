"""The kernels of a graph that nothing is known of, with what to try and to run them on.

subjects_of(journey)    [Subject("fused_exp_sum_0", …, candidates=[default, …]), …]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusec.analysis.accesses import Accesses, accesses
from fusec.analysis.candidates import Candidate, candidates
from fusec.analysis.cost import likely
from fusec.analysis.descriptors import scratch_at
from fusec.ir.calls import Slot
from fusec.ir.core import Function
from fusec.ir.dims import Dim, Facts, Symbol
from fusec.ir.ops.host import Launch
from fusec.ir.types import Buffer, Tensor
from fusec.logs import logger
from fusec.passes.journey import Journey
from fusec.runtime.measuring import Drawn, Inputs

BEST = 6
"""Candidates that are measured, the default with them."""
MOST_BYTES = 2 << 30
"""What a kernel that is measured may need; beyond it has the default."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A kernel to choose a schedule for."""

    name: str
    fingerprint: str
    accesses: Accesses
    facts: Facts
    inputs: Inputs
    candidates: Sequence[Candidate]
    launches: int

    @property
    def count(self) -> int:
        """How many candidates there are."""
        return len(self.candidates)

    @property
    def seconds(self) -> float:
        """What a call of the graph is predicted to spend in it."""
        return self.candidates[0].seconds * self.launches


def subjects_of(journey: Journey, best: int = BEST) -> list[Subject]:
    """The kernels that nothing is known of, each with its best candidates; not those of
    what is made once, nor those that have no launch of their own."""
    lowered, hints = journey.lowered, journey.setting.hints
    ops = lowered.host.body.ops
    launches = Counter(op.kernel for op in ops if isinstance(op, Launch))
    found: list[Subject] = []
    for name, kernel in lowered.kernels.items():
        if kernel.choice is not None or name not in journey.joined.kernels:
            continue
        reads = accesses(kernel.region)
        inputs = inputs_of(kernel.function, reads, hints)
        if inputs is None:
            logger("tuning").info(
                "%s has the default schedule: it is not measured", name
            )
            continue
        tried = candidates(reads, journey.target, hints)[:best]
        facts, text = journey.loops.facts, kernel.fingerprint.text
        found.append(Subject(name, text, reads, facts, inputs, tried, launches[name]))
    return found


def inputs_of(
    kernel: Function, reads: Accesses, hints: Mapping[Symbol, int]
) -> Inputs | None:
    """What to run a kernel on; None where that is too much, or lies backwards.

    Integers may be indices: they are drawn from those that are ones of every dimension
    that is indexed.
    """
    indexed = [
        likely(dim, hints)
        for access in reads.all
        if isinstance(access.buffer.type, Tensor)
        for entry, dim in zip(access.op.index, access.buffer.type.shape, strict=True)
        if isinstance(entry, Slot)
    ]
    below = max(1, min(indexed, default=8))
    buffers: list[Drawn] = []
    for k, param in enumerate(kernel.params):
        if k == scratch_at(kernel):
            continue  # it comes with code that needs it
        assert isinstance(param.type, Buffer)
        reach = _reach(param.type, hints)
        if reach is None:
            return None
        dtype = param.type.dtype
        size = -(-reach * dtype.bits // 8)
        buffers.append(Drawn(dtype.name, reach, size, below))
    if sum(each.bytes for each in buffers) > MOST_BYTES:
        return None
    sizes = tuple(likely(symbol, hints) for symbol in kernel.symbols)
    return Inputs(tuple(buffers), sizes)


def _reach(buffer: Buffer, hints: Mapping[Symbol, int]) -> int | None:
    """How many elements it takes for the last one to be there."""

    def size(dim: Dim) -> int:
        return likely(dim, hints)

    digits = [digit for dim in buffer.layout.dims for digit in dim]
    if any(size(digit.stride) < 0 for digit in digits):
        return None
    last = sum((size(digit.extent) - 1) * size(digit.stride) for digit in digits)
    return last // buffer.dtype.bits + 1
