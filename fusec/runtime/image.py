"""Machine code as data: bytes that run wherever they are put.

    link(objects) ─▶ Image(bytes, exports, slots) ─load─▶ Code(addresses)

An image is what a linker makes of object code: its parts refer to one another by
distance, and to all else through *slots*, words that hold addresses:

    code                  slots                    constants
    call stub
    stub: jmp [slot] ──▶  address of memset
    lea kernel ────────▶  address of @exp

Nothing in it changes once the slots are filled. So loading one is to copy it, fill its
slots and protect its pages, and needs no linker and no LLVM.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fusec.errors import InternalError

_PROCESS = ctypes.CDLL(None)
_PROT_READ, _PROT_EXEC = 1, 4  # of POSIX; not in every Python's mmap


class Code:
    """Loaded code: `code[symbol]` is an address, valid while `code` lives.

    The memory is unmapped once the object is collected. Whoever stores an address, or
    calls one, must hold the `Code` as well.
    """

    __slots__ = ("_memory", "addresses")

    def __init__(self, memory: Any, addresses: Mapping[str, int]) -> None:
        self._memory = memory
        self.addresses = MappingProxyType(addresses)

    def __getitem__(self, symbol: str) -> int:
        return self.addresses[symbol]


@dataclass(frozen=True, slots=True)
class Image:
    """What to put into memory, at any multiple of a page."""

    data: bytes
    code: int
    """Bytes of it that are code, whole pages; what follows is constants and slots."""
    exports: Mapping[str, int]
    """Where its functions are."""
    slots: tuple[tuple[int, str | int], ...]
    """Where a slot is; and what it holds the address of, a name or a place within."""

    def load(self, imports: Mapping[str, int]) -> Code:
        """Put the image into this process.

        Names are looked for in `imports`, then among the process's global symbols
        (libc, libm). Raises `InternalError` naming those that are found in neither.
        """
        if not self.data:  # a program that only calls torch
            return Code(None, {})
        memory = mmap.mmap(-1, len(self.data), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory[:] = self.data
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        names = {target for _, target in self.slots if isinstance(target, str)}
        known = resolved(names, imports)
        for at, target in self.slots:
            address = known[target] if isinstance(target, str) else base + target
            struct.pack_into("<Q", memory, at, address)
        _protect(base, self.code, _PROT_READ | _PROT_EXEC)
        _protect(base + self.code, len(self.data) - self.code, _PROT_READ)
        return Code(memory, {name: base + at for name, at in self.exports.items()})


def resolved(names: Iterable[str], imports: Mapping[str, int]) -> dict[str, int]:
    """The addresses of names that code leaves to others.

    Raises `InternalError` naming those that are found nowhere.
    """
    found = {name: imports.get(name) or _global(name) for name in names}
    missing = sorted(name for name, address in found.items() if address is None)
    if missing:
        unresolved = f"unresolved: {', '.join(missing)}"
        raise InternalError(f"object code cannot be loaded: {unresolved}")
    return {name: address for name, address in found.items() if address is not None}


def _global(name: str) -> int | None:
    function = getattr(_PROCESS, name, None)
    return ctypes.cast(function, ctypes.c_void_p).value if function else None


def _protect(address: int, nbytes: int, protection: int) -> None:
    pages = ctypes.c_void_p(address), ctypes.c_size_t(nbytes)
    if nbytes and _PROCESS.mprotect(*pages, protection) != 0:
        raise InternalError("the system does not let memory hold code")
