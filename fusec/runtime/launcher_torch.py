"""Running a recipe on torch tensors.

Every step is turned into a closure once (see `launcher_steps`); a call runs them in
order on a frame. What only kernels touch lives in an arena, one block for a call, at
offsets that tensors with separate lifetimes share. Everything else is an ordinary torch
tensor.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch

from fusec.errors import InternalError
from fusec.runtime.devices import CPU, Device
from fusec.runtime.image import Code
from fusec.runtime.launcher_steps import SEGMENT, Binder, Frame, is_watched, make, tell
from fusec.runtime.recipe import (
    BASE_SLOT,
    FLAGS_SLOT,
    STATUS_SLOT,
    Binding,
    Drop,
    Make,
    Raise,
    Recipe,
    Segment,
)
from fusec.runtime.shims import SYMBOLS


class Program:
    """A recipe bound to its code: call it with a list of arguments.

    The list is emptied, so that arguments can be freed as soon as they are used.
    """

    def __init__(
        self,
        recipe: Recipe,
        code: Code,
        callables: Mapping[str, Callable[..., Any]],
        threads: int | None = None,
        device: Device = CPU,
    ) -> None:
        self.code = code
        self.device = device
        self.count = len(recipe.results)
        """How many results a call has."""
        self.reads = tuple(dict.fromkeys(at for _, at in recipe.begin.tensors))
        """The parameters whose elements kernels read."""
        self._recipe = recipe
        self._arena = device.arena(recipe.arena) if recipe.arena else None
        self._threads = threads
        self._bindings = [(b.symbol, _reader(b)) for b in recipe.bindings]
        self._flags = device.flags(recipe)
        self._begin = tell(recipe.begin, device)
        binder = Binder(code, callables, device, bool(recipe.flags))
        self._steps = [binder.step(step) for step in recipe.steps]
        self._blank = [None] * (recipe.values - recipe.params)
        self._slots = ctypes.c_int64 * recipe.frame

    @property
    def run(self) -> Callable[[list[Any]], list[Any]]:
        """The program as it is called with the least ado; made anew at each asking, so
        that nothing holds a program but its users."""
        if _is_straight(self._recipe):
            return self._straight(self._recipe)
        return self if self._steps or self.count else _nothing

    def __call__(self, arguments: list[Any]) -> list[Any]:
        """Run the program; the results in the order of the function's yields."""
        recipe = self._recipe
        if len(arguments) != recipe.params:
            wanted = f"{recipe.params} arguments, not {len(arguments)}"
            raise InternalError(f"{recipe.name} takes {wanted}")
        sizes = {symbol: read(arguments) for symbol, read in self._bindings}
        tensors = [*arguments, *self._blank]
        arguments.clear()
        word = self.device.word(self._threads)
        frame = Frame(tensors, sizes, self._slots(), word, {})
        frame.slots[FLAGS_SLOT] = self._flags
        if self._arena is None:
            return self._run(frame)
        with self._arena.checkout() as frame.slots[BASE_SLOT]:
            return self._run(frame)

    def _straight(self, recipe: Recipe) -> Callable[[list[Any]], list[Any]]:
        """The program of one segment without sizes, in one function.

        A small graph takes as long to run as the steps around it; this leaves out what
        only others need. Whatever goes wrong, or is watched, is left to the steps.
        """
        (segment,) = recipe.steps_of(Segment)
        native = SEGMENT(self.code[segment.name])
        new_slots, threads, arena = self._slots, self._threads, self._arena
        word_of, device = self.device.word, self.device
        beyond = device.alignment - 1
        given, count = recipe.begin.tensors, recipe.params
        made = recipe.steps_of(Make)
        makes = [(make(step.form, device), step.slot) for step in made]
        order = [*range(count), *(step.at for step in made)]
        results = [order.index(at) for at in recipe.results]
        flags = slice(0, 0)
        for step in recipe.steps_of(Raise):
            flags = slice(step.slot, step.slot + len(step.messages))

        def run(arguments: list[Any]) -> list[Any]:
            if len(arguments) != count or is_watched():
                return self(arguments)
            slots = new_slots()
            for slot, k in given:
                slots[slot] = address = arguments[k].data_ptr()
                # Nothing, zeros that are nowhere, or where kernels do not read.
                if not address or address & beyond:
                    return self(arguments)
            values = arguments.copy()
            for new, slot in makes:
                tensor = new()
                values.append(tensor)
                if slot is not None:
                    slots[slot] = tensor.data_ptr()
            word = word_of(threads)
            if arena is None:
                native(slots, word)
            else:
                with arena.checkout() as slots[BASE_SLOT]:
                    native(slots, word)
            if slots[STATUS_SLOT] or any(slots[flags]):
                return self(arguments)
            arguments.clear()
            return [values[k] for k in results]

        return run

    def _run(self, frame: Frame) -> list[Any]:
        self._begin(frame)
        for step in self._steps:
            step(frame)
        if frame.moved:
            for at in frame.moved.keys() & {*self._recipe.overwritten}:
                original, copy = frame.moved[at]
                original.copy_(copy)
        return [frame.tensors[k] for k in self._recipe.results]


def _nothing(arguments: list[Any]) -> list[Any]:
    """A program without results: those of its graph are its arguments, or lie there."""
    arguments.clear()
    return []


def _is_straight(recipe: Recipe) -> bool:
    """Whether it makes tensors of known shapes, runs one segment on them that changes
    nothing else, and is done but for dropping them and raising flags."""
    kinds = [type(step) for step in recipe.steps if not isinstance(step, Drop)]
    made = recipe.steps_of(Make)
    order = [Make] * len(made) + [Segment]
    yields = {*range(recipe.params), *(step.at for step in made)} >= {*recipe.results}
    known = all(step.form.is_known for step in made)
    plain = not (recipe.bindings or recipe.overwritten or recipe.flags)
    plain = plain and yields and known
    return plain and kinds in (order, [*order, Raise])


def _reader(binding: Binding) -> Callable[[list[Any]], int]:
    """What finds the value of a symbol among the arguments."""
    param, dim = binding.param, binding.dim
    if dim is None:
        return lambda arguments: int(arguments[param])
    return lambda arguments: arguments[param].shape[dim]


@lru_cache(maxsize=1)
def exported_shims() -> Mapping[str, int]:
    """The addresses of the C functions of `runtime.shims` that this torch has."""
    # A handle's dependencies are searched too: libtorch_cpu, by whatever file name.
    library = ctypes.CDLL(torch._C.__file__)
    found = {name: getattr(library, name, None) for name in SYMBOLS}
    casts = {n: ctypes.cast(f, ctypes.c_void_p).value for n, f in found.items() if f}
    return {name: address for name, address in casts.items() if address}
