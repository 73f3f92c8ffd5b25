"""Compiling kernels for GPUs, ahead of time and whether such a GPU is here or not.

    jobs ─▶ worker processes, a share each ─▶ binaries and what they take of a GPU

Triton compiles in processes of its own: it may crash or hang on a kernel, and then
fails that one alone. What crosses are lines of JSON (see `triton_worker`).
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from typing import Any

from fusec.errors import UserError
from fusec.options import environment_of_workers
from fusec.target import Target

PATIENCE = 120.0
"""Seconds that a kernel may take to compile."""
INSTALL = "pip install 'fusec[triton]'"
WORKER = "fusec.runtime.triton_worker"


@dataclass(frozen=True, slots=True)
class Job:
    """A kernel to compile."""

    source: str
    name: str
    types: tuple[str, ...]
    """Of its parameters, as Triton names them."""
    aligned: tuple[bool, ...]
    """Of its buffers, whether they begin at multiples of 16 bytes."""
    backend: str
    arch: str
    warp: int
    """Threads of a warp."""
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class Resources:
    """What a program takes of a multiprocessor."""

    registers: int
    """Of each thread."""
    spilled: int
    """Bytes of each thread that found no register."""
    shared: int
    """Bytes of shared memory."""
    threads: int

    def occupancy(self, target: Target) -> float:
        """The share of the threads that a core of the GPU has room for which can be
        there at a time: as registers, shared memory and programs allow."""
        core = target.gpu
        assert core is not None, f"{target.name} is no GPU"
        granted = -(-max(1, self.registers) // 8) * 8 * self.threads
        room = [core.programs, core.threads // self.threads, core.registers // granted]
        if self.shared:
            room.append(core.shared // (self.shared + core.reserved))
        return min(room) * self.threads / core.threads


@dataclass(frozen=True, slots=True)
class Binary:
    """A compiled kernel."""

    code: bytes
    """A cubin, or an hsaco."""
    resources: Resources

    @property
    def data(self) -> bytes:
        """All of it, to be kept: a line of JSON, then the code."""
        return json.dumps(asdict(self.resources)).encode() + b"\n" + self.code

    @staticmethod
    def of(data: bytes) -> Binary | None:
        """A binary that was kept; None where the bytes are none."""
        line, _, code = data.partition(b"\n")
        try:
            return Binary(code, Resources(**json.loads(line)))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a kernel was not compiled."""

    what: str


def require_triton() -> None:
    """Raise `UserError` where Triton is not installed."""
    if find_spec("triton") is None:
        raise UserError(
            "Triton is not installed",
            fix=f"{INSTALL} to compile for GPUs",
        )


def compile_all(jobs: Sequence[Job], workers: int) -> list[Binary | Failure]:
    """The outcome of each job. Raises `UserError` where Triton is not installed."""
    require_triton()
    shares = [range(k, len(jobs), workers) for k in range(min(workers, len(jobs)))]
    found: dict[int, Binary | Failure] = {}
    with ThreadPoolExecutor(max(1, len(shares)), "fusec-triton") as pool:
        parts = pool.map(lambda share: _compiled([jobs[k] for k in share]), shares)
        for share, outcomes in zip(shares, parts, strict=True):
            found.update(zip(share, outcomes, strict=True))
    return [found[k] for k in range(len(jobs))]


def _compiled(jobs: Sequence[Job]) -> list[Binary | Failure]:
    """What a worker makes of its share; another one goes on behind a job that it does
    not survive."""
    outcomes: list[Binary | Failure] = []
    while len(outcomes) < len(jobs):
        outcomes += _answers(jobs[len(outcomes) :])
    return outcomes


def _answers(jobs: Sequence[Job]) -> Iterator[Binary | Failure]:
    """What one process answers, up to the first job that it fails at."""
    process = subprocess.Popen(
        [sys.executable, "-m", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment_of_workers(),
        start_new_session=True,  # what it starts ends with it
    )
    lines: SimpleQueue[str] = SimpleQueue()
    errors: SimpleQueue[str] = SimpleQueue()
    for stream, queue in ((process.stdout, lines), (process.stderr, errors)):
        threading.Thread(target=_read, args=(stream, queue), daemon=True).start()
    try:
        for job in jobs:
            _ask(process.stdin, job)
            line = lines.get(timeout=PATIENCE)
            if not line:
                yield Failure(_end(process, errors))
                return
            yield _outcome(line)
    except Empty:
        yield Failure(f"it took more than {PATIENCE:.0f} s to compile")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ask(stream: Any, job: Job) -> None:
    with suppress(BrokenPipeError):  # then there is no answer either
        stream.write(json.dumps(asdict(job)) + "\n")
        stream.flush()


def _read(stream: Any, lines: SimpleQueue[str]) -> None:
    """Hand on each whole line, and an empty text in the end."""
    for line in stream:
        if line.endswith("\n"):
            lines.put(line)
    lines.put("")


def _end(process: subprocess.Popen[str], errors: SimpleQueue[str]) -> str:
    """How a process ended that answers no more, and the last that it said."""
    process.wait(PATIENCE)
    said = "nothing"
    while line := errors.get(timeout=PATIENCE):
        said = line.strip() or said
    return f"the compiling process ended with {process.returncode}, and said: {said}"


def _outcome(line: str) -> Binary | Failure:
    data: dict[str, Any] = json.loads(line)
    if "error" in data:
        return Failure(data["error"])
    return Binary(base64.b64decode(data["code"]), Resources(**data["resources"]))
