"""Linking by LLVM, where objects are not what our own linker reads.

Objects are kept as they are, and linked in each process that loads them, by one ORC
JIT, a library of its own for each program. JITLink rather than RuntimeDyld does it: it
reports a relocation that does not reach where the other writes a truncated one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from fusec.errors import InternalError
from fusec.runtime.image import Code
from fusec.runtime.llvm import llvm, machine


@dataclass(frozen=True, slots=True)
class Objects:
    """Object code, and the functions in it that others call."""

    data: tuple[bytes, ...]
    exports: tuple[str, ...]

    def load(self, imports: Mapping[str, int]) -> Code:
        """Link the objects into this process.

        Names are looked for in `imports`, then among the process's global symbols.
        Raises `InternalError` where LLVM cannot link them.
        """
        builder = llvm.JITLibraryBuilder()
        for data in self.data:
            builder.add_object_img(data)
        for name, address in imports.items():
            builder.import_symbol(name, address)
        for name in self.exports:
            builder.export_symbol(name)
        try:
            tracker = builder.link(_jit(), f"program{next(_numbers)}")
        except RuntimeError as error:
            raise InternalError(f"object code cannot be loaded: {error}") from error
        return Code(tracker, {name: tracker[name] for name in self.exports})


def link(objects: Iterable[bytes], exports: Iterable[str]) -> Objects:
    """Objects as one program; `exports` are the functions that it is for. LLVM looks at
    them when they are loaded."""
    return Objects(tuple(objects), tuple(exports))


_numbers = itertools.count()


@cache
def _jit() -> Any:
    return llvm.create_lljit_compiler(
        machine(), use_jit_link=True, suppress_errors=True
    )
