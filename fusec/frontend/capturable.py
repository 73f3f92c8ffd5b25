"""Which graphs can be captured as CUDA graphs, and how each is.

    planned("inference", gm, imported, …)   →   Capture(device=0, static=(1, 2), …)
                                                or None, and the log says why

What is captured are launches on one GPU. A graph that does more in each call, such as
to wait for a number that the GPU computed, or to read memory of the CPU, runs as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from fusec.errors import Unsupported
from fusec.frontend.cudagraphs import Capture, Passes, Told
from fusec.frontend.intake import Imported
from fusec.frontend.meta import loc_of, symints
from fusec.frontend.torch_private import (
    CudaGraphs,
    HigherOrderOperator,
    cuda_graphs,
    returned_by_forward,
    static_inputs,
)
from fusec.logs import warn_once
from fusec.options import Options

KIND = "cuda"
"""The kind of device whose launches are captured, as torch names it."""
_IDLE = """cudagraphs, or mode="reduce-overhead", changes nothing for a graph on {}:
launches are captured on CUDA only
  help: leave it out, or move the model to a GPU"""
_WAITING = frozenset(("aten._linalg_check_errors", "aten._local_scalar_dense"))
"""Ops that wait for the GPU, of which torch does not say so."""
_GRADIENTS = "tangents", "bwd_seed", "bwd_base_offset", "bwd_rng_state"
"""How torch names the arguments of a backward pass that its forward pass did not keep.
"""


def planned(
    role: str, gm: fx.GraphModule, imported: Imported, options: Options, passes: Passes
) -> Capture | Told | None:
    """How a graph of ATen ops that was taken in is captured. Where it is not though the
    options ask for it, the log says why, once; it is then to be run by `around`, if the
    answer has one."""
    if not options.cudagraphs or (role == "backward" and passes.captured is None):
        return None
    device = torch.device(imported.device)
    if device.type != KIND:
        if not options.tune:  # else a mode stands for both, and is not in vain
            warn_once("graph", _IDLE.format(device.type))
        return None
    graphs = cuda_graphs()
    reason = "this torch captures in a way that fusec does not know"
    if graphs is not None:
        reason = _refusal(role, gm, imported, options, graphs)
        if not reason:
            return _capture(role, gm, imported, graphs, passes)
    warn_once("graph", f"this {role} graph is not captured as a CUDA graph: {reason}")
    return left(role, passes)


def left(role: str, passes: Passes) -> Told | None:
    """What a graph that is not captured needs."""
    if role == "backward" and passes.captured is not None:
        return Told(passes.captured)
    return None


def _capture(
    role: str,
    gm: fx.GraphModule,
    imported: Imported,
    graphs: CudaGraphs,
    passes: Passes,
) -> Capture:
    number = torch.device(imported.device).index
    assert number is not None
    returned = len(imported.outputs)
    if role == "forward":
        passes.captured, returned = number, returned_by_forward()
    names = [node.name for node in _placeholders(gm)]
    kept = (k for k, name in enumerate(names) if not name.startswith(_GRADIENTS))
    return Capture(
        device=number,
        role=role,
        static=tuple(kept) if role == "backward" else static_inputs(),
        overwritten=_overwritten(imported),
        returned=0 if role == "backward" else returned,
        placeholders=tuple(graphs.placeholders(gm.graph)),
        lines=tuple(getattr(x, "stack_trace", None) for x in _outputs(gm)),
    )


def _overwritten(imported: Imported) -> tuple[int, ...]:
    return tuple(k for k in imported.function.returns_into if k is not None)


def _refusal(
    role: str,
    gm: fx.GraphModule,
    imported: Imported,
    options: Options,
    graphs: CudaGraphs,
) -> str:
    """What keeps a graph from being captured, or ""."""
    if options.verify:
        return "verify=True looks at what each call computes"
    if not imported.function.body.ops:
        return "it launches nothing"
    if imported.elsewhere is not None:
        return str(imported.elsewhere)
    if role == "forward" and not set(static_inputs()).issuperset(
        _overwritten(imported)
    ):
        return "it writes to an argument that is no parameter or buffer"
    for thing in (*_strangers(gm), *_open_sizes(gm, graphs), *_calls(gm, graphs)):
        return str(thing)
    return ""


def _strangers(gm: fx.GraphModule) -> Iterator[Unsupported]:
    """The arguments and results that a replay cannot have."""
    for node in (*_placeholders(gm), *_outputs(gm)):
        value = node.meta.get("val") if isinstance(node, fx.Node) else node
        if isinstance(value, torch.Tensor):
            if value.layout is not torch.strided:
                yield _of(node, f"its layout is {value.layout}")
        elif not isinstance(value, (int, torch.SymInt, type(None))):
            kind = type(value).__name__
            yield _of(node, f"a {kind} is neither a tensor nor a size")


def _open_sizes(gm: fx.GraphModule, graphs: CudaGraphs) -> Iterator[Unsupported]:
    """The arguments with a size whose value no argument tells by itself: graphs are
    captured for each value that these have."""
    told: set[Any] = set()
    for node in _placeholders(gm):
        if not isinstance(node.meta["val"], torch.Tensor):
            told.update(_symbols(node))
    for node in _placeholders(gm):
        if not told.issuperset(_symbols(node)):
            yield _of(node, "no argument tells one of its sizes")
        elif graphs.skips_open_sizes and _symbols(node):
            setting = "torch._inductor.config.triton.cudagraph_skip_dynamic_graphs"
            yield _of(node, f"its sizes vary, and {setting} is set")


def _symbols(node: fx.Node) -> set[Any]:
    sizes = symints(node.meta["val"])
    return {symbol for size in sizes for symbol in size.node.expr.free_symbols}


def _calls(gm: fx.GraphModule, graphs: CudaGraphs) -> Iterator[Unsupported]:
    """The calls that do more than launch, or may."""
    for node in gm.graph.nodes:
        if isinstance(node.target, HigherOrderOperator):
            yield _of(node, "what it does only its call finds out")
        elif str(node.target).rpartition(".")[0] in _WAITING:
            yield _of(node, "it waits for the GPU")
    node = graphs.incompatible(gm)
    if node is not None:
        yield _of(node, "torch says that it cannot be captured")


def _of(node: Any, reason: str) -> Unsupported:
    if not isinstance(node, fx.Node):
        return Unsupported(f"a result {node!r}", reason)
    what = node.name if node.op == "placeholder" else str(node.target)
    return Unsupported(what, reason, loc_of(node))


def _placeholders(gm: fx.GraphModule) -> Sequence[fx.Node]:
    return gm.graph.find_nodes(op="placeholder")


def _outputs(gm: fx.GraphModule) -> Sequence[Any]:
    (node,) = gm.graph.find_nodes(op="output")
    return node.args[0]
