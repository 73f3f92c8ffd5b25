"""Bugs planted in fusec: a crash costs speed, and a miscompile is found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.conftest import Run, X, model

import fusec
from fusec import build, compiler
from fusec.analysis.fusion import Fusion
from fusec.errors import InternalError, VerificationError
from fusec.frontend import aten_graph
from fusec.frontend.aten import HANDLERS
from fusec.ir.builder import Builder, rewrite, rewrite_block
from fusec.ir.core import Function, Op, Values
from fusec.ir.ops.arithmetic import Add, Sub
from fusec.ir.ops.loop import Region
from fusec.ir.ops.tile import For
from fusec.passes import journey, pipeline

Warned = Callable[[], list[str]]

PARTS: dict[str, tuple[Any, str]] = {
    "the intake": (aten_graph, "import_graph"),
    "lowering to loops": (pipeline, "lower_to_loops"),
    "planning fusion": (Fusion, "run"),
    "fusing": (pipeline, "fuse"),
    "lowering to the host": (pipeline, "lower_to_host"),
    "assigning layouts": (journey, "assign_layouts"),
    "lowering kernels": (build, "lower_kernel"),
    "emitting kernels": (build, "kernel_text"),
    "planning the host": (build, "plan_host"),
    "emitting the host": (build, "emit_host"),
    "compiling objects": (build, "compile_object"),
    "loading objects": (build, "load"),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_crashes_leaves_the_graph_to_aten(
    part: str,
    right: Run,
    warned: Warned,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner, name = PARTS[part]

    def crash(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("planted")

    monkeypatch.setattr(owner, name, crash)
    right(cache=False)
    (path,) = tmp_path.glob("reproducers/*.py")
    (line,) = warned()
    assert "KeyError: 'planted'" in line
    assert "this is a bug in fusec" in line
    assert str(path) in line
    assert "runs through ATen instead" in line
    assert "planted" in path.read_text()
    with pytest.raises(Exception, match="planted") as error:
        right(cache=False, fallback=False)
    assert isinstance(_cause(error.value), InternalError)


def _cause(error: BaseException) -> Any:
    return getattr(error, "inner_exception", None) or error.__cause__ or error


@pytest.mark.parametrize(
    "error", [RecursionError("too deep"), MemoryError("no room"), AssertionError()]
)
def test_whatever_a_part_raises(
    error: Exception, right: Run, warned: Warned, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(pipeline, "fuse", crash)
    right()
    (line,) = warned()
    assert type(error).__name__ in line


def test_an_interrupt_is_the_users_and_the_next_call_compiles(
    right: Run, warned: Warned, tmp_path: Path
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "lower_to_host", interrupt)
        with pytest.raises(KeyboardInterrupt):
            right()
    right()
    assert not warned()
    assert not list(tmp_path.glob("reproducers/*"))


def test_a_crash_in_the_backward_pass_leaves_gradients_right(
    warned: Warned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = pipeline.lower_to_loops

    def crash(function: Function) -> Function:
        if function.name == "backward":
            raise IndexError("planted")
        return lower(function)

    monkeypatch.setattr(pipeline, "lower_to_loops", crash)
    torch._dynamo.reset()
    options = {"cache_dir": tmp_path}
    compiled = torch.compile(model, backend=fusec.backend, options=options)
    grads: list[Any] = []
    for call in (compiled, model):
        x = X.clone().requires_grad_()
        call(x).square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)
    (line,) = warned()
    assert "in the backward graph" in line


def test_without_a_place_for_reproducers_the_graph_runs_as_well(
    right: Run, warned: Warned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("planted")

    monkeypatch.setattr(pipeline, "lower_to_loops", crash)
    (tmp_path / "file").touch()
    right(tmp_path / "file")
    cache, first, second = warned()
    assert "not caching in" in cache
    assert "no reproducer could be written: " in first
    assert "KeyError: 'planted'" in second
    assert "attach" not in second


@pytest.mark.slow
def test_a_reproducer_shows_the_bug_again(
    right: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run by itself, with the bug still there, it fails as the graph did."""

    def crash(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("planted")

    monkeypatch.setattr(pipeline, "fuse", crash)
    right()
    (path,) = tmp_path.glob("reproducers/*.py")
    bug = "from fusec.passes import pipeline\n\npipeline.fuse = None\n"
    path.write_text(path.read_text().replace("import fusec\n", f"import fusec\n{bug}"))
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        env={**_environment(), "FUSEC_CACHE_DIR": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "InternalError" in done.stderr
    assert "'NoneType' object is not callable" in done.stderr


def _environment() -> dict[str, str]:
    """This process's, with the fusec that is tested first on the path."""
    return {**os.environ, "PYTHONPATH": str(Path(fusec.__file__).parents[1])}


# Miscompiles.


def subtracting(function: Function) -> Function:
    """A function with every addition of floats turned into a subtraction."""

    def visit(b: Builder, op: Op, env: Any) -> Values | None:
        operands = tuple(env.get(v, v) for v in op.operands)
        if isinstance(op, Add) and op.result.dtype.is_float:
            return b.emit(Sub, operands, op.attrs)
        if isinstance(op, Region | For):
            around = b.isolated() if op.closed else b
            blocks = tuple(rewrite_block(around, k, env, visit) for k in op.blocks)
            return b.emit(type(op), operands, op.attrs, blocks)
        return None

    return rewrite(function, visit)


def after(owner: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Plants the bug in what a pass of the compiler returns."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = getattr(owner, name)
        patch.setattr(owner, name, lambda *a, **k: subtracting(real(*a, **k)))

    return plant


def in_the_frontend(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(HANDLERS, "aten.add.Tensor", HANDLERS["aten.sub.Tensor"])


def in_the_kernels_code(patch: pytest.MonkeyPatch) -> None:
    text = build.kernel_text
    patch.setattr(build, "kernel_text", lambda *a: _subtracting_text(text(*a)))


def _subtracting_text(text: str) -> str:
    return text.replace(" fadd ", " fsub ")


MISCOMPILES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "the frontend": in_the_frontend,
    "lower_to_loops": after(pipeline, "lower_to_loops"),
    "fuse": after(pipeline, "fuse"),
    "recompute": after(pipeline, "recompute"),
    "split_reductions": after(pipeline, "split_reductions"),
    "assign_layouts": after(journey, "assign_layouts"),
    "stripmine": after(compiler, "stripmined"),
    "code generation": in_the_kernels_code,
}


@pytest.mark.parametrize("made_by", MISCOMPILES)
def test_verify_names_the_pass_that_miscompiles(
    made_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    MISCOMPILES[made_by](monkeypatch)
    options = {"cache_dir": tmp_path, "verify": True}
    compiled = torch.compile(
        lambda x: (x + x.exp()) * 2, backend=fusec.backend, options=options
    )
    with pytest.raises(VerificationError, match=f"^{made_by} changed result 0"):
        compiled(X)


def test_verify_is_content_where_nothing_is_wrong(right: Run, warned: Warned) -> None:
    right(verify=True)
    assert not warned()
