"""From a lowered program to the code that runs it: kernels and host become objects,
objects an image, and the image code in this process.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from fusec.analysis.accesses import Accesses
from fusec.analysis.descriptors import descriptor_bytes
from fusec.analysis.schedule import Schedule
from fusec.codegen.backend import Emitted, backend_of
from fusec.codegen.llvm_gpu_host import emit_gpu_host
from fusec.codegen.llvm_host import emit_host
from fusec.codegen.llvm_launcher import TEXT as LAUNCHER
from fusec.codegen.llvm_object import compile_object
from fusec.codegen.native_calls import callable_natively
from fusec.errors import FusecError, InternalError
from fusec.ir.core import Function, Module
from fusec.ir.dims import Facts
from fusec.logs import logger
from fusec.options import Options
from fusec.passes.assign_layouts import assign_layouts
from fusec.passes.join_launches import Joined
from fusec.passes.journey import Journey
from fusec.passes.pipeline import lower_kernel
from fusec.passes.tile import tile
from fusec.runtime.ahead import (
    Binary,
    Failure,
    Job,
    compile_all,
    require_triton,
    triton_version,
)
from fusec.runtime.artifact import Artifact, GpuProgram, sources
from fusec.runtime.cache import Cache, cache_at, cache_key
from fusec.runtime.image import Code
from fusec.runtime.launcher_cpu import PARALLEL, Linked, link, load
from fusec.runtime.launcher_gpu import GpuKernel
from fusec.runtime.launcher_torch import exported_shims
from fusec.runtime.llvm import VERSION
from fusec.runtime.plan import HostPlan, aligned, plan_host
from fusec.runtime.pool import ask_all
from fusec.runtime.workers import Lost
from fusec.runtime.write import write
from fusec.target import Target, host

OBJECT_WORKER = "fusec.codegen.object_worker"
PATIENCE = 60.0
"""Seconds that LLVM may take for a module."""


def kernel_text(kernel: Function, target: Target) -> str:
    """The code of a kernel with layouts, as the backend of the target writes it."""
    return emitted(kernel, target).text


def emitted(kernel: Function, target: Target) -> Emitted:
    """What the backend of the target makes of a kernel with layouts."""
    emitter = backend_of(target)
    supports = partial(emitter.supports, target=target)
    return emitter.emit(lower_kernel(kernel, target, supports), target)


def attempted(
    reads: Accesses, schedule: Schedule, name: str, facts: Facts, target: Target
) -> Emitted | None:
    """What the backend makes of a region by a schedule that is tried; None, with a line
    in the log, where fusec has a bug in that."""
    try:
        return emitted(assign_layouts(tile(reads, schedule, name, facts)), target)
    except FusecError as error:
        logger("tuning").warning("no code for %s: %s", schedule, error)
        return None


def gpu_jobs(program: Joined, target: Target) -> dict[str, Job]:
    """What is to be compiled of a program's kernels for a GPU, by their names."""
    whole = aligned(plan_host(program.host, apart=True))
    jobs: dict[str, Job] = {}
    for name, kernel in program.kernels.items():
        made = emitted(kernel, target)
        if made.scratch != descriptor_bytes(kernel):
            what = f"{name} makes other tensor descriptors than it has memory for"
            raise InternalError(what)
        jobs[name] = _job(name, made, whole[name], program.schedules[name], target)
    return jobs


def tried(
    job: Job, reads: Accesses, schedule: Schedule, facts: Facts, target: Target
) -> Job | None:
    """The same kernel by another schedule; None, with a line in the log, where fusec
    has a bug in that."""
    made = attempted(reads, schedule, job.name, facts, target)
    if made is None:
        return None
    buffers = sum(kind.startswith("*") for kind in made.types)
    return replace(
        job,
        source=made.text,
        types=made.types,
        aligned=(*job.aligned, True)[:buffers],  # memory for descriptors comes last
        constants=made.constants,
        warps=schedule.warps,
        stages=schedule.stages,
        scratch=made.scratch,
    )


