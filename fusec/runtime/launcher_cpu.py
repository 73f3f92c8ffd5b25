"""Object code → native functions, and a kernel's grid on threads.

A kernel is a native function

    void kernel(void **args, int64_t lo, int64_t hi)

that runs the programs `lo .. hi-1` of its launch grid; `args` is an array of 8-byte
slots, each a pointer or an int64 size. Programs are independent, so any split of the
grid gives the same result:

    code = load(object_code, ["saxpy"])
    args = slots([x.data_ptr(), y.data_ptr(), n])
    launch(code["saxpy"], args, grid=1000, threads=4)   # [0,250) [250,500) ...

**Loading** goes through one ORC JIT of the process, a library of its own for each
object. (The older MCJIT answers with an address even where a symbol is unresolved.)
JITLink rather than RuntimeDyld does the linking: it reports a relocation that does not
reach where the other writes a truncated one.

**Threads** are those that torch's own operators run on, by torch's stable C function
`torch_parallel_for`: a second pool would fight it for the cores. It runs serially
inside another parallel region, and never resizes the OpenMP team, which under libgomp
would end threads and start others. A launch is one native call of `fusec_parallel`,
below, which object code may call too:

    int32_t fusec_parallel(kernel, void **args, int64_t grid, int64_t threads)

It returns 0, or torch's error code. Several launches that need not wait for one another
are run as one by `fusec_batch`, a kernel itself: its args are a table of them, and its
grid counts units of work, so that threads share out what there is to do rather than
programs, which may differ:

    table    count, then of each launch kernel, args, first unit, grid, units/program

A program belongs to the part that its first unit is in. Without torch in the process,
and in a forked child, where an OpenMP team hangs, the grid runs serially on the caller.

Figures (two cores, an empty kernel, from Python): a launch 0.7 µs serial and 1.6 µs on
two threads; loading a small object 0.2 to 0.4 ms, the first in a process 11 ms more.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import struct
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import llvmlite.binding as llvm

from fusec.errors import InternalError

_TRAMPOLINE = """
%launch = type { ptr, ptr }  ; kernel, args

; torch_parallel_for, or null: run serially.
@fusec_pool = global ptr null

define internal void @part(i64 %lo, i64 %hi, ptr %launch) nounwind {
  %kernel = load ptr, ptr %launch
  %slot = getelementptr %launch, ptr %launch, i64 0, i32 1
  %args = load ptr, ptr %slot
  tail call void %kernel(ptr %args, i64 %lo, i64 %hi)
  ret void
}

define void @fusec_batch(ptr %table, i64 %lo, i64 %hi) {
  %count = load i64, ptr %table
  br label %loop

loop:
  %n = phi i64 [ 0, %0 ], [ %next, %after ]
  %at = mul i64 %n, 5
  %p1 = add i64 %at, 1
  %p2 = add i64 %at, 2
  %p3 = add i64 %at, 3
  %p4 = add i64 %at, 4
  %p5 = add i64 %at, 5
  %kernel_at = getelementptr i64, ptr %table, i64 %p1
  %args_at = getelementptr i64, ptr %table, i64 %p2
  %first_at = getelementptr i64, ptr %table, i64 %p3
  %grid_at = getelementptr i64, ptr %table, i64 %p4
  %units_at = getelementptr i64, ptr %table, i64 %p5
  %kernel = load ptr, ptr %kernel_at
  %args = load ptr, ptr %args_at
  %first = load i64, ptr %first_at
  %grid = load i64, ptr %grid_at
  %units = load i64, ptr %units_at
  %from = call i64 @program(i64 %lo, i64 %first, i64 %units, i64 %grid)
  %to = call i64 @program(i64 %hi, i64 %first, i64 %units, i64 %grid)
  %some = icmp slt i64 %from, %to
  br i1 %some, label %run, label %after

run:
  call void %kernel(ptr %args, i64 %from, i64 %to)
  br label %after

after:
  %next = add i64 %n, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %done

done:
  ret void
}

