"""Categories are silent until enabled, and never hijack a program's handlers."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from fusec import logs


def run(setup: str) -> str:
    """What a fresh interpreter prints on stderr."""
    program = f"""
import logging
from fusec import logs
{setup}
logs.logger("fusion").debug("a detail")
logs.logger("kernels").debug("another")
logs.logger("cache").warning("a warning")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stderr


def test_only_warnings_by_default() -> None:
    assert run("") == "[fusec.cache] a warning\n"


def test_an_enabled_category_tells_all() -> None:
    expected = "[fusec.fusion] a detail\n[fusec.cache] a warning\n"
    assert run("logs.enable(['fusion'])") == expected
    assert run("logs.enable(['fusion']); logs.enable(['fusion'])") == expected


def test_handlers_of_the_program_are_used() -> None:
    setup = "logging.basicConfig(format='mine: %(message)s'); logs.enable(['fusion'])"
    assert run(setup) == "mine: a detail\nmine: a warning\n"


def test_handlers_that_a_program_adds_later_are_used() -> None:
    setup = "logs.enable(['fusion']); logging.basicConfig(format='mine: %(message)s')"
    assert run(setup) == "mine: a detail\nmine: a warning\n"
    for name in ("fusec", "fusec.cache"):
        setup = f"logging.getLogger({name!r}).addHandler(logging.NullHandler())"
        assert run(setup) == ""


def test_an_unknown_category_is_an_error() -> None:
    with pytest.raises(ValueError, match="no log category 'fuson' among graph, fusion"):
        logs.logger("fuson")
    assert "fusec.fuson" not in logging.root.manager.loggerDict
