"""Broken texts of IR: what a file may hold, by accident or by malice.

    text = mutant(seed, corpus())

A mutant is a text that some stage printed, with bytes, tokens, numbers or lines
changed, or grown together from two.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from fusec.compiler import setting_of
from fusec.ir.parser import parse_function
from fusec.ir.printer import format_function, format_module
from fusec.options import Options
from fusec.passes.journey import lower
from fusec.passes.pipeline import stripmined

GOLDEN = Path(__file__).parents[1] / "golden"

GRAPHS = (
    """
    graph @norm(%x: f32[6, 20], %i: i64[3]) -> (f32[3, 20], bool[6, 20]) {
      %0 = reduce_dims %x {dims=(1,), monoid=max<f32>} : f32[6]
      %1 = reshape %0 {shape=(6, 1)} : f32[6, 1]
      %2 = broadcast %1 {shape=(6, 20)} : f32[6, 20]
      %3 = sub %x, %2 : f32[6, 20]
      %4 = exp %3 : f32[6, 20]
      %5 = index %4, %i {dims=(0,), at=0} : f32[3, 20]
      %6 = lt %4, %3 : bool[6, 20]
      yield %5, %6
    }""",
    """
    graph @open(%x: f32[n, 12], %n: i64) -> (bf16[n, 3, 4], f32[12, n])
        symbols [n] facts [2 <= n <= 64, 2 divides n] returns_into [none, none] {
      %0 = cast %x {dtype=bf16} : bf16[n, 12]
      %1 = reshape %0 {shape=(n, 3, 4)} : bf16[n, 3, 4]
      %2 = permute %x {order=(1, 0)} : f32[12, n]
      %3 = const(3.0) : f32
      %4 = pad %2, %3 {low=(0, 0), high=(0, 0)} : f32[12, n]
      %5 = mul %4, %4 : f32[12, n]
      yield %1, %5
    }""",
    """
    graph @scanned(%x: f32[40, 70], %w: f32[70, 8])
        -> (f32[40, 70], i64[40], f32[40, 8]) {
      %0 = scan_dim %x {dim=1, monoid=sum<f32>, reverse=true} : f32[40, 70]
      %1 = iota((40, 70)) {dim=1} : i64[40, 70]
      %2, %3 = reduce_dims %0, %1 {dims=(1,), monoid=argmax<f32>} : f32[40], i64[40]
      %4 = matmul %0, %w : f32[40, 8]
      yield %0, %3, %4
    }""",
    """
    graph @joined(%x: f32[6, 20], %i: i64[6, 3], %j: i64[4], %m: bool[6, 20])
        -> (f32[12, 11] strides [1, 12], f32[6, 3], f64[20, 4]) {
      %0 = slice %x {dim=1, start=1, length=10, step=2} : f32[6, 10]
      %1 = slice %x {dim=1, start=19, length=10, step=-1} : f32[6, 10]
      %2 = concat %0, %1 {dim=0} : f32[12, 10]
      %3 = const(0.5) : f32
      %4 = pad %2, %3 {low=(0, 1), high=(0, 0)} : f32[12, 11]
      %5 = gather %x, %i {dim=1} : f32[6, 3]
      %6 = abs %x : f32[6, 20]
      %7 = select %m, %x, %6 : f32[6, 20]
      %8 = cast %7 {dtype=f64} : f64[6, 20]
      %9 = permute %8 {order=(1, 0)} : f64[20, 6]
      %10 = index %9, %j {dims=(1,), at=1} : f64[20, 4]
      %11 = restride %4 {strides=(1, 12)} : f32[12, 11] strides [1, 12]
      yield %11, %5, %10
    }""",
    """
    graph @around(%x: f32[4, 4], %y: f32[4, 4]) -> (f32[4, 4], i8[4, 4]) {
      %0 = neg %x : f32[4, 4]
      %1 = extern %0, %y {target="aten.minimum.default", arguments=($0, $1), keywords=()} : f32[4, 4]
      %2 = trunc %1 : f32[4, 4]
      %3 = cast %2 {dtype=i8} : i8[4, 4]
      %4 = const(3) : i8
      %5 = broadcast %4 {shape=(4, 4)} : i8[4, 4]
      %6 = floor_div %3, %5 : i8[4, 4]
      %7 = shl %6, %5 : i8[4, 4]
      yield %1, %7
    }""",  # noqa: E501
)
"""Graphs whose every stage goes into the corpus."""

NUMBERS = (
    "0",
    "1",
    "-1",
    "2",
    "7",
    "255",
    "65536",
    "4294967296",
    "9223372036854775807",
)
NUMBERS += ("9223372036854775808", "99999999999999999999999", "0.5", "1e400", "nan")
DTYPES = ("f32", "f64", "bf16", "f16", "i64", "i8", "u1", "int3", "bool", "f4e2m1fn")
PIECES = (*'()[]{}<>,:=^%@$#-+*/"\n \\', "\x00", "é", "\u2028", "0x1.8p+1", "{^(", "->")
_ATTRIBUTE = re.compile(r"(?<![\w.])-?\d+(?=[^{}\n]*\})")
TOKEN = re.compile(r"[%@$]?\w+|\S")


@cache
def corpus() -> tuple[str, ...]:
    """Texts of every level, all of them valid."""
    texts = [path.read_text() for path in sorted(GOLDEN.glob("*.ir"))]
    options = Options.from_mapping({"target": "x86-64-v3"})
    for text in GRAPHS:
        journey = lower(parse_function(text), setting_of(options))
        texts += [format_module(module) for module in journey.stages.values()]
        laid_out = journey.laid_out.values()
        texts += [format_function(kernel) for kernel in laid_out]
        mined = [stripmined(kernel, journey.target) for kernel in laid_out]
        texts += [format_function(kernel) for kernel in mined]
    return tuple(texts)


def mutant(seed: int, texts: Sequence[str]) -> str:
    """The mutant of a seed."""
    draw = random.Random(seed)
    text = draw.choice(texts)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        text = draw.choice(MUTATIONS)(draw, text, draw.choice(texts))
    return text


Mutation = Callable[[random.Random, str, str], str]


def _span(draw: random.Random, text: str) -> tuple[int, int]:
    start = draw.randint(0, len(text))
    return start, min(len(text), start + draw.choice((0, 1, 1, 2, 5, 20, 100)))


def names(draw: random.Random, text: str, other: str) -> str:
    """A value in the place of another."""
    form = re.compile(r"%\w+")
    return _replaced(draw, text, form, draw.choice(form.findall(text) or ["%0"]))


def attributes(draw: random.Random, text: str, other: str) -> str:
    """A number, or a pair of them, that an op is given."""
    words = (*map(str, range(-2, 5)), "1, 0", "0, 0", "", "100")
    return _replaced(draw, text, _ATTRIBUTE, draw.choice(words))


def characters(draw: random.Random, text: str, other: str) -> str:
    start, end = _span(draw, text)
    return text[:start] + draw.choice(("", *PIECES)) + text[end:]


def repeated(draw: random.Random, text: str, other: str) -> str:
    """A span many times over: nesting, long names, long numbers."""
    start, end = _span(draw, text)
    return text[:start] + text[start:end] * draw.choice((2, 3, 50, 2000)) + text[end:]


def numbers(draw: random.Random, text: str, other: str) -> str:
    return _replaced(draw, text, re.compile(r"\b\d+\b"), draw.choice(NUMBERS))


def tokens(draw: random.Random, text: str, other: str) -> str:
    """A token replaced by one of the same text, or of another."""
    word = draw.choice(TOKEN.findall(draw.choice((text, other))) or [""])
    return _replaced(draw, text, TOKEN, word)


def _replaced(draw: random.Random, text: str, form: re.Pattern[str], word: str) -> str:
    found = list(form.finditer(text))
    if not found:
        return text
    start, end = draw.choice(found).span()
    return text[:start] + word + text[end:]


def everywhere(draw: random.Random, text: str, other: str) -> str:
    """A number, a name or a dtype replaced wherever it stands: often still valid."""
    form, words = draw.choice(
        (
            (re.compile(r"\b\d+\b"), NUMBERS),
            (re.compile(r"\b(?:f32|bf16|f64|i64|bool)\b"), DTYPES),
            (
                re.compile(r"(?<== )[a-z_]+"),
                tuple(re.findall(r"(?<== )[a-z_]+", other)),
            ),
        )
    )
    found = form.findall(text)
    if not found or not words:
        return text
    old, new = draw.choice(found), draw.choice(words)
    return re.sub(rf"\b{re.escape(old)}\b", lambda _: new, text)


def lines(draw: random.Random, text: str, other: str) -> str:
    """A line dropped, doubled, moved, or taken from another text."""
    rows = text.split("\n")
    at, to = draw.randrange(len(rows)), draw.randrange(len(rows))
    row = draw.choice(
        (rows.pop(at), rows[at - 1] if rows else "", *other.split("\n")[1:3])
    )
    if draw.random() < 0.7:
        rows.insert(to, row)
    return "\n".join(rows)


def grown_together(draw: random.Random, text: str, other: str) -> str:
    return text[: draw.randint(0, len(text))] + other[draw.randint(0, len(other)) :]


MUTATIONS: tuple[Mutation, ...] = (
    characters,
    characters,
    repeated,
    numbers,
    numbers,
    numbers,
    tokens,
    tokens,
    tokens,
    lines,
    lines,
    *[everywhere] * 8,
    *[names] * 3,
    *[attributes] * 6,
    grown_together,
)
