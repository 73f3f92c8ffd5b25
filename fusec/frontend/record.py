"""Taking in the graphs of a call, with the arguments that each was run on.

    record(f, Inputs((x,)), compile)
        →   Recording([Recorded(graph @inference(%x, %fc_weight))])

The call really runs, through torch.compile and the programs that `compile` makes, so
what is recorded is what would run: one graph, or several where Dynamo breaks the
function or a backward pass follows. Parameters of a graph are given the names that
the function's arguments, or its module's weights, have in the source.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from fusec.errors import UserError
from fusec.frontend.aten_graph import Compile, compile_aten_graph
from fusec.frontend.capture import compile_dynamo_graph
from fusec.frontend.compiled import Made
from fusec.frontend.intake import Imported, Targets
from fusec.frontend.torch_private import quiet_about_fakes
from fusec.ir.arguments import chosen_arrays
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Value
from fusec.ir.types import Tensor
from fusec.logs import counted
from fusec.options import Options


@dataclass(frozen=True, slots=True)
class Inputs:
    """The arguments of a call."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @staticmethod
    def of(given: Any, name: str) -> Inputs:
        """What a user calls the inputs. Raises `UserError` for what has no meaning."""
        if isinstance(given, Mapping):
            return Inputs((), dict(given))
        if isinstance(given, (tuple, list)):
            return Inputs(tuple(given))
        if isinstance(given, torch.Tensor):
            return Inputs((given,))
        raise UserError(
            f"{name} are of type {type(given).__name__}",
            fix="give a tuple of arguments, a dict of named ones, a single tensor, or a"
            " function that returns one of these",
        )


@dataclass(slots=True)
class Recorded:
    """A graph, and copies of the arguments of its first run."""

    imported: Imported
    arguments: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """A graph that fusec did not compile: which, and why it runs through ATen."""

    graph: str
    why: str

    def __str__(self) -> str:
        return f"the {self.graph} graph runs through ATen: {self.why}"


@dataclass(slots=True)
class Recording:
    """The graphs of a call, in the order in which they were taken in."""

    graphs: list[Recorded] = field(default_factory=list[Recorded])
    lost: list[Lost] = field(default_factory=list[Lost])


def record(
    function: Callable[..., Any],
    inputs: Inputs,
    compile: Compile,
    options: Options,
    *,
    target: Targets | None = None,
    dynamic: bool = False,
    backward: bool = False,
) -> Recording:
    """The graphs of `function(*inputs)`.

    `target` tells what code for a device is made for. `dynamic` leaves sizes open.
    `backward` also runs the gradient of the sum of the results. Raises what the
    function raises, and `UserError` for tensors that have no memory.
    """
    named = dict(_tensors(function, inputs))
    _require_memory(named)
    found = Recording()

    def keep(imported: Imported) -> Made:
        program = compile(imported).program
        recorded = Recorded(imported)
        found.graphs.append(recorded)

        def run(arguments: list[Any]) -> list[Any]:
            if recorded.arguments is None:
                recorded.imported = _named(imported, arguments, names)
                recorded.arguments = [_copied(x) for x in arguments]
            return program(arguments)

        return Made(run)

    def lose(graph: str, why: str) -> None:
        found.lost.append(Lost(graph, why))

    def backend(gm: torch.fx.GraphModule, examples: Sequence[Any]) -> Any:
        kept = partial(
            compile_aten_graph,
            compile=keep,
            options=options,
            target=target,
            tell=lose,
        )
        return compile_dynamo_graph(gm, examples, kept)

    names = {_place(tensor): name for name, tensor in named.items()}
    compiled = torch.compile(function, backend=backend, dynamic=dynamic or None)
    with quiet_about_fakes(), nullcontext() if backward else torch.no_grad():
        results = compiled(*inputs.args, **inputs.kwargs)
        if backward:
            _total(results).backward()
    return found


