"""Programs that are given, besides their arguments, what was once made of some.

    program(x, w)  =  main(x, w, *once(x, w))        once runs when w has changed

A tensor has changed if it is another object, lies elsewhere, or was written to: torch
counts that in its version, whether an optimizer writes, `load_state_dict` or anybody
else. Writes that it does not count, through `w.data`, `w.numpy()` or a pointer, must be
told: `weights_changed()`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch

from fusec.logs import warn_once
from fusec.runtime.launcher_torch import Program

_UNCOUNTED = """frozen weights were made in inference mode, where torch does not count
writes to them: what is kept of them is made anew in each call
  help: make or load the model outside of torch.inference_mode()"""

_changes = count(1)
_change = 0


def weights_changed() -> None:
    """Tell that weights which `freeze` keeps packed were written to in a way that torch
    does not count: through `.data`, through numpy or a pointer.

    Programs pack them anew when they are next called.
    """
    global _change
    _change = next(_changes)


@dataclass(frozen=True, slots=True)
class _Watch:
    """One tensor as it was."""

    at: int
    """Which argument it is."""
    tensor: Any
    """A weak reference to it: whoever owns it may let it go."""
    memory: torch.Tensor
    """An alias: while this lives no other tensor lies where it does."""
    address: int
    version: int

    def holds(self, arguments: Sequence[Any]) -> bool:
        x = arguments[self.at]
        return (
            x is self.tensor()
            and x._version == self.version
            and x.data_ptr() == self.address
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was made of tensors as they were."""

    change: int
    watches: tuple[_Watch, ...]
    tensors: tuple[Any, ...]

    def holds(self, arguments: Sequence[Any]) -> bool:
        return self.change == _change and all(
            watch.holds(arguments) for watch in self.watches
        )


class Keeping:
    """A program, and the one that makes what it is given besides its arguments."""

    def __init__(self, main: Program, once: Program) -> None:
        self.count = main.count
        self._main = main
        self._once = once
        self._kept: _Kept | None = None

    @property
    def run(self) -> Callable[[list[Any]], list[Any]]:
        """The program as it is called with the least ado."""
        main = self._main.run

        def run(arguments: list[Any]) -> list[Any]:
            arguments += self._tensors(arguments)
            return main(arguments)

        return run

    def __call__(self, arguments: list[Any]) -> list[Any]:
        """Run the program; the results in the order of the function's yields."""
        arguments += self._tensors(arguments)
        return self._main(arguments)

    def _tensors(self, arguments: list[Any]) -> tuple[Any, ...]:
        kept = self._kept
        if kept is not None and kept.holds(arguments):
            return kept.tensors
        self._kept = kept = None  # before there is room for more
        change, watched = _change, [arguments[at] for at in self._once.reads]
        counted = not any(x.is_inference() for x in watched)
        watches = tuple(map(_watch, self._once.reads, watched)) if counted else ()
        tensors = tuple(self._once(list(arguments)))
        if counted:
            self._kept = _Kept(change, watches, tensors)
        else:
            warn_once("graph", _UNCOUNTED)
        return tensors


def _watch(at: int, x: torch.Tensor) -> _Watch:
    return _Watch(at, weakref.ref(x), x.detach(), x.data_ptr(), x._version)
