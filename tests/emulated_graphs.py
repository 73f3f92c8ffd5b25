"""CUDA graphs on the device of `emulated_device`, with torch's manager replaced.

    with graphs_of(driver) as graphs:
        f(x), f(x), f(x)                 # warms up, is captured, is replayed
    graphs.captures, graphs.replays      # 1, 1

It does what that manager promises of a function: it is run once to warm up, and then
once to be captured, on copies of the arguments that are not static, with nothing
running; afterwards copies are made over these, and what was captured runs, on memory
that holds anything. Other static addresses are captured anew. What writes to arguments
that are neither static nor come from another graph is not captured.

The rest is torch's: `cudagraphify_impl`, its keys of sizes, its check of mutations.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import emulated_device
import torch
from emulated import EmulatedDriver
from torch import Tensor
from torch._inductor import cudagraph_trees
from torch._inductor.cudagraph_utils import (
    FunctionID,
    WrappedFunction,
    check_for_mutation,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fusec.frontend import capturable

SIDE = 7
"""The stream that graphs are captured on."""


@dataclass
class Graphs:
    """What was captured, and how often."""

    driver: EmulatedDriver
    modes: list[str] = field(default_factory=list)
    """Of each function that was wrapped."""
    plain: int = 0
    """Calls that were not to be captured."""
    warm: int = 0
    captures: int = 0
    replays: int = 0
    pool: dict[int, Tensor] = field(default_factory=dict)
    """Results of graphs, by their addresses, which are never used again."""

    def cudagraphify(
        self,
        model: Callable[[list[Any]], list[Any]],
        inputs: list[Any],
        static_input_idxs: Sequence[int] = (),
        *,
        device_index: int,
        is_backward: bool,
        is_inference: bool,
        stack_traces: Sequence[str | None] | None = None,
        constants: Sequence[Tensor] = (),
        placeholders: Sequence[Any] = (),
        mutated_input_idxs: Sequence[int] = (),
        compile_id: Any = None,
    ) -> tuple[Callable[[list[Any]], list[Any]], list[Any]]:
        assert device_index == 0
        assert len(placeholders) == len(inputs)
        self.modes.append(
            "backward" if is_backward else "inference" if is_inference else "forward"
        )
        function = WrappedFunction(
            model,
            list(static_input_idxs),
            FunctionID(len(self.modes)),
            tuple(constants),
            placeholders,
            mutated_input_idxs,
        )
        captured = Captured(self, function, stack_traces or ())
        return captured, captured(inputs)

    def owns(self, x: Any) -> bool:
        """Whether a tensor is the result of a graph."""
        return isinstance(x, Tensor) and _address(x) in self.pool


@dataclass
class Recording:
    """A function as it was captured."""

    buffers: list[Any]
    """Its arguments: copies, where they are not static."""
    static: dict[int, int | None]
    """The addresses of those that are."""
    tape: Tape
    results: list[Any]

    def fits(self, inputs: Sequence[Any]) -> bool:
        return all(_place(inputs[k]) == at for k, at in self.static.items())

    def replay(self, inputs: list[Any]) -> list[Any]:
        for k, x in enumerate(inputs):
            if k not in self.static and isinstance(x, Tensor):
                self.buffers[k].copy_(x)
        inputs.clear()
        self.tape.play()
        return [x.detach() if isinstance(x, Tensor) else x for x in self.results]


@dataclass
class Captured:
    """A function that is captured when it has been run once."""

    graphs: Graphs
    function: WrappedFunction
    traces: Sequence[str | None]
    is_warm: bool = False
    recordings: list[Recording] = field(default_factory=list)

    def __call__(self, inputs: list[Any]) -> list[Any]:
        graphs = self.graphs
        with torch.no_grad():
            if check_for_mutation(self.function, inputs, graphs.owns):
                graphs.plain += 1
                return self.function.model(inputs)
            if not self.is_warm:
                self.is_warm = True
                graphs.warm += 1
                return self._run(inputs)
            for recording in self.recordings:
                if recording.fits(inputs):
                    graphs.replays += 1
                    return recording.replay(inputs)
            return self._capture(inputs)

    def _run(self, inputs: list[Any]) -> list[Any]:
        driver = self.graphs.driver
        with patch.object(driver, "current", SIDE):
            results = self.function.model(inputs)
        assert not inputs
        assert len(results) == len(self.traces)
        return results

    def _capture(self, inputs: list[Any]) -> list[Any]:
        driver, graphs = self.graphs.driver, self.graphs
        managed = {k for k, x in enumerate(inputs) if graphs.owns(x)}
        kept = managed.union(self.function.static_input_idxs)
        static = {k: _place(inputs[k]) for k in kept}
        buffers = [x if k in static else _copied(x) for k, x in enumerate(inputs)]
        given, tape = list(buffers), Tape([])
        with torch.random.fork_rng([]), patch.object(driver, "tape", tape.steps), tape:
            results = self._run(given)
        for x in results:
            assert isinstance(x, (Tensor, int, type(None)))
            if isinstance(x, Tensor):
                assert x.device.type == emulated_device.NAME
                graphs.pool[_address(x)] = x
        graphs.captures += 1
        self.recordings.append(Recording(buffers, static, tape, results))
        return self.recordings[-1].replay(inputs)


class Tape(TorchDispatchMode):
    """Notes what torch does, in the list that launches are noted in. Of results, whose
    memory stays, there is nothing to be seen yet."""

    def __init__(self, steps: list[Callable[[], Any]]) -> None:
        super().__init__()
        self.steps = steps
        self.made: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        writes = func._schema.is_mutable and any(x.device.type != "cpu" for x in given)
        results = args[0] if writes else func(*args, **kwargs)
        leaves = tree_leaves(results)
        if not all(isinstance(x, (Tensor, type(None))) for x in leaves):
            raise RuntimeError(f"{func}: not permitted when stream is capturing")
        kinds = {x.device.type for x in (*given, *leaves) if x is not None}
        if kinds == {"cpu"}:
            return results  # the host's, which no replay does again
        moves = func.overloadpacket in (aten._to_copy, aten.copy_)
        if "cpu" in kinds and (moves or any(x.dim() for x in given if x.is_cpu)):
            raise RuntimeError(f"{func}: a graph would wait for the CPU")
        if writes:
            self.steps.append(partial(func, *args, **kwargs))
        elif not func.is_view:
            self.made += [x for x in leaves if isinstance(x, Tensor)]
            if func.overloadpacket not in ALLOCATING:
                again = partial(func, *args, **kwargs)
                self.steps.append(partial(_redo, again, leaves))
        return results

    def play(self) -> None:
        """Do it again, where memory holds anything: NaN, and -1."""
        for x in self.made:
            ctypes.memset(_address(x), 0xFF, x.untyped_storage().nbytes())
        for step in self.steps:
            step()


aten = torch.ops.aten
ALLOCATING = aten.empty, aten.empty_strided, aten.new_empty, aten.new_empty_strided


def _redo(call: Callable[[], Any], before: Sequence[Tensor | None]) -> None:
    for old, new in zip(before, tree_leaves(call()), strict=True):
        if old is not None:
            old.copy_(new)


def _copied(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    made = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
    return made.copy_(x)


def _place(x: Any) -> int | None:
    return x.data_ptr() if isinstance(x, Tensor) else None


def _address(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


@contextmanager
def graphs_of(driver: EmulatedDriver) -> Iterator[Graphs]:
    """What is captured on the emulated device meanwhile."""
    graphs = Graphs(driver)
    cudagraph_trees.reset_cudagraph_trees()
    with (
        patch.object(capturable, "KIND", emulated_device.NAME),
        patch.object(cudagraph_trees, "cudagraphify", graphs.cudagraphify),
    ):
        yield graphs
    cudagraph_trees.reset_cudagraph_trees()
