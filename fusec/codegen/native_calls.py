"""Which externs native code calls by itself, and with what (see `runtime.shims`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from fusec.ir.calls import Slot
from fusec.ir.core import Value
from fusec.ir.ops.extern import Extern
from fusec.ir.types import Tensor
from fusec.runtime.shims import CREATE, DELETE, SHIMS, Shim

SCALAR_TYPES: Mapping[str, int] = {"f16": 5, "f32": 6, "f64": 7, "bf16": 15}
"""torch's numbers of the element types that matrix products take here."""


def callable_natively(exported: Collection[str]) -> Callable[[Extern], bool]:
    """The externs that have a C function, of those that this torch exports."""
    if not {CREATE, DELETE} <= set(exported):
        return lambda op: False
    known = {name for name, shim in SHIMS.items() if shim.symbol in exported}
    return lambda op: op.target in known and _fits(op, SHIMS[op.target])


def inputs_of(op: Extern) -> tuple[Value, ...]:
    """The tensors of a call that has a C function, in the order of its arguments."""
    places: tuple[Slot, ...] = op.arguments
    return tuple(op.operands[place.index] for place in places)


def factors_of(op: Extern) -> tuple[float, ...]:
    """The numbers of a call that has a C function, in the order of its arguments."""
    given = dict(op.keywords)
    return tuple(float(given.get(name, 1)) for name in SHIMS[op.target].factors)


def _fits(op: Extern, shim: Shim) -> bool:
    """The call gives what the function takes, and wants a dense result."""
    if not all(isinstance(argument, Slot) for argument in op.arguments):
        return False
    factors = dict(op.keywords)
    return (
        len(op.arguments) == shim.tensors
        and factors.keys() <= set(shim.factors)
        and all(isinstance(x, (int, float)) for x in factors.values())
        and all(map(_plain, (*op.operands, *op.results)))
        and all(
            isinstance(v.type, Tensor) and v.type.strides is None for v in op.results
        )
    )


def _plain(value: Value) -> bool:
    return isinstance(value.type, Tensor) and value.type.dtype.name in SCALAR_TYPES
