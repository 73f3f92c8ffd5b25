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
from functools import partial
from typing import Any

import torch

from fusec.errors import Loc, VerificationError
from fusec.ir.core import Function, Module, definitions
from fusec.ir.dtypes import DType
from fusec.ir.interpreter import InterpretError, interpret
from fusec.ir.types import Tensor
from fusec.runtime.arrays import duplicate, extern_calls, to_array
from fusec.runtime.tensors import in_memory

TOLERANCE: Mapping[str, float] = {"f64": 1e-9, "f32": 1e-4, "f16": 1e-2, "bf16": 4e-2}
"""How far elements may be apart, of their size and the usual size in their tensor: sums
may be reassociated."""
NOISE: Mapping[str, float] = {"f64": 1e-12, "f32": 4e-6, "f16": 2e-3, "bf16": 1.6e-2}
"""And of the largest element, or of 1: where terms as large cancel, this is left."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a pass made, and the module that it launches kernels of."""

    made_by: str
    function: Function
    module: Module | None = None
    once: Stage | None = None
    """What makes what the function is given besides the arguments."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A program that checks itself: called as it is, it raises `VerificationError`."""

    program: Callable[[list[Any]], list[Any]]
    stages: Sequence[Stage]
    callables: Mapping[str, Callable[..., Any]]
    eager: Callable[[list[Any]], list[Any]] | None = None
    """Torch's own run of the graph: arguments to the function's yields."""
    device: str = "cpu"
    """Where the program runs, as torch names it."""

    def __call__(self, arguments: list[Any]) -> list[Any]:
        function = self.stages[0].function
        arguments[:] = map(in_memory, arguments)
        again = _same_random_numbers(self.device)
        given = zip(function.params, arguments, strict=True)
        arrays = [_array(param.type, argument) for param, argument in given]
        before, source = None, ""
        if self.eager is not None:
            copies = [duplicate(a) if _is_tensor(a) else a for a in arguments]
            before, source = self.eager(copies), "torch"
        for stage in self.stages:
            again()
            after = self._interpret(stage, arrays, arguments)
            if before is not None:
                _compare(stage.function, before, after, source, stage.made_by)
            before, source = after, stage.made_by
        again()
        results = self.program(arguments)
        last = self.stages[-1].function
        _compare(last, before or (), results, source, "code generation")
        return results

    def _interpret(
        self, stage: Stage, arrays: Sequence[Any], given: Sequence[Any]
    ) -> tuple[Any, ...]:
        copies = [a.copy() if hasattr(a, "copy") else a for a in arrays]
        if stage.once is not None:
            copies += map(to_array, self._interpret(stage.once, arrays, given))
        externs = copies, self.callables, given, self.device
        extern = extern_calls(stage.function, *externs)
        try:
            return interpret(stage.function, copies, module=stage.module, extern=extern)
        except InterpretError as error:
            raise VerificationError(
                f"{stage.made_by} made a program that goes wrong: {error}"
            ) from error


def _same_random_numbers(device: str) -> Callable[[], None]:
    """What makes torch draw the numbers again that it draws next."""
    generators: list[tuple[Callable[..., None], torch.Tensor]] = [
        (torch.set_rng_state, torch.get_rng_state())
    ]
    if device != "cpu":
        own = torch.get_device_module(torch.device(device).type)
        setter = partial(own.set_rng_state, device=device)
        generators.append((setter, own.get_rng_state(device)))

    def again() -> None:
        for setter, state in generators:
            setter(state)

    return again


def _is_tensor(x: Any) -> bool:
    return isinstance(x, torch.Tensor)


def _array(type_: Any, argument: Any) -> Any:
    return to_array(argument).copy() if isinstance(type_, Tensor) else argument


def _compare(
    function: Function,
    before: Sequence[Any],
    after: Sequence[Any],
    source: str,
    made_by: str,
) -> None:
    made = definitions(function.body)
    for k, value in enumerate(function.body.yields):
        if not isinstance(value.type, Tensor):
            continue
        a, b = (torch.as_tensor(to_array(x[k])) for x in (before, after))
        worst = _distance(a, b, value.type.dtype)
        if worst is not None:
            raise VerificationError(
                f"{made_by} changed result {k} (%{value.hint}) of {function.name}:"
                f" it differs from what {source} gave by {worst:.3g}",
                where=made[value].loc if value in made else Loc.UNKNOWN,
            )


def _distance(a: torch.Tensor, b: torch.Tensor, dtype: DType) -> float | None:
    """How far two tensors are apart, where that is too far; integers must be equal."""
    if a.shape != b.shape:
        return float("inf")
    differ = (a != b) & ~((a != a) & (b != b))
    if not differ.any():
        return None
    gap = (a.double() - b.double()).abs()
    if not gap[differ].isfinite().all():
        return float("nan")
    sizes = a.double().abs().nan_to_num(0.0, 0.0)
    usual, largest = sizes.square().mean().sqrt(), sizes.max().clamp(min=1.0)
    near = TOLERANCE.get(dtype.name, 0.0) * (sizes + usual)
    allowed = near + NOISE.get(dtype.name, 0.0) * largest
    apart = gap[differ & (gap > allowed)]
    return float(apart.max()) if apart.numel() else None
