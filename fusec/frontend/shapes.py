"""torch's symbolic sizes as dims, and what torch knows about their symbols.

torch keeps a size as a sympy expression inside a `SymInt`, and what was assumed about
its symbols in a `ShapeEnv`. For a graph traced with `x: f32[s0, 8]`, `s0` even:

    to_dim(x.shape[0] // 2)       s0//2, a dim
    Sizes.of([...]).facts         s0 in [2, ∞), 2 divides s0
    Sizes.of([...]).hints         {s0: 6}, the size in the call that was traced

This is the only file that knows sympy.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch

from fusec.frontend.torch_private import ShapeEnv, symbol_hint
from fusec.ir.dims import (
    Dim,
    Facts,
    Symbol,
    ceil_div,
    dim_max,
    dim_min,
    product,
    symbols,
)


class Untranslatable(ValueError):
    """A size that is no dim: a float, a condition, an operation that dims lack."""


def to_dim(size: int | torch.SymInt) -> Dim:
    """A size as a dim. Raises `Untranslatable`."""
    # A bool is an int, too; anything else has no place in a shape.
    return int(size) if isinstance(size, int) else _dim(size.node.expr)


def to_dims(sizes: Iterable[int | torch.SymInt]) -> tuple[Dim, ...]:
    """Several sizes as dims. Raises `Untranslatable`."""
    return tuple(to_dim(size) for size in sizes)


def symbol_of(size: torch.SymInt) -> Symbol | None:
    """The symbol that a size is; None for compound sizes."""
    expr = size.node.expr
    return Symbol(expr.name) if isinstance(expr, sympy.Symbol) else None


def likely(size: int | torch.SymInt) -> int:
    """A size as it was in the traced call; 2 for what only the data decides."""
    if isinstance(size, int):
        return size
    env, expr = size.node.shape_env, size.node.expr
    hints = {symbol: symbol_hint(env, symbol) or 2 for symbol in expr.free_symbols}
    return int(expr.subs(hints))


def _dim(expr: Any) -> Dim:
    if isinstance(expr, (int, sympy.Integer)):
        return int(expr)
    if isinstance(expr, sympy.Symbol):
        return Symbol(expr.name)
    make = _FUNCTIONS.get(type(expr).__name__)
    if make is None:
        raise Untranslatable(f"no dim for {expr} ({type(expr).__name__})")
    return make(*(_dim(argument) for argument in expr.args))


def _power(base: Dim, exponent: Dim) -> Dim:
    if not isinstance(exponent, int) or exponent < 0:
        raise Untranslatable(f"no dim for ({base})**({exponent})")
    return product([base] * exponent)


def _sum(*dims: Dim) -> Dim:
    total: Dim = 0
    for dim in dims:
        total = total + dim
    return total


# By name: torch's classes are private, and both sympy and torch have a Mod.
_FUNCTIONS: dict[str, Callable[..., Dim]] = {
    "Add": _sum,
    "Mul": lambda *dims: product(dims),
    "Pow": _power,
    "PowByNatural": _power,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "CeilDiv": ceil_div,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "ModularIndexing": lambda x, divisor, modulus: x // divisor % modulus,
    "Max": dim_max,
    "Min": dim_min,
    "Identity": lambda x: x,
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """The symbols of a graph: what is known about each, and its value when traced."""

    facts: Facts
    hints: dict[Symbol, int]

    @staticmethod
    def of(sizes: Sequence[torch.SymInt], extents: Iterable[Symbol]) -> Sizes:
        """Study the symbols in `sizes`, which share one `ShapeEnv`.

        `extents` are those that count elements of tensors: they are never negative,
        also where torch has not said so.
        """
        named: dict[str, Any] = {}
        for size in sizes:
            named.update((s.name, s) for s in size.node.expr.free_symbols)
        if not named:
            return Sizes(Facts(), {})
        env, least = sizes[0].node.shape_env, dict.fromkeys(extents, 0)
        ranges = tuple(
            (Symbol(name), *_range(env, symbol, least.get(Symbol(name), _LEAST)))
            for name, symbol in named.items()
        )
        hints = {
            Symbol(name): value
            for name, symbol in named.items()
            if (value := symbol_hint(env, symbol)) is not None
        }
        return Sizes(Facts(ranges, _divisors(env, set(named))), hints)


_LEAST = -(2**63)
"""Below no number that a call can bring."""


def _range(env: ShapeEnv, symbol: Any, least: int) -> tuple[int, int | None]:
    """The least and greatest value of a symbol that is at least `least`."""
    known = env.var_to_range.get(symbol)
    if known is None:
        return least, None
    low, high = (_finite(bound) for bound in (known.lower, known.upper))
    return least if low is None else max(low, least), high


def _finite(bound: Any) -> int | None:
    # torch writes "no bound" as int_oo or, having clamped it, as the int64 limit.
    if not isinstance(bound, (int, sympy.Integer)) or abs(int(bound)) >= 2**62:
        return None
    return int(bound)


def _divisors(env: ShapeEnv, names: set[str]) -> tuple[tuple[Dim, int], ...]:
    """`x % n == 0` for every such remainder that torch has guarded on."""
    found: list[tuple[Dim, int]] = []
    for remainder in env.divisible:
        dividend, divisor = remainder.args
        if not isinstance(divisor, sympy.Integer):
            continue
        try:
            dim = _dim(env.simplify(dividend))
        except Untranslatable:
            continue
        if all(symbol.name in names for symbol in symbols(dim)):
            found.append((dim, int(divisor)))
    return tuple(sorted(found, key=str))
