"""NVIDIA's driver, by its own C interface: modules, functions, contexts.

    driver = Cuda()
    function = driver.load(kernel, device)      what cuLaunchKernel takes

Contexts and streams are torch's: the primary context of each device. What was loaded
stays loaded, as Triton leaves it: a module that is unloaded may still be running.
Equal code is loaded once for each device.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import torch

from fusec.errors import InternalError, UserError
from fusec.runtime.launcher_gpu import ENTER, GpuKernel

NAMES = ("libcuda.so.1", "libcuda.so")
STATIC_SHARED = 48 << 10
"""Bytes of shared memory that a program may have without asking."""
MAX_DYNAMIC_SHARED = 8
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES."""

CYCLES_OF_A_LAUNCH = 50_000
"""Of a device, while Python launches a kernel: about 25 µs, which is plenty."""


class Cuda:
    """The driver, for programs. Raises `UserError` where it is not installed."""

    def __init__(self, library: Any = None) -> None:
        self._library = _opened() if library is None else library
        self.launch = self._address("cuLaunchKernel")
        self.enter = self._address("cuCtxPushCurrent_v2")
        self.leave = self._address("cuCtxPopCurrent_v2")
        self._contexts: dict[int, int] = {}
        self._loaded: dict[tuple[int, GpuKernel], int] = {}
        self._lock = threading.Lock()

    def context(self, device: torch.device) -> int:
        """The primary context of a device, which torch made."""
        with self._lock:
            if device.index not in self._contexts:
                self._contexts[device.index] = self._primary(device.index)
            return self._contexts[device.index]

    def load(self, kernel: GpuKernel, device: torch.device) -> int:
        """The function of a kernel on a device.

        Raises `InternalError` where the device cannot run it.
        """
        context, key = self.context(device), (device.index, kernel)
        with self._lock:
            if key not in self._loaded:
                self._check(ENTER(self.enter)(context))
                try:
                    self._loaded[key] = self._function(kernel)
                finally:
                    self._library.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
            return self._loaded[key]

    def stream(self, device: torch.device) -> int:
        """Torch's current stream."""
        return torch._C._cuda_getCurrentRawStream(device.index)

    def is_capturing(self, device: torch.device) -> bool:
        """Whether torch's current stream captures what is launched on it."""
        with torch.cuda.device(device):
            return torch.cuda.is_current_stream_capturing()

    def words(self, count: int) -> torch.Tensor:
        """Zeros in pinned memory, which kernels reach at the same address."""
        return torch.zeros(count, dtype=torch.int64, device="cpu", pin_memory=True)

    def wait(self, device: torch.device) -> None:
        """Wait for all that was launched on a device."""
        torch.cuda.synchronize(device)

    def seconds(
        self, call: Callable[[], None], repeats: int, device: torch.device
    ) -> float:
        """What launches in a row take. The device waits until all are queued, so that
        none waits for this machine."""
        with torch.cuda.device(device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(repeats * CYCLES_OF_A_LAUNCH)
            start.record()
            for _ in range(repeats):
                call()
            end.record()
            end.synchronize()
        return start.elapsed_time(end) / 1e3

    def failure(self, status: int) -> str:
        """The driver's name of an error, and what it says of it."""
        parts: list[str] = []
        for call in (self._library.cuGetErrorName, self._library.cuGetErrorString):
            text = ctypes.c_char_p()
            call(status, ctypes.byref(text))
            parts.append((text.value or b"").decode())
        name, said = parts
        return f"{name or f'error {status}'}{said and f' ({said})'}"

    def _primary(self, index: int) -> int:
        torch.cuda.current_stream(index)  # torch initializes what it uses
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._check(self._library.cuDeviceGet(ctypes.byref(device), index))
        retain = self._library.cuDevicePrimaryCtxRetain
        self._check(retain(ctypes.byref(context), device))
        return context.value or 0

    def _function(self, kernel: GpuKernel) -> int:
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        loads, finds = self._library.cuModuleLoadData, self._library.cuModuleGetFunction
        self._check(loads(ctypes.byref(module), kernel.code), kernel.name)
        name = kernel.name.encode()
        self._check(finds(ctypes.byref(function), module, name), kernel.name)
        if kernel.shared > STATIC_SHARED:
            allow = self._library.cuFuncSetAttribute
            wanted = MAX_DYNAMIC_SHARED, kernel.shared
            self._check(allow(function, *wanted), kernel.name)
        return function.value or 0

    def _address(self, name: str) -> int:
        function = getattr(self._library, name)
        return ctypes.cast(function, ctypes.c_void_p).value or 0

    def _check(self, status: int, what: str = "") -> None:
        if status:
            about = f" at {what}" if what else ""
            raise InternalError(f"CUDA's driver failed{about}: {self.failure(status)}")


def _opened() -> ctypes.CDLL:
    for name in NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise UserError(
        f"CUDA's driver, {NAMES[0]}, is not there",
        fix="install NVIDIA's driver for the GPU that torch uses",
    )
