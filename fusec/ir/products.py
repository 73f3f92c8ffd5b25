"""Sums of products on the loop level: what is a contraction, whoever wrote it.

%p = mul %x, %y
%s = reduce %p over k sum          nobody else reads %p
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from fusec.ir.core import Block
from fusec.ir.ops.elementwise import Mul
from fusec.ir.ops.reduction import Reduce


def summed_products(block: Block) -> Mapping[Reduce, Mul]:
    """The products of a block that are summed up and nothing else, by their sums."""
    uses = Counter(value for op in block.ops for value in op.operands)
    muls = {op.result: op for op in block.ops if isinstance(op, Mul)}
    found: dict[Reduce, Mul] = {}
    for op in block.ops:
        if isinstance(op, Reduce) and op.monoid.name.startswith("sum<"):
            (value,) = op.values
            if value in muls and uses[value] == 1 and value not in block.yields:
                found[op] = muls[value]
    return found
