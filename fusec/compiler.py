"""The journey of a graph to a program, on one page.

imported graph ─▶ loops, fused and split ─▶ host function + kernels ─▶ objects ─▶ run
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from fusec.analysis.fusion import Fusion, Refusal
from fusec.codegen.backend import backend
from fusec.codegen.llvm_host import emit_host
from fusec.codegen.llvm_launcher import TEXT as LAUNCHER
from fusec.codegen.llvm_object import assembly, compile_object
from fusec.codegen.native_calls import callable_natively
from fusec.errors import InternalError, Loc
from fusec.frontend.compiled import Made
from fusec.frontend.intake import Imported
from fusec.ir.core import Function, Module
from fusec.ir.dims import Symbol
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import Region
from fusec.ir.printer import format_module
from fusec.logs import counted, logger
from fusec.options import Options
from fusec.passes.assign_layouts import assign_layouts
from fusec.passes.fuse import emit_plan
from fusec.passes.lower_to_host import Lowered, lower_to_host
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.passes.pipeline import lower_kernel, stripmined
from fusec.passes.recompute import recompute
from fusec.passes.split_reductions import split_reductions
from fusec.runtime.artifact import Artifact, tell
from fusec.runtime.cache import cache_at, cache_key
from fusec.runtime.image import Code
from fusec.runtime.launcher_cpu import PARALLEL, Linked, link, load
from fusec.runtime.launcher_torch import Program, exported_shims
from fusec.runtime.launcher_verified import Stage, Verified
from fusec.runtime.llvm import VERSION
from fusec.runtime.plan import HostPlan, plan_host
from fusec.runtime.write import write
from fusec.target import Target, check_runs_here, resolve

NO_HINTS: Mapping[Symbol, int] = MappingProxyType({})
NO_CALLABLES: Mapping[str, Callable[..., Any]] = MappingProxyType({})


IR_STAGES = ("graph", "loop", "fused", "recomputed", "split", "host")
"""The stages of a graph that are a program, in their order."""

STAGES = (*IR_STAGES, "tile", "llvm", "asm")
"""All stages: the kernels by themselves, too, and their code."""


@dataclass(frozen=True, slots=True, eq=False)
class Journey:
    """A graph at every stage, for those who ask."""

    graph: Function
    loop: Function
    fused: Function
    recomputed: Function
    """With what is cheap computed in each kernel that reads it."""
    split: Function
    """With long reductions in parts: its regions become the kernels."""
    lowered: Lowered
    laid_out: Mapping[str, Function]
    """The kernels with a layout on every tile, by name."""
    refusals: tuple[Refusal, ...]
    target: Target

    @property
    def stages(self) -> Mapping[str, Module]:
        """The stages by their names; each is IR that runs."""
        alone = self.graph, self.loop, self.fused, self.recomputed, self.split
        modules = (*(Module((function,)) for function in alone), self.module)
        return dict(zip(IR_STAGES, modules, strict=True))

    @property
    def module(self) -> Module:
        """The program: the host function and the kernels that it launches."""
        return Module((self.lowered.host, *self.laid_out.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation(Made):
    """A compiled graph, and how it came about."""

    journey: Journey


@dataclass(frozen=True, slots=True)
class Statistics:
    """What this process compiled so far."""

    compilations: int = 0
    regions: int = 0
    """Loop nests before fusion."""
    kernels: int = 0
    """Launches after fusion."""
    distinct: int = 0
    """Kernels that had to be generated."""
    externs: int = 0


@dataclass(slots=True)
class _Ledger:
    """The statistics of the process, counted under a lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    total: Statistics = field(default_factory=Statistics)


_ledger = _Ledger()


def _renew_lock() -> None:
    """In the child of a fork: whoever held the lock is not there to release it."""
    _ledger.lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def statistics() -> Statistics:
    """What this process compiled so far."""
    return _ledger.total


