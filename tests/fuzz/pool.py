"""A process that judges programs, begun anew when it crashes or hangs."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

PATIENCE = 240.0
"""Seconds after which a case counts as a hang: far beyond any that ends."""
STARTING = 600.0
"""Seconds that a process may take to begin, on a machine that has much else to do."""
_TESTS = str(Path(__file__).parents[1])
_ROOT = str(Path(__file__).parents[2])


READY = "ready"
"""What a process says when it has begun."""


def _told_within(stream: IO[str], seconds: float) -> bool:
    """Whether a process says something, or ends, in so many seconds."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return bool(selector.select(seconds))


class Worker:
    """`ask` it one question at a time; what kills it is an answer too."""

    def __init__(self, module: str = "fuzz.worker", patience: float = PATIENCE) -> None:
        self._module = module
        self._patience = patience
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._errors.close()

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer; {"kind": "crash"} or {"kind": "hang"} where there is none."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        if not _told_within(process.stdout, self._patience):
            self.stop()
            return {"kind": "hang", "message": f"no answer in {self._patience} s"}
        line = process.stdout.readline()
        if line:
            return json.loads(line)
        status = process.wait()
        told = self._told()
        self.stop()
        return {"kind": "crash", "message": f"the process died: {status}\n{told}"}

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            path = os.pathsep.join((_ROOT, _TESTS, os.environ.get("PYTHONPATH", "")))
            self._errors.seek(0)
            self._errors.truncate()
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            )
            assert self._process.stdout is not None
            if _told_within(self._process.stdout, STARTING):
                self._process.stdout.readline()
        return self._process

    def _told(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-4000:]

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process = None
