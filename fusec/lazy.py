"""Modules that load when they are first used, for what a warm start does without.

compiler = module("fusec.compiler")      nothing is imported yet
compiler.compile_graph(…)                now it is
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Lazy(ModuleType):
    """Stands for a module; passes on what is asked of it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def module(name: str) -> Any:
    """A stand-in for the module `name`, which need not exist until it is used."""
    return _Lazy(name)


def is_loaded(module: ModuleType) -> bool:
    """Whether what a stand-in stands for has been used."""
    return module.__name__ in sys.modules
