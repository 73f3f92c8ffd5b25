"""One graph of ATen ops, from AOTAutograd: taken in, compiled, or run as it is.

    graph ─▶ import_graph ─▶ compile ─▶ a boxed callable

A graph that fusec cannot take in, or fails on, still runs: through ATen, as traced.
The first is said once for each reason; the second is a bug, said each time, and leaves
a file that reproduces it.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx

from fusec.errors import InternalError, Unsupported, UnsupportedError, UserError
from fusec.frontend.capturable import left, planned
from fusec.frontend.compiled import CompiledGraph, Made, boxed, compiled
from fusec.frontend.cudagraphs import Passes
from fusec.frontend.intake import Imported, Targets, import_graph
from fusec.frontend.meta import leaves, loc_of
from fusec.frontend.outputs import Program
from fusec.frontend.reproducer import write_reproducer
from fusec.frontend.torch_private import static_inputs, unset_fake_temporarily
from fusec.logs import logger, warn_once
from fusec.options import Options

_NOT_FROZEN = """nothing is frozen of graphs on {}: their weights are read as they lie
  help: leave freeze out"""
Compile = Callable[[Imported], Made]
Tell = Callable[[str, str], None]
"""Is told of a graph that runs through ATen: which, and why."""


def compile_aten_graph(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    role: str,
    *,
    compile: Compile,
    options: Options,
    target: Targets | None = None,
    passes: Passes | None = None,
    tell: Tell = lambda _, why: None,
) -> Program:
    """A boxed callable for one graph of ATen ops; `compile` makes the program, for the
    `target` that a device is.

    With `passes`, which the graphs of one of Dynamo's share, its launches are captured
    as a CUDA graph, if the options ask for it and that can be.

    Raises `UnsupportedError` if `options.fallback` forbids to run some op through ATen,
    and `InternalError` if it forbids to live with a bug.
    """
    try:
        # torch compiles amid fake tensors; constants and compiled programs are real.
        with unset_fake_temporarily(), _uncollected():
            return _compiled(gm, example_inputs, compile, options, role, target, passes)
    except UnsupportedError as error:
        if not options.fallback:
            raise
        why = "".join(f"\n  {thing}" for thing in error.things)
        warn_once("graph", f"this {role} graph runs through ATen, as fusec lacks{why}")
        tell(role, f"fusec lacks {'; '.join(map(str, error.things))}")
    except UserError:
        raise
    except Exception as error:
        bug = _report_bug(gm, example_inputs, role, options, error)
        tell(role, f"a bug in fusec: {bug.what}")
    run, told = _through_aten(gm), left(role, passes) if passes else None
    return boxed(told.around(run) if told else run, CompiledGraph())


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles: compiling makes none, but so many objects that
    it would go through all of torch's again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _compiled(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    compile: Compile,
    options: Options,
    role: str,
    target: Targets | None,
    passes: Passes | None,
) -> Program:
    _check_memory(gm)
    frozen = static_inputs() if options.freeze and role == "inference" else ()
    imported = import_graph(
        gm,
        example_inputs,
        name=role,
        numerics=options.numerics,
        frozen=frozen,
        target=target,
    )
    if frozen and imported.device != "cpu":
        warn_once("graph", _NOT_FROZEN.format(imported.device))
    if imported.fallbacks and not options.fallback:
        raise UnsupportedError(imported.fallbacks)
    made = compile(imported)
    # Gradients come as they like; other arguments as they were when traced.
    backward = role == "backward"
    negated = backward or any(map(_is_negated, gm.graph.nodes))
    capture = planned(role, gm, imported, options, passes) if passes else None
    return compiled(
        made, imported.outputs, backward=backward, negated=negated, capture=capture
    )


def _check_memory(gm: fx.GraphModule) -> None:
    for node in gm.graph.nodes:
        for leaf in leaves(node.meta.get("val")):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "meta":
                thing, why = f"a tensor on {leaf.device}", "it has no memory"
                raise UnsupportedError([Unsupported(thing, why, loc_of(node))])


def _is_negated(node: fx.Node) -> bool:
    value = node.meta.get("val") if node.op == "placeholder" else None
    return isinstance(value, torch.Tensor) and value.is_neg()


def _through_aten(gm: fx.GraphModule) -> Program:
    def run(arguments: list[Any]) -> list[Any]:
        values = list(arguments)
        arguments.clear()
        return gm.forward(*values)

    return run


def _report_bug(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    role: str,
    options: Options,
    error: Exception,
) -> InternalError:
    """Write a reproducer, and warn; `InternalError` instead if fallback is off."""
    path = _reproducer(gm, example_inputs, options, error)
    ours = isinstance(error, InternalError)
    what = error.what if ours else f"{type(error).__name__}: {error}"
    bug = InternalError(f"{what} (in the {role} graph)", reproducer=path)
    if not options.fallback:
        raise bug from error
    logger("graph").warning("%s\n  the graph runs through ATen instead", bug)
    logger("graph").debug("%s", "".join(traceback.format_exception(error)))
    return bug


def _reproducer(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    options: Options,
    error: Exception,
) -> str:
    """The path of a reproducer; "" where none can be written, which stops nobody."""
    try:
        return str(write_reproducer(gm, example_inputs, options.cache_dir, error))
    except Exception as failure:
        logger("graph").warning("no reproducer could be written: %s", failure)
        return ""
