"""Processes that work for this one, and may crash or hang.

with Worker("fusec.runtime.triton_worker") as worker:
    answer = worker.ask({"source": …}, patience=120.0)     # or raises Lost

A worker is a module that answers each line of JSON with one, before it reads the next.
Where it ends without an answer, or takes longer than there is patience for, it is lost
with all that it started, and the question with it. A child of a fork leaves the workers
of its parent alone (see `pool` for those that are kept).
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from selectors import EVENT_WRITE, DefaultSelector
from types import TracebackType
from typing import IO, Any

from fusec.options import environment_of_workers

Question = Mapping[str, Any]
Answer = dict[str, Any]

ENDING = 10.0
"""Seconds that it may take until the system tells how a process ended."""


class Lost(Exception):
    """A worker does not answer any more; the text says why."""


class Worker:
    """One process, from its first question to its last; ends with the `with`."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.environment = environment_of_workers()
        """The variables that it was given."""
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            bufsize=0,  # no lock that a child of a fork would find held
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,  # what it starts ends with it
        )
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._errors: SimpleQueue[str] = SimpleQueue()
        streams = self._process.stdout, self._process.stderr
        for pair in zip(streams, (self._lines, self._errors), strict=True):
            threading.Thread(target=_read, args=pair, daemon=True).start()
        assert self._process.stdin is not None
        self._questions: IO[bytes] = self._process.stdin
        os.set_blocking(self._questions.fileno(), False)
        _running.add(self)

    def ask(self, question: Question, patience: float) -> Answer:
        """What the worker answers within so many seconds; raises `Lost` otherwise."""
        until = time.monotonic() + patience
        try:
            with suppress(BrokenPipeError):  # then there is no answer either
                self._send(json.dumps(question).encode() + b"\n", until)
            line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
        except (Empty, TimeoutError):
            self.close()
            raise Lost(f"it took more than {patience:.0f} s") from None
        if not line:
            raise Lost(self._end())
        try:
            return json.loads(line)
        except ValueError:  # what it runs printed something
            self.close()
            raise Lost(f"it answered {line.strip()[:80]!r}") from None

    def is_ready(self) -> bool:
        """Whether it waits for a question, and has said nothing since the last one."""
        return self._process.poll() is None and self._lines.empty()

    def close(self) -> None:
        """End the process, and those that it started."""
        _running.discard(self)
        if os.getpid() == self._owner:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # a driver may hold it
                self._process.wait(ENDING)
        self._questions.close()

    def disown(self) -> None:
        """Leave it to the parent of this process. While a child holds the pipe, the
        worker does not end when its owner does."""
        self._questions.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, line: bytes, until: float) -> None:
        """Raises TimeoutError where the worker does not read it in time: a pipe holds
        64 KiB."""
        left = memoryview(line)
        with DefaultSelector() as selector:
            selector.register(self._questions, EVENT_WRITE)
            while left:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise TimeoutError
                left = left[self._questions.write(left) or 0 :]

    def _end(self) -> str:
        """How the process ended, and the last that it said."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING)
        self.close()
        said = "nothing"
        with suppress(Empty):
            while line := self._errors.get(timeout=ENDING):
                said = line.strip() or said
        return f"its process ended with {self._process.returncode}, and said: {said}"


_running: set[Worker] = set()


def _disown() -> None:
    """In a child of a fork: all that run are the parent's."""
    for worker in list(_running):
        worker.disown()
    _running.clear()


os.register_at_fork(after_in_child=_disown)


def _read(stream: io.RawIOBase, lines: SimpleQueue[str]) -> None:
    """Hand on each whole line, and an empty text in the end."""
    with io.BufferedReader(stream) as buffered:
        for line in buffered:
            if line.endswith(b"\n"):
                lines.put(line.decode(errors="replace"))
    lines.put("")
