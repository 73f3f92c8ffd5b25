"""One case, run by eager torch and by fusec.

The samples of a case are compiled into one graph, as compiling takes longer than
running; where that does not go well, one by one, so that none hides another. What
`aot_eager` does no better is no fault of fusec's.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from opinfo.cases import GRADIENT, INPLACE, Case, Sample, entries, samples
from opinfo.compare import References, different
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from fusec.compiler import compile_graph
from fusec.frontend.aten_graph import compile_aten_graph
from fusec.frontend.capture import compile_dynamo_graph
from fusec.frontend.intake import Imported
from fusec.ir.ops.extern import Extern
from fusec.logs import forget_warnings, logger
from fusec.options import Options

RIGHT, WRONG, FAILED, EXCUSED, SKIPPED = (
    "right",
    "wrong",
    "failed",
    "excused",
    "skipped",
)
"""Equal to eager; not equal; an error or a bug of fusec's; `aot_eager` does no better;
eager torch refuses all samples."""

WHOLE_GRAPH = "(the whole graph)"

CAPTURE_ALL = {
    "capture_scalar_outputs": True,
    "capture_dynamic_output_shape_ops": True,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case."""

    verdict: str
    detail: str = ""
    externs: tuple[str, ...] = ()
    """The ops that ran through ATen, by overload."""

    @property
    def bad(self) -> bool:
        return self.verdict in (WRONG, FAILED)


@dataclass(slots=True)
class Watched:
    """fusec as a backend that remembers what it compiled and what it said."""

    options: Options
    graphs: list[Imported] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __call__(self, gm: Any, example_inputs: Sequence[Any]) -> Any:
        compile = partial(
            compile_aten_graph, compile=self._compile, options=self.options
        )
        return compile_dynamo_graph(gm, example_inputs, compile)

    def _compile(self, imported: Imported) -> Any:
        self.graphs.append(imported)
        return compile_graph(imported, self.options)

    @property
    def bugs(self) -> list[str]:
        return [text for text in self.said if text.startswith("internal error")]

    @property
    def externs(self) -> tuple[str, ...]:
        found = {thing.what for graph in self.graphs for thing in graph.fallbacks}
        for graph in self.graphs:
            calls = (op for op in graph.function.body.ops if isinstance(op, Extern))
            # Those without a name in torch are in `fallbacks`, or hold constants.
            found |= {op.target for op in calls if "#" not in op.target}
        if any(text.startswith("this") for text in self.said):
            found.add(WHOLE_GRAPH)
        return tuple(sorted(found))


