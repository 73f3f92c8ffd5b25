"""The golden fixture compares, and rewrites only when asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAM = """
def test_text(golden):
    golden("answer.txt", "42\\n")
"""


def run(folder: Path, *flags: str) -> tuple[int, str]:
    """pytest's exit status and output on a folder that has only this conftest."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *flags],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"CI": "1"},
    )
    return done.returncode, done.stdout


def test_golden_files(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(PROGRAM)
    answer = tmp_path / "golden" / "answer.txt"

    status, output = run(tmp_path)
    assert status == 1
    assert "answer.txt is missing; `make golden` writes it" in output

    assert run(tmp_path, "--update-golden")[0] == 0
    assert answer.read_text() == "42\n"
    assert run(tmp_path)[0] == 0

    answer.write_text("41\n")
    assert run(tmp_path)[0] == 1
    assert answer.read_text() == "41\n"
