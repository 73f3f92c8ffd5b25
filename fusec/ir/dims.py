"""Dims: the symbolic integers that sizes, strides and index offsets are made of.

A `Dim` is a plain `int` where the value is known and an `Expr` where it is not.
An expression is a polynomial with integer coefficients over *atoms*: symbols,
floor divisions, remainders, maxima and minima.  Arithmetic brings it into one
form and interns it, so two expressions of the same form are the same object:
equality is `is`, hashing is free, and a result that became constant is an `int`.

    >>> s0, s1 = Symbol("s0"), Symbol("s1")
    >>> (s0 + 1) * s1 - s1 is s1 * s0
    True
    >>> (64 * s0 * s1 + 5) // 4
    16*s0*s1 + 1
    >>> (64 * s0 * s1) // s1
    64*s0
    >>> tiles = ceil_div(s0, 64)
    >>> tiles
    (s0 + 63)//64
    >>> evaluate(tiles, {s0: 100})
    2
    >>> NO_FACTS.proves_le(s0, 64 * tiles)
    True

Division and remainder follow Python: they round towards minus infinity.  A
divisor that is not a constant is taken to be positive, as the sizes and strides
that programs divide by are; where it is not, `s0//s0` is 1 all the same.
Every other identity holds for all integers.

What is known about the symbols of one function is kept apart, in `Facts`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from math import gcd, inf, lcm, prod

from fusec.ir.expr import (
    SYMBOL_NAME,
    Atom,
    Dim,
    Expr,
    FloorDiv,
    Max,
    Min,
    Mod,
    Sum,
    Symbol,
    atoms,
    dim_max,
    dim_min,
    exact_div,
    fold,
    format_dim,
    gcd_const,
    polynomial,
    terms_of,
    without,
)
from fusec.ir.intervals import Bound, Interval, over, plus, remainder, times

__all__ = [
    "NO_FACTS",
    "Atom",
    "Dim",
    "Expr",
    "Facts",
    "FloorDiv",
    "Max",
    "Min",
    "Mod",
    "Sum",
    "Symbol",
    "atoms",
    "ceil_div",
    "dim_max",
    "dim_min",
    "evaluate",
    "exact_div",
    "fold",
    "format_dim",
    "gcd_const",
    "is_static",
    "parse_dim",
    "product",
    "substitute",
    "symbols",
    "terms_of",
]


# ------------------------------------------------------------------ questions


def is_static(dim: Dim) -> bool:
    """Whether the value is known, that is, an `int`."""
    return isinstance(dim, int)


def symbols(dim: Dim) -> frozenset[Symbol]:
    """The symbols that occur in the dim."""
    if isinstance(dim, int):
        return frozenset()
    return frozenset(atom for atom in atoms(dim) if isinstance(atom, Symbol))


def substitute(dim: Dim, env: Mapping[Symbol, Dim]) -> Dim:
    """Replace symbols, all at once; those not in `env` stay."""
    if isinstance(dim, int):
        return dim

    def rebuild(atom: Atom, operands: list[Dim]) -> Dim:
        if isinstance(atom, Symbol):
            return env.get(atom, atom)
        return atom.apply(*operands)

    return fold(dim, rebuild, _recombine)


def _recombine(dim: Dim, values: Mapping[Atom, Dim]) -> Dim:
    if isinstance(dim, int):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        total = total + coefficient * product(values[atom] for atom in monomial)
    return total


def evaluate(dim: Dim, env: Mapping[Symbol, int]) -> int:
    """The value of the dim; KeyError names the symbols that have none."""
    if isinstance(dim, int):
        return dim
    value = substitute(dim, env)
    if isinstance(value, int):
        return value
    missing = sorted(symbol.name for symbol in symbols(dim) if symbol not in env)
    raise KeyError(f"no value for {', '.join(missing)} in {dim}")


def product(dims: Iterable[Dim]) -> Dim:
    """The product; 1 for no dims."""
    result: Dim = 1
    for dim in dims:
        result = result * dim
    return result


def ceil_div(a: Dim, b: Dim) -> Dim:
    """`a / b` rounded up."""
    if isinstance(b, int) and (b <= 0 or isinstance(a, int)):
        return -(-a // b)
    exact = exact_div(a, b)
    return (a + b - 1) // b if exact is None else exact


# ----------------------------------------------------------------------- text


def parse_dim(text: str) -> Dim:
    """Read a dim as `format_dim` writes it.

        dim     = operand { ("+" | "-" | "*" | "//" | "%") operand }
        operand = INT | NAME | "-" operand | "(" dim ")"
                | ("min" | "max") "(" dim { "," dim } ")"

    Operators bind as in Python.  Raises ValueError, with the column, on other text,
    and ZeroDivisionError where the text divides by 0.
    """
    return _Parser(text).parse()


_TOKEN = re.compile(rf"\d+|{SYMBOL_NAME}|//|[-+*%(),]", re.ASCII)
_BINARY: Mapping[str, tuple[int, Callable[[Dim, Dim], Dim]]] = {
    "+": (1, lambda a, b: a + b),
    "-": (1, lambda a, b: a - b),
    "*": (2, lambda a, b: a * b),
    "//": (2, lambda a, b: a // b),
    "%": (2, lambda a, b: a % b),
}
_CALLS: Mapping[str, Callable[..., Dim]] = {"max": dim_max, "min": dim_min}


class _Parser:
    """Precedence climbing over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.token = ""
        self.start = self.end = 0
        self.advance()

    def parse(self) -> Dim:
        dim = self.dim()
        if self.token:
            raise self.error("an operator or the end")
        return dim

    def dim(self, binding: int = 0) -> Dim:
        left = self.operand()
        while self.token in _BINARY and _BINARY[self.token][0] > binding:
            precedence, combine = _BINARY[self.advance()]
            left = combine(left, self.dim(precedence))
        return left

    def operand(self) -> Dim:
        if self.accept("-"):
            return -self.operand()
        if self.accept("("):
            return self.closed([self.dim()])[0]
        if not (self.token.isdigit() or self.token.isidentifier()):
            raise self.error("an integer, a name, '-' or '('")
        word = self.advance()
        if word.isdigit():
            return int(word)
        if word not in _CALLS or not self.accept("("):
            return Symbol(word)
        dims = [self.dim()]
        while self.accept(","):
            dims.append(self.dim())
        return _CALLS[word](*self.closed(dims))

    def closed(self, dims: list[Dim]) -> list[Dim]:
        """The dims, once the ')' after them is read."""
        if not self.accept(")"):
            raise self.error("an operator or ')'")
        return dims

    def accept(self, token: str) -> bool:
        """Step over the token if it comes next."""
        if self.token != token:
            return False
        self.advance()
        return True

    def advance(self) -> str:
        """Step to the next token ("" at the end); returns the one left behind."""
        left_behind = self.token
        rest = self.text[self.end :]
        self.start = len(self.text) - len(rest.lstrip())
        match = _TOKEN.match(self.text, self.start)
        if match is None and self.start < len(self.text):
            self.token = self.text[self.start]
            raise self.error("a dim")
        self.token = match.group() if match else ""
        self.end = match.end() if match else self.start
        return left_behind

    def error(self, expected: str) -> ValueError:
        found = repr(self.token) if self.token else "the end"
        place = f"column {self.start + 1} of {self.text!r}"
        return ValueError(f"expected {expected}, found {found} at {place}")


