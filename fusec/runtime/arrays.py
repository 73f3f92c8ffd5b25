"""Programs and externs on numpy arrays, for functions that were read from a file.

    results = call(program, host_function, arrays)
    interpret(function, arrays, extern=extern_calls(function, arrays))

An array holds elements in the carrier of their dtype, as in the interpreter; torch
computes on tensors of the dtype itself, with the strides that the type says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from fusec.errors import UserError
from fusec.ir.core import Function, Value
from fusec.ir.dims import Dim, Symbol, evaluate
from fusec.ir.dtypes import DType
from fusec.ir.interpreter import bind_symbols
from fusec.ir.ops.extern import Extern
from fusec.ir.types import Opaque, Tensor, Type, strides_of
from fusec.runtime.extern import bind
from fusec.runtime.tensors import TORCH_DTYPES, in_memory
from fusec.runtime.write import call_of


def call(
    program: Callable[[list[Any]], list[Any]],
    function: Function,
    arguments: Sequence[Any],
) -> tuple[Any, ...]:
    """What a program gives for arguments of its host function.

    Raises `UserError` for a dtype that torch lacks.
    """
    sizes = bind_symbols(function, arguments)
    pairs = zip(arguments, function.params, strict=True)
    tensors = [to_tensor(x, param.type, sizes) for x, param in pairs]
    return tuple(map(to_array, program(tensors)))


def extern_calls(
    function: Function,
    arguments: Sequence[Any],
    callables: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
    tensors: Sequence[Any] = (),
    device: str = "cpu",
) -> Callable[..., Any]:
    """What `interpret` calls for the externs of a function, in program order.

    `callables` are those that have no name in torch. `tensors` are the arguments as
    they lie in memory, where a call may read what is between their elements. Calls are
    given tensors on `device`.
    """
    sizes = bind_symbols(function, arguments)
    externs = (op for op in function.body.ops if isinstance(op, Extern))
    given = dict(zip(function.params, tensors, strict=False))

    def operand(array: Any, value: Value) -> Any:
        if value in given and isinstance(value.type, Tensor):
            return duplicate(given[value])
        return to_tensor(array, value.type, sizes, device)

    def run(target: str, arguments: Any, keywords: Any, passed: Any) -> list[Any]:
        op = next(externs)
        tensors = [operand(x, v) for x, v in zip(passed, op.operands, strict=True)]
        results = zip(
            op.results, bind(call_of(op), callables)(tensors, sizes), strict=True
        )
        return [x if isinstance(v.type, Opaque) else to_array(x) for v, x in results]

    return run


def to_tensor(
    array: Any, type_: Type, sizes: Mapping[Symbol, int], device: str = "cpu"
) -> Any:
    """The tensor, of the type's dtype and strides, that an array stands for."""
    if not isinstance(type_, Tensor):
        return array
    # Of no dimensions, numpy's own ops give numbers.
    if any(step < 0 for step in getattr(array, "strides", ())):
        array = array.copy()  # torch has no such strides
    dense = torch.as_tensor(array).to(_torch_dtype(type_.dtype))
    strides = tuple(_value(stride, sizes) for stride in strides_of(type_))
    # Along a stride of 0 all elements share one place, which is written once.
    once = dense[tuple(slice(0, None if s else 1) for s in strides)]
    place = {"dtype": dense.dtype, "device": device}
    made = torch.empty_strided(once.shape, strides, **place).copy_(once)
    return made.expand(dense.shape)


def duplicate(x: torch.Tensor) -> torch.Tensor:
    """An equal tensor at the same place in a copy of the whole memory."""
    count = x.untyped_storage().nbytes() // x.itemsize
    memory = x.detach().as_strided((count,), (1,), 0).clone()
    return memory.as_strided(x.shape, x.stride(), x.storage_offset())


def to_array(x: Any) -> Any:
    """A tensor as an array in its dtype's carrier; a number as it is."""
    if not isinstance(x, torch.Tensor):
        return x
    narrow = x.is_floating_point() and x.itemsize < 4 and x.dtype is not torch.float16
    x = in_memory(x.float() if narrow else x).detach()
    return x.cpu().contiguous().resolve_neg().numpy()


def _torch_dtype(dtype: DType) -> torch.dtype:
    if dtype.name not in TORCH_DTYPES:
        raise UserError(
            f"torch has no tensors of {dtype.name}",
            fix="interpret the function instead: `fusec run --interpret`",
        )
    return TORCH_DTYPES[dtype.name]


def _value(dim: Dim, sizes: Mapping[Symbol, int]) -> int:
    return dim if isinstance(dim, int) else evaluate(dim, sizes)


def threads() -> int:
    """The threads that torch lends to a kernel."""
    return torch.get_num_threads()
