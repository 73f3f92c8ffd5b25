"""Which values a backward pass keeps, and which it computes anew.

torch's minimum cut decides that by size. What is compared is kept, whatever its size:
the gradient of a maximum goes to the elements that are equal to it,

    m = amax(y)          forward:  keeps m, and y or whether y = m
    g * (y == m)         backward

and y computed anew, in another kernel or with digits that were rounded away where it
was stored, may be equal to m nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.utils.checkpoint import CheckpointPolicy

from fusec.frontend.torch_private import (
    OpOverload,
    min_cut_rematerialization_partition,
)

aten = torch.ops.aten

# Where a value is less than another, a last digit decides nothing that matters.
_COMPARISONS = frozenset((aten.eq.Tensor, aten.ne.Tensor))


def partition(
    joint: fx.GraphModule, inputs: Sequence[Any], **facts: Any
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The forward and the backward graph of a joint graph of AOTAutograd's."""
    for node in joint.graph.nodes:
        if node.target in _COMPARISONS:
            for value in map(_base, node.all_input_nodes):
                if _is_float(value):
                    # Unless the user's checkpointing says otherwise.
                    value.meta.setdefault("recompute", CheckpointPolicy.MUST_SAVE)
    return min_cut_rematerialization_partition(joint, inputs, **facts)


def _base(node: fx.Node) -> fx.Node:
    """What a node is a view of."""
    while isinstance(node.target, OpOverload) and node.target.is_view:
        node = node.all_input_nodes[0]
    return node


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()
