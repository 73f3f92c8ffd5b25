"""AOTAutograd around the intake: from Dynamo's graphs to callables for torch.

    Dynamo's graph ─AOTAutograd─▶ inference, forward, backward graphs of ATen ops
                                    └─ each: import_graph ─▶ compile ─▶ a boxed callable

AOTAutograd calls a *boxed* callable with a list of arguments, which the callee empties
so that each can be freed after its last use.

A graph that fusec cannot take in, or fails on, still runs: through ATen, as traced.
The first is said once for each reason; the second is a bug, said each time, and leaves
a file that reproduces it.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from types import FunctionType
from typing import Any

import torch
from torch import fx

from fusec.errors import InternalError, Unsupported, UnsupportedError, UserError
from fusec.frontend.decompositions import decompositions
from fusec.frontend.intake import Imported, import_graph
from fusec.frontend.meta import leaves, loc_of
from fusec.frontend.outputs import Program, deliver
from fusec.frontend.reproducer import write_reproducer
from fusec.frontend.torch_private import (
    aot_module_simplified,
    counters,
    min_cut_rematerialization_partition,
    unset_fake_temporarily,
)
from fusec.logs import logger
from fusec.options import Options

Compile = Callable[[Imported], Program]


def boxed(run: Program) -> Program:
    """A program that AOTAutograd may call with a list of arguments.

    It looks for a mark on the callable itself, not on its class.
    """
    call = run if isinstance(run, FunctionType) else lambda arguments: run(arguments)
    call._boxed_call = True  # type: ignore[attr-defined]
    return call


def compile_dynamo_graph(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    compile: Compile,
    options: Options,
) -> Callable[..., Any]:
    """What a torch.compile backend returns for a graph of Dynamo's.

    `compile` makes a program of each graph that AOTAutograd derives from it. Raises
    `UnsupportedError` if `options.fallback` forbids to run some op through ATen.
    """

    def compiler(role: str) -> Callable[[fx.GraphModule, Sequence[Any]], Program]:
        return partial(compile_aten_graph, compile=compile, options=options, role=role)

    def backward(gm: fx.GraphModule, examples: Sequence[Any]) -> Callable[..., Any]:
        return _untraced(compiler("backward")(gm, examples))

    # Dynamo looks here whether AOTAutograd ran, when it splits the graphs of DDP.
    counters["aot_autograd"]["total"] += 1
    compiled = aot_module_simplified(
        gm,
        list(example_inputs),
        fw_compiler=compiler("forward"),  # type: ignore[arg-type]
        bw_compiler=_untraced(backward),  # type: ignore[arg-type]
        inference_compiler=compiler("inference"),  # type: ignore[arg-type]
        partition_fn=min_cut_rematerialization_partition,
        decompositions=decompositions(),
        keep_inference_input_mutations=True,
    )
    counters["aot_autograd"]["ok"] += 1
    return compiled


def _untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of ours that Dynamo does not trace.

    A backward pass is compiled, and runs, where the user calls `backward`. Where that
    is in a compiled function, Dynamo looks for graphs in all that runs there.
    """
    return torch.compiler.disable(function, reason="it belongs to fusec")


def compile_aten_graph(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    compile: Compile,
    options: Options,
    role: str,
) -> Program:
    """A boxed callable for one graph of ATen ops. Raises as `compile_dynamo_graph`."""
    try:
        # torch compiles amid fake tensors; constants and compiled programs are real.
        with unset_fake_temporarily(), _uncollected():
            return _compiled(gm, example_inputs, compile, options, role)
    except UnsupportedError as error:
        if not options.fallback:
            raise
        why = "".join(f"\n  {thing}" for thing in error.things)
        _say_once(f"this {role} graph runs through ATen, as fusec lacks{why}")
    except UserError:
        raise
    except Exception as error:
        _report_bug(gm, example_inputs, role, options, error)
    return boxed(_through_aten(gm))


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
) -> Program:
    _check_devices(gm)
    imported = import_graph(gm, example_inputs, name=role, numerics=options.numerics)
    if imported.fallbacks and not options.fallback:
        raise UnsupportedError(imported.fallbacks)
    program = deliver(compile(imported), imported.outputs)
    return boxed(_resolved(program) if role == "backward" else program)


def _resolved(program: Program) -> Program:
    """A program for gradients, which may come as lazy negations of their memory.

    Of other arguments torch checks that they are as they were when traced.
    """

    def run(arguments: list[Any]) -> list[Any]:
        for k, x in enumerate(arguments):
            if isinstance(x, torch.Tensor) and x.is_neg():
                arguments[k] = x.resolve_neg()
        return program(arguments)

    return run


def _check_devices(gm: fx.GraphModule) -> None:
    for node in gm.graph.nodes:
        for leaf in leaves(node.meta.get("val")):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "cpu":
                thing = f"a tensor on {leaf.device}"
                reason = "fusec compiles for the CPU only"
                raise UnsupportedError([Unsupported(thing, reason, loc_of(node))])


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
) -> None:
    """Write a reproducer, and warn; `InternalError` instead if fallback is off."""
    path = _reproducer(gm, example_inputs, options, error)
    ours = isinstance(error, InternalError)
    what = error.what if ours else f"{type(error).__name__}: {error}"
    bug = InternalError(f"{what} (in a {role} graph)", reproducer=path)
    if not options.fallback:
        raise bug from error
    logger("graph").warning("%s\n  the graph runs through ATen instead", bug)
    logger("graph").debug("%s", "".join(traceback.format_exception(error)))


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


@cache
def _say_once(message: str) -> None:
    logger("graph").warning("%s", message)


def forget_warnings() -> None:
    """Say again what was said."""
    _say_once.cache_clear()
