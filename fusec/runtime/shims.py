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

from collections.abc import Mapping
from dataclasses import dataclass

CREATE = "aoti_torch_create_tensor_from_blob"
DELETE = "aoti_torch_delete_tensor_object"


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