class _Listener(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


@contextmanager
def watched() -> Iterator[Watched]:
    """A fresh backend, in a fresh torch.compile."""
    torch._dynamo.reset()
    forget_warnings()
    with tempfile.TemporaryDirectory() as folder:
        backend = Watched(Options(cache=False, cache_dir=Path(folder)))
        listener = _Listener(backend.said)
        logger("graph").addHandler(listener)
        try:
            with torch._dynamo.config.patch(CAPTURE_ALL):
                yield backend
        finally:
            logger("graph").removeHandler(listener)


def check(case: Case, count: int) -> Outcome:
    """Run `count` samples of a case."""
    chosen = [s for s in samples(case, count) if _runs(case, s)]
    if not chosen:
        return Outcome(SKIPPED)
    together = _attempt(case, chosen)
    if not together.bad:
        return together
    one_by_one = [_excused(case, s, _attempt(case, [s])) for s in chosen]
    return _worst(one_by_one)


def _worst(outcomes: Sequence[Outcome]) -> Outcome:
    order = (RIGHT, EXCUSED, WRONG, FAILED)
    worst = max(outcomes, key=lambda outcome: order.index(outcome.verdict))
    externs = {name for outcome in outcomes for name in outcome.externs}
    return replace(worst, externs=tuple(sorted(externs)))


def _runs(case: Case, sample: Sample) -> bool:
    try:
        _evaluate(case, _calls, [sample])
    except Exception:
        return False
    return True


def _attempt(case: Case, chosen: Sequence[Sample]) -> Outcome:
    with watched() as backend:
        try:
            found = _difference(case, chosen, backend)
        except Exception as error:
            if not backend.bugs:
                return Outcome(FAILED, _brief(error), backend.externs)
            found = ""
        if backend.bugs:
            return Outcome(FAILED, backend.bugs[0], backend.externs)
        return Outcome(WRONG if found else RIGHT, found, backend.externs)


def _excused(case: Case, sample: Sample, outcome: Outcome) -> Outcome:
    """The outcome of one sample, weighed against that of `aot_eager`."""
    if not outcome.bad or "internal error" in outcome.detail:
        return outcome
    torch._dynamo.reset()
    try:
        with torch._dynamo.config.patch(CAPTURE_ALL):
            fails = bool(_difference(case, [sample], "aot_eager"))
    except Exception:
        fails = True
    return replace(outcome, verdict=EXCUSED) if fails else outcome


def _difference(case: Case, chosen: Sequence[Sample], backend: Any) -> str:
    """How the compiled samples differ from eager's; "" if they do not."""

    def compiled(calls: Any, arguments: Any) -> Any:
        def together(arguments: Any) -> Any:
            return _calls(calls, arguments)

        run = torch.compile(together, backend=backend, fullgraph=True, dynamic=False)
        return run(arguments)

    got = _evaluate(case, compiled, chosen)
    want = _evaluate(case, _calls, chosen)
    references = References(
        want,
        exact=lambda: _or_none(_evaluate, case, _calls, map(_widened, chosen)),
        traced=lambda: _or_none(_evaluate, case, _traced, chosen),
    )
    entry = entries()[case.name]
    if not entry.has_values or _is_random(case, chosen, want):
        return different(got, references, None)
    return different(got, references, entry.tolerance(getattr(torch, case.dtype)))


def _or_none(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except Exception:
        return None


def _is_random(case: Case, chosen: Sequence[Sample], want: Any) -> bool:
    other = _evaluate(case, _calls, chosen, seed=1)
    return bool(different(other, References(want), ()))


def _traced(calls: Any, arguments: Any) -> Any:
    """The calls with fake tensors."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = pytree.tree_map_only(torch.Tensor, mode.from_tensor, arguments)
    with mode:
        return _calls(calls, fakes)


def _calls(calls: Any, arguments: Any) -> Any:
    return [
        call(*args, **kwargs)
        for call, (args, kwargs) in zip(calls, arguments, strict=True)
    ]


def _evaluate(
    case: Case, run: Callable[..., Any], chosen: Iterable[Sample], seed: int = 0
) -> Any:
    """(results, and gradients or overwritten arguments) of samples, on copies."""
    torch.manual_seed(seed)
    chosen = list(chosen)
    copied = copy.deepcopy([(s.call, s.args, s.kwargs) for s in chosen])
    calls = [call for call, _, _ in copied]
    arguments = [(args, kwargs) for _, args, kwargs in copied]
    if case.way != GRADIENT:
        with torch.no_grad():
            results = run(calls, arguments)
        return results, arguments if case.way == INPLACE else []
    results = run(calls, arguments)
    parts = [s.only_derived(r) for s, r in zip(chosen, results, strict=True)]
    return results, _gradients(parts, (calls, arguments))


def _gradients(results: Any, inputs: Any) -> list[Any]:
    """Of results weighed by numbers about 1, by all that requires grad."""
    outputs = [
        x
        for x in pytree.tree_leaves(results)
        if isinstance(x, torch.Tensor) and x.requires_grad
    ]
    leaves = [leaf for x in pytree.tree_leaves(inputs) for leaf in _derivable(x)]
    if not outputs or not leaves:
        return []
    weights = [_weights(x) for x in outputs]
    return list(torch.autograd.grad(outputs, leaves, weights, allow_unused=True))


def _derivable(x: Any) -> list[torch.Tensor]:
    found = x.parameters() if isinstance(x, torch.nn.Module) else [x]
    return [t for t in found if isinstance(t, torch.Tensor) and t.requires_grad]


def _weights(x: torch.Tensor) -> torch.Tensor:
    numbers = torch.linspace(0.5, 1.5, x.numel(), dtype=torch.float64)
    return numbers.reshape(x.shape).to(x.dtype)


def _widened(sample: Sample) -> Sample:
    """The same numbers in float64."""
    call, args, kwargs = copy.deepcopy((sample.call, sample.args, sample.kwargs))
    if isinstance(call, torch.nn.Module):
        call = call.double()
    args, kwargs = pytree.tree_map(_wide, (args, kwargs))
    return Sample(call, args, kwargs, sample.only_derived)


def _wide(x: Any) -> Any:
    if isinstance(x, torch.dtype):
        return torch.float64 if x.is_floating_point else x
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        return x
    return x.detach().double().requires_grad_(x.requires_grad)


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:2000]
