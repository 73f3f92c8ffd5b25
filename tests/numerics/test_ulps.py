"""Transcendental functions in float32 are as near to the truth as their ops state."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from numerics.sweep import UNARY, every_float, sample, sweep

from fusec.ir.opdef import REGISTRY

DOCS = Path(__file__).parents[2] / "docs" / "numerics.md"


def check(op: Any, chunks: Iterable[torch.Tensor]) -> None:
    worst = sweep(op, chunks)
    print(f"{op.name}: {worst.ulps:.4f} ulp at {worst.at!r}, bound {op.ulps[0]}")
    assert worst.ulps <= op.ulps[0], worst


@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.name)
def test_a_sample_of_all_exponents(op: Any) -> None:
    check(op, [sample()])


@pytest.mark.slow
@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.name)
def test_every_float(op: Any) -> None:
    check(op, every_float())


def test_the_documented_bounds_are_the_stated_ones() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|", DOCS.read_text(), re.M)
    stated = {name: tuple(map(float, bounds)) for name, *bounds in rows}
    ops = {n: op.ulps for n, op in REGISTRY.items() if getattr(op, "ulps", None)}
    assert stated == ops
