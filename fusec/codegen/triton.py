"""Tile IR → Triton source: one readable jit function a kernel.

    %t = load_tile %x, %o, %n  limited=(0,) strides=(1,) : tile<f32 [1024]>
    %e = neg %t
        →
    i = tl.arange(0, BLOCK_I)
    # softmax.py:4  return torch.softmax(-x, -1)
    t = tl.load(x + o + i, mask=i < n)
    neg = t * -1.0

Takes kernels in the form of `passes.pipeline.lower_kernel`: with loops, every tile one
block, whose extents are powers of two. Registers and lanes are Triton's own: of layouts
only the extents matter. A kernel takes the addresses of its buffers, then its sizes as
i64, then the extents of its blocks: those are constants that Triton is told, so one
text serves all blocks that hold whole what these hold and divide what these divide.

    triton_text     names, numbers          triton_memory    loads, stores, descriptors
    triton_blocks   extents of blocks       triton_filling   loads that guards follow
    triton_kernel   one kernel as it grows  triton_reduce    reductions, scans
    triton_rows     elementwise ops         triton_dot       products
                                            triton_grids     several grids a launch

What the rows of `triton_rows` lack was expanded before.
"""

from __future__ import annotations

from fusec.analysis.descriptors import descriptor_bytes
from fusec.codegen.backend import Emitted
from fusec.codegen.triton_blocks import dims_of
from fusec.codegen.triton_dot import dot_tile
from fusec.codegen.triton_grids import Grids, parts_of
from fusec.codegen.triton_kernel import Handlers, Kernel
from fusec.codegen.triton_memory import (
    describe,
    fetch_tile,
    guard,
    load_tile,
    store_tile,
)
from fusec.codegen.triton_reduce import reduce_tile, scan_tile
from fusec.codegen.triton_rows import named, supports
from fusec.codegen.triton_text import bare, literal
from fusec.ir.core import Function
from fusec.ir.dtypes import DType
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.reduction import ReduceTile, ScanTile
from fusec.ir.ops.tile import (
    BlockCount,
    BlockExtent,
    BroadcastTile,
    Convert,
    FetchTile,
    For,
    Guard,
    IotaTile,
    LoadTile,
    ProgramId,
    StoreTile,
)
from fusec.ir.types import Buffer
from fusec.target import Target

__all__ = ["emit", "supports"]


def emit(function: Function, target: Target) -> Emitted:
    """Python source that defines the kernel `function.name`.

    The same function gives the same text in every process. Raises `InternalError` on an
    op that no row covers and on blocks that are no powers of two long.
    """
    grids = parts_of(function)
    kernel = Grids(function, _HANDLERS) if grids else Kernel(function, _HANDLERS)
    text = kernel.text()
    buffers = (p.type for p in function.params if isinstance(p.type, Buffer))
    pointers = (f"*{_short(buffer.dtype)}" for buffer in buffers)
    types = (*pointers, *("i64" for _ in function.symbols))
    return Emitted(text, types, kernel.constants, descriptor_bytes(function))


def _short(dtype: DType) -> str:
    """`tl.float32` is fp32 in a signature."""
    name = named(dtype).removeprefix("tl.")
    if name == "bfloat16":
        return "bf16"
    for long, short in (("float", "fp"), ("uint", "u"), ("int", "i")):
        if name.startswith(long):
            return short + name.removeprefix(long)
    return name


def _const(k: Kernel, op: Const) -> None:
    k.names[op.result] = literal(op.dtype, op.value)


def _size(k: Kernel, op: SizeOf) -> None:
    k.names[op.result] = k.size(op.dim)
    low, _ = k.function.facts.range(op.dim)
    if low is not None and low > 0:
        k.positive.add(op.result)


def _block_extent(k: Kernel, op: BlockExtent) -> None:
    k.names[op.result] = k.blocks[op.dim]


def _block_count(k: Kernel, op: BlockCount) -> None:
    k.names[op.result] = f"tl.cdiv({bare(k.size(op.size))}, {k.blocks[op.dim]})"
    k.positive.add(op.result)


def _program_id(k: Kernel, op: ProgramId) -> None:
    k.define(op.result, "tl.program_id(0).to(tl.int64)", "pid")


def _iota(k: Kernel, op: IotaTile) -> None:
    dim: int = op.dim
    dims = dims_of(op.result)
    text = k.tensor(op.origin)
    if dim in dims:
        text = f"{text} + {k.place(dim, dims)}.to(tl.int64)"
    if {*dims} - {dim}:
        text = f"tl.broadcast_to({text}, {k.shape(op.result)})"
    k.define(op.result, text, "place")


def _broadcast(k: Kernel, op: BroadcastTile) -> None:
    text, shape = k.aligned(op.x, dims_of(op.result)), k.shape(op.result)
    if text.isidentifier() or "[" in text:
        text = f"tl.broadcast_to({text}, {shape})"
    else:
        text = f"tl.full({shape}, {text}, {named(dtype_of(op.x))})"
    k.define(op.result, text, op.x.hint or "wide")


def _convert(k: Kernel, op: Convert) -> None:
    k.names[op.result] = k.names[op.x]


def _for(k: Kernel, op: For) -> None:
    counter, *carried = op.body.params
    for value, init in zip(carried, op.inits, strict=True):
        k.define(value, k.tensor(init), "state")
    raw = k.fresh(counter.hint or "k")
    block = k.extents.get(op.along, 1)
    step = k.blocks[op.along] if op.step == block > 1 else str(op.step)
    bounds = f"{k.names[op.lo]}, {k.names[op.hi]}, {step}"
    describe(k, op.body)
    descriptors = dict(k.descriptors)
    k.line(f"for {raw} in range({bounds}):")
    k.depth += 1
    told = k.told
    k.define(counter, f"tl.cast({raw}, tl.int64)", "at")
    k.block(op.body)
    if carried:
        names = ", ".join(k.names[v] for v in carried)
        k.line(f"{names} = {', '.join(k.tensor(v) for v in op.body.yields)}")
    k.depth -= 1
    k.told, k.descriptors = told, descriptors
    for result, value in zip(op.results, carried, strict=True):
        k.names[result] = k.names[value]


_HANDLERS: Handlers = {
    Const: _const,
    SizeOf: _size,
    ProgramId: _program_id,
    BlockExtent: _block_extent,
    BlockCount: _block_count,
    LoadTile: load_tile,
    FetchTile: fetch_tile,
    StoreTile: store_tile,
    IotaTile: _iota,
    BroadcastTile: _broadcast,
    Convert: _convert,
    Guard: guard,
    ReduceTile: reduce_tile,
    ScanTile: scan_tile,
    DotTile: dot_tile,
    For: _for,
}
