"""What becomes of whole graphs: outputs, mutation, sizes, calls to torch, models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fusec.errors import UnsupportedError
from fusec.frontend.outputs import Argument
from fusec.ir.dims import Symbol
from fusec.ir.ops.contraction import Matmul
from fusec.ir.ops.extern import Extern


def test_outputs_keep_their_places(capture: Any) -> None:
    x = torch.randn(3)

    def f(x: Any) -> Any:
        y = x + 1
        return y, None, y * 2, 7, y

    captured = capture(f, x)
    y, none, double, seven, again = captured.result
    assert none is None
    assert seven == 7
    assert again is y
    torch.testing.assert_close(double, y * 2)


def test_equal_results_do_not_share_memory(capture: Any) -> None:
    x = torch.randn(3)
    a, b, c = capture(lambda x: (x.clone(), x + 1, x + 1), x).result
    b.zero_()
    a.zero_()
    torch.testing.assert_close(c, x + 1)


def test_saved_inputs_are_passed_through(capture: Any) -> None:
    x = torch.randn(3, requires_grad=True)
    captured = capture(lambda x: (x * x).sum(), x)
    outputs = captured.graphs[0].outputs
    assert Argument(0) in outputs
    captured.result.backward()
    torch.testing.assert_close(x.grad, 2 * x)


def test_updated_inputs_are_returned_into(check: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        x.mul_(2).add_(y)
        y[1:].zero_()
        return x.sum(), x

    captured = check(f, torch.randn(3, 4), torch.randn(4))
    assert {*captured.function.returns_into} == {None, 0, 1}


def test_aliases_of_inputs_and_of_results(check: Any) -> None:
    def f(x: Any) -> Any:
        y = x + 1
        return x.t(), y, y.view(-1), y[1:], x

    check(f, torch.randn(3, 4))


def test_results_have_the_traced_strides(check: Any) -> None:
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    check(lambda x: (x.relu(), x.permute(1, 0, 3, 2) * 2, (x + 1).expand_as(x)), x)
    check(lambda x: (x[:1] * 2).expand(4, -1, -1, -1) @ x.transpose(2, 3)[:1], x)


def test_source_lines(capture: Any) -> None:
    captured = capture(lambda x: torch.exp(x) * 2, torch.randn(3))
    (op, *_) = (op for op in captured.function.body.ops if op.name == "exp")
    assert Path(op.loc.file) == Path(__file__)
    assert "torch.exp(x)" in op.loc.text


def test_dead_ops_are_dropped(capture: Any) -> None:
    captured = capture(lambda x: torch.max(x, 1).indices * 0 + x.argmax(1), x_2d())
    assert "restride" not in captured.ops()
    assert captured.ops().count("reduce_dims") == 1


def x_2d() -> torch.Tensor:
    return torch.randn(4, 6)


# ------------------------------------------------------------------------- sizes


def test_dynamic_shapes(check: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        z = torch.cat([x, y], 0).view(-1, 1, x.shape[1])
        scaled = z / x.shape[1] + z.mean(0) * y.shape[0]
        return scaled.softmax(-1), x.shape[0] * 2, x[1:], F.pad(y, (1, 1))

    captured = check(f, torch.randn(5, 8), torch.randn(3, 8), dynamic=True)
    (graph,) = captured.graphs
    assert captured.fallbacks == set()
    assert sorted(graph.hints.values()) == [3, 5, 8]
    assert set(graph.hints) == set(graph.function.symbols)


def test_what_torch_assumed_becomes_facts(capture: Any) -> None:
    def f(x: Any) -> Any:
        return x * 2 if x.shape[0] % 4 == 0 else x

    x = torch.randn(8, 3)
    facts = capture(f, x, dynamic=True).function.facts
    rows = next(symbol for symbol, _, _ in facts.ranges if facts.divides(4, symbol))
    assert facts.range(rows) == (4, None)


def test_declared_limits_become_facts(capture: Any) -> None:
    x = torch.randn(8, 3)
    torch._dynamo.mark_dynamic(x, 0, min=4, max=64)
    ((_, low, high),) = capture(lambda x: x * 2, x).function.facts.ranges
    assert (low, high) == (4, 64)


def test_sizes_that_data_decides(check: Any) -> None:
    def f(x: Any) -> Any:
        n = x.sum().item()
        torch._check(n >= 0)
        torch._check(n <= 20)
        return torch.zeros(n) + 1, x * n

    torch._dynamo.config.capture_scalar_outputs = True
    try:
        check(f, torch.tensor([1, 2, 3]))
    finally:
        torch._dynamo.config.capture_scalar_outputs = False


def test_floats_from_sizes(check: Any) -> None:
    def f(x: Any) -> Any:
        return x * (x.shape[0] ** -0.5), x / (x.shape[1] / 3)

    check(f, torch.randn(5, 8), dynamic=True)


# --------------------------------------------------------------- calls to torch


def test_unknown_ops_are_called_and_listed(check: Any) -> None:
    captured = check(
        lambda x: x.sort(1).values + (x * 2).kthvalue(1, 1, True)[0], x_2d()
    )
    assert captured.fallbacks == {"aten.kthvalue.default", "aten.sort.default"}


def test_matrix_products_are_ops_of_ours_and_read_views(check: Any) -> None:
    x = x_2d()
    captured = check(lambda x: (x @ x.t()).relu() @ x, x)
    assert captured.fallbacks == set()
    products = [op for op in captured.function.body.ops if isinstance(op, Matmul)]
    assert [op.result.shape for op in products] == [(4, 4), (4, 6)]
    assert not any(isinstance(op, Extern) for op in captured.function.body.ops)


def test_control_flow_is_kept_as_a_callable(check: Any) -> None:
    def f(x: Any) -> Any:
        y = x.relu()
        return torch.cond(y.sum() > 0, lambda y: y.sin(), lambda y: y.cos(), (y,))

    captured = check(f, x_2d())
    (name,) = captured.graphs[0].callables
    assert name.startswith("cond")


def test_custom_ops(check: Any) -> None:
    @torch.library.custom_op("fusec_tests::twice", mutates_args=())
    def twice(x: torch.Tensor, factor: float) -> torch.Tensor:
        return x * factor

    @twice.register_fake
    def _(x: torch.Tensor, factor: float) -> torch.Tensor:
        return torch.empty_like(x)

    captured = check(lambda x: twice(x + 1, 2.5).exp(), x_2d())
    assert captured.fallbacks == {"fusec_tests.twice.default"}


def test_random_numbers_are_torchs(capture: Any) -> None:
    x = torch.ones(64)
    torch.manual_seed(3)
    expected = F.dropout(x * 2, 0.5)
    torch.manual_seed(3)
    torch.testing.assert_close(
        capture(lambda x: F.dropout(x * 2, 0.5), x).result, expected
    )


def test_no_fallback_refuses_and_lists(capture: Any) -> None:
    with pytest.raises(Exception, match=r"aten.sort.default: .*test_intake.py") as e:
        capture(lambda x: x.sort(1).values @ x.t(), x_2d(), fallback=False)
    assert isinstance(e.value.__cause__ or e.value.inner_exception, UnsupportedError)
    assert "aten.mm" not in str(e.value)


def test_complex_numbers_go_from_extern_to_extern(check: Any) -> None:
    captured = check(lambda x: torch.polar(x, x).abs() + 1, x_2d())
    assert captured.fallbacks == {"aten.polar.default", "aten.abs.default"}


# ---------------------------------------------------------------- whole models


class Attention(nn.Module):
    """Causal self-attention and an MLP, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.RMSNorm(width)])
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, width = x.shape
        heads = self.qkv(self.norms[0](x)).view(batch, time, 3, self.heads, -1)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mix(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6)), (4, 6)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0), (5, 3, 8)),
    "gpt": (lambda: Attention(8, 2), (2, 5, 8)),
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        (2, 3, 6, 6),
    ),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_training_steps(capture: Any, name: str, dynamic: bool) -> None:
    """Losses, gradients and buffers of two models with equal weights agree."""
    make, shape = MODELS[name]
    ours, theirs = make(), make()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape)
    loss = theirs(x).square().mean()
    loss.backward()
    captured = capture(ours, x, dynamic=dynamic)
    ours_loss = captured.result.square().mean()
    ours_loss.backward()
    torch.testing.assert_close(ours_loss, loss)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_autocast(check: Any) -> None:
    linear = nn.Linear(6, 4)

    def f(x: Any) -> Any:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return linear(x).relu().softmax(-1)

    check(f, x_2d())


def test_symbols_are_parameters(capture: Any) -> None:
    captured = capture(lambda x: x + x.shape[0], torch.randn(3, 4), dynamic=True)
    names = [p.hint for p in captured.function.params]
    assert {s.name for s in captured.function.symbols} <= set(names)
    assert all(isinstance(s, Symbol) for s in captured.function.symbols)
