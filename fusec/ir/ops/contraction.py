"""Products summed over a shared dimension."""

from __future__ import annotations

from typing import Any

from fusec.ir.core import Block, Level, Op, Values
from fusec.ir.opdef import operand
from fusec.ir.ops.view import tensor
from fusec.ir.types import IllTyped, Tensor, Type


class Matmul(Op, name="matmul", levels=(Level.GRAPH,)):
    """`x[…, m, k] @ y[…, k, n]`, batch dimensions equal."""

    x = operand()
    y = operand()

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        x, y = (tensor(v.type) for v in operands)
        fits = (
            x.dtype is y.dtype
            and len(x.shape) == len(y.shape) >= 2
            and x.shape[:-2] == y.shape[:-2]
            and x.shape[-1] == y.shape[-2]
        )
        if not fits:
            raise IllTyped(f"matmul of {x} and {y} does not fit")
        return (Tensor(x.dtype, (*x.shape[:-1], y.shape[-1])),)
