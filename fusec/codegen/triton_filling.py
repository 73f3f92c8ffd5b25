"""What loads give where nothing exists, of those that a guard follows.

x = tl.load(p, mask=m)                  x = tl.load(p, mask=m, other=0.0)
y = tl.where(m, x, 0.0)          →      y = x
tl.dot(y, …)                            tl.dot(y, …)
"""

from __future__ import annotations

from fusec.codegen.triton_text import literal
from fusec.ir.core import Block, Value
from fusec.ir.ops.contraction import DotTile
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.tile import Convert, Guard, LoadTile


def filling(block: Block) -> dict[Value, str]:
    """What loads, and conversions of them, may as well give where nothing exists: what
    the guard that follows would put there. Copies that run ahead can do that, so that
    tensor cores find factors where those put them; vector units, which have them in
    registers anyway, would run out of those sooner."""
    loads: dict[Value, LoadTile] = {}
    dots = [op for op in block.ops if isinstance(op, DotTile)]
    held = {v for op in dots for v in (op.x, op.y) if v.dtype is op.state.dtype}
    found: dict[Value, str] = {}
    for op in block.ops:
        if isinstance(op, LoadTile) and not op.masked:
            loads[op.result] = op
        elif isinstance(op, Convert) and op.x in loads:
            loads[op.result] = loads[op.x]
        elif isinstance(op, Guard) and op.x in loads and op.result not in held:
            load = loads[op.x]
            own = zip(op.limited, op.limits, strict=True)
            if {*own} <= {*load.limits.items()}:
                text = found.setdefault(load.result, nothing(op))
                found[op.x] = text
    return found


def nothing(op: Guard) -> str:
    """What a guard puts where nothing exists."""
    return literal(dtype_of(op.x), op.identity)
