"""Workers that are kept: for the next question, and for nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusec.runtime import pool
from fusec.runtime.pool import Pool, ask_all
from fusec.runtime.workers import Lost

WORKER = "runtime.faulty_worker"
PROCESS = {"do": "process"}


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """A pool of the test's own."""
    own = Pool()
    monkeypatch.setattr(pool, "_pool", own)
    yield own
    own.close()


def answer(value: int) -> dict[str, object]:
    return {"do": "answer", "value": value}


def process() -> int:
    """Which process answers."""
    (found,) = ask_all(WORKER, [PROCESS], 1, 60.0)
    assert not isinstance(found, Lost), found
    return found["answer"]


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except OSError:  # it may end while it is read about
        return False


def test_only_the_question_at_fault_is_lost() -> None:
    crash = {"do": "crash"}
    questions = [answer(0), crash, answer(2), answer(3), crash, answer(5)]
    found = ask_all(WORKER, questions, 2, 60.0)
    assert [isinstance(each, Lost) for each in found] == [
        question is crash for question in questions
    ]
    told = [each["answer"] for each in found if not isinstance(each, Lost)]
    assert told == [0, 2, 3, 5]
    assert ask_all(WORKER, [], 2, 60.0) == []


def test_a_worker_is_kept_until_it_is_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    first = process()
    assert process() == first
    os.kill(first, signal.SIGKILL)
    while is_there(first):
        time.sleep(0.01)
    second = process()
    assert second != first
    (told,) = ask_all(WORKER, [{"do": "twice"}], 1, 60.0)
    assert told == {"answer": 1}
    time.sleep(0.2)  # the second answer, which nobody asked for
    third = process()
    assert third != second
    monkeypatch.setenv("FUSEC_SOMETHING", "else")
    assert process() != third
    assert not is_there(third)


def test_a_worker_that_waits_for_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE", 0.2)
    found = process()
    until = time.monotonic() + 60
    while is_there(found) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_there(found)


def test_a_child_of_a_fork_has_workers_of_its_own(own: Pool) -> None:
    """And ends without harm to its parent's, which it does not keep alive either."""
    first = process()
    reads, writes = os.pipe()
    if (child := os.fork()) == 0:
        told = process()
        os.write(writes, str(told).encode())
        pool._pool.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert int(os.read(reads, 100)) != first
    assert process() == first
    os.close(reads)
    os.close(writes)


ENDS = """
import sys
from fusec.runtime.pool import ask_all
(found,) = ask_all("runtime.faulty_worker", [{"do": "process"}], 1, 60.0)
print(found["answer"], flush=True)
if len(sys.argv) > 1:
    sys.stdin.read()
"""


@pytest.mark.parametrize("is_killed", [False, True])
def test_workers_end_with_the_process(is_killed: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", ENDS, *(["wait"] if is_killed else [])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **pipes) as started:
        assert started.stdout is not None
        found = int(started.stdout.readline())
        if is_killed:
            started.kill()
        started.wait()
    until = time.monotonic() + 60
    while is_there(found) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_there(found)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What runs in the background of a shell ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_who_interrupts_does_not_wait_for_answers(interruptible: None) -> None:
    process()  # which is busy with the first question then
    began = time.monotonic()
    timer = threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        ask_all(WORKER, [{"do": "sleep"}] * 9, 2, 30.0)
    assert time.monotonic() - began < 30
    assert process()


def test_what_the_system_refuses_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        ask_all(WORKER, [PROCESS] * 3, 2, 60.0)
