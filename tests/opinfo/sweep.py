"""Many cases, in processes that may crash or hang without ending the sweep."""

from __future__ import annotations

import json
import queue
import selectors
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import IO

from opinfo.cases import Case
from opinfo.check import Outcome

CRASHED, HUNG = "crashed", "hung"


@dataclass(slots=True)
class Worker:
    """A process that is started when there is work, and anew after it died."""

    seconds: float
    """How long a case may take."""
    errors: IO[bytes] | int = subprocess.DEVNULL
    process: subprocess.Popen[str] | None = field(default=None, init=False)

    def run(self, case: Case, count: int) -> Outcome:
        """The outcome of a case, whatever it does to the process."""
        process = self.process = self.process or self._start()
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps({**asdict(case), "count": count}) + "\n")
        process.stdin.flush()
        if not self._answers(process):
            self.stop()
            return Outcome(HUNG, f"no answer after {self.seconds:.0f} s")
        line = process.stdout.readline()
        if not line:
            status = process.wait()
            self.stop()
            return Outcome(CRASHED, f"the process ended with status {status}")
        answer = json.loads(line)
        return Outcome(answer["verdict"], answer["detail"], tuple(answer["externs"]))

    def _answers(self, process: subprocess.Popen[str]) -> bool:
        with selectors.DefaultSelector() as selector:
            assert process.stdout
            selector.register(process.stdout, selectors.EVENT_READ)
            return bool(selector.select(self.seconds))

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "opinfo.worker"]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self.errors, text=True
        )

    def stop(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def sweep(
    cases: Sequence[Case], *, count: int, jobs: int, seconds: float
) -> Iterator[tuple[Case, Outcome]]:
    """The outcomes of cases, in order; `jobs` processes share them."""
    idle: queue.Queue[Worker] = queue.Queue()
    for _ in range(jobs):
        idle.put(Worker(seconds))

    def run(case: Case) -> Outcome:
        worker = idle.get()
        try:
            return worker.run(case, count)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield from zip(cases, pool.map(run, cases), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)
            while not idle.empty():
                idle.get().stop()
