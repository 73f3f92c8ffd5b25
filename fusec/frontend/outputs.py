"""What a graph returns: how each of its outputs comes about when the program has run.

    return (x, x[n:], y, y.t())      Argument(0), View(Argument(0), …), 0, View(0, …)

A program's yields never share memory. Outputs do: a view of an argument, or of another
output, lies in its memory, since the caller may write to either. torch relies on it
even more: it makes such outputs anew from their base, and asks ours only where in the
base they begin. So a view is not computed; it is taken when the call ends.
"""

from __future__ import annotations

import operator
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_leaves, tree_map_only

from fusec.frontend.shapes import Untranslatable, to_dim
from fusec.frontend.torch_private import OpOverload, part_of, view_of
from fusec.ir.dims import product

Program = Callable[[list[Any]], list[Any]]
"""Runs a function: a list of arguments, which it empties, to a list of its yields.

One that the runtime made also has its `count` of yields, and a `run` that does the same
with less ado (see `deliver`).
"""


@dataclass(frozen=True, slots=True)
class Argument:
    """An output that is an argument itself, the same object: not a copy of it."""

    index: int


@dataclass(frozen=True, slots=True)
class Yielded:
    """A number that the program yields."""

    index: int


Size = int | Yielded


@dataclass(frozen=True, slots=True)
class View:
    """An output that lies in the memory of an argument or of a yield.

    Strides and offset count elements; the offset is from where the base begins, or, of
    an absolute view, from where the memory does that the base lies in.
    """

    base: int | Argument
    shape: tuple[Size, ...]
    strides: tuple[Size, ...]
    offset: Size
    absolute: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """A view whose place in its base only data decide: torch's own calls, once more.

    Each call takes the view so far, then arguments that may hold `Yielded` numbers.
    """

    base: int | Argument
    calls: tuple[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]], ...]


Output = int | Argument | View | Replay | None
"""The number of a yield, or one of the above."""


def view_bases(
    outputs: Iterable[Any],
    arguments: Iterable[fx.Node],
    updates: Mapping[fx.Node, fx.Node],
) -> dict[fx.Node, fx.Node]:
    """For each output in the memory of an argument or another output: that node.

    `updates` are the overwritten arguments and what they are overwritten with, whose
    views are views of the argument once the call ends.
    """
    owners: dict[Any, fx.Node] = {node: node for node in arguments}
    for target, source in updates.items():
        whole = _origin(source) is source or fills(source)
        if whole and _tensor(target).stride() == _tensor(source).stride():
            owners.setdefault(_origin(source), target)
    tensors = [x for x in outputs if isinstance(x, fx.Node) and _is_dense(x)]
    for node in tensors:
        if fills(node):
            owners.setdefault(_origin(node), node)
    found = {node: owners.get(_origin(node), node) for node in tensors}
    pairs = ((node, base) for node, base in found.items() if base is not node)
    return {node: base for node, base in pairs if _form(node) == _form(base)}


def offset_in(
    node: fx.Node, base: fx.Node, updates: Mapping[fx.Node, fx.Node]
) -> int | torch.SymInt:
    """How many elements after its base, or what overwrites that, a view begins.

    In memory of their own the two may begin at different places.
    """
    around = base if _storage(base) == _storage(node) else updates[base]
    return _tensor(node).storage_offset() - _tensor(around).storage_offset()


def is_absolute(node: fx.Node, base: fx.Node) -> bool:
    """Whether a view counts from the beginning of its base's memory, as `as_strided`
    with an offset does: it stays where it is, wherever a later base begins."""
    calls = view_calls(node, (base,)) or ()
    strided = [c for c in calls if c.target is torch.ops.aten.as_strided.default]
    # as_strided(x, sizes, strides, storage_offset)
    starts = ([*c.args[3:], c.kwargs.get("storage_offset")] for c in strided)
    return any(start[0] is not None for start in starts)


def view_calls(node: fx.Node, base: Collection[fx.Node]) -> list[fx.Node] | None:
    """The calls that make a view of one of `base`, in order; None where others do."""
    calls: list[fx.Node] = []
    while node not in base:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or not _is_view(node.target):
            return None
        calls.append(node)
        node = source
    return calls[::-1]


def _is_view(target: Any) -> bool:
    one_of_several = target is operator.getitem
    return one_of_several or (isinstance(target, OpOverload) and target.is_view)


def _tensor(node: fx.Node) -> torch.Tensor:
    return node.meta["val"]


def _is_dense(node: fx.Node) -> bool:
    val = node.meta.get("val")
    return isinstance(val, torch.Tensor) and val.layout is torch.strided


def _form(node: fx.Node) -> tuple[object, ...]:
    """How elements are read: a view of another form is more than its strides."""
    tensor = _tensor(node)
    return tensor.dtype, tensor.is_conj(), tensor.is_neg()


def _origin(node: fx.Node) -> Any:
    """What made the memory that a value lies in: a node, or one of several results.

    Values that torch traced in one storage share memory only if views lead from one to
    the other: for a region that is called twice it may have traced results once.
    """
    while True:
        call = node.args[0] if node.target is operator.getitem else node
        assert isinstance(call, fx.Node)
        inputs = call.all_input_nodes if isinstance(call.target, OpOverload) else ()
        source = next((x for x in inputs if _storage(x) == _storage(node)), None)
        if source is None:
            return node if call is node else (call, node.args[1])
        node = source


def _storage(node: fx.Node) -> int:
    """What identifies the memory that torch traced a value in."""
    return _tensor(node).untyped_storage()._cdata if _is_dense(node) else id(node)


