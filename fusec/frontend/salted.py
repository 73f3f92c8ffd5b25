"""torch's cache of AOTAutograd's work, for graphs that fusec compiles.

The cache finds entries by a hash of Dynamo's graph, the forms of its inputs, and
torch's version and settings. What else a compiled graph depends on is the salt, an
attribute of the graph while its key is made:

    with salted(gm, inputs, salt) as keep:
        aot_module_simplified(gm, inputs, fw_compiler=keep(compile), …)

An entry holds the forward and the backward pass, so both are compiled at once, not the
backward pass where it is first run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from fusec.frontend.torch_private import (
    OpOverload,
    OpOverloadPacket,
    OutputCode,
    SerializableAOTDispatchCompiler,
    functorch_config,
    keys_of_ours,
)

Keep = Callable[[Callable[..., Any]], Any]


@contextmanager
def salted(gm: Any, inputs: Sequence[Any], salt: str | None) -> Iterator[Keep]:
    """Use torch's cache inside; `keep` marks a compiler whose results it may hold.

    Without a salt the cache is not used, unless torch insists as it makes a package;
    nor is it where an entry would not have all that guards it, nor where what a graph
    does is not in its key.
    """
    places = _shared(inputs)
    guarded = bool(places) and any(map(_varies, inputs))
    # A graph with module inputs comes wrapped.
    graph = getattr(gm, "gm", gm)
    kept = salt is not None and not guarded and not _has_custom_ops(graph)
    if not kept and not functorch_config.force_autograd_cache:
        yield lambda compiler: compiler
        return
    graph.fusec_salt = salt, _lines(graph), places
    settings = {
        "bundled_autograd_cache": True,
        "force_non_lazy_backward_lowering": True,
    }
    try:
        with functorch_config.patch(settings), keys_of_ours():
            yield lambda compiler: SerializableAOTDispatchCompiler(OutputCode, compiler)
    finally:
        del graph.fusec_salt


def _shared(inputs: Sequence[Any]) -> list[tuple[int, int, str]]:
    """The inputs that share memory with others: which, with whom, from which element.

    What a graph does to one of them shows in the others, and is compiled so.
    """
    owners: dict[int, list[int]] = {}
    for k, x in enumerate(inputs):
        if isinstance(x, torch.Tensor) and x.layout is torch.strided:
            owners.setdefault(_memory(x), []).append(k)
    groups = [group for group in owners.values() if len(group) > 1]
    return [(k, ks[0], str(inputs[k].storage_offset())) for ks in groups for k in ks]


def _memory(x: torch.Tensor) -> int:
    try:
        return x.untyped_storage()._cdata
    except NotImplementedError:  # a subclass has its memory in other tensors
        return id(x)


def _varies(x: Any) -> bool:
    """Whether a size of an input is a symbol.

    torch then guards that inputs which it found apart do not overlap later; an entry of
    its cache lacks that guard.
    """
    if not isinstance(x, torch.Tensor):
        return isinstance(x, torch.SymInt)
    sizes = *x.shape, *(x.stride() if x.layout is torch.strided else ())
    return any(isinstance(n, torch.SymInt) for n in sizes)


_NAMESPACES = frozenset({"aten", "prims", "prim", "quantized", "_c10d_functional"})
"""Of operators that change with torch's version only."""


def _has_custom_ops(gm: Any) -> bool:
    """Whether a graph has operators of the user's, of which the key has the names.

    Python code says how they are differentiated, and what they give for tracing.
    """
    ops = (
        n.target
        for n in _nodes(gm)
        if isinstance(n.target, OpOverload | OpOverloadPacket)
    )
    return any(str(op).partition(".")[0] not in _NAMESPACES for op in ops)


def _nodes(gm: Any) -> Iterator[Any]:
    """The nodes of a graph, and of those that it calls."""
    for module in gm.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield from module.graph.nodes


def _lines(gm: Any) -> list[str]:
    """Where the user wrote what may raise an error of ours: what reads integers, which
    may be indices out of range or zeros to divide by. The error names the line."""
    return [n.meta.get("stack_trace", "") for n in _nodes(gm) if _reads_integers(n)]


def _reads_integers(node: Any) -> bool:
    indexes = node.target in (operator.getitem, operator.setitem)
    if indexes and any(map(_is_list, tree_leaves(node.args, is_leaf=_is_list))):
        return True
    return any(map(_is_integer, node.all_input_nodes))


def _is_list(index: Any) -> bool:
    return isinstance(index, list)


def _is_integer(node: Any) -> bool:
    value = node.meta.get("example_value")
    return isinstance(value, torch.Tensor) and not value.dtype.is_floating_point
