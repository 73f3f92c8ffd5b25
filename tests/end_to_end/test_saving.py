"""Compiled modules that are copied, saved and loaded, in this process or another."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from end_to_end.conftest import Comparison
from torch import nn

X = torch.randn(5, 8)


class Model(nn.Module):
    """Weights, and a buffer that each call writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add_(1)
        return self.norm(self.linear(x)).sigmoid() * x


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEC_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()


def through_a_file(thing: Any) -> Any:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="fusec")


def test_the_state_of_a_compiled_module_is_the_modules() -> None:
    """Weights go from a compiled module into a fresh one, and back."""
    first, second = Model(), Model()
    run = compiled(first)
    run(X)
    state = through_a_file(run.state_dict())
    second.load_state_dict({k.removeprefix("_orig_mod."): v for k, v in state.items()})
    torch.testing.assert_close(compiled(second)(X), first(X))
    other = compiled(Model())
    other.load_state_dict(state)
    torch.testing.assert_close(other(X), first(X))


def test_weights_that_are_loaded_later_are_used(
    compare: Callable[..., Comparison],
) -> None:
    """Nothing of the weights was compiled in."""
    run = compare(Model())
    run(X)
    count = run.compilations
    for each in (run.mine, run.theirs):
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in each.parameters():
                weight.copy_(torch.randn_like(weight))
    run(X)
    assert run.compilations == count


@pytest.mark.parametrize("copied", [copy.deepcopy, through_a_file])
def test_a_compiled_module_as_a_whole(copied: Callable[[Any], Any]) -> None:
    model = Model()
    run = compiled(model)
    run(X)
    other = copied(run)
    with torch.no_grad():
        model.linear.weight.zero_()
    wanted = model(X)
    assert not torch.allclose(other(X), wanted)
    torch.testing.assert_close(run(X), wanted)


def test_a_module_that_compiles_itself_in_place() -> None:
    """`module.compile()` changes the module, and what is saved is the module."""
    model = Model()
    model.compile(backend="fusec")
    first = model(X)
    other = through_a_file(model)
    assert type(other) is Model
    torch.testing.assert_close(other(X), first)


def test_training_goes_on_from_a_checkpoint() -> None:
    def steps(model: nn.Module, run: Any, count: int, state: Any = None) -> Any:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(count):
            optimizer.zero_grad()
            run(X).square().mean().backward()
            optimizer.step()
        return optimizer.state_dict()

    torch.manual_seed(0)
    whole = Model()
    halves = copy.deepcopy(whole)
    steps(whole, whole, 4)
    state = steps(halves, compiled(halves), 2)
    saved, state = through_a_file((halves.state_dict(), state))
    resumed = Model()
    resumed.load_state_dict(saved)
    steps(resumed, compiled(resumed), 2, state)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict())


def test_a_compiled_optimizer_step() -> None:
    weights = [[torch.ones(4, 3), torch.ones(5)] for _ in range(2)]
    for k, params in enumerate(weights):
        leaves = [p.requires_grad_() for p in params]
        optimizer = torch.optim.AdamW(leaves, lr=0.1, foreach=True)
        step = torch.compile(optimizer.step, backend="fusec") if k else optimizer.step
        for scale in (1.0, 0.5, 2.0):
            for p in leaves:
                p.grad = p.detach() * scale
            step()
    torch.testing.assert_close(*weights)
