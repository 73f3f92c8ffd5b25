"""Running a program together with the interpreter, stage by stage, on real arguments.

    torch.compile(model, backend="fusec", options={"verify": True})

Every call interprets the graph and what each pass made of it, and compares: the graph
with torch's own run of it, each stage with the one before, the program with the last.
The first that differs names the pass to blame. Slow, and meant to be: the interpreter
checks every access of every kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fusec.errors import VerificationError
from fusec.ir.core import Function, Module
from fusec.ir.dtypes import DType
from fusec.ir.interpreter import InterpretError, interpret
from fusec.ir.ops.extern import Slot
from fusec.ir.types import Tensor
from fusec.runtime.extern import named, resolve

TOLERANCE: Mapping[str, float] = {"f64": 1e-9, "f32": 1e-4, "f16": 1e-2, "bf16": 4e-2}
"""How far results may be apart, of the largest element: sums may be reassociated."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a pass made, and the module that it launches kernels of."""

    made_by: str
    function: Function
    module: Module | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """A program that checks itself: called as it is, it raises `VerificationError`."""

    program: Callable[[list[Any]], list[Any]]
    stages: Sequence[Stage]
    callables: Mapping[str, Callable[..., Any]]
    eager: Callable[[list[Any]], list[Any]] | None = None
    """Torch's own run of the graph: arguments to the function's yields."""

    def __call__(self, arguments: list[Any]) -> list[Any]:
        function = self.stages[0].function
        random = torch.get_rng_state()
        given = zip(function.params, arguments, strict=True)
        arrays = [_array(param.type, argument) for param, argument in given]
        before, source = None, ""
        if self.eager is not None:
            copies = [a.clone() if _is_tensor(a) else a for a in arguments]
            before, source = self.eager(copies), "torch"
        for stage in self.stages:
            torch.set_rng_state(random)
            after = self._interpret(stage, arrays)
            if before is not None:
                _compare(stage.function, before, after, source, stage.made_by)
            before, source = after, stage.made_by
        torch.set_rng_state(random)
        results = self.program(arguments)
        last = self.stages[-1].function
        _compare(last, before or (), results, source, "code generation")
        return results

    @property
    def journey(self) -> Any:
        """How the program came about."""
        return getattr(self.program, "journey", None)

    def _interpret(self, stage: Stage, arrays: Sequence[Any]) -> tuple[Any, ...]:
        copies = [a.copy() if hasattr(a, "copy") else a for a in arrays]
        try:
            return interpret(
                stage.function, copies, module=stage.module, extern=self._extern
            )
        except InterpretError as error:
            raise VerificationError(
                f"{stage.made_by} made a program that goes wrong: {error}"
            ) from error

    def _extern(
        self, target: str, arguments: Any, keywords: Any, inputs: Sequence[Any]
    ) -> tuple[Any, ...]:
        call = resolve(target, self.callables)
        tensors = [torch.from_numpy(x) if hasattr(x, "dtype") else x for x in inputs]
        args = tuple(_filled(a, tensors) for a in arguments)
        made = call(*args, **{k: _filled(v, tensors) for k, v in keywords.items()})
        return tuple(_leaves(made))


def _filled(tree: Any, operands: Sequence[Any]) -> Any:
    if isinstance(tree, Slot):
        return operands[tree.index]
    if isinstance(tree, tuple):
        return [_filled(part, operands) for part in tree]
    return named(tree)


def _leaves(made: Any) -> list[Any]:
    if isinstance(made, (tuple, list)):
        return [leaf for part in made for leaf in _leaves(part)]
    if made is None:
        return []
    return [_plain(made) if _is_tensor(made) else made]


def _is_tensor(x: Any) -> bool:
    return isinstance(x, torch.Tensor)


def _plain(x: torch.Tensor) -> Any:
    """A tensor as an array in the carrier of its dtype."""
    x = x.detach()
    return (x.float() if x.dtype is torch.bfloat16 else x).resolve_conj().numpy()


def _array(type_: Any, argument: Any) -> Any:
    return _plain(argument).copy() if isinstance(type_, Tensor) else argument


def _compare(
    function: Function,
    before: Sequence[Any],
    after: Sequence[Any],
    source: str,
    made_by: str,
) -> None:
    for k, value in enumerate(function.body.yields):
        if not isinstance(value.type, Tensor):
            continue
        a, b = (torch.as_tensor(_number(x[k])) for x in (before, after))
        worst = _distance(a, b, value.type.dtype)
        if worst is not None:
            raise VerificationError(
                f"{made_by} changed result {k} (%{value.hint}) of {function.name}:"
                f" it differs from what {source} gave by {worst:.3g}",
                where=function.body.ops[-1].loc,
            )


def _number(x: Any) -> Any:
    return _plain(x) if _is_tensor(x) else x


def _distance(a: torch.Tensor, b: torch.Tensor, dtype: DType) -> float | None:
    """How far two tensors are apart, where that is too far."""
    a, b = a.double(), b.double()
    if a.shape != b.shape:
        return float("inf")
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()):
        return float("nan")
    gap = (a - b).abs()[finite]
    if gap.numel() == 0:
        return None
    size = max(1.0, float(a[finite].abs().max()))
    allowed = TOLERANCE.get(dtype.name, 0.0) * size
    worst = float(gap.max())
    return worst if worst > allowed else None
