"""Calls that fusec leaves to torch, inside the graph's own function.

    cumsum(x, 1)        extern "aten.cumsum.default" ($0, 1)

An op is named by its overload, and nothing is looked up until the call runs (see
`runtime.extern`). What has no name that means the same in every process, such as a
control-flow operator with its branches, becomes a Python callable kept beside the
function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg
from torch.utils._pytree import tree_map_only

from fusec.frontend.aten.term import Emitter, Term
from fusec.frontend.meta import leaves, loc_of, row_major, traced, type_of
from fusec.frontend.shapes import symbol_of
from fusec.frontend.torch_private import OpOverload
from fusec.ir.calls import Named, Slot
from fusec.ir.core import Value
from fusec.ir.dims import Expr
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.view import Restride
from fusec.ir.types import Tensor, Type

_ATTENTIONS = (
    "flash_attention_for_cpu",
    "flash_attention",
    "efficient_attention",
    "cudnn_attention",
)
BY_DESIGN = frozenset(
    f"aten.{name}"
    for name in (
        "_assert_scalar",
        "_local_scalar_dense",
        *(f"_scaled_dot_product_{kind}" for kind in _ATTENTIONS),
        *(f"_scaled_dot_product_{kind}_backward" for kind in _ATTENTIONS),
        "convolution",
        "convolution_backward",
    )
)
"""Ops that run through ATen because its kernels are the ones to use, or because only
the host can do what they do."""

Found = Any
"""What a node stands for: a term, a dim, a number, a module, or a tuple of these."""


class Externs:
    """Emits calls to torch, and keeps the callables that have no name."""

    def __init__(self) -> None:
        self.callables: dict[str, Callable[..., Any]] = {}

    def call(self, e: Emitter, node: fx.Node, env: Mapping[fx.Node, Found]) -> Found:
        """Emit a node as a call. The results are nested as torch nests them."""
        operands = Operands(e, env)
        meta = traced(node)
        try:
            target = overload_name(node)
            arguments = operands.tree(node.args)
            keywords = tuple((k, operands.tree(v)) for k, v in node.kwargs.items())
        except Nameless:
            operands = Operands(e, env)
            target, inputs = self._keep(node, env, meta)
            arguments, keywords = operands.tree(inputs), ()
        types = tuple(_result_type(e, node, leaf) for leaf in leaves(meta))
        hints = tuple(_defines(leaf) for leaf in leaves(meta))
        attrs = (target, arguments, keywords, types)
        values = e.b.emit(Extern, operands.values, attrs, hints=hints)
        return _nested(e, meta, iter(values))

    def constant(self, e: Emitter, node: fx.Node, tensor: torch.Tensor) -> Term:
        """A tensor that the graph holds: one number, or a call that hands out a copy.

        The copy keeps what is later stored in place from reaching the original.
        """
        fresh = tensor.detach().clone()
        known = type_of(fresh, loc_of(node), e.home)
        if isinstance(known, Tensor) and fresh.numel() == 1:
            return e.full(fresh.item(), known.shape, known.dtype)
        target = self._name(str(node.target), fresh.clone)
        (value,) = e.b.emit(Extern, (), (target, (), (), (known,)))
        return Term(e, value)

    def _keep(
        self, node: fx.Node, env: Mapping[fx.Node, Found], meta: Any
    ) -> tuple[str, tuple[fx.Node, ...]]:
        """Name a callable on those of the node's inputs that are computed.

        It gives what `meta` knows of.
        """
        computed = tuple(n for n in node.all_input_nodes if _is_computed(env[n]))
        held = {n: env[n] for n in node.all_input_nodes if n not in computed}
        call, arguments, keywords = _callable(node), node.args, node.kwargs

        def run(*operands: Any) -> Any:
            known = {**held, **dict(zip(computed, operands, strict=True))}
            args, kwargs = map_arg((arguments, keywords), known.__getitem__)
            return _apart(_known(meta, call(*args, **kwargs)), operands)

        name = getattr(node.target, "__name__", None) or str(node.target)
        return self._name(name, run), computed

    def _name(self, base: str, function: Callable[..., Any]) -> str:
        name = f"{base}#{len(self.callables)}"
        self.callables[name] = function
        return name


class Nameless(Exception):
    """An argument or a target that only this process has."""


class Operands:
    """Collects the operands of a call while its arguments become a tree."""

    def __init__(self, e: Emitter, env: Mapping[fx.Node, Found]) -> None:
        self.values: list[Value] = []
        self._e = e
        self._env = env

    def tree(self, argument: Any) -> Any:
        """An argument as the IR writes it. Raises `Nameless`."""
        if isinstance(argument, (list, tuple)):
            return tuple(self.tree(x) for x in argument)
        if isinstance(argument, fx.Node):
            return self._node(argument)
        if argument is None or isinstance(argument, (bool, int, float, str)):
            return argument
        for kind, class_ in _NAMED:
            if isinstance(argument, class_):
                return Named(kind, str(argument).removeprefix("torch."))
        raise Nameless

    def _node(self, node: fx.Node) -> Any:
        found = self._env[node]
        if isinstance(found, (int, float, Expr)):
            return found
        if not isinstance(found, Term):
            raise Nameless
        self.values.append(restrided(found, node.meta.get("val")).value)
        return Slot(len(self.values) - 1)


_NAMED = (
    ("dtype", torch.dtype),
    ("device", torch.device),
    ("layout", torch.layout),
    ("memory_format", torch.memory_format),
)


def overload_name(node: fx.Node) -> str:
    """What `runtime.extern` finds a node's overload by.

    Raises `Nameless` for others, and where torch traced no type for all of the result.
    """
    if not isinstance(node.target, OpOverload):
        raise Nameless
    if node.meta.get("val") is None and node.users:
        raise Nameless
    return str(node.target)


def restrided(x: Term, meta: Any) -> Term:
    """x stored with the strides that torch's fake tensor has."""
    if not isinstance(meta, torch.Tensor):
        return x
    wanted = type_of(meta, x.e.b.loc, x.e.home)
    if not isinstance(wanted, Tensor):
        return x
    if wanted.strides == x.strides:
        return x
    strides = wanted.strides or row_major(x.shape)
    if strides == (x.strides or row_major(x.shape)):
        return x
    return Term(x.e, x.e.b(Restride, x.value, strides=strides))


