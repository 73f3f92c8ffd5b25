"""Object code → native functions, and a kernel's grid on threads.

A kernel is a native function

    void kernel(void **args, int64_t lo, int64_t hi)

that runs the programs `lo .. hi-1` of its launch grid; `args` is an array of 8-byte
slots, each a pointer or an int64 size. Programs are independent, so any split of the
grid gives the same result:

    code = load(link([saxpy_object, launcher_object], ["saxpy", PARALLEL]))
    args = slots([x.data_ptr(), y.data_ptr(), n])
    Launcher(code)("saxpy", args, grid=1000, threads=4)   # [0,250) [250,500) ...

**Threads** are those that torch's own operators run on, by torch's stable C function
`torch_parallel_for`: a second pool would fight it for the cores. It runs serially
inside another parallel region, and never resizes the OpenMP team, which under libgomp
would end threads and start others. Code calls it through `fusec_parallel`, which is
native too and part of each program (see `codegen.llvm_launcher`). Without torch in the
process, and in a forked child, where an OpenMP team hangs, the grid runs serially on
the caller.

Figures (two cores, an empty kernel, from Python): a launch 0.7 µs serial and 1.6 µs on
two threads.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from fusec import lazy
from fusec.errors import InternalError
from fusec.runtime.image import Code

if TYPE_CHECKING:
    from fusec.runtime import elf, jitlink
else:
    elf = lazy.module("fusec.runtime.elf")
    jitlink = lazy.module("fusec.runtime.jitlink")

PARALLEL = "fusec_parallel"
"""The native function that launches; a program that launches exports it."""

POOL = "fusec_pool"
"""What holds the address of the pool that launches run on, or null."""

# A ctypes prototype of this kind releases the GIL while the kernel runs.
_PARALLEL = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
)


class Linked(Protocol):
    """A program as data."""

    def load(self, imports: Mapping[str, int]) -> Code:
        """Put it into this process."""
        ...


def link(objects: Iterable[bytes], exports: Iterable[str]) -> Linked:
    """Objects of this machine as one program; `exports` are the functions it is for.

    What they leave undefined is left to `load`. Raises `InternalError` where bytes are
    no object, or an export is absent; where LLVM links, `load` does.
    """
    ours = sys.platform == "linux" and platform.machine() == "x86_64"
    return (elf if ours else jitlink).link(objects, exports)


def load(program: Linked, imports: Mapping[str, int] = MappingProxyType({})) -> Code:
    """Put a program into this process.

    Undefined symbols are looked for in `imports` (name → address), then among the
    process's global symbols (libc, libm); the pool of launches is always there.
    Raises `InternalError` naming what is missing.
    """
    if _pool.value is None and not _forked:
        _pool.value = _torch_parallel_for()
    return program.load({**imports, POOL: ctypes.addressof(_pool)})


def slots(values: Iterable[int]) -> ctypes.Array[ctypes.c_int64]:
    """The argument array of a kernel: addresses and int64 sizes, one to a slot."""
    values = tuple(values)
    return (ctypes.c_int64 * len(values))(*values)


class Launcher:
    """Launches the kernels of a program from Python."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self._parallel = _PARALLEL(code[PARALLEL])

    def __call__(
        self,
        kernel: str,
        args: ctypes.Array[ctypes.c_int64] | int,
        grid: int,
        threads: int,
    ) -> None:
        """Run programs 0 .. grid-1 of a kernel on `threads` threads or fewer.

        Each thread takes one contiguous part. The GIL is released meanwhile; `args` (an
        array from `slots`, or its address) must live until this returns.
        """
        status = self._parallel(self._code[kernel], args, grid, threads)
        if status != 0:
            raise InternalError(f"torch_parallel_for failed with error code {status}")


def _torch_parallel_for() -> int | None:
    # Code that has tensors has imported torch; nobody else needs its seconds of import.
    extension = getattr(sys.modules.get("torch"), "_C", None)
    if extension is None:
        return None
    # A handle's dependencies are searched too: libtorch_cpu, by whatever file name.
    library = ctypes.CDLL(extension.__file__)
    function = getattr(library, "torch_parallel_for", None)
    return ctypes.cast(function, ctypes.c_void_p).value if function else None


_pool = ctypes.c_void_p()
"""torch_parallel_for, once there is torch."""
_forked = False


def _enter_child() -> None:
    global _forked
    _forked = True
    _pool.value = None


os.register_at_fork(after_in_child=_enter_child)
