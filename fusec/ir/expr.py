"""Expressions: integer polynomials in one normal form, interned.

A polynomial is a sorted tuple of (monomial, coefficient), a monomial a sorted tuple
of *atoms*: symbols and the operations that no ring law can open.

    8*s0*s1 + (s0 + 1)//4 - 3
    terms     (((s0, s1), 8), (((s0 + 1)//4,), 1), ((), -3))

Each operator brings its result into normal form with the rules noted beside it, so
two expressions with one normal form are one object.  Rules hold for all integers
but for this: a divisor that is not a constant is taken to be positive.

`fusec.ir.dims` says what expressions are for and what can be asked of them.
"""

from __future__ import annotations

import operator
import os
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from hashlib import blake2b
from math import gcd
from threading import RLock
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")
E = TypeVar("E", bound="Expr")

SYMBOL_NAME = r"[A-Za-z_]\w*"


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

    def __reduce__(self) -> tuple[Any, ...]:
        return _atom, (type(self), self.operands)


class Symbol(Atom):
    """A named unknown; symbols of one name are one object.

    Raises ValueError if the name is not an ASCII identifier.
    """

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: str) -> Symbol:
        def make() -> Symbol:
            if not re.fullmatch(SYMBOL_NAME, name, re.ASCII):
                raise ValueError(f"not a symbol name: {name!r}")
            symbol = object.__new__(cls)
            symbol.name = name
            symbol.operands = ()
            symbol.order = _join(name, ())._replace(names=(name,))
            return symbol

        return _intern((cls, name), make)

    def apply(self, *operands: Dim) -> Dim:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Symbol, (self.name,)


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

    def __reduce__(self) -> tuple[Any, ...]:
        return polynomial, (dict(self._terms),)


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


def _renew_lock() -> None:
    """In the child of a fork: whoever held the lock is not there to release it."""
    global _interning
    _interning = RLock()


os.register_at_fork(after_in_child=_renew_lock)


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


def polynomial(coefficients: Mapping[Monomial, int]) -> Dim:
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
    return polynomial(total)


def _multiply(a: Dim, b: Dim) -> Dim:
    total: dict[Monomial, int] = {}
    right = terms_of(b)
    for left_monomial, left in terms_of(a):
        for right_monomial, coefficient in right:
            monomial = _monomial(left_monomial + right_monomial)
            total[monomial] = total.get(monomial, 0) + left * coefficient
    return polynomial(total)


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
        remaining = without(monomial, unit)
        times = 0
        if remaining is not None:
            times = part(coefficient, scale) if monomial else coefficient // scale
            taken[remaining] = times
        rest[monomial] = coefficient - times * scale
    return polynomial(taken), polynomial(rest)


def _whole_part(coefficient: int, scale: int) -> int:
    return 0 if coefficient % scale else coefficient // scale


def _truncated(coefficient: int, scale: int) -> int:
    """The quotient rounded towards zero: what is left keeps its sign."""
    size = abs(coefficient) // abs(scale)
    return size if (coefficient < 0) == (scale < 0) else -size


def without(monomial: Monomial, factor: Monomial) -> Monomial | None:
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
    factor = polynomial({_monomial(shared.elements()): content})
    x, e = exact_div(a - rest, factor), exact_div(d, factor)
    assert x is not None
    assert e is not None
    return factor, x, e, rest


def _constant_apart(dim: Dim) -> tuple[Dim, int]:
    """(x, c) with dim = x + c and no constant term in x."""
    terms = terms_of(dim)
    constant = terms[-1][1] if terms and not terms[-1][0] else 0
    return dim - constant, constant


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
        rest = without(monomial, lead)
        if rest is None or coefficient % scale:
            return None
        quotient[rest] = coefficient // scale
        a = a - polynomial({rest: coefficient // scale}) * b
    return polynomial(quotient)


def gcd_const(dim: Dim) -> int:
    """The largest int that divides every coefficient; 0 for 0."""
    return gcd(*(coefficient for _, coefficient in terms_of(dim)))


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


# ------------------------------------------------------------------ traversal


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
