"""How what was computed differs from what eager torch computes.

Results are equal in structure, dtype, shape and strides, and close in values: within
the tolerance for the dtype, or, where eager torch itself is off, about as near to what
float64 gives as eager is. Strides may also be those that torch's fake tensors have:
where they are not eager's, no compiler knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

SLACK = 4.0
"""How many times as far from the exact result as eager's a result may be."""


Close = tuple[()] | tuple[float, float]
"""(absolute, relative); () for the tolerance of the dtype."""


@dataclass(frozen=True, slots=True)
class References:
    """What eager computes, and what excuses other values or strides."""

    eager: Any
    exact: Callable[[], Any] = lambda: None
    """The same in float64."""
    traced: Callable[[], Any] = lambda: None
    """The results as fake tensors."""


def different(got: Any, references: References, close: Close | None) -> str:
    """Where (results, others) first differ from eager's; "" if nowhere.

    With `close` None no values are compared; strides are compared of the results only.
    """
    found = _forms(got, references.eager) or _strides(
        got[0], references.eager[0], lambda: (references.traced() or (None,))[0]
    )
    if found or close is None:
        return found
    found = _all_values(got, references.eager, close)
    return found and _all_values(got, references.eager, close, references.exact())


def _forms(got: Any, want: Any) -> str:
    leaves, wanted = pytree.tree_leaves(got), pytree.tree_leaves(want)
    if len(leaves) != len(wanted):
        return f"{len(leaves)} results instead of {len(wanted)}"
    pairs = zip(leaves, wanted, strict=True)
    return next(filter(None, (_form(a, b) for a, b in pairs)), "")


def _strides(got: Any, want: Any, traced: Callable[[], Any]) -> str:
    found = _other_strides(got, want)
    return found if found and _other_strides(got, traced()) else ""


def _other_strides(got: Any, want: Any) -> str:
    leaves, wanted = pytree.tree_leaves(got), pytree.tree_leaves(want)
    if len(leaves) != len(wanted):
        return "other results"
    for a, b in zip(leaves, wanted, strict=True):
        strided = isinstance(b, torch.Tensor) and b.layout is torch.strided
        if strided and b.numel() and _steps(a) != _steps(b):
            return f"strides {a.stride()} instead of {b.stride()}"
    return ""


def _all_values(got: Any, want: Any, close: Close, exact: Any = None) -> str:
    leaves, wanted = pytree.tree_leaves(got), pytree.tree_leaves(want)
    precise = _paired(exact, len(wanted))
    triples = zip(leaves, wanted, precise, strict=True)
    found = (_values(a, b, close, c) for a, b, c in triples)
    return next(filter(None, found), "")


def _paired(exact: Any, count: int) -> list[Any]:
    leaves = pytree.tree_leaves(exact)
    return leaves if len(leaves) == count else [None] * count


def _form(a: Any, b: Any) -> str:
    if not isinstance(b, torch.Tensor):
        return "" if type(a) is type(b) else f"{type(a)} instead of {type(b)}"
    if not isinstance(a, torch.Tensor):
        return f"{type(a)} instead of a tensor"
    if (a.dtype, a.shape, a.layout) != (b.dtype, b.shape, b.layout):
        return f"{_shown(a)} instead of {_shown(b)}"
    return ""


def _steps(x: torch.Tensor) -> list[int]:
    """The strides that elements are reached by."""
    return [s for s, n in zip(x.stride(), x.shape, strict=True) if n > 1]


def _shown(x: torch.Tensor) -> str:
    return f"{x.dtype}{list(x.shape)} ({x.layout})"


def _values(a: Any, b: Any, close: Close, exact: Any) -> str:
    if not isinstance(b, torch.Tensor):
        return "" if a == b or (a != a and b != b) else f"{a} instead of {b}"
    rounded = b.is_floating_point() or b.is_complex()
    limits = {"atol": close[0], "rtol": close[1]} if close and rounded else {}
    try:
        torch.testing.assert_close(a, b, equal_nan=True, **limits)
    except AssertionError as error:
        near = isinstance(exact, torch.Tensor) and _as_near(a, b, exact)
        return "" if near else str(error)
    return ""


def _as_near(a: torch.Tensor, b: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether a is about as near to the exact values as b, or within rounding."""
    if not a.is_floating_point() or exact.shape != a.shape:
        return False
    reference = exact.detach().to(a.dtype)
    try:
        torch.testing.assert_close(a, reference, equal_nan=True)
    except AssertionError:
        ours, eager = (_error(x, exact.detach()) for x in (a, b))
        return ours <= SLACK * eager
    return True


def _error(x: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest distance; NaN where one of the two is no number and the other is."""
    x, exact = x.detach().double(), exact.double()
    same = (x == exact) | (x.isnan() & exact.isnan())
    distance = torch.where(same, 0.0, (x - exact).abs())
    return float(distance.max()) if distance.numel() else 0.0
