"""The cache gives back what was put, or nothing; it never fails and never lies."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusec import files
from fusec.runtime.cache import Cache, cache_key

KEY = cache_key("a key")
OTHER = cache_key("another key")
PAYLOAD = b"\x00machine code\xff"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [record.getMessage() for record in caplog.records]


PARTS = st.lists(st.text(max_size=3) | st.binary(max_size=3), max_size=3)


@given(PARTS, PARTS)
def test_keys_are_equal_exactly_if_their_parts_are(
    left: list[str | bytes], right: list[str | bytes]
) -> None:
    assert (cache_key(*left) == cache_key(*right)) == (left == right)


def test_keys_are_stable_across_processes() -> None:
    assert hashlib.sha256(b"str 5:a key").hexdigest() == KEY


def test_get_gives_back_what_was_put(cache: Cache) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, PAYLOAD, "object")
    cache.put(OTHER, b"", "object")
    assert cache.get(KEY) == PAYLOAD
    assert cache.get(OTHER) == b""
    assert Cache(cache.root).get(KEY) == PAYLOAD


def test_put_replaces(cache: Cache) -> None:
    cache.put(KEY, b"old", "object")
    cache.put(KEY, b"new", "object")
    assert cache.get(KEY) == b"new"


@pytest.mark.parametrize(
    "key", ["", "short", "../" * 20 + "etc", KEY.upper(), KEY + "\n"]
)
def test_only_hashes_are_keys(cache: Cache, key: str) -> None:
    with pytest.raises(ValueError, match="is no cache key"):
        cache.get(key)
    with pytest.raises(ValueError, match="is no cache key"):
        cache.put(key, PAYLOAD, "object")


@pytest.mark.parametrize("kind", ["", "x" * 17, "é"])
def test_kinds_are_short_ascii(cache: Cache, kind: str) -> None:
    with pytest.raises(ValueError, match=r"kind|ascii"):
        cache.put(KEY, PAYLOAD, kind)


def test_only_the_owner_can_see_it(cache: Cache) -> None:
    cache.put(KEY, PAYLOAD, "object")
    assert stat.S_IMODE(cache.root.stat().st_mode) == 0o700
    assert stat.S_IMODE((cache.root / KEY).stat().st_mode) == 0o600


# Corruption.


def test_any_flipped_bit_is_a_miss(cache: Cache) -> None:
    cache.put(KEY, PAYLOAD, "object")
    path = cache.root / KEY
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        path.chmod(0o600)
        assert cache.get(KEY) is None, f"bit {bit}"
        assert not path.exists()


def test_an_entry_cut_or_grown_anywhere_is_a_miss(cache: Cache) -> None:
    cache.put(KEY, PAYLOAD, "object")
    path = cache.root / KEY
    whole = path.read_bytes()
    for broken in (*(whole[:size] for size in range(len(whole))), whole + b"\0"):
        path.write_bytes(broken)
        path.chmod(0o600)
        assert cache.get(KEY) is None, f"{len(broken)} bytes"
        assert not path.exists()


def test_an_entry_under_another_key_is_a_miss(cache: Cache) -> None:
    cache.put(KEY, PAYLOAD, "object")
    (cache.root / KEY).rename(cache.root / OTHER)
    assert cache.get(OTHER) is None


def test_a_corrupt_entry_is_reported_once_and_can_be_written_again(
    cache: Cache, warnings: Callable[[], list[str]]
) -> None:
    cache.put(KEY, PAYLOAD, "object")
    with (cache.root / KEY).open("r+b") as file:
        file.truncate(5)
    assert cache.get(KEY) is None
    assert cache.get(KEY) is None
    assert warnings() == [f"dropped the cache entry {KEY}: it is cut short"]
    cache.put(KEY, PAYLOAD, "object")
    assert cache.get(KEY) == PAYLOAD


# Other users.


def test_a_planted_link_is_refused_and_its_target_left_alone(
    cache: Cache, tmp_path: Path
) -> None:
    cache.put(KEY, PAYLOAD, "object")
    elsewhere = tmp_path / "elsewhere"
    (cache.root / KEY).rename(elsewhere)
    (cache.root / KEY).symlink_to(elsewhere)
    assert cache.get(KEY) is None
    assert elsewhere.exists()

    (cache.root / KEY).symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    cache.put(KEY, b"new", "object")
    assert cache.get(KEY) == b"new"
    assert elsewhere.read_bytes() == before


def test_a_planted_pipe_does_not_block(cache: Cache) -> None:
    assert cache.get(KEY) is None
    os.mkfifo(cache.root / KEY)
    assert cache.get(KEY) is None


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_an_entry_that_others_may_write_is_a_miss(cache: Cache, mode: int) -> None:
    cache.put(KEY, PAYLOAD, "object")
    (cache.root / KEY).chmod(mode)
    assert cache.get(KEY) is None
    assert not (cache.root / KEY).exists()


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_may_write_is_not_used(
    cache: Cache,
    mode: int,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
) -> None:
    monkeypatch.setattr(files, "_is_ours_alone", lambda gid: False)
    cache.put(KEY, PAYLOAD, "object")
    cache.root.chmod(mode)
    again = Cache(cache.root)
    assert again.get(KEY) is None
    again.put(OTHER, PAYLOAD, "object")
    assert not (cache.root / OTHER).exists()
    (warning,) = warnings()
    assert "chmod go-w" in warning


def test_a_folder_that_our_own_group_may_write_is_used(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_is_ours_alone", lambda gid: True)
    cache.put(KEY, PAYLOAD, "object")
    cache.root.chmod(0o770)
    assert Cache(cache.root).get(KEY) == PAYLOAD


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_an_entry_of_another_user_is_a_miss_and_stays(cache: Cache) -> None:
    cache.put(KEY, PAYLOAD, "object")
    os.chown(cache.root / KEY, 12345, -1)
    assert cache.get(KEY) is None
    assert (cache.root / KEY).exists()


def test_a_folder_of_another_user_is_not_used(
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
) -> None:
    cache.put(KEY, PAYLOAD, "object")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    again = Cache(cache.root)
    assert again.get(KEY) is None
    again.put(OTHER, PAYLOAD, "object")
    assert again.ls() == []
    assert again.clear() == 0
    (warning,) = warnings()
    assert "belongs to another user" in warning


# Disks that fail.


def test_a_folder_that_cannot_be_made_turns_the_cache_off(
    tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file" / "cache")
    cache.put(KEY, PAYLOAD, "object")
    assert cache.get(KEY) is None
    assert (cache.ls(), cache.verify(), cache.clear()) == ([], [], 0)
    assert len(warnings()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_still_read(cache: Cache) -> None:
    cache.put(KEY, PAYLOAD, "object")
    cache.root.chmod(0o500)
    cache.put(OTHER, PAYLOAD, "object")
    assert (cache.get(KEY), cache.get(OTHER)) == (PAYLOAD, None)


@pytest.mark.parametrize(
    "code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT]
)
@pytest.mark.parametrize("function", ["open", "replace"])
def test_a_disk_that_takes_no_writes_warns_once(
    function: str,
    code: int,
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
) -> None:
    cache.put(KEY, PAYLOAD, "object")
    real = getattr(os, function)

    def refuse(path: str, *args: int, **kwargs: object) -> object:
        if function == "open" and not args[0] & os.O_CREAT:
            return real(path, *args, **kwargs)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, function, refuse)
    cache.put(OTHER, PAYLOAD, "object")
    cache.put(OTHER, PAYLOAD, "object")
    assert (cache.get(KEY), cache.get(OTHER)) == (PAYLOAD, None)
    (warning,) = warnings()
    assert os.strerror(code) in warning
    assert [path.name for path in cache.root.iterdir()] == [KEY]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM, errno.EINTR])
def test_what_a_process_lacks_for_the_moment_costs_nothing(
    code: int,
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
) -> None:
    cache.put(KEY, PAYLOAD, "object")

    def refuse(*args: object, **kwargs: object) -> object:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert cache.get(KEY) is None
        assert cache.verify() == []
        assert not cache.put(OTHER, PAYLOAD, "object")
    assert cache.get(KEY) == PAYLOAD
    assert cache.put(OTHER, PAYLOAD, "object")
    assert warnings() == []


@pytest.mark.parametrize("act", [shutil.rmtree, lambda root: Cache(root).clear()])
def test_a_cache_that_is_cleared_while_it_is_used_goes_on(
    act: Callable[[Path], object],
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
) -> None:
    cache.put(KEY, PAYLOAD, "object")
    replace = os.replace
    acts = [act]

    def act_first(*names: str) -> None:
        if acts:
            acts.pop()(cache.root)
        replace(*names)

    monkeypatch.setattr(os, "replace", act_first)
    assert cache.put(OTHER, PAYLOAD, "object")
    assert (cache.get(KEY), cache.get(OTHER)) == (None, PAYLOAD)
    assert not acts
    assert warnings() == []


def test_a_folder_that_others_made_meanwhile_is_not_written_to(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    cache.put(KEY, PAYLOAD, "object")
    shutil.rmtree(cache.root)
    replaced = Path.mkdir

    def make_open(path: Path, *args: object, **kwargs: object) -> None:
        replaced(path, mode=0o700, exist_ok=True)
        path.chmod(0o777)

    monkeypatch.setattr(Path, "mkdir", make_open)
    assert not cache.put(OTHER, PAYLOAD, "object")
    (warning,) = warnings()
    assert "chmod go-w" in warning


def test_a_write_that_fails_midway_leaves_nothing(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.put(KEY, PAYLOAD, "object")
    assert list(cache.root.iterdir()) == []


# Many writers.

WRITER = """
import sys
from pathlib import Path
from fusec import files
from fusec.runtime.cache import Cache, cache_key

