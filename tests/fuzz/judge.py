"""What a program does compiled by fusec, compared with eager torch.

A verdict is "ok", "skip" for a program that is no test of anything, or a kind of
failure, with a message. Every graph is verified stage by stage against the interpreter
(`verify=True`), and results, arguments, strides, memory and gradients are compared with
eager's: in every bit where the trust in them is exact.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz.execute import Execution, execute
from fuzz.programs import Program
from fuzz.trust import Trust, Untrusted
from torch._dynamo.backends.debugging import aot_eager

from fusec.compiler import compile_graph
from fusec.errors import VerificationError
from fusec.frontend.aten_graph import compile_aten_graph
from fusec.frontend.capture import compile_dynamo_graph
from fusec.frontend.compiled import Made
from fusec.frontend.intake import Imported
from fusec.ir.printer import format_function
from fusec.options import Options
from fusec.runtime.arrays import to_array


@dataclass(frozen=True, slots=True)
class Verdict:
    kind: str
    message: str = ""
    graph: str = ""
    """The graph that went wrong, as IR."""
    arguments: tuple[Any, ...] = ()
    """Its arguments, as arrays."""

    @property
    def failed(self) -> bool:
        return self.kind not in ("ok", "skip")


class _Wrong(Exception):
    """A difference, by its kind."""


class _Watch:
    """The backend under test; it remembers the last graph that began to run."""

    def __init__(self, program: Program) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="fusec-fuzz-")
        self.options = Options.from_mapping(
            {**program.options(), "cache": False, "cache_dir": self.folder.name}
        )
        self.error: Exception | None = None
        self.graph = ""
        self.arguments: tuple[Any, ...] = ()

    def __call__(self, gm: torch.fx.GraphModule, examples: Sequence[Any]) -> Any:
        chosen = {"compile": self._compile, "options": self.options}
        return compile_dynamo_graph(gm, examples, partial(compile_aten_graph, **chosen))

    def _compile(self, imported: Imported) -> Made:
        self.graph, self.arguments = format_function(imported.function), ()
        try:
            program = compile_graph(imported, self.options).program
        except Exception as error:
            self.error = error
            raise

        def run(arguments: list[Any]) -> list[Any]:
            self.graph = format_function(imported.function)
            self.arguments = tuple(map(_kept, arguments))
            return program(arguments)

        return Made(run)

    def bug(self) -> str:
        """What went wrong while compiling, which torch does not tell; "" if nothing."""
        if self.error is not None:
            return "".join(traceback.format_exception(self.error))
        written = [p.read_text() for p in Path(self.folder.name).glob("reproducers/*")]
        return "\n".join(written)


def _kept(argument: Any) -> Any:
    return (
        np.array(to_array(argument)) if isinstance(argument, torch.Tensor) else argument
    )


def judge(program: Program) -> Verdict:
    """Run a program both ways."""
    try:
        wanted = [execute(call) for call in program.calls()]
    except Untrusted:
        return Verdict("skip")
    watch = _Watch(program)
    try:
        _compare(program, wanted, watch)
    except _Wrong as wrong:
        if torch_fails(program):
            return Verdict("skip")
        return _failure("wrong", str(wrong), watch)
    except VerificationError as error:
        return _failure("verify", str(error), watch)
    except Exception as error:
        if torch_fails(program):
            return Verdict("skip")
        text = "".join(traceback.format_exception(error))
        return _failure(f"raised {type(error).__name__}", text, watch)
    if watch.bug():
        last = watch.bug().strip().splitlines()[-1].partition(":")[0]
        kind = (
            f"bug {type(watch.error).__name__}" if watch.error else f"bug {last[:40]}"
        )
        return _failure(kind, watch.bug(), watch)
    return Verdict("ok")


def torch_fails(program: Program) -> bool:
    """Whether AOTAutograd does so too, whatever compiles its graphs.

    Made functional, what writes in place may round or lie in memory otherwise.
    """
    try:
        wanted = [execute(call) for call in program.calls()]
        _compare(program, wanted, aot_eager)
    except Exception:
        return True
    return False


def _failure(kind: str, message: str, watch: _Watch) -> Verdict:
    return Verdict(kind, message, watch.graph, watch.arguments)


def _compare(
    program: Program, wanted: Sequence[Execution], backend: Callable[..., Any]
) -> None:
    run = compiled(program, backend)
    for call, theirs in zip(program.calls(), wanted, strict=True):
        _compare_call(call, theirs, run)


def _compare_call(program: Program, wanted: Execution, run: Callable[..., Any]) -> None:
    arguments = program.arguments()
    results = run(*arguments)
    expected_arguments = [wanted.values[each.name] for each in program.inputs]
    expected = [wanted.values[name] for name in program.results]
    # torch gives what was written to, made functional, the strides of what wrote it,
    # and guesses those of what is computed from elements that overlap.
    laid = all(step.rule != "written" for step in program.steps)
    laid &= all(each.form != "overlapping" for each in program.inputs)
    for name, got in zip(program.results, results, strict=True):
        _same(name, got, wanted.values[name], wanted.trusts[name], laid)
    for each, got in zip(program.inputs, arguments, strict=True):
        trust = wanted.trusts[each.name]
        _same(each.name, got, wanted.values[each.name], trust)
    _same_memory((*results, *arguments), (*expected, *expected_arguments))
    if program.mode == "backward":
        slack = _gradient_slack(program, wanted)
        _same_gradients(slack, results, arguments, expected, expected_arguments)


def compiled(program: Program, backend: Callable[..., Any]) -> Callable[..., Any]:
    """The program's function through fusec; "direct" spares Dynamo's time."""
    f = program.function()
    if program.mode in ("direct", "backward"):
        return _direct(f, program, backend)
    torch._dynamo.reset()
    dynamic = program.mode == "dynamic"
    return torch.compile(f, backend=backend, dynamic=dynamic, fullgraph=True)


def _direct(f: Any, program: Program, backend: Callable[..., Any]) -> Any:
    @cache
    def made() -> Callable[..., Any]:
        gm = torch.fx.symbolic_trace(f)
        return backend(gm, program.arguments())

    def call(*arguments: torch.Tensor) -> Any:
        return made()(*arguments)

    return call if program.mode == "backward" else torch.no_grad()(call)


def _same(
    name: str, got: Any, want: torch.Tensor, trust: Trust, laid: bool = True
) -> None:
    got, want = got.detach(), want.detach()
    if (got.dtype, got.shape) != (want.dtype, want.shape):
        raise _Wrong(
            f"{name} is {got.dtype} {got.shape}, not {want.dtype} {want.shape}"
        )
    if want.numel() and laid and _steps(got) != _steps(want):
        raise _Wrong(f"{name} has strides {got.stride()}, not {want.stride()}")
    bad = _differing(got, want, trust)
    if bad.any():
        at = tuple(bad.nonzero()[0].tolist())
        pair = f"{got[at].item()}, not {want[at].item()}"
        count = int(bad.sum())
        raise _Wrong(f"{name}{list(at)} is {pair} ({count} of {bad.numel()} differ)")


def _steps(x: torch.Tensor) -> list[int]:
    """The strides that anybody can notice: those along more than one element."""
    return [s for s, n in zip(x.stride(), x.shape, strict=True) if n > 1]


def _differing(got: torch.Tensor, want: torch.Tensor, trust: Trust) -> torch.Tensor:
    if not want.is_floating_point():
        return got != want
    same = (got == want) | (got.isnan() & want.isnan())
    if trust.signed and trust.exact:
        same &= (got.signbit() == want.signbit()) | got.isnan()
    if not trust.exact:
        same |= (got.double() - want.double()).abs() <= 2 * trust.error
    return ~same


def _same_memory(got: Sequence[Any], want: Sequence[Any]) -> None:
    """Whoever shares memory in the compiled call does in eager's."""
    for k, groups in enumerate(zip(_sharing(got), _sharing(want), strict=True)):
        ours, theirs = groups
        if not ours <= theirs:
            raise _Wrong(f"result {k} shares memory with {ours}, not {theirs}")


