"""Loads give at once what the guard behind them would put where nothing exists."""

from __future__ import annotations

import re

import pytest
import torch
from codegen.test_triton import journey_of

from fusec.build import kernel_text
from fusec.ir.parser import parse_module
from fusec.target import SM_90

pytest.importorskip("triton")

KERNEL = """
tile @f(%x: buffer<f32, "(100:mem@32)">, %y: buffer<f32, "(256:mem@32)">) -> () {
  %o = const(0) : i64
  %n = const(100) : i64
  %few = const(90) : i64
  %end = const(1) : i64
  for %o, %end {step=1} {
    ^(%k: i64):
    LOAD
    GUARDS
  }
}
"""
LOAD = """
  %t = load_tile %x, %o, %n {strides=(1,), limited=(0,)} : tile<f32[128], "(128:reg)">
"""
MASKED = """
  %b = const(true) : bool
  %m = broadcast_tile %b : tile<bool[128], "(128:reg)">
  %1 = const(1.0) : f32
  %e = broadcast_tile %1 : tile<f32[128], "(128:reg)">
  %t = load_tile %x, %o, %n, %m, %e {strides=(1,), limited=(0,), masked=true}
    : tile<f32[128], "(128:reg)">
"""


def guarded(identity: str, limit: str = "%n", at: int = 0) -> str:
    return f"""
  %g{at} = guard %t, {limit} {{limited=(0,), identity={identity}}}
    : tile<f32[128], "(128:reg)">
  %p{at} = const({128 * at}) : i64
  store_tile %g{at}, %y, %p{at} {{strides=(1,)}}
"""


def text(load: str, *guards: str) -> str:
    source = KERNEL.replace("LOAD", load).replace("GUARDS", "".join(guards))
    (kernel,) = parse_module(source).functions
    return kernel_text(kernel, SM_90)


def others(source: str) -> list[str]:
    return re.findall(r"other=(\S+)\)", source)


@pytest.mark.parametrize("identity", ["0", "1", "-inf"])
def test_a_load_fills_in_what_its_guard_would(identity: str) -> None:
    found = text(LOAD, guarded(identity))
    assert len(others(found)) == 1
    assert float(re.sub(r'float\("|"\)', "", others(found)[0])) == float(identity)
    assert "tl.where" not in found


def test_a_guard_with_another_limit_stays() -> None:
    found = text(LOAD, guarded("0", "%few"))
    assert not others(found)
    assert found.count("tl.where") == 1


def test_a_guard_with_another_number_stays() -> None:
    found = text(LOAD, guarded("0"), guarded("1", at=1))
    assert others(found) == ["0.0"]
    assert found.count("tl.where") == 1


def test_what_a_mask_leaves_out_stays_as_it_is() -> None:
    found = text(MASKED, guarded("0"))
    assert found.count("other=") == 1
    assert found.count("tl.where") == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_vector_units_have_factors_in_registers(dtype: torch.dtype) -> None:
    """Those of tensor cores go past them."""
    x, w = torch.randn(40, 37).to(dtype), torch.randn(37, 40).to(dtype)
    journey, _ = journey_of(lambda x, w: (x @ w) * 0.5, x, w)
    (kernel,) = journey.kernels.values()
    found = kernel_text(kernel, journey.target)
    narrow = dtype is torch.bfloat16
    assert found.count("other=") == 2 * narrow
    assert found.count("t = tl.where(") == (not narrow)
