"""What this processor does in a second: the figures of a target that Linux does not
tell.

    figures = measured(host())     {"hertz": 3.1e9, "l2_rate": 1.4e11, …}

Every figure is the best of many rounds, for what else runs here only ever slows. Those
of all cores are taken with a thread on each, as kernels run: clocks are lower then.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from typing import Any

import torch

from fusec.codegen.llvm_launcher import TEXT as LAUNCHER
from fusec.codegen.llvm_object import compile_object
from fusec.measuring import kernels
from fusec.measuring.library import products
from fusec.measuring.timing import Call, Timed, interleave, rates
from fusec.runtime.launcher_cpu import PARALLEL, Launcher, link, load, slots
from fusec.runtime.memory import advise_huge
from fusec.target import Target

ROUNDS = 40
"""Samples of each figure: the best one needs a few milliseconds of a machine alone."""
TRIPS = 1 << 16
"""Of a call, at least: tenths of a millisecond, beside which a launch is nothing."""
STRETCH = 8 << 20
"""Bytes of far memory that a thread reads in a call: the next ones in the next, so that
none come again while a cache may have them."""
LARGEST = 512 << 20
"""Bytes to read from memory, at most."""
BEYOND = 8
"""How many times what the caches hold is read from memory."""
LAUNCHES = 1000
PAYS = 0.95
"""Stores bypass the caches unless they reach less than this of what others do: which of
equals is ahead is chance."""

_EXPORTS = (PARALLEL, "chains", "read", "copy", "stream", "launches")
_LOOP = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


class Bench:
    """The kernels of `kernels`, loaded, and memory for them to walk."""

    def __init__(self, target: Target, size: int = 1 << 12) -> None:
        """`size` bytes are read at most, and as many written."""
        self.target = target
        self.size = size
        texts = kernels.text(target), LAUNCHER
        cpu, features = target.cpu, target.feature_string
        objects = [compile_object(text, cpu, features) for text in texts]
        self._code = load(link(objects, _EXPORTS))
        self._launch = Launcher(self._code)
        self._launches = _LOOP(self._code["launches"])
        self._memory = _memory(size), _memory(max(size, 64 * target.cores))

    def multiply_adds(self, threads: int, trips: int = TRIPS) -> Timed:
        """Those of f32, in registers."""
        amount = trips * threads * kernels.CHAINS * self.target.lanes(32)
        return Timed(self._call("chains", trips, 1, threads), float(amount))

    def read(self, part: int, threads: int) -> Timed:
        """Bytes that are read; each thread walks so many, a power of two, over and over
        again."""
        step = kernels.bytes_of_trip(self.target)
        trips = max(TRIPS, part // step)
        call = self._call("read", trips, part, threads)
        return Timed(call, float(trips * threads * step))

    def moved(self, kernel: str, threads: int) -> Timed:
        """Bytes that `read`, `copy` or `stream` reads of far memory."""
        trips = STRETCH // kernels.bytes_of_trip(self.target)
        steps = range(0, self.size - threads * STRETCH + 1, threads * STRETCH)
        calls = cycle(self._call(kernel, trips, STRETCH, threads, at) for at in steps)
        return Timed(lambda: next(calls)(), float(STRETCH * threads))

    def launches(self, threads: int) -> Timed:
        """Launches of nothing on so many threads."""
        return Timed(partial(self._run_launches, threads), LAUNCHES)

    def _call(
        self, kernel: str, trips: int, part: int, threads: int, at: int = 0
    ) -> Call:
        source, target = map(_address, self._memory)
        args = slots([trips, part - 1, source + at, target + at])
        return partial(self._run, kernel, args, threads)

    # Methods, so that a call keeps what it runs and walks.

    def _run(self, kernel: str, args: ctypes.Array[Any], threads: int) -> None:
        self._launch(kernel, args, threads, threads)

    def _run_launches(self, threads: int) -> None:
        self._launches(LAUNCHES, threads, threads)


def measured(target: Target) -> Mapping[str, Any]:
    """The figures of the processor that runs this, which is the target."""
    with torch_threads(target.cores):
        found = _measured(target)
    timed = {**products("cpu", dict(target.library))}
    timed["peak"] = Bench(target).multiply_adds(1)
    with torch_threads(1):  # all cores are rarely left alone for as long as it takes
        rate = rates(timed, ROUNDS)
    peak = rate.pop("peak")
    return {**found, "library": {name: each / peak for name, each in rate.items()}}


def peak(target: Target, threads: int) -> float:
    """Multiply-adds of f32 in a second, on so many threads: the most that was seen in
    a moment, whatever else runs."""
    timed = Bench(target).multiply_adds(threads)
    with torch_threads(threads):
        return timed.amount / min(interleave({"peak": timed.call}, ROUNDS)["peak"])


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Have torch take so many meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measured(target: Target) -> dict[str, Any]:
    cores = target.cores
    far = max(min(BEYOND * target.llc_bytes, LARGEST), 2 * cores * STRETCH)
    near = _power(target.l2_bytes // 2)
    shared = max(_power(target.llc_bytes // (2 * cores)), 4 * near)
    bench = Bench(target, max(far, shared * cores))
    timed = {
        "peak": bench.multiply_adds(cores),
        "l2": bench.read(near, cores),
        "llc": bench.read(shared, cores),
        "dram": bench.moved("read", 1),
        "dram_all": bench.moved("read", cores),
        "copy": bench.moved("copy", cores),
        "stream": bench.moved("stream", cores),
        "launch": bench.launches(cores),
    }
    rate = rates(timed, ROUNDS)
    return {
        "hertz": rate["peak"] / (target.lanes(32) * target.vector_pipes * cores),
        "l2_rate": rate["l2"] / cores,
        "llc_rate": rate["llc"] / cores,
        "dram_rate": rate["dram"],
        "dram_rate_all": rate["dram_all"],
        "launch": 1 / rate["launch"],
        "nontemporal": rate["stream"] > PAYS * rate["copy"],
    }


def _power(size: int) -> int:
    """The largest power of two that is no more."""
    return 1 << max(size.bit_length() - 1, 12)


def _memory(size: int) -> mmap.mmap:
    """So many bytes, each 1, on huge pages."""
    made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    advise_huge(_address(made), size)
    ctypes.memset(_address(made), 1, size)
    return made


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
