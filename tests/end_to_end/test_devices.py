"""Graphs whose tensors are elsewhere than on the CPU, or on several devices.

They are on GPUs, where torch has CUDA. Elsewhere the device is emulated: torch knows
it, its memory is the CPU's, and Triton's interpreter runs what fusec compiles for it.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusec
from fusec.errors import OptionError
from fusec.logs import forget_warnings
from fusec.runtime import gpus
from fusec.runtime.cuda import Cuda
from fusec.runtime.launcher_gpu import LAUNCH

pytest.importorskip("triton")
import emulated_device
from emulated import emulated

CUDA = torch.cuda.is_available()
KIND = "cuda" if CUDA else emulated_device.NAME
HERE, THERE = f"{KIND}:0", f"{KIND}:1"
pytestmark = pytest.mark.skipif(
    not CUDA and not emulated_device.is_possible(), reason="it takes g++ and ninja"
)
on_two = pytest.mark.skipif(
    CUDA and torch.cuda.device_count() < 2, reason="there is one GPU only"
)


class Launches(Protocol):
    """How many launches there were."""

    launches: int


class CountedCuda(Cuda):
    """CUDA's driver, and how many launches went by it."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = 0
        launch = LAUNCH(self.launch)

        def counted(*given: Any) -> int:
            self.launches += 1
            return launch(*given)

        self._counted = LAUNCH(counted)
        self.launch = ctypes.cast(self._counted, ctypes.c_void_p).value or 0


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Launches]:
    torch._dynamo.reset()
    if CUDA:
        driver = CountedCuda()
        kind = gpus.KINDS["cuda"]._replace(driver=lambda: driver)
        with patch.dict(gpus.KINDS, {"cuda": kind}):
            yield driver
    else:
        with emulated(tmp_path) as driver:
            yield driver
    torch._dynamo.reset()


def compiled(f: Any, dynamic: bool | None = None, **options: Any) -> Any:
    given = {"cache": False, "fallback": False, **options}
    return torch.compile(f, backend=fusec.backend, options=given, dynamic=dynamic)


