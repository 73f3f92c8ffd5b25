"""One function in execution: its values, its sizes, and the rules of its level."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from fusec.errors import FusecError, Loc
from fusec.ir.core import Block, Function, Level, Module, Op, Value
from fusec.ir.dims import Dim, Symbol, evaluate
from fusec.ir.dtypes import Array, i64
from fusec.ir.types import Axis, Opaque, Points, Scalar, Tensor, Tile, Token, Type


class InterpretError(FusecError):
    """A program does what none may: `what`, in which `op`, from `where` in source."""

    def __init__(self, what: str, op: str = "", where: Loc = Loc.UNKNOWN) -> None:
        super().__init__(what, op, where)
        self.what = what
        self.op = op
        self.where = where

    def __str__(self) -> str:
        head = f"{self.op}: {self.what}" if self.op else self.what
        return "\n  ".join([head, *self.where.describe().splitlines()])


ExternCall = Callable[
    [str, tuple[Any, ...], dict[str, Any], tuple[Any, ...]], Sequence[Any]
]
"""`(target, arguments, keywords, inputs)` to the results of an extern.

In arguments and keywords dims are numbers and a `Slot(k)` stands for `inputs[k]`: an
array in the carrier of its dtype, a number, or None for a token.
"""

Observer = Callable[[Op, tuple[Any, ...]], None]
"""Called after each op with its results, in the form that its level holds."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a function may reach beyond itself."""

    module: Module | None = None
    extern: ExternCall | None = None
    observe: Observer | None = None


def is_array(held: Any) -> TypeGuard[Array]:
    return isinstance(held, np.ndarray)


LARGEST = 1 << 40
"""No array has more elements: beyond, the arithmetic of addresses may overflow."""

Rule = Callable[["Frame", Any], Iterable[Any]]
"""From an op to the values of its results."""


class Frame:
    """The values of a function while it runs."""

    def __init__(
        self,
        function: Function,
        sizes: Mapping[Symbol, int],
        rules: Mapping[type, Rule],
        context: Context,
    ) -> None:
        self.function = function
        self.sizes = dict(sizes)
        self.context = context
        self.program = 0
        """Which program of a launch runs, at the tile level."""
        self.values: dict[Value, Any] = {}
        self.products: Container[Op] = ()
        """Products that are not computed but summed, in the region that runs."""
        self._rules = rules

    def __getitem__(self, value: Value) -> Any:
        if value not in self.values:
            raise InterpretError(f"{value} is used before it is computed")
        return self.values[value]

    def all(self, values: Iterable[Value]) -> list[Any]:
        """What several values hold."""
        return [self[value] for value in values]

    def number(self, value: Value) -> int:
        """An integer scalar as a number."""
        return int(self[value])

    def size(self, dim: Dim) -> int:
        """The value of a dim in this call, which an i64 holds."""
        try:
            value = dim if isinstance(dim, int) else evaluate(dim, self.sizes)
        except KeyError as error:
            raise InterpretError(str(error.args[0])) from None
        if not -(1 << 63) <= value < 1 << 63:
            raise InterpretError(f"{value} is beyond i64")
        return value

    def numbers(self, dims: Iterable[Dim]) -> tuple[int, ...]:
        """The values of several dims. Raises `InterpretError` if one is too large."""
        values = tuple(self.size(dim) for dim in dims)
        if any(abs(n) > LARGEST for n in values):
            raise InterpretError(f"{values} is beyond the largest size, {LARGEST}")
        return values

    def shape(self, dims: Iterable[Dim]) -> tuple[int, ...]:
        """As `numbers`, of extents: `InterpretError` if one is negative, too."""
        extents = self.numbers(dims)
        if any(n < 0 for n in extents):
            raise InterpretError(f"{extents} is no shape: an extent is negative")
        return extents

    def extents(self, axes: Iterable[Axis]) -> tuple[int, ...]:
        """How many points each axis has."""
        return self.shape(axis.extent for axis in axes)

    def run(self, block: Block) -> None:
        """Execute the ops of a block, whose parameters have their values already."""
        for op in block.ops:
            self._step(op)

    def _step(self, op: Op) -> None:
        try:
            results = tuple(self._rule(op)(self, op))
            for value, held in zip(op.results, results, strict=True):
                self._check(value.type, held)
                self.values[value] = held
        except InterpretError as error:
            if error.op:
                raise
            raise InterpretError(error.what, type(op).name, op.loc) from None
        except MemoryError:
            what = "there is not enough memory"
            raise InterpretError(what, type(op).name, op.loc) from None
        if self.context.observe:
            self.context.observe(op, results)

    def _rule(self, op: Op) -> Rule:
        for op_class in type(op).__mro__:
            if op_class in self._rules:
                return self._rules[op_class]
        raise InterpretError(f"this op does not belong to the {self.level} level")

    @property
    def level(self) -> str:
        return self.function.level.value

    def _check(self, type_: Type, held: Any) -> None:
        """That a rule gave what the type promises: a fault of ours or of the IR."""
        if not is_array(held) or isinstance(type_, (Token, Opaque)):
            return
        shape, carrier = self._form(type_), type_.dtype.carrier
        if shape is not None and held.shape != shape:
            raise InterpretError(f"the result has shape {held.shape}, not {shape}")
        if held.dtype != carrier:
            raise InterpretError(f"the result is {held.dtype}, not {carrier}")

    def _form(self, type_: Type) -> tuple[int, ...] | None:
        if isinstance(type_, (Tensor, Tile)):
            return self.shape(type_.shape)
        if isinstance(type_, Points):
            return self.extents(type_.axes)
        return () if isinstance(type_, Scalar) else None


