"""Runs a program in a process of its own, with the fusec under test and a deadline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import fusec

DEADLINE = 120
"""Seconds after which a process is killed: none needs a quarter of it."""


def start(program: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a program; `folder` is its cache, and two threads are all it has."""
    root = str(Path(fusec.__file__).parents[1])
    own = {
        "FUSEC_CACHE_DIR": str(folder),
        "PYTHONPATH": root,
        "OMP_NUM_THREADS": "2",
    }
    return subprocess.Popen(
        [sys.executable, "-c", dedent(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, **own},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, output and errors; a process that hangs is killed and fails."""
    try:
        output, errors = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        raise AssertionError(f"the process hung\n{output}\n{errors}") from None
    return process.returncode, output, errors
