"""Huge-page advice, and arenas under concurrency, errors and fork."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fusec.runtime import memory
from fusec.runtime.memory import HUGE_PAGE, Arena, advise_huge

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def is_advised(address: int) -> bool:
    """Whether the mapping that holds `address` carries the huge-page flag."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        word = line.split()[0]
        if not word.endswith(":"):
            start, end = (int(bound, 16) for bound in word.split("-"))
            inside = start <= address < end
        elif inside and word == "VmFlags:":
            return "hg" in line.split()
    raise AssertionError(f"{address:#x} is not mapped")


@pytest.fixture
def mapping() -> mmap.mmap:
    return mmap.mmap(-1, 8 * HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def address_of(mapping: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


@linux_only
def test_only_whole_pages_inside_the_range_are_advised(mapping: mmap.mmap) -> None:
    start = address_of(mapping)
    advise_huge(start + 100, 6 * HUGE_PAGE)
    assert not is_advised(start + 100)
    assert is_advised(start + mmap.PAGESIZE)
    assert is_advised(start + 6 * HUGE_PAGE - 1)
    assert not is_advised(start + 6 * HUGE_PAGE + 100)


@linux_only
def test_a_small_range_is_left_alone(mapping: mmap.mmap) -> None:
    start = address_of(mapping)
    advise_huge(start, 2 * HUGE_PAGE - 1)
    assert not is_advised(start)
    advise_huge(start, 2 * HUGE_PAGE)
    assert is_advised(start)


@linux_only
def test_a_system_without_huge_pages_is_left_alone(
    mapping: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_MADV_HUGEPAGE", None)
    start = address_of(mapping)
    advise_huge(start, 4 * HUGE_PAGE)
    assert not is_advised(start)


@pytest.mark.parametrize("nbytes", [0, 1, 64, 5000, 3 * HUGE_PAGE])
@pytest.mark.parametrize("alignment", [1, 64, 4096, 1 << 16])
def test_blocks_are_aligned_and_writable(nbytes: int, alignment: int) -> None:
    with Arena(nbytes, alignment).checkout() as address:
        assert address % alignment == 0
        ctypes.memset(address, 0xA5, nbytes)
        assert ctypes.string_at(address, nbytes) == b"\xa5" * nbytes


@linux_only
def test_a_large_block_lies_on_huge_pages() -> None:
    with Arena(3 * HUGE_PAGE).checkout() as address:
        assert address % HUGE_PAGE == 0
        assert is_advised(address)


def test_calls_one_after_another_share_a_block() -> None:
    arena = Arena(4096)
    with arena.checkout() as first:
        pass
    with arena.checkout() as second:
        assert second == first


def test_calls_at_once_have_blocks_of_their_own() -> None:
    arena = Arena(4096)
    with arena.checkout() as outer, arena.checkout() as inner:
        assert abs(outer - inner) >= 4096


def test_an_error_gives_the_block_back() -> None:
    arena = Arena(4096)
    with pytest.raises(KeyError), arena.checkout() as lost:
        raise KeyError
    with arena.checkout() as found:
        assert found == lost


def test_threads_never_share_a_block() -> None:
    arena = Arena(1 << 16)
    start = threading.Barrier(8)

    def work(mark: int) -> set[int]:
        start.wait()
        seen = set()
        for _ in range(50):
            with arena.checkout() as address:
                ctypes.memset(address, mark, arena.nbytes)
                assert ctypes.string_at(address, arena.nbytes) == (
                    bytes([mark]) * arena.nbytes
                )
                seen.add(address)
        return seen

    with ThreadPoolExecutor(8) as pool:
        blocks = set().union(*pool.map(work, range(8)))
    assert len(blocks) <= 8


def test_a_forked_child_has_memory_of_its_own() -> None:
    arena = Arena(4096)
    with arena.checkout() as address:
        ctypes.memset(address, 1, 4096)
        child = multiprocessing.get_context("fork").Process(
            target=ctypes.memset, args=(address, 2, 4096)
        )
        child.start()
        child.join(timeout=30)
        assert child.exitcode == 0
        assert ctypes.string_at(address, 4096) == b"\1" * 4096


@pytest.mark.parametrize("nbytes", [1 << 60, 1 << 70])
def test_running_out_of_memory_tells_the_size(nbytes: int) -> None:
    arena = Arena(nbytes)
    with pytest.raises(MemoryError, match=f"{nbytes:,} bytes"), arena.checkout():
        pass


@pytest.mark.parametrize(("nbytes", "alignment"), [(-1, 64), (64, 0), (64, 48)])
def test_impossible_blocks_are_refused(nbytes: int, alignment: int) -> None:
    with pytest.raises(ValueError, match="no block"):
        Arena(nbytes, alignment)