def _sharing(tensors: Sequence[torch.Tensor]) -> list[set[int]]:
    """Of each tensor, the others that lie in its memory."""
    places = [
        x.untyped_storage().data_ptr() if x.untyped_storage().nbytes() else None
        for x in tensors
    ]
    return [
        {k for k, other in enumerate(places) if place and k != own and other == place}
        for own, place in enumerate(places)
    ]


def _gradient_slack(program: Program, wanted: Execution) -> float:
    """How far gradients may be apart, for each unit of their size.

    Where numerics are "fast", eager alone rounds what lies between to few bits.
    """
    floats = [x.dtype for x in wanted.values.values() if x.is_floating_point()]
    coarsest = max((torch.finfo(dtype).eps for dtype in floats), default=0.0)
    fast = program.options().get("numerics") == "fast"
    return max(1e-3, 16 * coarsest) if fast else 1e-3


def _same_gradients(slack: float, *calls: Sequence[torch.Tensor]) -> None:
    results, arguments, expected, expected_arguments = calls
    try:
        theirs = _gradients(expected, expected_arguments)
    except RuntimeError:  # torch has no derivative
        return
    ours = _gradients(results, arguments)
    for k, (got, want) in enumerate(zip(ours, theirs, strict=True)):
        if want is None or not want.isfinite().all() or want.abs().max() > 1e3:
            continue
        if got is None or got.shape != want.shape:
            raise _Wrong(f"gradient {k} is {got}")
        gap = (got.double() - want.double()).abs().max()
        if not gap <= slack * max(1.0, float(want.abs().max())):
            raise _Wrong(f"gradient {k} differs by {float(gap)}")


def _gradients(results: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    total = [x.double().sum() for x in results if x.requires_grad]
    leaves = [x for x in arguments if x.requires_grad]
    if not total or not leaves:
        return []
    found = torch.autograd.grad(sum(total), leaves, allow_unused=True)
    return [x for x in found if x is None or x.numel()]
