"""Building functions: ops are checked, simplified and shared as they are emitted.

    b = Builder(Level.GRAPH)
    x = b.param(Tensor(f32, (4,)), "x")
    y = b(Mul, b(Exp, x), b.const(1.0, f32))     # x * 1 -> x
    f = b.function("f", (y,))

There is no separate clean-up pass: an op that already exists in scope is reused
(common subexpressions), and an op class may hand back simpler values instead
(`Op.simplify`). A pass is one sweep over an old function into a new builder
(`rewrite`), so its cost is linear in the function, whatever it rewrites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from fusec.errors import Loc
from fusec.ir.core import Block, Function, Level, Op, Value, Values, walk
from fusec.ir.dims import NO_FACTS, Dim, Facts, Symbol
from fusec.ir.dtypes import DType, f64
from fusec.ir.opdef import REQUIRED, OpMeta
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.types import Buffer, Space, Type


class Builder:
    """Collects the ops of one block. `parent` lends its values to be reused."""

    def __init__(self, level: Level, parent: Builder | None = None) -> None:
        self.level = level
        self.loc = parent.loc if parent else Loc.UNKNOWN
        self._parent = parent
        self._params: list[Value] = []
        self._ops: list[Op] = []
        self._known: dict[Any, Values] = {}
        self._definitions: dict[Value, Op] = parent._definitions if parent else {}
        self._shared: dict[Any, Block] = parent._shared if parent else {}

    def param(self, type_: Type, hint: str = "") -> Value:
        """A new parameter of the block."""
        value = Value(type_, hint)
        self._params.append(value)
        return value

    def const(self, value: float | int | bool, dtype: DType) -> Value:
        """A scalar constant: the number of `dtype` nearest to `value`."""
        return self(Const, value=representable(value, dtype), dtype=dtype)

    def size(self, dim: Dim) -> Value:
        """A size as an i64 scalar."""
        return self(SizeOf, dim=dim)

    def __call__(self, op_class: Any, *operands: Value, **attrs: Any) -> Value:
        """Emit an op that has one result."""
        values = tuple(
            _default(op_class, name, field.default)
            if name not in attrs
            else attrs.pop(name)
            for name, field in op_class.attr_fields.items()
        )
        if attrs:
            raise TypeError(f"{op_class.name} has no attribute {sorted(attrs)}")
        (value,) = self.emit(op_class, operands, values)
        return value

    def emit(
        self,
        op_class: Any,
        operands: Iterable[Value],
        attrs: tuple[Any, ...] = (),
        blocks: tuple[Block, ...] = (),
        loc: Loc | None = None,
        hints: tuple[str, ...] = (),
    ) -> Values:
        """Emit an op, or return the values that already hold its results."""
        operands = tuple(operands)
        simpler = op_class.simplify(self, operands, attrs)
        if simpler is not None:
            return simpler
        key = None
        scratch = [value for value in operands if _is_scratch(value)]
        if op_class.pure and not blocks:
            key = (op_class, operands, attrs_key(attrs))
            known = self._known.get(key) if scratch else self._find(key)
            if known is not None:
                return known
        else:
            self._forget(scratch)
        types = op_class.infer(operands, attrs, blocks)
        names = hints or ("",) * len(types)
        results = tuple(Value(t, h) for t, h in zip(types, names, strict=True))
        op = op_class(operands, attrs, blocks, results, loc or self.loc)
        self._ops.append(op)
        for value in results:
            self._definitions[value] = op
        if key is not None:
            self._known[key] = results
        return results

    def definition(self, value: Value) -> Op | None:
        """The op that computed a value; None for parameters."""
        return self._definitions.get(value)

    def constant(self, value: Value) -> float | int | bool | None:
        """The number that a value is known to be."""
        op = self._definitions.get(value)
        return op.value if isinstance(op, Const) else None

    def nested(self) -> Builder:
        """A builder for a block inside the next op."""
        return Builder(self.level, self)

    def isolated(self) -> Builder:
        """A builder for a block that reads its parameters only."""
        builder = Builder(self.level)
        builder.loc = self.loc
        return builder

    def shared(self, key: Any, write: Callable[[Builder], Block]) -> Block:
        """A block that reads its parameters only: written once, then had by its key."""
        if key not in self._shared:
            self._shared[key] = write(self.isolated())
        return self._shared[key]

    def block(self, yields: Iterable[Value] = ()) -> Block:
        """What was built, closed."""
        return Block(tuple(self._params), tuple(self._ops), tuple(yields))

    def function(
        self,
        name: str,
        yields: Iterable[Value] = (),
        *,
        symbols: tuple[Symbol, ...] = (),
        facts: Facts = NO_FACTS,
        returns_into: tuple[int | None, ...] = (),
    ) -> Function:
        """What was built, as a function."""
        body = self.block(yields)
        return Function(name, self.level, body, symbols, facts, returns_into)

    def successor(self, function: Function, yields: Iterable[Value] = ()) -> Function:
        """What was built, as what becomes of a function: all but its body stays."""
        return replace(function, level=self.level, body=self.block(yields))

    def _forget(self, scratch: Sequence[Value]) -> None:
        """Memory is written: what was read from it need not be what it holds now."""
        scope: Builder | None = self
        while scope is not None and scratch:
            stale = [key for key in scope._known if not {*scratch}.isdisjoint(key[1])]
            for key in stale:
                del scope._known[key]
            scope = scope._parent

    def _find(self, key: Any) -> Values | None:
        scope: Builder | None = self
        while scope is not None:
            known = scope._known.get(key)
            if known is not None:
                return known
            scope = scope._parent
        return None

    def copy(self, op: Op, env: Mapping[Value, Value]) -> Values:
        """Emit an op again on other operands, its blocks rebuilt.

        Those of a closed op are the same for all operands: they stay as they are.
        """
        operands = tuple(env.get(v, v) for v in op.operands)
        blocks = op.blocks
        if blocks and not op.closed:
            blocks = tuple(rewrite_block(self, b, env, _copying) for b in blocks)
        return self.emit(type(op), operands, op.attrs, blocks, op.loc, op.hints)

    def inline(self, block: Block, arguments: Iterable[Value]) -> Values:
        """Emit the ops of a block on these arguments; returns its yields."""
        env = dict(zip(block.params, arguments, strict=True))
        for op in block.ops:
            env.update(zip(op.results, self.copy(op, env), strict=True))
        return tuple(env.get(v, v) for v in block.yields)


def _is_scratch(value: Value) -> bool:
    """Whether a value is memory that ops of its kernel write and read again."""
    return isinstance(value.type, Buffer) and value.type.space is Space.SCRATCH


Visit = Callable[[Builder, Op, Mapping[Value, Value]], "Values | None"]
"""Emit what replaces an op, given old value → new; None copies the op."""


def _copying(builder: Builder, op: Op, env: Mapping[Value, Value]) -> None:
    """Every op stays."""


def rewrite(function: Function, visit: Visit) -> Function:
    """A new function, each op replaced by what `visit` emits for it, in one sweep."""
    builder = Builder(function.level)
    env: dict[Value, Value] = {}
    for old in function.params:
        env[old] = builder.param(old.type, old.hint)
    yields = _sweep(builder, function.body, env, visit)
    return builder.successor(function, yields)


def rewrite_block(
    builder: Builder, block: Block, env: Mapping[Value, Value], visit: Visit
) -> Block:
    """A nested block, rewritten in the same sweep."""
    inner = builder.nested()
    scope = dict(env)
    for old in block.params:
        scope[old] = inner.param(old.type, old.hint)
    yields = _sweep(inner, block, scope, visit)
    return inner.block(yields)


def _sweep(
    builder: Builder, block: Block, env: dict[Value, Value], visit: Visit
) -> Values:
    for op in block.ops:
        builder.loc = op.loc
        new = visit(builder, op, env)
        if new is None:
            new = builder.copy(op, env)
        env.update(zip(op.results, new, strict=True))
    return tuple(env.get(v, v) for v in block.yields)


def without_dead_ops(block: Block) -> Block:
    """The block without pure ops of its own that nothing needs."""
    needed = set(block.yields)
    kept: list[Op] = []
    for op in reversed(block.ops):
        if op.pure and needed.isdisjoint(op.results):
            continue
        kept.append(op)
        needed.update(op.operands)
        needed.update(v for inner in op.blocks for o in walk(inner) for v in o.operands)
    return Block(block.params, tuple(reversed(kept)), block.yields)


def representable(value: float | int | bool, dtype: DType) -> float | int | bool:
    """The number of a dtype that is nearest to a value, of Python's own type for it."""
    if dtype.is_bool:
        return bool(value)
    if not dtype.is_float:
        return int(value)
    if dtype is f64:
        return float(value)
    return _rounded(float(value).hex(), dtype)


@lru_cache(maxsize=4096)
def _rounded(digits: str, dtype: DType) -> float:
    # By its digits, since 0.0 and -0.0 are equal and NaN is not.
    return float(dtype.quantize(float.fromhex(digits)))


def attrs_key(attrs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Attributes as a key that keeps 0.0, -0.0, 0, False and NaN apart."""
    return tuple(_attr_key(a) for a in attrs)


def _attr_key(value: Any) -> Any:
    if isinstance(value, float):
        return ("float", value.hex())
    if isinstance(value, (bool, int)):
        return (type(value), value)
    if isinstance(value, tuple):
        return tuple(_attr_key(v) for v in value)  # type: ignore[reportUnknownVariableType]
    return value


def _default(op_class: OpMeta, name: str, default: Any) -> Any:
    if default is REQUIRED:
        raise TypeError(f"{op_class.name} needs the attribute {name}")
    return default