def same(f: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What the compiled function gives, which has to be what torch does."""
    copies = [x.clone() if isinstance(x, Tensor) else x for x in args]
    wanted = f(*copies)
    got = compiled(f, **options)(*args)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(args, tuple(copies))
    return got


@pytest.mark.parametrize("device", [HERE, pytest.param(THERE, marks=on_two)])
def test_results_are_where_the_arguments_are(driver: Launches, device: str) -> None:
    x, w = torch.randn(7, 50, device=device), torch.randn(50, device=device)
    got = same(lambda x, w: (x * w).softmax(-1), x, w)
    assert got.device == torch.device(device)
    assert driver.launches == 1


@on_two
def test_one_program_for_each_device(driver: Launches) -> None:
    f = compiled(lambda x: x.exp().sum(-1))
    for device in (HERE, THERE, HERE):
        x = torch.randn(4, 9, device=device)
        got = f(x)
        assert got.device == x.device
        torch.testing.assert_close(got, x.exp().sum(-1))
    x = torch.randn(4, 9)
    torch.testing.assert_close(f(x), x.exp().sum(-1))
    assert driver.launches == 3


def test_training(driver: Launches) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        layers = nn.Linear(20, 33), nn.GELU(), nn.LayerNorm(33), nn.Linear(33, 4)
        return nn.Sequential(*layers).to(HERE)

    def trained(call: Any, model: nn.Module) -> list[Tensor]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        torch.manual_seed(1)
        for _ in range(3):
            optimizer.zero_grad()
            call(torch.randn(6, 20).to(HERE)).square().mean().backward()
            optimizer.step()
        return [p.detach().cpu() for p in model.parameters()]

    eager, ours = model(), model()
    wanted = trained(eager, eager)
    torch.testing.assert_close(trained(compiled(ours), ours), wanted)
    assert driver.launches > 15


def test_numbers_on_the_cpu(driver: Launches) -> None:
    x, scale = torch.randn(4, 9, device=HERE), torch.tensor(2.5)
    same(lambda x, s: (x * s + s).softmax(-1), x, scale)
    same(lambda x: x * torch.tensor(3.0) + 1, x)
    same(lambda x, s: torch.where(x > s, x, s), x, scale)
    assert driver.launches == 3
    same(lambda x, s: x * s.double().exp(), x, scale, fallback=True)


def test_tensors_that_move(driver: Launches) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mask = (y > 0).to(HERE)
        z = torch.where(mask, x, -x).exp()
        return z.cpu() + y, z.sum(-1), (y * 2).sin()

    x, y = torch.randn(4, 9, device=HERE), torch.randn(4, 9)
    results = same(f, x, y, fallback=True)
    assert [each.device.type for each in results] == ["cpu", KIND, "cpu"]
    assert driver.launches == 1


@on_two
def test_several_devices(driver: Launches) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = (x * 2).exp()
        return z.sum(-1), z.to(THERE) + y

    x, y = torch.randn(4, 9, device=HERE), torch.randn(4, 9, device=THERE)
    results = same(f, x, y, fallback=True)
    assert [str(each.device) for each in results] == [HERE, THERE]


def test_writes_to_arguments_anywhere(driver: Launches) -> None:
    def step(x: Tensor, g: Tensor, count: Tensor, seen: Tensor) -> Tensor:
        count.add_(1)
        seen[1:].mul_(2)
        x.sub_(0.1 * g / count)
        return x.sum()

    x, g = torch.randn(40, device=HERE), torch.randn(40, device=HERE)
    same(step, x, g, torch.tensor(3.0), torch.ones(4), fallback=True)


def test_views_are_of_their_arguments(driver: Launches) -> None:
    x, y = torch.randn(4, 9, device=HERE), torch.randn(4, 9)

    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x[1:], y[:, 2:], y.t(), (x + 1)[2:]

    first, second, third, _ = same(f, x, y, fallback=True)
    assert first.data_ptr() == x[1:].data_ptr()
    assert second.data_ptr() == y[:, 2:].data_ptr()
    assert third.data_ptr() == y.data_ptr()


def test_open_sizes(driver: Launches) -> None:
    f = compiled(lambda x: F.silu(x).sum(-1), dynamic=True)
    for shape in ((3, 40), (9, 130), (2, 2)):
        x = torch.randn(shape, device=HERE)
        torch.testing.assert_close(f(x), F.silu(x).sum(-1))


def test_dropout_is_torch_s(driver: Launches) -> None:
    x = torch.randn(30, 30, device=HERE)
    f = lambda x: F.dropout(x, 0.5) * 2  # noqa: E731
    torch.manual_seed(3)
    wanted = f(x)
    torch.manual_seed(3)
    torch.testing.assert_close(compiled(f, fallback=True)(x), wanted)


def test_the_last_dimension_need_not_be_the_innermost(driver: Launches) -> None:
    """Images whose channels lie side by side stay so."""
    torch.manual_seed(0)
    shape = 2, 6, 5, 7
    x = torch.randn(shape, device=HERE).to(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(6).to(HERE)
    got = same(lambda x: F.silu(norm(x)) + x, x)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_threads_call_side_by_side(driver: Launches) -> None:
    """One program, which each thread gives tensors of its own."""
    f = compiled(lambda x: (x.softmax(-1) @ x.T).exp())
    torch.manual_seed(0)
    given = [torch.randn(6, 20, device=HERE) for _ in range(8)]
    f(given[0])  # torch compiles in one thread
    before = driver.launches
    with ThreadPoolExecutor(4) as threads:
        results = [*threads.map(f, given)]
    for x, got in zip(given, results, strict=True):
        torch.testing.assert_close(got, (x.softmax(-1) @ x.T).exp())
    assert driver.launches >= before + len(given)


def test_a_language_model_s_layers(driver: Launches) -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(17, 16)
            self.qkv = nn.Linear(16, 48)
            self.norm = nn.RMSNorm(16)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embed(tokens)
            q, k, v = self.qkv(self.norm(x)).view(2, 5, 3, 2, 8).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + y.transpose(1, 2).reshape(2, 5, 16)
            return F.cross_entropy(x.flatten(0, 1), tokens.flatten() % 16)

    torch.manual_seed(0)
    model = Small().to(HERE)
    tokens = torch.randint(0, 17, (2, 5)).to(HERE)
    wanted = model(tokens)
    grads = torch.autograd.grad(wanted, list(model.parameters()))
    got = compiled(model, fallback=True)(tokens)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(got, list(model.parameters())), grads
    )
    assert driver.launches > 10


def test_an_embedding_learns(driver: Launches) -> None:
    """What comes to the rows of a table is added up in memory."""

    class Bags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(700, 24, padding_idx=3)
            self.out = nn.Linear(24, 5)

        def forward(self, tokens: Tensor, bags: Tensor) -> Tensor:
            words = self.words(tokens).tanh()
            found = words.new_zeros(90, 24).index_add(0, bags, words)
            return self.out(found).square().mean()

    def trained(call: Any, model: nn.Module) -> list[Tensor]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        torch.manual_seed(1)
        for _ in range(3):
            optimizer.zero_grad()
            tokens, bags = torch.randint(0, 700, (200,)), torch.randint(0, 90, (200,))
            call(tokens.to(HERE), bags.to(HERE)).backward()
            optimizer.step()
        return [p.detach().cpu() for p in model.parameters()]

    torch.manual_seed(0)
    eager = Bags().to(HERE)
    ours = copy.deepcopy(eager)
    wanted = trained(eager, eager)
    # No call to ATen is left.
    torch.testing.assert_close(trained(compiled(ours, fallback=False), ours), wanted)


def test_a_cache_is_updated_where_it_lies(driver: Launches) -> None:
    def step(cache: Tensor, at: Tensor, rows: Tensor) -> Tensor:
        cache[:, at] = rows
        return cache.sum(1)

    cache, rows = torch.randn(4, 900, 8, device=HERE), torch.randn(4, 20, 8).to(HERE)
    at = torch.randperm(900)[:20].to(HERE)
    same(step, cache, at, rows)
    assert driver.launches == 2
    # Memory that does not begin where kernels need it is copied, and copied back.
    odd = torch.randn(1 + cache.numel(), device=HERE)[1:].view(cache.shape)
    same(step, odd, at, rows)
    same(step, cache, at, rows, verify=True)


def test_an_index_that_lies_outside_is_told_of(driver: Launches) -> None:
    f = compiled(lambda x, i: x.index_add(0, i, x[: i.shape[0]]))
    x, i = torch.randn(900, 8, device=HERE), torch.randint(0, 900, (200,)).to(HERE)
    f(x, i)
    i[7] = 900

    def twice() -> None:
        f(x, i)
        x.sum().item()
        f(x, i)  # a device tells of it when it has come to an end

    with pytest.raises(IndexError, match="dimension 0 of size 900"):
        twice()


def test_reproducible_sums_are_torch_s(driver: Launches) -> None:
    x, i = torch.randn(900, 8, device=HERE), torch.randint(0, 900, (200,)).to(HERE)
    f = compiled(lambda x, i: x.index_add(0, i, x[:200]) * 2, fallback=True)
    torch.use_deterministic_algorithms(True)
    try:
        same_bits = [f(x, i) for _ in range(2)]
        assert driver.launches == 2  # for what is computed of the sums
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(*same_bits, rtol=0, atol=0)
    f(x, i)
    assert driver.launches > 3


@on_two
def test_memory_that_only_kernels_touch_is_the_device_s(
    driver: Launches,
) -> None:
    x = torch.randn(70, 20, device=THERE)
    same(lambda x: x.cumsum(0).softmax(0).sum(1) + x.exp().sum(1).cumsum(0), x)


def test_a_program_checks_itself(driver: Launches) -> None:
    def f(x: Tensor, y: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
        z = F.dropout((x * y).softmax(-1), 0.5)
        return z.sort(-1).values.sum(0), z.to(torch.bfloat16).gather(1, i)

    x, y = torch.randn(4, 9, device=HERE), torch.tensor(0.5)
    i = torch.randint(0, 9, (4, 2)).to(HERE)
    torch.manual_seed(5)
    wanted = f(x, y, i)
    torch.manual_seed(5)
    got = compiled(f, verify=True, fallback=True)(x, y, i)
    torch.testing.assert_close(got, wanted)


def test_a_program_checks_itself_among_devices(driver: Launches) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        z = x * 2
        return z.cpu() + y, y.mul_(2), z + 1, y[1:]

    x, y = torch.randn(4, 9, device=HERE), torch.randn(4, 9)
    same(f, x, y, fallback=True, verify=True)


@on_two
def test_a_program_with_results_elsewhere_checks_itself(driver: Launches) -> None:
    x = torch.randn(4, 9, device=HERE)
    same(lambda x: (x * 2).to(THERE), x, verify=True)


def test_weights_are_not_frozen(
    driver: Launches, caplog: pytest.LogCaptureFixture
) -> None:
    forget_warnings()
    model, x = nn.Linear(9, 5).to(HERE), torch.randn(4, 9, device=HERE)
    f = compiled(model, freeze=True)
    with torch.no_grad():
        torch.testing.assert_close(f(x), model(x))
        model.weight.data.mul_(2)
        torch.testing.assert_close(f(x), model(x))
    assert f"nothing is frozen of graphs on {HERE}" in caplog.text


def test_graphs_without_kernels(driver: Launches) -> None:
    x = torch.randn(4, 9, device=HERE)
    same(lambda x: x.sort(-1).values, x, fallback=True)
    same(lambda x: (x[1:], x.t()), x)


def test_the_user_s_default_device_is_not_for_programs(driver: Launches) -> None:
    x, y = torch.randn(900, 700), torch.randn(4, 9, device=HERE)
    f, g = compiled(lambda x: x.exp() + 1), compiled(lambda y: y.cumsum(0).exp())
    with torch.device("meta"):
        got = f(x), g(y)
    torch.testing.assert_close(got, (x.exp() + 1, y.cumsum(0).exp()))


def test_a_graph_on_the_cpu_that_ends_elsewhere_is_the_cpu_s(driver: Launches) -> None:
    x = torch.randn(4, 9)
    got = same(lambda x: ((x * 2).exp().softmax(-1) + 1).to(HERE), x)
    assert got.device == torch.device(HERE)
    assert not driver.launches


def test_a_processor_s_target_is_refused(driver: Launches) -> None:
    with pytest.raises(Exception, match=f"cannot run on {HERE}") as caught:
        compiled(lambda x: x + 1, target="x86-64-v3")(torch.ones(3, device=HERE))
    assert OptionError.__name__ in repr(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        (patch.dict(gpus.KINDS, clear=True), f"fusec knows no devices called {KIND}"),
        (patch.object(gpus, "find_spec", lambda name: None), "pip install"),
    ],
)
def test_what_cannot_run_goes_through_aten(
    driver: Launches, missing: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    forget_warnings()
    x = torch.randn(3, device=HERE)
    with missing:
        torch.testing.assert_close(
            compiled(lambda x: x.exp(), fallback=True)(x), x.exp()
        )
        assert why in caplog.text
        torch._dynamo.reset()
        with pytest.raises(Exception, match=why):
            compiled(lambda x: x.exp() + 1)(x)
    assert not driver.launches
