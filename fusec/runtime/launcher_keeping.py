"""Programs that are given, besides their arguments, what was once made of some.

    program(x, w)  =  main(x, w, *once(x, w))        once runs when w has changed

A tensor has changed if it is another object, lies elsewhere, or was written to: torch
counts that in its version, whether an optimizer writes, `load_state_dict` or anybody
else. Some of torch's own kernels are not counted (those of fused optimizers, the
statistics of BatchNorm), nor are writes through `w.data`: what changes a tensor
throughout is seen in a few of its bytes. Other writes that are not counted, of single
elements through `w.data`, `w.numpy()` or a pointer, must be told: `weights_changed()`.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch

from fusec.logs import warn_once
from fusec.runtime.launcher_torch import Program

_UNCOUNTED = """frozen weights were replaced by such as were made in inference mode, to
which torch does not count writes: what is kept of them is made anew in each call
  help: make or load the model outside of torch.inference_mode()"""

SAMPLES, SAMPLE = 4, 64
"""How many samples of a tensor are compared in each call, and their bytes."""

_changes = count(1)
_change = 0


def weights_changed() -> None:
    """Tell that weights which `freeze` keeps packed were written to in a way that torch
    does not count: single elements through `.data`, through numpy or a pointer.

    Programs pack them anew when they are next called.
    """
    global _change
    _change = next(_changes)


@dataclass(frozen=True, slots=True)
class _Watch:
    """One tensor as it was."""

    at: int
    """Which argument it is."""
    memory: torch.Tensor
    """An alias: while this lives no other tensor lies where it does. There is no weak
    reference to the tensor itself: `swap_tensors` refuses those that have one."""
    address: int
    version: int
    samples: tuple[tuple[int, bytes], ...]
    """Some of its bytes, by their addresses."""

    @staticmethod
    def of(at: int, x: torch.Tensor) -> _Watch:
        samples = tuple((a, ctypes.string_at(a, n)) for a, n in _places(x))
        return _Watch(at, x.detach(), x.data_ptr(), x._version, samples)

    def holds(self, arguments: Sequence[Any]) -> bool:
        x = arguments[self.at]
        return (
            x._version == self.version
            and x.data_ptr() == self.address
            and all(ctypes.string_at(a, len(b)) == b for a, b in self.samples)
        )


def _places(x: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Where samples of a tensor lie, and how long they are; all of a small one."""
    if not x.numel():
        return
    steps = zip(x.shape, x.stride(), strict=True)
    size = (sum((n - 1) * s for n, s in steps) + 1) * x.itemsize
    if size <= SAMPLES * SAMPLE:
        yield x.data_ptr(), size
        return
    for k in range(SAMPLES):
        yield x.data_ptr() + (size - SAMPLE) * k // (SAMPLES - 1), SAMPLE


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
    """A program, and the one that makes what it is given besides its arguments.

    Modules of the same code share programs: what is made is kept for each set of
    weights. That of weights which are gone goes when any program makes something anew,
    or a graph is compiled.
    """

    def __init__(self, main: Program, once: Program) -> None:
        self.count = main.count
        self._main = main
        self._once = once
        self._kept: dict[tuple[int, ...], _Kept] = {}
        """By the identities of the tensors that it was made of."""
        forget_what_is_gone()
        with _lock:
            _programs.add(self)

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
        key = tuple([id(arguments[at]) for at in self._once.reads])
        kept = self._kept.get(key)
        if kept is not None and kept.holds(arguments):
            return kept.tensors
        self._kept.pop(key, None)
        kept = None  # before there is room for more
        return self._made(key, arguments)

    def _made(self, key: tuple[int, ...], arguments: list[Any]) -> tuple[Any, ...]:
        forget_what_is_gone()
        change, watched = _change, [(at, arguments[at]) for at in self._once.reads]
        if any(x.is_inference() for _, x in watched):
            warn_once("graph", _UNCOUNTED)
            return tuple(self._once(list(arguments)))
        watches = tuple(_Watch.of(at, x) for at, x in watched)
        tensors = tuple(self._once(list(arguments)))
        self._kept[key] = _Kept(change, watches, tensors)
        return tensors


def forget_what_is_gone() -> None:
    """Let go of what was made of memory that nobody else holds."""
    with _lock:
        programs = [*_programs]
    found = [(p, key, kept) for p in programs for key, kept in [*p._kept.items()]]
    storages = [w.memory.untyped_storage() for *_, kept in found for w in kept.watches]
    ours = Counter(storage._cdata for storage in storages)
    # Each of our aliases holds one, and Python's object, of which there is one here.
    alone = {s for s, n in ours.items() if torch._C._storage_Use_Count(s) <= n + 1}
    for program, key, kept in found:
        held = {w.memory.untyped_storage()._cdata for w in kept.watches}
        if not alone.isdisjoint(held):
            program._kept.pop(key, None)


_programs: weakref.WeakSet[Keeping] = weakref.WeakSet()
"""Those that keep something."""
_lock = threading.Lock()
"""Held while they are listed: threads compile side by side."""
