"""The externs that torch's C interface has: native code calls them without Python.

AOTInductor's "shims" are C functions that libtorch exports with a stable interface,
one for many ATen ops (torch/csrc/inductor/aoti_torch). A call takes tensor *handles*,
made around memory that is there already:

    int aoti_torch_create_tensor_from_blob(
        void *data, int64_t ndim, const int64_t *sizes, const int64_t *strides,
        int64_t storage_offset, int dtype, int device_type, int device_index,
        Handle *made);
    int aoti_torch_cpu_mm_out(Handle out, Handle self, Handle mat2);
    int aoti_torch_delete_tensor_object(Handle);

Each returns 0, or an error code once it has caught the exception: the message is lost,
so a call that failed is made again through Python. The shims go to the CPU's kernels,
past the dispatcher: no dispatch mode sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from fusec.ir.core import Value
from fusec.ir.ops.extern import Extern, Slot
from fusec.ir.types import Tensor

CREATE = "aoti_torch_create_tensor_from_blob"
DELETE = "aoti_torch_delete_tensor_object"

SCALAR_TYPES: Mapping[str, int] = {"f16": 5, "f32": 6, "f64": 7, "bf16": 15}
"""torch's numbers of the element types that matrix products take here."""


@dataclass(frozen=True, slots=True)
class Shim:
    """A C function of the form `int f(Handle out, Handle…, double…)`."""

    symbol: str
    tensors: int
    """Positional arguments, all tensors."""
    factors: tuple[str, ...] = ()
    """Keyword arguments in the order of the function's, 1 where not given."""


SHIMS: Mapping[str, Shim] = {
    "aten.mm.default": Shim("aoti_torch_cpu_mm_out", 2),
    "aten.bmm.default": Shim("aoti_torch_cpu_bmm_out", 2),
    "aten.addmm.default": Shim("aoti_torch_cpu_addmm_out", 3, ("beta", "alpha")),
    "aten.baddbmm.default": Shim("aoti_torch_cpu_baddbmm_out", 3, ("beta", "alpha")),
}

SYMBOLS = frozenset({CREATE, DELETE, *(shim.symbol for shim in SHIMS.values())})
"""Every C function that native code may call."""


def callable_natively(exported: Collection[str]) -> Callable[[Extern], bool]:
    """The externs that have a C function, of those that this torch exports."""
    if not {CREATE, DELETE} <= set(exported):
        return lambda op: False
    known = {name for name, shim in SHIMS.items() if shim.symbol in exported}
    return lambda op: op.target in known and _fits(op, SHIMS[op.target])


def inputs_of(op: Extern) -> tuple[Value, ...]:
    """The tensors of a call that has a C function, in the order of its arguments."""
    return tuple(op.operands[slot.index] for slot in op.arguments)


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
