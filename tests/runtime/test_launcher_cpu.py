"""Loading object code, and launching it: serially, on threads, and after a fork."""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fusec.codegen.llvm_launcher import TEXT as LAUNCHER
from fusec.codegen.llvm_object import compile_object, host_cpu, host_features
from fusec.errors import InternalError
from fusec.runtime import launcher_cpu
from fusec.runtime.image import Code
from fusec.runtime.launcher_cpu import PARALLEL, Launcher, link, load, slots

# args: y, x, a.  y[i] += a[0] * x[i]
SAXPY = """
define void @saxpy(ptr %args, i64 %lo, i64 %hi) {
entry:
  %y = load ptr, ptr %args
  %x.slot = getelementptr ptr, ptr %args, i64 1
  %x = load ptr, ptr %x.slot
  %a.slot = getelementptr ptr, ptr %args, i64 2
  %a.at = load ptr, ptr %a.slot
  %a = load float, ptr %a.at
  br label %loop
loop:
  %i = phi i64 [ %lo, %entry ], [ %next, %loop ]
  %xi.at = getelementptr float, ptr %x, i64 %i
  %yi.at = getelementptr float, ptr %y, i64 %i
  %xi = load float, ptr %xi.at
  %yi = load float, ptr %yi.at
  %ax = fmul float %a, %xi
  %sum = fadd float %yi, %ax
  store float %sum, ptr %yi.at
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %hi
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""

# args: ends.  ends[lo] = hi: leaves the parts that the grid was split into.
PARTS = """
define void @parts(ptr %args, i64 %lo, i64 %hi) {
  %ends = load ptr, ptr %args
  %at = getelementptr i64, ptr %ends, i64 %lo
  store i64 %hi, ptr %at
  ret void
}
"""

# args: times.  times[n] += 1 for each program n.
COUNT = """
define void @count(ptr %args, i64 %lo, i64 %hi) {
entry:
  %times = load ptr, ptr %args
  br label %loop
loop:
  %n = phi i64 [ %lo, %entry ], [ %next, %loop ]
  %at = getelementptr i64, ptr %times, i64 %n
  %old = load i64, ptr %at
  %new = add i64 %old, 1
  store i64 %new, ptr %at
  %next = add i64 %n, 1
  %more = icmp slt i64 %next, %hi
  br i1 %more, label %loop, label %done
done:
  ret void
}
declare void @fusec_batch(ptr, i64, i64)
define void @batch(ptr %table, i64 %lo, i64 %hi) {
  call void @fusec_batch(ptr %table, i64 %lo, i64 %hi)
  ret void
}
"""

HOST = """
declare i32 @fusec_parallel(ptr, ptr, i64, i64)
define i32 @host(ptr %args, i64 %grid, i64 %threads) {
  %status = call i32 @fusec_parallel(ptr @parts, ptr %args, i64 %grid, i64 %threads)
  ret i32 %status
}
"""


def compiled(text: str) -> bytes:
    return compile_object(text, host_cpu(), host_features())


def loaded(text: str, *names: str) -> Code:
    return load(link([compiled(text), compiled(LAUNCHER)], [*names, PARALLEL]))


@pytest.fixture(scope="module")
def code() -> Code:
    names = ["saxpy", "parts", "host", "count", "batch"]
    return loaded(SAXPY + PARTS + COUNT + HOST, *names)


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def parts(code: Code, grid: int, threads: int) -> list[tuple[int, int]]:
    ends = np.zeros(grid, np.int64)
    Launcher(code)("parts", slots([ends.ctypes.data]), grid, threads)
    return [(int(lo), int(ends[lo])) for lo in np.nonzero(ends)[0]]


def saxpy(code: Code, a: float, x: np.ndarray, y: np.ndarray, threads: int) -> None:
    scale = np.array([a], np.float32)
    args = slots([y.ctypes.data, x.ctypes.data, scale.ctypes.data])
    Launcher(code)("saxpy", args, len(y), threads)


@given(grid=st.integers(0, 3000), threads=st.integers(1, 70))
def test_any_number_of_threads_gives_the_serial_result(
    code: Code, grid: int, threads: int
) -> None:
    random = np.random.default_rng(grid)
    x, y = random.standard_normal((2, grid), np.float32)
    expected = y + np.float32(1.5) * x
    saxpy(code, 1.5, x, y, threads)
    np.testing.assert_array_equal(y, expected)


@given(grid=st.integers(0, 300), threads=st.integers(1, 70))
def test_parts_cover_the_grid_once(code: Code, grid: int, threads: int) -> None:
    found = parts(code, grid, threads)
    bounds = [0, *(hi for _, hi in found)]
    assert found == list(itertools.pairwise(bounds))
    assert bounds[-1] == grid
    assert len(found) <= threads


def test_two_threads_take_half_each(code: Code) -> None:
    assert parts(code, 11, 2) == [(0, 6), (6, 11)]


def test_one_thread_or_one_program_runs_whole(code: Code) -> None:
    assert parts(code, 11, 1) == [(0, 11)]
    assert parts(code, 1, 2) == [(0, 1)]


def test_an_empty_grid_runs_nothing(code: Code) -> None:
    untouched = np.full(1, 7, np.int64)
    Launcher(code)("parts", slots([untouched.ctypes.data]), 0, 2)
    assert untouched[0] == 7


def test_native_code_launches(code: Code) -> None:
    signature = ctypes.CFUNCTYPE(
        ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
    )
    ends = np.zeros(10, np.int64)
    assert signature(code["host"])(slots([ends.ctypes.data]), 10, 2) == 0
    assert ends.tolist() == [5, 0, 0, 0, 0, 10, 0, 0, 0, 0]


def test_python_threads_launch_at_once(code: Code) -> None:
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        x, y = np.random.default_rng(seed).standard_normal((2, 5000), np.float32)
        expected = y.copy()
        start.wait()
        for _ in range(20):
            saxpy(code, 0.5, x, y, threads=2)
            expected += np.float32(0.5) * x
        np.testing.assert_array_equal(y, expected)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_python_threads_load_at_once(code: Code) -> None:
    program = link([compiled(PARTS), compiled(LAUNCHER)], ["parts", PARALLEL])
    start = threading.Barrier(4)

    def work(_: int) -> list[tuple[int, int]]:
        start.wait()
        return parts(load(program), 8, 1)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [[(0, 8)]] * 4


def test_an_error_of_the_pool_is_reported(code: Code) -> None:
    prototype = ctypes.CFUNCTYPE(
        ctypes.c_int32,
        *[ctypes.c_int64] * 3,
        *[ctypes.c_void_p] * 2,
    )
    failing = prototype(lambda lo, hi, grain, function, context: 3)
    pool = launcher_cpu._pool
    real, pool.value = pool.value, ctypes.cast(failing, ctypes.c_void_p).value
    try:
        with pytest.raises(InternalError, match="error code 3"):
            parts(code, 10, 2)
    finally:
        pool.value = real


def run_in_child(code: Code) -> None:
    assert parts(code, 11, 2) == [(0, 11)]
    later = loaded(PARTS, "parts")
    assert parts(later, 11, 2) == [(0, 11)]


def test_a_forked_child_runs_serially(code: Code) -> None:
    assert parts(code, 11, 2) == [(0, 6), (6, 11)]  # the pool's threads exist
    child = multiprocessing.get_context("fork").Process(
        target=run_in_child, args=(code,)
    )
    child.start()
    child.join(timeout=30)
    try:
        assert child.exitcode == 0
    finally:
        child.kill()
    assert parts(code, 11, 2) == [(0, 6), (6, 11)]


def compile_in_child() -> None:
    loaded(PARTS, "parts")


def test_a_fork_while_threads_compile(code: Code) -> None:
    """The child inherits no lock that a thread of the parent held, and may compile."""
    stop = threading.Event()

    def keep_compiling() -> None:
        while not stop.is_set():
            loaded(SAXPY + PARTS, "parts")

    threads = [threading.Thread(target=keep_compiling) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            child = multiprocessing.get_context("fork").Process(target=compile_in_child)
            child.start()
            child.join(timeout=30)
            hung = child.exitcode is None
            child.kill()
            assert not hung
            assert child.exitcode == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_without_torch_and_llvm_kernels_run_serially(tmp_path: Path) -> None:
    program = link([compiled(PARTS), compiled(LAUNCHER)], ["parts", PARALLEL])
    (tmp_path / "parts").write_bytes(pickle.dumps(program))
    script = f"""
