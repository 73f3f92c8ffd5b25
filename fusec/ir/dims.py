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

import operator
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import gcd, inf, lcm, prod
from threading import RLock
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")
E = TypeVar("E", bound="Expr")


# ---------------------------------------------------------------- expressions


class Expr:
    """An integer not known at compile time; equal expressions are identical."""

    __slots__ = ("__weakref__",)

    @property
    def terms(self) -> Terms:
        """The polynomial: (monomial, nonzero coefficient), by falling degree."""
        raise NotImplementedError

    def __add__(self, other: Dim) -> Dim:
        return _add(self, other, 1)

    def __radd__(self, other: int) -> Dim:
        return _add(self, other, 1)

    def __sub__(self, other: Dim) -> Dim:
        return _add(self, other, -1)

    def __rsub__(self, other: int) -> Dim:
        return _add(other, self, -1)

    def __neg__(self) -> Dim:
        return _add(0, self, -1)

    def __mul__(self, other: Dim) -> Dim:
        return _multiply(self, other)

    def __rmul__(self, other: int) -> Dim:
        return _multiply(other, self)

    def __floordiv__(self, other: Dim) -> Dim:
        return _floordiv(self, other)

    def __rfloordiv__(self, other: int) -> Dim:
        return _floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return _mod(self, other)

    def __rmod__(self, other: int) -> Dim:
        return _mod(other, self)

    def __str__(self) -> str:
        return format_dim(self)

    __repr__ = __str__

    def __reduce__(self) -> tuple[Callable[[str], Dim], tuple[str]]:
        """Copies and pickles are interned too."""
        return parse_dim, (format_dim(self),)


class Atom(Expr):
    """An indivisible factor of a monomial; the operands are dims in normal form."""

    __slots__ = ("operands", "order")
    spelling: ClassVar[str] = ""
    operands: tuple[Dim, ...]
    order: Order

    @property
    def terms(self) -> Terms:
        return (((self,), 1),)

    def apply(self, *operands: Dim) -> Dim:
        """The same operation on other operands, in normal form."""
        raise NotImplementedError


class Symbol(Atom):
    """A named unknown; symbols of one name are one object.

    Raises ValueError if the name is not an ASCII identifier.
    """

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: str) -> Symbol:
        def make() -> Symbol:
            if not re.fullmatch(_NAME, name, re.ASCII):
                raise ValueError(f"not a symbol name: {name!r}")
            symbol = object.__new__(cls)
            symbol.name = name
            symbol.operands = ()
            symbol.order = _join(name, ())._replace(names=(name,))
            return symbol

        return _intern((cls, name), make)

    def apply(self, *operands: Dim) -> Dim:
        return self


class FloorDiv(Atom):
    """`operands[0] // operands[1]`; made by `//`."""

    __slots__ = ()
    spelling = "//"

    def apply(self, *operands: Dim) -> Dim:
        a, b = operands
        return a // b


class Mod(Atom):
    """`operands[0] % operands[1]`; made by `%`."""

    __slots__ = ()
    spelling = "%"

    def apply(self, *operands: Dim) -> Dim:
        a, b = operands
        return a % b


class Max(Atom):
    """The largest operand; made by `dim_max`."""

    __slots__ = ()
    spelling = "max"

    def apply(self, *operands: Dim) -> Dim:
        return dim_max(*operands)


class Min(Atom):
    """The smallest operand; made by `dim_min`."""

    __slots__ = ()
    spelling = "min"

    def apply(self, *operands: Dim) -> Dim:
        return dim_min(*operands)


class Sum(Expr):
    """A polynomial that is neither a constant nor an atom."""

    __slots__ = ("_terms",)

    def __init__(self, terms: Terms) -> None:
        self._terms = terms

    @property
    def terms(self) -> Terms:
        return self._terms


Dim: TypeAlias = int | Expr
Monomial: TypeAlias = tuple[Atom, ...]  # a sorted multiset; () is the constant 1
Terms: TypeAlias = tuple[tuple[Monomial, int], ...]


class Order(NamedTuple):
    """A sort key that is the same in every process, as cache keys need.

    The digest stands for the whole structure, so that comparing is cheap however
    deep the expression and however much of it is shared.
    """

    height: int
    names: tuple[str, ...]
    operation: str
    digest: bytes


# ------------------------------------------------------------------ interning

_interned: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
_interning = RLock()  # re-entrant: a finaliser may run, and make dims, inside it


