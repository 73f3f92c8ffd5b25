"""Layouts of powers of two as matrices over F2, where addition is xor.

Where all extents are powers of two and no two digits touch the same bit of a place,
adding digits is xoring them, so the layout is linear: the place of a coordinate is
the xor of the places of its bits. Shears are linear too, and this is the form in
which a swizzled layout is inverted or ranked (after Triton's LinearLayout).

    (4:lane@2 2:reg)    column of bit 0: reg 1, of bit 1: lane 2, of bit 2: lane 4
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fusec.ir.layout.core import Layout
from fusec.ir.layout.digits import (
    MEM,
    Digit,
    Digits,
    NotRepresentable,
    Step,
    known,
    steps,
)

Column = tuple[int, ...]  # the place of one bit, on each axis


@dataclass(frozen=True, slots=True)
class BitMatrix:
    """A linear map from the bits of coordinates to the bits of places.

    `columns[dim][bit]` is the place of that bit of that coordinate, on each of
    `axes`; `replicas` are columns that no coordinate feeds.
    """

    axes: tuple[str, ...]
    columns: tuple[tuple[Column, ...], ...]
    replicas: tuple[Column, ...] = ()

    def __call__(self, coords: Sequence[int]) -> Column:
        """The place of the first copy of an element."""
        place = [0] * len(self.axes)
        for bits, coordinate in zip(self.columns, coords, strict=True):
            for bit, column in enumerate(bits):
                if coordinate >> bit & 1:
                    place = [a ^ b for a, b in zip(place, column, strict=True)]
        return tuple(place)

    @property
    def bits(self) -> int:
        """The dimension of the domain, replicas included."""
        return sum(map(len, self.columns)) + len(self.replicas)

    @property
    def rank(self) -> int:
        """The dimension of the image."""
        return len(_basis(self._flat()))

    @property
    def nullity(self) -> int:
        """The dimension of the kernel: 0 for an injective map."""
        return self.bits - self.rank

    def _flat(self) -> Iterator[int]:
        """Each column as one integer, the axes side by side."""
        every = [*self.replicas, *(c for bits in self.columns for c in bits)]
        width = max((v.bit_length() for c in every for v in c), default=0)
        for column in every:
            yield sum(v << i * width for i, v in enumerate(column))


def _basis(vectors: Iterable[int]) -> list[int]:
    """A basis of the span, by Gaussian elimination."""
    basis: list[int] = []
    for vector in vectors:
        for pivot in basis:
            vector = min(vector, vector ^ pivot)
        if vector:
            basis.append(vector)
    return basis


def to_bits(layout: Layout) -> BitMatrix:
    """The layout as a matrix over F2.

    Raises NotRepresentable if it is offset, an extent is no power of two, or digits
    meet in a bit and could carry.
    """
    if layout.offset:
        raise NotRepresentable(f"an offset is not linear: {layout}")
    dims = [steps(digits) for digits in layout.dims]
    copies = [Step(digit, 0) for digit in layout.replicas]
    _check_apart(step.digit for step in (*copies, *(s for dim in dims for s in dim)))
    return BitMatrix(
        layout.axes,
        tuple(_columns(layout, reversed(dim)) for dim in dims),
        _columns(layout, reversed(copies)),
    )


def _check_apart(digits: Iterable[Digit]) -> None:
    taken: dict[str, int] = {}
    for digit in digits:
        size, stride = known(digit.extent), known(digit.stride)
        if size & size - 1:
            raise NotRepresentable(f"the extent {size} is no power of two")
        for bit in range(size.bit_length() - 1):
            value = stride << bit
            if taken.get(digit.axis, 0) & value:
                raise NotRepresentable(f"digits meet in a bit of {digit.axis}")
            taken[digit.axis] = taken.get(digit.axis, 0) | value


def _columns(layout: Layout, minor_to_major: Iterable[Step]) -> tuple[Column, ...]:
    return tuple(
        _column(layout, step.digit, bit)
        for step in minor_to_major
        for bit in range(known(step.digit.extent).bit_length() - 1)
    )


def _column(layout: Layout, digit: Digit, bit: int) -> Column:
    value = known(digit.stride) << bit
    for shear in layout.xor:
        value = shear.apply(value) if shear.axis == digit.axis else value
    return tuple(value if axis == digit.axis else 0 for axis in layout.axes)


def from_bits(matrix: BitMatrix) -> Layout:
    """The layout of digits with this matrix, in canonical form.

    Raises NotRepresentable if a bit has a place on two axes, or bits meet in one bit
    of a place: that is a shear, or worse.
    """
    dims = [_digits(matrix.axes, bits) for bits in matrix.columns]
    replicas = _digits(matrix.axes, matrix.replicas)
    _check_apart(digit for digits in (*dims, replicas) for digit in digits)
    return Layout(dims, None, replicas).canonicalize()


def _digits(axes: Sequence[str], columns: Sequence[Column]) -> Digits:
    return tuple(_digit(axes, column) for column in reversed(columns))


def _digit(axes: Sequence[str], column: Column) -> Digit:
    moved = [(v, axis) for v, axis in zip(column, axes, strict=True) if v]
    if len(moved) > 1:
        raise NotRepresentable(f"a bit that moves on several axes: {moved}")
    value, axis = moved[0] if moved else (0, MEM)
    return Digit(2, value, axis)
