"""Processes that work for this one, and may crash or hang.

with Worker("fusec.runtime.triton_worker") as worker:
    answer = worker.ask({"source": …}, patience=120.0)     # or raises Lost
answers = ask_all("fusec.codegen.object_worker", questions, workers=2, patience=60.0)

A worker is a module that answers each line of JSON with one, before it reads the next.
Where it ends without an answer, or takes longer than there is patience for, it is lost
with all that it started, and the question with it; another worker goes on behind it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

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
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment_of_workers(),
            start_new_session=True,  # what it starts ends with it
        )
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._errors: SimpleQueue[str] = SimpleQueue()
        streams = self._process.stdout, self._process.stderr
        for pair in zip(streams, (self._lines, self._errors), strict=True):
            threading.Thread(target=_read, args=pair, daemon=True).start()

    def ask(self, question: Question, patience: float) -> Answer:
        """What the worker answers within so many seconds; raises `Lost` otherwise."""
        with suppress(BrokenPipeError):  # then there is no answer either
            self._send(question)
        try:
            line = self._lines.get(timeout=patience)
        except Empty:
            self.close()
            raise Lost(f"it took more than {patience:.0f} s") from None
        if not line:
            raise Lost(self._end())
        try:
            return json.loads(line)
        except ValueError:  # what it runs printed something
            self.close()
            raise Lost(f"it answered {line.strip()[:80]!r}") from None

    def close(self) -> None:
        """End the process, and those that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, question: Question) -> None:
        stream = self._process.stdin
        assert stream is not None
        stream.write(json.dumps(question) + "\n")
        stream.flush()

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


def _read(stream: Any, lines: SimpleQueue[str]) -> None:
    """Hand on each whole line, and an empty text in the end."""
    with stream:
        for line in stream:
            if line.endswith("\n"):
                lines.put(line)
    lines.put("")


def ask_all(
    module: str, questions: Sequence[Question], workers: int, patience: float
) -> list[Answer | Lost]:
    """The answer to each question, on so many workers."""
    count = min(workers, len(questions))
    shares = [range(k, len(questions), count) for k in range(count)]
    found: dict[int, Answer | Lost] = {}
    with ThreadPoolExecutor(max(1, count), "fusec-workers") as pool:
        asked = ([questions[k] for k in share] for share in shares)
        parts = pool.map(lambda share: _asked(module, share, patience), asked)
        for share, answers in zip(shares, parts, strict=True):
            found.update(zip(share, answers, strict=True))
    return [found[k] for k in range(len(questions))]


def _asked(
    module: str, questions: Sequence[Question], patience: float
) -> list[Answer | Lost]:
    """One worker after the other, each until it is lost."""
    answers: list[Answer | Lost] = []
    while len(answers) < len(questions):
        with Worker(module) as worker:
            try:
                for question in questions[len(answers) :]:
                    answers.append(worker.ask(question, patience))
            except Lost as lost:
                answers.append(lost)
    return answers
