"""Memory for large tensors and for what lives only during a call.

The kernel maps fresh memory page by page, as it is first touched. With pages of 4 KiB
that costs more than the write: filling 64 MiB took 26 ms on fresh memory, 9.9 ms on
fresh pages of 2 MiB and 6.2 ms on memory already mapped. Hence two tools:

    advise_huge(tensor.data_ptr(), nbytes)   # before the first write

    arena = Arena(plan.nbytes)               # one per compiled function
    with arena.checkout() as address:        # intermediates at fixed offsets
        run(address, ...)

An `Arena` keeps its blocks, so that from the second call on their pages are mapped.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass
from types import TracebackType

HUGE_PAGE = 2 << 20
"""Bytes of a huge page on x86-64, and of the usual one on ARM64."""

ADVISED_FROM = 2 * HUGE_PAGE
"""Bytes from which on a tensor is worth asking huge pages for."""

_MADV_HUGEPAGE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)
_C = ctypes.CDLL(None)


def advise_huge(address: int, nbytes: int) -> None:
    """Ask for huge pages under the whole pages of `[address, address + nbytes)`.

    Only a hint: ranges under 4 MiB are left alone, and a system that has no huge pages,
    or does not grant them, changes nothing.
    """
    if nbytes < ADVISED_FROM or _MADV_HUGEPAGE is None:
        return
    first = _round_up(address, mmap.PAGESIZE)
    last = (address + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    _C.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_HUGEPAGE)


class Arena:
    """Blocks of `nbytes` bytes at multiples of `alignment`, one to each call at a time.

    `alignment` is a power of two, in bytes. A block's contents are undefined. There are
    as many blocks as there ever were calls at once; they go when the arena does.
    """

    __slots__ = ("_free", "alignment", "nbytes")

    def __init__(self, nbytes: int, alignment: int = 64) -> None:
        if nbytes < 0 or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"no block of {nbytes} bytes aligned to {alignment}")
        self.nbytes = nbytes
        self.alignment = alignment
        # `pop` and `append` are atomic, and unlike a lock cannot be inherited held by
        # the child of a fork.
        self._free: list[_Block] = []

    def checkout(self) -> Checkout:
        """A block for the duration of a `with`, which binds its address.

        Entering it raises `MemoryError` where there is no block left and no memory.
        """
        return Checkout(self)

    def _take(self) -> _Block:
        try:
            return self._free.pop()
        except IndexError:
            return _allocate(self.nbytes, self.alignment)

    def _give_back(self, block: _Block) -> None:
        self._free.append(block)


class Checkout:
    """The loan of one block of an `Arena`.

    A class because every call pays for it: `@contextmanager` takes twice the time.
    """

    __slots__ = ("_arena", "_block")

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    def __enter__(self) -> int:
        self._block = self._arena._take()
        return self._block.address

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._arena._give_back(self._block)


@dataclass(frozen=True, slots=True)
class _Block:
    address: int
    memory: mmap.mmap  # unmapped when the last block on it goes


def _allocate(nbytes: int, alignment: int) -> _Block:
    if nbytes >= ADVISED_FROM:
        alignment = max(alignment, HUGE_PAGE)
    slack = alignment if alignment > mmap.PAGESIZE else 0
    try:
        # Private: the default, shared, would be one memory with a forked child.
        memory = mmap.mmap(
            -1, max(1, nbytes + slack), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
    except (OSError, OverflowError) as error:
        raise MemoryError(
            f"cannot allocate {nbytes:,} bytes for the intermediates of one call"
        ) from error
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    address = _round_up(start, alignment)
    advise_huge(address, nbytes)
    return _Block(address, memory)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