def _intern(key: Hashable, make: Callable[[], E]) -> E:
    """The one living expression with this key, which starts with its class."""
    found = _interned.get(key)
    if found is not None:
        return found
    with _interning:
        found = _interned.get(key)
        if found is None:
            found = _interned[key] = make()
        return found


def _atom(kind: type[Atom], operands: tuple[Dim, ...]) -> Dim:
    """An atom whose operands no rule can simplify further."""

    def make() -> Atom:
        atom = kind()
        atom.operands = operands
        inner = [_order(operand) for operand in operands]
        height = 1 + max(order.height for order in inner)
        atom.order = _join(kind.spelling, inner)._replace(height=height)
        return atom

    return _intern((kind, operands), make)


def _polynomial(coefficients: Mapping[Monomial, int]) -> Dim:
    """The dim with these coefficients, zeros dropped."""
    terms = [term for term in coefficients.items() if term[1]]
    if not terms:
        return 0
    if len(terms) > 1:
        terms.sort(key=_term_order)
    else:
        ((monomial, coefficient),) = terms
        if not monomial:
            return coefficient
        if coefficient == 1 and len(monomial) == 1:
            return monomial[0]
    normal = tuple(terms)
    return _intern((Sum, normal), lambda: Sum(normal))


def _term_order(term: tuple[Monomial, int]) -> tuple[int, list[Order]]:
    """Graded lexicographic, greatest first: an order that division can use."""
    monomial, _ = term
    return -len(monomial), [atom.order for atom in monomial]


def _order(dim: Dim) -> Order:
    if isinstance(dim, Atom):
        return dim.order
    if isinstance(dim, int):
        return _join(str(dim), ())
    shape = ",".join(f"{coefficient}:{len(m)}" for m, coefficient in dim.terms)
    return _join(f"+{shape}", [atom.order for m, _ in dim.terms for atom in m])


def _join(operation: str, inner: Sequence[Order]) -> Order:
    """The order of an operation on parts that have these."""
    digest = blake2b(operation.encode(), digest_size=16)
    for order in inner:
        digest.update(order.digest)
    return Order(
        height=max((order.height for order in inner), default=0),
        names=tuple(sorted({name for order in inner for name in order.names})),
        operation=operation,
        digest=digest.digest(),
    )


# ----------------------------------------------------------------- arithmetic


def terms_of(dim: Dim) -> Terms:
    """`Expr.terms`, for constants too: zero has none."""
    if isinstance(dim, Expr):
        return dim.terms
    value = operator.index(dim)  # refuses what is no integer
    return (((), value),) if value else ()


def _add(a: Dim, b: Dim, sign: int) -> Dim:
    total = dict(terms_of(a))
    for monomial, coefficient in terms_of(b):
        total[monomial] = total.get(monomial, 0) + sign * coefficient
    return _polynomial(total)


def _multiply(a: Dim, b: Dim) -> Dim:
    total: dict[Monomial, int] = {}
    right = terms_of(b)
    for left_monomial, left in terms_of(a):
        for right_monomial, coefficient in right:
            monomial = _monomial(left_monomial + right_monomial)
            total[monomial] = total.get(monomial, 0) + left * coefficient
    return _polynomial(total)


def _monomial(atoms: Iterable[Atom]) -> Monomial:
    return tuple(sorted(atoms, key=lambda atom: atom.order))


def _floordiv(a: Dim, d: Dim) -> Dim:
    if isinstance(a, int) and isinstance(d, int):
        return a // d
    if isinstance(d, int) and d <= 0:
        _refuse_zero(d)
        return _floordiv(-a, -d)  # x // -n -> -x // n
    quotient, rest = _split(a, d, _whole_part)
    if quotient != 0:
        return quotient + _floordiv(rest, d)  # (q*d + r) // d -> q + r // d
    if _is_reduced(a, d):
        return 0  # 0 <= r < d: r // d -> 0
    factor, a_over, d_over, _ = _cancel(a, d)
    if factor != 1:
        return _floordiv(a_over, d_over)  # (g*x + c) // (g*d) -> x // d, 0 <= c < g
    varying, constant = _constant_apart(a)
    if isinstance(varying, FloorDiv) and isinstance(d, int):
        x, m = varying.operands
        if isinstance(m, int):  # (x//m + c) // n -> (x + c*m) // (m*n)
            return _floordiv(x + constant * m, m * d)
    if isinstance(d, int) and all(c < 0 for m, c in terms_of(a) if m):
        return -_floordiv(d - 1 - a, d)  # -x // n -> -((x + n - 1) // n)
    return _atom(FloorDiv, (a, d))


