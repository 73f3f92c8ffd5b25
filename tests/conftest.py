"""What all tests share: hypothesis profiles, skips with a reason, golden files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

# Tests change fusec's insides, so nothing they compile may be kept under torch's key.
# `tests/end_to_end/test_warm_start.py` has that cache in processes of their own.
os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE", "0")

# Kernels for GPUs run in the interpreter of Triton, which asks when it is imported.
os.environ.setdefault("TRITON_INTERPRET", "1")

# Tests that run beside others take one thread each, unless they say how many.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

GOLDEN = Path(__file__).parent / "golden"

# Machines differ in speed, so no test may fail for being slow. CI draws the same
# examples every time: what it finds, everyone can find again.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite the golden files from what fusec prints now",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for name, why_not in {"gpu": no_gpu, "inductor": no_compiler}.items():
        marked = [item for item in items if item.get_closest_marker(name)]
        reason = why_not() if marked else ""
        for item in marked:
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
    on_devices = {"test_devices.py", "test_cudagraphs.py"}
    if any(item.path.name in on_devices for item in items):
        # Autograd counts the devices in the first backward pass of the process.
        import emulated_device

        if emulated_device.is_wanted():
            with suppress(RuntimeError):  # then its tests fail, and no others
                emulated_device.registered()


def no_gpu() -> str:
    """Why GPU tests cannot run here; "" if they can."""
    if not find_spec("torch"):
        return "torch is not installed"
    import torch

    return "" if torch.cuda.is_available() else "there is no GPU"


def no_compiler() -> str:
    """Why Inductor cannot run here; "" if it can."""
    if not find_spec("torch"):
        return "torch is not installed"
    return "" if shutil.which("g++") else "Inductor needs g++"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)`: `text` is what tests/golden/`name` holds.

    Check what a text means before comparing how it looks: under `--update-golden` the
    comparison succeeds by rewriting the file.
    """
    update = bool(request.config.getoption("--update-golden"))

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing; `make golden` writes it"
        assert text == path.read_text()

    return check
