"""Programs for GPUs through torch.compile, on a GPU that is emulated.

Everything is what it would be but for two: Triton's interpreter runs the kernels, and
what is called the GPU's memory is the CPU's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fusec

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
    torch.testing.assert_close(f(x, good), x.gather(1, good) + 1)
    with pytest.raises(Exception, match="out of"):
        f(x, bad)


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