def _mod(a: Dim, d: Dim) -> Dim:
    if isinstance(a, int) and isinstance(d, int):
        return a % d
    if isinstance(d, int) and d <= 0:
        _refuse_zero(d)
        return -_mod(-a, -d)  # x % -n -> -(-x % n)
    _, rest = _split(a, d, _truncated)
    if rest != a:
        return _mod(rest, d)  # (q*d + r) % d -> r % d
    if _is_reduced(a, d):
        return a  # 0 <= r < d: r % d -> r
    bare = _without_mods(a, d)
    if bare != a:
        return _mod(bare, d)
    factor, a_over, d_over, rest = _cancel(a, d)
    if factor != 1:  # (g*x + c) % (g*d) -> g*(x % d) + c, 0 <= c < g
        return factor * _mod(a_over, d_over) + rest
    return _atom(Mod, (a, d))


def _refuse_zero(divisor: int) -> None:
    if divisor == 0:
        raise ZeroDivisionError("a dim is divided by zero")


def _split(a: Dim, d: Dim, part: Callable[[int, int], int]) -> tuple[Dim, Dim]:
    """(q, r) with a = q*d + r, moving into q what `d` divides term by term.

    `part(c, scale)` is how often a coefficient takes the divisor's.  A divisor of
    several terms divides all of `a` or nothing.
    """
    if len(terms_of(d)) > 1:
        quotient = exact_div(a, d)
        return (0, a) if quotient is None else (quotient, 0)
    ((unit, scale),) = terms_of(d)
    taken: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, coefficient in terms_of(a):
        remaining = _without(monomial, unit)
        times = 0
        if remaining is not None:
            times = part(coefficient, scale) if monomial else coefficient // scale
            taken[remaining] = times
        rest[monomial] = coefficient - times * scale
    return _polynomial(taken), _polynomial(rest)


def _whole_part(coefficient: int, scale: int) -> int:
    return 0 if coefficient % scale else coefficient // scale


def _truncated(coefficient: int, scale: int) -> int:
    """The quotient rounded towards zero: what is left keeps its sign."""
    size = abs(coefficient) // abs(scale)
    return size if (coefficient < 0) == (scale < 0) else -size


def _without(monomial: Monomial, factor: Monomial) -> Monomial | None:
    """`monomial / factor`, or None if that is no monomial."""
    rest = list(monomial)
    for atom in factor:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def _is_reduced(a: Dim, d: Dim) -> bool:
    """Whether 0 <= a < d whatever the symbols are, seen from remainders alone."""
    if a == 0 or (isinstance(a, Mod) and a.operands[1] == d):
        return True
    if not isinstance(d, int):
        return False
    top = 0
    for monomial, coefficient in terms_of(a):
        limit = _limit(monomial)
        if limit is None or coefficient < 0:
            return False
        top += coefficient * limit
    return top < d


def _limit(monomial: Monomial) -> int | None:
    """The largest value of 1 or of `x % n`, which are never negative."""
    if not monomial:
        return 1
    if len(monomial) == 1 and isinstance(monomial[0], Mod):
        divisor = monomial[0].operands[1]
        return divisor - 1 if isinstance(divisor, int) else None
    return None


def _without_mods(a: Dim, d: Dim) -> Dim:
    """c*(x % m) -> c*x where `d` divides c*m: the two are equal modulo `d`."""
    for monomial, coefficient in terms_of(a):
        if len(monomial) == 1 and isinstance(monomial[0], Mod):
            x, m = monomial[0].operands
            if exact_div(coefficient * m, d) is not None:
                a = a + coefficient * (x - monomial[0])
    return a


def _cancel(a: Dim, d: Dim) -> tuple[Dim, Dim, Dim, int]:
    """(g, x, e, c) with a = g*x + c and d = g*e, 0 <= c < g, g as large as can be."""
    varying = [(monomial, c) for monomial, c in terms_of(a) if monomial]
    content = gcd(gcd_const(d), *(c for _, c in varying))
    shared = Counter(terms_of(d)[0][0])
    for monomial, _ in terms_of(a) + terms_of(d):
        shared &= Counter(monomial)
    rest = _constant_apart(a)[1] % content
    factor = _polynomial({_monomial(shared.elements()): content})
    x, e = exact_div(a - rest, factor), exact_div(d, factor)
    assert x is not None
    assert e is not None
    return factor, x, e, rest


