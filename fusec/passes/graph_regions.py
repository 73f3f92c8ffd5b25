"""Regions that read the values of a graph, through views and scalars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fusec.analysis.factors import Factors
from fusec.ir.builder import Builder
from fusec.ir.calls import Named, Slot
from fusec.ir.core import Affine, Op, Value
from fusec.ir.dims import Dim
from fusec.ir.dtypes import bool_, f64, i64
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.checks import Check
from fusec.ir.ops.elementwise import And, Ge, Lt
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import Load, Store, Update
from fusec.ir.ops.view import Scatter
from fusec.ir.types import Axis, Scalar, Tensor
from fusec.passes.region_builder import RegionBuilder, slotted
from fusec.passes.views import VIEWS, Coord, coordinate

AXIS_NAMES = "ijklmnopqrstuvwxy"

_NAMES = {bool_: "bool", i64: "int64", f64: "float64"}
"""torch's names of the dtypes that its scalars have."""


class Sources:
    """Where regions find the values of a graph."""

    def __init__(self, builder: Builder, factors: Factors) -> None:
        self.builder = builder
        """That of the function around the regions."""
        self.factors = factors
        self.made: dict[Value, Op] = {}
        """The graph op behind each value that is a view or a scalar."""
        self.stored: dict[Value, Value] = {}
        """The loop tensor that holds each graph tensor."""
        self.boxes: dict[Value, Value] = {}
        """The tensors that hold scalars for regions to read."""

    def axes(self, value: Value) -> tuple[tuple[Axis, ...], ...]:
        """New axes to walk a tensor by: one per factor of each dimension."""
        names = iter(AXIS_NAMES)
        return tuple(
            tuple(Axis(next(names, "z"), n) for n in parts if n != 1)
            for parts in self.factors.of(value)
        )

    def boxed(self, value: Value) -> Value:
        """A tensor of no dimensions that holds a scalar which only the host knows."""
        if value not in self.boxes:
            dtype = value.dtype
            target, named = "aten.scalar_tensor.default", Named("dtype", _NAMES[dtype])
            attrs = (target, (Slot(0),), (("dtype", named),), (Tensor(dtype, ()),))
            operands = (self.stored[value],)
            (box,) = self.builder.emit(Extern, operands, attrs, hints=(value.hint,))
            self.boxes[value] = box
        return self.boxes[value]


class GraphRegion(RegionBuilder):
    """A region under construction that computes a value of a graph, point by point."""

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources.builder)
        self.sources = sources

    def copy(self, value: Value) -> None:
        """Store a view as a tensor."""
        coords = [coordinate(factors) for factors in self.sources.axes(value)]
        self.store(value, self.read(value, coords), coords)

    def store(self, result: Value, value: Value, coords: Sequence[Affine]) -> None:
        self.builder.emit(Store, (value, self.output(result)), (tuple(coords),))

    def read(
        self, value: Value, coords: Sequence[Coord], mask: Value | None = None
    ) -> Value:
        """The element of a graph value at these coordinates, through all views."""
        if isinstance(value.type, Tensor) and 0 in value.shape:
            return self.builder.const(0, value.dtype)  # nothing is read
        while value not in self.sources.stored:
            op = self.sources.made[value]
            if isinstance(value.type, Scalar):
                return self.scalar(value)
            coords = VIEWS[type(op)](self.builder, op, coords)
            value = op.operands[0]
        if isinstance(value.type, Scalar):
            return self.scalar(value)
        return self.load(self.input(self.sources.stored[value]), coords, mask)

    def scalar(self, value: Value) -> Value:
        """A scalar of the graph, computed in the region."""
        return emit_scalar(self.builder, self.sources.made, value, self.unboxed)

    def unboxed(self, value: Value) -> Value:
        """What the host knows, read from the tensor that it puts it in."""
        return self.load(self.input(self.sources.boxed(value)), (), None)

    def load(self, buffer: Value, coords: Sequence[Coord], mask: Value | None) -> Value:
        index, slots = slotted(coords)
        if mask is not None:
            other = self.builder.const(0, buffer.dtype)  # type: ignore[union-attr]
            slots += [mask, other]
        attrs = (index, mask is not None)
        (value,) = self.builder.emit(Load, (buffer, *slots), attrs)
        return value

    def update(
        self,
        op: Scatter,
        value: Value,
        start: Value,
        coords: Sequence[Coord],
        axes: tuple[Axis, ...],
        mask: Value | None,
    ) -> None:
        """Combine an element with that of a result, at all points of some axes."""
        index, slots = slotted(coords)
        slots += [] if mask is None else [mask]
        begun = self.input(self.sources.stored[start])
        operands = (value, self.output(op.result), begun, *slots)
        attrs = (index, axes, op.combine, mask is not None)
        self.builder.emit(Update, operands, attrs)

    def checked(
        self, shape: Sequence[Dim], indices: Mapping[int, Value], picks: bool = True
    ) -> Value:
        """Check that indices lie in their dimensions; where they do, as bool.

        Where nothing is picked there is no index.
        """
        b = self.builder
        inside: Value | None = None
        for dim, index in indices.items():
            low = b(Ge, index, b.const(0, i64))
            within = b(And, low, b(Lt, index, b.size(shape[dim])))
            message = f"index out of range for dimension {dim} of size {shape[dim]}"
            if picks:
                b.emit(Check, (within,), (message, "IndexError"))
            inside = within if inside is None else b(And, inside, within)
        assert inside is not None
        return inside

    def integer(self, index: Value) -> Value:
        """An index of any integer dtype as i64."""
        return self.builder(Cast, index, dtype=i64)


def emit_scalar(
    builder: Builder,
    made: Mapping[Value, Op],
    value: Value,
    given: Callable[[Value], Value],
) -> Value:
    """Compute a scalar anew where it is needed.

    From constants, sizes, and what the host is `given` or finds out.
    """
    env: dict[Value, Value] = {}
    stack = [value]
    while stack:
        top = stack[-1]
        op = made.get(top)
        if op is None:
            env[stack.pop()] = given(top)
            continue
        missing = [v for v in op.operands if v not in env]
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        if top not in env:
            env.update(zip(op.results, builder.copy(op, env), strict=True))
    return env[value]
