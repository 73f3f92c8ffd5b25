"""Emitted Triton on machines without a GPU: in Triton's interpreter, as IR would run.

emulator = Emulator(folder)
results = emulator.run(journey, arrays)         # what the host function gives

Triton's interpreter cuts the last bits off where floats become bfloat16, on which GPUs
round to the nearest, and multiplies matrices of their bits: here it does as GPUs do.
Before Triton 3.9 it has no constants of bfloat16, and in Triton 3.6 no loop whose bound
is a number of numpy 2.4's.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import emulated_device
import numpy as np
import torch
import triton.language as tl
from triton.language.extra import libdevice
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from fusec import build
from fusec.build import emitted
from fusec.calibration import Machine
from fusec.ir.core import Function
from fusec.ir.dtypes import DType
from fusec.ir.interpreter import host, interpret
from fusec.ir.types import Buffer
from fusec.passes.journey import Journey
from fusec.runtime import gpus
from fusec.runtime.ahead import Binary, Job, Resources
from fusec.runtime.launcher_gpu import GpuKernel
from fusec.runtime.recipe import HIDDEN, VECTOR
from fusec.runtime.tensors import torch_dtype
from fusec.runtime.triton_source import loaded
from fusec.target import SM_90


class EmulatedDriver:
    """A GPU's driver whose GPU is Triton's interpreter, on the CPU's memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernels: list[tuple[Any, Job]] = []
        self.launches = 0
        self.grid = 0
        """Programs of the last launch."""
        self.busy = 0.0
        """Seconds, by a clock that is the same everywhere: all programs of a launch run
        at once, and the more they are the less each one has to do."""
        self._of_thread = threading.local()
        self._one = threading.Lock()
        """Triton's interpreter runs one kernel at a time."""
        self.current = 1
        """The stream."""
        self.tape: list[Callable[[], Any]] | None = None
        """What takes launches in place of the GPU while they are captured."""
        self.fails = 0
        """The status of every launch."""
        self.wrong: list[BaseException] = []
        """What went wrong where nobody could be told."""
        calls = (LAUNCH, self._launch), (ENTER, self._enter), (ENTER, self._leave)
        self._callbacks = [kind(self._noting(call)) for kind, call in calls]
        addresses = (ctypes.cast(f, ctypes.c_void_p).value for f in self._callbacks)
        self.launch, self.enter, self.leave = (address or 0 for address in addresses)

    @property
    def contexts(self) -> list[int]:
        """Those that are current in this thread, the last one on top."""
        return self._of_thread.__dict__.setdefault("contexts", [])

    def _noting(self, call: Callable[..., int]) -> Callable[..., int]:
        """A call from native code: what it raises is raised in the end."""

        def run(*given: Any) -> int:
            try:
                return call(*given)
            except BaseException as error:
                self.wrong.append(error)
                return WRONG

        return run

    def context(self, device: torch.device) -> int:
        return CONTEXT + (device.index or 0)

    def load(self, kernel: GpuKernel, device: torch.device) -> int:
        """The number of a kernel, counted from 1."""
        job = Job(**json.loads(kernel.code))
        path = self.folder / f"loaded_{len(self.kernels)}.py"
        function = loaded(job.source, kernel.name, path)
        self.kernels.append((function, job))
        return len(self.kernels)

    def stream(self, device: torch.device) -> int:
        return self.current

    def is_capturing(self, device: torch.device) -> bool:
        return self.tape is not None

    def words(self, count: int) -> torch.Tensor:
        return torch.zeros(count, dtype=torch.int64)

    def wait(self, device: torch.device) -> None:
        assert self.tape is None, "nobody may wait while launches are captured"

    def seconds(
        self, call: Callable[[], None], repeats: int, device: torch.device
    ) -> float:
        before = self.busy
        for _ in range(repeats):
            call()
        return self.busy - before

    def failure(self, status: int) -> str:
        return f"EMULATED_{status}"

    def _enter(self, context: int) -> int:
        assert context >= CONTEXT
        self.contexts.append(context)
        return 0

    def _leave(self, before: int) -> int:
        self.contexts.pop()
        return 0

    def _launch(self, function: int, grid: int, *rest: Any) -> int:
        *_, threads, _, _, shared, stream, params, _ = rest
        assert stream == self.current
        assert len(self.contexts) == 1
        assert grid > 0
        if self.fails:
            return self.fails
        jit, job = self.kernels[function - 1]
        assert (threads, shared) == (job.warp * job.warps, 0)
        count = len(job.types)
        words = [
            ctypes.c_int64.from_address(params[k]).value for k in range(count + HIDDEN)
        ]
        self._describe(job, grid, *words[count:])
        words = words[:count]
        for word, whole in zip(words, job.aligned, strict=False):
            assert word % VECTOR == 0 or not whole
        if self.tape is not None:
            self.tape.append(partial(self._run, jit, job, grid, words))
            return 0
        self._run(jit, job, grid, words)
        return 0

    def _run(self, jit: Any, job: Job, grid: int, words: Sequence[int]) -> None:
        arguments = map(_argument, job.types, words)
        with self._one, _as_gpus_do():
            jit[(grid,)](*arguments, **dict(job.constants))
            self.launches += 1
            self.grid = grid
            self.busy += 1 / grid

    def _describe(self, job: Job, grid: int, scratch: int, noted: int) -> None:
        """Write to the memory that programs make their descriptors in, as they do."""
        assert not noted
        assert bool(scratch) == bool(job.scratch), f"{job.name}: scratch at {scratch}"
        assert scratch % LEAST_ALIGNED == 0
        if scratch:
            ctypes.memset(scratch, 0xFF, grid * job.scratch)


