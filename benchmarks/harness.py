"""What benchmarks share: ratios of candidates that `fusec.measuring.timing` timed in
rounds, the limits that a machine sets, and results on disk.

What counts is the median over rounds, and the quartiles of the ratios *within* rounds:
a burst of other work slows whole rounds and leaves their ratios alone.

    samples = interleave({"eager": lambda: f(x), "fusec": lambda: g(x)}, rounds=20)
    median(samples["eager"])                       # seconds per call
    ratio(samples["eager"], samples["fusec"])      # how many times as fast fusec is

Memory decides as much as code does. As shipped, glibc maps fresh pages for each large
output and gives them back after it; filling 64 MiB of those takes several times as long
as filling memory that is there. `warm_memory` keeps freed memory, for all candidates
alike. Every table tells which of both it shows.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import platform
import shutil
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch

from fusec.measuring import cpu
from fusec.measuring.timing import Call, Samples
from fusec.runtime.memory import advise_huge
from fusec.target import host

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Spread:
    """A median between its quartiles."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio(base: Sequence[float], other: Sequence[float]) -> Spread:
    """How many times as fast as `base` the `other` was, by rounds; at least two."""
    return Spread(*quantiles([b / o for b, o in zip(base, other, strict=True)]))


def mean_ratio(spreads: Sequence[Spread | None]) -> float:
    """The geometric mean of the ratios that there are; 1 where there are none."""
    logs = [math.log(each.middle) for each in spreads if each]
    return math.exp(sum(logs) / max(1, len(logs)))


def compilers(named: Sequence[str] | None = None) -> tuple[str, ...]:
    """What `torch.compile` is given: fusec, and those named; if none is, inductor,
    which needs a C++ compiler."""
    if named is not None:
        return tuple(dict.fromkeys((*named, "fusec")))
    if shutil.which(os.environ.get("CXX", "g++")):
        return ("inductor", "fusec")
    print("inductor is left out: there is no C++ compiler")
    return ("fusec",)


def options(
    doc: str | None, dtypes: Collection[str], threads: Sequence[int]
) -> argparse.ArgumentParser:
    """What benchmarks of products are asked for: by default in all dtypes."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtypes", nargs="+", default=[*dtypes], choices=[*dtypes])
    parser.add_argument("--threads", nargs="+", type=int, default=[*threads])
    parser.add_argument("--save", action="store_true", help="write the results")
    return parser


# The limits that multiply-adds and memory set.


def peak(threads: int) -> float:
    """Operations per second of f32 multiply-adds in registers, in this very run."""
    return 2 * cpu.peak(host(), threads)


def streams(read: int, written: int) -> dict[str, Call]:
    """Two ways to read and to write so many bytes, on as many threads as torch has.

    Candidates for the same rounds as what they are the limit of: the faster one is the
    roofline. What is both read and written is copied, by torch (whose threads start
    quickly) or by memcpy (which writes past the caches); the rest is searched for a
    byte that is not there, or filled. What is read lies as inputs do, what is written
    on huge pages.
    """
    both, rest = min(read, written), read - written
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads)
    source, target = _bytes(both, huge=False), _bytes(both, huge=True)
    more = _bytes(abs(rest), huge=rest < 0)
    sources, targets, parts = (
        np.array_split(x.numpy(), threads) for x in (source, target, more)
    )
    search = ctypes.CDLL(None).memchr
    search.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    search.restype = ctypes.c_void_p

    def missing(part: Any) -> None:
        assert search(part.ctypes.data, 2, part.nbytes) is None

    def others() -> None:
        if rest > 0:
            list(pool.map(missing, parts))
        elif rest < 0:
            more.fill_(1)

    def copy() -> torch.Tensor:
        others()
        return target.copy_(source)

    def memcpy() -> torch.Tensor:
        others()
        list(pool.map(np.copyto, targets, sources))
        return target

    return {"copy": copy, "memcpy": memcpy}


def _bytes(count: int, huge: bool) -> torch.Tensor:
    """So many bytes, at least one, each 1."""
    made = torch.empty(max(count, 1), dtype=torch.uint8)
    if huge:
        advise_huge(made.data_ptr(), made.nbytes)
    return made.fill_(1)


# Memory.

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def warm_memory() -> bool:
    """Let the process keep what it frees from now on; False where malloc cannot.

    Switches off malloc's own mappings for large blocks and giving memory back (see
    mallopt(3)), both of which only glibc has.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_MAX, 0) and libc.mallopt(_TRIM_THRESHOLD, -1))


# Results.


def environment() -> dict[str, Any]:
    """What the timings depend on beside the code."""
    huge_pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    allocator = ("LD_PRELOAD", "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE")
    return {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "huge pages": huge_pages.read_text().strip() if huge_pages.exists() else "",
        "allocator": {n: os.environ[n] for n in allocator if n in os.environ},
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def save(name: str, rows: Sequence[Any]) -> Path:
    """Write dataclasses `rows` and the environment to results/`name`.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    write(path, environment(), rows)
    return path


def write(path: Path, around: Mapping[str, Any], rows: Sequence[Any]) -> None:
    """Write dataclasses `rows`, a line each, and what is `around` them."""
    lines = ",\n".join(json.dumps(asdict(row)) for row in rows)
    told = json.dumps(around, indent=1)
    path.write_text(f'{{"environment": {told},\n"rows": [\n{lines}\n]}}\n')


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        aligned = [first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)]
        return f"| {' | '.join(aligned)} |"

    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def microseconds(samples: Samples) -> str:
    return f"{median(samples) * 1e6:.1f}"
