"""Programs on a GPU: its memory by torch, its kernels by its driver.

    kernels ─load─▶ functions of the driver ─▶ a table ─▶ native segments launch them

Memory is torch's own, from its caching allocator, which knows of streams; a block for
what lives only during a call is one more tensor. Kernels are started on torch's current
stream, so that they run in order with everything else there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from fusec.errors import InternalError
from fusec.runtime.image import Code
from fusec.runtime.recipe import HIDDEN, KERNEL_WORDS, LAUNCH_WORD, STREAM_WORD, TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusec.runtime.devices import Dims

_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    *[ctypes.c_uint] * 7,
    *[ctypes.c_void_p] * 3,
)


class GpuKernel(NamedTuple):
    """A compiled kernel as data."""

    name: str
    code: bytes
    threads: int
    shared: int
    """Bytes."""


class Driver(Protocol):
    """What a GPU's driver does for programs."""

    launch: int
    """The address of cuLaunchKernel, or of what takes the same."""

    def load(self, kernel: GpuKernel) -> int:
        """The function of a kernel, on the current device."""
        ...

    def stream(self, device: torch.device) -> int:
        """Torch's current stream."""
        ...


@dataclass(slots=True, eq=False)
class Gpu:
    """One GPU, for one program."""

    name: str
    """As torch names it: cuda:0."""
    kernels: Sequence[GpuKernel]
    driver: Driver
    device: torch.device = field(init=False)
    _functions: dict[str, int] = field(default_factory=dict[str, int])
    _tables: dict[int, Any] = field(default_factory=dict[int, Any])
    """The table of each stream that the program ran on."""

    def __post_init__(self) -> None:
        self.device = torch.device(self.name)
        for kernel in self.kernels:
            self._functions[kernel.name] = self.driver.load(kernel)

    def maker(
        self, shape: Dims, strides: Dims, dtype: torch.dtype
    ) -> Callable[[], torch.Tensor]:
        return lambda: self.made(shape, strides, dtype)

    def made(self, shape: Dims, strides: Dims, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty_strided(shape, strides, dtype=dtype, device=self.device)

    def arena(self, nbytes: int) -> _Blocks:
        return _Blocks(nbytes, self.device)

    def launcher(self, code: Code) -> Callable[[str, Any, int, int], None]:
        """Launches from Python, one at a time, on the stream of a table."""
        launch = _LAUNCH(self.driver.launch)
        rows = {kernel.name: kernel for kernel in self.kernels}

        def run(name: str, args: Any, programs: int, table: int) -> None:
            words = [*args, *[0] * HIDDEN]
            held = (ctypes.c_int64 * len(words))(*words)
            base = ctypes.addressof(held)
            params = [base + 8 * k for k in range(len(words))]
            pointers = (ctypes.c_void_p * len(words))(*params)
            stream = ctypes.c_int64.from_address(table + 8 * STREAM_WORD).value
            grid = (programs, 1, 1, rows[name].threads, 1, 1, rows[name].shared)
            status = launch(self._functions[name], *grid, stream, pointers, None)
            if status != 0:
                raise InternalError(f"the GPU's driver failed with {status} at {name}")

        return run

    def word(self, threads: int | None) -> int:
        """The address of the table of the current stream."""
        stream = self.driver.stream(self.device)
        table = self._tables.get(stream)
        if table is None:  # the first one stays: native code may be reading it
            table = self._tables.setdefault(stream, self._table(stream))
        return ctypes.addressof(table)

    def _table(self, stream: int) -> Any:
        words = [0] * (TABLE + KERNEL_WORDS * len(self.kernels))
        words[STREAM_WORD], words[LAUNCH_WORD] = stream, self.driver.launch
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


def driver_of(kind: str) -> Driver:
    """The driver of a kind of GPU. Raises `InternalError`: there is none yet."""
    raise InternalError(f"fusec cannot run programs on GPUs of the kind {kind!r} yet")