def kernel_of(job: Job, binary: Binary) -> GpuKernel:
    """A kernel as programs have it."""
    used = binary.resources
    return GpuKernel(job.name, binary.code, used.threads, used.shared, job.scratch_at)


def _job(
    name: str,
    made: Emitted,
    aligned: tuple[bool, ...],
    schedule: Schedule,
    target: Target,
) -> Job:
    return Job(
        source=made.text,
        name=name,
        types=made.types,
        aligned=aligned,
        constants=made.constants,
        backend=target.kind,
        arch=target.cpu,
        warp=target.lanes(32),
        warps=schedule.warps,
        stages=schedule.stages,
        scratch=made.scratch,
    )


K = TypeVar("K")


class Binaries:
    """The code of kernels for GPUs: compiled, or from the cache."""

    def __init__(self, kept: Cache | None = None) -> None:
        self.cache = kept
        self._known: dict[Job, Binary | Failure] = {}

    def of(self, jobs: Mapping[K, Job]) -> dict[K, Binary | Failure]:
        """What comes of compiling kernels, on all cores of this machine; each once.

        Raises `UserError` where Triton is not installed.
        """
        require_triton()
        keys = {job: _key(job) for job in jobs.values() if job not in self._known}
        for job, key in keys.items():
            data = self.cache.get(key) if self.cache else None
            binary = Binary.of(data) if data is not None else None
            logger("cache").debug("%s %s", "hit" if binary else "miss", key)
            if binary is not None:
                self._known[job] = binary
        missing = [job for job in keys if job not in self._known]
        made = compile_all(missing, host().cores)
        for job, outcome in zip(missing, made, strict=True):
            self._known[job] = outcome
            if self.cache and isinstance(outcome, Binary):
                self.cache.put(keys[job], outcome.data, "binary")
        return {k: self._known[job] for k, job in jobs.items()}


def _key(job: Job) -> str:
    """What a kernel's code is kept under."""
    return cache_key("triton", triton_version(), sources(), repr(job))


Callables = Mapping[str, Callable[..., Any]]


class Build(Protocol):
    """Makes the code of programs for one device."""

    def artifact(self, module: Module, callables: Callables) -> tuple[Artifact, Code]:
        """A host function and the kernels that follow it, and their code, loaded."""
        ...


class Objects:
    """The object code of modules for a processor: compiled, or from the cache."""

    def __init__(self, kept: Cache | None, target: Target) -> None:
        self.target = target
        self.cache = kept
        self.hits: list[str] = []
        """The keys of those that the cache had."""

    def of(self, text: str, opt: int = 1, renew: bool = False) -> bytes:
        """That of a module; with `renew`, not what the cache has."""
        key = self.key(text, opt)
        kept = self.cache.get(key) if self.cache and not renew else None
        logger("cache").debug("%s %s", "hit" if kept else "miss", key)
        if kept is not None:
            self.hits.append(key)
            return kept
        image = compile_object(text, self.target.cpu, self.target.feature_string, opt)
        if self.cache:
            self.cache.put(key, image, "object")
        return image

    def of_all(self, texts: Sequence[str]) -> list[bytes | None]:
        """Those of modules, compiled side by side in other processes; None where LLVM
        does not survive that. Most is code that loses: none is kept."""
        keys = [self.key(text, 1) for text in texts]
        found = [self.cache.get(key) if self.cache else None for key in keys]
        absent = [k for k, kept in enumerate(found) if kept is None]
        cpu, features = self.target.cpu, self.target.feature_string
        kind = {"cpu": cpu, "features": features, "opt": 1}
        questions = [{"text": texts[k], **kind} for k in absent]
        answers = ask_all(OBJECT_WORKER, questions, host().cores, PATIENCE)
        for k, answer in zip(absent, answers, strict=True):
            if isinstance(answer, Lost) or "error" in answer:
                reason = answer if isinstance(answer, Lost) else answer["error"]
                logger("tuning").warning("LLVM compiled no candidate: %s", reason)
                continue
            found[k] = base64.b64decode(answer["object"])
        return found

    def key(self, text: str, opt: int) -> str:
        """What the object code of a module is kept under."""
        cpu, features = self.target.cpu, self.target.feature_string
        return cache_key("llvm-object", VERSION, text, cpu, features, str(opt))


