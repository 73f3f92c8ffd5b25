"""Linking by LLVM, where objects are not what our own linker reads.

Objects are kept as they are, and linked in each process that loads them, by one ORC
JIT, a library of its own for each program. JITLink rather than RuntimeDyld does it: it
reports a relocation that does not reach where the other writes a truncated one.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding as _binding  # pyright: ignore[reportMissingTypeStubs]

from fusec.errors import InternalError
from fusec.runtime.image import Code

llvm: Any = _binding  # llvmlite carries no annotations


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

# llvmlite lets one thread at a time into LLVM. Holding its lock over a fork keeps the
# child from inheriting one that nobody releases.
_lock: Any = llvm.ffi.lib._lock
os.register_at_fork(
    before=lambda: _lock.__enter__(),
    after_in_parent=lambda: _lock.__exit__(None, None, None),
    after_in_child=lambda: _lock.__exit__(None, None, None),
)


@cache
def _jit() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(opt=1, reloc="pic", codemodel="small")
    return llvm.create_lljit_compiler(machine, use_jit_link=True, suppress_errors=True)