; The first program of a launch that does not begin before a unit.
define internal i64 @program(i64 %unit, i64 %first, i64 %units, i64 %grid) {
  %gap = sub i64 %unit, %first
  %before = icmp slt i64 %gap, 0
  %distance = select i1 %before, i64 0, i64 %gap
  %up = add i64 %distance, %units
  %last = sub i64 %up, 1
  %number = udiv i64 %last, %units
  %beyond = icmp ugt i64 %number, %grid
  %program = select i1 %beyond, i64 %grid, i64 %number
  ret i64 %program
}

define i32 @fusec_parallel(ptr %kernel, ptr %args, i64 %grid, i64 %threads) {
  %some = icmp sgt i64 %grid, 0
  br i1 %some, label %run, label %done

run:
  %pool = load ptr, ptr @fusec_pool
  %pooled = icmp ne ptr %pool, null
  %threaded = icmp sgt i64 %threads, 1
  %divisible = icmp sgt i64 %grid, 1
  %allowed = and i1 %pooled, %threaded
  %parallel = and i1 %allowed, %divisible
  br i1 %parallel, label %split, label %serial

serial:
  call void %kernel(ptr %args, i64 0, i64 %grid)
  br label %done

split:  ; parts of ceil(grid / threads) programs
  %launch = alloca %launch
  store ptr %kernel, ptr %launch
  %slot = getelementptr %launch, ptr %launch, i64 0, i32 1
  store ptr %args, ptr %slot
  %last = sub i64 %grid, 1
  %whole = udiv i64 %last, %threads
  %share = add i64 %whole, 1
  %failed = call i32 %pool(i64 0, i64 %grid, i64 %share, ptr @part, ptr %launch)
  br label %done

done:
  %status = phi i32 [ 0, %0 ], [ 0, %serial ], [ %failed, %split ]
  ret i32 %status
}
"""

# A ctypes prototype of this kind releases the GIL while the kernel runs.
_PARALLEL = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
)


class Code:
    """A loaded object: `code[symbol]` is an address, valid while `code` lives.

    The memory is unmapped once the object is collected. Whoever stores an address, or
    calls one, must hold the `Code` as well.
    """

    __slots__ = ("_tracker", "addresses")

    def __init__(self, tracker: Any, symbols: Iterable[str]) -> None:
        self._tracker = tracker
        self.addresses = MappingProxyType({name: tracker[name] for name in symbols})

    def __getitem__(self, symbol: str) -> int:
        return self.addresses[symbol]


def load(
    object_code: bytes,
    symbols: Iterable[str],
    imports: Mapping[str, int] = MappingProxyType({}),
) -> Code:
    """Link `object_code` into the process and find its functions `symbols`.

    The object's undefined symbols are looked for in `imports` (name → address), then
    among the process's global symbols (libc, libm); `fusec_parallel` and
    `fusec_batch` are always there.
    Raises `InternalError` naming what is missing, or where the bytes are no object.
    """
    symbols = tuple(symbols)
    with _lock:
        native = _native()
        native.join_pool()
        builder = llvm.JITLibraryBuilder().add_object_img(object_code)
        ours = {
            "fusec_batch": native.batch_address,
            "fusec_parallel": native.parallel_address,
        }
        known = {**ours, **imports}
        for name, address in known.items():
            builder.import_symbol(name, address)
        for name in symbols:
            builder.export_symbol(name)
        try:
            tracker = builder.link(native.jit, f"object{next(_serial_numbers)}")
        except RuntimeError as error:
            reason = _link_failure(str(error), object_code, known)
            raise InternalError(reason) from error
    return Code(tracker, symbols)


def slots(values: Iterable[int]) -> ctypes.Array[ctypes.c_int64]:
    """The argument array of a kernel: addresses and int64 sizes, one to a slot."""
    values = tuple(values)
    return (ctypes.c_int64 * len(values))(*values)


def launch(
    address: int, args: ctypes.Array[ctypes.c_int64] | int, grid: int, threads: int
) -> None:
    """Run programs 0 .. grid-1 of a kernel on `threads` threads or fewer.

    Each thread takes one contiguous part. The GIL is released meanwhile; `args` (an
    array from `slots`, or its address) must live until this returns.
    """
    status = _native().parallel(address, args, grid, threads)
    if status != 0:
        raise InternalError(f"torch_parallel_for failed with error code {status}")


def parallel_address() -> int:
    """The address of `fusec_parallel`, good as long as the process."""
    return _native().parallel_address


class _Native:
    """The JIT of this process and the trampoline it holds."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            opt=1, reloc="pic", codemodel="small"
        )
        self.jit = llvm.create_lljit_compiler(
            machine, use_jit_link=True, suppress_errors=True
        )
        self._trampoline = (
            llvm.JITLibraryBuilder()
            .add_ir(_TRAMPOLINE)
            .export_symbol("fusec_batch")
            .export_symbol("fusec_parallel")
            .export_symbol("fusec_pool")
            .link(self.jit, "fusec")
        )
        self.parallel_address: int = self._trampoline["fusec_parallel"]
        self.batch_address: int = self._trampoline["fusec_batch"]
        self.parallel = _PARALLEL(self.parallel_address)
        self.pool = ctypes.c_void_p.from_address(self._trampoline["fusec_pool"])

    def join_pool(self) -> None:
        """Let launches use torch's threads, where torch is and they can run."""
        if self.pool.value is None and not _forked:
            self.pool.value = _torch_parallel_for()


