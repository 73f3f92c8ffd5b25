"""Backends by name: what turns tile functions into text for a target.

A backend is a module with two functions. It is loaded when first asked for, since each
brings packages that others need not have:

    emitter = backend_of(target)
    kernel = expand(kernel, partial(emitter.supports, target=target))
    emitted = emitter.emit(kernel, target)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, Protocol, cast

from fusec.errors import OptionError
from fusec.ir.core import Function
from fusec.ir.dtypes import DType
from fusec.target import Target


@dataclass(frozen=True, slots=True)
class Emitted:
    """A kernel as text, and what the device's own compiler is told besides."""

    text: str
    types: tuple[str, ...] = ()
    """Of its parameters, as that compiler names them."""
    constants: tuple[tuple[str, int], ...] = ()
    """The parameters after those, whose values are known when it compiles. Other values
    make another kernel of the same text."""
    scratch: int = 0
    """Bytes of memory that each program makes tensor descriptors in."""


class Backend(Protocol):
    """What the compiler asks of a backend."""

    @staticmethod
    def supports(op_class: Any, dtype: DType, target: Target) -> bool:
        """Whether the backend spells this elementwise op on operands of `dtype`."""
        ...

    @staticmethod
    def emit(function: Function, target: Target) -> Emitted:
        """The text of a kernel: the same in every process, as cache keys need."""
        ...


BACKENDS: Mapping[str, str] = MappingProxyType(
    {"llvm": "fusec.codegen.llvm", "triton": "fusec.codegen.triton"}
)
"""The module of each backend."""


def backend_of(target: Target) -> Backend:
    """The backend that emits for a target."""
    return backend(target.backend)


def backend(name: str) -> Backend:
    """The backend of that name. Raises `OptionError` if there is none."""
    if name not in BACKENDS:
        raise OptionError(
            f"fusec has no backend {name!r}",
            fix=f"the backends are {', '.join(BACKENDS)}",
        )
    return cast(Backend, import_module(BACKENDS[name]))