def _constant_apart(dim: Dim) -> tuple[Dim, int]:
    """(x, c) with dim = x + c and no constant term in x."""
    terms = terms_of(dim)
    constant = terms[-1][1] if terms and not terms[-1][0] else 0
    return dim - constant, constant


def dim_max(first: Dim, *rest: Dim) -> Dim:
    """The largest of the dims."""
    return _extreme(Max, max, (first, *rest))


def dim_min(first: Dim, *rest: Dim) -> Dim:
    """The smallest of the dims."""
    return _extreme(Min, min, (first, *rest))


def _extreme(
    kind: type[Max] | type[Min],
    pick: Callable[[int, int], int],
    dims: tuple[Dim, ...],
) -> Dim:
    """Flat, sorted, and of x + 1 and x + 2 only the one that can win."""
    constants: dict[Dim, int] = {}
    for dim in dims:
        for choice in dim.operands if isinstance(dim, kind) else (dim,):
            varying, constant = _constant_apart(choice)
            constants[varying] = pick(constants.get(varying, constant), constant)
    choices = [varying + constant for varying, constant in constants.items()]
    if len(choices) == 1:
        return choices[0]
    return _atom(kind, tuple(sorted(choices, key=_order)))


# ------------------------------------------------------------------ questions


def is_static(dim: Dim) -> bool:
    """Whether the value is known, that is, an `int`."""
    return isinstance(dim, int)


def atoms(dim: Dim) -> list[Atom]:
    """Every atom the dim is made of, each once and after its operands' atoms."""
    found: set[Atom] = set()
    pending = [dim]
    while pending:
        for monomial, _ in terms_of(pending.pop()):
            fresh = set(monomial) - found
            found |= fresh
            pending.extend(operand for atom in fresh for operand in atom.operands)
    return sorted(found, key=lambda atom: atom.order)


def fold(
    dim: Dim,
    atom_rule: Callable[[Atom, list[T]], T],
    sum_rule: Callable[[Dim, Mapping[Atom, T]], T],
) -> T:
    """Compute bottom up: each atom once, without recursion.

    `atom_rule(atom, operands)` gets the results for the atom's operands,
    `sum_rule(dim, results)` the results for at least the atoms in `dim.terms`.
    """
    results: dict[Atom, T] = {}
    for atom in atoms(dim):
        operands = [sum_rule(operand, results) for operand in atom.operands]
        results[atom] = atom_rule(atom, operands)
    return sum_rule(dim, results)


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


