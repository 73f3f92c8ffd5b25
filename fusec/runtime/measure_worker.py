"""A process that runs kernels and takes their time: lines of JSON in, lines out.

{"do": "prepare", "seed": 0, "threads": 2, "sizes": [64],
 "buffers": [{"dtype": "f32", "elements": 64000, "bytes": 256000, "below": 8}]}   →  {}
{"do": "load", "code": 3, "name": "fused_exp_0", "grid": 64,
 "objects": [base64, …]}                                                     →  {}
{"do": "sample", "code": 3, "least": 0.001, "patience": 10}    →  {"seconds": 2.1e-6}

All code of a kernel runs on the same buffers, by the launcher of programs and on as
many threads. A sample is as many calls in a row as take `least` seconds, behind one
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
from typing import Any

import torch

from fusec.runtime.devices import CPU
from fusec.runtime.launcher_cpu import PARALLEL, Launcher, link, load, slots
from fusec.runtime.tensors import TORCH_DTYPES, made

Question = Mapping[str, Any]


class Bench:
    """The buffers of one kernel, and what has been loaded to run on them."""

    def __init__(self) -> None:
        self.buffers: list[torch.Tensor] = []
        self.calls: dict[int, Callable[[], None]] = {}
        self.repeats: dict[int, int] = {}

    def prepare(self, question: Question) -> dict[str, Any]:
        """Draw buffers, in place of those that there are."""
        self.calls.clear()
        self.repeats.clear()
        self.buffers.clear()
        torch.manual_seed(question["seed"])
        torch.set_num_threads(question["threads"])
        self.buffers += map(_drawn, question["buffers"])
        addresses = [buffer.data_ptr() for buffer in self.buffers]
        self.arguments = slots([*addresses, *question["sizes"]])
        self.threads = CPU.word(question["threads"])
        return {}

    def load(self, question: Question) -> dict[str, Any]:
        """Put a kernel into the process."""
        name, grid = question["name"], question["grid"]
        objects = [base64.b64decode(text) for text in question["objects"]]
        launcher = Launcher(load(link(objects, [name, PARALLEL])))

        def call() -> None:
            launcher(name, self.arguments, grid, self.threads)

        self.calls[question["code"]] = call
        return {}

    def sample(self, question: Question) -> dict[str, Any]:
        """Seconds of a call."""
        signal.alarm(2 + int(question["patience"]))
        code, least = question["code"], question["least"]
        call = self.calls[code]
        repeats = self.repeats.get(code, 1)
        call()
        while (taken := _seconds(call, repeats)) < least and code not in self.repeats:
            repeats *= 2
        self.repeats[code] = repeats
        signal.alarm(0)
        return {"seconds": taken / repeats}


def _seconds(call: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - start


def _drawn(buffer: Mapping[str, Any]) -> torch.Tensor:
    """Normal floats, integers from 0 to below a limit, coin flips; of elements that
    torch has not, any bits."""
    dtype, count = TORCH_DTYPES.get(buffer["dtype"]), buffer["elements"]
    if dtype is None:
        return torch.randint(0, 256, (buffer["bytes"],), dtype=torch.uint8)
    memory = made((count,), (1,), dtype)
    if dtype.is_floating_point:
        return memory.copy_(torch.randn(count))
    below = 2 if dtype is torch.bool else buffer["below"]
    return memory.copy_(torch.randint(0, below, (count,)))


def main() -> None:
    """Answer each line before the next one is read."""
    bench = Bench()
    does = {"prepare": bench.prepare, "load": bench.load, "sample": bench.sample}
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = does[question["do"]](question)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
