"""What target a GPU is by its properties, and CUDA's driver, in place of which a table
of functions answers."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch

from fusec.calibration import Calibration, Machine, keep
from fusec.errors import InternalError, OptionError, UnsupportedError
from fusec.options import Options
from fusec.runtime import gpus
from fusec.runtime.cuda import Cuda
from fusec.runtime.launcher_gpu import GpuKernel
from fusec.target import SM_80, SM_89, SM_90, Target

DEVICE = torch.device("cuda:1")


def properties(major: int, minor: int, **others: Any) -> Any:
    facts = {
        "name": "a card",
        "major": major,
        "minor": minor,
        "multi_processor_count": 46,
        "L2_cache_size": 5 << 20,
        "regs_per_multiprocessor": 65536,
        "shared_memory_per_multiprocessor": 100 << 10,
        "shared_memory_per_block_optin": 99 << 10,
        "max_threads_per_multi_processor": 1536,
        **others,
    }
    return SimpleNamespace(**facts)


@pytest.mark.parametrize(
    ("capability", "like"),
    [((8, 0), SM_80), ((8, 6), SM_80), ((8, 9), SM_89), ((9, 0), SM_90)],
)
def test_a_card_is_like_one_that_is_no_newer(
    capability: tuple[int, int], like: Target
) -> None:
    found = gpus.described(properties(*capability), DEVICE)
    assert found.cpu == f"sm_{capability[0]}{capability[1]}"
    assert found.hertz == like.hertz
    assert found.cores == 46
    assert found.dram_rate_all == like.dram_rate_all
    assert found.llc_rate * 46 == pytest.approx(like.llc_rate * like.cores)
    assert found.gpu is not None
    assert found.gpu.shared_of_program == 99 << 10
    assert found.gpu.threads == 1536


def test_the_rate_of_memory_is_its_own_where_torch_tells() -> None:
    told = {"memory_clock_rate": 9_501_000, "memory_bus_width": 256}
    found = gpus.described(properties(8, 9, **told), DEVICE)
    assert found.dram_rate_all == pytest.approx(608e9, rel=1e-3)


def test_cards_of_one_name_differ_in_their_clocks() -> None:
    made = [properties(9, 0, clock_rate=k * 1_000_000) for k in (0, 1, 2, 2)]
    slow, fast, faster, same = map(gpus.described_machine, made)
    assert len({slow.key, fast.key, faster.key}) == 3
    assert same == faster
    assert (slow.features, fast.features) == ("sm_90", "sm_90 1000 MHz")


def test_an_old_card_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="compute capability"):
        gpus.described(properties(7, 5), DEVICE)


@pytest.mark.parametrize(
    ("wanted", "runs"),
    [("sm_80", True), ("sm_89", False), ("sm_90", False), ("gfx942", False)],
)
def test_code_for_a_target_that_is_wanted(wanted: str, runs: bool) -> None:
    card = gpus.described(properties(8, 6), DEVICE)
    with patch.dict(gpus.KINDS, {"cuda": kind(card)}):
        if runs:
            assert gpus.target_of("cuda:1", Options(target=wanted)).name == wanted
            return
        with pytest.raises(OptionError, match="an sm_86"):
            gpus.target_of("cuda:1", Options(target=wanted))


@pytest.mark.parametrize("capability", [(10, 3), (12, 0)])
def test_code_of_new_cards_is_for_one_architecture(capability: tuple[int, int]) -> None:
    card = gpus.described(properties(*capability), DEVICE)
    with (
        patch.dict(gpus.KINDS, {"cuda": kind(card)}),
        pytest.raises(OptionError, match="cannot run on cuda:1"),
    ):
        gpus.target_of("cuda:1", Options(target="sm_100"))


def test_what_was_measured_of_a_card_is_taken(tmp_path: Path) -> None:
    card = gpus.described(properties(8, 6), DEVICE)
    options = Options(cache_dir=tmp_path)
    with patch.dict(gpus.KINDS, {"cuda": kind(card)}):
        assert gpus.target_of("cuda:1", options) == card
        before = gpus.facts_of("cuda:1", options)
        keep(Calibration(MACHINE, {"launch": 3e-6}), tmp_path)
        assert gpus.target_of("cuda:1", options).launch == 3e-6
        assert gpus.facts_of("cuda:1", options) != before


MACHINE = Machine("a card", "sm_86", 46)


def kind(card: Target) -> gpus.Kind:
    return gpus.Kind(lambda device: card, lambda device: MACHINE, Cuda, "no.worker")


KERNEL = GpuKernel("f", b"\x7fELF", 128, 60 << 10)


class Library:
    """CUDA's driver as a table of functions that note their calls."""

    def __init__(self, **statuses: int) -> None:
        self.calls: list[str] = []
        self.current: list[int] = []
        self._statuses = statuses
        self._functions: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)
        if name not in self._functions:
            self._functions[name] = self._function(name)
        return self._functions[name]

    def _function(self, name: str) -> Any:
        if name in ("cuLaunchKernel", "cuCtxPushCurrent_v2"):
            kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64)
            return kind(lambda context: self._pushed(name, context))
        if name == "cuCtxPopCurrent_v2":
            kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
            return kind(lambda before: self._popped())
        return lambda *given: self._called(name, *given)

    def _pushed(self, name: str, context: int) -> int:
        self.calls.append(name)
        self.current.append(context)
        return 0

    def _popped(self) -> int:
        self.current.pop()
        return 0

    def _called(self, name: str, first: Any, *rest: Any) -> int:
        self.calls.append(name)
        if name == "cuGetErrorName":
            rest[0]._obj.value = b"CUDA_ERROR_OF_SOME_KIND"
        elif name == "cuGetErrorString":
            rest[0]._obj.value = b"what it is"
        elif hasattr(first, "_obj"):
            first._obj.value = 40 + len(self.calls)
        return self._statuses.get(name, 0)


@pytest.fixture(autouse=True)
def torch_has_streams() -> Any:
    with patch.object(torch.cuda, "current_stream", lambda index: None):
        yield


def test_a_kernel_is_loaded_once_in_the_context_of_its_device() -> None:
    library = Library()
    driver = Cuda(library)
    first = driver.load(KERNEL, DEVICE)
    assert driver.load(KERNEL, DEVICE) == first
    assert driver.load(KERNEL, torch.device("cuda:0")) != first
    assert library.calls.count("cuModuleLoadData") == 2
    assert library.calls.count("cuFuncSetAttribute") == 2
    assert not library.current
    assert driver.context(DEVICE) != driver.context(torch.device("cuda:0"))


@pytest.mark.parametrize("captures", [False, True])
def test_whether_the_stream_of_its_device_captures(captures: bool) -> None:
    entered: list[torch.device] = []

    def device(which: torch.device) -> Any:
        entered.append(which)
        return nullcontext()

    with (
        patch.object(torch.cuda, "device", device),
        patch.object(torch.cuda, "is_current_stream_capturing", lambda: captures),
    ):
        assert Cuda(Library()).is_capturing(DEVICE) == captures
    assert entered == [DEVICE]


def test_what_the_driver_says_is_told() -> None:
    library = Library(cuModuleLoadData=209)
    driver = Cuda(library)
    with pytest.raises(InternalError, match=r"at f: CUDA_ERROR_OF_SOME_KIND \(what it"):
        driver.load(KERNEL, DEVICE)
    assert not library.current


def test_little_shared_memory_is_not_asked_for() -> None:
    library = Library()
    Cuda(library).load(KERNEL._replace(shared=48 << 10), DEVICE)
    assert "cuFuncSetAttribute" not in library.calls
