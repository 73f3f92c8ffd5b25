"""A content-addressed cache on disk: bytes under the hash of what they came from.

    cache = Cache(options.cache_dir)
    key = cache_key("llvm-object", VERSION, text, cpu, features)
    code = cache.get(key)
    if code is None:
        code = compile_it()
        cache.put(key, code, kind="object")

The payload of an entry is machine code that will run, so it is trusted only if nobody
else can have written it and it is whole:

- The folder and every entry belong to us, and nobody else may write (see `files`).
- A digest covers the key, the kind and the payload. Nothing is ever unpickled.
- Entries appear by rename: a reader sees all of one or nothing, whatever is killed.

An entry that fails any of this is a miss. A disk that fails (read-only, full, not ours)
turns the cache off with one warning: compiling goes on, slower.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock

from fusec.files import (
    TEMPORARY,
    check_owned,
    make_private,
    read_private,
    remove,
    write_private,
)
from fusec.logs import logger

_LOG = logger("cache")
_KEY = re.compile(r"[0-9a-f]{64}")
_ABANDONED = 3600.0
"""Seconds after which a temporary file cannot be a write in progress."""

_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN}
"""What the process or the system is short of for the moment."""

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
        self._stopping = Lock()
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
        except ValueError as error:
            _discard(path, error)
        except OSError as error:
            _LOG.info("cannot read the cache entry %s: %s", key, error)
        return None

    def put(self, key: str, payload: bytes, kind: str) -> bool:
        """Store `payload` under `key`; False where that cannot be. `kind` names its
        format, in 16 ASCII bytes."""
        entry = _pack(key, payload, kind)
        path = self._path(key)
        if not self.is_usable() or not self._writable or len(entry) > self.limit:
            return False
        try:
            self._write(path, entry)
            self._make_room(len(entry))
        except (OSError, ValueError) as error:  # no room, or a folder of others
            if getattr(error, "errno", None) in _PASSING:
                _LOG.info("cannot write the cache entry %s: %s", key, error)
                return False
            self._stop(error)
        return self._writable

    def _stop(self, error: Exception) -> None:
        """Write nothing any more, and say so once, whichever thread finds out first."""
        with self._stopping:
            if self._writable:
                self._writable = False
                _LOG.warning(_NO_MORE, self.root, error)

    def _write(self, path: Path, entry: bytes) -> None:
        try:
            write_private(path, entry)
        except FileNotFoundError:  # someone removed the folder, or cleared it meanwhile
            make_private(self.root)
            write_private(path, entry)

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
            except OSError:  # such as that another process evicted it meanwhile
                continue
            except ValueError as error:
                _discard(path, error)
                failed.append(path.name)
        return failed

    def clear(self) -> int:
        """Remove every entry; returns how many there were."""
        self._sweep(abandoned=0.0)
        self._bytes = None
        return sum(map(remove, self._paths()))

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no cache key; make one with cache_key()")
        return self.root / key

    def is_usable(self) -> bool:
        """Whether the folder exists and can be trusted; asked once."""
        if self._trusted is None:
            try:
                make_private(self.root)
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
            remove(path)
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
                if item.name.startswith(TEMPORARY) and age >= abandoned:
                    os.unlink(item.path)


def _load(path: Path) -> bytes:
    """The payload of an entry. Raises OSError, or ValueError with what is wrong."""
    try:
        return _unpack(path.name, read_private(path))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("it is a link") from error
        raise


def _describe(path: Path) -> Entry | None:
    """What the header says; None if it cannot be read."""
    try:
        status = os.lstat(path)
        _, _, kind, _, _ = _HEADER.unpack(read_private(path, _HEADER.size))
    except (OSError, ValueError, struct.error):
        return None
    name = kind.rstrip(b"\0").decode("ascii", "replace")
    return Entry(path.name, name, status.st_size, status.st_mtime)


def _discard(path: Path, error: Exception) -> None:
    """Warn, and remove the entry if it is ours."""
    _LOG.warning("dropped the cache entry %s: %s", path.name, error)
    with suppress(OSError, ValueError):
        check_owned(path)
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
