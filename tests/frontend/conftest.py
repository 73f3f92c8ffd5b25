"""Runs what the intake made: fusec's ops by the interpreter, externs by torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils._pytree as pytree

from fusec.frontend.aten_graph import compile_aten_graph
from fusec.frontend.capture import compile_dynamo_graph
from fusec.frontend.compiled import Made
from fusec.frontend.dtypes import to_torch
from fusec.frontend.intake import Imported
from fusec.ir.core import Function
from fusec.ir.dims import Symbol, evaluate
from fusec.ir.interpreter import interpret
from fusec.ir.types import Opaque, Scalar, Tensor, Type, strides_of
from fusec.options import Options
from fusec.runtime.arrays import extern_calls, to_array


@dataclass
class Captured:
    """What a call of a compiled function gave, and the graphs that it ran."""

    result: Any = None
    graphs: list[Imported] = field(default_factory=list)

    @property
    def function(self) -> Function:
        (graph,) = self.graphs
        return graph.function

    @property
    def fallbacks(self) -> set[str]:
        return {thing.what for graph in self.graphs for thing in graph.fallbacks}

    def ops(self) -> list[str]:
        return [op.name for graph in self.graphs for op in graph.function.body.ops]


@pytest.fixture
def capture(tmp_path: Path) -> Callable[..., Captured]:
    """`capture(f, *args, dynamic=…, options…)`: f through torch.compile and the intake,
    its graphs run by the reference interpreter, externs by torch."""
    torch._dynamo.reset()

    def run(
        f: Any, *args: Any, dynamic: bool | None = None, **options: Any
    ) -> Captured:
        chosen = Options.from_mapping({"cache_dir": tmp_path, **options})
        captured = Captured()

        def compile(imported: Imported) -> Made:
            captured.graphs.append(imported)
            return Made(partial(evaluate_program, imported))

        def backend(gm: Any, inputs: Any) -> Any:
            kept = partial(compile_aten_graph, compile=compile, options=chosen)
            return compile_dynamo_graph(gm, inputs, kept)

        compiled = torch.compile(f, backend=backend, dynamic=dynamic, fullgraph=True)
        captured.result = compiled(*args)
        bugs = [p.read_text() for p in tmp_path.glob("reproducers/*")]
        assert not bugs, bugs[0]
        return captured

    return run


@pytest.fixture
def check(capture: Callable[..., Captured]) -> Callable[..., Captured]:
    """`check(f, *args, exact=…)`: capture, and compare with eager f on equal arguments.

    `exact` compares every bit; otherwise torch's tolerances for the dtype hold.
    """

    def run(f: Any, *args: Any, exact: bool = False, **options: Any) -> Captured:
        expected_args, actual_args = (pytree.tree_map(_fresh, args) for _ in range(2))
        expected = f(*expected_args)
        captured = capture(f, *actual_args, **options)
        close = {"rtol": 0, "atol": 0} if exact else {}
        for got, want in (
            (captured.result, expected),
            (list(actual_args), list(expected_args)),
        ):
            torch.testing.assert_close(got, want, equal_nan=True, **close)
            for a, b in zip(*map(pytree.tree_leaves, (got, want)), strict=True):
                if isinstance(a, torch.Tensor) and a.numel():
                    assert a.stride() == b.stride()
        return captured

    return run


def _fresh(x: Any) -> Any:
    """An equal tensor with the same strides, in memory of its own."""
    if not isinstance(x, torch.Tensor):
        return x
    storage = x.detach().untyped_storage().clone()
    copy = torch.empty(0, dtype=x.dtype).set_(
        storage, x.storage_offset(), x.shape, x.stride()
    )
    return copy.requires_grad_(x.requires_grad)


def evaluate_program(imported: Imported, arguments: list[Any]) -> list[Any]:
    """The yields of the function. Arguments that it updates are written to."""
    function = imported.function
    sizes = sizes_of(imported, arguments)
    arrays = [
        np.array(to_array(x)) if isinstance(x, torch.Tensor) else x for x in arguments
    ]
    extern = extern_calls(function, arrays, imported.callables)
    results = interpret(function, arrays, extern=extern)
    types = [value.type for value in function.body.yields]
    made = [tensor_of(x, t, sizes) for x, t in zip(results, types, strict=True)]
    for result, index in zip(made, function.returns_into, strict=True):
        if index is not None:
            arguments[index].copy_(result)
    arguments.clear()
    return made


def sizes_of(imported: Imported, arguments: Sequence[Any]) -> dict[Symbol, int]:
    """The symbols that arguments decide."""
    sizes: dict[Symbol, int] = {}
    for param, argument in zip(imported.function.params, arguments, strict=True):
        if isinstance(param.type, Tensor):
            for dim, n in zip(param.type.shape, argument.shape, strict=True):
                if isinstance(dim, Symbol):
                    sizes[dim] = n
        elif isinstance(argument, int):
            sizes[Symbol(param.hint)] = argument
    return sizes


def tensor_of(array: Any, type_: Type, sizes: Mapping[Symbol, int]) -> Any:
    """The tensor, of the type's dtype and strides, that an array stands for."""
    if isinstance(type_, (Scalar, Opaque)):
        return array
    assert isinstance(type_, Tensor)
    dense = torch.from_numpy(np.array(array, order="C")).to(to_torch(type_.dtype))
    strides = tuple(evaluate(s, sizes) for s in strides_of(type_))
    pairs = zip(dense.shape, strides, strict=True)
    room = 1 + sum((n - 1) * s for n, s in pairs if n > 1)
    out = torch.empty(room, dtype=dense.dtype).as_strided(dense.shape, strides)
    # Where a stride is 0, equal elements are written to one place, one by one.
    for place in np.ndindex(*dense.shape) if dense.numel() else ():
        out[place] = dense[place]
    return out