import ctypes, pickle, sys
from fusec.runtime.launcher_cpu import Launcher, load, slots
code = load(pickle.load(open({str(tmp_path / "parts")!r}, "rb")))
ends = (ctypes.c_int64 * 10)()
Launcher(code)("parts", slots([ctypes.addressof(ends)]), 10, 2)
print(ends[:], sorted({{"torch", "llvmlite", "numpy"}} & {{*sys.modules}}))
"""
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert run.stdout.strip() == "[10, 0, 0, 0, 0, 0, 0, 0, 0, 0] []"


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)), min_size=1, max_size=6),
    st.integers(1, 5),
)
def test_a_batch_runs_each_program_of_its_launches_once(
    code: Code, launches: list[tuple[int, int]], threads: int
) -> None:
    """However their work is shared: a part may end within a program's units."""
    times = [np.zeros(max(1, grid), np.int64) for grid, _ in launches]
    held = [slots([each.ctypes.data]) for each in times]
    entries: list[int] = [len(launches)]
    total = 0
    for args, (grid, units) in zip(held, launches, strict=True):
        entries += [code["count"], ctypes.addressof(args), total, grid, units]
        total += grid * units
    Launcher(code)("batch", slots(entries), total, threads)
    for each, (grid, _) in zip(times, launches, strict=True):
        assert each.tolist() == ([1] * grid or [0])
