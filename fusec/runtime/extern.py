"""Calls to torch ops that fusec does not compile, prepared once and run many times.

    extern "aten.slice.Tensor" ($0, 1, 2, s0 - 1)
                    ↓ bind
    call([x], {s0: 8})  →  (aten.slice.Tensor(x, 1, 2, 7),)

Binding looks the op up and turns its argument tree into closures, so that a call only
fills in what varies: operands and sizes. A symbol that a result defines, as the number
of rows that `nonzero` found, enters the sizes of the call.

What an op returns need not be what torch traced: meta functions err about strides. The
kernels around it rely on its type, so each result is checked, and copied if need be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from fusec.errors import InternalError, UserError
from fusec.ir.calls import Named, Slot
from fusec.ir.dims import Dim, Expr, Symbol, evaluate
from fusec.runtime.recipe import Call, Counted, Form, Result
from fusec.runtime.tensors import torch_dtype

Sizes = dict[Any, int]
"""What symbols are in a call, and what was made of them so far."""
Bound = Callable[[Sequence[Any], Sizes], tuple[Any, ...]]
"""Operands (tensors, and numbers for scalars) and sizes → results, flat."""

_Fill = Callable[[Sequence[Any], Sizes], Any]


def resolve(target: str, callables: Mapping[str, Callable[..., Any]]) -> Any:
    """The function that an extern names: one of `callables`, or an overload of torch's.

    An overload whose results may be views of its arguments gives copies instead: no
    value of a program shares memory with another. Raises `UserError` for a name that
    torch does not know, as when a custom op was not registered in this process.
    """
    if target in callables:
        return callables[target]
    namespace, _, rest = target.partition(".")
    name, _, overload = rest.rpartition(".")
    try:
        op = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    except AttributeError:
        raise UserError(
            f"torch has no operator {target}",
            fix="import the module that registers it before running the program",
        ) from None
    return _copying(op) if _aliases(op) else op


def bind(call: Call, callables: Mapping[str, Callable[..., Any]]) -> Bound:
    """Prepare a call. Each time it gives its results in their order.

    It raises what the op raises; for a result of another dtype or shape than its form
    says `InternalError`, or `UserError` where the op is the user's.
    """
    function = resolve(call.target, callables)
    arguments = _fill_tuple(call.arguments)
    keywords = {name: _fill(value) for name, value in call.keywords}
    receive = tuple(_receiver(call, result) for result in call.results)

    def run(operands: Sequence[Any], sizes: Sizes) -> tuple[Any, ...]:
        named = {name: fill(operands, sizes) for name, fill in keywords.items()}
        made = _leaves(function(*arguments(operands, sizes), **named))
        return tuple([r(x, sizes) for r, x in zip(receive, made, strict=True)])

    return run


def _receiver(call: Call, form: Result) -> Callable[[Any, Sizes], Any]:
    """What takes one result: it learns sizes from it and checks its form."""
    if isinstance(form, Counted):
        return _scalar_receiver(form.name)
    if form is None:
        return lambda result, sizes: result
    return _tensor_receiver(call, form)


def _tensor_receiver(call: Call, form: Form) -> Callable[[Any, Sizes], Any]:
    shape, strides, dtype = form.shape, form.strides, torch_dtype(form.dtype)
    fresh = tuple((d, n) for d, n in enumerate(shape) if isinstance(n, Symbol))

    def receive(result: torch.Tensor, sizes: Sizes) -> torch.Tensor:
        for d, symbol in fresh:
            sizes.setdefault(symbol, result.shape[d])
        wanted = evaluated(shape, sizes)
        # What an op was told not to compute is empty, and of any dtype.
        same = result.dtype is dtype or result.numel() == 0
        if result.shape != wanted or not same:
            raise _other_than_traced(call, result, form, wanted)
        return _with_strides(result, evaluated(strides, sizes))

    return receive


def _other_than_traced(
    call: Call, result: torch.Tensor, form: Form, shape: tuple[int, ...]
) -> Exception:
    what = (
        f"{call.target} gave {result.dtype}{list(result.shape)},"
        f" but was traced to give {torch_dtype(form.dtype)}{list(shape)}"
    )
    if call.target.startswith(("aten.", "prims.")):
        return InternalError(what, call.loc)
    fix = "let what its register_fake gives have the dtype and shape of its results"
    return UserError(what, call.loc, fix)


def _scalar_receiver(name: str) -> Callable[[Any, Sizes], Any]:
    if not name:
        return lambda result, sizes: result

    def receive(result: Any, sizes: Sizes) -> Any:
        sizes[Symbol(name)] = int(result)
        return result

    return receive


def _with_strides(x: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
    """x itself, or a copy if its strides differ where they matter."""
    if x.stride() == strides or x.numel() <= 1:
        return x
    pairs = zip(x.shape, x.stride(), strides, strict=True)
    if all(size == 1 or a == b for size, a, b in pairs):
        return x
    return x.new_empty_strided(x.shape, strides).copy_(x)


def number(dim: Dim, sizes: Sizes) -> int:
    """The value of a dim, which is worked out once in a call."""
    if isinstance(dim, int):
        return dim
    known = sizes.get(dim)
    if known is None:
        known = sizes[dim] = evaluate(dim, sizes)
    return known


def evaluated(dims: Sequence[Dim], sizes: Sizes) -> tuple[int, ...]:
    """Dims in one call, as numbers."""
    return tuple([n if isinstance(n, int) else number(n, sizes) for n in dims])


def _fill(argument: Any) -> _Fill:
    """What computes one argument of a call."""
    if isinstance(argument, Slot):
        index = argument.index
        return lambda operands, sizes: operands[index]
    if isinstance(argument, Expr):
        return lambda operands, sizes: number(argument, sizes)
    if isinstance(argument, tuple):
        return _fill_tuple(argument)
    constant = named(argument)
    return lambda operands, sizes: constant


def _fill_tuple(arguments: tuple[Any, ...]) -> _Fill:
    if not any(map(_varies, arguments)):
        constants = tuple(_fill(argument)((), {}) for argument in arguments)
        return lambda operands, sizes: constants
    fills = tuple(_fill(argument) for argument in arguments)
    return lambda operands, sizes: tuple([fill(operands, sizes) for fill in fills])


def _varies(argument: Any) -> bool:
    if isinstance(argument, tuple):
        return any(map(_varies, argument))
    return isinstance(argument, (Slot, Expr))


def named(argument: Any) -> Any:
    """What torch knows by a name; anything else as it is."""
    if not isinstance(argument, Named):
        return argument
    if argument.kind == "device":
        return torch.device(argument.name)
    return getattr(torch, argument.name)


def _leaves(result: Any) -> Iterator[Any]:
    """The results of a call in order, lists taken apart, without None."""
    if isinstance(result, (tuple, list)):
        for part in result:
            yield from _leaves(part)
    elif result is not None:
        yield result


def _aliases(op: Any) -> bool:
    returns = op._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _copying(op: Any) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> list[Any]:
        return [_copied(view) for view in _leaves(op(*arguments, **keywords))]

    return call


def _copied(view: torch.Tensor) -> torch.Tensor:
    """Row-major, as kernels expect it; what they cannot read keeps its strides."""
    if view.is_complex() or view.is_quantized or view.layout is not torch.strided:
        return view.clone()
    return view.clone(memory_format=torch.contiguous_format)
