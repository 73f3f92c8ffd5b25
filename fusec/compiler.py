"""From a graph of the frontend to a program, on one page.

imported graph ─▶ loops, fused and split ─▶ host function + kernels ─▶ objects ─▶ run
                  passes.journey            tuning, if asked for       build
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from fusec.analysis.candidates import no_choices
from fusec.build import Binaries, Build, CpuBuild, GpuBuild, cache_of
from fusec.calibration import target_of
from fusec.codegen.backend import backend_of
from fusec.counters import Statistics, count
from fusec.errors import Loc
from fusec.fitting import fitted
from fusec.frontend.compiled import Made
from fusec.frontend.intake import Imported
from fusec.ir.core import Function, Module
from fusec.ir.dims import Symbol
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import Region
from fusec.logs import counted, logger, sized
from fusec.options import Options
from fusec.passes.journey import Journey, lower
from fusec.passes.pipeline import PASSES, Setting, stripmined
from fusec.runtime.artifact import Artifact, tell
from fusec.runtime.gpus import target_of as gpu
from fusec.runtime.launcher_keeping import Keeping
from fusec.runtime.launcher_torch import Program
from fusec.runtime.verified import Stage, Verified
from fusec.target import Target, check_runs_here
from fusec.tuning import tuned
from fusec.tuning.kept import kept_choices

NO_HINTS: Mapping[Symbol, int] = MappingProxyType({})
NO_CALLABLES: Mapping[str, Callable[..., Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation(Made):
    """A compiled graph, and how it came about."""

    journey: Journey


CPU = "cpu"


def target_at(device: str, options: Options) -> Target:
    """The target of code for a device of this machine, as torch names it.

    Raises `UnsupportedError` for a device that programs cannot run on.
    """
    return target_of(options) if device == CPU else gpu(device, options)


def setting_of(
    options: Options, hints: Mapping[Symbol, int] = NO_HINTS, device: str = CPU
) -> Setting:
    """What the passes are told: the target, what its backend has rows for, and sizes
    that symbols are likely to have.

    Raises `UnsupportedError` for a device that programs cannot run on.
    """
    target = target_at(device, options)
    supports = partial(backend_of(target).supports, target=target)
    choices = kept_choices(options, target, device) if options.tune else no_choices
    return Setting(target, supports, hints, choices)


def compile_function(
    function: Function,
    options: Options,
    hints: Mapping[Symbol, int] = NO_HINTS,
    callables: Mapping[str, Callable[..., Any]] = NO_CALLABLES,
    device: str = CPU,
) -> Compilation:
    """Compile a graph to a program for a device of this machine, as torch names it.

    `callables` are the externs that have no name in torch.
    """
    setting = setting_of(options, hints, device)
    if device == CPU:
        check_runs_here(setting.target)
    journey = lower(function, setting)
    binaries = Binaries(cache_of(options))
    if options.tune:
        journey = tuned(journey, options, binaries, device)
    if journey.target.is_gpu:
        journey = fitted(journey, binaries)

    def compiled(journey: Journey) -> tuple[Program, Artifact]:
        build = _build(options, journey, binaries, device)
        artifact, code = build.artifact(journey.module, callables)
        return artifact.bound(code), artifact

    program, artifact = compiled(journey)
    count(_counted(journey))
    if journey.once is None:
        return Compilation(program, artifact, journey=journey)
    once, part = compiled(journey.once)
    whole = replace(artifact, once=part)
    return Compilation(Keeping(program, once), whole, journey=journey)


def compile_module(
    module: Module,
    options: Options,
    callables: Mapping[str, Callable[..., Any]] = NO_CALLABLES,
) -> Made:
    """Compile a host function and the laid out kernels that follow it."""
    target = target_of(options)
    check_runs_here(target)
    artifact, code = CpuBuild(options, target).artifact(module, callables)
    return Made(artifact.bound(code), artifact)


def _build(
    options: Options, journey: Journey, binaries: Binaries, device: str
) -> Build:
    """What makes the code of a program, for the target of its journey."""
    if journey.target.is_gpu:
        return GpuBuild(options, journey, binaries, device)
    return CpuBuild(options, journey.target)


def compile_graph(imported: Imported, options: Options) -> Compilation:
    """Compile what the frontend took in; with `verify`, to run beside its oracle."""
    function, hints = imported.function, imported.hints
    began = time.perf_counter()
    device = imported.device
    made = compile_function(function, options, hints, imported.callables, device)
    runs, fallbacks = _runs(made.journey), imported.fallbacks
    tell(
        (runs, *map(str, fallbacks)), f"compiled in {time.perf_counter() - began:.2f} s"
    )
    _log(made.journey)
    if options.verify:
        stages = _stages(made.journey)
        oracle = imported.callables, imported.eager_yields
        verified = Verified(made.program, stages, *oracle, device)
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
    ops: tuple[Any, ...] = journey.loops.body.ops
    started = sum(isinstance(op, Region) for op in ops) - journey.joined.saved
    launches = counted(started, "launch", "launches")
    kernels = counted(len(journey.lowered.kernels), "kernel")
    calls = counted(sum(isinstance(op, Extern) for op in ops), "call")
    kept = f", {sized(journey.kept_bytes)} kept" if journey.once else ""
    return f"{journey.graph.name}: {launches} of {kernels}, {calls} to torch{kept}"


def _log(journey: Journey) -> None:
    """Tell those who asked what became of a graph."""
    if logger("fusion").isEnabledFor(logging.INFO):
        for refusal in journey.refusals:
            pair = refusal.producer, refusal.consumer
            logger("fusion").info("%s into %s: %s", *pair, refusal.reason)
    for name, kernel in journey.lowered.kernels.items():
        logger("kernels").info("%s: %s", name, kernel.schedule)


def _stages(journey: Journey) -> list[Stage]:
    """What there is to interpret, each stage with the pass that made it."""
    made_by = {each.stage: name for name, each in PASSES.items() if each.stage}
    *whole, last = (
        Stage(made_by.get(stage, "the frontend"), function)
        for stage, function in journey.functions.items()
    )
    parts = [last, *_lowered_stages(journey)]
    if journey.once is not None:
        loops = Stage(last.made_by, journey.once.loops)
        once = [loops, *_lowered_stages(journey.once)]
        pairs = zip(parts, once, strict=True)
        parts = [replace(part, once=apart) for part, apart in pairs]
    return [*whole, *parts]


def _lowered_stages(journey: Journey) -> list[Stage]:
    """Those with kernels."""
    lowered, host = journey.lowered, journey.joined.host
    laid_out = Module((lowered.host, *journey.laid_out.values()))
    joined = [Stage("join_launches", host, journey.module)]
    kernels = journey.joined.kernels.values()
    mined = Module((host, *(stripmined(k, journey.target) for k in kernels)))
    return [
        Stage("lower_to_host", lowered.host, lowered.module),
        Stage("assign_layouts", lowered.host, laid_out),
        *(joined if journey.target.is_gpu else ()),
        Stage("stripmine", host, mined),
    ]


def _counted(journey: Journey) -> Statistics:
    before: tuple[Any, ...] = journey.functions["loop"].body.ops
    after: tuple[Any, ...] = journey.loops.body.ops
    return Statistics(
        compilations=1,
        regions=sum(isinstance(op, Region) for op in before),
        kernels=sum(isinstance(op, Region) for op in after),
        distinct=len(journey.kernels),
        externs=sum(isinstance(op, Extern) for op in after),
        kept_bytes=journey.kept_bytes,
    )
