"""AOTAutograd, called: from Dynamo's graphs to callables for torch.

    Dynamo's graph ─AOTAutograd─▶ inference, forward, backward graphs of ATen ops
                                    └─ each: compile ─▶ a boxed callable

AOTAutograd calls a *boxed* callable with a list of arguments, which the callee empties
so that each can be freed after its last use. What it made before, in this process or
another, it finds in its cache (see `salted`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import fx

from fusec.frontend.decompositions import decompositions
from fusec.frontend.outputs import Program
from fusec.frontend.partition import partition
from fusec.frontend.salted import salted
from fusec.frontend.torch_private import (
    TracingContext,
    aot_module_simplified,
    counters,
    flatten_graph_inputs,
)


class Compile(Protocol):
    """Makes a boxed callable of a graph of ATen ops (see `aten_graph`)."""

    def __call__(
        self, gm: fx.GraphModule, example_inputs: Sequence[Any], role: str
    ) -> Program:
        """`role` is "inference", "forward" or "backward"."""
        ...


def compile_dynamo_graph(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    compile: Compile,
    salt: str | None = None,
) -> Callable[..., Any]:
    """What a torch.compile backend returns for a graph of Dynamo's.

    `compile` is called for each graph that AOTAutograd derives from it. With a `salt`,
    callables are looked for in torch's cache first, and kept there. Raises what
    `compile` raises.
    """

    if any(isinstance(x, (list, tuple, dict)) for x in example_inputs):
        # Compiled autograd gives a list of what the backward pass saved.
        make = partial(compile_dynamo_graph, compile=compile, salt=salt)
        return flatten_graph_inputs(gm, example_inputs, make)

    def backward(gm: fx.GraphModule, examples: Sequence[Any]) -> Callable[..., Any]:
        _donate_nothing()
        return _untraced(compile(gm, examples, "backward"))

    # Dynamo looks here whether AOTAutograd ran, when it splits the graphs of DDP.
    counters["aot_autograd"]["total"] += 1
    with salted(gm, example_inputs, salt) as keep:
        made = aot_module_simplified(
            gm,
            list(example_inputs),
            fw_compiler=keep(partial(compile, role="forward")),
            bw_compiler=_untraced(backward),  # type: ignore[arg-type]
            inference_compiler=keep(partial(compile, role="inference")),
            partition_fn=partition,
            decompositions=decompositions,  # type: ignore[arg-type]
            keep_inference_input_mutations=True,
        )
    counters["aot_autograd"]["ok"] += 1
    return made


def _donate_nothing() -> None:
    """Tell AOTAutograd that a backward pass leaves saved tensors as they are.

    It would let the pass write over those that nobody else sees, and then refuse to run
    it twice, as `backward(retain_graph=True)` asks.
    """
    context = TracingContext.try_get()
    if context is not None and context.fw_metadata is not None:
        context.fw_metadata.bw_donated_idxs = []


def _untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of ours that Dynamo does not trace.

    A backward pass is compiled, and runs, where the user calls `backward`. Where that
    is in a compiled function, Dynamo looks for graphs in all that runs there.
    """
    return torch.compiler.disable(function, reason="it belongs to fusec")
