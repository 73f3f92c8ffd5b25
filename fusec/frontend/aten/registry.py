"""The table from ATen overloads to what they mean.

    @lowers("aten.tril.default")
    def tril(e: Emitter, x: Term, diagonal: int = 0) -> Term: ...

A handler takes the arguments of the overload: tensors as terms, sizes as dims, the
rest as torch has them. It returns one term per result, or None to decline: the op
then runs through ATen. It may return more precise or more scalar terms than torch
says the results are; the intake casts and broadcasts them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fusec.frontend.aten.term import Term

Results = Term | tuple[Term | None, ...] | None
Handler = Callable[..., Results]
H = TypeVar("H", bound=Callable[..., Any])

HANDLERS: dict[str, Handler] = {}
"""Every handler by `str(overload)`, such as "aten.add.Tensor"."""


def lowers(*overloads: str) -> Callable[[H], H]:
    """Register a handler for these overloads."""

    def register(handler: H) -> H:
        for overload in overloads:
            if overload in HANDLERS:
                raise TypeError(f"two handlers for {overload}")
            HANDLERS[overload] = handler
        return handler

    return register
