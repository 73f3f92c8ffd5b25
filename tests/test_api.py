"""The doors, end to end: torch.compile and jit on real kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fusec
from fusec.errors import OptionError, UserError


def swiglu(x: Any, gate: Any) -> Any:
    return x * F.silu(gate)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEC_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()


def test_the_backend_compiles() -> None:
    x, gate = torch.randn(3, 40), torch.randn(40)
    compiled = torch.compile(swiglu, backend=fusec.backend, fullgraph=True)
    torch.testing.assert_close(compiled(x, gate), swiglu(x, gate))


def test_the_backend_takes_options_and_refuses_others() -> None:
    x = torch.randn(8)
    options = {"numerics": "fast", "cache": False}
    compiled = torch.compile(torch.exp, backend=fusec.backend, options=options)
    torch.testing.assert_close(compiled(x), x.exp())
    wrong = torch.compile(torch.exp, backend=fusec.backend, options={"numeric": 1})
    with pytest.raises(Exception, match="no option 'numeric'"):
        wrong(x)


def test_training_through_the_backend() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.GELU())
    x = torch.randn(4, 6)
    model(x).square().mean().backward()
    expected = [p.grad for p in model.parameters()]
    model.zero_grad()
    compiled = torch.compile(model, backend=fusec.backend)
    compiled(x).square().mean().backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], expected)


def test_jit_on_tensors_and_arrays() -> None:
    x, gate = torch.randn(3, 40), torch.randn(3, 40)
    jitted = fusec.jit(swiglu)
    assert jitted.__name__ == "swiglu"
    torch.testing.assert_close(jitted(x, gate), swiglu(x, gate))
    made = jitted(x.numpy(), gate=gate.numpy())
    assert isinstance(made, np.ndarray)
    np.testing.assert_allclose(made, swiglu(x, gate).numpy(), rtol=1e-5, atol=1e-6)


def test_jit_shows_what_it_runs() -> None:
    x, gate = torch.randn(3, 40), torch.randn(3, 40)
    jitted = fusec.jit(swiglu, numerics="fast")
    assert jitted.ir("graph", x, gate).startswith("graph @inference")
    assert jitted.ir("fused", x, gate).count("region") == 1
    assert "launch" in jitted.ir("host", x, gate)
    assert "define void @" in jitted.source(x, gate)
    assert "kernel" in jitted.explain(x, gate)
    with pytest.raises(UserError, match="no stage 'nowhere'"):
        jitted.ir("nowhere", x, gate)


def test_looking_on_leaves_the_arguments_alone() -> None:
    x = torch.ones(5)
    jitted = fusec.jit(lambda x: x.add_(1))
    jitted.explain(x)
    assert x.sum() == 5
    jitted(x)
    assert x.sum() == 10


def test_jit_refuses_unknown_options() -> None:
    with pytest.raises(OptionError, match="no option 'fast'"):
        fusec.jit(fast=True)