LEAST_ALIGNED = 64
"""Bytes at whose multiples descriptors lie: memory of a CPU is aligned to no more."""
WORKER = "emulated_measure_worker"
WRONG = 999
"""The status of a call that went wrong."""
CONTEXT = 1 << 20
"""The context of the first device."""


LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int64,
    *[ctypes.c_uint] * 7,
    ctypes.c_int64,
    ctypes.POINTER(ctypes.c_int64),
    ctypes.c_void_p,
)
ENTER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64)
SHORT = {
    "i1": torch.bool,
    "i8": torch.int8,
    "i16": torch.int16,
    "i32": torch.int32,
    "i64": torch.int64,
    "u8": torch.uint8,
    "u16": torch.uint16,
    "u32": torch.uint32,
    "u64": torch.uint64,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}


def _argument(kind: str, word: int) -> Any:
    """A number, or a tensor that lies at an address: the interpreter asks no more."""
    if kind[0] != "*":
        return word
    dtype = SHORT[kind[1:]]
    memory = (ctypes.c_char * dtype.itemsize).from_address(word)
    return torch.frombuffer(memory, dtype=dtype)


def uncompiled(jobs: Sequence[Job], workers: int) -> list[Binary]:
    """What `compile_all` gives where kernels are interpreted: their source."""
    return [
        Binary(
            json.dumps(asdict(job)).encode(), Resources(0, 0, 0, job.warp * job.warps)
        )
        for job in jobs
    ]


def kinds(driver: EmulatedDriver) -> dict[str, gpus.Kind]:
    """What `gpus.KINDS` holds where tensors on the CPU, and those on the device of
    `emulated_device`, are on an emulated GPU."""
    machine = Machine("emulated", SM_90.cpu, SM_90.cores)
    kind = gpus.Kind(
        lambda device: SM_90, lambda device: machine, lambda: driver, WORKER
    )
    return dict.fromkeys(("cpu", emulated_device.NAME), kind)


@contextmanager
def emulated(folder: Path) -> Iterator[EmulatedDriver]:
    """Programs for GPUs run meanwhile, on tensors in the CPU's memory: those of targets
    that are named, and of tensors on the device of `emulated_device`."""
    driver = EmulatedDriver(folder)
    with (
        patch.object(build, "compile_all", uncompiled),
        # By its name, as what only runs kernels does without the compiler.
        patch("fusec.compiler.check_runs_here", lambda target: None),
        patch.dict(gpus.KINDS, kinds(driver)),
    ):
        yield driver
    for error in driver.wrong:
        raise error


