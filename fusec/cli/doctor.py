"""`fusec doctor`: whether fusec can work on this machine, and how well.

The check that compiles and runs something does so in a process of its own, so that a
package that is missing, or an instruction that the processor lacks, is a finding.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fusec import __version__
from fusec.calibration import kept, target_of, this_cpu
from fusec.cli.arguments import chosen
from fusec.cli.output import Output, progress, table
from fusec.errors import FusecError
from fusec.logs import counted
from fusec.options import Options
from fusec.runtime.cache import Cache
from fusec.target import host

_PACKAGES = ("torch", "llvmlite", "numpy", "lark", "networkx", "triton")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPS = Path("/proc/self/maps")
_ALLOCATORS = re.compile(r"lib(jemalloc|tcmalloc|mimalloc)")
_PATIENCE = 120
"""Seconds that the check may take."""


def run(arguments: Namespace) -> Output:
    """Look around, then compile and run something. Status 1 if that fails."""
    options = Options.from_mapping(chosen(arguments))
    with progress("compiling and running a check"):
        check = _check(arguments)
    found = {
        "fusec": __version__,
        "python": f"{platform.python_version()} on {platform.system()}",
        **{name: _version(name) for name in _PACKAGES},
        "target": _target(options),
        "calibrated": _calibrated(options),
        "threads": str(check.get("threads", "unknown")),
        "cache": _cache(options),
        "huge pages": _huge_pages(),
        "allocator": _allocator(),
        "self check": check.get("problem") or "compiled, ran, gave the right results",
    }
    ok = not check.get("problem")
    return Output(table(list(found.items())), {"ok": ok, **found}, 0 if ok else 1)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _target(options: Options) -> str:
    try:
        target = target_of(options)
    except FusecError as error:
        return str(error)
    caches = "/".join(
        f"{n >> 10} KiB" for n in (target.l1_bytes, target.l2_bytes, target.llc_bytes)
    )
    return (
        f"{target.name}: {target.cpu}, {target.vector_bits}-bit vectors,"
        f" {target.cores} cores, caches {caches}"
    )


def _calibrated(options: Options) -> str:
    """When this machine was measured, if it was."""
    try:
        found = kept(host(), this_cpu(), options.cache_dir)
    except FusecError as error:
        return str(error)
    return found.when if found else "no: `fusec calibrate` measures this machine"


def _cache(options: Options) -> str:
    if not options.cache:
        return "off"
    cache = Cache(options.cache_dir)
    if not cache.is_usable() or not os.access(cache.root, os.W_OK):
        return f"{cache.root}: not writable"
    entries = cache.ls()
    size = sum(entry.size for entry in entries)
    return f"{cache.root}: {counted(len(entries), 'entry', 'entries')}, {size:,} bytes"


def _huge_pages() -> str:
    """What the kernel does about them: always, on advice, or never."""
    try:
        state = _HUGE_PAGES.read_text()
    except OSError:
        return "none on this system"
    used = state.partition("[")[2].partition("]")[0]
    hint = ": large tensors are mapped slowly" if used == "never" else ""
    return f"{used}{hint}"


def _allocator() -> str:
    """The allocator that was loaded in place of the C library's, if one was."""
    try:
        replaced = _ALLOCATORS.search(_MAPS.read_text())
    except OSError:
        return "unknown"
    return replaced[1] if replaced else "the C library's"


def _check(arguments: Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "fusec.cli.check"]
    command += [f"{name}={value}" for name, value in chosen(arguments).items()]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"did not end within {_PATIENCE} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        return {"problem": f"died of {signal.Signals(-done.returncode).name}"}
    return {"problem": (done.stderr.strip().splitlines() or ["failed"])[-1]}
