"""Processes that share a cache, and are killed at it."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from faults.programs import finish, start

from fusec.runtime.cache import Cache

COMPILES = """
    import logging
    import sys
    import torch
    import fusec

    logging.basicConfig()

    def model(x, w):
        y = (x @ w).softmax(1) * x.sum(0)
        return (y + x.exp()).mean(1).sin(), y.amax(0)

    x, w = torch.randn(40, 30), torch.randn(30, 30)
    print("ready", flush=True)
    for _ in range(int(sys.argv[1])):
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="fusec")
        torch.testing.assert_close(compiled(x, w), model(x, w))
    print("right")
"""


def test_two_processes_compile_one_model_at_once(tmp_path: Path) -> None:
    processes = [start(COMPILES, tmp_path, "2") for _ in range(2)]
    for status, output, errors in map(finish, processes):
        assert status == 0, errors
        assert output.split() == ["ready", "right"]
        assert errors == ""
    cache = Cache(tmp_path)
    assert len(cache.ls()) >= 3
    assert cache.verify() == []
    assert not list(tmp_path.glob(".fusec-*"))


@pytest.mark.slow
def test_processes_killed_while_they_compile_leave_a_sound_cache(
    tmp_path: Path,
) -> None:
    moments = random.Random(0)
    for _ in range(12):
        process = start(COMPILES, tmp_path, "100")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0.0, 4.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert Cache(tmp_path).verify() == []
    status, _, errors = finish(start(COMPILES, tmp_path, "1"))
    assert status == 0, errors
    assert errors == ""
