"""The way of a graph through the passes, down to its host function and kernels.

    graph ─▶ loop ─▶ fused ─▶ recomputed ─▶ called ─▶ split ─▶ host + kernels
    kernels ─▶ laid out

The table of `pipeline` says which passes those are. Each stage is IR that runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusec.analysis.fusion import Fusion, Refusal
from fusec.ir.core import Function, Module
from fusec.passes.assign_layouts import assign_layouts
from fusec.passes.lower_to_host import Lowered, lower_to_host
from fusec.passes.pipeline import PASSES, Setting
from fusec.target import Target

STAGES = ("graph", *(each.stage for each in PASSES.values() if each.stage), "host")
"""The stages that are a program, in their order."""


@dataclass(frozen=True, slots=True, eq=False)
class Journey:
    """A graph at every stage, for those who ask."""

    functions: Mapping[str, Function]
    """What the graph is at each stage before it becomes kernels."""
    lowered: Lowered
    laid_out: Mapping[str, Function]
    """The kernels with a layout on every tile, by name."""
    setting: Setting

    @property
    def graph(self) -> Function:
        """What the frontend took in."""
        return self.functions["graph"]

    @property
    def split(self) -> Function:
        """The loops in the end: their regions become the kernels."""
        return self.functions["split"]

    @property
    def target(self) -> Target:
        return self.setting.target

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """What was not fused, and why; found out anew, since few ask."""
        loop = self.functions["loop"]
        return Fusion(loop, self.target, self.setting.hints).run().refusals

    @property
    def stages(self) -> Mapping[str, Module]:
        """The programs at all `STAGES`."""
        alone = {name: Module((f,)) for name, f in self.functions.items()}
        return {**alone, "host": self.module}

    @property
    def module(self) -> Module:
        """The program: the host function and the kernels that it launches."""
        return Module((self.lowered.host, *self.laid_out.values()))


def lower(function: Function, setting: Setting) -> Journey:
    """Bring a graph down to its host function and tiled kernels.

    The setting's hints are sizes that symbols are likely to have; code is right for
    all.
    """
    functions = {"graph": function}
    for each in PASSES.values():
        if each.stage:
            (function,) = each.run(function, setting)
            functions[each.stage] = function
    lowered = lower_to_host(function, setting.target, setting.hints)
    kernels = lowered.kernels.items()
    laid_out = {name: assign_layouts(kernel.function) for name, kernel in kernels}
    return Journey(functions, lowered, laid_out, setting)
