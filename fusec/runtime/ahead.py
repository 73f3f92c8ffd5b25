"""Compiling kernels for GPUs, ahead of time and whether such a GPU is here or not.

    jobs ─▶ worker processes, a share each ─▶ binaries and what they take of a GPU

Triton compiles in processes of its own: it may crash or hang on a kernel, and then
fails that one alone (see `workers`, and `triton_worker` for what crosses).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from fusec.errors import UserError
from fusec.runtime.pool import ask_all
from fusec.runtime.workers import Answer, Lost
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
    constants: tuple[tuple[str, int], ...]
    """The parameters after those, whose values the code has in it."""
    backend: str
    arch: str
    warp: int
    """Threads of a warp."""
    warps: int
    stages: int
    scratch: int = 0
    """Bytes of memory that launches give each program for tensor descriptors."""

    @property
    def scratch_at(self) -> int | None:
        """Which parameter that memory is, if any: the last address."""
        addresses = sum(kind.startswith("*") for kind in self.types)
        return addresses - 1 if self.scratch else None


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


def spilled(outcome: Binary | Failure, target: Target) -> float:
    """Bytes of each thread that found no register; infinite for what cannot run on a
    GPU."""
    assert target.gpu is not None
    if isinstance(outcome, Failure):
        return float("inf")
    fits = outcome.resources.shared <= target.gpu.shared_of_program
    return outcome.resources.spilled if fits else float("inf")


def triton_version() -> str:
    """The version of Triton, by whatever name it was installed."""
    for name in ("triton", "pytorch-triton", "pytorch-triton-rocm"):
        with suppress(PackageNotFoundError):
            return version(name)
    return "unknown"


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
    answers = ask_all(WORKER, [asdict(job) for job in jobs], workers, PATIENCE)
    return [_outcome(answer) for answer in answers]


def _outcome(answer: Answer | Lost) -> Binary | Failure:
    if isinstance(answer, Lost):
        return Failure(str(answer))
    if "error" in answer:
        return Failure(answer["error"])
    code = base64.b64decode(answer["code"])
    return Binary(code, Resources(**answer["resources"]))
