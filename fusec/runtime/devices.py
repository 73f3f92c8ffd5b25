"""Where a program runs: who gives it memory, and who launches its kernels.

    CPU               torch's memory on huge pages, arenas it keeps, torch's threads
    launcher_gpu.Gpu  torch's memory of a GPU, a stream, the driver's launches

What native code is told besides its frame is a word: on a CPU how many threads it may
take, on a GPU where the table is that has its stream and kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from fusec.runtime.image import Code
from fusec.runtime.launcher_cpu import Launcher
from fusec.runtime.memory import Arena
from fusec.runtime.recipe import ALIGNMENT, Recipe
from fusec.runtime.tensors import made, maker

Dims = tuple[int, ...]


class Blocks(Protocol):
    """Memory for what lives only during a call."""

    def checkout(self) -> AbstractContextManager[int]:
        """A block for the duration of a `with`, which binds its address."""
        ...


class Device(Protocol):
    """What a program asks of where it runs."""

    alignment: int
    """Bytes at whose multiples every tensor begins that kernels read or write."""

    def maker(
        self, shape: Dims, strides: Dims, dtype: torch.dtype
    ) -> Callable[[], torch.Tensor]:
        """What allocates tensors of one form."""
        ...

    def made(self, shape: Dims, strides: Dims, dtype: torch.dtype) -> torch.Tensor:
        """A new tensor."""
        ...

    def arena(self, nbytes: int) -> Blocks:
        """Blocks of so many bytes."""
        ...

    def flags(self, recipe: Recipe) -> int:
        """Where the flags of a program's checks lie, if not in its frame: then they are
        looked at by the device."""
        ...

    def look(self) -> None:
        """At the beginning of a call: raise what checks of earlier calls found whose
        flags lie apart."""
        ...

    def settle(self) -> None:
        """At its end: raise what its own checks found, as far as that is known."""
        ...

    def is_capturing(self) -> bool:
        """Whether launches become part of a graph now, instead of running."""
        ...

    def launcher(self, code: Code) -> Callable[[str, Any, int, int], None]:
        """What launches one kernel: its name, its arguments, programs, and the word."""
        ...

    def word(self, threads: int | None) -> int:
        """What native code is told; `threads` are those that were asked for."""
        ...


class Cpu:
    """This machine's processor."""

    alignment = 1
    maker = staticmethod(maker)
    made = staticmethod(made)
    launcher = staticmethod(Launcher)

    def arena(self, nbytes: int) -> Arena:
        return Arena(nbytes, ALIGNMENT)

    def flags(self, recipe: Recipe) -> int:
        return 0

    def look(self) -> None:
        pass

    def settle(self) -> None:
        pass

    def is_capturing(self) -> bool:
        return False

    def word(self, threads: int | None) -> int:
        return threads or torch.get_num_threads()


CPU = Cpu()