# ---------------------------------------------------------------------- facts


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about the symbols of a function, and what follows from it.

    `ranges` holds (symbol, lowest, highest), both included; a highest of None is
    no limit, and a symbol not listed is at least 0.  `divisors` holds (dim, n): the
    dim is a multiple of n >= 1.  A "no" means "not proved", never "disproved".

        >>> s0 = Symbol("s0")
        >>> facts = Facts(ranges=((s0, 1, 4096),), divisors=((s0, 64),))
        >>> facts.range(s0 // 64 + 1)
        (2, 65)
        >>> facts.divides(128, 2 * s0)
        True
    """

    ranges: tuple[tuple[Symbol, int, int | None], ...] = ()
    divisors: tuple[tuple[Dim, int], ...] = ()

    def range(self, dim: Dim) -> tuple[int | None, int | None]:
        """The least and greatest value, both included; None where unbounded.

        Interval arithmetic, on the dim as it stands and with `m*(x//m)` read as
        `x - x%m`; both hold, so the narrower limits do.
        """
        if isinstance(dim, int):
            return dim, dim
        low, high = self._interval(dim)
        other = _floors_as_mods(dim)
        if other != dim:
            other_low, other_high = self._interval(other)
            low, high = max(low, other_low), min(high, other_high)
        return _finite(low), _finite(high)

    def about(self, known: Collection[Symbol]) -> Facts:
        """What is known about these symbols alone."""
        ranges = tuple(entry for entry in self.ranges if entry[0] in known)
        held = set(known)
        return Facts(ranges, tuple(d for d in self.divisors if symbols(d[0]) <= held))

    def divides_safely(self, dim: Dim) -> bool:
        """Whether all that the dim divides by is above zero, as dims presume."""
        divisions = (a for a in atoms(dim) if isinstance(a, (FloorDiv, Mod)))
        return all(self.proves_le(1, atom.operands[1]) for atom in divisions)

    def divisor(self, dim: Dim) -> int:
        """The largest int found to divide the dim; 0 for 0, which all divide."""
        if isinstance(dim, int):
            return abs(dim)
        return fold(dim, self._atom_divisor, self._sum_divisor)

    def divides(self, n: int, dim: Dim) -> bool:
        """Whether the dim is a multiple of n >= 1."""
        return self.divisor(dim) % n == 0

    def proves_le(self, a: Dim, b: Dim) -> bool:
        """Whether a <= b."""
        low, _ = self.range(b - a)
        return low is not None and low >= 0

    def proves_lt(self, a: Dim, b: Dim) -> bool:
        """Whether a < b."""
        return self.proves_le(a + 1, b)

    def proves_eq(self, a: Dim, b: Dim) -> bool:
        """Whether a == b."""
        return a == b or self.range(b - a) == (0, 0)

    def _interval(self, dim: Dim) -> Interval:
        limits = {symbol: (low, high) for symbol, low, high in self.ranges}
        steps = dict(self.divisors)

        def atom_interval(atom: Atom, operands: list[Interval]) -> Interval:
            if not isinstance(atom, Symbol):
                return _atom_interval(atom, operands)
            low, high = limits.get(atom, (0, None))
            step = steps.get(atom, 1)
            top = inf if high is None else high // step * step
            return -(-low // step) * step, top

        return fold(dim, atom_interval, _sum_interval)

    def _atom_divisor(self, atom: Atom, operands: list[int]) -> int:
        n = self._declared(atom, {})
        if isinstance(atom, (Mod, Max, Min)):
            return lcm(n, gcd(*operands))
        if isinstance(atom, FloorDiv):
            divisor = atom.operands[1]
            if isinstance(divisor, int) and operands[0] % divisor == 0:
                return lcm(n, operands[0] // divisor)  # (m*k*x) // m = k*x
        return n

    def _sum_divisor(self, dim: Dim, known: Mapping[Atom, int]) -> int:
        common = 0
        for monomial, coefficient in terms_of(dim):
            term = polynomial({monomial: coefficient})
            common = gcd(common, self._declared(term, known))
        return lcm(common, self._declared(dim, known))

    def _declared(self, dim: Dim, known: Mapping[Atom, int]) -> int:
        """A divisor of the dim as it stands, and as a multiple of those listed."""
        n = _termwise_divisor(dim, known)
        for factor, divisor in self.divisors:
            quotient = exact_div(dim, factor)
            if quotient is not None:
                n = lcm(n, divisor * _termwise_divisor(quotient, known))
        return n


def _termwise_divisor(dim: Dim, known: Mapping[Atom, int]) -> int:
    """Divides every term, given a divisor of each atom (1 where none is known)."""
    return gcd(*(c * prod(known.get(a, 1) for a in m) for m, c in terms_of(dim)))


def _floors_as_mods(dim: Dim) -> Dim:
    """k*m*(x//m) -> k*(x - x%m), k and m any dims."""
    for monomial, coefficient in terms_of(dim):
        for atom in monomial:
            if not isinstance(atom, FloorDiv):
                continue
            x, m = atom.operands
            others = without(monomial, (atom,))
            assert others is not None
            k = exact_div(polynomial({others: coefficient}), m)
            if k is not None:
                dim = dim + k * (x - x % m - m * atom)
                break
    return dim


def _finite(bound: Bound) -> int | None:
    return bound if isinstance(bound, int) else None


def _sum_interval(dim: Dim, known: Mapping[Atom, Interval]) -> Interval:
    total: Interval = (0, 0)
    for monomial, coefficient in terms_of(dim):
        term: Interval = (coefficient, coefficient)
        for atom in monomial:
            term = times(term, known[atom])
        total = plus(total, term)
    return total


def _atom_interval(atom: Atom, operands: list[Interval]) -> Interval:
    if isinstance(atom, (Max, Min)):
        pick = max if isinstance(atom, Max) else min
        return pick(low for low, _ in operands), pick(high for _, high in operands)
    numerator, (least, most) = operands
    divisor = max(least, 1), max(most, 1)  # divisors are positive
    return (remainder if isinstance(atom, Mod) else over)(numerator, divisor)


NO_FACTS = Facts()
