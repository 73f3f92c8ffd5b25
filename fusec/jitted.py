"""`jit`: a compiled function of whole tensors, which tells what it compiled to.

@fusec.jit
def swiglu(x, gate):
    return x * torch.nn.functional.silu(gate)

swiglu(x, gate)                  # compiled for the shapes it meets
print(swiglu.ir("fused", x, gate))
print(swiglu.source(x, gate))
print(swiglu.explain(x, gate))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from fusec.compiler import compile_graph, target_at
from fusec.errors import OptionError, UserError
from fusec.explain import explain as report
from fusec.frontend.aten_graph import compile_aten_graph
from fusec.frontend.capture import compile_dynamo_graph
from fusec.frontend.compiled import CompiledGraph, Made, boxed
from fusec.frontend.cudagraphs import Passes
from fusec.frontend.intake import Imported
from fusec.frontend.outputs import Program
from fusec.logs import enable
from fusec.options import Options
from fusec.passes.journey import Journey
from fusec.stages import STAGES, stage_text


@dataclass(frozen=True, slots=True)
class Compiled:
    """A graph that was taken in, and its way to a program."""

    imported: Imported
    journey: Journey


# The graphs that run while somebody looks on, in the order of their calls.
_watched: ContextVar[list[Compiled] | None] = ContextVar("watched", default=None)


class Jitted:
    """A compiled function of whole tensors: torch's, or numpy arrays.

    Called with arrays it gives arrays. `ir`, `source` and `explain` call it with copies
    of their arguments and tell about the graphs that ran.
    """

    __wrapped__: Callable[..., Any]

    def __init__(
        self,
        function: Callable[..., Any],
        options: Options,
        dynamic: bool | None = None,
    ) -> None:
        update_wrapper(self, function)
        self._options = options
        self._bound: tuple[Any, ...] = ()
        self._function = torch.compile(
            function, backend=self._backend, fullgraph=True, dynamic=dynamic
        )

    def __repr__(self) -> str:
        function = self.__wrapped__
        name = getattr(function, "__qualname__", type(function).__name__)
        return f"<fusec.jit of {name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run, compiling first what has not been compiled for such arguments."""
        values = [_tensor(x) for x in args]
        named = {name: _tensor(x) for name, x in kwargs.items()}
        result = self._function(*self._bound, *values, **named)
        given, taken = (*args, *kwargs.values()), (*values, *named.values())
        arrays = [pair for pair in zip(given, taken, strict=True) if _is_array(pair[0])]
        for array, tensor in arrays:
            _give_back(array, tensor)
        return _arrays(result) if arrays else result

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a method: bound to what it is called on."""
        if instance is None:
            return self
        method = copy(self)
        method._bound = (instance,)
        return method

    def ir(self, stage: str, *args: Any, **kwargs: Any) -> str:
        """The text of a call at a stage: as IR at "graph", "loop", "fused",
        "recomputed", "called", "split", "owned", "frozen", "tile" (the kernels) or
        "host" (the program with its kernels); or the code of the kernels, "llvm" or
        "asm"."""
        _check_stage(stage)
        journeys = [graph.journey for graph in self.graphs(*args, **kwargs)]
        return "\n".join(stage_text(each, stage, each.kernels) for each in journeys)

    def source(self, *args: Any, **kwargs: Any) -> str:
        """The LLVM code of the kernels that a call runs, before LLVM compiles it."""
        return self.ir("llvm", *args, **kwargs)

    def explain(self, *args: Any, **kwargs: Any) -> str:
        """What a call runs: kernels, what did not fuse and why, what ATen does."""
        return "\n\n".join(map(_explained, self.graphs(*args, **kwargs)))

    def graphs(self, *args: Any, **kwargs: Any) -> list[Compiled]:
        """The graphs that a call with these arguments runs."""
        token = _watched.set([])
        try:
            self(*map(_copied, args), **{k: _copied(x) for k, x in kwargs.items()})
            return _watched.get() or []
        finally:
            _watched.reset(token)

    def _backend(
        self, gm: torch.fx.GraphModule, example_inputs: Sequence[Any]
    ) -> Callable[..., Any]:
        compile = partial(self._compile, passes=Passes())
        return compile_dynamo_graph(gm, example_inputs, compile)

    def _compile(
        self,
        gm: torch.fx.GraphModule,
        example_inputs: Sequence[Any],
        role: str,
        passes: Passes,
    ) -> Program:
        compiled: list[Compiled] = []

        def made(imported: Imported) -> Made:
            compilation = compile_graph(imported, self._options)
            compiled.append(Compiled(imported, compilation.journey))
            return Made(compilation.program)

        call = compile_aten_graph(
            gm,
            example_inputs,
            role,
            compile=made,
            options=self._options,
            target=partial(target_at, options=self._options),
            passes=passes,
        )

        def run(arguments: list[Any]) -> list[Any]:
            watched = _watched.get()
            if watched is not None:
                watched += compiled
            return call(arguments)

        return boxed(run, CompiledGraph())


def jit(
    function: Callable[..., Any] | None = None,
    *,
    dynamic: bool | None = None,
    **options: object,
) -> Any:
    """Compile a function of whole tensors; a decorator, bare or with options.

    `dynamic` is torch.compile's: True compiles once for all sizes, False for each
    anew. With None a size becomes a symbol once it has changed; torch notes that for
    the function, so that all that is made of it share it.

    Raises `OptionError` for an option that fusec does not have, and `UserError` for
    what cannot be called.
    """
    chosen = Options.from_mapping(options)
    if not isinstance(dynamic, bool | None):
        raise OptionError(
            f"dynamic={dynamic!r} is not allowed", fix="give None, True or False"
        )
    enable(chosen.logs)
    if function is None:
        return partial(jit, dynamic=dynamic, **options)
    if not callable(function):
        raise UserError(
            f"jit compiles a function, but got {type(function).__name__}",
            fix='write fusec.jit(function); options have names, as numerics="fast"',
        )
    return Jitted(function, chosen, dynamic)


def _check_stage(stage: object) -> None:
    names = ", ".join(map(repr, STAGES))
    if not isinstance(stage, str):
        raise UserError(
            f"ir takes the name of a stage first, but got {type(stage).__name__}",
            fix=f"write ir({STAGES[0]!r}, …); the stages are {names}",
        )
    if stage not in STAGES:
        raise UserError(f"no stage {stage!r}", fix=f"the stages are {names}")


def _explained(graph: Compiled) -> str:
    imported = graph.imported
    return str(report(graph.journey, imported.hints, imported.fallbacks))


def _is_array(x: Any) -> bool:
    """Whether x is an array of numpy, which is not for this file to import."""
    names = ((kind.__module__, kind.__name__) for kind in type(x).__mro__)
    return ("numpy", "ndarray") in names


def _tensor(x: Any) -> Any:
    """An array as a tensor on the same memory; anything else as it is.

    Of an array that may not be written to, or steps backwards, it is a copy (see
    `_give_back`).
    """
    if not _is_array(x):
        return x
    return torch.from_numpy(x.copy() if _is_copied(x) else x)


def _is_copied(x: Any) -> bool:
    return not x.flags.writeable or any(stride < 0 for stride in x.strides)


def _give_back(array: Any, tensor: torch.Tensor) -> None:
    """Let an array that was copied have what was written to its copy."""
    if not _is_copied(array) or not tensor._version:
        return
    if not array.flags.writeable:
        raise UserError(
            "the function writes to an argument, and this array may not be written to",
            fix="pass a copy: array.copy()",
        )
    array[...] = tensor.numpy()


def _arrays(result: Any) -> Any:
    """Results as arrays; of a dtype that numpy lacks, as tensors."""
    return tree_map_only(torch.Tensor, _array, result)


def _array(x: torch.Tensor) -> Any:
    try:
        return x.detach().resolve_conj().resolve_neg().numpy()
    except TypeError:  # numpy has no such dtype
        return x


def _copied(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return x.detach().clone().requires_grad_(x.requires_grad)
    return x.copy() if _is_array(x) else x
