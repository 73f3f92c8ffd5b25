"""CUDA graphs of programs, on a device that is emulated: what a call does is captured,
all of it, and nothing that a replay would not do again.

What is torch's own in this, its trees of graphs and CUDA itself, only a GPU shows: see
`test_cuda.py`.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn
from torch._inductor import cudagraph_trees
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

import fusec
from fusec.compiler import compile_graph
from fusec.frontend import capturable
from fusec.frontend.aten_graph import compile_aten_graph
from fusec.frontend.capture import compile_dynamo_graph
from fusec.frontend.cudagraphs import Passes
from fusec.frontend.torch_private import cuda_graphs
from fusec.logs import forget_warnings
from fusec.options import Options

pytest.importorskip("triton")
import emulated_device
from emulated import EmulatedDriver, emulated
from emulated_graphs import Graphs, graphs_of

pytestmark = pytest.mark.skipif(
    not emulated_device.is_wanted(), reason="it takes g++ and ninja, and no GPU"
)
HERE = f"{emulated_device.NAME}:0"
THERE = f"{emulated_device.NAME}:1"


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[EmulatedDriver]:
    torch._dynamo.reset()
    forget_warnings()
    torch.manual_seed(0)
    with emulated(tmp_path) as driver:
        yield driver
    torch._dynamo.reset()


@pytest.fixture
def graphs(driver: EmulatedDriver) -> Iterator[Graphs]:
    with graphs_of(driver) as graphs:
        yield graphs


def compiled(f: Any, dynamic: bool | None = None, **options: Any) -> Any:
    given = {"cache": False, "cudagraphs": True, **options}
    return torch.compile(f, backend=fusec.backend, options=given, dynamic=dynamic)


def same(f: Callable[..., Any], *calls: tuple[Any, ...], **options: Any) -> None:
    """Each call of the compiled function gives what torch gives."""
    g = compiled(f, **options)
    for args in calls:
        torch.testing.assert_close(g(*args), f(*args))


def randn(*shape: int) -> Tensor:
    return torch.randn(shape).to(HERE)


def counts(graphs: Graphs) -> tuple[int, int, int, int]:
    return graphs.plain, graphs.warm, graphs.captures, graphs.replays


@pytest.mark.parametrize("native", [False, True])
def test_inference(
    graphs: Graphs, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if native:  # else programs see that the capture watches torch
        for name in ("launcher_steps", "launcher_torch"):
            monkeypatch.setattr(f"fusec.runtime.{name}.is_watched", lambda: False)
    w = randn(50)
    same(
        lambda x: ((x * w).softmax(-1).cumsum(0), x.exp().sum(0).cumsum(0)),
        *((randn(7, 50),) for _ in range(4)),
    )
    assert counts(graphs) == (0, 1, 1, 2)
    assert graphs.modes == ["inference"]


def test_the_mode(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEC_CACHE", "0")
    f = lambda x: F.silu(x).sum(-1)  # noqa: E731
    g = torch.compile(f, backend="fusec", mode="reduce-overhead")
    for x in (randn(3, 40), randn(3, 40), randn(3, 40)):
        torch.testing.assert_close(g(x), f(x))
    assert counts(graphs) == (0, 1, 1, 1)


def test_without_it_nothing_is_captured(graphs: Graphs) -> None:
    same(lambda x: x.exp(), (randn(3, 4),), (randn(3, 4),), cudagraphs=False)
    assert counts(graphs) == (0, 0, 0, 0)


def test_jit(graphs: Graphs) -> None:
    f = fusec.jit(lambda x: x.softmax(-1), cudagraphs=True, cache=False)
    for x in (randn(3, 40), randn(3, 40), randn(3, 40)):
        torch.testing.assert_close(f(x), x.softmax(-1))
    assert counts(graphs) == (0, 1, 1, 1)
    assert "kernel" in f.explain(randn(3, 40))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(20, 33)
        self.norm = nn.BatchNorm1d(33)
        self.last = nn.Linear(33, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.gelu(self.norm(self.first(x))))


def trained(call: Any, model: nn.Module, device: str) -> list[Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    torch.manual_seed(1)
    for _ in range(4):
        optimizer.zero_grad()
        call(torch.randn(6, 20).to(device)).square().mean().backward()
        optimizer.step()
    return [x.detach().cpu() for x in model.state_dict().values()]


def test_training(graphs: Graphs) -> None:
    """Parameters are read where they lie, and so is what the forward pass saved; the
    statistics of a norm are overwritten where they lie."""
    eager, ours = Net(), Net().to(HERE)
    ours.load_state_dict(eager.state_dict())
    wanted = trained(eager, eager, "cpu")
    torch.testing.assert_close(trained(compiled(ours), ours, HERE), wanted)
    assert graphs.modes == ["forward", "backward"]
    assert counts(graphs) == (0, 2, 2, 4)


def test_parameters_that_move_are_captured_anew(graphs: Graphs) -> None:
    model = nn.Linear(9, 5).to(HERE)
    f, x = compiled(model), randn(4, 9)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(f(x), model(x))
        model.weight.data = randn(5, 9)
        torch.testing.assert_close(f(x), model(x))
        model.weight.mul_(2)
        torch.testing.assert_close(f(x), model(x))
    assert counts(graphs) == (0, 1, 2, 2)


def test_buffers_that_are_overwritten(graphs: Graphs) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(x.sum(0))
            return x + self.seen

    eager, ours = Counts().to(HERE), Counts().to(HERE)
    f = compiled(ours)
    for _ in range(4):
        x = randn(3, 4)
        torch.testing.assert_close(f(x), eager(x))
        torch.testing.assert_close(ours.seen, eager.seen)
    assert counts(graphs) == (0, 1, 1, 2)


def test_arguments_that_are_overwritten_are_not_copies(graphs: Graphs) -> None:
    def f(x: Tensor, y: Tensor) -> Tensor:
        y.add_(x)
        return (x * y).sum(-1)

    ours, eager, g = randn(3, 4), randn(3, 4), compiled(f)
    ours.copy_(eager)
    for _ in range(3):
        x = randn(3, 4)
        torch.testing.assert_close(g(x, ours), f(x, eager))
        torch.testing.assert_close(ours, eager)
    assert counts(graphs) == (3, 0, 0, 0)


def test_a_cache_that_is_marked_is_captured(graphs: Graphs) -> None:
    def f(x: Tensor, cache: Tensor, at: Tensor) -> Tensor:
        cache.index_copy_(0, at, x)
        return cache.sum(0)

    ours, eager, g = randn(8, 4), randn(8, 4), compiled(f)
    ours.copy_(eager)
    torch._dynamo.mark_static_address(ours)
    for k in range(4):
        x, at = randn(1, 4), torch.tensor([k]).to(HERE)
        torch.testing.assert_close(g(x, ours, at), f(x, eager, at))
        torch.testing.assert_close(ours, eager)
    assert counts(graphs) == (0, 1, 1, 2)


@pytest.mark.parametrize("when", ["warm", "captured", "replayed"])
def test_an_index_out_of_range_raises_in_the_next_call(
    graphs: Graphs, when: str
) -> None:
    f = compiled(lambda x, i: x.gather(1, i) + 1)
    x, good = randn(4, 6), torch.randint(0, 6, (4, 3)).to(HERE)
    for _ in range(["warm", "captured", "replayed"].index(when)):
        f(x, good)
    f(x, good + 6)
    before = counts(graphs)
    with pytest.raises(IndexError, match="in an earlier call"):
        f(x, good)
    assert counts(graphs) == before
    for _ in range(3):
        torch.testing.assert_close(f(x, good), x.gather(1, good) + 1)


def test_where_launches_block_each_call_raises_its_own(
    graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    f = compiled(lambda x, i: x.gather(1, i) + 1)
    x, good = randn(4, 6), torch.randint(0, 6, (4, 3)).to(HERE)
    for _ in range(3):
        torch.testing.assert_close(f(x, good), x.gather(1, good) + 1)
    with pytest.raises(IndexError, match=r"out of [^,]*$"):
        f(x, good + 6)
    torch.testing.assert_close(f(x, good), x.gather(1, good) + 1)
    assert counts(graphs) == (0, 1, 1, 3)


def test_random_numbers_are_drawn_anew(graphs: Graphs) -> None:
    f = lambda x: F.dropout(x, 0.5) * 2 + torch.rand_like(x)  # noqa: E731
    g, x = compiled(f), randn(30, 30)
    found: list[Tensor] = []
    for call in (f, g):
        torch.manual_seed(3)
        found += [call(x).cpu() for _ in range(4)]
    torch.testing.assert_close(found[4:], found[:4])
    assert not torch.equal(found[6], found[7])
    assert counts(graphs) == (0, 1, 1, 2)


def test_sizes_that_vary_are_captured_one_by_one(graphs: Graphs) -> None:
    f = lambda x: (F.silu(x).sum(-1), x.shape[0] * 2)  # noqa: E731
    shapes = [(3, 40), (9, 13), (3, 40), (9, 13), (3, 40)]
    same(f, *((randn(*shape),) for shape in shapes), dynamic=True)
    assert counts(graphs) == (0, 2, 2, 1)


def test_torch_s_setting_to_capture_no_sizes_that_vary(
    graphs: Graphs, caplog: pytest.LogCaptureFixture
) -> None:
    with torch._inductor.config.patch({"triton.cudagraph_skip_dynamic_graphs": True}):
        same(lambda x: x.exp(), (randn(3, 4),), dynamic=True)
    assert "cudagraph_skip_dynamic_graphs is set" in caplog.text
    assert counts(graphs) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("dynamic", "counted"),
    [(False, (0, 1, 1, 4)), (True, (0, 2, 2, 2))],  # where it begins is a size, too
)
def test_results_in_the_memory_of_arguments(
    graphs: Graphs, dynamic: bool, counted: Any
) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x[1:], x * 2, y, y.t()[2:], (x + y)[1:], x[x.shape[0] // 2 :]

    g = compiled(f, dynamic=dynamic)
    for start in (3, 2, 3, 2, 3, 2):  # where in its memory an argument begins
        x, y = randn(9, 4)[start : start + 4], randn(4, 4)
        got = g(x, y)
        torch.testing.assert_close(got, f(x, y))
        assert got[0].data_ptr() == x[1:].data_ptr()
        assert got[2] is y
        assert got[5].data_ptr() == x[2:].data_ptr()
        got[3].fill_(0)
        assert not y[:, 2:].any()
    assert counts(graphs) == counted


def test_results_in_the_memory_of_arguments_in_training(graphs: Graphs) -> None:
    w = randn(4).requires_grad_()

    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[1:], (x.sin() * w).exp()

    g = compiled(f)
    for start in (3, 0, 5, 1):
        base = randn(9, 4)
        x = base[start : start + 4]
        view, y = g(x)
        assert view.data_ptr() == x[1:].data_ptr()
        (got,) = torch.autograd.grad(y.sum(), w)
        (wanted,) = torch.autograd.grad(f(x)[1].sum(), w)
        torch.testing.assert_close(got, wanted)
    assert graphs.modes == ["forward", "backward"]
    assert counts(graphs) == (0, 2, 2, 4)


def test_gradients_of_any_form(graphs: Graphs) -> None:
    w = randn(4, 6).requires_grad_()
    f = compiled(lambda x: x * w + w)
    gradients = [randn(4, 6), randn(6, 4).t(), randn(1, 1).expand(4, 6), randn(4, 6)]
    for gradient in gradients:
        x = randn(4, 6)
        (got,) = torch.autograd.grad(f(x), w, gradient)
        torch.testing.assert_close(got, gradient * x + gradient)
    assert counts(graphs)[0] == 0
    assert graphs.replays >= 2


def test_numbers_that_the_graph_knows_are_no_tensors_of_the_cpu(
    graphs: Graphs,
) -> None:
    same(lambda x: x * torch.tensor(3.0) + 1, *((randn(4, 9),) for _ in range(3)))
    assert counts(graphs) == (0, 1, 1, 1)


def test_a_capture_by_the_user_has_the_launches(
    driver: EmulatedDriver, graphs: Graphs
) -> None:
    f, x = compiled(lambda x: x.exp().sum(-1)), randn(4, 9)
    f(x)
    driver.tape = tape = []
    got = f(x)
    driver.tape = None
    assert tape
    x.fill_(1)
    for launch in tape:
        launch()
    torch.testing.assert_close(got, x.exp().sum(-1))
    assert counts(graphs) == (0, 1, 0, 0)


def test_each_thread_has_graphs_of_its_own(graphs: Graphs) -> None:
    f, found = compiled(lambda x: x.exp().sum(-1)), {}
    xs = [[randn(4, 9) for _ in range(3)] for _ in range(2)]

    def run(k: int) -> None:
        found[k] = [f(x).clone() for x in xs[k]]

    for k in range(2):
        thread = threading.Thread(target=run, args=(k,))
        thread.start()
        thread.join()
        torch.testing.assert_close(found[k], [x.exp().sum(-1) for x in xs[k]])
    assert counts(graphs) == (0, 2, 2, 2)


def test_a_thread_that_torch_gives_no_graphs(
    graphs: Graphs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_container(device: int) -> Any:
        raise AssertionError

    monkeypatch.setattr(cudagraph_trees, "get_container", get_container)
    monkeypatch.setattr(
        cudagraph_trees, "reset_cudagraph_trees", lambda: get_container(0)
    )
    same(lambda x: x.exp(), (randn(3, 4),), (randn(3, 4),))
    assert counts(graphs) == (0, 0, 0, 0)
    assert caplog.text.count("in a thread that torch did not start") == 1
    torch.compiler.reset()


def test_what_torch_s_cache_revives_is_captured(graphs: Graphs) -> None:
    options = Options(cudagraphs=True, cache=False)

    def backend(gm: Any, examples: Any) -> Any:
        passes = Passes()

        def revived(gm: Any, examples: Any, role: str) -> Any:
            call: Any = compile_aten_graph(
                gm,
                examples,
                role,
                compile=partial(compile_graph, options=options),
                options=options,
                passes=passes,
            )
            graph = pickle.loads(pickle.dumps(call.__wrapped__))
            graph.post_compile()
            return graph

        return compile_dynamo_graph(gm, examples, revived)

    w = randn(4).requires_grad_()
    f = lambda x: (x[1:], (x * w).exp())  # noqa: E731
    g = torch.compile(f, backend=backend)
    for _ in range(3):
        x = randn(5, 4)
        torch.testing.assert_close(g(x), f(x))
        (got,) = torch.autograd.grad(g(x)[1].sum(), w)
        torch.testing.assert_close(got, (x * (x * w).exp()).sum(0))
    assert graphs.modes == ["forward", "backward"]
    assert counts(graphs) == (0, 2, 2, 5)


def elsewhere(x: Tensor) -> Any:
    return x.exp().sum(-1) * torch.tensor([2.0], device=THERE).to(HERE)


def scaled(x: Tensor, s: Tensor) -> Tensor:
    return (x * s).exp()


S = torch.tensor(2.5)


@pytest.mark.parametrize(
    ("f", "others", "options", "why"),
    [
        (scaled, (S,), {}, "a tensor of it is on cpu"),
        (lambda x: (x.exp(), x.sum().cpu()), (), {}, "a tensor of it is on cpu"),
        (elsewhere, (), {}, f"a tensor of it is on {THERE}"),
        (lambda x: x[x > 0].exp(), (), {}, "torch says that it cannot be captured"),
        (lambda x: x.exp(), (), {"verify": True}, "verify=True"),
        (
            lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,)).exp(),
            (),
            {},
            "what it does only its call finds out",
        ),
        (lambda x: (x[1:], x.t()), (), {}, "it launches nothing"),
        (lambda x: x.exp() * x.argmax().item(), (), {}, "it waits for the GPU"),
    ],
)
def test_what_cannot_be_captured_runs_and_says_why(
    graphs: Graphs,
    caplog: pytest.LogCaptureFixture,
    f: Any,
    others: tuple[Any, ...],
    options: Any,
    why: str,
) -> None:
    calls = [(randn(4, 9), *others) for _ in range(3)]
    names = "capture_scalar_outputs", "capture_dynamic_output_shape_ops"
    with torch._dynamo.config.patch(dict.fromkeys(names, True)):
        same(f, *calls, **options)
    told = [m for m in caplog.messages if "is not captured as a CUDA graph" in m]
    assert len(told) == 1
    assert why in told[0]
    assert counts(graphs) == (0, 0, 0, 0)


def test_ops_that_wait_without_torch_saying_so() -> None:
    gm = make_fx(torch.linalg.inv)(torch.eye(3))
    graphs = cuda_graphs()
    assert graphs is not None
    found = [thing.reason for thing in capturable._calls(gm, graphs)]
    assert found == ["it waits for the GPU"]


def test_a_backward_pass_that_cannot_be_captured_is_told_of(
    graphs: Graphs, caplog: pytest.LogCaptureFixture
) -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            return g * g.cpu().sum().to(HERE)

    manager = Mock()
    cudagraph_trees.get_container(0).tree_manager = manager
    w = randn(4, 6).requires_grad_()
    f = compiled(lambda x: Doubled.apply((x * w).exp()))
    for _ in range(3):
        x = randn(4, 6)
        (got,) = torch.autograd.grad(f(x).sum(), w)
        torch.testing.assert_close(got, 24 * x * (x * w).exp())
    assert graphs.modes == ["forward"]
    assert counts(graphs) == (0, 1, 1, 1)
    assert "this backward graph is not captured" in caplog.text
    assert manager.set_to_running_backward.call_count == 3


def test_where_the_forward_pass_is_not_captured_none_is(
    graphs: Graphs, caplog: pytest.LogCaptureFixture
) -> None:
    w = randn(4, 6).requires_grad_()

    def f(x: Tensor, s: Tensor) -> Tensor:
        return (x * s * w).exp()

    g, x = compiled(f), randn(4, 6)
    for _ in range(3):
        (got,) = torch.autograd.grad(g(x, S).sum(), w)
        (wanted,) = torch.autograd.grad(f(x, S).sum(), w)
        torch.testing.assert_close(got, wanted)
    assert caplog.text.count("is not captured as a CUDA graph") == 1
    assert counts(graphs) == (0, 0, 0, 0)


@pytest.mark.parametrize("tuned", [False, True])
def test_on_the_cpu_it_changes_nothing_and_says_so(
    graphs: Graphs, caplog: pytest.LogCaptureFixture, tuned: bool
) -> None:
    x = torch.randn(4, 9)
    same(lambda x: x.exp(), (x,), (x,), tune=tuned, tune_seconds=0)
    told = [m for m in caplog.messages if "changes nothing for a graph on cpu" in m]
    assert len(told) == (not tuned)
    assert counts(graphs) == (0, 0, 0, 0)


def test_another_torch_captures_nothing(
    graphs: Graphs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = cudagraph_trees
    monkeypatch.setattr(trees, "cudagraphify", lambda model, inputs: None)
    same(lambda x: x.exp(), (randn(3, 4),), (randn(3, 4),))
    monkeypatch.delattr(trees, "get_container")
    same(lambda x: x.sin(), (randn(3, 4),), (randn(3, 4),))
    assert caplog.text.count("in a way that fusec does not know") == 1
