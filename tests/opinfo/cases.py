"""The cases of a sweep: torch's database of ops and modules, by dtype and way of use.

    Case("nn.functional.elu", "bfloat16", "gradient")

A case stands for several samples of arguments, spread evenly over those that torch has
for it; the same ones in every run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from typing import Any, TypeVar
from zlib import crc32

import torch
from opinfo.families import MODULE, family_of
from torch.testing._internal import common_methods_invocations
from torch.testing._internal.common_device_type import toleranceOverride
from torch.testing._internal.common_modules import module_db
from torch.utils import _pytree as pytree

DTYPES = ("float32", "float64", "int64", "bool", "bfloat16", "float16")
LEFT_OUT = {
    "unique_consecutive-*": "the rank, where there is a dim",
    "_batch_norm_with_update-*float16-*": "the dtype of the statistics",
    "_native_batch_norm_legit-*float16-*": "the dtype of the statistics",
    "nn.functional.embedding_bag-*float16-*": "the shape of what is not needed",
}
"""Cases that no compiler can do right: torch's fake tensors are wrong about this."""

FORWARD, GRADIENT, INPLACE = "forward", "gradient", "inplace"
WAYS = (FORWARD, GRADIENT, INPLACE)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Case:
    """An entry of the database, a dtype, and how the entry is used."""

    name: str
    dtype: str
    way: str

    def __str__(self) -> str:
        return f"{self.name}-{self.dtype}-{self.way}"

    @property
    def family(self) -> str:
        """The family of the entry."""
        return entries()[self.name].family


@dataclass(frozen=True, slots=True)
class Sample:
    """A call. `call` is a function or a module; tensors to derive by require grad."""

    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    only_derived: Callable[[Any], Any] = lambda result: result
    """What of a result is to be derived: of some, not all of it is determined."""


Tolerance = tuple[()] | tuple[float, float]
"""(absolute, relative); () for the dtype's own."""


@dataclass(frozen=True, slots=True)
class OpEntry:
    """An op of torch's database."""

    name: str
    family: str
    info: Any

    @property
    def has_values(self) -> bool:
        """Whether the values of a result are determined."""
        return "empty" not in self.name

    def ways(self, dtype: torch.dtype) -> Iterator[str]:
        """How the op can be used on a dtype."""
        if dtype not in self.info.supported_dtypes("cpu"):
            return
        yield FORWARD
        derived = self.info.supported_backward_dtypes("cpu")
        if self.info.supports_autograd and dtype in derived:
            yield GRADIENT
        if self.info.inplace_variant is not None:
            yield INPLACE

    def samples(self, dtype: torch.dtype, way: str) -> list[Sample]:
        """torch's samples for a dtype."""
        inplace = way == INPLACE
        call = self.info.inplace_variant if inplace else self.info.op
        return [
            Sample(call, (s.input, *s.args), dict(s.kwargs), s.output_process_fn_grad)
            for s in self.info.sample_inputs("cpu", dtype, way == GRADIENT)
            if not (inplace and s.broadcasts_input)
        ]

    def tolerance(self, dtype: torch.dtype) -> Tolerance:
        """What torch's tests grant."""
        rules = [rule for info in self.info.decorators for rule in _rules(info)]
        found = [rule.d[dtype] for rule in rules if dtype in rule.d]
        if not found or not dtype.is_floating_point:
            return ()
        return max(t.atol for t in found), max(t.rtol for t in found)


def _rules(info: Any) -> list[toleranceOverride]:
    held = getattr(info, "decorators", [info])
    return [rule for rule in held if isinstance(rule, toleranceOverride)]


@dataclass(frozen=True, slots=True)
class ModuleEntry:
    """A module of torch's database, in training and evaluation."""

    name: str
    info: Any
    family: str = MODULE
    has_values: bool = True

    def ways(self, dtype: torch.dtype) -> Iterator[str]:
        """How the module can be used on a dtype."""
        if dtype in self.info.dtypes:
            yield FORWARD
            if self.info.supports_gradgrad or dtype.is_floating_point:
                yield GRADIENT

    def samples(self, dtype: torch.dtype, way: str) -> list[Sample]:
        """A module for each of torch's inputs, lazy ones already materialised."""
        both = (True, False) if self.info.train_and_eval_differ else (way == GRADIENT,)
        return [s for mode in both for s in self._samples(dtype, way, mode)]

    def _samples(self, dtype: torch.dtype, way: str, training: bool) -> list[Sample]:
        grad = way == GRADIENT
        make = self.info.module_inputs_func
        found: list[Sample] = []
        for inputs in make(self.info, "cpu", dtype, grad, training):
            if inputs.forward_input is None:
                continue
            built, given = inputs.constructor_input, inputs.forward_input
            module = self.info.module_cls(*built.args, **built.kwargs)
            module = module.to(dtype).train(training)
            if isinstance(module, torch.nn.modules.lazy.LazyModuleMixin):
                module(*given.args, **given.kwargs)
            found.append(Sample(module, tuple(given.args), dict(given.kwargs)))
        return found

    def tolerance(self, dtype: torch.dtype) -> Tolerance:
        """torch's tests grant modules none of their own."""
        return ()


Entry = OpEntry | ModuleEntry


def _without_seeding(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Random ops seed a generator in each call; Dynamo does not trace that."""
    return op(*args, **kwargs)


@cache
def entries() -> dict[str, Entry]:
    """Every entry of the database by its name."""
    common_methods_invocations.wrapper_set_seed = _without_seeding
    found: dict[str, Entry] = {}
    for op in common_methods_invocations.op_db:
        variant = f".{op.variant_test_name}" if op.variant_test_name else ""
        name = op.name + variant
        found[name] = OpEntry(name, family_of(op, name), op)
    for info in module_db:
        found[info.name] = ModuleEntry(info.name, info)
    return found


def cases(dtypes: Sequence[str] = DTYPES, ways: Sequence[str] = WAYS) -> list[Case]:
    """All cases of these dtypes and ways of use, but for those left out."""
    found = (
        Case(name, dtype, way)
        for name, entry in entries().items()
        for dtype in dtypes
        for way in entry.ways(getattr(torch, dtype))
        if way in ways
    )
    return [c for c in found if not any(fnmatch(str(c), p) for p in LEFT_OUT)]


def samples(case: Case, count: int) -> list[Sample]:
    """`count` samples of a case, or all where there are fewer."""
    torch.manual_seed(crc32(str(case).encode()))
    made = entries()[case.name].samples(getattr(torch, case.dtype), case.way)
    return [_with_leaves(sample) for sample in spread(made, count)]


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` items in order, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    last = len(items) - 1
    return [items[round(k * last / max(count - 1, 1))] for k in range(count)]


def _with_leaves(sample: Sample) -> Sample:
    """Copies of tensors that were computed, as gradients end at leaves."""
    args, kwargs = pytree.tree_map(_leaf, (sample.args, sample.kwargs))
    return Sample(sample.call, args, kwargs, sample.only_derived)


def _leaf(x: Any) -> Any:
    if inspect.isgenerator(x):
        return list(x)
    if not isinstance(x, torch.Tensor) or x.is_leaf:
        return x
    return x.detach().clone().requires_grad_(x.requires_grad)
