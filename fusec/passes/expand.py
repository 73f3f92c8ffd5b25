"""Replace every elementwise op that the backend has no row for by ops that it has.

    before    %y = exp %x : tile<bf16 [64] …>

    after     %0 = cast %x f32                 narrow floats compute in f32
              %1 = mul %0, 0x1.715476p+0       Exp.expand, once more for each op
              …                                in it that has no row either
              %y = cast %9 bf16                and round after each op, as eager does

Monoids expand too: a reduction of bf16 combines in f32 and rounds every state. The
result computes the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from fusec.errors import InternalError, Loc
from fusec.ir.builder import Builder
from fusec.ir.core import Block, Function, Level, Monoid, Op, Value, Values
from fusec.ir.dtypes import DType, bf16, f16, f32, i16, i32
from fusec.ir.ops.cast import Bitcast, Cast
from fusec.ir.ops.elementwise import Elementwise, Select
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.rare import Rare
from fusec.ir.ops.reduction import ReduceTile, ScanTile

Supports = Callable[[Any, DType], bool]
"""Whether the backend has a row for an op class on operands of a dtype."""

NARROW = {f16: f32, bf16: f32, i16: i32}
"""Where the operands of a narrow float op compute; i16 are its exponents."""


def expand(function: Function, supports: Supports) -> Function:
    """A function of the same meaning whose elementwise ops all have a row.

    Raises `InternalError` naming an op that has neither row nor expansion.
    """
    b = _Expander(function.level, supports)
    env: dict[Value, Value] = {}
    for old in function.params:
        env[old] = b.param(old.type, old.hint)
    for op in function.body.ops:
        b.loc = op.loc
        env.update(zip(op.results, b.copy(op, env), strict=True))
    return b.successor(function, (env[value] for value in function.body.yields))


class _Expander(Builder):
    """A builder that takes any elementwise op and emits only those with a row."""

    def __init__(
        self, level: Level, supports: Supports, parent: _Expander | None = None
    ) -> None:
        super().__init__(level, parent)
        self._supports = supports
        self._open: tuple[tuple[Any, DType], ...] = parent._open if parent else ()
        self._monoids: dict[Monoid, Monoid] = parent._monoids if parent else {}

    def nested(self) -> Builder:
        return _Expander(self.level, self._supports, self)

    def isolated(self) -> Builder:
        builder = _Expander(self.level, self._supports)
        builder.loc, builder._open = self.loc, self._open
        builder._monoids = self._monoids
        return builder

    def emit(
        self,
        op_class: Any,
        operands: Iterable[Value],
        attrs: tuple[Any, ...] = (),
        blocks: tuple[Block, ...] = (),
        loc: Loc | None = None,
        hints: tuple[str, ...] = (),
    ) -> Values:
        operands = tuple(operands)
        if op_class in (ReduceTile, ScanTile):
            along, monoid = attrs
            attrs = (along, self._expanded(monoid))
        if op_class is Rare and not self._supports(Rare, dtype_of(operands[1])):
            return (self._chosen(blocks[0], operands),)
        if not self._lacks(op_class, operands, attrs):
            return super().emit(op_class, operands, attrs, blocks, loc, hints)
        simpler = op_class.simplify(self, operands, attrs)
        if simpler is not None:
            return simpler
        return (self._expand(op_class, operands),)

    def _chosen(self, block: Block, operands: Values) -> Value:
        """The block on every element, and a choice: without a branch."""
        cond, usual, *xs = operands
        (far,) = self.inline(block, xs)
        return self(Select, cond, far, usual)

    def _expanded(self, monoid: Monoid) -> Monoid:
        if monoid not in self._monoids:
            combine = expand(monoid.combine, self._supports)
            self._monoids[monoid] = replace(monoid, combine=combine)
        return self._monoids[monoid]

    def _lacks(self, op_class: type[Op], operands: Values, attrs: Any) -> bool:
        """Whether the op is elementwise and has no row."""
        if issubclass(op_class, (Cast, Bitcast)):
            dtypes = (dtype_of(operands[0]), attrs[0])
            return not all(self._supports(op_class, dtype) for dtype in dtypes)
        if not issubclass(op_class, Elementwise):
            return False
        return not self._supports(op_class, _decisive(op_class, operands))

    def _expand(self, op_class: Any, operands: Values) -> Value:
        dtype = _decisive(op_class, operands)
        if (op_class, dtype) in self._open:
            raise self._failure(op_class, dtype, "expands into itself")
        around, self._open = self._open, (*self._open, (op_class, dtype))
        try:
            return self._simpler(op_class, dtype, operands)
        finally:
            self._open = around

    def _simpler(self, op_class: Any, dtype: DType, operands: Values) -> Value:
        """The op in simpler ones, emitted through this builder and so closed."""
        narrow = dtype in (f16, bf16) and issubclass(op_class, Elementwise)
        if narrow and op_class.widens:
            return self._in_f32(op_class, dtype, operands)
        make = getattr(op_class, "expand", None)
        value = make(self, *operands) if make else None
        if value is None:
            raise self._failure(op_class, dtype, "has neither a row nor an expansion")
        return value

    def _in_f32(self, op_class: Any, dtype: DType, operands: Values) -> Value:
        """Compute in f32 and round, as eager does; a fused op rounds twice."""
        wide = [
            self(Cast, x, dtype=NARROW.get(dtype_of(x), dtype_of(x))) for x in operands
        ]
        value = self(op_class, *wide)
        return value if op_class.gives else self(Cast, value, dtype=dtype)

    def _failure(self, op_class: Any, dtype: DType, why: str) -> InternalError:
        return InternalError(f"{op_class.name} of {dtype.name} {why}", self.loc)


def _decisive(op_class: type[Op], operands: Values) -> DType:
    """The dtype that a row is looked up by."""
    return dtype_of(operands[1 if issubclass(op_class, Select) else 0])
