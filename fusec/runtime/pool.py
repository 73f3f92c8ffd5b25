"""Workers that this process keeps, for whichever questions come next.

answers = ask_all("fusec.codegen.object_worker", questions, workers=2, patience=60.0)
worker = taken("fusec.runtime.measure_worker")      # then give_back(worker), or close

To start a worker takes seconds, most of them imports: one that has answered waits for
`IDLE` seconds for another question. Those that wait end with the process; a child of a
fork begins with none.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from fusec.options import environment_of_workers
from fusec.runtime.workers import Answer, Lost, Question, Worker

IDLE = 60.0
"""Seconds that a worker waits: it holds memory, one of Triton's some hundred MiB."""


class Pool:
    """Workers that wait for questions, each with the moment since when it does."""

    def __init__(self) -> None:
        self._waiting: dict[Worker, float] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def taken(self, module: str) -> Worker:
        """A worker for the caller alone, who gives it back or closes it."""
        for worker in self._removed(lambda each: each.module == module and unfit(each)):
            worker.close()
        with self._lock:
            for worker in reversed(self._waiting):
                if worker.module == module:
                    del self._waiting[worker]
                    return worker
        return Worker(module)

    def give_back(self, worker: Worker) -> None:
        """Let a worker that has answered wait for other questions."""
        with self._lock:
            self._waiting[worker] = time.monotonic()
            if self._timer is None:
                self._start_timer()

    def close(self) -> None:
        """End all that wait."""
        for worker in self._removed(lambda each: True):
            worker.close()

    def _removed(self, which: Callable[[Worker], bool]) -> list[Worker]:
        """Some of those that wait, who do so no more."""
        with self._lock:
            found = [worker for worker in self._waiting if which(worker)]
            for worker in found:
                del self._waiting[worker]
        return found

    def _end_idle(self) -> None:
        last = time.monotonic() - IDLE
        for worker in self._removed(lambda each: self._waiting[each] <= last):
            worker.close()
        with self._lock:
            self._timer = None
            if self._waiting:
                self._start_timer()

    def _start_timer(self) -> None:
        self._timer = threading.Timer(IDLE, self._end_idle)
        self._timer.daemon = True
        self._timer.start()


def unfit(worker: Worker) -> bool:
    """Whether a worker that waits is gone, or was given other variables than those that
    this process has by now."""
    return not worker.is_ready() or worker.environment != environment_of_workers()


_pool = Pool()


def _begin_anew() -> None:
    """In a child of a fork: the workers are the parent's, and no timer runs."""
    global _pool
    _pool = Pool()


os.register_at_fork(after_in_child=_begin_anew)
atexit.register(lambda: _pool.close())


def taken(module: str) -> Worker:
    """A worker of this process for the caller alone, who gives it back or closes it."""
    return _pool.taken(module)


def give_back(worker: Worker) -> None:
    """Let a worker that has answered wait for other questions."""
    _pool.give_back(worker)


def ask_all(
    module: str, questions: Sequence[Question], workers: int, patience: float
) -> list[Answer | Lost]:
    """The answer to each question, on so many workers. Whoever interrupts it does not
    wait for answers."""
    asking = _Asking(module, questions, patience)
    try:
        return asking.run(min(workers, len(questions)))
    finally:
        asking.stop()


class _Asking:
    """Questions that wait for workers, and answers for who asked."""

    def __init__(
        self, module: str, questions: Sequence[Question], patience: float
    ) -> None:
        self.module = module
        self.patience = patience
        self._questions = deque(enumerate(questions))
        self._count = len(questions)
        self._answers: SimpleQueue[tuple[int, Answer | Lost] | Exception] = (
            SimpleQueue()
        )
        self._busy: set[Worker] = set()
        self._lock = threading.Lock()
        self._is_over = False

    def run(self, threads: int) -> list[Answer | Lost]:
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True).start()
        found: dict[int, Answer | Lost] = {}
        while len(found) < self._count:
            answer = self._answers.get()
            if isinstance(answer, Exception):
                raise answer
            found.update([answer])
        return [found[k] for k in range(self._count)]

    def stop(self) -> None:
        """End the workers that are at it still, and begin with no other question."""
        with self._lock:
            self._is_over = True
            self._questions.clear()
            busy = [*self._busy]
        for worker in busy:
            worker.close()

    def _work(self) -> None:
        """One question after the other, as long as there are any."""
        try:
            while self._questions:
                try:
                    number, question = self._questions.popleft()
                except IndexError:  # another thread has it
                    return
                self._answers.put((number, self._answered(question)))
        except Exception as error:  # of the system, as it starts a process
            self._answers.put(error)

    def _answered(self, question: Question) -> Answer | Lost:
        worker = taken(self.module)
        with self._lock:
            self._busy.add(worker)
            is_over = self._is_over
        try:
            if is_over:
                raise Lost("nobody waits for the answer")
            answer = worker.ask(question, self.patience)
        except Lost as lost:
            worker.close()
            return lost
        finally:
            with self._lock:
                self._busy.discard(worker)
        give_back(worker)
        return answer
