"""The modules of the commands, loaded when they are needed: most bring torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from fusec.errors import UserError

PARTS: Mapping[str, str] = MappingProxyType(
    {
        "dump": "fusec.cli.dump",
        "opt": "fusec.cli.opt",
        "run": "fusec.cli.run",
        "native": "fusec.cli.native",
        "explain": "fusec.cli.explain",
        "layout": "fusec.cli.layout",
        "doctor": "fusec.cli.doctor",
        "calibrate": "fusec.cli.calibrate",
        "cache": "fusec.cli.cache",
    }
)
"""What can be loaded, by name."""


def load(name: str) -> Any:
    """The module of a command. Raises `UserError` for a package that is missing."""
    try:
        return import_module(PARTS[name])
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "fusec"):
            raise
        raise UserError(
            f"this needs the package {package}", fix=f"pip install {package}"
        ) from error
