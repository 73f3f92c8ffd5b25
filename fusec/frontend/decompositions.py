"""Which ATen ops AOTAutograd takes apart before fusec sees the graph.

torch's own table for the core ATen set, minus ops that are better kept whole: either
the intake says in a few ops what the table says in many, or ATen has a kernel that
the parts cannot match.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from fusec.frontend import foreach
from fusec.frontend.torch_private import OpOverload, core_aten_decompositions

aten = torch.ops.aten

_KEPT_WHOLE: tuple[Any, ...] = (
    # ATen's kernels: the parts would be many and slower.
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten.baddbmm,
    aten.embedding_dense_backward,
    aten.index_add,
    # The intake's own forms: fewer ops, and eager's order of rounding.
    aten._log_softmax_backward_data,
    aten._softmax_backward_data,
    aten.addcdiv,
    aten.addcmul,
    aten.hardsigmoid,
    aten.hardswish,
    aten.lerp,
    aten.masked_fill,
    aten.select_scatter,
    aten.sigmoid_backward,
    aten.silu,
    aten.silu_backward,
    aten.softplus,
    aten.sum,
    aten.take,
    aten.tanh_backward,
    aten.threshold_backward,
)


@cache
def _table() -> dict[Any, Callable[..., Any]]:
    kept = set(_KEPT_WHOLE)
    full = core_aten_decompositions()
    table = {op: rule for op, rule in full.items() if _packet(op) not in kept}
    return table | foreach.decompositions()


def _packet(op: Any) -> Any:
    return op.overloadpacket if isinstance(op, OpOverload) else op


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table for AOTAutograd; a fresh copy, as AOTAutograd may change it."""
    return dict(_table())