def lower(
    function: Function, options: Options, hints: Mapping[Symbol, int] = NO_HINTS
) -> Journey:
    """Bring a graph down to its host function and tiled kernels.

    `hints` are sizes that symbols are likely to have; code is right for all.
    """
    target = resolve(options.target)
    loop = lower_to_loops(function)
    fusion = Fusion(loop, target, hints)
    plan = fusion.run()
    fused = emit_plan(fusion, plan)
    recomputed = recompute(fused, target, hints)
    split = split_reductions(recomputed, target, hints)
    lowered = lower_to_host(split, target, hints)
    kernels = lowered.kernels.items()
    laid_out = {name: assign_layouts(kernel.function) for name, kernel in kernels}
    return Journey(
        function,
        loop,
        fused,
        recomputed,
        split,
        lowered,
        laid_out,
        plan.refusals,
        target,
    )


def compile_function(
    function: Function,
    options: Options,
    hints: Mapping[Symbol, int] = NO_HINTS,
    callables: Mapping[str, Callable[..., Any]] = NO_CALLABLES,
) -> Compilation:
    """Compile a graph to a program for this machine.

    `callables` are the externs that have no name in torch.
    """
    journey = lower(function, options, hints)
    made = compile_module(journey.module, options, callables)
    _count(journey)
    return Compilation(made.program, made.artifact, journey=journey)


def compile_module(
    module: Module,
    options: Options,
    callables: Mapping[str, Callable[..., Any]] = NO_CALLABLES,
) -> Made:
    """Compile a host function and the laid out kernels that follow it."""
    artifact, code = _Build(options).artifact(module, callables)
    program = Program(artifact.recipe, code, callables, options.threads)
    return Made(program, artifact)


def compile_graph(imported: Imported, options: Options) -> Compilation:
    """Compile what the frontend took in; with `verify`, to run beside its oracle."""
    function, hints = imported.function, imported.hints
    began = time.perf_counter()
    made = compile_function(function, options, hints, imported.callables)
    runs, fallbacks = _runs(made.journey), imported.fallbacks
    tell(
        (runs, *map(str, fallbacks)), f"compiled in {time.perf_counter() - began:.2f} s"
    )
    _log(made.journey)
    if options.verify:
        stages = _stages(made.journey)
        oracle = imported.callables, imported.eager_yields
        verified = Verified(made.program, stages, *oracle)
        return Compilation(verified, journey=made.journey)
    # Another program may find what is kept, and has other lines.
    told = (str(replace(each, where=Loc.UNKNOWN)) for each in fallbacks)
    assert isinstance(made.artifact, Artifact)
    return replace(made, artifact=replace(made.artifact, told=(runs, *told)))


def compile_verified(function: Function, options: Options) -> Verified:
    """A graph that stands alone, to run beside its oracle."""
    made = compile_function(function, options)
    return Verified(made.program, _stages(made.journey), NO_CALLABLES)


def _runs(journey: Journey) -> str:
    """How many launches and calls a graph makes."""
    ops: tuple[Any, ...] = journey.split.body.ops
    launches = counted(sum(isinstance(op, Region) for op in ops), "launch", "launches")
    kernels = counted(len(journey.lowered.kernels), "kernel")
    calls = counted(sum(isinstance(op, Extern) for op in ops), "call")
    return f"{journey.graph.name}: {launches} of {kernels}, {calls} to torch"


def _log(journey: Journey) -> None:
    """Tell those who asked what became of a graph."""
    for refusal in journey.refusals:
        pair = refusal.producer, refusal.consumer
        logger("fusion").info("%s into %s: %s", *pair, refusal.reason)
    for name, kernel in journey.lowered.kernels.items():
        logger("kernels").info("%s: %s", name, kernel.schedule)


def _stages(journey: Journey) -> list[Stage]:
    """What there is to interpret, each stage with the pass that made it."""
    host, kernels = journey.lowered.host, journey.laid_out.values()
    mined = Module((host, *(stripmined(k, journey.target) for k in kernels)))
    return [
        Stage("the frontend", journey.graph),
        Stage("lower_to_loops", journey.loop),
        Stage("fuse", journey.fused),
        Stage("recompute", journey.recomputed),
        Stage("split_reductions", journey.split),
        Stage("lower_to_host", host, journey.lowered.module),
        Stage("assign_layouts", host, journey.module),
        Stage("stripmine", host, mined),
    ]