def _torch_parallel_for() -> int | None:
    # Code that has tensors has imported torch; nobody else needs its seconds of import.
    extension = getattr(sys.modules.get("torch"), "_C", None)
    if extension is None:
        return None
    # A handle's dependencies are searched too: libtorch_cpu, by whatever file name.
    library = ctypes.CDLL(extension.__file__)
    function = getattr(library, "torch_parallel_for", None)
    return ctypes.cast(function, ctypes.c_void_p).value if function else None


def _link_failure(message: str, object_code: bytes, known: Mapping[str, int]) -> str:
    if "Failed to materialize" not in message:
        return f"object code cannot be loaded: {message}"
    process = ctypes.CDLL(None)
    missing = [
        name
        for name in _undefined_symbols(object_code)
        if name not in known and not hasattr(process, name)
    ]
    named = f"; unresolved: {', '.join(missing)}" if missing else ""
    return f"object code cannot be loaded: {message}{named}"


def _undefined_symbols(object_code: bytes) -> Iterator[str]:
    """Names that a 64-bit little-endian ELF object leaves to others; else nothing.

    ORC tells only which of the object's own functions could not be linked. For the
    offsets of fields see "ELF-64 Object File Format", sections 3, 4 and 6.
    """
    if object_code[:6] != b"\x7fELF\x02\x01":
        return
    (table,) = struct.unpack_from("<Q", object_code, 0x28)
    entry_size, count = struct.unpack_from("<HH", object_code, 0x3A)
    sections = [
        struct.unpack_from("<IIQQQQIIQQ", object_code, table + i * entry_size)
        for i in range(count)
    ]
    for _, kind, _, _, offset, size, strings, _, _, width in sections:
        if kind != 2:  # SHT_SYMTAB
            continue
        names = sections[strings][4]
        for at in range(offset + width, offset + size, width):  # the first is empty
            name, _, _, home = struct.unpack_from("<IBBH", object_code, at)
            if home == 0:  # SHN_UNDEF
                start = names + name
                yield object_code[start : object_code.index(b"\0", start)].decode()


_lock = threading.RLock()
_serial_numbers = itertools.count()
_shared: _Native | None = None
_forked = False


def _native() -> _Native:
    global _shared
    if _shared is None:
        with _lock:
            _shared = _shared or _Native()
    return _shared


def _prepare_fork() -> None:
    """Wait until no thread is linking, or inside LLVM."""
    _lock.acquire()
    _llvm_lock.__enter__()


def _go_on() -> None:
    _llvm_lock.__exit__(None, None, None)
    _lock.release()


def _enter_child() -> None:
    global _forked
    _forked = True
    if _shared is not None:
        _shared.pool.value = None
    _go_on()


# llvmlite lets one thread at a time into LLVM. Holding its lock and ours over a fork
# keeps the child from inheriting one that nobody releases, or a half-made link.
_llvm_lock: Any = llvm.ffi.lib._lock
os.register_at_fork(
    before=_prepare_fork, after_in_parent=_go_on, after_in_child=_enter_child
)
