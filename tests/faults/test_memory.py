"""No memory for what a call needs: the call fails, says why, and the next one works."""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from faults.conftest import X, model
from faults.programs import finish, start

import fusec
from fusec.runtime import memory


def test_a_call_without_memory_for_intermediates_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    options = {"cache_dir": tmp_path}
    compiled = torch.compile(model, backend=fusec.backend, options=options)

    def refuse(*args: object) -> object:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        without = SimpleNamespace(**{**vars(mmap), "mmap": refuse})
        patch.setattr(memory, "mmap", without)  # code finds memory all the same
        for _ in range(2):
            with pytest.raises(MemoryError, match="bytes for the intermediates of one"):
                compiled(X)
    torch.testing.assert_close(compiled(X), model(X))


PROGRAM = """
    import resource
    import torch
    import fusec

    def f(x, w, v):
        return ((x @ w).sin() @ v).sum(1)

    def limit(spare):
        used = int(open("/proc/self/statm").read().split()[0]) * 4096
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = hard if spare is None else used + spare
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    n = 1 << 13  # 256 MiB between the products
    x, w, v = torch.ones(n, 2), torch.ones(2, n) / n, torch.ones(n, 2)
    compiled = torch.compile(f, backend="fusec", dynamic=False)
    take = fusec.runtime.memory.Arena._take
    fusec.runtime.memory.Arena._take = lambda arena: (limit(64 << 20), take(arena))[1]
    try:
        compiled(x, w, v)
    except MemoryError as error:
        print(error)
    fusec.runtime.memory.Arena._take = take
    limit(None)
    torch.testing.assert_close(compiled(x, w, v), f(x, w, v))
    print("right")
"""


@pytest.mark.slow
def test_a_process_at_its_limit_raises_and_goes_on(tmp_path: Path) -> None:
    status, output, errors = finish(start(PROGRAM, tmp_path))
    assert status == 0, errors
    first, second = output.splitlines()
    assert re.fullmatch(r"cannot allocate \d{3},\d{3},\d{3} bytes for .*", first)
    assert second == "right"