def stage_text(
    journey: Journey,
    stage: str,
    kernels: Mapping[str, Function],
    locations: bool = False,
) -> str:
    """A graph at one of `STAGES`; of its kernels, those that are given."""
    target = journey.target
    if stage in ("llvm", "asm"):
        texts = {name: _text(kernel, target) for name, kernel in kernels.items()}
        if stage == "asm":
            cpu, features = target.cpu, target.feature_string
            texts = {n: assembly(text, cpu, features) for n, text in texts.items()}
        mark = ";" if stage == "llvm" else "#"
        return "\n".join(f"{mark} {name}\n{text}" for name, text in texts.items())
    own = tuple(kernels.values())
    alone = {"tile": Module(own), "host": Module((journey.lowered.host, *own))}
    return format_module({**journey.stages, **alone}[stage], locations=locations)


def _text(kernel: Function, target: Target) -> str:
    llvm = backend("llvm")
    supports = partial(llvm.supports, target=target)
    return llvm.emit(lower_kernel(kernel, target, supports), target)


class _Build:
    """Makes the code of a program; objects of it may be in the cache."""

    def __init__(self, options: Options) -> None:
        self.threads = options.threads
        self.target = resolve(options.target)
        check_runs_here(self.target)
        self.cache = cache_at(options.cache_dir) if options.cache else None
        self.kept: list[str] = []
        """The keys of the objects that the cache had."""

    def artifact(
        self, module: Module, callables: Mapping[str, Callable[..., Any]]
    ) -> tuple[Artifact, Code]:
        """A host function and the kernels that follow it, and their code, loaded."""
        host, *kernels = module.functions
        plan = plan_host(host, callable_natively(exported_shims()))
        try:
            image, code = self.linked(plan, kernels)
        except InternalError as error:
            if not self.kept:
                raise
            reason = "made anew what the cache entries %s should hold: %s"
            logger("cache").warning(reason, ", ".join(self.kept), error.what)
            image, code = self.linked(plan, kernels, renew=True)
        artifact = Artifact(write(plan), image, callables, self.threads)
        return artifact, code

    def linked(
        self, plan: HostPlan, kernels: Sequence[Function], renew: bool = False
    ) -> tuple[Linked, Code]:
        """The code of a program; with `renew`, none of it from the cache."""
        compiled = partial(self.object, renew=renew)
        # LLVM lets Python go on meanwhile: it compiles one text as the next is written.
        with ThreadPoolExecutor(1, "fusec-llvm") as llvm:
            texts = (_text(kernel, self.target) for kernel in kernels)
            found = [llvm.submit(compiled, text) for text in texts]
            objects = [compiled(LAUNCHER)]
            if plan.segments:
                text = emit_host(plan, {k.name: k for k in kernels}, self.target)
                # It runs each instruction once, between calls: they need not be best.
                objects.append(compiled(text, opt=0))
            objects += [future.result() for future in found]
        names = [each.name for each in (*plan.segments, *kernels)]
        image = link(objects, [PARALLEL, *names])
        return image, load(image, exported_shims())

    def object(self, text: str, opt: int = 1, renew: bool = False) -> bytes:
        """The object code of a module; compiled if the cache does not have it."""
        cpu, features = self.target.cpu, self.target.feature_string
        key = cache_key("llvm-object", VERSION, text, cpu, features, str(opt))
        kept = self.cache.get(key) if self.cache and not renew else None
        logger("cache").debug("%s %s", "hit" if kept else "miss", key)
        if kept is not None:
            self.kept.append(key)
            return kept
        image = compile_object(text, cpu, features, opt)
        if self.cache:
            self.cache.put(key, image, "object")
        return image


def _count(journey: Journey) -> None:
    ops: tuple[Any, ...] = journey.loop.body.ops
    after: tuple[Any, ...] = journey.split.body.ops
    with _ledger.lock:
        old = _ledger.total
        _ledger.total = Statistics(
            old.compilations + 1,
            old.regions + sum(isinstance(op, Region) for op in ops),
            old.kernels + sum(isinstance(op, Region) for op in after),
            old.distinct + len(journey.lowered.kernels),
            old.externs + sum(isinstance(op, Extern) for op in after),
        )