def exact_div(a: Dim, b: Dim) -> Dim | None:
    """The polynomial q with a = q*b, or None if there is none (or b is 0).

    Division by leading terms (Cox, Little, O'Shea, "Ideals, Varieties, and
    Algorithms", 2.3); the leading term of a product is that of its factors'.
    """
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return None if a % b else a // b
    lead, scale = terms_of(b)[0]
    quotient: dict[Monomial, int] = {}
    while a != 0:
        monomial, coefficient = terms_of(a)[0]
        rest = _without(monomial, lead)
        if rest is None or coefficient % scale:
            return None
        quotient[rest] = coefficient // scale
        a = a - _polynomial({rest: coefficient // scale}) * b
    return _polynomial(quotient)


def gcd_const(dim: Dim) -> int:
    """The largest int that divides every coefficient; 0 for 0."""
    return gcd(*(coefficient for _, coefficient in terms_of(dim)))


# ----------------------------------------------------------------------- text


def format_dim(dim: Dim) -> str:
    """The text of a dim, the same in every process; `parse_dim` reads it back."""
    return str(dim) if isinstance(dim, int) else fold(dim, _atom_text, _sum_text)


def _atom_text(atom: Atom, operands: list[str]) -> str:
    if isinstance(atom, Symbol):
        return atom.name
    if isinstance(atom, (Max, Min)):
        return f"{atom.spelling}({', '.join(operands)})"
    return atom.spelling.join(
        text if _is_closed(operand) else f"({text})"
        for operand, text in zip(atom.operands, operands, strict=True)
    )


def _is_closed(dim: Dim) -> bool:
    """Whether the text of the dim can stand beside any operator."""
    if isinstance(dim, int):
        return dim >= 0
    return isinstance(dim, (Symbol, Max, Min))


def _sum_text(dim: Dim, texts: Mapping[Atom, str]) -> str:
    if isinstance(dim, int):
        return str(dim)
    pieces: list[str] = []
    for monomial, coefficient in dim.terms:
        negative = coefficient < 0
        alone = monomial and abs(coefficient) == 1
        factors = [] if alone else [str(abs(coefficient))]
        # -(x//4) and 2*(x//4) need the parentheses, y - x//4 does not.
        bare = alone and len(monomial) == 1 and not (negative and not pieces)
        for atom in monomial:
            text = texts[atom]
            factors.append(text if bare or _is_closed(atom) else f"({text})")
        sign = (" - " if negative else " + ") if pieces else "-" * negative
        pieces.append(sign + "*".join(factors))
    return "".join(pieces)


def parse_dim(text: str) -> Dim:
    """Read a dim as `format_dim` writes it.

        dim     = operand { ("+" | "-" | "*" | "//" | "%") operand }
        operand = INT | NAME | "-" operand | "(" dim ")"
                | ("min" | "max") "(" dim { "," dim } ")"

    Operators bind as in Python.  Raises ValueError, with the column, on other text,
    and ZeroDivisionError where the text divides by 0.
    """
    return _Parser(text).parse()


_NAME = r"[A-Za-z_]\w*"
_TOKEN = re.compile(rf"\d+|{_NAME}|//|[-+*%(),]", re.ASCII)
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

_Bound: TypeAlias = int | float  # an int, or inf or -inf
_Interval: TypeAlias = tuple[_Bound, _Bound]


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

    def _interval(self, dim: Dim) -> _Interval:
        limits = {symbol: (low, high) for symbol, low, high in self.ranges}
        steps = dict(self.divisors)

        def atom_interval(atom: Atom, operands: list[_Interval]) -> _Interval:
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
            term = _polynomial({monomial: coefficient})
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
            others = _without(monomial, (atom,))
            assert others is not None
            k = exact_div(_polynomial({others: coefficient}), m)
            if k is not None:
                dim = dim + k * (x - x % m - m * atom)
                break
    return dim


def _finite(bound: _Bound) -> int | None:
    return bound if isinstance(bound, int) else None


def _sum_interval(dim: Dim, known: Mapping[Atom, _Interval]) -> _Interval:
    low: _Bound = 0
    high: _Bound = 0
    for monomial, coefficient in terms_of(dim):
        term: _Interval = (coefficient, coefficient)
        for atom in monomial:
            corners = [_times(a, b) for a in term for b in known[atom]]
            term = min(corners), max(corners)
        low, high = _plus(low, term[0]), _plus(high, term[1])
    return low, high


def _times(a: _Bound, b: _Bound) -> _Bound:
    """a * b with 0 * inf = 0, and no int ever made a float."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    if a == 0 or b == 0:
        return 0
    return inf if (a > 0) == (b > 0) else -inf


def _plus(a: _Bound, b: _Bound) -> _Bound:
    """a + b, where the two are never infinities of opposite signs."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    return b if isinstance(a, int) else a


def _atom_interval(atom: Atom, operands: list[_Interval]) -> _Interval:
    if isinstance(atom, (Max, Min)):
        pick = max if isinstance(atom, Max) else min
        return pick(low for low, _ in operands), pick(high for _, high in operands)
    numerator, (least, most) = operands
    divisor = max(least, 1), max(most, 1)  # divisors are positive
    if isinstance(atom, Mod):
        return _mod_interval(numerator, divisor)
    low, high = (sorted(_over(x, d) for d in divisor) for x in numerator)
    return low[0], high[-1]


def _over(x: _Bound, d: _Bound) -> _Bound:
    """x // d for d > 0, and its limit where d grows without end."""
    if not isinstance(x, int):
        return x
    if not isinstance(d, int):
        return -1 if x < 0 else 0
    return x // d


def _mod_interval(numerator: _Interval, divisor: _Interval) -> _Interval:
    low, high = numerator
    least, most = divisor
    if least == most and isinstance(low, int) and isinstance(high, int):
        period = least
        if isinstance(period, int) and low // period == high // period:
            return low % period, high % period
    if low >= 0 and high < least:
        return numerator
    top = _plus(most, -1)
    return 0, min(top, high) if low >= 0 else top


NO_FACTS = Facts()
