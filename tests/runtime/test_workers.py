"""Processes that answer lines of JSON, and are lost without harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusec.runtime.workers import Lost, Worker, ask_all

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


def test_a_worker_that_hangs_ends_with_all_that_it_started(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    question = {"do": "hang", "pid": str(file)}
    with Worker(WORKER) as worker:
        worker.ask(answer(0), 60.0)
        with pytest.raises(Lost, match="took more than 5 s"):
            worker.ask(question, 5.0)
    state = Path(f"/proc/{file.read_text()}/stat")
    assert not state.exists() or state.read_text().split()[2] in "ZX"


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