def aliases(target: Any) -> bool:
    """Whether a call's results may share memory with its arguments."""
    returns = target._schema.returns if isinstance(target, OpOverload) else ()
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _result_type(e: Emitter, node: fx.Node, meta: Any) -> Type:
    """As torch traced it; what would alias an argument is copied, hence row-major."""
    found = type_of(meta, loc_of(node), e.home)
    if isinstance(found, Tensor) and aliases(node.target):
        return Tensor(found.dtype, found.shape)
    return found


def _defines(meta: Any) -> str:
    """The symbol that a result gives its value to, as the result's name."""
    symbol = symbol_of(meta) if isinstance(meta, torch.SymInt) else None
    return symbol.name if symbol else ""


def _nested(e: Emitter, meta: Any, values: Iterator[Value]) -> Found:
    if isinstance(meta, (list, tuple)):
        return tuple(_nested(e, part, values) for part in meta)
    return None if meta is None else Term(e, next(values))


def _known(meta: Any, result: Any) -> Any:
    """The parts of a result that were traced."""
    if not isinstance(meta, (list, tuple)):
        return None if meta is None else result
    return [_known(part, x) for part, x in zip(meta, result, strict=False)]


def _apart(result: Any, operands: Iterable[Any]) -> Any:
    """A result whose tensors lie in memory of their own, copied where they do not.

    Of an overload, the schema says whether that may be; of a branch, nothing does.
    """
    taken = {_memory(x) for x in operands}

    def apart(x: torch.Tensor) -> torch.Tensor:
        place = _memory(x)
        if place is not None and place in taken:
            return x.clone()
        taken.add(place)
        return x

    return tree_map_only(torch.Tensor, apart, result)


def _memory(x: Any) -> int | None:
    """Where a tensor's memory begins; None for what has none at strides."""
    if not isinstance(x, torch.Tensor) or x.layout is not torch.strided:
        return None
    return x.untyped_storage().data_ptr() or None


def _is_computed(found: Found) -> bool:
    return isinstance(found, (Term, Expr))


def _callable(node: fx.Node) -> Callable[..., Any]:
    """The function that a node calls; a method's comes from the first argument."""
    target = node.target
    if not isinstance(target, str):
        return target

    def method(self: Any, *arguments: Any, **keywords: Any) -> Any:
        return getattr(self, target)(*arguments, **keywords)

    return method
