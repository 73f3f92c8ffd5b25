"""Products of blocks, as matrices.

    %p = dot_tile %x, %y, %s dims=(2,)      dot = tl.dot(x, y, s, …)

Triton multiplies what has rows and columns alone: dimensions that one factor has are
taken together, and so are those that are summed over.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusec.codegen.triton_blocks import dims_of
from fusec.codegen.triton_kernel import Kernel
from fusec.codegen.triton_rows import named
from fusec.codegen.triton_text import tupled
from fusec.ir.core import Value
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.pointwise import dtype_of


def dot_tile(k: Kernel, op: DotTile) -> None:
    """As matrices: what one factor has alone, and what is summed over."""
    dims = [d for d in op.dims if d in k.blocks]
    rows = [d for d in dims_of(op.x) if d not in dims]
    columns = [d for d in dims_of(op.y) if d not in dims]
    m, n, depth = (
        " * ".join(k.blocks[d] for d in own) or "1" for own in (rows, columns, dims)
    )
    left = _matrix(k, op.x, [*rows, *dims], (m, depth))
    right = _matrix(k, op.y, [*dims, *columns], (depth, n))
    start = _matrix(k, op.state, [*rows, *columns], (m, n))
    exact = f'input_precision="ieee", out_dtype={named(dtype_of(op.state))}'
    text = f"tl.dot({left}, {right}, {start}, {exact})"
    order = [*rows, *columns]
    if len(order) != 2:
        text = f"tl.reshape({text}, {tupled([k.blocks[d] for d in order])})"
    if order != sorted(order):
        back = tupled([order.index(d) for d in sorted(order)])
        text = f"tl.permute({text}, {back})"
    k.define(op.result, text, "dot")


def _matrix(k: Kernel, value: Value, dims: Sequence[int], shape: Sequence[str]) -> str:
    """A block as a matrix, its dimensions in this order."""
    text, own = k.names[value], dims_of(value)
    if own != [*dims]:
        text = f"tl.permute({text}, {tupled([own.index(d) for d in dims])})"
    return text if len(own) == 2 else f"tl.reshape({text}, {tupled(shape)})"
