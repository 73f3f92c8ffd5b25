"""Programs on a GPU: its memory by torch, its kernels by its driver.

    kernels ─load─▶ functions of the driver ─▶ a table ─▶ native segments launch them

Memory is torch's own, from its caching allocator, which knows of streams; a block for
what lives only during a call is one more tensor. Kernels are started on torch's current
stream, so that they run in order with everything else there.

Kernels that make tensor descriptors need memory for them: in each program 128 bytes for
each descriptor. The host function allocates and frees it like any tensor between two
kernels, and passes it to the launch. So it lies in the block of the call, or is a
tensor of torch's where its size is not known before, and kernels that follow each other
on the stream take turns with it; in a CUDA graph it is as safe as they are, for nothing
is shared by calls, or grows. Triton's kernels expect it behind their own parameters,
where other kernels have a zero.

A check does not wait for the GPU. Its flag lies in memory of this machine that kernels
can write to, and is looked at when a later call begins, or the process ends:

    f(x, bad)       launches, and returns
    f(x, good)      IndexError: index out of range, in an earlier call

With CUDA_LAUNCH_BLOCKING=1, torch's own switch, each call waits and raises its own.
While launches are captured as a CUDA graph nothing runs, so that nobody waits or looks:
whoever replays it does (see `frontend.cudagraphs`).
"""

from __future__ import annotations

import atexit
import ctypes
import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from fusec.errors import InternalError, UserError
from fusec.logs import logger
from fusec.options import launches_block
from fusec.runtime.image import Code
from fusec.runtime.recipe import (
    CONTEXT_WORD,
    ENTER_WORD,
    KERNEL_WORDS,
    LAUNCH_WORD,
    LEAVE_WORD,
    MOST_PROGRAMS,
    STREAM_WORD,
    TABLE,
    VECTOR,
    Raise,
    Recipe,
    hidden,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusec.runtime.devices import Dims

LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    *[ctypes.c_uint] * 7,
    *[ctypes.c_void_p] * 3,
)
"""cuLaunchKernel."""
ENTER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
"""cuCtxPushCurrent, which takes a context, and cuCtxPopCurrent, which gives one."""


MOST_QUEUED = 512
"""Launches that a stream takes before whoever launches has to wait: CUDA's takes 1024.
"""


class GpuKernel(NamedTuple):
    """A compiled kernel as data."""

    name: str
    code: bytes
    threads: int
    shared: int
    """Bytes."""
    scratch_at: int | None = None
    """Which of its arguments is scratch memory that it makes tensor descriptors in."""


class Driver(Protocol):
    """What a GPU's driver does for programs. Functions are told by their addresses."""

    launch: int
    """cuLaunchKernel, or what takes the same."""
    enter: int
    """cuCtxPushCurrent, likewise."""
    leave: int
    """cuCtxPopCurrent."""

    def context(self, device: torch.device) -> int:
        """The context of a device that torch uses."""
        ...

    def load(self, kernel: GpuKernel, device: torch.device) -> int:
        """The function of a kernel on a device. Raises `InternalError`."""
        ...

    def stream(self, device: torch.device) -> int:
        """Torch's current stream."""
        ...

    def is_capturing(self, device: torch.device) -> bool:
        """Whether torch's current stream captures what is launched on it."""
        ...

    def words(self, count: int) -> torch.Tensor:
        """Zeros, as 64-bit integers in memory that both kernels and this machine reach
        at the same address."""
        ...

    def wait(self, device: torch.device) -> None:
        """Wait for all that was launched on a device."""
        ...

    def seconds(
        self, call: Callable[[], None], repeats: int, device: torch.device
    ) -> float:
        """What a device takes for all that a call launches on torch's current stream,
        so many times in a row, at most `MOST_QUEUED`; by its own clock, where it has
        one, and without the time that launching takes this machine."""
        ...

    def failure(self, status: int) -> str:
        """What a status that is not 0 means."""
        ...


@dataclass(frozen=True, eq=False)
class _Flags:
    """The flags of a program's checks."""

    words: torch.Tensor
    check: Raise
    wait: Callable[[], None]
    """Waits for all that was launched."""

    def are_raised(self) -> bool:
        """Whether a check failed in a call."""
        return any(self.words.tolist())

    def look(self, call: str = "") -> None:
        """Raise the error of a check that failed in a call, once."""
        raised = self.words.tolist()
        if any(raised):
            self.words.zero_()
            error = self.check.failure(raised)
            raise type(error)(f"{error}{call}")


EARLIER = """, in an earlier call
  help: with CUDA_LAUNCH_BLOCKING=1 in the environment the call itself raises"""
_watched: list[_Flags] = []
"""The flags of all programs, for the end of the process: kernels of programs that are
gone may still be writing to them."""
_process = os.getpid()


@atexit.register
def tell_failures() -> None:
    """Say which checks failed that no later call was there to raise for."""
    if os.getpid() != _process:  # a child's, which cannot reach the GPU
        return
    for flags in _watched:
        try:
            flags.wait()
            flags.look()
        except Exception as error:
            what = type(error).__name__, error
            logger("graph").error("a call on a GPU went wrong: %s: %s", *what)


