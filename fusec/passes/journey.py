"""The way of a graph through the passes, down to its host function and kernels.

    graph ─▶ loop ─▶ fused ─▶ recomputed ─▶ called ─▶ split ─▶ owned ─▶ frozen
    frozen ─▶ host + kernels        kernels ─▶ laid out        launches ─▶ joined

The table of `pipeline` says which passes those are. Each stage is IR that runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fusec.analysis.fusion import Fusion, Refusal
from fusec.ir.core import Function, Module
from fusec.ir.types import Tensor
from fusec.passes.assign_layouts import assign_layouts
from fusec.passes.join_launches import Joined, join_launches
from fusec.passes.lower_to_host import Lowered
from fusec.passes.pipeline import PASSES, Setting, lowered_by
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
    joined: Joined
    """The program that runs: on a GPU, with launches that became one."""
    setting: Setting
    once: Journey | None = None
    """The end of the way of what makes, once, what the program is given besides its
    arguments."""

    @property
    def graph(self) -> Function:
        """What the frontend took in."""
        return self.functions["graph"]

    @property
    def loops(self) -> Function:
        """The loops in the end: their regions become the kernels."""
        return self.functions["frozen"]

    @property
    def kernels(self) -> Mapping[str, Function]:
        """All kernels that are launched: of what is made once, too."""
        return {**self.joined.kernels, **(self.once.kernels if self.once else {})}

    @property
    def apart(self) -> Joined:
        """The program with a launch for each kernel."""
        kernels = self.lowered.kernels.items()
        schedules = {name: kernel.schedule for name, kernel in kernels}
        return Joined(self.lowered.host, self.laid_out, schedules, {})

    @property
    def kept_bytes(self) -> int:
        """The size of what is made once."""
        made = self.once.loops.body.yields if self.once else ()
        sizes = [v.type.bytes for v in made if isinstance(v.type, Tensor)]
        return sum(size for size in sizes if isinstance(size, int))

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
        found = {name: Module((f,)) for name, f in self.functions.items()}
        found["host"] = self.module
        for name, module in self.once.stages.items() if self.once else ():
            found[name] = Module((*found[name].functions, *module.functions))
        return found

    @property
    def module(self) -> Module:
        """The program: the host function and the kernels that it launches."""
        return self.joined.module


def lower(function: Function, setting: Setting) -> Journey:
    """Bring a graph down to its host function and tiled kernels.

    The setting's hints are sizes that symbols are likely to have; code is right for
    all.
    """
    functions: dict[str, Function] = {"graph": function}
    apart: list[Function] = []
    for each in PASSES.values():
        if each.stage:
            function, *more = each.run(function, setting)
            functions[each.stage] = function
            apart += more
    once = [_lowered({"frozen": each}, setting) for each in apart]
    return replace(_lowered(functions, setting), once=next(iter(once), None))


def scheduled_anew(journey: Journey, setting: Setting) -> Journey:
    """The same loops as kernels by the schedules that a setting chooses; what is made
    once stays."""
    return replace(_lowered(journey.functions, setting), once=journey.once)


def _lowered(functions: Mapping[str, Function], setting: Setting) -> Journey:
    """The last part of the way, from the loops."""
    lowered = lowered_by(functions["frozen"], setting)
    kernels = lowered.kernels.items()
    laid_out = {name: assign_layouts(kernel.function) for name, kernel in kernels}
    joined = join_launches(lowered, laid_out, setting.target, setting.hints)
    return Journey(functions, lowered, laid_out, joined, setting)
