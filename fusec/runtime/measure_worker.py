"""A process that runs kernels and takes their time: lines of JSON in, lines out.

{"do": "prepare", "device": "cpu", "threads": 2, "seed": 0, "sizes": [64],
 "buffers": [{"dtype": "f32", "elements": 64000, "bytes": 256000, "below": 8}]}   →  {}
{"do": "load", "code": 3, "grid": 64, "name": "fused_exp_0", "objects": [base64, …]} or
{"do": "load", "code": 3, "grid": 64, "kernel": {"name": …, "code": base64, …},
 "scratch": 0}                                                                    →  {}
{"do": "sample", "code": 3, "least": 0.001, "patience": 10}    →  {"seconds": 2.1e-6}
{"do": "clear"}                                                →  {}

All code of a kernel runs on the same buffers, as programs run it: on a CPU by their
launcher and on as many threads, on a GPU by its driver on torch's stream. A sample is
as many calls in a row as take `least` seconds, by the clock of the device, behind one
that does not count: what the caches have room for, calls find there. What goes wrong in
Python is told as {"error": …}; a kernel may end the process, and does so by an alarm if
it hangs and nobody is left to end it.
"""

from __future__ import annotations

import base64
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from fusec.runtime.devices import CPU
from fusec.runtime.gpus import driver_of
from fusec.runtime.launcher_cpu import PARALLEL, Launcher, link, load, slots
from fusec.runtime.launcher_gpu import MOST_QUEUED, Gpu, GpuKernel
from fusec.runtime.tensors import TORCH_DTYPES, made

Question = Mapping[str, Any]
Call = Callable[[], None]


class Runner(Protocol):
    """What runs kernels on one device."""

    device: torch.device
    most: int
    """Calls of a sample."""

    def made(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """Memory like that of programs."""
        ...

    def loaded(self, question: Question, arguments: list[int]) -> Call:
        """A launch of a kernel on addresses and sizes."""
        ...

    def seconds(self, call: Call, repeats: int) -> float:
        """What so many calls in a row take."""
        ...

    def release(self) -> None:
        """Give back memory that nobody has any more."""
        ...


class OnCpu:
    """Runs kernels on threads of this process."""

    device = torch.device("cpu")
    most = sys.maxsize

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.threads = CPU.word(threads)

    def made(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        return made((count,), (1,), dtype)

    def loaded(self, question: Question, arguments: list[int]) -> Call:
        name, grid = question["name"], question["grid"]
        objects = [base64.b64decode(text) for text in question["objects"]]
        launcher = Launcher(load(link(objects, [name, PARALLEL])))
        held, threads = slots(arguments), self.threads
        return lambda: launcher(name, held, grid, threads)

    def seconds(self, call: Call, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return time.perf_counter() - start

    def release(self) -> None:
        pass


class OnGpu:
    """Runs kernels by the driver of a GPU."""

    most = MOST_QUEUED

    def __init__(self, name: str) -> None:
        self.name = name
        self.device = torch.device(name)
        self.driver = driver_of(name)
        self.scratch: list[torch.Tensor] = []
        """What kernels that are loaded make tensor descriptors in."""

    def made(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(count, dtype=dtype, device=self.device)

    def loaded(self, question: Question, arguments: list[int]) -> Call:
        told, grid = question["kernel"], question["grid"]
        kernel = GpuKernel(**{**told, "code": base64.b64decode(told["code"])})
        program = Gpu(self.name, [kernel], self.driver)
        launch, given = program.launches(), [*arguments]
        if kernel.scratch_at is not None:
            self.scratch.append(self.made(grid * question["scratch"], torch.uint8))
            given.insert(kernel.scratch_at, self.scratch[-1].data_ptr())
        return lambda: launch(kernel.name, given, grid, program.word(None))

    def seconds(self, call: Call, repeats: int) -> float:
        return self.driver.seconds(call, repeats, self.device)

    def release(self) -> None:
        self.scratch.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class Bench:
    """The buffers of one kernel, and what has been loaded to run on them."""

    def __init__(self) -> None:
        self.buffers: list[torch.Tensor] = []
        self.calls: dict[int, Call] = {}
        self.repeats: dict[int, int] = {}
        self.runner: Runner = OnCpu(1)

    def clear(self, question: Question) -> dict[str, Any]:
        """Let go of buffers and code."""
        self.calls.clear()
        self.repeats.clear()
        self.buffers.clear()
        self.runner.release()
        return {}

    def prepare(self, question: Question) -> dict[str, Any]:
        """Draw buffers, in place of those that there are."""
        self.clear(question)
        name, threads = question["device"], question["threads"]
        self.runner = OnGpu(name) if threads is None else OnCpu(threads)
        torch.manual_seed(question["seed"])
        self.buffers += (_drawn(each, self.runner) for each in question["buffers"])
        addresses = [buffer.data_ptr() for buffer in self.buffers]
        self.arguments = [*addresses, *question["sizes"]]
        return {}

    def load(self, question: Question) -> dict[str, Any]:
        """Put a kernel into the process."""
        self.calls[question["code"]] = self.runner.loaded(question, self.arguments)
        return {}

    def sample(self, question: Question) -> dict[str, Any]:
        """Seconds of a call."""
        signal.alarm(2 + int(question["patience"]))
        code, least, runner = question["code"], question["least"], self.runner
        call = self.calls[code]
        repeats = self.repeats.get(code, 1)
        call()
        while (taken := runner.seconds(call, repeats)) < least:
            if code in self.repeats or 2 * repeats > runner.most:
                break
            repeats *= 2
        self.repeats[code] = repeats
        signal.alarm(0)
        return {"seconds": taken / repeats}


def _drawn(buffer: Mapping[str, Any], runner: Runner) -> torch.Tensor:
    """Normal floats, integers from 0 to below a limit, coin flips; of elements that
    torch has not, any bits."""
    dtype, count = TORCH_DTYPES.get(buffer["dtype"]), buffer["elements"]
    if dtype is None:
        memory = runner.made(buffer["bytes"], torch.uint8)
        kind = {"dtype": torch.uint8, "device": runner.device}
        return memory.copy_(torch.randint(0, 256, memory.shape, **kind))
    memory = runner.made(count, dtype)
    if dtype.is_floating_point:
        return memory.copy_(torch.randn(count, device=runner.device))
    below = 2 if dtype is torch.bool else buffer["below"]
    return memory.copy_(torch.randint(0, below, (count,), device=runner.device))


def main() -> None:
    """Answer each line before the next one is read."""
    bench = Bench()
    does = {
        "prepare": bench.prepare,
        "load": bench.load,
        "sample": bench.sample,
        "clear": bench.clear,
    }
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = does[question["do"]](question)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
