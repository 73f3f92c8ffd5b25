"""torch's cache of AOTAutograd's work, for graphs that fusec compiles.

The cache finds entries by a hash of Dynamo's graph, the forms of its inputs, and
torch's version and settings. What else a compiled graph depends on is the salt, an
attribute of the graph while its key is made:

    with salted(gm, salt) as keep:
        aot_module_simplified(gm, inputs, fw_compiler=keep(compile), …)

An entry holds the forward and the backward pass, so both are compiled at once, not the
backward pass where it is first run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fusec.frontend.torch_private import (
    OutputCode,
    SerializableAOTDispatchCompiler,
    functorch_config,
    keys_of_ours,
)

Keep = Callable[[Callable[..., Any]], Any]


@contextmanager
def salted(gm: Any, salt: str | None) -> Iterator[Keep]:
    """Use torch's cache inside; `keep` marks a compiler whose results it may hold.

    Without a salt the cache is not used, unless torch insists as it makes a package.
    """
    if salt is None and not functorch_config.force_autograd_cache:
        yield lambda compiler: compiler
        return
    # A graph with module inputs comes wrapped.
    graph = getattr(gm, "gm", gm)
    graph.fusec_salt = salt, _lines(graph)
    settings = {
        "bundled_autograd_cache": True,
        "force_non_lazy_backward_lowering": True,
    }
    try:
        with functorch_config.patch(settings), keys_of_ours():
            yield lambda compiler: SerializableAOTDispatchCompiler(OutputCode, compiler)
    finally:
        del graph.fusec_salt


def _lines(gm: Any) -> list[str]:
    """Where the user wrote what may raise an error of ours: what reads integers, which
    may be indices out of range or zeros to divide by. The error names the line."""
    readers = (n for n in gm.graph.nodes if any(map(_is_integer, n.all_input_nodes)))
    return [node.meta.get("stack_trace", "") for node in readers]


def _is_integer(node: Any) -> bool:
    value = node.meta.get("example_value")
    return isinstance(value, torch.Tensor) and not value.dtype.is_floating_point