class CpuBuild:
    """Makes the code of programs for a processor."""

    def __init__(self, options: Options, target: Target) -> None:
        self.threads = options.threads
        self.target = target
        self.objects = Objects(cache_of(options), target)

    def artifact(self, module: Module, callables: Callables) -> tuple[Artifact, Code]:
        """A host function and the kernels that follow it, and their code, loaded."""
        host, *kernels = module.functions
        plan = plan_host(host, callable_natively(exported_shims()))
        try:
            image, code = self.linked(plan, kernels)
        except InternalError as error:
            hits = self.objects.hits
            if not hits:
                raise
            reason = "made anew what the cache entries %s should hold: %s"
            logger("cache").warning(reason, ", ".join(hits), error.what)
            image, code = self.linked(plan, kernels, renew=True)
        artifact = Artifact(write(plan), image, callables, self.threads)
        return artifact, code

    def linked(
        self, plan: HostPlan, kernels: Sequence[Function], renew: bool = False
    ) -> tuple[Linked, Code]:
        """The code of a program; with `renew`, none of it from the cache."""
        compiled = partial(self.objects.of, renew=renew)
        # LLVM lets Python go on meanwhile: it compiles one text as the next is written.
        llvm = ThreadPoolExecutor(1, "fusec-llvm")
        try:
            texts = (kernel_text(kernel, self.target) for kernel in kernels)
            found = [llvm.submit(compiled, text) for text in texts]
            objects = [compiled(LAUNCHER)]
            if plan.segments:
                text = emit_host(plan, {k.name: k for k in kernels}, self.target)
                # It runs each instruction once, between calls: they need not be best.
                objects.append(compiled(text, opt=0))
            objects += [future.result() for future in found]
        finally:  # who interrupts it waits for one of them
            llvm.shutdown(cancel_futures=True)
        names = [each.name for each in (*plan.segments, *kernels)]
        image = link(objects, [PARALLEL, *names])
        return image, load(image, exported_shims())


class GpuBuild:
    """Makes the code of a program for a GPU: its segments are this processor's."""

    def __init__(
        self, options: Options, journey: Journey, binaries: Binaries, device: str
    ) -> None:
        self.objects = Objects(cache_of(options), host())
        self.binaries = binaries
        self.journey = journey
        self.device = device

    def artifact(self, module: Module, callables: Callables) -> tuple[Artifact, Code]:
        """A host function and the kernels that follow it, and their code, loaded.

        Raises `UserError` without Triton, `InternalError` where it fails.
        """
        first, *kernels = module.functions
        plan = plan_host(first, apart=True)
        names = {kernel.name: kernel for kernel in kernels}
        objects: list[bytes] = []
        if plan.segments:
            text = emit_gpu_host(plan, names, self.objects.target)
            objects.append(self.objects.of(text, opt=0))
        image = link(objects, [each.name for each in plan.segments])
        made = {kernel.name: kernel for kernel in self.kernels()}
        # The table of a program has its kernels in the order of the module's.
        gpu = GpuProgram(self.device, tuple(made[name] for name in names))
        artifact = Artifact(write(plan), image, callables, None, gpu=gpu)
        return artifact, load(image)

    def kernels(self) -> Iterator[GpuKernel]:
        """The program's kernels, compiled."""
        jobs = gpu_jobs(self.journey.joined, self.journey.target)
        for name, binary in self.binaries.of(jobs).items():
            if isinstance(binary, Failure):
                raise InternalError(f"Triton did not compile {name}: {binary.what}")
            yield kernel_of(jobs[name], binary)


def cache_of(options: Options) -> Cache | None:
    """Where compiled code is kept, if it is."""
    return cache_at(options.cache_dir) if options.cache else None
