"""Products summed over a shared dimension, once for whole tensors, once for tiles.

    %c = matmul %x, %y                   f32[m, k] × f32[k, n] → f32[m, n]
    %t = dot_tile %s, %x, %y             [m, k, 1] × [1, k, n] onto [m, 1, n]

On the loop level a contraction is a sum of products like any other: `reduce` of `mul`.
"""

from __future__ import annotations

from typing import Any

from fusec.ir.core import Block, Level, Op, Values
from fusec.ir.dims import Dim
from fusec.ir.dtypes import DType, bf16, f16, f32
from fusec.ir.opdef import attr, operand
from fusec.ir.ops.view import tensor
from fusec.ir.types import IllTyped, Tensor, Tile, Type


class Matmul(Op, name="matmul", levels=(Level.GRAPH,)):
    """`x[…, m, k] @ y[…, k, n]`, batch dimensions equal, of `dtype`.

    Products are added up in that dtype, those of f16 and bf16 in f32: they are rounded
    once, in the end.
    """

    x = operand()
    y = operand()
    dtype = attr(DType)

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
        return (Tensor(attrs[0], (*x.shape[:-1], y.shape[-1])),)


def summed_in(dtype: DType) -> DType:
    """The dtype in which a product of some dtype is added up."""
    return f32 if dtype in (f16, bf16) else dtype


class DotTile(Op, name="dot_tile", levels=(Level.TILE,)):
    """`state` plus the products of x and y, summed along what the state lacks.

    Dimensions of extent 1 are repeated, so those that the state has with extent 1, but
    x or y with more, are summed over; along the others, products are added element by
    element. x and y may be narrower than the state; then products are exact.
    """

    state = operand()
    x = operand()
    y = operand()

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimensions that are summed over."""
        return tuple(
            d for d, n in enumerate(self.state.shape) if n == 1 != self.joined[d]
        )

    @property
    def joined(self) -> tuple[Dim, ...]:
        """The extents of x and y together."""
        return _joined(self.x.shape, self.y.shape)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        state, x, y = (_tile(value.type) for value in operands)
        if not len(state.shape) == len(x.shape) == len(y.shape):
            raise IllTyped(f"dot_tile of {x} and {y} onto {state}: ranks differ")
        whole = _joined(x.shape, y.shape)
        for part in (state, x, y):
            if any(n not in (1, m) for n, m in zip(part.shape, whole, strict=True)):
                raise IllTyped(f"dot_tile of {x} and {y} onto {state} does not fit")
        if x.dtype is not y.dtype or not _sums_up(state.dtype, x.dtype):
            raise IllTyped(f"dot_tile of {x} and {y} onto {state}: dtypes differ")
        return (state,)


def _tile(type_: Type) -> Tile:
    if not isinstance(type_, Tile):
        raise IllTyped(f"expected a tile, not {type_}")
    return type_


def _sums_up(wide: DType, narrow: DType) -> bool:
    """Whether products of elements of one dtype may be added up in another."""
    alike = wide.is_float == narrow.is_float and not narrow.is_bool
    return wide is narrow or (alike and wide.bits > narrow.bits)


def _joined(x: tuple[Dim, ...], y: tuple[Dim, ...]) -> tuple[Dim, ...]:
    return tuple(m if n == 1 else n for n, m in zip(x, y, strict=True))
