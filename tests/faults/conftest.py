"""What goes wrong around fusec, or within: results stay right, and the user is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fusec
from fusec.logs import forget_warnings
from fusec.runtime.cache import cache_at

X = torch.linspace(0.5, 2, 96).reshape(8, 12)


def model(x: torch.Tensor) -> torch.Tensor:
    """Several kernels, and products between them."""
    y = (x.exp() + 1).softmax(1)
    return ((y @ x.t()).sigmoid() * 2 + x.amax()).sum(0)


Run = Callable[..., None]


@pytest.fixture
def right(tmp_path: Path) -> Run:
    """`right(folder)`: compile anew, as a process would that begins; results agree."""
    forget_warnings()

    def run(folder: Path = tmp_path, **options: Any) -> None:
        torch._dynamo.reset()
        cache_at.cache_clear()
        chosen = {"cache_dir": folder, **options}
        compiled = torch.compile(model, backend=fusec.backend, options=chosen)
        for factor in (1, -1):
            torch.testing.assert_close(compiled(X * factor), model(X * factor))

    return run


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What fusec warned of since it was last asked."""

    def found() -> list[str]:
        records = [r for r in caplog.records if r.name.startswith("fusec")]
        said = [r.getMessage() for r in records if r.levelname == "WARNING"]
        caplog.clear()
        return said

    return found


Disk = Callable[..., Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """`disk("size=64k")`: where a file system with these options is mounted."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "tmpfs"]
        try:
            done = subprocess.run([*command, str(place)], capture_output=True)
        except OSError as error:
            pytest.skip(f"a disk cannot be mounted here: {error}")
        if done.returncode:
            pytest.skip(f"a disk cannot be mounted here: {done.stderr.decode()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)
