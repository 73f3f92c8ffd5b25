"""Triton's functions from the source of kernels, which Triton reads from the file that
defines them."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any


def loaded(source: str, name: str, path: Path) -> Any:
    """The jit function of a kernel's source, which is written to a file.

    With TRITON_INTERPRET=1 it runs on the CPU, in Triton's interpreter.
    """
    path.write_text(source, encoding="utf-8")
    spec = spec_from_file_location(f"fusec_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)
