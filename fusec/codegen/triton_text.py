"""Pieces of Python as Triton reads it.

fresh("x", {"x"})                x_1
literal(f64, 0.5)                tl.full((), 0.5, tl.float64)
polynomial(8 * n + 1, {n: "n"})  (8 * n + 1)
bare("(a + b)")                  a + b
"""

from __future__ import annotations

import builtins
import keyword
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from fusec.codegen.triton_rows import named
from fusec.ir.dims import Atom, Dim, terms_of
from fusec.ir.dtypes import DType, f32, i32, i64

HEAD = "import triton\nimport triton.language as tl"
LIBRARY = "from triton.language.extra import libdevice"
RESERVED = frozenset({*keyword.kwlist, *dir(builtins), "libdevice", "tl", "triton"})
"""Names that mean something else."""


def module(functions: Sequence[str]) -> str:
    """A file with these functions."""
    called = any("libdevice." in text for text in functions)
    head = f"{HEAD}\n{LIBRARY}" if called else HEAD
    return "\n\n\n".join([head, *functions]) + "\n"


def defined(name: str, params: Iterable[str]) -> str:
    """What a function begins with."""
    return f"@triton.jit\ndef {name}({', '.join(params)}):"


def fresh(hint: str, taken: Collection[str]) -> str:
    """A name like `hint` that is not taken."""
    base = re.sub(r"\W", "_", hint) or "x"
    base = f"x{base}" if base[0].isdigit() else base
    name, count = base, 1
    while name in taken:
        name, count = f"{base}_{count}", count + 1
    return name


def polynomial(dim: Dim, known: Mapping[Atom, str]) -> str:
    """A polynomial as an expression that needs no parentheses."""
    terms: list[str] = []
    for monomial, coefficient in terms_of(dim):
        factors = [known[atom] for atom in monomial]
        alone = bool(factors) and coefficient == 1
        terms.append(" * ".join(factors if alone else [str(coefficient), *factors]))
    whole = " + ".join(terms) or "0"
    simple = whole.isidentifier() or whole.isdecimal() or bare(whole) != whole
    return whole if simple else f"({whole})"


def all_of(conditions: Sequence[str]) -> str:
    """Where all conditions hold."""
    if len(conditions) == 1:
        return conditions[0]
    return " & ".join(c if c.isidentifier() else f"({c})" for c in conditions)


def literal(dtype: DType, number: float | int | bool) -> str:
    """A number of a dtype: as Python writes it, where Triton takes that for no other
    number than it is."""
    if dtype.is_bool:
        return typed(dtype, str(bool(number)))
    if dtype.is_float:
        text = (
            f'float("{number}")' if not math.isfinite(number) else repr(float(number))
        )
        normal = number == 0 or not math.isfinite(number) or abs(number) >= 2.0**-126
        if dtype is f32 and normal:
            return text
        return typed(dtype, text)
    plain = dtype in (i32, i64) and -(1 << 31) <= number < 1 << 31
    return str(int(number)) if plain else typed(dtype, str(int(number)))


def typed(dtype: DType, text: str) -> str:
    """A number as a tensor of a dtype."""
    return f"tl.full((), {text}, {named(dtype)})"


def arange(extent: str, at: int, rank: int) -> str:
    """The coordinates along one of `rank` dimensions."""
    text = f"tl.arange(0, {extent})"
    if rank == 1:
        return text
    return f"{text}[{', '.join(':' if k == at else 'None' for k in range(rank))}]"


def tupled(shape: Sequence[int | str]) -> str:
    """A shape as Python writes it."""
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def bare(text: str) -> str:
    """An expression without parentheses around all of it."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:-1] if at == len(text) - 1 else text
    return text
