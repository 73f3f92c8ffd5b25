"""From a lowered program to the code that runs it: kernels and host become objects,
objects an image, and the image code in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from fusec.codegen.backend import backend
from fusec.codegen.llvm_host import emit_host
from fusec.codegen.llvm_launcher import TEXT as LAUNCHER
from fusec.codegen.llvm_object import compile_object
from fusec.codegen.native_calls import callable_natively
from fusec.errors import InternalError
from fusec.ir.core import Function, Module
from fusec.logs import logger
from fusec.options import Options
from fusec.passes.pipeline import lower_kernel
from fusec.runtime.artifact import Artifact
from fusec.runtime.cache import cache_at, cache_key
from fusec.runtime.image import Code
from fusec.runtime.launcher_cpu import PARALLEL, Linked, link, load
from fusec.runtime.launcher_torch import exported_shims
from fusec.runtime.llvm import VERSION
from fusec.runtime.plan import HostPlan, plan_host
from fusec.runtime.write import write
from fusec.target import Target, check_runs_here, resolve


def kernel_text(kernel: Function, target: Target) -> str:
    """The LLVM code of a kernel with layouts."""
    llvm = backend("llvm")
    supports = partial(llvm.supports, target=target)
    return llvm.emit(lower_kernel(kernel, target, supports), target)


class Build:
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
