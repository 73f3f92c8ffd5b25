"""How far compiled float32 functions are from the truth, on as many inputs as asked.

    worst = sweep(Exp, every_float())      # 2³² inputs: a minute or two
    worst = sweep(Exp, [sample()])         # a few ten thousand

The truth is torch's float64, whose own error is 2⁻²⁹ units of float32's last place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch

from fusec.compiler import compile_function
from fusec.ir.builder import Builder
from fusec.ir.core import Level
from fusec.ir.dims import Symbol
from fusec.ir.dtypes import f32
from fusec.ir.opdef import REGISTRY
from fusec.ir.types import Tensor
from fusec.options import Options

CHUNK = 1 << 18
"""Inputs at a time: what is computed on the way stays in the cache."""
TINY = torch.finfo(torch.float32).tiny

UNARY = [
    op
    for op in REGISTRY.values()
    if getattr(op, "ulps", None) and len(op.operand_fields) == 1
]
"""Every function of one operand that has an expansion which rounds."""


class Worst(NamedTuple):
    """The largest error, in units of the last place, and the input that has it."""

    ulps: float
    at: float


def every_float() -> Iterator[torch.Tensor]:
    """All 2³² bit patterns as float32."""
    for start in range(-(1 << 31), 1 << 31, CHUNK):
        codes = torch.arange(start, start + CHUNK, dtype=torch.int64)
        yield codes.to(torch.int32).view(torch.float32)


def sample() -> torch.Tensor:
    """Both signs of every exponent, with the first, last and middle numbers of each.

    And some of a fixed seed; infinities, NaN, zeros and subnormals are among them.
    """
    seeded = torch.Generator().manual_seed(11)
    drawn = torch.randint(0, 1 << 23, (48,), generator=seeded)
    edges = [
        0,
        1,
        2,
        3,
        (1 << 22) - 1,
        1 << 22,
        (1 << 22) + 1,
        (1 << 23) - 2,
        (1 << 23) - 1,
    ]
    mantissas = torch.cat([torch.tensor(edges), drawn])
    codes = (torch.arange(512)[:, None] << 23) + mantissas
    bits = torch.where(codes < 1 << 31, codes, codes - (1 << 32)).to(torch.int32)
    every = bits.flatten().view(torch.float32)
    near = torch.linspace(-20, 20, 40_001)
    return torch.cat([every, near, near / 64])


def sweep(op: Any, chunks: Iterable[torch.Tensor]) -> Worst:
    """The largest error of a compiled op, and where; at least 0.5.

    Inf where the result or the truth is NaN, an infinity or a zero and the other is
    not the same, sign included.
    """
    run, truth = compiled(op), getattr(torch, op.name)
    worst = Worst(0.5, 0.0)
    for x in chunks:
        (got,) = run([x])
        exact = truth(x.double())
        # The others are the nearest number there is: half a unit off at most.
        differ = got.view(torch.int32) != exact.float().view(torch.int32)
        x, got, exact = (part[differ] for part in (x, got, exact))
        found = errors(got, exact)
        if op.name == "sigmoid":
            found[_vanishes(x, got)] = 0
        if found.numel() and float(found.max()) > worst.ulps:
            at = int(found.argmax())
            worst = Worst(float(found[at]), float(x[at]))
    return worst


def _vanishes(x: torch.Tensor, got: torch.Tensor) -> torch.Tensor:
    """Where sigmoid promises no more than a result next to 0, as torch's."""
    return (x < -88) & (got >= 0) & (got < 8 * TINY)


def compiled(op: Any) -> Callable[[list[Any]], list[Any]]:
    """A program of one op, on vectors of float32 of any length."""
    n = Symbol("n")
    b = Builder(Level.GRAPH)
    x = b.param(Tensor(f32, (n,)), "x")
    function = b.function(op.name, (b(op, x),), symbols=(n,))
    options = Options.from_mapping({"cache": False})
    return compile_function(function, options, {n: CHUNK}).program


def errors(got: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Distances in units of the last place that a float32 has at the truth."""
    rounded = truth.float()
    size = truth.abs().clamp(TINY, torch.finfo(torch.float32).max)
    exponent = size.view(torch.int64) & (0x7FF << 52)
    place = exponent.view(torch.float64) * 2.0**-23
    distance = (got.double() - truth).abs() / place
    same = (got == rounded) & (got.signbit() == rounded.signbit())
    same |= got.isnan() & rounded.isnan()
    special = ~rounded.isfinite() | ~got.isfinite() | ((got == 0) & (rounded == 0))
    return torch.where(special, torch.where(same, 0.0, torch.inf), distance)