@dataclass(slots=True, eq=False)
class Gpu:
    """One GPU, for one program."""

    name: str
    """As torch names it: cuda:0."""
    kernels: Sequence[GpuKernel]
    driver: Driver
    alignment: int = VECTOR
    device: torch.device = field(init=False)
    _context: int = field(init=False)
    _functions: dict[str, int] = field(default_factory=dict[str, int])
    _tables: dict[int, Any] = field(default_factory=dict[int, Any])
    """The table of each stream that the program ran on."""
    _flags: _Flags | None = None

    def __post_init__(self) -> None:
        self.device = torch.device(self.name)
        self._context = self.driver.context(self.device)
        for kernel in self.kernels:
            self._functions[kernel.name] = self.driver.load(kernel, self.device)

    def maker(
        self, shape: Dims, strides: Dims, dtype: torch.dtype
    ) -> Callable[[], torch.Tensor]:
        return lambda: self.made(shape, strides, dtype)

    def made(self, shape: Dims, strides: Dims, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty_strided(shape, strides, dtype=dtype, device=self.device)

    def arena(self, nbytes: int) -> _Blocks:
        return _Blocks(nbytes, self.device)

    def flags(self, recipe: Recipe) -> int:
        """The address of the flags of a program's checks, or 0."""
        if not recipe.flags:
            return 0
        (check,) = recipe.steps_of(Raise)
        wait = partial(self.driver.wait, self.device)
        self._flags = _Flags(self.driver.words(recipe.flags), check, wait)
        _watched.append(self._flags)
        return self._flags.words.data_ptr()

    def is_capturing(self) -> bool:
        return self.driver.is_capturing(self.device)

    def look(self) -> None:
        """Raise what a check of an earlier call found; not during a capture, which it
        would spoil: then the next call does."""
        flags = self._flags
        if flags is not None and flags.are_raised() and not self.is_capturing():
            flags.look(EARLIER)

    def settle(self) -> None:
        """At the end of a call with checks: wait for them, if launches block."""
        if self._flags is None or not launches_block() or self.is_capturing():
            return
        self.driver.wait(self.device)
        self._flags.look()

    def launcher(self, code: Code) -> Callable[[str, Any, int, int], None]:
        """Launches from Python; the code of segments has no part in that."""
        return self.launches()

    def launches(self) -> Callable[[str, Any, int, int], None]:
        """What launches one kernel, on the stream of a table."""
        launch = LAUNCH(self.driver.launch)
        enter, leave = ENTER(self.driver.enter), ENTER(self.driver.leave)
        rows = {kernel.name: kernel for kernel in self.kernels}
        before = ctypes.c_void_p()

        def check(status: int, name: str) -> None:
            if status != 0:
                why = self.driver.failure(status)
                raise InternalError(f"the GPU's driver failed at {name}: {why}")

        def run(name: str, args: Any, programs: int, table: int) -> None:
            words = [*args, *hidden(rows[name].scratch_at, args)]
            held = (ctypes.c_int64 * len(words))(*words)
            base = ctypes.addressof(held)
            params = [base + 8 * k for k in range(len(words))]
            pointers = (ctypes.c_void_p * len(words))(*params)
            stream = ctypes.c_int64.from_address(table + 8 * STREAM_WORD).value
            grid = (programs, 1, 1, rows[name].threads, 1, 1, rows[name].shared)
            if programs > MOST_PROGRAMS:
                raise UserError(
                    f"{name} would run {programs} programs, a GPU at most 2^31 - 1",
                    fix="call it on parts of the arguments",
                )
            check(enter(self._context), name)
            try:
                status = launch(self._functions[name], *grid, stream, pointers, None)
            finally:
                leave(ctypes.addressof(before))
            check(status, name)

        return run

    def word(self, threads: int | None) -> int:
        """The address of the table of the current stream. Raises what a check of an
        earlier call found."""
        self.look()
        stream = self.driver.stream(self.device)
        table = self._tables.get(stream)
        if table is None:  # the first one stays: native code may be reading it
            table = self._tables.setdefault(stream, self._table(stream))
        return ctypes.addressof(table)

    def _table(self, stream: int) -> Any:
        words = [0] * (TABLE + KERNEL_WORDS * len(self.kernels))
        words[STREAM_WORD], words[LAUNCH_WORD] = stream, self.driver.launch
        words[ENTER_WORD], words[LEAVE_WORD] = self.driver.enter, self.driver.leave
        words[CONTEXT_WORD] = self._context
        for k, kernel in enumerate(self.kernels):
            row = (self._functions[kernel.name], kernel.threads, kernel.shared)
            words[TABLE + KERNEL_WORDS * k : TABLE + KERNEL_WORDS * (k + 1)] = row
        return (ctypes.c_int64 * len(words))(*words)


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Memory of a GPU for the time of a call, which its stream may still be reading
    when another call on that stream gets it."""

    nbytes: int
    device: torch.device

    @contextmanager
    def checkout(self) -> Iterator[int]:
        block = torch.empty(self.nbytes, dtype=torch.uint8, device=self.device)
        yield block.data_ptr()
