"""What GPUs do in a second, through torch, which owns them.

    for gpu in gpus():
        figures = measured(gpu)     {"dram_rate_all": 2.9e12, "launch": 2.1e-6, …}

What takes microseconds is captured as a CUDA graph of many: the host could not start it
as fast as the device runs it. What each of them costs besides is in copies of two
sizes alike, and so not in their difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from fusec.calibration import Machine
from fusec.errors import UnsupportedError
from fusec.measuring.library import products
from fusec.measuring.timing import Call, Timed, rates
from fusec.runtime.gpus import machine_of, target_of
from fusec.target import Target

ROUNDS = 20
FAR = 8
"""How many times what the caches hold is copied in memory."""
IN_GRAPH = 100
"""Copies of a graph: they take tenths of a millisecond."""
LAUNCHES = 1000


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of this machine."""

    device: str
    """As torch names it."""
    machine: Machine
    target: Target


def gpus() -> list[Gpu]:
    """One of each kind that is here and that programs can run on."""
    found: dict[Machine, Gpu] = {}
    for device in (f"cuda:{k}" for k in range(torch.cuda.device_count())):
        try:
            target = target_of(device)
        except UnsupportedError:
            continue
        machine = machine_of(device, target)
        found.setdefault(machine, Gpu(device, machine, target))
    return [*found.values()]


def measured(gpu: Gpu) -> Mapping[str, Any]:
    """The figures of a GPU."""
    target = gpu.target
    far, near = FAR * target.llc_bytes, target.llc_bytes // 4
    with torch.cuda.device(gpu.device):
        multiplied = products(gpu.device, dict(target.library))
        timed = {
            "far": Timed(_copy(far, gpu.device), 2.0 * far),
            "near": Timed(_many(_copy(near, gpu.device)), 1.0),
            "nearer": Timed(_many(_copy(near // 2, gpu.device)), 1.0),
            "launch": Timed(_launches, LAUNCHES),
            **multiplied,
        }
        ended = partial(torch.cuda.synchronize, gpu.device)
        whole = {
            name: Timed(partial(_done, each.call, ended), each.amount)
            for name, each in timed.items()
        }
        rate = rates(whole, ROUNDS)
    peak = target.lanes(32) * target.vector_pipes * target.hertz * target.cores
    moved = IN_GRAPH * 2 * (near - near // 2)
    return {
        "llc_rate": moved / (1 / rate["near"] - 1 / rate["nearer"]) / target.cores,
        # One core alone reaches more than its share: twice as much, as a rule.
        "dram_rate": 2 * rate["far"] / target.cores,
        "dram_rate_all": rate["far"],
        "launch": 1 / rate["launch"],
        "library": {name: rate[name] / peak for name in multiplied},
    }


def _copy(size: int, device: str) -> Call:
    """Reads so many bytes and writes as many."""
    x, y = (torch.ones(size // 4, device=device) for _ in range(2))
    return partial(y.copy_, x)


def _many(call: Call) -> Call:
    """The same over and over, without the host."""
    graph = torch.cuda.CUDAGraph()
    call()
    with torch.cuda.graph(graph):
        for _ in range(IN_GRAPH):
            call()
    return graph.replay


def _launches() -> None:
    for _ in range(LAUNCHES):
        torch.cuda._sleep(0)  # what torch launches with the least beside


def _done(call: Call, ended: Call) -> None:
    call()
    ended()
