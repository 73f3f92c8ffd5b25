"""Masks that are known, and those that are not: concatenation, padding, rolling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import fusec
from fusec.codegen.llvm_kernel import Kernel
from fusec.codegen.llvm_spans import decided, note, note_program, spans_of
from fusec.ir.builder import Builder
from fusec.ir.core import Level, Value
from fusec.ir.dtypes import i64
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.tile import ProgramId
from fusec.target import X86_64_V3


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


def halves(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    ends = torch.cat((x[:, half:].relu(), y[:, :half].neg()), dim=-1)
    return torch.stack((ends, x + y), dim=-1).flatten(-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_halves_of_even_size_need_no_mask(dtype: torch.dtype) -> None:
    x, y = (torch.randn(64, 512).to(dtype) for _ in range(2))
    made = fusec.jit(halves, target="x86-64-v3")
    assert "masked" not in made.source(x, y)
    assert torch.equal(made(x, y), halves(x, y))


JOINS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "cat": lambda x: torch.cat([x, x[:, :37], -x], 1),
    "cat of many": lambda x: torch.cat([x[:, k : 2 * k + 1] for k in range(9)], 1),
    "cat of rows": lambda x: torch.cat([x, x[:3], x], 0),
    "stack": lambda x: torch.stack([x, -x, x], -1),
    "pad": lambda x: F.pad(x, (3, 5, 1, 0), value=1),
    "pad inwards": lambda x: F.pad(x, (-3, 5), value=0),
    "roll": lambda x: x.roll(7, 1),
    "roll both": lambda x: x.roll((-3, 2), (0, 1)),
    "triangle": lambda x: x.tril(2),
    "sum of cat": lambda x: torch.cat([x, x[:, :37] * 2, x], 1).sum(1),
    "sums on the way": lambda x: torch.cat([x, x[:, :37], x], 1).cumsum(1),
    "largest of pad": lambda x: F.pad(x, (40, 70), value=3).amax(1),
    "columns of cat": lambda x: torch.cat([x, x[:1], x], 0).sum(0),
}
DTYPES = [torch.float32, torch.bfloat16, torch.int8, torch.int64]
"""Of each width: what masks cost depends on that alone."""
OTHERS = [torch.float64, torch.float16, torch.bool]


@pytest.mark.parametrize("target", ["x86-64", "x86-64-v3", "native"])
@pytest.mark.parametrize("name", JOINS)
def test_what_is_joined_is_what_was(name: str, target: str) -> None:
    options: dict[str, Any] = {"fallback": False}
    if target != "native":
        options["target"] = target
    compiled = torch.compile(JOINS[name], backend=fusec.backend, options=options)
    for dtype in DTYPES if target == "x86-64" else DTYPES + OTHERS:
        for shape in ((7, 64), (5, 100), (2, 1555)):
            numbers = torch.randint(-9, 9, shape)
            x = (numbers > 0) if dtype is torch.bool else numbers.to(dtype)
            if name in ("cat", "stack", "largest of pad") and dtype is torch.bool:
                continue  # torch does not negate bools
            assert torch.equal(compiled(x), JOINS[name](x))


def test_a_loop_is_cut_where_its_mask_turns() -> None:
    """In most trips of a row either half is read whole."""
    x = torch.randn(2, 1000)
    made = fusec.jit(lambda x: torch.cat([x, x + 1], 1), target="x86-64-v3")
    text = made.source(x)
    wide = [line for line in text.splitlines() if "= load <8 x float>" in line]
    masked = [line for line in text.splitlines() if "call <8 x float> @llvm.m" in line]
    assert len(wide) >= 8
    assert len(masked) <= len(wide)
    assert torch.equal(made(x), torch.cat([x, x + 1], 1))


def test_a_mask_that_depends_on_the_row_cuts_nothing() -> None:
    x = torch.randn(40, 1000)
    made = fusec.jit(lambda x: x.triu(), target="x86-64-v3")
    assert made.source(x).count("store <8 x float>") <= 8
    assert torch.equal(made(x), x.triu())


def every_bf16() -> torch.Tensor:
    return torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.bfloat16)


def test_nans_of_bf16_stay_nans_through_arithmetic() -> None:
    """Also those whose bits are all ones, which an addition to round might carry on."""

    def f(x: Any, y: Any) -> list[Any]:
        chosen = torch.where(x > y, x, y) * y
        return [x + y, x - y, x * y, x / y, x * y + x, (x * 2 + 1) * y, chosen, x.abs()]

    x = every_bf16()
    y = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    compiled = torch.compile(f, backend=fusec.backend)
    for got, want in zip(compiled(x, y), f(x, y), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


def test_nans_of_f32_with_low_bits_stay_nans() -> None:
    codes = [0x7FC00001, 0x7F800001, 0x7FFFFFFF, -1, -0x400001, 0x7F80FFFF, 0x7F807FFF]
    x = torch.tensor(codes, dtype=torch.int32).view(torch.float32).repeat(9)

    def f(x: Any) -> list[Any]:
        return [y.bfloat16() for y in (x, x + 1, x.abs(), -x, x.clamp(min=0))]

    compiled = torch.compile(f, backend=fusec.backend)
    assert all(y.isnan().all() for y in compiled(x))


# Intervals themselves.


class Scalars:
    """Scalars in a kernel of which nothing is emitted."""

    def __init__(self) -> None:
        self.b = Builder(Level.TILE)
        self.k = Kernel(self.b.function("f"), X86_64_V3)
        self.program = self.b(ProgramId)
        note_program(self.k, self.program)

    def const(self, n: int) -> Value:
        value = self.b.const(n, i64)
        self.k.define_number(value, n)
        return value

    def __call__(self, op: Any, *xs: Value) -> Value:
        value = self.b(op, *xs)
        made = self.b.definition(value)
        assert made is not None
        note(self.k, made)
        return value

    def span(self, value: Value) -> Any:
        spans = spans_of(self.k, value)
        return spans and spans[0]


def test_intervals_follow_arithmetic() -> None:
    s = Scalars()
    low = s(ew.And, s.program, s.const(31))
    assert s.span(low) == (0, 31)
    at = s(ew.Add, s(ew.Mul, low, s.const(-64)), s.const(5))
    assert s.span(at) == (5 - 31 * 64, 5)
    assert s.span(s(ew.Sub, s.const(1), at)) == (-4, 31 * 64 - 4)
    assert s.span(s(ew.Rem, s.program, s.const(5))) == (0, 4)
    assert s.span(s(ew.TruncDiv, low, s.const(5))) == (0, 6)
    assert s.span(s(ew.Minimum, low, s.const(7))) == (0, 7)
    assert s.span(s(ew.Neg, low)) == (-31, 0)


def test_what_might_wrap_is_not_known() -> None:
    s = Scalars()
    low = s(ew.And, s.program, s.const(31))
    assert s.span(s(ew.Mul, low, s.const(1 << 60))) is None


def test_comparisons_are_decided_where_intervals_part() -> None:
    s = Scalars()
    low = s(ew.And, s.program, s.const(31))
    known = {
        (ew.Lt, 32): True, (ew.Lt, 31): None, (ew.Lt, 0): False,
        (ew.Le, 31): True, (ew.Le, 30): None, (ew.Le, -1): False,
        (ew.Ge, 0): True, (ew.Ge, 1): None, (ew.Ge, 32): False,
        (ew.Gt, -1): True, (ew.Gt, 0): None, (ew.Gt, 31): False,
        (ew.Eq, 32): False, (ew.Eq, 3): None, (ew.Ne, 32): True, (ew.Ne, 3): None,
    }  # fmt: skip
    for (op, n), want in known.items():
        compared = s.b.definition(s.b(op, low, s.const(n)))
        assert compared is not None
        assert decided(s.k, compared, 1) == [want]
