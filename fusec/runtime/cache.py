"""A content-addressed cache on disk: bytes under the hash of what they came from.

    cache = Cache(options.cache_dir)
    key = cache_key("llvm-object", VERSION, text, cpu, features)
    code = cache.get(key)
    if code is None:
        code = compile_it()
        cache.put(key, code, kind="object")

The payload of an entry is machine code that will run, so it is trusted only if nobody
else can have written it and it is whole:

- The folder and every entry belong to us, and neither group nor others may write.
- A digest covers the key, the kind and the payload. Nothing is ever unpickled.
- Entries appear by rename: a reader sees all of one or nothing, whatever is killed.

An entry that fails any of this is a miss. A disk that fails (read-only, full, not ours)
turns the cache off with one warning: compiling goes on, slower.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fusec.logs import logger

_LOG = logger("cache")
_KEY = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = ".fusec-"
# O_NOFOLLOW refuses a link, O_NONBLOCK does not wait on a pipe: either may be planted.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ABANDONED = 3600.0
"""Seconds after which a temporary file cannot be a write in progress."""

_MAGIC = b"fusecache"
_VERSION = 1
_HEADER = struct.Struct("<9sB16sQ32s")
"""Magic, version, kind, bytes of payload, digest."""


_NO_MORE = """cannot write %s (%s): caching no more
  help: make room there, or set cache_dir (FUSEC_CACHE_DIR) to another folder"""
_NOT_THERE = """not caching in %s: %s
  help: set cache_dir (FUSEC_CACHE_DIR) to a folder that is yours alone, or cache=0"""


def cache_key(*parts: str | bytes) -> str:
    """The SHA-256, in hex, of a sequence of texts and bytes.

    Different sequences have different keys: ("ab", "c") is not ("a", "bc").
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{type(part).__name__} {len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


@cache
def cache_at(root: Path) -> Cache:
    """One cache for a folder: it remembers how much lies there."""
    return Cache(root)


def is_private(folder: Path) -> bool:
    """Whether a folder is there, is ours, and nobody else may write to it."""
    try:
        _trust(os.stat(folder), stat.S_ISDIR)
        _owned(os.lstat(folder))
    except (OSError, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Entry:
    """What `Cache.ls` tells: bytes on disk, and seconds since the epoch of last use."""

    key: str
    kind: str
    size: int
    used: float


class Cache:
    """The cache in the folder `root`, which is made when it is first needed.

    Any number of threads and processes may share it. Once entries exceed `limit` bytes,
    those that were used longest ago are dropped.
    """

    def __init__(self, root: Path, limit: int = 2 << 30) -> None:
        self.root = root
        self.limit = limit
        self._trusted: bool | None = None
        self._writable = True
        self._bytes: int | None = None

    def get(self, key: str) -> bytes | None:
        """The payload stored under `key`, or None."""
        payload = self.peek(key)
        if payload is not None:
            # Eviction goes by modification time: many disks do not record reads.
            with suppress(OSError):
                os.utime(self._path(key))
        return payload

    def peek(self, key: str) -> bytes | None:
        """The same, which does not count as a use."""
        path = self._path(key)
        if not self.is_usable():
            return None
        try:
            return _load(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _discard(path, error)
            return None

    def put(self, key: str, payload: bytes, kind: str) -> bool:
        """Store `payload` under `key`; False where that cannot be. `kind` names its
        format, in 16 ASCII bytes."""
        entry = _pack(key, payload, kind)
        path = self._path(key)
        if not self.is_usable() or not self._writable or len(entry) > self.limit:
            return False
        try:
            _write(path, entry)
            self._make_room(len(entry))
        except OSError as error:
            self._writable = False
            _LOG.warning(_NO_MORE, self.root, error)
        return self._writable

    def ls(self) -> list[Entry]:
        """All entries, the one used last first. Does not check their payloads."""
        entries = [_describe(path) for path in self._paths()]
        return sorted((e for e in entries if e), key=lambda e: e.used, reverse=True)

    def verify(self) -> list[str]:
        """Check every entry whole. Discards those that fail, and returns their keys."""
        failed: list[str] = []
        for path in self._paths():
            try:
                _load(path)
            except FileNotFoundError:  # another process evicted it meanwhile
                continue
            except (OSError, ValueError) as error:
                _discard(path, error)
                failed.append(path.name)
        return failed

    def clear(self) -> int:
        """Remove every entry; returns how many there were."""
        self._sweep(abandoned=0.0)
        self._bytes = None
        return sum(_remove(path) for path in self._paths())

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no cache key; make one with cache_key()")
        return self.root / key

    def is_usable(self) -> bool:
        """Whether the folder exists and can be trusted; asked once."""
        if self._trusted is None:
            try:
                self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
                _trust(os.stat(self.root), stat.S_ISDIR)
                # Our own link may stand in its place, but not another user's.
                _owned(os.lstat(self.root))
                self._trusted = True
            except (OSError, ValueError) as error:
                self._trusted = False
                _LOG.warning(_NOT_THERE, self.root, error)
        return self._trusted

    def _paths(self) -> Iterator[Path]:
        """The entries, by their names."""
        names = (item.name for item in self._scan())
        return (self.root / name for name in names if _KEY.fullmatch(name))

    def _scan(self) -> list[os.DirEntry[str]]:
        if not self.root.exists() or not self.is_usable():
            return []
        try:
            with os.scandir(self.root) as items:
                return list(items)
        except OSError:
            return []

    def _make_room(self, added: int) -> None:
        """Count `added` bytes; beyond the limit, evict down to nine tenths of it."""
        if self._bytes is None:
            self._sweep(_ABANDONED)
        elif self._bytes + added <= self.limit:
            self._bytes += added
            return
        # Other processes write here too, so a sum that reached the limit is stale.
        files = sorted(self._files())
        self._bytes = sum(size for _, size, _ in files)
        if self._bytes <= self.limit:
            return
        for _, size, path in files:
            if self._bytes <= self.limit * 9 // 10:
                return
            _remove(path)
            self._bytes -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """When each entry was used last, its size and its path."""
        for path in self._paths():
            with suppress(OSError):
                status = os.lstat(path)
                yield status.st_mtime, status.st_size, path

    def _sweep(self, abandoned: float) -> None:
        """Remove temporary files that are at least `abandoned` seconds old."""
        now = time.time()
        for item in self._scan():
            with suppress(OSError):
                age = now - item.stat(follow_symlinks=False).st_mtime
                if item.name.startswith(_TEMPORARY) and age >= abandoned:
                    os.unlink(item.path)


def _load(path: Path) -> bytes:
    """The payload of an entry. Raises OSError, or ValueError with what is wrong."""
    return _unpack(path.name, _read(path))


def _describe(path: Path) -> Entry | None:
    """What the header says; None if it cannot be read."""
    try:
        status = os.lstat(path)
        _, _, kind, _, _ = _HEADER.unpack(_read(path, _HEADER.size))
    except (OSError, ValueError, struct.error):
        return None
    name = kind.rstrip(b"\0").decode("ascii", "replace")
    return Entry(path.name, name, status.st_size, status.st_mtime)


def _read(path: Path, size: int = -1) -> bytes:
    """The first `size` bytes of a regular file that is ours alone to write."""
    handle = os.open(path, _READ)
    try:
        _trust(os.fstat(handle), stat.S_ISREG)
        with open(handle, "rb", closefd=False) as file:
            return file.read(size)
    finally:
        os.close(handle)


def _write(path: Path, entry: bytes) -> None:
    """Write a temporary file (mode 0600) beside `path`, then rename it."""
    handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(entry)
        os.replace(temporary, path)
    except BaseException:
        _remove(Path(temporary))
        raise


def _discard(path: Path, error: Exception) -> None:
    """Warn, and remove the entry if it is ours."""
    _LOG.warning("dropped the cache entry %s: %s", path.name, error)
    with suppress(OSError, ValueError):
        _owned(os.lstat(path))
        os.unlink(path)


def _pack(key: str, payload: bytes, kind: str) -> bytes:
    name = kind.encode("ascii")
    if not 0 < len(name) <= 16:
        raise ValueError(f"the kind of an entry has 1 to 16 characters, not {kind!r}")
    name = name.ljust(16, b"\0")
    digest = _digest(key, name, payload)
    return _HEADER.pack(_MAGIC, _VERSION, name, len(payload), digest) + payload


def _unpack(key: str, entry: bytes) -> bytes:
    """The payload of an entry. Raises ValueError where it is not as it was packed."""
    if len(entry) < _HEADER.size:
        raise ValueError("it is cut short")
    magic, version, kind, length, digest = _HEADER.unpack_from(entry)
    payload = entry[_HEADER.size :]
    if (magic, version) != (_MAGIC, _VERSION):
        raise ValueError("it is not of this version")
    if length != len(payload) or digest != _digest(key, kind, payload):
        raise ValueError("its digest does not match")
    return payload


def _digest(key: str, kind: bytes, payload: bytes) -> bytes:
    digest = hashlib.sha256(f"{key} ".encode() + kind)
    digest.update(payload)
    return digest.digest()


def _trust(status: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    """Raise ValueError unless the file is ours alone to write, and of its kind."""
    _owned(status)
    if not is_kind(status.st_mode):
        raise ValueError("it is another kind of file than expected")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError("other users may write to it; `chmod go-w` makes it safe")


def _owned(status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise ValueError(f"it belongs to another user (uid {status.st_uid})")


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
