"""What one elementwise op computes over: the same rule for every family that needs it.

graph, tile   equal shapes; broadcasting is an op
loop          the union of axes
scalars       join any space, and alone they stay scalar
"""

from __future__ import annotations

from collections.abc import Sequence

from fusec.ir.types import (
    Axis,
    Element,
    IllTyped,
    Points,
    Scalar,
    Tensor,
    Tile,
    Type,
    computed,
)


def common_space(types: Sequence[Type]) -> Element:
    """The space that elementwise operands share, with the first operand's dtype.

    Raises `IllTyped` where they share none.
    """
    wide = [t for t in types if not isinstance(t, Scalar)]
    if not wide:
        return types[0]  # type: ignore[return-value]
    first = wide[0]
    if isinstance(first, Points):
        return Points(first.dtype, _union(wide))
    if not isinstance(first, (Tensor, Tile)):
        raise IllTyped(f"no elements in {first}")
    for other in wide[1:]:
        if not isinstance(other, type(first)) or other.shape != first.shape:
            raise IllTyped(f"{first} and {other} differ in shape; broadcast first")
    return computed(first)


def _union(types: Sequence[Type]) -> tuple[Axis, ...]:
    axes: dict[Axis, None] = {}
    for type_ in types:
        if not isinstance(type_, Points):
            raise IllTyped(f"{type_} among points")
        axes.update(dict.fromkeys(type_.axes))
    return tuple(axes)


def check_dims(name: str, dims: tuple[int, ...], rank: int) -> None:
    """That an op names different dimensions, all of which there are."""
    if len(set(dims)) < len(dims) or not all(0 <= dim < rank for dim in dims):
        raise IllTyped(f"{name}: dims {dims} of {rank}")
