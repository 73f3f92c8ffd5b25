"""Programs for GPUs through torch.compile, on a GPU that is emulated.

Everything is what it would be but for two: Triton's interpreter runs the kernels, and
what is called the GPU's memory is the CPU's.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fusec
from fusec.compiler import compile_function
from fusec.ir.builder import Builder
from fusec.ir.core import Level
from fusec.ir.dtypes import f32
from fusec.ir.ops.contraction import Matmul
from fusec.ir.ops.elementwise import Exp
from fusec.ir.types import Tensor
from fusec.options import Options
from fusec.runtime import launcher_gpu

pytest.importorskip("triton")
from emulated import EmulatedDriver, emulated


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[EmulatedDriver]:
    torch._dynamo.reset()
    with emulated(tmp_path) as driver:
        yield driver
    torch._dynamo.reset()


def compiled(f: Any, **others: Any) -> Any:
    options = {"target": "sm_90", "cache": False, "fallback": False}
    return torch.compile(f, backend=fusec.backend, options=options, **others)


def test_a_function(driver: EmulatedDriver) -> None:
    x, w = torch.randn(7, 50), torch.randn(50)
    got = compiled(lambda x, w: (x * w).softmax(-1))(x, w)
    torch.testing.assert_close(got, (x * w).softmax(-1))
    assert driver.launches == 1


def test_a_training_step(driver: EmulatedDriver) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(20, 33), nn.GELU(), nn.LayerNorm(33), nn.Linear(33, 4)
    )
    x = torch.randn(6, 20)
    model(x).square().mean().backward()
    wanted = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    compiled(model)(x).square().mean().backward()
    got = [p.grad for p in model.parameters()]
    torch.testing.assert_close(got, wanted)
    assert driver.launches > 5


def test_autocast(driver: EmulatedDriver) -> None:
    """Products in bfloat16, what has to be precise in float32; and the gradients."""
    torch.manual_seed(0)
    layers = nn.Linear(24, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 8)
    model = nn.Sequential(*layers)
    x = torch.randn(12, 24)

    def stepped(call: Any) -> list[torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            got = call(x)
            loss = got.logsumexp(-1).mean()
        loss.backward()
        return [got.detach(), loss.detach(), *(p.grad for p in model.parameters())]

    wanted, got = stepped(model), stepped(compiled(model))
    assert got[0].dtype is torch.bfloat16
    torch.testing.assert_close(got, wanted, rtol=3e-2, atol=3e-3)
    assert driver.launches > 3


def test_open_sizes(driver: EmulatedDriver) -> None:
    f = compiled(lambda x: F.silu(x).sum(-1), dynamic=True)
    for shape in ((3, 40), (9, 130), (2, 2)):
        x = torch.randn(shape)
        torch.testing.assert_close(f(x), F.silu(x).sum(-1))


def test_calls_of_torch_between_kernels(driver: EmulatedDriver) -> None:
    x = torch.randn(5, 30)
    f = torch.compile(
        lambda x: (x * 2).sort(-1).values.exp(),
        backend=fusec.backend,
        options={"target": "sm_90", "cache": False},
    )
    torch.testing.assert_close(f(x), (x * 2).sort(-1).values.exp())
    assert driver.launches == 2


def test_an_index_that_is_out_of_range_raises(driver: EmulatedDriver) -> None:
    f = compiled(lambda x, i: x.gather(1, i) + 1)
    x = torch.randn(4, 6)
    good, bad = torch.randint(0, 6, (4, 3)), torch.full((4, 3), 6)
    wanted = x.gather(1, good) + 1
    torch.testing.assert_close(f(x, good), wanted)
    f(x, bad)  # nobody waits for the GPU
    with pytest.raises(IndexError, match=r"out of .* in an earlier call"):
        f(x, good)
    torch.testing.assert_close(f(x, good), wanted)


def test_where_launches_block_it_raises_at_once(
    driver: EmulatedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    f = compiled(lambda x, i: x.gather(1, i) + 1)
    with pytest.raises(IndexError, match="out of"):
        f(torch.randn(4, 6), torch.full((4, 3), 6))


def test_at_the_end_of_the_process_it_is_said(driver: EmulatedDriver) -> None:
    f = compiled(lambda x, i: x.gather(1, i) + 1)
    f(torch.randn(4, 6), torch.full((4, 3), 6))
    said: list[Any] = []
    with patch.object(launcher_gpu.logger("graph"), "error", lambda *a: said.append(a)):
        launcher_gpu.tell_failures()
        launcher_gpu.tell_failures()
    ((_, name, error),) = said
    assert name == "IndexError"
    assert "out of" in str(error)


def shifted(x: torch.Tensor, by: int = 1) -> torch.Tensor:
    """The same elements and strides, somewhere that no vector of 16 bytes begins."""
    reach = sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) + 1
    memory = torch.zeros(reach + by, dtype=x.dtype)
    return memory.as_strided(x.shape, x.stride(), by).copy_(x)


def test_arguments_that_begin_anywhere(driver: EmulatedDriver) -> None:
    x, w = torch.randn(7, 50), torch.randn(50)
    f = compiled(lambda x, w: (x * w).softmax(-1))
    for args in ((shifted(x), w), (x, shifted(w)), (shifted(x.t()).t(), shifted(w))):
        torch.testing.assert_close(f(*args), (x * w).softmax(-1))


def test_arguments_that_begin_anywhere_are_overwritten(driver: EmulatedDriver) -> None:
    def step(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        x.sub_(0.1 * g)
        return x.sum()

    x, g = torch.randn(40), torch.randn(40)
    wanted, moved, kept = x - 0.1 * g, shifted(x), shifted(g)
    total = compiled(step)(moved, kept)
    torch.testing.assert_close(moved, wanted)
    torch.testing.assert_close(total, wanted.sum())
    torch.testing.assert_close(kept, g)


def test_parts_that_begin_anywhere(driver: EmulatedDriver) -> None:
    def f(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = (x * 2).softmax(0)
        return y[1:].cumsum(0), y[3:].exp() + y[:-3]

    x = torch.randn(41)
    torch.testing.assert_close(compiled(f)(x), f(x))


def test_a_launch_that_fails_says_why(driver: EmulatedDriver) -> None:
    f = compiled(lambda x: x.exp())
    f(torch.ones(3))
    driver.fails = 700
    with pytest.raises(Exception, match="fused_exp_0: EMULATED_700"):
        f(torch.ones(3))
    assert not driver.contexts
    driver.fails = 0
    torch.testing.assert_close(f(torch.ones(3)), torch.ones(3).exp())


def test_streams_have_tables_of_their_own(driver: EmulatedDriver) -> None:
    f = compiled(lambda x: x.exp())
    for stream in (1, 2, 1, 3):
        driver.current = stream
        torch.testing.assert_close(f(torch.ones(3)), torch.ones(3).exp())
    assert not driver.contexts


def test_ops_one_by_one_where_a_profiler_looks(driver: EmulatedDriver) -> None:
    f, x = compiled(lambda x: x.exp().sum(-1)), torch.randn(5, 6)
    with torch.profiler.profile() as profile:
        torch.testing.assert_close(f(x), x.exp().sum(-1))
    assert any(event.name.startswith("fused_") for event in profile.events())


def test_a_program_that_was_pickled(driver: EmulatedDriver) -> None:
    b = Builder(Level.GRAPH)
    x, w = b.param(Tensor(f32, (4, 8)), "x"), b.param(Tensor(f32, (8, 3)), "w")
    function = b.function("f", (b(Exp, b(Matmul, x, w, dtype=f32)),))
    options = Options(target="sm_90", cache=False)
    made = compile_function(function, options, callables={})
    again = pickle.loads(pickle.dumps(made.artifact)).load()
    a, c = torch.randn(4, 8), torch.randn(8, 3)
    torch.testing.assert_close(again([a, c])[0], (a @ c).exp())


def test_arguments_are_overwritten(driver: EmulatedDriver) -> None:
    def step(x: torch.Tensor, g: torch.Tensor) -> None:
        x.sub_(0.1 * g)

    x, g = torch.randn(40), torch.randn(40)
    wanted = x - 0.1 * g
    compiled(step)(x, g)
    torch.testing.assert_close(x, wanted)


def test_a_step_of_many_parameters(driver: EmulatedDriver) -> None:
    """Small kernels of it start together."""

    def step(xs: list[torch.Tensor], gs: list[torch.Tensor]) -> None:
        torch._foreach_add_(xs, gs, alpha=-0.1)

    xs = [torch.randn(n) for n in (3, 40, 40, 100, 7)]
    gs = [torch.randn_like(x) for x in xs]
    wanted = [x - 0.1 * g for x, g in zip(xs, gs, strict=True)]
    compiled(step)(xs, gs)
    torch.testing.assert_close(xs, wanted)
    assert driver.launches == 1


def test_a_gpu_s_code_does_not_run_on_the_cpu_s_memory(tmp_path: Path) -> None:
    torch._dynamo.reset()
    with pytest.raises(Exception, match="cannot run on this machine"):
        compiled(lambda x: x + 1)(torch.ones(3))


def test_each_stage_is_verified(driver: EmulatedDriver) -> None:
    """Launches that became one, too."""

    def f(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 3, y.exp().t().contiguous()

    options = {"target": "sm_90", "cache": False, "verify": True}
    x, y = torch.randn(40), torch.randn(5, 8)
    got = torch.compile(f, backend=fusec.backend, options=options)(x, y)
    torch.testing.assert_close(got, f(x, y))
    assert driver.launches == 1
