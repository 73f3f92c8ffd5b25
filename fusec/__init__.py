"""fusec: a kernel-fusion compiler for PyTorch.

    torch.compile(model, backend="fusec")     train or serve a model
    fusec.jit(function)                       compile a function of whole tensors
    fusec.weights_changed()                   say so where torch cannot tell

Importing fusec costs nothing: each public name loads its module on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusec.api import backend
    from fusec.jitted import jit
    from fusec.options import Options
    from fusec.runtime.launcher_keeping import weights_changed

__version__ = "0.1.0"
__all__ = ["Options", "__version__", "backend", "jit", "weights_changed"]

_HOMES = {
    "Options": "fusec.options",
    "backend": "fusec.api",
    "jit": "fusec.jitted",
    "weights_changed": "fusec.runtime.launcher_keeping",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fusec' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
