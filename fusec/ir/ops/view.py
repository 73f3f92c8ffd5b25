"""Whole-tensor ops that move elements without computing on them.

They live on the graph level only: below it a view is an affine index, and none of
them costs a kernel of its own.
"""

from __future__ import annotations

from typing import Any

from fusec.ir.core import Block, Level, Op, Value, Values
from fusec.ir.dims import Dim, product
from fusec.ir.dtypes import bool_, i64
from fusec.ir.opdef import attr, operand, operands
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.reduction import ScanDim
from fusec.ir.ops.space import check_dims
from fusec.ir.ops.updating import check_way
from fusec.ir.types import IllTyped, Scalar, Tensor, Tile, Type

GRAPH = (Level.GRAPH,)


def tensor(type_: Type) -> Tensor:
    if not isinstance(type_, Tensor):
        raise IllTyped(f"expected a tensor, not {type_}")
    return type_


class Iota(Op, name="iota", levels=GRAPH):
    """The coordinate along `dim`, at every point of `shape`, as i64."""

    shape = attr((Dim,))
    dim = attr(int)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        check_dims(cls.name, (attrs[1],), len(attrs[0]))
        return (Tensor(i64, attrs[0]),)


class Reshape(Op, name="reshape", levels=GRAPH):
    """The same elements in row-major order under another shape."""

    x = operand()
    shape = attr((Dim,))

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        x, (shape,) = tensor(operands[0].type), attrs
        if product(x.shape) != product(shape):
            raise IllTyped(f"cannot reshape {x.shape} to {shape}: sizes differ")
        return (Tensor(x.dtype, shape),)

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        (x,), (shape,) = operands, attrs
        # reshape x : its own shape -> x
        if tensor(x.type).shape == shape:
            return (x,)
        # reshape (reshape x) -> reshape x
        made = builder.definition(x)
        if isinstance(made, Reshape):
            return (builder(Reshape, made.x, shape=shape),)
        return None


class Permute(Op, name="permute", levels=GRAPH):
    """Result dimension k is dimension `order[k]` of x."""

    x = operand()
    order = attr((int,))

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        x = tensor(operands[0].type)
        order: tuple[int, ...] = attrs[0]
        if sorted(order) != list(range(len(x.shape))):
            raise IllTyped(f"{order} is no permutation of {len(x.shape)} dimensions")
        strides = tuple(x.strides[d] for d in order) if x.strides else None
        return (Tensor(x.dtype, tuple(x.shape[d] for d in order), strides),)

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        # permute x : identity -> x
        (order,) = attrs
        return operands if order == tuple(range(len(order))) else None


class Broadcast(Op, name="broadcast", levels=(Level.GRAPH, Level.TILE)):
    """Repeat dimensions of extent 1 up to `shape`; of a scalar, every dimension."""

    x = operand()
    shape = attr((Dim,))

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        type_, (shape,) = operands[0].type, attrs
        if isinstance(type_, Scalar):
            return (Tensor(type_.dtype, shape),)
        if not isinstance(type_, (Tensor, Tile)):
            raise IllTyped(f"cannot broadcast {type_}")
        fits = len(type_.shape) == len(shape) and all(
            a in (1, b) for a, b in zip(type_.shape, shape, strict=True)
        )
        if not fits:
            raise IllTyped(f"cannot broadcast {type_.shape} to {shape}")
        return (type(type_)(type_.dtype, shape),)

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        # broadcast x : its own shape -> x
        type_ = operands[0].type
        if isinstance(type_, (Tensor, Tile)) and type_.shape == attrs[0]:
            return operands
        return None


class Slice(Op, name="slice", levels=GRAPH):
    """`length` elements of `dim`, from `start`, every `step`-th; step < 0 flips."""

    x = operand()
    dim = attr(int)
    start = attr(Dim)
    length = attr(Dim)
    step = attr(int)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        x, (dim, _, length, step) = tensor(operands[0].type), attrs
        check_dims(cls.name, (dim,), len(x.shape))
        if step == 0:
            raise IllTyped("slice with step 0")
        shape = (*x.shape[:dim], length, *x.shape[dim + 1 :])
        return (Tensor(x.dtype, shape),)

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        x: Value = operands[0]
        dim: int = attrs[0]
        extent = tensor(x.type).shape[dim]
        # slice x : all of it -> x
        if attrs[1:] == (0, extent, 1):
            return operands
        return (
            _flip(builder, x, attrs) if attrs[1:] == (extent - 1, extent, -1) else None
        )


def _flip(builder: Any, x: Value, attrs: tuple[Any, ...]) -> Values | None:
    """A flip goes towards what it flips, and a scan of it runs from the other end."""
    made = builder.definition(x)
    # flip (flip x) -> x
    if isinstance(made, Slice) and made.attrs == attrs and made.x.shape == x.shape:
        return made.operands
    # flip (cast x) -> cast (flip x)
    if isinstance(made, Cast):
        flipped = builder.emit(Slice, made.operands, attrs)
        return builder.emit(Cast, flipped, made.attrs)
    # flip (scan x) -> scan from the other end (flip x)
    if isinstance(made, ScanDim) and made.dim == attrs[0]:
        flipped = [builder.emit(Slice, (v,), attrs)[0] for v in made.values]
        turned = (made.dim, made.monoid, not made.reverse)
        results = builder.emit(ScanDim, flipped, turned)
        return (results[made.results.index(x)],)
    return None