# -------------------------------------------------------------------- symbols


class Given(NamedTuple):
    """A value from outside: an argument, or the result of an extern."""

    value: Value
    array: Any


def bind_symbols(function: Function, arguments: Sequence[Any]) -> dict[Symbol, int]:
    """The values that a call gives to symbols.

    A symbol is the value of an i64 scalar parameter that bears its name, and of every
    dimension of a tensor parameter that is just the symbol. A tile function takes its
    symbols as further arguments. Raises `InterpretError` where arguments do not fit
    the parameters or contradict one another.
    """
    params = function.params
    extra = function.symbols if function.level is Level.TILE else ()
    if len(arguments) != len(params) + len(extra):
        takes = f"{len(params) + len(extra)} arguments, not {len(arguments)}"
        raise InterpretError(f"{function.name} takes {takes}")
    sizes: dict[Symbol, int] = {}
    for symbol, number in zip(extra, arguments[len(params) :], strict=True):
        sizes[symbol] = int(number)
    given = [Given(*pair) for pair in zip(params, arguments, strict=False)]
    bind(sizes, function.symbols, given)
    return sizes


def bind(
    sizes: dict[Symbol, int], known: Iterable[Symbol], given: Iterable[Given]
) -> None:
    """Add to `sizes` what given values say of symbols, and check all their shapes."""
    by_name = {symbol.name: symbol for symbol in known}
    given = list(given)
    for value, array in given:
        for dim, extent in _equations(value, array, by_name):
            if isinstance(dim, Symbol):
                _bind_one(sizes, dim, extent, value)
    for value, array in given:
        if isinstance(value.type, Tensor):
            _check_shape(sizes, value, array)


def _equations(
    value: Value, array: Any, by_name: Mapping[str, Symbol]
) -> Iterable[tuple[Dim, int]]:
    type_ = value.type
    if isinstance(type_, Opaque):
        return []
    shape = _shape(array)
    if isinstance(type_, Scalar) and shape != ():
        raise InterpretError(f"{value} is a scalar, not an array of shape {shape}")
    if isinstance(type_, Scalar) and type_.dtype is i64 and value.hint in by_name:
        return [(by_name[value.hint], int(array))]
    if not isinstance(type_, Tensor):
        return []
    if len(shape) != len(type_.shape):
        raise InterpretError(f"{value} has {len(type_.shape)} dimensions, not {shape}")
    return zip(type_.shape, shape, strict=True)


def _bind_one(
    sizes: dict[Symbol, int], symbol: Symbol, number: int, value: Value
) -> None:
    known = sizes.setdefault(symbol, number)
    if known != number:
        raise InterpretError(f"{symbol} is {known}, but {number} by {value}")


def _shape(array: Any) -> tuple[int, ...]:
    return np.asarray(array).shape


def _check_shape(sizes: Mapping[Symbol, int], value: Value, array: Any) -> None:
    assert isinstance(value.type, Tensor)
    shape = _shape(array)
    try:
        expected = tuple(evaluate(dim, sizes) for dim in value.type.shape)
    except KeyError as error:
        raise InterpretError(f"{value}: {error.args[0]}") from None
    if shape != expected:
        raise InterpretError(f"{value} has shape {expected}, not {shape}")
