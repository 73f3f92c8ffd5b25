"""`_foreach_` ops: what an optimizer does to a list of tensors, tensor by tensor.

    _foreach_add(xs, ys, alpha=2)   →   [add(x, y, alpha=2) for x, y in zip(xs, ys)]

Each tensor's chain becomes a kernel of its own; the runtime starts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from fusec.frontend.torch_private import OpOverload, all_overloads

aten = torch.ops.aten

_PREFIX = "_foreach_"
_NAMES = {"norm": "linalg_vector_norm"}
_OF_NUMBERS = {"maximum": "clamp_min", "minimum": "clamp_max"}
"""Ops by the names that they have for numbers."""
_LEFT = {"powsum", "addcdiv.Tensor", "addcmul.Tensor"}
"""Without an op for one tensor, or with the numbers of all tensors in one more."""


def decompositions() -> dict[Any, Callable[..., list[Any]]]:
    """A rule for each functional overload."""
    return {op: _each(op) for op in _overloads()}


def _overloads() -> Iterator[OpOverload]:
    for full in all_overloads():
        packet, _, overload = full.removeprefix("aten::").partition(".")
        plain, overload = packet.removeprefix(_PREFIX), overload or "default"
        if plain == packet or plain.endswith("_") or "out" in overload:
            continue
        left = plain in _LEFT or f"{plain}.{overload}" in _LEFT
        if not left and _base(plain, overload) is not None:
            yield getattr(getattr(aten, packet), overload)


def _base(name: str, overload: str) -> Any:
    """The op for one tensor."""
    name = _NAMES.get(name, name)
    if overload in ("Scalar", "ScalarList"):
        name = _OF_NUMBERS.get(name, name)
    return getattr(aten, name, None)


def _each(op: OpOverload) -> Callable[..., list[Any]]:
    name = op._schema.name.removeprefix(f"aten::{_PREFIX}")
    base = _base(name, op._overloadname)
    most = 3 if name in ("addcdiv", "addcmul") else len(op._schema.arguments)
    types = [argument.type for argument in op._schema.arguments]
    listed = {k for k, type_ in enumerate(types) if isinstance(type_, torch.ListType)}

    def each(*args: Any, **others: Any) -> list[Any]:
        results: list[Any] = []
        for n in range(len(args[min(listed)])):
            mine = [x[n] if k in listed else x for k, x in enumerate(args)]
            named = {"value": mine[most]} if len(mine) > most else {}
            results.append(base(*mine[:most], **named, **others))
        return results

    return each
