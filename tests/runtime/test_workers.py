"""Processes that answer lines of JSON, and are lost without harm."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fusec.runtime.workers import Lost, Worker

WORKER = "runtime.faulty_worker"


def answer(value: int) -> dict[str, object]:
    return {"do": "answer", "value": value}


def test_a_worker_answers_one_question_after_the_other() -> None:
    with Worker(WORKER) as worker:
        for value in range(3):
            assert worker.ask(answer(value), 60.0) == {"answer": value}


def test_a_worker_that_ends_says_how() -> None:
    with Worker(WORKER) as worker, pytest.raises(Lost, match="with 3, and said: out"):
        worker.ask({"do": "exit"}, 60.0)
    with Worker(WORKER) as worker, pytest.raises(Lost, match="ended with -11"):
        worker.ask({"do": "crash"}, 60.0)


def is_there(state: Path) -> bool:
    """Whether a process runs still, by what the system tells of it."""
    try:
        return state.read_text().split()[2] not in "ZX"
    except OSError:  # it may end while it is read about
        return False


def test_a_worker_that_hangs_ends_with_all_that_it_started(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    question = {"do": "hang", "pid": str(file)}
    with Worker(WORKER) as worker:
        worker.ask(answer(0), 60.0)
        with pytest.raises(Lost, match="took more than 5 s"):
            worker.ask(question, 5.0)
    state, until = Path(f"/proc/{file.read_text()}/stat"), time.monotonic() + 60
    while (there := is_there(state)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not there


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_question_that_is_not_read_is_lost_in_time(size: int) -> None:
    """A pipe takes 64 KiB before who writes to it has to wait."""
    with Worker(WORKER) as worker:
        worker.ask(answer(0), 60.0)
        with pytest.raises(Lost, match="took more than 1 s"):
            worker.ask({"do": "sleep", "more": "x" * size}, 1.0)
    with Worker(WORKER) as worker:
        worker.ask({"do": "deaf"}, 60.0)
        with pytest.raises(Lost, match="took more than 1 s"):
            worker.ask({"do": "answer", "value": "x" * size}, 1.0)


def test_long_questions_and_answers_are_whole() -> None:
    value = "€" * (1 << 20)
    with Worker(WORKER) as worker:
        assert worker.ask({"do": "answer", "value": value}, 60.0) == {"answer": value}


def test_a_child_of_a_fork_leaves_its_parent_s_worker_alone() -> None:
    with Worker(WORKER) as worker:
        worker.ask(answer(0), 60.0)
        if (child := os.fork()) == 0:
            worker.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert worker.ask(answer(1), 60.0) == {"answer": 1}
