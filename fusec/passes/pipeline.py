"""The passes in their order: the table of contents of the compiler.

    graph ── lower_to_loops ──▶ loop ── fuse ──▶ loop ── recompute ──▶ loop
    loop  ── call_libraries ──▶ loop ── split_reductions ──▶ loop
    loop  ── copy_updated ──▶ loop ── freeze ──▶ loop
    loop  ── lower_to_host ──▶ host + tile
    tile  ── assign_layouts ──▶ tile ── stripmine ──▶ tile ── expand ──▶ tile

`lower_to_host` chooses a schedule for each region and has `tile` make it a kernel. By
name, on any module:

    module = run(parse_module(text), ["lower_to_loops", "fuse"], Setting(target, …))
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType

from fusec.analysis.candidates import Choices, no_choices
from fusec.analysis.staging import kept
from fusec.errors import OptionError, UserError
from fusec.ir.core import Function, Level, Module
from fusec.ir.dims import Symbol
from fusec.ir.ops.tile import For, Part
from fusec.ir.verifier import verify
from fusec.passes.assign_layouts import assign_layouts
from fusec.passes.call_libraries import call_libraries
from fusec.passes.copy_updated import copy_updated
from fusec.passes.expand import Supports, expand
from fusec.passes.freeze import freeze
from fusec.passes.fuse import fuse
from fusec.passes.lower_to_host import Lowered, lower_to_host
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.passes.recompute import recompute
from fusec.passes.split_reductions import split_reductions
from fusec.passes.stripmine import stripmine
from fusec.target import Target


@dataclass(frozen=True, slots=True)
class Setting:
    """What a pass is told besides the function."""

    target: Target
    supports: Supports
    """The ops that the backend has rows for."""
    hints: Mapping[Symbol, int] = field(default_factory=dict[Symbol, int])
    """Likely values of symbols, to choose schedules by."""
    choices: Choices = no_choices
    """The schedules that were measured to be the best, of regions where that is so."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass as the table has it: which functions it takes, what becomes of one."""

    level: Level
    function: Callable[..., object]
    """The pass itself; its module's docstring begins with its promise."""
    run: Callable[[Function, Setting], tuple[Function, ...]]
    stage: str = ""
    """What a graph is called after it: those that have a stage run on every graph, in
    the order of the table, before it becomes kernels."""

    @property
    def promise(self) -> str:
        """What the pass does, in one sentence."""
        text = sys.modules[self.function.__module__].__doc__ or ""
        return " ".join(text.partition("\n\n")[0].split()).rstrip(":.")


def lower_kernel(function: Function, target: Target, supports: Supports) -> Function:
    """A kernel in the form that a backend takes which leaves no register to others."""
    return expand(stripmined(assign_layouts(function), target), supports)


def run(module: Module, names: Iterable[str], setting: Setting) -> Module:
    """The module after these passes, each checked.

    A pass takes the functions of its level and leaves the others. Raises `OptionError`
    for a name that is no pass's, `UserError` where a pass finds no function to take,
    `VerificationError` where the module is not valid before or after a pass.
    """
    chosen = [(name, _named(name)) for name in names]
    verify(module)
    for name, each in chosen:
        module = _apply(name, each, module, setting)
        verify(module)
    return module


def _apply(name: str, each: Pass, module: Module, setting: Setting) -> Module:
    levels = [function.level for function in module.functions]
    if each.level not in levels:
        found = ", ".join(sorted({level.value for level in levels})) or "no"
        raise UserError(
            f"{name} takes {each.level.value} functions; here are {found} functions",
            fix="`fusec opt --list` tells which level each pass takes",
        )
    functions: list[Function] = []
    for function in module.functions:
        taken = function.level is each.level
        functions += each.run(function, setting) if taken else (function,)
    return Module(tuple(functions))


def _named(name: str) -> Pass:
    if name in PASSES:
        return PASSES[name]
    close = get_close_matches(name, PASSES, n=2)
    guess = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    known = f"the passes are {', '.join(PASSES)}"
    raise OptionError(f"fusec has no pass {name!r}", fix=guess + known)


def lowered_by(function: Function, setting: Setting) -> Lowered:
    """The host function and kernels of a loop function."""
    return lower_to_host(function, setting.target, setting.hints, setting.choices)


def stripmined(function: Function, target: Target) -> Function:
    """A kernel with loops, dear values kept from sweep to sweep."""
    if any(isinstance(op, (For, Part)) for op in function.body.ops):
        return function  # a file may hold kernels that have their loops
    return stripmine(function, kept(function, target), peel=target.peels)


PASSES: Mapping[str, Pass] = MappingProxyType(
    {
        "lower_to_loops": Pass(
            Level.GRAPH, lower_to_loops, lambda f, setting: (lower_to_loops(f),), "loop"
        ),
        "fuse": Pass(
            Level.LOOP,
            fuse,
            lambda f, setting: (fuse(f, setting.target, setting.hints),),
            "fused",
        ),
        "recompute": Pass(
            Level.LOOP,
            recompute,
            lambda f, setting: (recompute(f, setting.target, setting.hints),),
            "recomputed",
        ),
        "call_libraries": Pass(
            Level.LOOP,
            call_libraries,
            lambda f, setting: (call_libraries(f, setting.target, setting.hints),),
            "called",
        ),
        "split_reductions": Pass(
            Level.LOOP,
            split_reductions,
            lambda f, setting: (split_reductions(f, setting.target, setting.hints),),
            "split",
        ),
        "copy_updated": Pass(
            Level.LOOP,
            copy_updated,
            lambda f, setting: (copy_updated(f),),
            "owned",
        ),
        "freeze": Pass(
            Level.LOOP,
            freeze,
            lambda f, setting: freeze(f, setting.target, setting.hints),
            "frozen",
        ),
        "lower_to_host": Pass(
            Level.LOOP,
            lower_to_host,
            lambda f, setting: lowered_by(f, setting).module.functions,
        ),
        "assign_layouts": Pass(
            Level.TILE, assign_layouts, lambda f, setting: (assign_layouts(f),)
        ),
        "stripmine": Pass(
            Level.TILE, stripmine, lambda f, setting: (stripmined(f, setting.target),)
        ),
        "expand": Pass(
            Level.TILE, expand, lambda f, setting: (expand(f, setting.supports),)
        ),
    }
)
"""Every pass that a text can be put through, in the order of the journey."""
