"""The golden kernels on a GPU, and what only a GPU shows: streams, threads, capture."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fusec
from fusec.analysis.candidates import Choice
from fusec.runtime.cache import Cache

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from gpu_cases import KERNELS

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU that torch can use"
)
SIZES = [(37, 70), (513, 1000), (3, 20_000)]


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


def compiled(f: Any, **others: Any) -> Any:
    options = {"fallback": False}
    return torch.compile(f, backend=fusec.backend, options=options, **others)


def moved(args: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [x.to("cuda") for x in args]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", KERNELS)
def test_golden_kernels(name: str, size: tuple[int, int]) -> None:
    f, make = KERNELS[name]
    args = moved(make(*size))
    exact = f(*(x.double() if x.is_floating_point() else x for x in args))
    got = compiled(f)(*args)
    torch.testing.assert_close(got, exact, rtol=2e-3, atol=2e-3, check_dtype=False)


def test_kernels_run_on_the_current_stream() -> None:
    f, x = compiled(lambda x: (x * 2).exp().sum(-1)), torch.randn(4096, 4096).cuda()
    wanted = (x * 2).exp().sum(-1)
    torch.testing.assert_close(f(x), wanted)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        y = torch.randn_like(x).mul_(0.5)
        got, again = f(y), (y * 2).exp().sum(-1)
    stream.synchronize()
    torch.testing.assert_close(got, again)


def test_threads_that_never_used_the_gpu() -> None:
    f, x = compiled(lambda x: x.exp()), torch.randn(300, device="cuda")
    f(x)
    found: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(f(x))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for got in found:
        torch.testing.assert_close(got, x.exp())


def test_programs_can_be_captured() -> None:
    f, x = compiled(lambda x: (x * 2).softmax(-1).sum(0)), torch.randn(64, 500).cuda()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        f(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = f(x)
    for _ in range(3):
        x.copy_(torch.randn(64, 500))
        graph.replay()
        torch.testing.assert_close(got, (x * 2).softmax(-1).sum(0))


def test_an_index_out_of_range_raises_in_the_next_call() -> None:
    x, i = torch.randn(4, 6).cuda(), torch.zeros(4, 3, dtype=torch.int64).cuda()
    f = compiled(lambda x, i: x.gather(1, i) + 1)
    torch.testing.assert_close(f(x, i), x.gather(1, i) + 1)
    f(x, i + 6)
    torch.cuda.synchronize()
    with pytest.raises(IndexError, match="out of"):
        f(x, i)
    torch.testing.assert_close(f(x, i), x.gather(1, i) + 1)


def test_schedules_are_chosen_by_measurement(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a process that has the GPU besides this one."""
    caplog.set_level("INFO", logger="fusec.tuning")
    x, w = (torch.randn(2048, 2048, device="cuda") for _ in range(2))

    def f(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (x.softmax(-1) * w).sum(0)

    options = {"tune": True, "cache_dir": tmp_path, "fallback": False}
    for _ in range(2):
        torch._dynamo.reset()
        got = torch.compile(f, backend=fusec.backend, options=options)(x, w)
        torch.testing.assert_close(got, f(x, w), rtol=1e-3, atol=1e-3)
    cache = Cache(tmp_path)
    kept = [cache.get(each.key) for each in cache.ls() if each.kind == "schedule"]
    assert kept
    assert all(Choice.parse((each or b"").decode()).gain for each in kept)
    assert "has the default schedule" not in caplog.text


def replayed(f: Any, dynamic: bool | None = None) -> Any:
    options = {"cudagraphs": True, "cache": False}
    return torch.compile(f, backend=fusec.backend, options=options, dynamic=dynamic)


class Replays:
    """How many graphs were replayed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        replay = torch.cuda.CUDAGraph.replay

        def counted(graph: Any) -> None:
            self.count += 1
            replay(graph)

        monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Replays:
    return Replays(monkeypatch)


def test_inference_is_replayed(replays: Replays) -> None:
    w = torch.randn(500).cuda()
    f = lambda x: ((x * w).softmax(-1).cumsum(0), x.exp().sum(0).cumsum(0))  # noqa: E731
    g = replayed(f)
    for _ in range(5):
        x = torch.randn(64, 500).cuda()
        torch.testing.assert_close(g(x), f(x))
    assert replays.count == 4  # all but the first


def test_training_is_replayed(replays: Replays) -> None:
    def trained(call: Any, model: torch.nn.Module) -> list[torch.Tensor]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        torch.manual_seed(1)
        for _ in range(5):
            optimizer.zero_grad()
            call(torch.randn(16, 20).cuda()).square().mean().backward()
            optimizer.step()
        return [x.detach() for x in model.state_dict().values()]

    def model() -> torch.nn.Module:
        torch.manual_seed(0)
        layers = torch.nn.Linear(20, 33), torch.nn.BatchNorm1d(33), torch.nn.GELU()
        return torch.nn.Sequential(*layers, torch.nn.Linear(33, 4)).cuda()

    eager, ours = model(), model()
    wanted = trained(eager, eager)
    got = trained(replayed(ours), ours)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
    assert replays.count >= 6


def test_an_index_out_of_range_in_a_replay_raises_in_the_next_call(
    replays: Replays,
) -> None:
    x, i = torch.randn(4, 6).cuda(), torch.zeros(4, 3, dtype=torch.int64).cuda()
    f = replayed(lambda x, i: x.gather(1, i) + 1)
    for _ in range(3):
        torch.testing.assert_close(f(x, i), x.gather(1, i) + 1)
    f(x, i + 6)
    torch.cuda.synchronize()
    assert replays.count == 3
    with pytest.raises(IndexError, match="out of"):
        f(x, i)
    torch.testing.assert_close(f(x, i), x.gather(1, i) + 1)


def test_random_numbers_of_replays(replays: Replays) -> None:
    f = lambda x: torch.nn.functional.dropout(x, 0.5) * 2  # noqa: E731
    g, x = replayed(f), torch.randn(300, 300).cuda()
    g(x), g(x)
    found: list[list[torch.Tensor]] = []
    for call in (f, g):
        torch.manual_seed(3)
        found.append([call(x).clone() for _ in range(3)])
    assert not torch.equal(found[1][0], found[1][1])
    torch.testing.assert_close(found[1], found[0])
    assert replays.count == 4


def test_sizes_that_vary_are_replayed_by_value(replays: Replays) -> None:
    g = replayed(lambda x: x.exp().sum(-1), dynamic=True)
    for rows in (30, 70, 30, 70, 30, 70):
        x = torch.randn(rows, 50).cuda()
        torch.testing.assert_close(g(x), x.exp().sum(-1))
    assert replays.count == 4


def test_buffers_of_replays_are_overwritten_where_they_lie(replays: Replays) -> None:
    class Counts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen.add_(x.sum(0))
            return x + self.seen

    eager, ours = Counts().cuda(), Counts().cuda()
    f = replayed(ours)
    for _ in range(5):
        x = torch.randn(3, 4).cuda()
        torch.testing.assert_close(f(x), eager(x))
        torch.testing.assert_close(ours.seen, eager.seen)
    assert replays.count == 4


@pytest.mark.parametrize("dynamic", [False, True])
def test_views_of_arguments_are_not_of_copies(replays: Replays, dynamic: bool) -> None:
    f = replayed(lambda x: (x[x.shape[0] // 2 :], x * 2), dynamic)
    for start in (3, 2, 3, 2, 3, 2):
        x = torch.randn(9, 4).cuda()[start : start + 4]
        view, doubled = f(x)
        assert view.data_ptr() == x[2:].data_ptr()
        torch.testing.assert_close((view, doubled), (x[2:], x * 2))
    assert replays.count


def test_threads_that_replay(replays: Replays) -> None:
    f, found = replayed(lambda x: x.exp().sum(-1)), {}
    xs = [torch.randn(300, 50).cuda() for _ in range(2)]

    def run(k: int) -> None:
        found[k] = [f(xs[k]).clone() for _ in range(4)]

    for k, x in enumerate(xs):
        thread = threading.Thread(target=run, args=(k,))
        thread.start()
        thread.join()
        torch.testing.assert_close(found[k], [x.exp().sum(-1)] * 4)
