"""Results do not depend on threads, and nothing of the process is changed."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
import pytest
import torch
from torch.nn import functional as F

REDUCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "sum of all": lambda x: x.sum(),
    "sums of rows": lambda x: x.sum(1),
    "sums of columns": lambda x: x.sum(0),
    "mean": lambda x: x.mean(),
    "product": lambda x: (x / 4 + 1).prod(0),
    "variance": lambda x: x.var(0),
    "variance of all": lambda x: torch.var_mean(x),
    "norm": lambda x: x.norm(),
    "greatest": lambda x: (x.amax(), x.argmax(0), x.argmax()),
    "least": lambda x: (x.amin(1), *x.min(0)),
    "any": lambda x: ((x > 3.5).any(), (x > -4).all(0)),
    "softmax": lambda x: x.softmax(-1),
    "softmax of columns": lambda x: x.softmax(0),
    "logsumexp": lambda x: x.logsumexp((0, 1)),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "cross entropy": lambda x: F.cross_entropy(x, torch.arange(len(x)) % x.shape[1]),
    "running sums": lambda x: x.cumsum(0),
}
SHAPES = [(3, 70_001), (4099, 37), (257, 511)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_results_are_the_same_on_any_number_of_threads(
    name: str, shape: tuple[int, int]
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    results: list[list[torch.Tensor]] = []
    for threads in (1, 2, 3, 8):
        torch._dynamo.reset()
        options = {"threads": threads}
        made = torch.compile(REDUCTIONS[name], backend="fusec", options=options)(x)
        results.append(list(made) if isinstance(made, tuple) else [made])
    for others in results[1:]:
        for got, want in zip(others, results[0], strict=True):
            assert torch.equal(got, want)


STATE = """
declare void @llvm.x86.sse.stmxcsr(ptr)

define i32 @state() {
  %p = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %p)
  %v = load i32, ptr %p
  ret i32 %v
}
"""
CONTROL = 0xFFC0
"""Rounding, masks, and whether subnormals count as zero: all but what operations
leave behind, that they were inexact and so on."""


@pytest.fixture
def control() -> Iterator[Callable[[], int]]:
    """Reads the control bits of the processor's floating point."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("reads MXCSR, which x86-64 has")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(STATE), machine)
    engine.finalize_object()
    read = ctypes.CFUNCTYPE(ctypes.c_uint32)(engine.get_function_address("state"))
    yield lambda: read() & CONTROL
    engine.close()


@pytest.mark.parametrize("flush", [False, True], ids=["subnormal", "flushed"])
def test_the_processor_s_flags_stay_as_they_are(
    control: Callable[[], int], flush: bool
) -> None:
    def f(x: torch.Tensor) -> Any:
        return x / 3, (x.exp() - 1).sum(), x.half().softmax(-1), torch.sort(x)[0]

    torch._dynamo.reset()
    torch.set_flush_denormal(flush)
    try:
        before = control()
        assert bool(before & 0x8040) == flush
        torch.compile(f, backend="fusec")(torch.randn(100, 4000) * 1e-39)
        assert control() == before
    finally:
        torch.set_flush_denormal(False)


def test_subnormals_are_numbers() -> None:
    x = torch.tensor([1e-40, -3e-42, 1.4e-45, 2e-38]).repeat(9)
    torch._dynamo.reset()
    got = torch.compile(lambda x: (x / 2, x * 3, x - 1e-40), backend="fusec")(x)
    for a, b in zip(got, (x / 2, x * 3, x - 1e-40), strict=True):
        assert torch.equal(a, b)


SETTINGS: dict[str, Callable[[], Any]] = {
    "threads": torch.get_num_threads,
    "interop threads": torch.get_num_interop_threads,
    "default dtype": torch.get_default_dtype,
    "precision": torch.get_float32_matmul_precision,
    "deterministic": torch.are_deterministic_algorithms_enabled,
    "gradients": torch.is_grad_enabled,
    "printing": lambda: vars(torch._tensor_str.PRINT_OPTS).copy(),
    "dynamo": lambda: torch._dynamo.config.get_config_copy(),
    "functorch": lambda: torch._functorch.config.get_config_copy(),
    "random": lambda: torch.get_rng_state().tolist(),
}


def test_torch_s_settings_stay_as_they_are() -> None:
    torch._dynamo.reset()
    before = {name: read() for name, read in SETTINGS.items()}
    x = torch.linspace(-1, 1, 600).reshape(20, 30).requires_grad_()
    compiled = torch.compile(
        lambda x: F.gelu(x).softmax(-1).sum(), backend="fusec", options={"threads": 3}
    )
    compiled(x).backward()
    assert {name: read() for name, read in SETTINGS.items()} == before
