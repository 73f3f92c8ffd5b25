"""The stages of a graph, as texts for people."""

from __future__ import annotations

from collections.abc import Mapping

from fusec.build import kernel_text
from fusec.codegen.llvm_object import assembly
from fusec.ir.core import Function, Module
from fusec.ir.printer import format_module
from fusec.passes import journey
from fusec.passes.journey import Journey

STAGES = (*journey.STAGES, "tile", "llvm", "asm")
"""All stages: the kernels by themselves, too, and their code."""


def stage_text(
    journey: Journey,
    stage: str,
    kernels: Mapping[str, Function],
    locations: bool = False,
) -> str:
    """A graph at one of `STAGES`; of its kernels, those that are given."""
    target = journey.target
    if stage in ("llvm", "asm"):
        texts = {name: kernel_text(kernel, target) for name, kernel in kernels.items()}
        if stage == "asm":
            cpu, features = target.cpu, target.feature_string
            texts = {n: assembly(text, cpu, features) for n, text in texts.items()}
        mark = ";" if stage == "llvm" else "#"
        return "\n".join(f"{mark} {name}\n{text}" for name, text in texts.items())
    own = tuple(kernels.values())
    hosts = (each.lowered.host for each in (journey, journey.once) if each)
    alone = {"tile": Module(own), "host": Module((*hosts, *own))}
    return format_module({**journey.stages, **alone}[stage], locations=locations)
