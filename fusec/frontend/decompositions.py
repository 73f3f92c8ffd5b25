"""Which ATen ops AOTAutograd takes apart before fusec sees the graph.

torch's own table for the core ATen set, minus ops that are better kept whole: either
the intake says in a few ops what the table says in many, or ATen has a kernel that
the parts cannot match.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import torch

from fusec.frontend import foreach
from fusec.frontend.torch_private import OpOverload, core_aten_decompositions

aten = torch.ops.aten

_KEPT_WHOLE = (
    # ATen's kernels: the parts would be many and slower.
    "_scaled_dot_product_flash_attention_for_cpu",
    "baddbmm",
    "embedding_dense_backward",
    "index_add",
    # The intake's own forms: fewer ops, and eager's order of rounding.
    "_log_softmax_backward_data",
    "_softmax_backward_data",
    "addcdiv",
    "addcmul",
    "hardsigmoid",
    "hardswish",
    "huber_loss",
    "huber_loss_backward",
    "index_fill",
    "lerp",
    "masked_fill",
    "mse_loss",
    "mse_loss_backward",
    "roll",
    "select_scatter",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "smooth_l1_loss",
    "smooth_l1_loss_backward",
    "softplus",
    "sum",
    "take",
    "tanh_backward",
    "threshold_backward",
)


class _Table(Mapping[Any, Callable[..., Any]]):
    """Made when it is first read: a graph from a cache needs none."""

    def __getitem__(self, op: Any) -> Callable[..., Any]:
        return _table()[op]

    def __iter__(self) -> Iterator[Any]:
        return iter(_table())

    def __len__(self) -> int:
        return len(_table())


decompositions = _Table()
"""The table for AOTAutograd, which copies it."""


@cache
def _table() -> dict[Any, Callable[..., Any]]:
    kept = {getattr(aten, name) for name in _KEPT_WHOLE}
    full = core_aten_decompositions()
    table = {op: rule for op, rule in full.items() if _packet(op) not in kept}
    return table | foreach.decompositions() | {aten._unique.default: _unique}


def _unique(x: Any, sorted: bool = True, return_inverse: bool = False) -> Any:
    """Before torch 2.13, only the other form has a size that the call finds out."""
    return aten._unique2(x, sorted, return_inverse)[:2]


def _packet(op: Any) -> Any:
    return op.overloadpacket if isinstance(op, OpOverload) else op
