"""`Layout`: the map from logical coordinates to places, its questions and operators.

    L(x) = X(D(x) + r) + O

D adds up digits, r ranges over the replicas, X is a sequence of shears, O a constant.
Two layouts are `==` if they are spelled alike; they are the same function if their
canonical forms are `==`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product as cartesian
from math import gcd
from typing import NamedTuple

from fusec.ir.dims import Dim, gcd_const, product
from fusec.ir.layout.composition import Feed, Numeral, composed
from fusec.ir.layout.digits import (
    LANE,
    MEM,
    REG,
    Digit,
    Digits,
    NotRepresentable,
    Shear,
    Step,
    bridge,
    cancelled,
    divided,
    extent,
    grown,
    known,
    merge,
    merge_copies,
    ordered,
    quotient,
    regroup,
    rising,
    scaled,
    split,
    split_copies,
    steps,
    values,
)
from fusec.ir.layout.notation import spell


class IndexTerm(NamedTuple):
    """One digit as arithmetic: it adds ((c // div) % mod) * stride to the place.

    `mod` is None on the outermost digit, where c // div is the value as it stands.
    """

    div: Dim
    mod: Dim | None
    stride: Dim


@dataclass(frozen=True, slots=True, init=False)
class Layout:
    """Where each element of a block lies: see the package's docstring.

    `dims` holds the digits of each dimension, major to minor. `shape` is the logical
    extents; by default all that the digits count. Where the digits count more, the
    rest is padding and `coordinate < shape` the predicate. A dimension without digits
    has one place for all its coordinates. Raises ValueError on what is malformed and
    NotRepresentable on a symbolic size out of its place.
    """

    dims: tuple[Digits, ...]
    shape: tuple[Dim, ...]
    replicas: Digits
    offset: tuple[tuple[str, Dim], ...]
    xor: tuple[Shear, ...]

    def __init__(
        self,
        dims: Iterable[Digits],
        shape: Iterable[Dim] | None = None,
        replicas: Iterable[Digit] = (),
        offset: Iterable[tuple[str, Dim]] = (),
        xor: Iterable[Shear] = (),
    ) -> None:
        put = object.__setattr__
        put(self, "dims", tuple(dims))
        counted = map(extent, self.dims)
        put(self, "shape", tuple(counted if shape is None else shape))
        put(self, "replicas", tuple(replicas))
        moved = sorted((item for item in offset if item[1] != 0), key=_axis_of)
        put(self, "offset", tuple(moved))
        put(self, "xor", tuple(xor))
        self._check()

    def _check(self) -> None:
        if len(self.shape) != len(self.dims):
            raise ValueError(f"{len(self.dims)} dimensions, but the shape {self.shape}")
        for digits, size in zip(self.dims, self.shape, strict=True):
            _check_dim(digits, size)
        for digit in self.replicas:
            if digit.stride == 0:
                raise ValueError(f"copies that share a place on {digit.axis}")
        for axis in {digit.axis for digit in self.replicas}:
            rising([Step(digit, 0) for digit in self.replicas], axis)
        if len({axis for axis, _ in self.offset}) != len(self.offset):
            raise ValueError(f"an axis with two offsets: {self.offset}")

    def __str__(self) -> str:
        return spell(self.dims, self.shape, self.replicas, self.offset, self.xor)

    # -------------------------------------------------------------- questions

    @property
    def rank(self) -> int:
        """How many dimensions a coordinate has."""
        return len(self.dims)

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes on which a place can differ from 0, in the order of `AXES`."""
        return _axes(self)

    @property
    def padded_shape(self) -> tuple[Dim, ...]:
        """What the digits of each dimension count: the shape with its padding."""
        sized = zip(self.dims, self.shape, strict=True)
        return tuple(extent(digits) if digits else size for digits, size in sized)

    def size(self, axis: str) -> Dim:
        """The product of the extents of the digits on an axis, replicas included."""
        return product(d.extent for d in self._moving() if d.axis == axis)

    @property
    def regs(self) -> int:
        """How many registers each lane holds."""
        return known(self.size(REG))

    @property
    def lanes(self) -> int:
        """How many lanes hold elements."""
        return known(self.size(LANE))

    def span(self, axis: str) -> int:
        """1 + the largest place on an axis, padding included and offset apart.

        Under shears, rounded up to whole blocks of those within which they move.
        """
        reach = sum(
            known(d.stride) * (known(d.extent) - 1)
            for d in self._moving()
            if d.axis == axis
        )
        block = self._block(axis)
        return -(-(reach + 1) // block) * block

    def contains(self, coords: Sequence[int]) -> bool:
        """The predicate: whether the coordinates are an element, not padding."""
        return all(0 <= c < known(n) for c, n in zip(coords, self.shape, strict=True))

    def evaluate(self, coords: Sequence[Dim]) -> dict[str, Dim]:
        """The place of an element on each of `axes`; where it has copies, the first.

        Raises ValueError for coordinates outside the padded shape.
        """
        return self._settled(self._sum(coords))

    def places(self, coords: Sequence[Dim]) -> tuple[dict[str, Dim], ...]:
        """The places of all copies of an element, the first one first."""
        base = self._sum(coords)
        result: list[dict[str, Dim]] = []
        for copy in cartesian(*(range(known(d.extent)) for d in self.replicas)):
            place = dict(base)
            for digit, value in zip(self.replicas, copy, strict=True):
                place[digit.axis] = place.get(digit.axis, 0) + digit.stride * value
            result.append(self._settled(place))
        return tuple(result)

    def place(self, axis: str, coords: Sequence[Dim]) -> Dim:
        """The place of an element on one axis."""
        return self.evaluate(coords).get(axis, 0)

    def reg_of(self, coords: Sequence[int]) -> int:
        """The register that holds an element, in whichever lane."""
        return known(self.place(REG, coords))

    def coordinate(self, places: Mapping[str, int]) -> tuple[int, ...]:
        """Which element lies at a place; axes that are not given count as 0.

        The answer may be padding (see `contains`). Of a broadcast, the first
        coordinate. Raises ValueError if nothing lies there, NotRepresentable if
        digits overlap so that a place does not tell.
        """
        coords = [0] * self.rank
        for step, value in self._read(places):
            if step.dim is not None:
                coords[step.dim] += known(step.weight) * value
        return tuple(coords)

    def is_writer(self, places: Mapping[str, int]) -> bool:
        """Whether a place holds the first copy of its element: the one that writes."""
        return not any(value for step, value in self._read(places) if step.dim is None)

    def index_terms(self, axis: str) -> tuple[tuple[IndexTerm, ...], ...]:
        """The place on an axis as integer arithmetic: a tuple of terms a dimension.

        The place is the sum of the terms, then sheared by `xor`, plus the `offset`.
        """
        return tuple(
            tuple(
                IndexTerm(weight, digit.extent if i else None, digit.stride)
                for i, (digit, weight, _) in enumerate(steps(merge(digits)))
                if digit.axis == axis and digit.moves
            )
            for digits in self.dims
        )

    def lane_dim(self) -> int | None:
        """The dimension that the lanes run along; None if there are no lanes.

        Raises NotRepresentable if they run along several.
        """
        found = [dim for dim, terms in enumerate(self.index_terms(LANE)) if terms]
        if len(found) > 1:
            raise NotRepresentable(f"lanes run along the dimensions {found}")
        return found[0] if found else None

    def lane_step(self) -> int:
        """How far apart the coordinates of neighbouring lanes are; 1 without lanes.

        Raises NotRepresentable if that is not the same for all neighbours.
        """
        dim = self.lane_dim()
        if dim is None:
            return 1
        term, *more = self.index_terms(LANE)[dim]
        if more or term.stride != 1:
            raise NotRepresentable("neighbouring lanes are not equally far apart")
        return known(term.div)

    def contiguous_width(
        self, dim: int = -1, axis: str = MEM, unit: int = 1, divisibility: int = 0
    ) -> int:
        """The widest vector along a dimension, in elements.

        Every aligned group of that many coordinates fills consecutive units on
        `axis`, starts there at a multiple of its own width, and lies inside the shape
        or outside it as a whole. `unit` is one element: its bits, on MEM. The places
        count from an origin that is a multiple of `divisibility` units (0: of all).
        """
        dim = range(self.rank)[dim]
        digits = merge(self.dims[dim])
        if not digits or digits[-1].axis != axis or digits[-1].stride != unit:
            return 1
        width = gcd(gcd_const(self.shape[dim]), divisibility)
        if len(digits) > 1:
            width = gcd(width, gcd_const(digits[-1].extent))
        others = [d for i, ds in enumerate(self.dims) if i != dim for d in ds]
        others += [*digits[:-1], *self.replicas]
        apart = [d.stride for d in others if d.axis == axis and d.moves]
        apart += [value for name, value in self.offset if name == axis]
        apart += [1 << shear.bottom for shear in self.xor if shear.axis == axis]
        for common in map(gcd_const, apart):
            width = gcd(width, common // unit) if common % unit == 0 else 1
        return width

    def to_strided(self, axis: str = MEM) -> tuple[Dim, ...]:
        """One stride for each dimension, where the layout is no more than that.

        Raises NotRepresentable where a dimension needs several digits, or places are
        on another axis, copied or sheared. The offset is apart.
        """
        if self.replicas or self.xor or any(name != axis for name in self.axes):
            raise NotRepresentable(f"more than strides on {axis}: {self}")
        found = [merge(digits) for digits in self.dims]
        if any(len(digits) > 1 for digits in found):
            raise NotRepresentable(f"a dimension with several strides: {self}")
        return tuple(digits[0].stride if digits else 0 for digits in found)

    # ------------------------------------------------- one layout, rearranged

    def canonicalize(self) -> Layout:
        """The one form of this function. Its padding, shape and copies belong to it.

        Only the padding of a broadcast does not: it has no place of its own.
        """
        merged = [merge(digits) for digits in self.dims]
        dims = [d if any(digit.moves for digit in d) else () for d in merged]
        replicas = merge_copies(self.replicas)
        return replace(self, dims=dims, replicas=replicas, xor=cancelled(self.xor))

    def permute(self, order: Sequence[int]) -> Layout:
        """Dimension i of the result is dimension order[i]."""
        if sorted(order) != list(range(self.rank)):
            raise ValueError(f"{tuple(order)} is no order of {self.rank} dimensions")
        dims = [self.dims[i] for i in order]
        return replace(self, dims=dims, shape=[self.shape[i] for i in order])

    def slice(self, dim: int, index: int) -> Layout:
        """The layout at one coordinate of a dimension, which goes away."""
        dim = range(self.rank)[dim]
        size = self.shape[dim]
        if index < 0 or (isinstance(size, int) and index >= size):
            raise ValueError(f"no coordinate {index} in an extent of {size}")
        start: dict[str, Dim] = {}
        for digit, value in values(self.dims[dim], index):
            start[digit.axis] = start.get(digit.axis, 0) + digit.stride * value
        return replace(
            self,
            dims=(*self.dims[:dim], *self.dims[dim + 1 :]),
            shape=(*self.shape[:dim], *self.shape[dim + 1 :]),
            offset=self._moved(start),
        )

    def broadcast(self, dim: int, extent: Dim) -> Layout:
        """A dimension of extent 1 made longer: all its coordinates in one place."""
        if self.shape[dim] != 1:
            raise ValueError(f"only an extent of 1 broadcasts, not {self.shape[dim]}")
        return self._with(dim, (), extent)

    def drop(self, dim: int) -> Layout:
        """The layout of what a reduction over a dimension leaves: extent 1 there.

        The registers and lanes that remain are numbered anew without gaps.
        """
        return self._with(dim, (), 1).compact(REG).compact(LANE)

    def reduce_to(self, dims: Sequence[int]) -> Layout:
        """`drop` of all dimensions but these."""
        kept = {range(self.rank)[dim] for dim in dims}
        parts = [d if i in kept else () for i, d in enumerate(self.dims)]
        shape = [n if i in kept else 1 for i, n in enumerate(self.shape)]
        return replace(self, dims=parts, shape=shape).compact(REG).compact(LANE)

    def without(self, axis: str) -> Layout:
        """The block at one place of an axis: its digits, copies and offset removed.

        A dimension that loses digits extends over all that the others count.
        """
        dims = [tuple(d for d in ds if d.axis != axis) for ds in self.dims]
        shape = [
            size if new == old else extent(new)
            for new, old, size in zip(dims, self.dims, self.shape, strict=True)
        ]
        replicas = [d for d in self.replicas if d.axis != axis]
        offset = [item for item in self.offset if item[0] != axis]
        xor = [shear for shear in self.xor if shear.axis != axis]
        return Layout(dims, shape, replicas, offset, xor)

    def only(self, axis: str) -> Layout:
        """What remains `without` all other axes."""
        others = {d.axis for ds in (*self.dims, self.replicas) for d in ds}
        others |= {name for name, _ in self.offset}
        result = self
        for other in sorted(others - {axis}):
            result = result.without(other)
        return result

    def compact(self, axis: str) -> Layout:
        """The places on an axis numbered anew from 0, without gaps, in their order."""
        if self._block(axis) > 1:
            raise NotRepresentable(f"a swizzled {axis} axis is not numbered anew")
        count: Dim = 1
        strides: dict[Dim, Dim] = {}
        for step in rising(self._steps(), axis):
            strides[step.digit.stride] = count
            count = count * step.digit.extent

        def renumber(digits: Digits) -> Digits:
            return tuple(
                replace(d, stride=strides[d.stride])
                if d.axis == axis and d.moves
                else d
                for d in digits
            )

        return replace(
            self,
            dims=map(renumber, self.dims),
            replicas=renumber(self.replicas),
            offset=[item for item in self.offset if item[0] != axis],
        )

    def pad(self, shape: Sequence[Dim]) -> Layout:
        """Let the outermost digits count at least `shape`; the logical shape stays.

        Raises NotRepresentable if padding would take the place of an element. In
        memory it may: padding is never accessed.
        """
        sized = zip(self.dims, shape, strict=True)
        result = replace(self, dims=[grown(digits, least) for digits, least in sized])
        for axis in result.axes:
            if axis != MEM and result.dims != self.dims:
                rising(result._steps(), axis)
        return result

    def padded(self) -> Layout:
        """The same digits without the predicate: padding counted as elements."""
        return replace(self, shape=self.padded_shape)

    def swizzle(self, bits: int, base: int, shift: int, axis: str = MEM) -> Layout:
        """CuTe's Swizzle(bits, base, shift): xor places with themselves, shifted.

        The `bits` bits from `base + shift` up are xored into those from `base` up.
        """
        shear = Shear(bits, base + shift, base, axis)
        if any(name == axis for name, _ in self.offset):
            raise NotRepresentable("a swizzle of an offset layout: swizzle it first")
        return replace(self, xor=(*self.xor, shear))

    def reshape(self, shape: Sequence[Dim]) -> Layout:
        """The elements in the same row-major order under another shape.

        Raises ValueError if the shapes differ in size, NotRepresentable where a new
        boundary falls inside a digit or padding between elements.
        """
        if product(shape) != product(self.shape):
            raise ValueError(f"{self.shape} does not reshape to {tuple(shape)}")
        if 0 in shape:
            raise NotRepresentable("an empty shape has no digits to regroup")
        dims: list[Digits] = []
        for old, new in regroup(self.shape, shape):
            dims += self._regrouped(old, [shape[i] for i in new])
        return replace(self, dims=dims, shape=shape)

    def recast(
        self, from_bits: int, to_bits: int, dim: int = -1, axis: str = MEM
    ) -> Layout:
        """The same bits as elements of another width, regrouped along a dimension.

        On REG, a register holds one element before and one after.
        """
        dim = range(self.rank)[dim]
        before = 1 if axis == MEM else from_bits
        after = 1 if axis == MEM else to_bits
        dims = [scaled(digits, {axis: before}) for digits in self.dims]
        element = Digit(from_bits, 1, axis)
        in_bits = merge((*scaled(self._counted(dim), {axis: before}), element))
        dims[dim], run = split(in_bits, to_bits)
        if merge(run) != merge([Digit(to_bits, 1, axis)]):
            raise NotRepresentable(f"{to_bits} bits of dimension {dim} are not one run")
        shape = list(self.shape)
        shape[dim] = quotient(shape[dim] * from_bits, to_bits)
        copies = divided(scaled(self.replicas, {axis: before}), {axis: after})
        result = Layout(
            [divided(digits, {axis: after}) for digits in dims],
            shape,
            copies,
            [
                (name, quotient(value * before, after) if name == axis else value)
                for name, value in self.offset
            ],
            self.xor,
        )
        self._check_runs(axis, from_bits)
        result._check_runs(axis, to_bits)
        return result

    # --------------------------------------------------- operators on layouts

    def compose(self, inner: Layout, axes: Sequence[str] | None = None) -> Layout:
        """self ∘ inner: a place of the inner layout is a coordinate of this one.

        `axes` names the inner axis that feeds each dimension of this layout, by
        default `coordinate_axes`. Exact on the inner layout's shape: what becomes of
        its padding is not said. Raises NotRepresentable unless every place is inside
        this shape and every digit lands whole (see `composition`); against a symbolic
        extent the first is the caller's to know.
        """
        names = coordinate_axes(self.rank) if axes is None else tuple(axes)
        if len(names) != self.rank or len(set(names)) != self.rank:
            raise ValueError(f"{names} do not feed {self.rank} dimensions")
        if not set(inner.axes) <= set(names):
            raise ValueError(f"{inner.axes} do not all feed a dimension: {names}")
        if inner.xor:
            raise NotRepresentable("a swizzled layout feeds no digits")
        outer, fed = self.canonicalize(), inner.canonicalize()
        feeds = {name: dim for dim, name in enumerate(names)}
        dims, replicas, start = composed(
            Numeral(outer.dims, outer.shape, feeds),
            Feed(fed.dims, fed.shape, fed.replicas, dict(fed.offset)),
        )
        copies = (*outer.replicas, *replicas)
        return Layout(dims, inner.shape, copies, self._moved(start), self.xor)

    def inverse(self, axes: Sequence[str] | None = None) -> Layout:
        """The converse: from places, on `axes` in order, to coordinates.

        Its axes are the `coordinate_axes`. Padding counts as elements. Copies become
        broadcasts and broadcasts copies. Raises NotRepresentable where a place below
        the span holds nothing, or digits overlap.
        """
        result = self._backward(axes, gaps=False)
        still = [s for s in self._steps() if not s.digit.moves and s.dim is not None]
        copies = [
            Digit(step.digit.extent, step.weight, f"d{step.dim}")
            for step in still
            if step.digit.extent != 1
        ]
        return replace(result, replicas=copies)

    def left_inverse(self, axes: Sequence[str] | None = None) -> Layout:
        """A layout M with M ∘ self = identity; exists only for injective layouts.

        At places that hold nothing M says nothing of use.
        """
        for digit, _, dim in self._steps():
            if digit.extent != 1 and digit.stride == 0:
                raise NotRepresentable(f"dimension {dim} has elements in one place")
        return self._backward(axes, gaps=True)

    def right_inverse(self, axes: Sequence[str] | None = None) -> Layout:
        """A layout R with self ∘ R = identity; exists only if no place is skipped."""
        if self.replicas:
            raise NotRepresentable("a layout with copies has several places an element")
        return self._backward(axes, gaps=False)

    def complement(self, sizes: Mapping[str, int]) -> Layout:
        """The places that this layout steps over: one dimension an axis, in order.

        The sums of one place of each fill all places below `sizes`, each once.
        Raises NotRepresentable where digits do not divide one another or the size.
        """
        self._check_linear()
        if not set(self.axes) <= set(sizes):
            raise ValueError(f"no size is given for some of {self.axes}")
        return Layout([self._free(axis, size) for axis, size in sizes.items()])

    def product(self, other: Layout) -> Layout:
        """The Kronecker product self ⊗ other: a copy of `other` at each place of self.

        Coordinates: other's vary fastest in each dimension. Places: this layout's
        are scaled by the other's span. Tilus calls it the product of tiles.
        """
        if self.rank != other.rank:
            raise ValueError(f"ranks {self.rank} and {other.rank} differ")
        padded = zip(self.padded_shape, other.shape, other.padded_shape, strict=True)
        if any(outer != 1 and size != counted for outer, size, counted in padded):
            raise NotRepresentable("padding of the inner factor lies between elements")
        spans = {axis: other.span(axis) for axis in self._named_axes()}
        offset = dict(other.offset)
        for axis, value in self.offset:
            offset[axis] = offset.get(axis, 0) + value * spans[axis]
        return Layout(
            [
                (*scaled(self._counted(dim), spans), *other._counted(dim))
                for dim in range(self.rank)
            ],
            [a * b for a, b in zip(self.shape, other.shape, strict=True)],
            (*scaled(self.replicas, spans), *other.replicas),
            offset.items(),
            (*other.xor, *(shear.raised(spans[shear.axis]) for shear in self.xor)),
        )

    def right_divide(self, inner: Layout) -> Layout:
        """The layout A with A ⊗ inner = self: how `inner` tiles this layout."""
        self._check_rank(inner)
        spans = {axis: inner.span(axis) for axis in self._named_axes()}
        ends = dict(inner.offset)
        dims = [
            divided(split(self._counted(dim), size)[0], spans)
            for dim, size in enumerate(inner.padded_shape)
        ]
        result = Layout(
            dims,
            _quotient_shape(self.shape, inner.shape, dims),
            divided(split_copies(self.replicas, inner.replicas, 0), spans),
            [(a, quotient(o - ends.get(a, 0), spans[a])) for a, o in self.offset],
            [s.lowered(spans[s.axis]) for s in self.xor[len(inner.xor) :]],
        )
        return self._factored(result, result, inner)

    def left_divide(self, outer: Layout) -> Layout:
        """The layout B with outer ⊗ B = self: what repeats at the places of `outer`."""
        self._check_rank(outer)
        sizes = zip(self.padded_shape, outer.padded_shape, strict=True)
        dims = [
            split(self._counted(dim), quotient(whole, part))[1]
            for dim, (whole, part) in enumerate(sizes)
        ]
        result = Layout(
            dims,
            _quotient_shape(self.shape, outer.shape, dims),
            split_copies(self.replicas, outer.replicas, 1),
            (),
            self.xor[: len(self.xor) - len(outer.xor)],
        )
        offset = dict(self.offset)
        for axis, value in outer.offset:
            offset[axis] = offset.get(axis, 0) - value * result.span(axis)
        result = replace(result, offset=offset.items())
        return self._factored(result, outer, result)

    def direct_sum(self, other: Layout) -> Layout:
        """The dimensions of both, side by side; their places add up."""
        for one, two in ((self, other), (other, self)):
            for shear in one.xor:
                if shear.axis in two.axes:
                    raise NotRepresentable(f"a sum of places on swizzled {shear.axis}")
        offset = dict(self.offset)
        for axis, value in other.offset:
            offset[axis] = offset.get(axis, 0) + value
        return Layout(
            (*self.dims, *other.dims),
            (*self.shape, *other.shape),
            (*self.replicas, *other.replicas),
            offset.items(),
            (*self.xor, *other.xor),
        )

    # ---------------------------------------------------------------- private

    def _moving(self) -> Iterator[Digit]:
        """The digits that move, replicas included."""
        for digits in (*self.dims, self.replicas):
            yield from (digit for digit in digits if digit.moves)

    def _named_axes(self) -> set[str]:
        """All axes that are named, whether or not a digit moves along them."""
        named = {d.axis for ds in (*self.dims, self.replicas) for d in ds}
        return named | {axis for axis, _ in self.offset} | {s.axis for s in self.xor}

    def _steps(self) -> list[Step]:
        """All digits in position: those of the dimensions, then the replicas."""
        found = [s for i in range(self.rank) for s in steps(self._counted(i), i)]
        return found + [Step(digit, 0) for digit in self.replicas]

    def _counted(self, dim: int) -> Digits:
        """The digits of a dimension, with one spelled out for a broadcast."""
        if self.dims[dim] or self.shape[dim] == 1:
            return self.dims[dim]
        return (Digit(self.shape[dim], 0, MEM),)

    def _with(self, dim: int, digits: Digits, size: Dim) -> Layout:
        dim = range(self.rank)[dim]
        dims, shape = list(self.dims), list(self.shape)
        dims[dim], shape[dim] = digits, size
        return replace(self, dims=dims, shape=shape)

    def _block(self, axis: str) -> int:
        """The size of the aligned blocks within which the shears of an axis move."""
        return 1 << max((s.top for s in self.xor if s.axis == axis), default=0)

    def _sum(self, coords: Sequence[Dim]) -> dict[str, Dim]:
        """D of the coordinates."""
        result: dict[str, Dim] = dict.fromkeys(self.axes, 0)
        for digits, c in zip(self.dims, coords, strict=True):
            if not digits:
                continue
            size = extent(digits)
            if isinstance(c, int) and (c < 0 or (isinstance(size, int) and c >= size)):
                raise ValueError(f"coordinate {c} is outside the extent {size}")
            for digit, value in values(digits, c):
                if digit.moves:
                    result[digit.axis] = result[digit.axis] + value * digit.stride
        return result

    def _settled(self, place: dict[str, Dim]) -> dict[str, Dim]:
        """A sum of digits, sheared and offset."""
        for shear in self.xor:
            if shear.axis in place:
                place[shear.axis] = shear.apply(known(place[shear.axis]))
        for axis, value in self.offset:
            place[axis] = place[axis] + value
        return place

    def _read(self, places: Mapping[str, int]) -> Iterator[tuple[Step, int]]:
        """The value of every digit that moves, read off a place."""
        offset = dict(self.offset)
        ladder = self._steps()
        for axis in dict.fromkeys((*self.axes, *places)):
            rest = places.get(axis, 0) - known(offset.get(axis, 0))
            for shear in reversed(self.xor):
                rest = shear.apply(rest) if shear.axis == axis else rest
            for step in reversed(rising(ladder, axis)):
                most = known(step.digit.extent) - 1
                value = min(rest // known(step.digit.stride), most)
                rest -= value * known(step.digit.stride)
                yield step, value
            if rest:
                raise ValueError(f"nothing lies at {axis} {places.get(axis, 0)}")

    def _moved(self, start: Mapping[str, Dim]) -> Iterable[tuple[str, Dim]]:
        """The offset after constants join the sum of digits, ahead of the shears.

        That is exact where they are whole blocks, which no shear looks into.
        """
        total = dict(self.offset)
        for axis, value in start.items():
            block = self._block(axis)
            if block > 1 and known(value) % block:
                raise NotRepresentable(f"{value} splits a swizzled block of {block}")
            total[axis] = total.get(axis, 0) + value
        return total.items()

    def _check_linear(self) -> None:
        if self.xor:
            raise NotRepresentable("a swizzle comes last: only to_bits can undo it")
        if self.offset:
            raise NotRepresentable(f"places do not start at 0: {self}")

    def _check_rank(self, other: Layout) -> None:
        if self.rank != other.rank:
            raise ValueError(f"ranks {self.rank} and {other.rank} differ")

    def _check_runs(self, axis: str, width: int) -> None:
        """Decline where a shear could tear a run of bits apart."""
        blocks = [1 << shear.bottom for shear in self.xor if shear.axis == axis]
        if not blocks:
            return
        moves = [known(d.stride) for d in self._moving() if d.axis == axis]
        if axis != MEM or any(distance % width for distance in (*blocks, *moves)):
            raise NotRepresentable(f"the swizzle moves parts of {width}-bit elements")

    def _backward(self, axes: Sequence[str] | None, gaps: bool) -> Layout:
        """Places to coordinates, one dimension an axis."""
        self._check_linear()
        names = self.axes if axes is None else tuple(axes)
        if not set(self.axes) <= set(names):
            raise ValueError(f"{self.axes} are not all among {names}")
        return Layout([self._ladder(axis, gaps) for axis in names])

    def _ladder(self, axis: str, gaps: bool) -> Digits:
        """The digits of a place on an axis, each with what it adds to a coordinate."""
        climbed: list[Digit] = []
        reached = 1
        for digit, weight, dim in rising(self._steps(), axis):
            stride = known(digit.stride)
            if stride != reached and not gaps:
                raise NotRepresentable(f"nothing lies at {axis} {reached}")
            bridge(climbed, reached, stride)
            told = (weight, f"d{dim}") if dim is not None else (0, MEM)
            climbed.append(Digit(digit.extent, *told))
            reached = stride * known(digit.extent)
        return tuple(reversed(climbed))

    def _free(self, axis: str, size: int) -> Digits:
        """The digits that fill the gaps between those on an axis."""
        free: list[Digit] = []
        reached = 1
        for step in rising(self._steps(), axis):
            stride = known(step.digit.stride)
            free.append(Digit(known(quotient(stride, reached)), reached, axis))
            reached = stride * known(step.digit.extent)
        free.append(Digit(known(quotient(size, reached)), reached, axis))
        return merge(reversed(free))

    def _regrouped(self, old: Sequence[int], sizes: Sequence[Dim]) -> list[Digits]:
        """The digits of neighbouring dimensions, grouped anew."""
        if len(old) == len(sizes) == 1:
            return [self.dims[old[0]]]
        digits: Digits = ()
        for dim in old:
            if self.padded_shape[dim] != self.shape[dim] and extent(digits) != 1:
                raise NotRepresentable(f"padding of dimension {dim} between elements")
            digits += self._counted(dim)
        result: list[Digits] = []
        for i in reversed(range(len(sizes))):
            if all(size == 1 for size in sizes[:i]):
                return [*[()] * i, digits, *result[::-1]]
            digits, inner = split(digits, sizes[i])
            result.append(inner)
        if extent(digits) != 1:
            raise NotRepresentable("padding would be left over")
        return result[::-1]

    def _factored(self, result: Layout, outer: Layout, inner: Layout) -> Layout:
        """The quotient, once the product of the factors has given this layout."""
        if outer.product(inner).canonicalize() != self.canonicalize():
            raise NotRepresentable(f"{self} is not the product of {outer} and {inner}")
        return result


# ------------------------------------------------------------------ functions


def coordinate_axes(rank: int) -> tuple[str, ...]:
    """The axes that an inverse maps to: "d0" for dimension 0, and so on."""
    return tuple(f"d{dim}" for dim in range(rank))


@lru_cache(maxsize=4096)  # every evaluation asks
def _axes(layout: Layout) -> tuple[str, ...]:
    used = {d.axis for ds in (*layout.dims, layout.replicas) for d in ds if d.moves}
    return ordered(used | {axis for axis, _ in layout.offset})


def _axis_of(item: tuple[str, Dim]) -> str:
    return item[0]


def _check_dim(digits: Digits, size: Dim) -> None:
    if isinstance(size, int) and size < 0:
        raise ValueError(f"a negative extent: {size}")
    for digit in digits[1:]:
        if not isinstance(digit.extent, int):
            raise NotRepresentable(f"symbolic {digit.extent} is not outermost")
    counted = extent(digits)
    if not digits or counted == size:
        return
    if isinstance(counted, int) and isinstance(size, int) and counted < size:
        raise ValueError(f"digits that count {counted} for an extent of {size}")


def _quotient_shape(
    shape: Sequence[Dim], factor: Sequence[Dim], dims: Sequence[Digits]
) -> list[Dim]:
    result = [quotient(a, b) for a, b in zip(shape, factor, strict=True)]
    for size, digits in zip(result, dims, strict=True):
        if known(extent(digits)) < known(size):
            raise NotRepresentable("padding of a factor lies between elements")
    return result
