"""A cache folder that is corrupt, full, read-only, somebody else's, or a trap."""

from __future__ import annotations

import errno
import os
import pickle
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.conftest import Disk, Run

from fusec.runtime import cache as cache_module
from fusec.runtime.cache import Cache

Warned = Callable[[], list[str]]


def entries(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if len(path.name) == 64)
    assert len(found) >= 3
    return found


def rewrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


def flip_bits(path: Path) -> None:
    content, chance = bytearray(path.read_bytes()), random.Random(path.name)
    for _ in range(3):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    rewrite(path, bytes(content))


def replace_by_one_of_another_key(path: Path) -> None:
    payload = cache_module._load(path)
    rewrite(path, cache_module._pack("0" * 64, payload, "object"))


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


class Bomb:
    """Runs a command in whoever unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch /tmp/fusec-was-unpickled",)


BREAKAGES: dict[str, Callable[[Path], None]] = {
    "cut in the header": lambda path: os.truncate(path, 20),
    "cut in the payload": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "grown": lambda path: rewrite(path, path.read_bytes() + b"\0"),
    "bits flipped": flip_bits,
    "another key's": replace_by_one_of_another_key,
    "a pickle": lambda path: rewrite(path, pickle.dumps(Bomb())),
    "writable by others": lambda path: path.chmod(0o666),
    "a folder": make_a_folder,
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_broken_entries_are_told_of_and_made_again(
    right: Run, warned: Warned, tmp_path: Path, name: str
) -> None:
    right()
    broken = entries(tmp_path)
    for path in broken:
        BREAKAGES[name](path)
    assert not warned()
    right()
    said = warned()
    assert sum("dropped the cache entry" in line for line in said) == len(broken)
    assert not Path("/tmp/fusec-was-unpickled").exists()
    if name != "a folder":  # which is in the way for good, as it may hold anything
        assert Cache(tmp_path).verify() == []
        right()
        assert not warned()


def test_entries_that_are_whole_and_no_code_are_made_again(
    right: Run, warned: Warned, tmp_path: Path
) -> None:
    """As a compiler that failed half way might have left them."""
    right()
    cache = Cache(tmp_path)
    for path in entries(tmp_path):
        cache.put(path.name, b"\x7fELF but no more", "object")
    right()
    assert all("cannot be loaded" in line for line in warned())
    right()
    assert not warned()


def test_a_full_disk_costs_the_cache_and_nothing_else(
    right: Run, warned: Warned, disk: Disk
) -> None:
    folder = disk("size=8k")
    right(folder)
    (line,) = warned()
    assert "No space left on device" in line
    assert "caching no more" in line
    assert not list(folder.glob(".fusec-*"))
    assert Cache(folder).verify() == []


def test_a_disk_that_fills_up_costs_the_cache_and_nothing_else(
    right: Run, warned: Warned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no disk can be mounted: the second write finds no space."""
    written: list[Path] = []
    write = cache_module.write_private

    def fill(path: Path, entry: bytes) -> None:
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        write(path, entry)

    monkeypatch.setattr(cache_module, "write_private", fill)
    right()
    (line,) = warned()
    assert "No space left on device" in line
    assert len(written) == 1


def test_a_read_only_disk_is_read_from(right: Run, warned: Warned, disk: Disk) -> None:
    folder = disk("size=4m")
    right(folder)
    remount = ["mount", "-o", "remount,ro", str(folder)]
    subprocess.run(remount, check=True, capture_output=True)
    right(folder)
    assert not warned()
    right(folder, numerics="fast", target="x86-64")
    assert len([line for line in warned() if "caching no more" in line]) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_another_user_is_left_alone(
    right: Run, warned: Warned, tmp_path: Path
) -> None:
    folder = tmp_path / "theirs"
    right(folder)
    before = {path.name: path.read_bytes() for path in entries(folder)}
    os.chown(folder, 12345, 12345)
    right(folder, numerics="fast", target="x86-64")
    (line,) = warned()
    assert f"not caching in {folder}: it belongs to another user" in line
    assert {path.name: path.read_bytes() for path in entries(folder)} == before


TRAPS = ["owned by another", "linked from elsewhere", "in a folder open to all"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("trap", TRAPS)
def test_code_that_others_may_have_planted_does_not_run(
    right: Run, warned: Warned, tmp_path: Path, trap: str
) -> None:
    """Whole entries, their digests right, with code that computes something else."""
    folder, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    right(folder)
    _plant_wrong_code(folder)
    if trap == "owned by another":
        for path in entries(folder):
            os.chown(path, 12345, 12345)
    elif trap == "linked from elsewhere":
        shutil.copytree(folder, elsewhere)
        for path in entries(folder):
            path.unlink()
            path.symlink_to(elsewhere / path.name)
    else:
        folder.chmod(0o777)
    right(folder)
    assert warned()


def _plant_wrong_code(folder: Path) -> None:
    """Exchange the payload of every entry for one that no loader can take."""
    cache = Cache(folder)
    for path in entries(folder):
        cache.put(path.name, b"planted", "object")