def take_from_the_origin(node: fx.Node) -> bool:
    """as_strided (view x) → as_strided x, where x made the memory of its views.

    It counts from the beginning of that memory, which a view that is stored as a tensor
    of its own does not have. False where it would have to, as the memory holds elements
    of another type.
    """
    first, *rest = node.args
    origin = _origin(first) if isinstance(first, fx.Node) else first
    if origin is first or not isinstance(origin, fx.Node):
        return True
    assert isinstance(first, fx.Node)
    if _tensor(origin).dtype != _tensor(first).dtype:
        return fills(first)
    start = rest[2] if len(rest) > 2 else node.kwargs.get("storage_offset")
    start = _tensor(first).storage_offset() if start is None else start
    if _form(origin) == _form(first) and not isinstance(start, torch.SymInt):
        node.args = (origin, *rest[:2])
        node.kwargs = {**node.kwargs, "storage_offset": start}  # type: ignore
    return True


def fills(node: fx.Node) -> bool:
    """Whether a tensor has memory of its own and all of it."""
    tensor = _tensor(node)
    try:
        count = product(map(to_dim, tensor.shape)) * tensor.itemsize
        whole = to_dim(tensor.untyped_storage().nbytes())
        return count == whole and to_dim(tensor.storage_offset()) == 0
    except Untranslatable:
        return False


def deliver(
    program: Program, outputs: Sequence[Output], *, gradients: bool = False
) -> Program:
    """The program with the outputs of the graph in place of the function's yields.

    Of what a gradient is a view nobody asks.
    """
    count = len(outputs)
    all_of_them = getattr(program, "count", None) == count
    program = getattr(program, "run", program)
    if list(outputs) == list(range(count)):
        return program if all_of_them else lambda arguments: program(arguments)[:count]
    bases = [o.base if isinstance(o, (View, Replay)) else o for o in outputs]
    passed = [base.index for base in bases if isinstance(base, Argument)]
    take = part_of if gradients else view_of
    picks = [_picker(output, take) for output in outputs]

    def run(arguments: list[Any]) -> list[Any]:
        kept = {k: arguments[k] for k in passed}
        made = program(arguments)
        return [pick(made, kept) for pick in picks]

    return run


def apart(
    outputs: Sequence[Output], count: int
) -> tuple[list[Output], Callable[[Program], Program]]:
    """Of the first `count` outputs, those in the memory of arguments, taken apart: the
    others, as a program is to deliver them; and what has a call of it end with all.

    The numbers that take them are delivered behind the others.
    """
    of_arguments = {k: o for k, o in enumerate(outputs[:count]) if _argument(o)}
    if not of_arguments:
        return list(outputs), lambda program: program
    numbers = [*dict.fromkeys(n for o in of_arguments.values() for n in _numbers(o))]
    others = [None if k in of_arguments else o for k, o in enumerate(outputs)]
    passed = [base.index for o in of_arguments.values() if (base := _argument(o))]
    picks = {k: _picker(output, view_of) for k, output in of_arguments.items()}

    def ended(program: Program) -> Program:
        def run(arguments: list[Any]) -> list[Any]:
            kept = {k: arguments[k] for k in passed}
            results = program(arguments)
            made = dict(zip(numbers, results[len(others) :], strict=True))
            delivered = results[: len(others)]
            for k, pick in picks.items():
                delivered[k] = pick(made, kept)
            return delivered

        return run

    return [*others, *numbers], ended


def _argument(output: Output) -> Argument | None:
    """The argument that an output lies in the memory of."""
    base = output.base if isinstance(output, (View, Replay)) else output
    return base if isinstance(base, Argument) else None


def _numbers(output: Output) -> Iterator[int]:
    """The numbers of the yields that say where an output lies in its base."""
    match output:
        case View():
            sizes = *output.shape, *output.strides, output.offset
        case Replay():
            sizes = tree_leaves(output.calls)
        case _:
            sizes = ()
    return (size.index for size in sizes if isinstance(size, Yielded))


_Yields = list[Any] | dict[int, Any]
_Pick = Callable[[_Yields, Mapping[int, Any]], Any]
"""Finds an output among what a call made, and the arguments that it kept."""


def _picker(output: Output, take: Callable[..., Any]) -> _Pick:
    match output:
        case Argument(index):
            return lambda made, kept: kept[index]
        case View():
            return _viewer(output, take)
        case Replay(base, calls):
            return _replayer(_picker(base, take), calls)
        case None:
            return lambda made, kept: None
        case _:
            return lambda made, kept: made[output]


def _viewer(view: View, take: Callable[..., Any]) -> _Pick:
    base, absolute = _picker(view.base, take), view.absolute
    parts: Any = view.shape, view.strides
    offset: Any = view.offset
    if any(isinstance(n, Yielded) for n in (*view.shape, *view.strides, offset)):

        def pick(made: _Yields, kept: Mapping[int, Any]) -> Any:
            held = base(made, kept)
            shape, strides = ([_number(n, made) for n in part] for part in parts)
            first = held.storage_offset() if absolute else 0
            return take(held, shape, strides, _number(offset, made) - first)

        return pick

    def pick_known(made: _Yields, kept: Mapping[int, Any]) -> Any:
        held = base(made, kept)
        first = held.storage_offset() if absolute else 0
        return take(held, *parts, offset - first)

    return pick_known


def _replayer(base: _Pick, calls: Sequence[Any]) -> _Pick:
    def pick(made: _Yields, kept: Mapping[int, Any]) -> Any:
        held = base(made, kept)
        for call, arguments, keywords in calls:
            held = call(held, *_filled(arguments, made), **_filled(keywords, made))
        return held

    return pick


def _filled(arguments: Any, made: _Yields) -> Any:
    return tree_map_only(Yielded, lambda size: made[size.index], arguments)


def _number(size: Size, made: _Yields) -> int:
    return made[size.index] if isinstance(size, Yielded) else size
