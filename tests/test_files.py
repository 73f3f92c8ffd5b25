"""Locks on files: one inside at a time, whoever ends, and nobody waits for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fusec.files import locked


def never() -> bool:
    return False


def test_one_is_inside_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def enter() -> None:
        for _ in range(3):
            with locked(tmp_path / "lock", never):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 12


def test_who_is_late_goes_on_without(tmp_path: Path) -> None:
    asked: list[int] = []

    def is_late() -> bool:
        asked.append(1)
        return len(asked) > 2

    with locked(tmp_path / "lock", never), locked(tmp_path / "lock", is_late):
        assert len(asked) == 3
    with locked(tmp_path / "lock", is_late):
        assert len(asked) == 3  # it is free again


HOLDS = """
import sys
from fusec.files import locked
from pathlib import Path
with locked(Path(sys.argv[1]), lambda: False):
    print("inside", flush=True)
    sys.stdin.read()
"""


def test_the_lock_of_a_process_that_is_killed_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"inside\n"
        late: list[bool] = []
        with locked(path, lambda: bool(late) or late.append(True) is not None):
            assert late == [True]  # it was taken
        process.kill()
        process.wait()
    with locked(path, lambda: pytest.fail("it is taken")):
        pass


@pytest.mark.parametrize("trap", ["link", "folder"])
def test_without_a_file_there_is_no_lock(tmp_path: Path, trap: str) -> None:
    path = tmp_path / "lock"
    if trap == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
    with locked(path, never):
        assert not (tmp_path / "elsewhere").exists()
