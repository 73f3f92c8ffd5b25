"""The stages of a graph, as texts for people."""

from __future__ import annotations

from collections.abc import Mapping

from fusec.build import kernel_text
from fusec.codegen.llvm_object import assembly
from fusec.errors import OptionError
from fusec.ir.core import Function, Module
from fusec.ir.printer import format_module
from fusec.passes import journey
from fusec.passes.journey import Journey

CODE_OF = {"llvm": ("llvm", "asm"), "triton": ("triton",)}
"""The stages that are code, by the backend that writes it."""
CODE = tuple(stage for own in CODE_OF.values() for stage in own)
STAGES = (*journey.STAGES, "tile", *CODE)
"""All stages: the kernels by themselves, too, and their code."""


def stage_text(
    journey: Journey,
    stage: str,
    kernels: Mapping[str, Function],
    locations: bool = False,
) -> str:
    """A graph at one of `STAGES`; of its kernels, those that are given.

    Raises `OptionError` for code that is not of the target's kind.
    """
    target = journey.target
    if stage in CODE and stage not in (own := CODE_OF[target.backend]):
        raise OptionError(
            f"there is no {stage} code for the target {target.name!r}",
            fix=f"its code is the stage {' or '.join(own)}",
        )
    if stage == "triton":
        return "\n\n".join(kernel_text(kernel, target) for kernel in kernels.values())
    if stage in ("llvm", "asm"):
        texts = {name: kernel_text(kernel, target) for name, kernel in kernels.items()}
        if stage == "asm":
            cpu, features = target.cpu, target.feature_string
            texts = {n: assembly(text, cpu, features) for n, text in texts.items()}
        mark = ";" if stage == "llvm" else "#"
        return "\n".join(f"{mark} {name}\n{text}" for name, text in texts.items())
    own = tuple(kernels.values())
    hosts = (each.joined.host for each in (journey, journey.once) if each)
    alone = {"tile": Module(own), "host": Module((*hosts, *own))}
    return format_module({**journey.stages, **alone}[stage], locations=locations)
