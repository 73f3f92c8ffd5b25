"""Files of ours on disk, which others must not have written.

A folder or file is *private* if it belongs to us and nobody else may write to it. Where
every user has a group of their own, as on Debian, Ubuntu and Fedora, folders are often
writable by that group: it counts as us, as it does to Debian's ssh.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

TEMPORARY = ".fusec-"
"""What names of files begin with that are being written."""

# O_NOFOLLOW refuses a link, O_NONBLOCK does not wait on a pipe: either may be planted.
_NO_TRAP = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ = os.O_RDONLY | _NO_TRAP

_TURN = 0.05
"""Seconds between looks whether a lock is free."""


def make_private(folder: Path) -> None:
    """Make a folder (mode 0700) if it is not there, and those around it.

    Raises OSError, or ValueError where it is there and is not private.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(folder)


def check_private(folder: Path) -> None:
    """Raise ValueError, with the reason, unless a folder is private; OSError where it
    is not there."""
    status = os.stat(folder)
    _check(status, stat.S_ISDIR, may_write=_is_ours_alone(status.st_gid))
    # Our own link may stand in its place, but not another user's.
    check_owned(folder)


def check_owned(path: Path) -> None:
    """Raise ValueError unless a file, or the link in its place, is ours."""
    _owned(os.lstat(path))


def read_private(path: Path, size: int = -1) -> bytes:
    """The first `size` bytes of a regular file.

    Raises ValueError, with the reason, unless it is private; OSError where it cannot be
    read, or is a link.
    """
    handle = os.open(path, _READ)
    try:
        _check(os.fstat(handle), stat.S_ISREG)
        with open(handle, "rb", closefd=False) as file:
            return file.read(size)
    finally:
        os.close(handle)


def write_private(path: Path, content: bytes) -> None:
    """Write a file (mode 0600), whole or not at all: it appears by rename."""
    handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        remove(Path(temporary))
        raise


@contextmanager
def locked(path: Path, is_late: Callable[[], bool]) -> Iterator[None]:
    """Be the only one inside, among threads and processes, by a lock on a file; where
    it gets late, or there can be no such file, go on without.

    The lock of a process that ends is gone.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_TRAP, 0o600)
    except OSError:
        yield
        return
    try:
        while not _is_locked(handle) and not is_late():
            time.sleep(_TURN)
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)  # a child of a fork may hold the file open
        os.close(handle)


def _is_locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove(path: Path) -> bool:
    """Remove a file; False where that cannot be."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _check(
    status: os.stat_result, is_kind: Callable[[int], bool], may_write: bool = False
) -> None:
    """Raise ValueError unless a file is private, and of its kind; `may_write` says
    whether its group may."""
    _owned(status)
    if not is_kind(status.st_mode):
        raise ValueError("it is another kind of file than expected")
    others = stat.S_IWOTH if may_write else stat.S_IWOTH | stat.S_IWGRP
    if status.st_mode & others:
        raise ValueError("other users may write to it; `chmod go-w` makes it safe")


def _owned(status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise ValueError(f"it belongs to another user (uid {status.st_uid})")


@cache
def _is_ours_alone(gid: int) -> bool:
    """Whether a group is our user's own: of the same name, without another member."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    own = user.pw_gid == gid and group.gr_name == user.pw_name
    return own and {*group.gr_mem} <= {user.pw_name}
