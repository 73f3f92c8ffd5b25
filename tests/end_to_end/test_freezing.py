"""Frozen weights: packed once, and anew whenever torch can tell that they changed."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import fusec
from fusec.counters import statistics
from fusec.logs import forget_warnings
from fusec.runtime.launcher_keeping import Keeping, forget_what_is_gone


class Block(nn.Module):
    """Products of all kinds: with a bias, gated, of a weight that is computed."""

    def __init__(self, width: int = 48, hidden: int = 96) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.rand(width, 1) + 0.5)
        self.register_buffer("mask", torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        y = F.silu(self.gate(y)) * self.up(y)
        weight = self.down.weight
        weight = weight * self.scale / weight.norm(dim=1, keepdim=True)
        return x + F.linear(y, weight, self.down.bias) * self.mask.exp()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Keeping]:
    """The programs that made what they keep, once for each time."""
    times: list[Keeping] = []
    tensors = Keeping._made

    def watched(self: Keeping, *arguments: Any) -> tuple[Any, ...]:
        times.append(self)
        return tensors(self, *arguments)

    monkeypatch.setattr(Keeping, "_made", watched)
    return times


def frozen(model: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    torch.compiler.reset()
    chosen = {"freeze": True, "fallback": False, **options}
    return torch.compile(model, backend="fusec", options=chosen)


def agree(ours: Callable[..., Any], model: Callable[..., Any], *shape: int) -> None:
    """The same as eager torch, as near as rounding lets it be: of old weights no
    result would be."""
    with torch.no_grad():
        dtype = next(iter(getattr(model, "parameters", list)()), torch.rand(1)).dtype
        x = torch.randn(shape).to(dtype)
        got, wanted = ours(x), model(x)
    assert got.shape == wanted.shape
    assert got.dtype is wanted.dtype
    near = torch.finfo(dtype).eps ** 0.6
    largest = wanted.abs().amax() if wanted.numel() else 0.0
    assert ((got - wanted).abs() <= near * largest).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_are_packed_once(made: list[Keeping], dtype: torch.dtype) -> None:
    model = Block().to(dtype)
    before = statistics().kept_bytes
    ours = frozen(model, cache=False)
    for _ in range(3):
        agree(ours, model, 20, 48)
    assert len(made) == 1
    kept = statistics().kept_bytes - before
    weights = [*model.parameters(), *model.buffers()]
    assert 0 < kept <= 2 * sum(w.numel() * w.itemsize for w in weights)


@pytest.mark.parametrize("rows", [1, 2, 7, 64, 0])
def test_any_number_of_rows(rows: int) -> None:
    model = Block()
    agree(frozen(model), model, rows, 48)


def test_sizes_that_vary(made: list[Keeping]) -> None:
    model = Block()
    ours = frozen(model)
    for rows in (5, 9, 40, 13):
        agree(ours, model, rows, 48)
    assert len({*made}) == len(made) == 2


@pytest.mark.parametrize("width", [33, 40, 1, 1000])
def test_columns_that_are_not_whole_registers(width: int) -> None:
    model = nn.Sequential(nn.Linear(64, width), nn.GELU(), nn.Linear(width, 64))
    agree(frozen(model), model, 12, 64)


def test_integers() -> None:
    weight = nn.Parameter(torch.randint(-128, 128, (64, 48), dtype=torch.int8), False)

    def product(x: Tensor) -> Tensor:
        return torch._int_mm(x, weight.t())

    x = torch.randint(-128, 128, (32, 48), dtype=torch.int8)
    ours = frozen(product)
    for _ in range(2):
        assert torch.equal(ours(x), product(x))
    with torch.no_grad():
        weight.add_(1)
    assert torch.equal(ours(x), product(x))


def add(model: Block) -> None:
    with torch.no_grad():
        model.up.weight.add_(1)


def load(model: Block) -> None:
    model.load_state_dict({k: v * 2 for k, v in model.state_dict().items()})


def assign(model: Block) -> None:
    model.up.weight.data = model.up.weight.data * 3


def replace(model: Block) -> None:
    model.gate.weight = nn.Parameter(model.gate.weight.detach() * 2)


def assign_state(model: Block) -> None:
    state = {k: v * 2 for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def step(model: Block) -> None:
    model(torch.randn(5, 48)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()


def compiled_update(model: Block) -> None:
    @torch.compile(backend="fusec", options={"fallback": False})
    def update(weight: Tensor) -> None:
        weight.mul_(2)

    with torch.no_grad():
        update(model.up.weight)


def update_inside(model: Block) -> None:
    @torch.compile(backend="fusec", options={"fallback": False})
    def update(weight: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            weight.mul_(2)
        return x * 2

    update(model.up.weight, torch.rand(4, requires_grad=True))


def part(model: Block) -> None:
    with torch.no_grad():
        model.down.weight[3, 4] = 7.0


def through_a_view(model: Block) -> None:
    with torch.no_grad():
        model.down.weight.view(-1)[5:9].fill_(2.0)


def buffer(model: Block) -> None:
    model.mask.mul_(2)


def told(model: Block) -> None:
    model.up.weight.data[7, 5] += 100
    fusec.weights_changed()


def through_data(model: Block) -> None:
    model.up.weight.data.mul_(2)


def fused_optimizer(model: Block) -> None:
    model(torch.randn(5, 48)).sum().backward()
    torch.optim.AdamW(model.parameters(), lr=0.1, fused=True).step()


def swap(model: Block) -> None:
    other = nn.Parameter(torch.randn_like(model.gate.weight))
    torch.utils.swap_tensors(model.gate.weight, other)


CHANGES = (
    through_data, fused_optimizer, swap, add, load, assign, replace, assign_state,
    step, compiled_update, update_inside,
    part, through_a_view, buffer, told,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_nothing_is_stale(change: Callable[[Block], None]) -> None:
    model = Block()
    ours = frozen(model)
    for _ in range(3):
        agree(ours, model, 16, 48)
        change(model)
        agree(ours, model, 16, 48)


def test_memory_that_is_used_again_is_not_taken_for_the_old_one() -> None:
    model = nn.Linear(64, 64, bias=False)
    ours = frozen(model)
    for k in range(20):
        model.weight.data = torch.full((64, 64), float(k))
        agree(ours, model, 16, 64)


def test_one_graph_for_several_sets_of_weights(made: list[Keeping]) -> None:
    model = nn.Linear(48, 96)
    sets = [
        {k: torch.randn_like(v) for k, v in model.state_dict().items()} for _ in "ab"
    ]

    def call(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, weights, (x,))

    ours = frozen(call)
    with torch.no_grad():
        for weights in [*sets, *sets]:
            x = torch.randn(16, 48)
            torch.testing.assert_close(ours(weights, x), call(weights, x))
    assert not made  # what a call is given is not frozen


def test_modules_that_share_code_do_not_share_weights(made: list[Keeping]) -> None:
    models = [Block() for _ in range(3)]
    torch.compiler.reset()
    options = {"freeze": True}
    ours = [torch.compile(m, backend="fusec", options=options) for m in models]
    for _ in range(2):
        for f, model in zip(ours, models, strict=True):
            agree(f, model, 16, 48)
    assert len(made) == 3
    programs = {*made}
    del ours, models, f, model
    gc.collect()
    forget_what_is_gone()
    assert not any(program._kept for program in programs)


def test_results_are_the_callers() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.rand(6, 6))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return x @ self.w, self.w.exp(), self.w.sum(dim=1).view(2, 3)

    model = Scaled()
    ours = frozen(model)
    with torch.no_grad():
        for _ in range(3):
            x = torch.rand(4, 6)
            got = ours(x)
            for mine, theirs in zip(got, model(x), strict=True):
                torch.testing.assert_close(mine, theirs)
                mine.zero_()


def test_a_buffer_that_the_graph_writes_to_is_not_frozen() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(32, 32)
            self.register_buffer("seen", torch.zeros(32, 32))

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(1)
            return self.lin(x) @ self.seen.exp()

    model = Counting()
    ours = frozen(copy.deepcopy(model))
    for _ in range(3):
        agree(ours, model, 8, 32)


def test_training_is_not_frozen(made: list[Keeping]) -> None:
    model = Block()
    ours, x = frozen(model), torch.randn(8, 48)
    for _ in range(2):
        for f in (ours, model):
            model.zero_grad()
            f(x).square().sum().backward()
            gradients = [p.grad for p in model.parameters()]
            if f is ours:
                found = [g.clone() for g in gradients if g is not None]
        for g, h in zip(found, gradients, strict=True):
            torch.testing.assert_close(g, h)
    assert not made


def test_weights_made_in_inference_mode(
    made: list[Keeping], caplog: pytest.LogCaptureFixture
) -> None:
    forget_warnings()
    with torch.inference_mode():
        model = nn.Linear(48, 96)
        ours = frozen(model)
        for k in range(3):
            x = torch.randn(16, 48)
            torch.testing.assert_close(ours(x), model(x))
            model.weight.fill_(float(k))
            torch.testing.assert_close(ours(x), model(x))
    assert not made
    assert sum("inference mode" in record.message for record in caplog.records) == 1


def test_statistics_of_eager_batch_norm_are_seen() -> None:
    """torch does not count what its kernel writes."""
    model = nn.Sequential(nn.BatchNorm1d(512), nn.Linear(512, 64)).eval()
    ours = frozen(model)
    for _ in range(3):
        agree(ours, model, 16, 512)
        model.train()
        model(torch.randn(16, 512) * 5 + 3)
        model.eval()
        agree(ours, model, 16, 512)


def test_a_model_that_is_gone_takes_its_weights_along() -> None:
    model = nn.Linear(64, 64)
    ours = frozen(model)
    agree(ours, model, 16, 64)
    weight = weakref.ref(model.weight)
    del model, ours
    torch.compiler.reset()
    gc.collect()
    assert weight() is None


def test_threads_that_call_while_weights_change() -> None:
    """Each call is with the weights of before or of after, none older than those that
    it began with."""
    model = nn.Linear(64, 64, bias=False)
    ours, x = frozen(model), torch.eye(64)[:16]
    rows = torch.arange(64.0)
    model.weight.data = rows.repeat(64, 1).t().contiguous()
    agree(ours, model, 16, 64)
    latest = [0]

    def call() -> None:
        with torch.no_grad():
            for _ in range(50):
                least = latest[0]
                y = ours(x)
                assert y[0, 0] >= least
                assert (y - rows == y[0, 0]).all()

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(call) for _ in range(3)]
        for k in range(20):
            model.weight.data = (rows + k).repeat(64, 1).t().contiguous()
            latest[0] = k
        for each in calls:
            each.result()
    agree(ours, model, 16, 64)


def test_every_stage_agrees() -> None:
    model = Block()
    ours = frozen(model, verify=True)
    for _ in range(2):
        agree(ours, model, 16, 48)


def test_explain_tells_what_is_kept() -> None:
    weight = nn.Parameter(torch.randn(96, 48))

    @fusec.jit(freeze=True)
    def product(x: Tensor) -> Tensor:
        return F.gelu(x @ weight.t())

    with torch.no_grad():
        text = product.explain(torch.randn(32, 48))
        assert "18.0 KiB kept of frozen parameters" in text
        ir = product.ir("frozen", torch.randn(32, 48))
        assert "loop @inference_kept" in ir
        assert "host @inference_kept" in product.ir("host", torch.randn(32, 48))
