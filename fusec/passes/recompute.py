"""Compute again, in the kernels that read it, what is cheaper than to store.

    %m, %c = region(%x) { load %x; exp … store %c; reduce … store %m }
    %y     = region(%m, %c) { load %m … load %c … store %y }
        →
    %m = region(%x) { load %x; exp; reduce … store %m }
    %y = region(%m, %x) { load %m … load %x; exp … store %y }

Two reductions over different axes cannot share a kernel, but what both read can be
computed in both. The part of a region that its pointwise results come from is copied
into all their readers, where that saves time: their bytes are neither written nor read.
The bits are the same, as one instruction after the other is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fusec.analysis.frozen import frozen_values
from fusec.analysis.fusion import Fusion, Plan
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Op, Value
from fusec.ir.dims import Symbol
from fusec.ir.ops.checks import Check
from fusec.ir.ops.loop import Region, Write
from fusec.ir.ops.reduction import Reduce, Scan
from fusec.passes.fuse import emit_plan
from fusec.passes.region_builder import BoundBlock
from fusec.target import Target


def recompute(
    function: Function, target: Target, hints: Mapping[Symbol, int]
) -> Function:
    """The function with cheap values computed where they are read."""
    return _Recompute(function, target, hints).run()


def _is_loaded(region: BoundBlock, value: Value) -> bool:
    """Whether results come from the elements of an input, not from its shape."""
    params = dict(zip(region.inputs, region.block.params, strict=False))
    used = any(params[value] in op.operands for op in region.block.ops)
    return used and bool(region.outputs)


def _part(region: BoundBlock, outputs: Iterable[Value], checks: bool) -> BoundBlock:
    """The part that some of the results come from, and the checks if wanted."""
    wanted, tensors = set(outputs), region.tensors

    def is_kept(op: Op) -> bool:
        if isinstance(op, Write):
            return tensors[op.buffer] in wanted
        return checks or not isinstance(op, Check)

    return region.only(is_kept)


class _Recompute:
    """One sweep: a region hands on its results before its readers do theirs."""

    def __init__(
        self, function: Function, target: Target, hints: Mapping[Symbol, int]
    ) -> None:
        self.function = function
        self.target = target
        self.hints = hints
        ops = function.body.ops
        self.kernels = {
            k: BoundBlock.of(op) for k, op in enumerate(ops) if isinstance(op, Region)
        }
        self.frozen = frozen_values(function)
        self.readers: dict[Value, list[int]] = {}
        for k, op in enumerate(ops):
            for value in dict.fromkeys(op.operands):
                self.readers.setdefault(value, []).append(k)
        self.times: dict[BoundBlock, float] = {}

    def run(self) -> Function:
        for k in list(self.kernels):
            self.hand_on(k)
        builder = Builder(self.function.level)
        env: dict[Value, Value] = {}
        for param in self.function.params:
            env[param] = builder.param(param.type, param.hint)
        for k, op in enumerate(self.function.body.ops):
            builder.loc = op.loc
            if k not in self.kernels:
                env.update(zip(op.results, builder.copy(op, env), strict=True))
            elif self.kernels[k].outputs:
                made = self.kernels[k].emit(builder, env)
                env.update(zip(self.kernels[k].outputs, made, strict=True))
        yields = [env[value] for value in self.function.body.yields]
        return builder.successor(self.function, yields)

    def hand_on(self, k: int) -> None:
        """Let the readers of region k compute its results, all or some, if it pays."""
        found = [v for v in self.kernels[k].outputs if self.is_handed_on(k, v)]
        if len(found) > 1 and self.replaced(k, found):
            return
        for value in found:
            self.replaced(k, [value])

    def is_handed_on(self, k: int, value: Value) -> bool:
        """Whether only regions read a result, and it is computed point by point."""
        readers = self.readers.get(value, [])
        if not readers or value in {*self.function.body.yields, *self.frozen}:
            return False
        kernels = [self.kernels.get(reader) for reader in readers]
        if not all(kernel and _is_loaded(kernel, value) for kernel in kernels):
            return False
        ops = _part(self.kernels[k], [value], checks=False).block.ops
        return not any(isinstance(op, (Reduce, Scan)) for op in ops)

    def replaced(self, k: int, values: list[Value]) -> bool:
        """Copy what computes some results of region k into all readers, if it pays."""
        whole = self.kernels[k]
        part = _part(whole, values, checks=False)
        kept = (v for v in whole.outputs if v not in values)
        rest = _part(whole, kept, checks=True)
        if not rest.outputs and rest.block.ops:
            return False  # checks alone are no kernel
        after = {k: rest}
        for reader in dict.fromkeys(r for v in values for r in self.readers[v]):
            merged = self.merged(part, self.kernels[reader])
            if merged is None:
                return False
            after[reader] = merged
        before = sum(self.time(self.kernels[n]) for n in after)
        if sum(self.time(kernel) for kernel in after.values()) >= before:
            return False
        for n, kernel in after.items():
            for value in {*self.kernels[n].inputs} - {*kernel.inputs}:
                self.readers[value].remove(n)
            for value in kernel.inputs:
                if n not in self.readers[value]:
                    self.readers[value].append(n)
        self.kernels.update(after)
        return True

    def merged(self, part: BoundBlock, reader: BoundBlock) -> BoundBlock | None:
        """A kernel with a copy of what computes some of its inputs; None if that has no
        place there."""
        fusion, names = self.alone([part, reader])
        group, _ = fusion.attempt(*fusion.group_of)
        if group is None:
            return None
        made = emit_plan(fusion, Plan((group,), ()))
        (op,) = made.body.ops
        assert isinstance(op, Region)
        given = dict(zip(made.params, fusion.regions.function.params, strict=True))
        inputs = tuple(names[given[value]] for value in op.inputs)
        return BoundBlock(op.body, inputs, reader.outputs)

    def time(self, kernel: BoundBlock) -> float:
        """Predicted seconds of a kernel; none of what computes nothing."""
        if not kernel.outputs:
            return 0.0
        if kernel not in self.times:
            fusion, _ = self.alone([kernel])
            self.times[kernel] = fusion.prices.time(fusion.group_of[0])
        return self.times[kernel]

    def alone(self, kernels: list[BoundBlock]) -> tuple[Fusion, dict[Value, Value]]:
        """Fusion of some kernels only, and what its parameters are here."""
        builder = Builder(self.function.level)
        made = {value for kernel in kernels for value in kernel.outputs}
        read = dict.fromkeys(value for kernel in kernels for value in kernel.inputs)
        env = {v: builder.param(v.type, v.hint) for v in read if v not in made}
        names = {param: value for value, param in env.items()}
        for kernel in kernels:
            env.update(zip(kernel.outputs, kernel.emit(builder, env), strict=True))
        yields = [env[value] for value in kernels[-1].outputs]
        function = builder.successor(self.function, yields)
        function = replace(function, returns_into=(None,) * len(yields), frozen=())
        return Fusion(function, self.target, self.hints), names
