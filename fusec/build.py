"""From a lowered program to the code that runs it: kernels and host become objects,
objects an image, and the image code in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from fusec.analysis.schedule import Schedule
from fusec.codegen.backend import Emitted, backend_of
from fusec.codegen.llvm_gpu_host import emit_gpu_host
from fusec.codegen.llvm_host import emit_host
from fusec.codegen.llvm_launcher import TEXT as LAUNCHER
from fusec.codegen.llvm_object import compile_object
from fusec.codegen.native_calls import callable_natively
from fusec.errors import InternalError
from fusec.ir.core import Function, Module
from fusec.logs import logger
from fusec.options import Options
from fusec.passes.pipeline import lower_kernel
from fusec.runtime.ahead import Binary, Failure, Job, compile_all
from fusec.runtime.artifact import Artifact, GpuProgram
from fusec.runtime.cache import cache_at, cache_key
from fusec.runtime.image import Code
from fusec.runtime.launcher_cpu import PARALLEL, Linked, link, load
from fusec.runtime.launcher_gpu import GpuKernel
from fusec.runtime.launcher_torch import exported_shims
from fusec.runtime.llvm import VERSION
from fusec.runtime.plan import HostPlan, plan_host
from fusec.runtime.write import write
from fusec.target import Target, host


def kernel_text(kernel: Function, target: Target) -> str:
    """The code of a kernel with layouts, as the backend of the target writes it."""
    return emitted(kernel, target).text


def emitted(kernel: Function, target: Target) -> Emitted:
    """What the backend of the target makes of a kernel with layouts."""
    emitter = backend_of(target)
    supports = partial(emitter.supports, target=target)
    return emitter.emit(lower_kernel(kernel, target, supports), target)


def gpu_jobs(
    schedules: Mapping[str, Schedule],
    kernels: Mapping[str, Function],
    target: Target,
) -> dict[str, Job]:
    """What is to be compiled of kernels for a GPU, by their names."""
    return {
        name: _job(name, emitted(kernel, target), schedules[name], target)
        for name, kernel in kernels.items()
    }


def _job(name: str, made: Emitted, schedule: Schedule, target: Target) -> Job:
    return Job(
        source=made.text,
        name=name,
        types=made.types,
        constants=made.constants,
        backend=target.kind,
        arch=target.cpu,
        warp=target.lanes(32),
        warps=schedule.warps,
        stages=schedule.stages,
    )


K = TypeVar("K")


def gpu_binaries(jobs: Mapping[K, Job]) -> dict[K, Binary | Failure]:
    """What comes of compiling kernels, on all cores of this machine.

    Raises `UserError` where Triton is not installed.
    """
    return dict(zip(jobs, compile_all([*jobs.values()], host().cores), strict=True))


class Build:
    """Makes the code of a program for a CPU; objects of it may be in the cache."""

    def __init__(self, options: Options, target: Target) -> None:
        self.threads = options.threads
        self.target = target
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
            texts = (kernel_text(kernel, self.target) for kernel in kernels)
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


class GpuBuild(Build):
    """Makes the code of a program for a GPU: its segments are this processor's."""

    def __init__(
        self, options: Options, target: Target, schedules: Mapping[str, Schedule]
    ) -> None:
        super().__init__(options, host())
        self.gpu = target
        self.schedules = schedules

    def artifact(
        self, module: Module, callables: Mapping[str, Callable[..., Any]]
    ) -> tuple[Artifact, Code]:
        """A host function and the kernels that follow it, and their code, loaded.

        Raises `UserError` without Triton, `InternalError` where it fails.
        """
        first, *kernels = module.functions
        plan = plan_host(first)
        laid_out = {kernel.name: kernel for kernel in kernels}
        binaries = gpu_binaries(gpu_jobs(self.schedules, laid_out, self.gpu))
        found: list[GpuKernel] = []
        for name, binary in binaries.items():
            if isinstance(binary, Failure):
                raise InternalError(f"Triton did not compile {name}: {binary.what}")
            used = binary.resources
            found.append(GpuKernel(name, binary.code, used.threads, used.shared))
        text = emit_gpu_host(plan, laid_out, self.target)
        image = link([self.object(text, opt=0)], [each.name for each in plan.segments])
        gpu = GpuProgram(self.gpu.kind, tuple(found))
        artifact = Artifact(write(plan), image, callables, self.threads, gpu=gpu)
        return artifact, load(image)
