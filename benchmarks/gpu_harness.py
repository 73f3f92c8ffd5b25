"""Timing on a GPU, side by side: by events of its stream, with its caches emptied.

    limit = Deadline(540)
    samples = interleave({"eager": lambda: f(x), "fusec": lambda: g(x)}, 20, "cuda")

Before each call a buffer that is larger than the second-level cache is read, as what is
said of memory is said of memory; then the GPU sleeps for longer than Python needs to
launch the call, so that no kernel waits for it. On "cpu", where nothing is to be said
about GPUs, the same programs run by the clock, to see that they do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import harness
import torch

from fusec.measuring import timing
from fusec.measuring.timing import Call, Samples

FLUSHED = 256 << 20
"""Bytes read before each call: twice the largest cache there is."""
SLEPT = 1.5
"""For how many times as long as a call takes Python the GPU sleeps before it."""
CYCLES = 2e9
"""Of its clock in a second, about."""
COPIED = 1 << 30
"""Bytes that the copy has which sets the roofline."""
WARM_UP = 3


@dataclass(frozen=True)
class Deadline:
    """So many seconds from now."""

    seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self.began > self.seconds


NEVER = Deadline(float("inf"))


def interleave(
    candidates: Mapping[str, Call], rounds: int, device: str
) -> dict[str, Samples]:
    """Seconds of each call, a sample per round; each round starts with another one."""
    samples: dict[str, Samples] = {name: [] for name in candidates}
    names, seconds = list(candidates), _clock(device)
    for call in candidates.values():
        for _ in range(WARM_UP):
            call()
    for n in range(rounds):
        first = n % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(seconds(candidates[name]))
    return samples


def _clock(device: str) -> Callable[[Call], float]:
    if device == "cpu":
        return lambda call: timing.seconds(call, 1)
    flushed = torch.zeros(FLUSHED // 4, device=device)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    python: dict[int, float] = {}
    """Seconds until a call had launched all that it does, at most."""

    def seconds(call: Call) -> float:
        torch.sum(flushed)
        torch.cuda._sleep(int(CYCLES * SLEPT * python.get(id(call), 1e-2)))
        began = time.perf_counter()
        first.record()
        call()
        last.record()
        took = time.perf_counter() - began
        python[id(call)] = max(took, python.get(id(call), 0.0))
        torch.cuda.synchronize()
        return first.elapsed_time(last) / 1e3

    return seconds


def bandwidth(device: str) -> float:
    """Bytes per second that torch's copy reads and writes together."""
    count = COPIED if device != "cpu" else 1 << 20
    source = torch.zeros(count, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    samples = interleave({"copy": lambda: target.copy_(source)}, 10, device)
    return 2 * count / median(samples["copy"])


def options(doc: str | None) -> argparse.ArgumentParser:
    """What each benchmark of a GPU is asked for."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="few, small rows")
    parser.add_argument("--out", type=Path, default=harness.RESULTS)
    return parser


def compilers(max_autotune: bool) -> dict[str, Callable[[Any], Any]]:
    """How a function is compiled by each candidate, but for eager."""

    def by(**how: Any) -> Callable[[Any], Any]:
        return lambda f: torch.compile(f, dynamic=False, **how)

    found = {"inductor": by(backend="inductor"), "fusec": by(backend="fusec")}
    if max_autotune:
        found["max-autotune"] = by(backend="inductor", mode="max-autotune")
    return found


def environment(device: str) -> dict[str, Any]:
    """What the timings depend on beside the code."""
    name = torch.cuda.get_device_name(device) if device != "cpu" else "none"
    return {
        "device": name,
        "torch": torch.__version__,
        "triton": version("triton"),
        "cuda": torch.version.cuda,
        "date": date.today().isoformat(),
    }


def save(name: str, rows: Sequence[Any], device: str, folder: Path) -> None:
    """Write what there is so far: the machine may be gone before the rest is."""
    folder.mkdir(exist_ok=True, parents=True)
    harness.write(folder / f"gpu_{name}.json", environment(device), rows)


def told(header: Sequence[str], rows: Sequence[Any], failed: Sequence[Failed]) -> None:
    """Print a table, and what it lacks."""
    if rows:
        print(
            f"\n{harness.markdown(header, [row.cells() for row in rows])}", flush=True
        )
        mean = harness.mean_ratio([row.to_inductor for row in rows])
        print(f"\ninductor/fusec: geometric mean {mean:.2f} of {len(rows)} rows")
    for each in failed:
        print(f"failed: {each.row}: {each.error}", flush=True)


@dataclass(frozen=True)
class Failed:
    """A row that is not there, and why."""

    row: str
    error: str


def measured(
    name: str,
    tasks: Iterable[tuple[str, Callable[[], Any]]],
    device: str,
    folder: Path,
    deadline: Deadline,
) -> tuple[list[Any], list[Failed]]:
    """The rows of a benchmark that there was time for, kept as soon as each is there,
    those that failed with their errors."""
    rows: list[Any] = []
    failed: list[Failed] = []
    for what, task in tasks:
        if deadline.is_over:
            print("there was no time for the rest")
            break
        try:
            rows.append(task())
            print("  ", *rows[-1].cells(), flush=True)
        except Exception as error:
            failed.append(Failed(what, f"{type(error).__name__}: {error}"))
            print(f"   {what}: {failed[-1].error}", flush=True)
        save(name, [*rows, *failed], device, folder)
    return rows, failed