def with_arrays(
    function: Callable[..., Any], inputs: Inputs, arrays: Mapping[str, Any]
) -> Inputs:
    """The inputs with their tensors replaced by arrays (see `chosen_arrays`).

    Each array takes the dtype of the tensor that it replaces. Raises `UserError` where
    one is missing.
    """
    leaves, rebuild = _leaves(function, inputs)
    tensors = {name: x for name, x in leaves.items() if isinstance(x, torch.Tensor)}
    what = f"the inputs are {counted(len(tensors), 'tensor')}"
    chosen = chosen_arrays(list(tensors), arrays, what)
    made = {
        name: torch.from_numpy(arrays[key]).to(tensors[name].dtype)
        for name, key in zip(tensors, chosen, strict=True)
    }
    return rebuild({**leaves, **made})


def _leaves(
    function: Callable[..., Any], inputs: Inputs
) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], Inputs]]:
    """The inputs by name, nested ones as `xs_0`, and what puts them back."""
    pairs, form = pytree.tree_flatten_with_path((inputs.args, dict(inputs.kwargs)))
    params = _parameter_names(function)
    names = [_name(path, params) for path, _ in pairs]

    def rebuild(leaves: Mapping[str, Any]) -> Inputs:
        args, kwargs = pytree.tree_unflatten([leaves[n] for n in names], form)
        return Inputs(args, kwargs)

    return dict(zip(names, (leaf for _, leaf in pairs), strict=True)), rebuild


def _parameter_names(function: Callable[..., Any]) -> list[str]:
    called = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        return list(inspect.signature(called).parameters)
    except (TypeError, ValueError):
        return []


def _name(path: Sequence[Any], params: Sequence[str]) -> str:
    """`(args, 0)` -> x, `(kwargs, "y")` -> y, `(args, 1, 2)` -> ys_2."""
    keys = [getattr(key, "idx", getattr(key, "key", key)) for key in path]
    where, first, *rest = keys
    if where == 0:
        first = params[first] if first < len(params) else f"arg{first}"
    return "_".join(map(str, (first, *rest)))


Place = tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]


def _tensors(
    function: Callable[..., Any], inputs: Inputs
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that the source has a name for."""
    if isinstance(function, torch.nn.Module):
        for weights in (function.named_buffers(), function.named_parameters()):
            for name, tensor in weights:
                yield name.replace(".", "_"), tensor
    for name, leaf in _leaves(function, inputs)[0].items():
        if isinstance(leaf, torch.Tensor):
            yield name, leaf


def _require_memory(named: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in named.items():
        if tensor.device.type == "meta":
            raise UserError(
                f"{name} is on the device meta, where tensors have no memory",
                fix="make the inputs, and the module, on the CPU or a GPU",
            )


def _place(x: torch.Tensor) -> Place:
    return x.data_ptr(), tuple(x.shape), tuple(x.stride()), x.dtype


def _named(
    imported: Imported, arguments: Sequence[Any], names: Mapping[Place, str]
) -> Imported:
    """The graph with its parameters called as in the source."""
    hints = [
        names.get(_place(x), "") if isinstance(x, torch.Tensor) else ""
        for x in arguments
    ]
    return replace(imported, function=_renamed(imported.function, hints))


def _renamed(function: Function, names: Sequence[str]) -> Function:
    builder = Builder(function.level)
    env: dict[Value, Value] = {}
    for old, name in zip(function.params, names, strict=True):
        # A scalar's hint says which symbol it is.
        hint = name if name and isinstance(old.type, Tensor) else old.hint
        env[old] = builder.param(old.type, hint)
    for op in function.body.ops:
        env.update(zip(op.results, builder.copy(op, env), strict=True))
    return builder.successor(function, [env[v] for v in function.body.yields])


def _copied(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, torch.Tensor) else x


def _total(results: Any) -> torch.Tensor:
    """The sum of all results that have a gradient."""
    leaves = pytree.tree_leaves(results)
    floats = [x for x in leaves if isinstance(x, torch.Tensor) and x.requires_grad]
    if not floats:
        raise UserError(
            "no result depends on anything that requires a gradient",
            fix="leave out --backward, or call requires_grad_() on an input",
        )
    return torch.stack([x.sum() for x in floats]).sum()
