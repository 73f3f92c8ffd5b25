"""The doors, end to end: torch.compile and jit on real kernels."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fusec
from fusec.cli import arguments
from fusec.errors import OptionError, UserError
from fusec.passes.journey import Journey
from fusec.stages import STAGES


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
    assert "tile @" in jitted.ir("tile", x, gate)
    assert ".globl" in jitted.ir("asm", x, gate)
    with pytest.raises(UserError, match="no stage 'nowhere'"):
        jitted.ir("nowhere", x, gate)
    with pytest.raises(
        UserError, match="name of a stage first, but got Tensor"
    ) as error:
        jitted.ir(x, gate)
    assert "ir('graph', …)" in str(error.value)


def test_the_command_line_has_the_same_stages() -> None:
    assert sorted(arguments.STAGES) == sorted(STAGES)


@pytest.mark.parametrize("given", [3, "fast", torch.ones(3)])
def test_jit_refuses_what_is_no_function(given: Any) -> None:
    with pytest.raises(UserError, match="jit compiles a function, but got"):
        fusec.jit(given)


def test_a_jitted_function_says_which_it_is() -> None:
    assert repr(fusec.jit(swiglu)) == "<fusec.jit of swiglu>"
    assert repr(fusec.jit(torch.nn.Softmax(-1))) == "<fusec.jit of Softmax>"


def test_dir_lists_public_names() -> None:
    assert dir(fusec) == sorted(fusec.__all__)


@pytest.mark.parametrize(("dynamic", "symbols"), [(True, True), (False, False)])
def test_jit_leaves_sizes_open_as_asked(dynamic: bool, symbols: bool) -> None:
    """Also where torch has seen other sizes: it counts them for all of a function."""
    known = fusec.jit(swiglu)
    for n in (3, 4):
        x = torch.randn(n, 40)
        known(x, x)
    for jitted in (
        fusec.jit(swiglu, dynamic=dynamic),
        fusec.jit(dynamic=dynamic)(swiglu),
    ):
        assert ("symbols" in jitted.ir("graph", x, x)) == symbols
    with pytest.raises(OptionError, match="dynamic='yes' is not allowed"):
        fusec.jit(swiglu, dynamic="yes")


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


def test_jit_is_a_method_too() -> None:
    class Scale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.full((4,), 3.0))

        @fusec.jit
        def forward(self, x: Any) -> Any:
            return x * self.factor + 1

    scale, x = Scale(), torch.ones(4)
    torch.testing.assert_close(scale(x), torch.full((4,), 4.0))
    assert "kernel" in scale.forward.explain(x)
    assert "mul" in scale.forward.ir("graph", x)
    assert "define void @" in scale.forward.source(x)
    assert Scale.forward is Scale.__dict__["forward"]


def test_jit_gives_arrays_in_any_container() -> None:
    result = fusec.jit(lambda x: {"a": x + 1, "b": (x, 2)})(np.ones(2, np.float32))
    assert isinstance(result["a"], np.ndarray)
    np.testing.assert_array_equal(result["a"], [2, 2])
    assert isinstance(result["b"][0], np.ndarray)


def test_logs_tell_what_was_compiled(caplog: pytest.LogCaptureFixture) -> None:
    options = {"logs": "graph,fusion,kernels,cache"}

    def f(x: Any) -> Any:
        return x.exp().sum(0).sort(0).values + x.mean(1).sum()

    for _ in range(2):
        torch._dynamo.reset()
        torch.compile(f, backend=fusec.backend, options=options)(torch.randn(30, 40))
    said: dict[str, list[str]] = {}
    for record in caplog.records:
        said.setdefault(record.name, []).append(record.getMessage())
    assert "1 call to torch" in said["fusec.graph"][0]
    assert "aten.sort.default: fusec has no such op (" in said["fusec.graph"][1]
    assert any("into" in line for line in said["fusec.fusion"])
    assert any("grid" in line and "tile" in line for line in said["fusec.kernels"])
    kinds = [line.split()[0] for line in said["fusec.cache"]]
    assert kinds[0] == "miss"
    assert kinds[-1] == "hit"


def test_arrays_that_are_copied_have_what_was_written_to_them() -> None:
    @fusec.jit
    def add(x: Any) -> Any:
        return x.add_(1).clone()

    for view in (slice(None), slice(None, None, -1), slice(None, None, 2)):
        array = np.arange(6.0)
        result = add(array[view])
        expected = np.arange(6.0)
        expected[view] += 1
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal(result, expected[view])


def test_arrays_that_may_not_be_written_to() -> None:
    array = np.arange(4.0)
    array.flags.writeable = False
    np.testing.assert_array_equal(fusec.jit(lambda x: x + 1)(array), array + 1)
    with pytest.raises(UserError, match="may not be written to"):
        fusec.jit(lambda x: (x.add_(1), x.sum())[1])(array)
    np.testing.assert_array_equal(array, np.arange(4.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_results_that_numpy_has_no_dtype_for_are_tensors(dtype: torch.dtype) -> None:
    result = fusec.jit(lambda x: x.to(dtype))(np.ones(3))
    assert isinstance(result, torch.Tensor)
    assert result.dtype is dtype


def test_conjugates_are_arrays() -> None:
    array = np.array([1 + 2j, 3 - 4j])
    np.testing.assert_array_equal(fusec.jit(lambda x: x.conj())(array), array.conj())
    imag = fusec.jit(lambda x: x.conj().imag)(array)
    np.testing.assert_array_equal(imag, -array.imag)


def test_compiled_models_keep_nothing_of_the_compiler() -> None:
    """How programs came about is for those who ask, and large."""
    gc.collect()
    before = _journeys()
    x = torch.randn(8, 3, requires_grad=True)
    compiled = torch.compile(lambda x: x.softmax(-1).exp(), backend=fusec.backend)
    compiled(x).sum().backward()
    gc.collect()
    assert _journeys() == before
    torch.testing.assert_close(compiled(x), x.softmax(-1).exp())


def _journeys() -> int:
    return sum(isinstance(held, Journey) for held in gc.get_objects())
