"""A compiled graph as AOTAutograd keeps it: what runs, and what of it can be pickled.

torch's cache of AOTAutograd's work, and its ahead-of-time packages, hold the graphs
that a backend made. Such an entry has everything but the addresses of the process that
wrote it: the program as data (its plan and its object code) and what its outputs are.
Reading one back skips both AOTAutograd and fusec.

torch pickles entries, and trusts its folder. What is ours in one is bytes with a digest
of their own, so that machine code with a flipped bit is never run.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Protocol

import torch

from fusec.frontend.cudagraphs import Capture, Told
from fusec.frontend.outputs import Output, Program, apart, deliver
from fusec.frontend.torch_private import (
    BypassAOTAutogradCache,
    OutputCode,
    unset_fake_temporarily,
)

_DIGEST = hashlib.sha256().digest_size
"""Bytes in front of the payload."""


class Artifact(Protocol):
    """A program as data."""

    def load(self) -> Program:
        """The program, ready to run in this process."""
        ...


@dataclass(frozen=True, slots=True)
class Made:
    """What a compiler makes of a graph."""

    program: Program
    artifact: Artifact | None = None
    """The program as data, if it can be kept."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What an entry has of a graph."""

    artifact: Artifact
    outputs: Sequence[Output]
    backward: bool
    negated: bool
    capture: Capture | Told | None = None


def compiled(
    made: Made,
    outputs: Sequence[Output],
    *,
    backward: bool = False,
    negated: bool = False,
    capture: Capture | Told | None = None,
) -> Program:
    """A boxed callable for a graph whose outputs a program computes.

    Arguments may come as lazy negations of their memory where they may be `negated`. It
    can be pickled by way of the `CompiledGraph` that it wraps, if there is an artifact.
    """
    call = _assembled(made.program, outputs, backward, negated, capture)
    if made.artifact is None:
        return boxed(call, CompiledGraph())
    kept = Kept(made.artifact, outputs, backward, negated, capture)
    return boxed(call, CompiledGraph(kept))


def boxed(run: Program, graph: CompiledGraph) -> Program:
    """A program that AOTAutograd may call with a list of arguments, and keep.

    It looks for marks on the callable itself, not on its class.
    """
    call: Any = run if isinstance(run, FunctionType) else lambda values: run(values)
    call._boxed_call = True
    call.__wrapped__ = graph
    return call


class CompiledGraph(OutputCode):
    """What AOTAutograd pickles in place of a callable, and calls once it is read back.

    It goes into the cache as bytes, and comes out so; `post_compile` makes it run.
    """

    def __init__(self, kept: Kept | None = None) -> None:
        self._boxed_call = True
        self._kept = kept
        self._run: Program | None = None
        self._bytes = b""

    def __call__(self, inputs: Any) -> Any:
        """Run the graph on a list of arguments, which it empties."""
        assert self._run is not None, "post_compile was not called"
        return self._run(inputs)

    def prepare_for_serialization(self) -> None:
        """Turn into bytes. Raises what torch takes for "cannot be cached"."""
        if self._bytes:
            return
        if self._kept is None:
            raise BypassAOTAutogradCache("fusec did not compile this graph")
        try:
            payload = pickle.dumps(self._kept, pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            what = "fusec cannot keep a graph that calls what only this process has"
            raise BypassAOTAutogradCache(f"{what}: {error}") from error
        self._bytes = hashlib.sha256(payload).digest() + payload

    def __reduce__(self) -> tuple[Callable[..., CompiledGraph], tuple[bytes]]:
        self.prepare_for_serialization()
        return _revived, (self._bytes,)

    def post_compile(self, *_: Any, **__: Any) -> None:
        """Load the program into this process."""
        with unset_fake_temporarily():  # constants are real
            kept = pickle.loads(self._bytes[_DIGEST:])
        program = kept.artifact.load()
        how = kept.outputs, kept.backward, kept.negated, kept.capture
        self._run = _assembled(program, *how)

    def set_triton_bundle(self, triton_bundle: Any) -> None:
        """There is none."""


def _revived(data: bytes) -> CompiledGraph:
    """Raises ValueError where the bytes are not as written: torch then goes without."""
    if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
        raise ValueError("a compiled graph was damaged: its digest does not match")
    graph = CompiledGraph()
    graph._bytes = data
    return graph


def _assembled(
    program: Any,
    outputs: Sequence[Output],
    backward: bool,
    negated: bool,
    capture: Capture | Told | None,
) -> Program:
    resolving = _resolving(program) if negated else program
    if not isinstance(capture, Capture):
        run = deliver(resolving, outputs, gradients=backward)
        return capture.around(run) if capture else run
    within, ended = apart(outputs, capture.returned)
    run = deliver(resolving, within, gradients=backward)
    return ended(capture.around(run, len(within), program.device))


def _resolving(program: Program) -> Program:
    """The program for arguments of which some may be lazy negations of their memory."""
    program = getattr(program, "run", program)

    def run(arguments: list[Any]) -> list[Any]:
        for k, x in enumerate(arguments):
            if isinstance(x, torch.Tensor) and x.is_neg():
                arguments[k] = _resolved(x)
        return program(arguments)

    return run


def _resolved(x: torch.Tensor) -> torch.Tensor:
    """A lazy negation as memory, with the strides that it has."""
    memory = torch.ops.aten._neg_view(x)
    reach = sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    line = memory.as_strided((reach + 1 if x.numel() else 0,), (1,))
    return (-line).as_strided(x.shape, x.stride())