class Emulator:
    """Kernels of programs, each loaded once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, Any] = {}

    def run(self, journey: Journey, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """The results of a program on arrays in the carriers of their dtypes."""
        target, module = journey.target, journey.module
        texts = {name: emitted(k, target) for name, k in journey.kernels.items()}

        def launch(
            kernel: Function, arguments: Any, sizes: Any, programs: Any, context: Any
        ) -> None:
            made = texts[kernel.name]
            function = self.function(made.text, kernel.name)
            dtypes = [p.type.dtype for p in kernel.params if isinstance(p.type, Buffer)]
            tensors = list(map(_tensor, dtypes, arguments))
            numbers = [sizes[symbol] for symbol in kernel.symbols]
            function[(len(programs),)](*tensors, *numbers, **dict(made.constants))
            for array, dtype, tensor in zip(arguments, dtypes, tensors, strict=True):
                array[...] = _carried(dtype, tensor)

        with (
            patch.object(host, "launch_kernel", launch),
            _as_gpus_do(),
        ):
            return interpret(module.entry, arrays, module=module)

    def function(self, text: str, name: str) -> Any:
        if text not in self.known:
            path = self.folder / f"kernel_{len(self.known)}.py"
            self.known[text] = loaded(text, name, path)
        return self.known[text]


_CAST = InterpreterBuilder.cast_impl
_DOT = InterpreterBuilder.create_dot
_PATCH = interpreter._patch_lang_tensor


@contextmanager
def _as_gpus_do() -> Iterator[None]:
    """Triton's interpreter without its faults with bfloat16, and with conditions that
    are repeated: it takes them for what was compared."""
    with (
        patch.object(InterpreterBuilder, "cast_impl", _cast),
        patch.object(InterpreterBuilder, "create_dot", _dot),
        patch.object(InterpreterBuilder, "create_splat", _splat),
        patch.object(InterpreterBuilder, "get_bf16", _bfloat16, create=True),
        patch.object(interpreter, "_patch_lang_tensor", _indexable),
        patch.object(libdevice, "exp", partial(_in_double, np.exp)),
        patch.object(libdevice, "log", partial(_in_double, np.log)),
    ):
        yield


def _in_double(f: Any, x: Any) -> Any:
    """A function of the device's library, which the interpreter has not."""
    with np.errstate(all="ignore"):
        made = f(x.handle.data.astype(np.float64)).astype(np.float32)
    return tl.tensor(TensorHandle(made, tl.float32), x.type)


def _bfloat16(self: Any, value: float) -> Any:
    return _cast(self, self.get_fp32(value), tl.bfloat16)


def _indexable(tensor: Any, scope: Any) -> None:
    """Methods of tensors while kernels are interpreted."""
    _PATCH(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())


def _splat(self: Any, type_: Any, x: Any) -> Any:
    data = x.data.reshape(-1)[0] if isinstance(x.data, np.ndarray) else x.data
    repeated = np.full(type_.shape, data, np.asarray(x.data).dtype)
    return TensorHandle(repeated, x.dtype.scalar)


def _dot(self: Any, x: Any, y: Any, *rest: Any) -> Any:
    return _DOT(self, _widened(x), _widened(y), *rest)


def _widened(x: Any) -> Any:
    """The numbers that bits of bfloat16 are."""
    if x.dtype.scalar is not tl.bfloat16:
        return x
    numbers = (x.data.astype(np.uint32) << 16).view(np.float32)
    return TensorHandle(numbers, tl.float32)


def _cast(self: Any, source: Any, type_: Any) -> Any:
    """Triton's cast, but for floats that become bfloat16."""
    if type_.scalar is not tl.bfloat16 or source.dtype.scalar is not tl.float32:
        return _CAST(self, source, type_)
    bits = np.asarray(source.data, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    nan = np.isnan(source.data)
    upper = np.where(nan, 0x7FC0, rounded).astype(np.uint16)
    return TensorHandle(upper, tl.bfloat16)


def _tensor(dtype: DType, array: Any) -> torch.Tensor:
    """A copy of flat memory with the elements as they are stored."""
    kind = torch_dtype(dtype.name)
    if dtype.carrier == dtype.storage:
        return torch.from_numpy(np.array(array))
    return torch.from_numpy(dtype.encode(np.asarray(array))).view(kind)


def _carried(dtype: DType, tensor: torch.Tensor) -> Any:
    if dtype.carrier == dtype.storage:
        return tensor.numpy()
    unsigned = {8: torch.uint8, 16: torch.uint16}[dtype.bits]
    return dtype.decode(tensor.view(unsigned).numpy())
