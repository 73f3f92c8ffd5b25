"""Dims against brute force: what they compute, print and claim to prove."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fusec.ir.dims import (
    NO_FACTS,
    Dim,
    Expr,
    Facts,
    FloorDiv,
    Symbol,
    atoms,
    ceil_div,
    dim_max,
    dim_min,
    evaluate,
    exact_div,
    format_dim,
    gcd_const,
    is_static,
    parse_dim,
    product,
    substitute,
    symbols,
    terms_of,
)

X, Y = Symbol("x"), Symbol("y")  # any integer
P, Q = Symbol("p"), Symbol("q")  # positive, so fit to divide by
S0, S1, S2 = Symbol("s0"), Symbol("s1"), Symbol("s2")
Env = Mapping[Symbol, int]


@dataclass(frozen=True)
class Case:
    """A dim, and the same integer computed by Python without dims."""

    dim: Dim
    value: Callable[[Env], int]


@dataclass(frozen=True)
class Operation:
    """A function of two dims, and what it is to mean."""

    dims: Callable[[Dim, Dim], Dim]
    ints: Callable[[int, int], int]

    def __call__(self, a: Case, b: Case) -> Case:
        return Case(
            self.dims(a.dim, b.dim), lambda env: self.ints(a.value(env), b.value(env))
        )


def _constant(value: int) -> Case:
    return Case(value, lambda env: value)


def _variable(symbol: Symbol) -> Case:
    return Case(symbol, lambda env: env[symbol])


def _apply(operation: Operation, a: Case, b: Case) -> Case:
    return operation(a, b)


_ADD = Operation(lambda a, b: a + b, lambda a, b: a + b)
_SUB = Operation(lambda a, b: a - b, lambda a, b: a - b)
_MUL = Operation(lambda a, b: a * b, lambda a, b: a * b)
_DIV = Operation(lambda a, b: a // b, lambda a, b: a // b)
_MOD = Operation(lambda a, b: a % b, lambda a, b: a % b)
_MAX = Operation(dim_max, max)
_MIN = Operation(dim_min, min)

_POSITIVE = st.recursive(
    st.integers(1, 12).map(_constant) | st.sampled_from([P, Q]).map(_variable),
    lambda inner: st.builds(_apply, st.sampled_from([_ADD, _MUL]), inner, inner),
    max_leaves=3,
)
_DIVISORS = _POSITIVE | st.integers(-12, -1).map(_constant)


def _operations(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    plain = st.sampled_from([_ADD, _SUB, _MUL, _MAX, _MIN])
    division = st.sampled_from([_DIV, _MOD])
    return st.one_of(
        st.builds(_apply, plain, inner, inner),
        st.builds(_apply, division, inner, _DIVISORS),
    )


CASES = st.recursive(
    st.integers(-20, 20).map(_constant) | st.sampled_from([X, Y, P, Q]).map(_variable),
    _operations,
    max_leaves=10,
)
ENVS = st.fixed_dictionaries(
    {
        X: st.integers(-40, 40),
        Y: st.integers(-40, 40),
        P: st.integers(1, 20),
        Q: st.integers(1, 20),
    }
)


# ---------------------------------------------------------------- laws


@given(CASES, ENVS)
def test_arithmetic_agrees_with_python(case: Case, env: dict[Symbol, int]) -> None:
    assert evaluate(case.dim, env) == case.value(env)


@given(CASES, CASES, CASES)
def test_ring_laws_are_identities(a: Case, b: Case, c: Case) -> None:
    x, y, z = a.dim, b.dim, c.dim
    for left, right in [
        (x + y, y + x),
        (x * y, y * x),
        ((x + y) + z, x + (y + z)),
        ((x * y) * z, x * (y * z)),
        (x * (y + z), x * y + x * z),
        (x - y, -(y - x)),
        (x + y - y, x),
    ]:
        assert _same(left, right)


@given(CASES, CASES, CASES)
def test_extremes_are_associative_and_commutative(a: Case, b: Case, c: Case) -> None:
    x, y, z = a.dim, b.dim, c.dim
    for extreme in (dim_max, dim_min):
        assert _same(extreme(x, y), extreme(y, x))
        assert _same(extreme(extreme(x, y), z), extreme(x, y, z))
        assert _same(extreme(x, x), x)


@given(CASES)
def test_results_are_in_normal_form(case: Case) -> None:
    for atom in atoms(case.dim):
        assert atom.apply(*atom.operands) is atom
    again = substitute(case.dim, {X: X, P: P})
    assert _same(again, case.dim)


@given(CASES, CASES, CASES, ENVS)
def test_substitution_commutes_with_evaluation(
    case: Case, x: Case, y: Case, env: dict[Symbol, int]
) -> None:
    replaced = substitute(case.dim, {X: x.dim, Y: y.dim})
    inner = {**env, X: evaluate(x.dim, env), Y: evaluate(y.dim, env)}
    assert evaluate(replaced, env) == evaluate(case.dim, inner)


@given(CASES)
def test_text_round_trips(case: Case) -> None:
    assert _same(parse_dim(format_dim(case.dim)), case.dim)
    assert str(case.dim) == format_dim(case.dim)


@given(CASES, ENVS)
def test_text_means_the_same_to_python(case: Case, env: dict[Symbol, int]) -> None:
    names = {symbol.name: value for symbol, value in env.items()}
    assert eval(format_dim(case.dim), {}, names) == case.value(env)


@given(CASES, CASES)
def test_exact_division_inverts_the_product(a: Case, b: Case) -> None:
    assume(b.dim != 0)
    quotient = exact_div(a.dim * b.dim, b.dim)
    assert quotient is not None
    assert _same(quotient, a.dim)
    other = exact_div(a.dim, b.dim)
    assert other is None or _same(other * b.dim, a.dim)


@given(CASES, _POSITIVE, ENVS)
def test_ceil_div(a: Case, b: Case, env: dict[Symbol, int]) -> None:
    expected = -(-a.value(env) // b.value(env))
    assert evaluate(ceil_div(a.dim, b.dim), env) == expected


@given(CASES, ENVS)
def test_gcd_const_divides(case: Case, env: dict[Symbol, int]) -> None:
    n = gcd_const(case.dim)
    assert case.value(env) % n == 0 if n else case.dim == 0


@given(CASES, _POSITIVE)
def test_a_quotient_and_its_remainder_rebuild_the_dividend(a: Case, b: Case) -> None:
    rebuilt = a.dim // b.dim * b.dim + a.dim % b.dim
    low, high = NO_FACTS.range(rebuilt - a.dim)
    assert low is None or low <= 0
    assert high is None or high >= 0


def _same(a: Dim, b: Dim) -> bool:
    return a is b or (isinstance(a, int) and isinstance(b, int) and a == b)


# ---------------------------------------------------------------- facts


@st.composite
def _facts(draw: st.DrawFn) -> tuple[Facts, dict[Symbol, int]]:
    """Facts, and values of the symbols for which they are true."""
    ranges: list[tuple[Symbol, int, int | None]] = []
    divisors: list[tuple[Dim, int]] = []
    env: dict[Symbol, int] = {}
    for symbol in (X, Y, P, Q):
        least = 1 if symbol in (P, Q) else draw(st.sampled_from([0, -30]))
        env[symbol] = draw(st.integers(least, least + 40))
        if draw(st.booleans()):
            n = draw(st.sampled_from([2, 3, 4, 8]))
            env[symbol] *= n
            divisors.append((symbol, n))
        low = env[symbol] - draw(st.integers(0, 10))
        high = env[symbol] + draw(st.integers(0, 10))
        ranges.append((symbol, low, draw(st.sampled_from([high, None]))))
    other = draw(CASES)
    value = other.value(env)
    if value:
        divisors.append((other.dim, abs(value)))
    return Facts(tuple(ranges), tuple(divisors)), env


@given(CASES, _facts())
def test_ranges_hold(case: Case, known: tuple[Facts, dict[Symbol, int]]) -> None:
    facts, env = known
    low, high = facts.range(case.dim)
    assert low is None or low <= case.value(env)
    assert high is None or case.value(env) <= high


@given(CASES, st.integers(1, 12), _facts())
def test_divisors_hold(
    case: Case, n: int, known: tuple[Facts, dict[Symbol, int]]
) -> None:
    facts, env = known
    divisor = facts.divisor(case.dim)
    assert gcd(case.value(env), divisor) == divisor
    assert not facts.divides(n, case.dim) or case.value(env) % n == 0


@given(CASES, CASES, _facts())
def test_proofs_hold(a: Case, b: Case, known: tuple[Facts, dict[Symbol, int]]) -> None:
    facts, env = known
    left, right = a.value(env), b.value(env)
    assert not facts.proves_le(a.dim, b.dim) or left <= right
    assert not facts.proves_lt(a.dim, b.dim) or left < right
    assert not facts.proves_eq(a.dim, b.dim) or left == right


SIZES = Facts(ranges=((S0, 1, 4096), (S1, 1, None)), divisors=((S0, 64), (S1 * S2, 8)))


@pytest.mark.parametrize(
    ("dim", "limits"),
    [
        (S0, (64, 4096)),  # 1 rounded up to a multiple of 64
        (S1, (1, None)),
        (S2, (0, None)),
        (-S0, (-4096, -64)),
        (S0 * S1, (64, None)),
        (S0 // 64, (1, 64)),
        (S1 // S0, (0, None)),
        (S0 // S1, (0, 4096)),
        (S1 % 7, (0, 6)),
        (S2 % S1, (0, None)),
        (S2 % S0, (0, 4095)),
        (5 - S1, (None, 4)),
        (dim_min(S1, 10), (1, 10)),
        (dim_max(S1, 10), (10, None)),
        (S1 - 8 * (S1 // 8), (0, 7)),
        (64 * ceil_div(S1, 64) - S1, (0, 63)),
        (7, (7, 7)),
    ],
)
def test_range(dim: Dim, limits: tuple[int | None, int | None]) -> None:
    assert SIZES.range(dim) == limits


@pytest.mark.parametrize(
    ("dim", "divisor"),
    [
        (S0, 64),
        (S0 * S0, 4096),
        (S0 // 16, 4),
        (3 * S0 + 32 * S1, 32),
        (S1 * S2, 8),
        (4 * S1 * S2 + 16 * S1, 16),
        (S0 * S1 * S2, 512),
        (S0 % 24, 8),
        (dim_max(S0, 48), 16),
        (S1, 1),
        (-6, 6),
        (0, 0),
    ],
)
def test_divisor(dim: Dim, divisor: int) -> None:
    assert SIZES.divisor(dim) == divisor


def test_proofs() -> None:
    assert SIZES.proves_le(S0, 4096)
    assert not SIZES.proves_le(S0, 4095)
    assert SIZES.proves_lt(S1 % 64, S0)
    assert SIZES.proves_lt(8 * (S1 // 8), S1 + 1)
    assert SIZES.proves_eq(8 * (S1 // 8) + S1 % 8, S1)
    assert SIZES.proves_eq(S0 * (S2 // S0) + S2 % S0, S2)
    assert not SIZES.proves_eq(S1, S2)
    assert SIZES.divides(8, S1 * S2)
    assert not SIZES.divides(8, S1)
    assert SIZES.divides(5, 0)
    assert NO_FACTS.proves_le(0, S0)
    assert not NO_FACTS.proves_lt(0, S0)


def test_facts_are_values() -> None:
    assert hash(SIZES) == hash(Facts(SIZES.ranges, SIZES.divisors))
    assert Facts(SIZES.ranges, SIZES.divisors) == SIZES


# ---------------------------------------------------------------- forms


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (S0 * 2 + 1, "2*s0 + 1"),
        (4 - S0, "-s0 + 4"),
        (S0 - S0, "0"),
        (S1 * S0 * S0 - 3 * S1, "s0*s0*s1 - 3*s1"),
        (S0 // 4, "s0//4"),
        (S0 % 4, "s0%4"),
        (7 // S0, "7//s0"),
        (7 % S0, "7%s0"),
        ((S0 + 1) // 4 * 4, "4*((s0 + 1)//4)"),
        (S1 - S0 // 4, "s1 - s0//4"),
        (-(S0 // 4), "-(s0//4)"),
        (S0 // 1, "s0"),
        (S0 % 1, "0"),
        (S0 // -1, "-s0"),
        (S0 // S0, "1"),
        (S0 % S0, "0"),
        (64 * S0 * S1 // S1, "64*s0"),
        (64 * S0 * S1 // (32 * S1), "2*s0"),
        ((S0 * S1 + S0 + 3) // S0, "s1 + 3//s0 + 1"),
        ((S0 * S1 + S0) // (S1 + 1), "s0"),
        (6 * S0 % 3, "0"),
        (5 * S0 % 4, "s0%4"),
        ((8 * S0 + S1) // 4, "2*s0 + s1//4"),
        ((S0 + 5) // 4, "(s0 + 1)//4 + 1"),
        ((6 * S0 + 5) // 4, "(3*s0)//2 + 1"),
        ((4 * S0 + 3) % 8, "4*(s0%2) + 3"),
        (S0 * S1 // (2 * S0), "s1//2"),
        (S0 // 4 // 3, "s0//12"),
        (3 * S0 // 2 // 3, "s0//2"),
        ((S0 // 4 + 5) // 3, "(s0 + 8)//12 + 1"),
        (S0 % 4 // 4, "0"),
        (S0 % 8 % 4, "s0%4"),
        (S0 % 4 % 8, "s0%4"),
        ((4 * (S0 % 2) + S1 % 4) // 8, "0"),
        (S0 % S1 // S1, "0"),
        (-(-S0 // 4), "(s0 + 3)//4"),
        (ceil_div(S0, 4), "(s0 + 3)//4"),
        (ceil_div(64 * S0, 64), "s0"),
        (ceil_div(S0 * S1, S1), "s0"),
        (dim_max(S0, 1), "max(1, s0)"),
        (dim_max(S0, S0 + 1), "s0 + 1"),
        (dim_min(S1, dim_min(S0, 4), 3), "min(3, s0, s1)"),
        (2 * dim_max(S0, S1) // 4, "max(s0, s1)//2"),
        (product([2, S0, 3, S1]), "6*s0*s1"),
        (product([]), "1"),
    ],
)
def test_normal_forms(dim: Dim, text: str) -> None:
    assert format_dim(dim) == text
    assert _same(parse_dim(text), dim)


def test_constants_are_plain_ints() -> None:
    for dim in (S0 - S0 + 3, (S0 + 3) - S0, dim_max(2, 3), S0 * 0, 0 // S0):
        assert type(dim) is int
        assert is_static(dim)
    assert not is_static(S0)


def test_equal_expressions_are_one_object() -> None:
    assert Symbol("s0") is S0
    assert (S0 + 1) * (S0 - 1) is S0 * S0 - 1
    assert {S0 // 4 + 1: "found"}[1 + Symbol("s0") // 4] == "found"
    assert S0 + 1 != S0
    assert S0 != 0


def test_copies_and_pickles_are_the_same_object() -> None:
    dim = (S0 * S1 + 3) // 4
    assert copy.deepcopy(dim) is dim
    assert pickle.loads(pickle.dumps(dim)) is dim


def test_unused_expressions_are_freed() -> None:
    dim = (S0 * 12345 + S1) % 54321
    assert isinstance(dim, Expr)
    gone = weakref.ref(dim)
    del dim
    gc.collect()
    assert gone() is None


def test_symbols() -> None:
    assert symbols(dim_max(S0 // S1, S2) * S0) == {S0, S1, S2}
    assert symbols(4) == frozenset()


def test_atoms_follow_their_operands() -> None:
    dim = (S0 // 4 + S1) % 8 + S0 // 4
    order = atoms(dim)
    assert len(order) == len(set(order)) == 4
    for place, atom in enumerate(order):
        inside = {a for operand in atom.operands for a in atoms(operand)}
        assert inside <= set(order[:place])


def test_terms() -> None:
    assert terms_of(2 * S0 + 1) == (((S0,), 2), ((), 1))
    assert terms_of(0) == ()


def test_exact_div() -> None:
    assert exact_div(S0 * S0 - S1 * S1, S0 + S1) is S0 - S1
    assert exact_div(6 * S0, 4) is None
    assert exact_div(S0, S1) is None
    assert exact_div(S0, 0) is None
    assert exact_div(12, 4) == 3
    assert exact_div(13, 4) is None
    assert exact_div(4, S0) is None
    assert exact_div(0, S0) == 0


def test_a_zero_divisor_is_refused() -> None:
    for operation in (_DIV, _MOD):
        with pytest.raises(ZeroDivisionError):
            operation.dims(S0, 0)
        with pytest.raises(ZeroDivisionError):
            evaluate(operation.dims(S0, S1), {S0: 1, S1: 0})


def test_only_integers_mix_with_dims() -> None:
    with pytest.raises(TypeError):
        S0 + 1.5  # type: ignore[operator]
    with pytest.raises(TypeError):
        "2" * S0  # type: ignore[operator]


def test_a_missing_value_is_named() -> None:
    with pytest.raises(KeyError, match=r"no value for s1, s2 in s0 \+ s1 \+ s2"):
        evaluate(S0 + S1 + S2, {S0: 1})


@pytest.mark.parametrize("name", ["", "0s", "a b", "a.b", "é"])
def test_a_symbol_name_is_an_identifier(name: str) -> None:
    with pytest.raises(ValueError, match="not a symbol name"):
        Symbol(name)


def test_a_symbol_may_be_called_max() -> None:
    dim = dim_max(Symbol("max"), 2) * Symbol("max")
    assert parse_dim(format_dim(dim)) is dim


# ---------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2*3 - 4//3", 6),
        ("-7//2", -4),
        ("7 - 2 - 1", 4),
        ("-(1 + 2)*3", -9),
        ("--3", 3),
        ("2*-3", -6),
        ("17%5*2", 4),
        (" min( 3,max(1 ,2), 5 ) ", 2),
    ],
)
def test_operators_bind_as_in_python(text: str, value: int) -> None:
    assert parse_dim(text) == value


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("", 1),
        ("s0 +", 5),
        ("s0 s1", 4),
        ("(s0", 4),
        ("(s0, 1)", 4),
        ("max(s0,)", 8),
        ("s0 / 2", 4),
        ("s0 $", 4),
        (")", 1),
        ("2(3)", 2),
        ("4s0", 2),
    ],
)
def test_other_text_is_refused_with_its_column(text: str, column: int) -> None:
    with pytest.raises(ValueError, match=f"column {column} of"):
        parse_dim(text)


# ---------------------------------------------------------------- scale


def test_deep_nests_do_not_overflow_the_stack() -> None:
    dim: Dim = S0
    value = 1000
    for _ in range(2000):
        dim, value = (dim + S1) // 2, (value + 7) // 2
    assert evaluate(dim, {S0: 1000, S1: 7}) == value
    assert symbols(substitute(dim, {S0: S2})) == {S1, S2}
    assert NO_FACTS.range(dim) == (0, None)
    assert NO_FACTS.divisor(dim) == 1
    assert isinstance(dim, FloorDiv)


def test_shared_parts_are_visited_once() -> None:
    dim: Dim = S0
    for _ in range(200):  # written out, it would have 2**200 leaves
        dim = (dim // 3) * (dim // 2 - dim % 5)
    assert evaluate(dim, {S0: 1}) == 0
    assert len(symbols(dim)) == 1


def test_long_sums() -> None:
    many = [Symbol(f"n{i}") for i in range(200)]
    total: Dim = 0
    for i, symbol in enumerate(many):
        total = total + symbol * (i + 1)
    assert evaluate(total, dict.fromkeys(many, 1)) == 20100
    assert parse_dim(format_dim(total)) is total


def test_text_does_not_depend_on_the_process() -> None:
    program = (
        "from fusec.ir.dims import *;"
        "a, b, c = map(Symbol, 'cab');"
        "print(sum(x // n + x % n * (y + n)"
        " for n in (7, 3, 5) for x in (a, b + c) for y in (c, dim_max(a, b))))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1
