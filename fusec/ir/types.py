"""The types of values, one per kind of value that some level computes with.

    graph   Tensor   a whole tensor: element type, shape, strides
    loop    Points   one element at every point of a set of named axes
    tile    Tile     a block of elements with a layout; Buffer: memory with a layout
    all     Scalar   one element; Token: an effect, in order; Opaque (no tile): what
                     externs hand to externs

An axis has a name for people and an identity for the compiler: two axes that are
both called `i` are different unless they are the same object.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fusec.ir.dims import Dim, product
from fusec.ir.dtypes import DType
from fusec.ir.layout import Layout


class IllTyped(TypeError):
    """Operands or attributes that do not fit an op, or each other."""


class Space(Enum):
    """Where a buffer lives."""

    GLOBAL = "global"
    """Memory that the host can see."""
    SCRATCH = "scratch"
    """Memory private to one program of a launch: a stack, shared memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """A named dimension of an iteration space, `extent` points long."""

    name: str
    extent: Dim

    def __repr__(self) -> str:
        return f"Axis({self.name}:{self.extent})"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A whole tensor. Strides count elements; `None` means dense, row-major."""

    dtype: DType
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...] | None = None

    @property
    def bytes(self) -> Dim:
        """What the elements take, each once, in whole bytes."""
        return product(self.shape) * self.dtype.itembytes


@dataclass(frozen=True, slots=True)
class Points:
    """One element at every point of `axes`. The order of axes carries no meaning."""

    dtype: DType
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """A block of elements. `layout` is absent until layouts are assigned."""

    dtype: DType
    shape: tuple[Dim, ...]
    layout: Layout | None = None


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that holds elements at the bit addresses of `layout`."""

    dtype: DType
    layout: Layout
    space: Space = Space.GLOBAL


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single element, the same at every point, in every lane, on every level."""

    dtype: DType


@dataclass(frozen=True, slots=True)
class Token:
    """The order of an effect: who consumes it runs after who made it."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """What only externs can read and make: tensors of complex numbers, sparse ones."""


Type = Tensor | Points | Tile | Buffer | Scalar | Token | Opaque
Element = Tensor | Points | Tile | Scalar
"""The types that an elementwise op accepts."""


def strides_of(tensor: Tensor) -> tuple[Dim, ...]:
    """The strides of a tensor in elements, row-major where none are given."""
    if tensor.strides is not None:
        return tensor.strides
    strides: list[Dim] = []
    below: Dim = 1
    for extent in reversed(tensor.shape):
        strides.append(below)
        below = below * extent
    return tuple(reversed(strides))


def computed(type_: Element) -> Element:
    """The space of elements that are computed one by one from those of a space.

    A tensor that is read may have several elements in one place; one that is written
    has not, so it is row-major then.
    """
    if isinstance(type_, Tensor) and type_.strides and _may_overlap(type_):
        return Tensor(type_.dtype, type_.shape)
    return type_


def _may_overlap(tensor: Tensor) -> bool:
    """Whether strides can be seen to bring two elements together, or all are known
    and do not rise beyond what lies below them."""
    pairs = zip(tensor.shape, tensor.strides or (), strict=False)
    moving = [(stride, n) for n, stride in pairs if n != 1]
    if 0 in tensor.shape:
        return False
    strides = [stride for stride, _ in moving]
    if len(set(strides)) < len(strides) or 0 in strides:
        return True
    known = [(s, n) for s, n in moving if isinstance(s, int) and isinstance(n, int)]
    below = 0
    for stride, n in sorted(known):
        if stride <= below:
            return True
        below += stride * (n - 1)
    return False


def with_dtype(type_: Element, dtype: DType) -> Element:
    """The same space with another element type."""
    match type_:
        case Tensor(_, shape, strides):
            return Tensor(dtype, shape, strides)
        case Points(_, axes):
            return Points(dtype, axes)
        case Tile(_, shape, layout):
            return Tile(dtype, shape, layout)
        case Scalar():
            return Scalar(dtype)
        case _:
            raise TypeError(f"no elements of another dtype in {type(type_).__name__}")