cache, seed = Cache(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
for step in range(int(sys.argv[3])):
    name = str((seed + step) % 50)
    cache.put(cache_key(name), name.encode() * 300_000, "object")
    payload = cache.get(cache_key(name))
    assert payload == name.encode() * 300_000, name
"""


def writer(root: Path, seed: int, steps: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(root), str(seed), str(steps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def assert_sound(cache: Cache) -> int:
    """Every entry holds exactly what was written; returns how many there are."""
    assert cache.verify() == []
    for name in map(str, range(50)):
        assert cache.get(cache_key(name)) in (None, name.encode() * 300_000)
    return len(cache.ls())


@pytest.mark.parametrize("times", [20, pytest.param(400, marks=pytest.mark.slow)])
def test_writers_killed_at_any_moment_leave_whole_entries(
    cache: Cache, times: int
) -> None:
    moments = random.Random(times)
    for seed in range(times):
        with writer(cache.root, seed, steps=1_000_000) as process:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            time.sleep(moments.uniform(0.0, 0.02))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    assert assert_sound(cache) > 0
    cache.clear()
    assert list(cache.root.iterdir()) == []


def test_two_processes_share_one_cache(cache: Cache) -> None:
    # They write the same keys: the payload of a key is the same whoever wrote it.
    processes = [writer(cache.root, 0, steps=100) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    for process in processes:
        process.communicate()
    assert assert_sound(cache) == 50


# Upkeep.


def test_ls_tells_kind_size_and_order_of_use(cache: Cache) -> None:
    cache.put(KEY, PAYLOAD, "object")
    cache.put(OTHER, b"", "program")
    os.utime(cache.root / OTHER, (1, 1))
    latest, oldest = cache.ls()
    assert (latest.key, latest.kind) == (KEY, "object")
    assert (oldest.key, oldest.kind, oldest.used) == (OTHER, "program", 1.0)
    assert latest.size - oldest.size == len(PAYLOAD)
    assert latest.size == (cache.root / KEY).stat().st_size


def test_verify_finds_and_discards_what_is_broken(cache: Cache) -> None:
    cache.put(KEY, PAYLOAD, "object")
    cache.put(OTHER, PAYLOAD, "object")
    with (cache.root / OTHER).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x00")
    assert cache.verify() == [OTHER]
    assert cache.verify() == []
    assert [entry.key for entry in cache.ls()] == [KEY]


def test_clear_removes_entries_and_nothing_else(cache: Cache) -> None:
    cache.put(KEY, PAYLOAD, "object")
    (cache.root / "notes.txt").touch()
    assert cache.clear() == 1
    assert [path.name for path in cache.root.iterdir()] == ["notes.txt"]
    assert cache.get(KEY) is None
    cache.put(KEY, PAYLOAD, "object")
    assert cache.get(KEY) == PAYLOAD


def test_the_entry_used_longest_ago_is_evicted(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", limit=11_000)
    keys = [cache_key(str(number)) for number in range(4)]
    for age, key in enumerate(keys[:3]):
        cache.put(key, bytes(3000), "object")
        os.utime(cache.root / key, (1000 + age, 1000 + age))
    assert cache.get(keys[0]) is not None  # used now, so keys[1] is the oldest
    cache.put(keys[3], bytes(3000), "object")
    assert {entry.key for entry in cache.ls()} == {keys[0], keys[2], keys[3]}


def test_entries_of_other_processes_count_towards_the_limit(tmp_path: Path) -> None:
    limit = 10_000
    caches = [Cache(tmp_path / "cache", limit) for _ in range(3)]
    for number in range(30):
        caches[number % 3].put(cache_key(str(number)), bytes(900), "object")
    # Each counts what it added since it last looked, so each may overshoot once.
    total = sum(entry.size for entry in caches[0].ls())
    assert total <= 3 * limit
    caches[0].put(KEY, bytes(limit // 2), "object")
    caches[0].put(OTHER, bytes(limit // 2), "object")
    assert sum(entry.size for entry in caches[0].ls()) <= limit


def test_an_entry_beyond_the_limit_is_not_stored(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", limit=1000)
    cache.put(KEY, b"small", "object")
    cache.put(OTHER, bytes(1000), "object")
    assert [entry.key for entry in cache.ls()] == [KEY]


def test_abandoned_temporary_files_are_swept(cache: Cache) -> None:
    assert cache.get(KEY) is None
    old, new = cache.root / ".fusec-old", cache.root / ".fusec-new"
    old.touch()
    new.touch()
    os.utime(old, (1, 1))
    cache.put(KEY, PAYLOAD, "object")
    assert (old.exists(), new.exists()) == (False, True)
