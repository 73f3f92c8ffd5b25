"""What is measured does what it is counted as; how fast that is, no test says."""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import replace
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fusec.calibration import RANGES, Machine
from fusec.errors import UserError
from fusec.measuring import cpu, gpu, kernels, library, timing
from fusec.measuring.timing import Timed, interleave, rates
from fusec.runtime.gpus import _cuda_target
from fusec.target import SM_90, TARGETS, Target, host

HERE = [t for t in TARGETS.values() if {*t.features} <= {*host().features}]
KIB = 1 << 10


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few samples, short ones, of little memory, and nobody minds if they differ."""
    monkeypatch.setattr(timing, "LEAST_SAMPLE", 0.0)
    monkeypatch.setattr(timing, "CLOSE", float("inf"))
    monkeypatch.setattr(cpu, "ROUNDS", 4)
    monkeypatch.setattr(cpu, "TRIPS", 64)
    monkeypatch.setattr(cpu, "STRETCH", 64 * KIB)
    monkeypatch.setattr(cpu, "LARGEST", 1 << 20)
    monkeypatch.setattr(library, "SIZES", {"cpu": 32, "cuda": 32})


def bytes_at(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
@pytest.mark.parametrize("kernel", ["copy", "stream"])
def test_far_memory_is_copied_stretch_by_stretch(
    kernel: str, target: Target, quick: None
) -> None:
    bench = cpu.Bench(target, 256 * KIB)
    source, made = map(cpu._address, bench._memory)
    ctypes.memset(source, 7, 256 * KIB)
    timed = bench.moved(kernel, threads=2)
    assert timed.amount == 128 * KIB
    timed.call()
    halves = bytes([7]) * (128 * KIB), bytes([1]) * (128 * KIB)
    assert bytes_at(made, 256 * KIB) == b"".join(halves)
    timed.call()
    assert bytes_at(made, 256 * KIB) == halves[0] * 2


@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_every_register_of_each_part_is_read(target: Target, quick: None) -> None:
    bench = cpu.Bench(target, 8 * KIB)
    source, made = map(cpu._address, bench._memory)
    timed = bench.read(4 * KIB, threads=2)
    # As often as it takes for the trips, if that is more than one time.
    assert timed.amount == 2 * max(64 * kernels.bytes_of_trip(target), 4 * KIB)
    width, lane = target.vector_bits // 8, 5
    for at in range(0, 4 * KIB, width):
        ctypes.memset(source, 0, 8 * KIB)
        ctypes.memset(source + at + lane, 3, 1)
        timed.call()
        assert bytes_at(made, width)[lane] == 3
        assert not any(bytes_at(made + 64, width))
    ctypes.memset(source, 0, 8 * KIB)
    ctypes.memset(source + 4 * KIB + lane, 3, 1)
    timed.call()
    assert not any(bytes_at(made, width))
    assert bytes_at(made + 64, width)[lane] == 3


@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_chains_multiply_and_add(target: Target, quick: None) -> None:
    bench = cpu.Bench(target)
    timed = bench.multiply_adds(threads=1, trips=3)
    assert timed.amount == 3 * kernels.CHAINS * target.lanes(32)
    timed.call()
    total = 0.0
    for x in range(1, kernels.CHAINS + 1):
        total += ((x * 0.5 + 0.5) * 0.5 + 0.5) * 0.5 + 0.5
    found = ctypes.c_float.from_address(cpu._address(bench._memory[1])).value
    assert found == total


def test_a_processor_is_measured_whole(quick: None) -> None:
    target = replace(host(), llc_bytes=256 * KIB, l2_bytes=64 * KIB)
    before = torch.get_num_threads()
    found = cpu.measured(target)
    assert torch.get_num_threads() == before
    assert found.keys() == {*RANGES, "nontemporal", "library"}
    assert all(found[name] > 0 for name in RANGES)
    assert found["library"].keys() == dict(target.library).keys()


def test_every_round_times_each_candidate_and_starts_with_another() -> None:
    calls: list[str] = []
    samples = interleave({n: lambda n=n: calls.append(n) for n in "abc"}, 4)
    assert [len(samples[name]) for name in "abc"] == [4, 4, 4]
    # A sample is many calls in a row.
    order = "".join(name for name, _ in groupby(calls))
    assert order == "abc" + "abc" + "bca" + "cab" + "abc"


def test_what_the_machine_never_ran_alone_is_not_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([9.0, 5.0, 3.0, 1.0, 1.0, 9.0, 1.1, 1.1])
    monkeypatch.setattr(timing, "repeats_of", lambda call: 1)
    monkeypatch.setattr(timing, "seconds", lambda call, repeats: next(times))
    timed = {"peak": Timed(lambda: None, 6.0)}
    # Four of eight samples agree with the best: more rounds, and all is well.
    assert rates(timed, rounds=4) == {"peak": 6.0}
    times = iter([9.0, 5.0, 3.0, 1.0])
    with pytest.raises(UserError, match="peak cannot be measured: number 4 of 4") as e:
        rates(timed, rounds=4, patience=0.0)
    assert "measure again" in str(e.value)
    assert f"on {len(os.sched_getaffinity(0))} cores: pause" in str(e.value)


def test_products_of_dtypes_that_torch_lacks_are_left_out(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch holds such numbers, and multiplies none.
    monkeypatch.setattr(
        library, "_DTYPES", {**library._DTYPES, "f8": torch.float8_e8m0fnu}
    )
    found = library.products("cpu", ["f32", "i8", "f8"])
    assert found.keys() == {"f32", "i8"}
    assert all(each.amount == 32.0**3 for each in found.values())
    for name, each in found.items():
        x, y = each.call.args  # type: ignore[attr-defined]
        wide = torch.int32 if name == "i8" else torch.float32
        assert torch.equal(each.call(), x.to(wide) @ y.to(wide))
        assert x.unique().numel() > 100
        assert not torch.equal(x, y)


# GPUs that are not here.


def properties(**others: Any) -> SimpleNamespace:
    given = {
        "name": "H100",
        "major": 9,
        "minor": 0,
        "multi_processor_count": 132,
        "L2_cache_size": 50 << 20,
        "regs_per_multiprocessor": 65536,
        "shared_memory_per_multiprocessor": 228 << 10,
        "shared_memory_per_block_optin": 227 << 10,
        "max_threads_per_multi_processor": 2048,
    }
    return SimpleNamespace(**{**given, **others})


def test_one_of_each_kind_of_gpu_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [
        properties(),
        properties(),
        properties(name="GTX", major=6, minor=1),
        properties(name="another", multi_processor_count=78),
    ]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(here))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: here[device.index]
    )
    _cuda_target.cache_clear()
    found = gpu.gpus()
    _cuda_target.cache_clear()
    assert [(g.device, g.target.name, g.target.cores) for g in found] == [
        ("cuda:0", "sm_90", 132),
        ("cuda:3", "sm_90", 78),
    ]
    assert found[0].machine == Machine("H100", "sm_90", 132)


def test_what_copies_of_two_sizes_cost_besides_cancels_out(
    monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    target = replace(SM_90, llc_bytes=64 * KIB, cores=10)
    besides, l2 = 3e-4, 5e12
    moved = gpu.IN_GRAPH * 2 * 16 * KIB

    def timed(calls: dict[str, Timed], rounds: int) -> dict[str, float]:
        for each in calls.values():
            each.call()
        near = 1 / (besides + moved / l2), 1 / (besides + moved / 2 / l2)
        rest = {"far": 3e12, "launch": 4e5, "near": near[0], "nearer": near[1]}
        return {name: rest.get(name, 1e14) for name in calls}

    monkeypatch.setattr(gpu, "rates", timed)
    monkeypatch.setattr(gpu, "_many", lambda call: call)
    monkeypatch.setattr(gpu, "_launches", lambda: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    found = gpu.measured(gpu.Gpu("cpu", Machine("H100", "sm_90", 10), target))
    assert found["llc_rate"] == pytest.approx(l2 / 10)
    assert (found["dram_rate_all"], found["dram_rate"]) == (3e12, 6e11)
    assert found["launch"] == 1 / 4e5
    peak = 128 * target.hertz * 10
    assert found["library"]["bf16"] == pytest.approx(1e14 / peak)