class Pad(Op, name="pad", levels=GRAPH):
    """`low[d]` and `high[d]` elements of `value`, a scalar, around x; none negative."""

    x = operand()
    value = operand()
    low = attr((Dim,))
    high = attr((Dim,))

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        x, (low, high) = tensor(operands[0].type), attrs
        if operands[1].type != Scalar(x.dtype):
            raise IllTyped(f"pad of {x} with {operands[1].type}, which is no element")
        shape = tuple(a + n + z for a, n, z in zip(low, x.shape, high, strict=True))
        return (Tensor(x.dtype, shape),)


class Concat(Op, name="concat", levels=GRAPH):
    """Tensors one after the other along `dim`."""

    xs = operands()
    dim = attr(int)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        types = [tensor(v.type) for v in operands]
        dim: int = attrs[0]
        first = types[0]
        check_dims(cls.name, (dim,), len(first.shape))
        for other in types[1:]:
            if other.dtype is not first.dtype:
                raise IllTyped(f"concat of {first.dtype.name} and {other.dtype.name}")
            if _without(other.shape, dim) != _without(first.shape, dim):
                raise IllTyped(f"concat of {first.shape} and {other.shape} on {dim}")
        total: Dim = 0
        for type_ in types:
            total = total + type_.shape[dim]
        shape = (*first.shape[:dim], total, *first.shape[dim + 1 :])
        return (Tensor(first.dtype, shape),)

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        # concat x -> x
        return operands if len(operands) == 1 else None


class Index(Op, name="index", levels=GRAPH):
    """Elements of x at tensors of indices, torch's and numpy's advanced indexing.

    `indices[k]`, integers of one shared shape, select along `dims[k]`. In the result
    those dimensions are gone and the shape of the indices stands at position `at`.
    Indices count from 0 and lie within x (a frontend wraps negative ones).
    """

    x = operand()
    indices = operands()
    dims = attr((int,))
    at = attr(int)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        x, (dims, at) = tensor(operands[0].type), attrs
        check_dims(cls.name, dims, len(x.shape))
        shapes = {tensor(v.type).shape for v in operands[1:]}
        if len(shapes) != 1 or len(dims) != len(operands) - 1:
            raise IllTyped(f"index needs a shape and a dim per index, got {shapes}")
        kept = tuple(n for d, n in enumerate(x.shape) if d not in dims)
        (shape,) = shapes
        return (Tensor(x.dtype, (*kept[:at], *shape, *kept[at:])),)


class Gather(Op, name="gather", levels=GRAPH):
    """`result[i…] = x[i… with index[i…] at dim]`, as torch.gather."""

    x = operand()
    index = operand()
    dim = attr(int)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        x, index = tensor(operands[0].type), tensor(operands[1].type)
        if len(x.shape) != len(index.shape):
            raise IllTyped(f"gather from {x.shape} by {index.shape}: ranks differ")
        check_dims(cls.name, attrs, len(x.shape))
        return (Tensor(x.dtype, index.shape),)


class Scatter(Op, name="scatter", levels=GRAPH):
    """x with every element of `src` combined into it, where indices say.

    `places` has, for each dimension of x, the dimension of `src` that counts it, or
    −1 − k for the k-th of `indices`, integers of the shape of `src` that count from 0:

        scatter %x, %src, %rows {places=(-1, 1), combine="sum"}
        result[rows[i, j], j] += src[i, j]

    Elements may meet in one place, in any order: `updating` has the ways to combine.
    With `masked`, the last of `indices` says which elements of `src` there are.
    """

    x = operand()
    src = operand()
    indices = operands()
    places = attr((int,))
    combine = attr(str)
    masked = attr(bool, default=False)

    @property
    def picks(self) -> Values:
        """The indices, without the mask."""
        return self.indices[:-1] if self.masked else self.indices

    @property
    def mask(self) -> Any:
        return self.indices[-1] if self.masked else None

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        x, src, *indices = map(tensor, (v.type for v in operands))
        places, combine, masked = attrs
        check_way(combine)
        if src.dtype is not x.dtype or len(places) != len(x.shape):
            raise IllTyped(f"scatter of {src} into {x} by {places}")
        if any(index.shape != src.shape for index in indices):
            raise IllTyped(f"scatter of {src.shape} by indices of another shape")
        if masked and indices[-1].dtype is not bool_:
            raise IllTyped(f"mask of type {indices[-1]}")
        check_dims(cls.name, tuple(d for d in places if d >= 0), len(src.shape))
        used = sorted(-1 - d for d in places if d < 0)
        if used != list(range(len(indices) - masked)):
            raise IllTyped(f"{len(indices) - masked} indices, but places {places}")
        return (Tensor(x.dtype, x.shape),)


class Restride(Op, name="restride", levels=GRAPH):
    """The same tensor, stored with these strides."""

    x = operand()
    strides = attr((Dim,))

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        x = tensor(operands[0].type)
        return (Tensor(x.dtype, x.shape, attrs[0]),)


def _without(shape: tuple[Dim, ...], dim: int) -> tuple[Dim, ...]:
    return shape[:dim] + shape[dim + 1 :]
