"""Graphs whose launches are captured as CUDA graphs, and replayed.

    first call      warms up: runs as it would without
    second call     is captured, and what was captured is run
    later calls     copy their arguments over those of the second, and replay

torch's own machinery does it, as Inductor has it: graphs share memory in trees, those
of the passes of a step follow each other, parameters are read where they lie, and sizes
that vary are captured value by value. A replay runs nothing of a program's host code;
the checks that a program looks at there are looked at around it. What may be captured
at all is for `frontend.capturable` to say.

An output that lies in the memory of an argument is taken of the argument of each call,
since a captured graph has copies of its arguments:

    return (x[1:], y)      captured: (None, y)      then: (x[1:], y)

But where it is kept for a backward pass, it is the copy, which stays where it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from fusec.frontend.outputs import Program
from fusec.frontend.torch_private import CudaGraphs, cuda_graphs
from fusec.logs import warn_once

_NO_GRAPHS = """nothing is captured as a CUDA graph in a thread that torch did not start
  help: call the model in the main thread, or take torch 2.13"""


class Device(Protocol):
    """Where a program runs (see `runtime.devices`)."""

    def look(self) -> None:
        """Raise what checks of earlier calls found."""
        ...

    def settle(self) -> None:
        """Raise what those of this call found, as far as that is known."""
        ...

    def is_capturing(self) -> bool:
        """Whether launches become part of a graph now, instead of running."""
        ...


@dataclass(slots=True)
class Passes:
    """What is known of the graphs that AOTAutograd derives from one of Dynamo's."""

    captured: int | None = None
    """The number of the device on which the forward pass is captured, if it is."""


@dataclass(frozen=True, slots=True)
class Capture:
    """How the launches of a graph are captured, as data."""

    device: int
    """The number of the device."""
    role: str
    static: tuple[int, ...]
    """The arguments that are where they were in each call: parameters and buffers; for
    a backward pass what its forward pass kept."""
    overwritten: tuple[int, ...]
    """The arguments that the graph writes to."""
    returned: int
    """How many outputs are for the caller; those behind them for a backward pass."""
    placeholders: tuple[Any, ...]
    """What torch says of arguments in its messages."""
    lines: tuple[str | None, ...]
    """Where the user wrote what makes each output."""

    def around(self, run: Program, count: int, device: Device) -> Program:
        """A program with `count` outputs that is captured."""
        graphs = cuda_graphs()
        if graphs is None:
            return run
        made = _Made()

        def call(arguments: list[Any]) -> list[Any]:
            device.look()
            holder = graphs.holder(self.device)
            if holder is None:
                warn_once("graph", _NO_GRAPHS)
                return run(arguments)
            if device.is_capturing():  # somebody else's graph
                return run(arguments)
            captured = made.by_holder.get(holder)
            if captured is None:
                captured = self._captured(graphs, run, count, arguments)
                made.by_holder[holder] = captured
            results = captured(arguments)
            device.settle()
            return results

        return call

    def _captured(
        self, graphs: CudaGraphs, run: Program, count: int, arguments: list[Any]
    ) -> Program:
        return graphs.captured(
            run,
            arguments,
            self.static,
            device_index=self.device,
            is_backward=self.role == "backward",
            is_inference=self.role == "inference",
            stack_traces=[*self.lines, *[None] * (count - len(self.lines))],
            placeholders=self.placeholders,
            mutated_input_idxs=self.overwritten,
        )


class _Made(threading.local):
    """What a thread captured. A thread that runs backward passes does so for others,
    and each of these has graphs of its own: in torch's holder of them."""

    def __init__(self) -> None:
        self.by_holder: WeakKeyDictionary[Any, Program] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Told:
    """Of a backward pass that is not captured, though its forward pass is: then torch's
    graphs are told of it, which wait for it to begin a new step."""

    device: int
    """The number of the device."""

    def around(self, run: Callable[..., Any]) -> Program:
        """The pass, of which they are told."""
        graphs = cuda_graphs()
        if graphs is None:
            return run

        def call(arguments: list[Any]) -> list[Any]:
            holder = graphs.holder(self.device)
            if holder is not None and holder.tree_manager is not None:
                holder.tree_manager.set_to_running_backward()
            return run(arguments)

        return call
