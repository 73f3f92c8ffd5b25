"""Host functions on torch tensors: native segments, and the ops of one by one."""

from __future__ import annotations

import ctypes
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fusec import build
from fusec.codegen.native_calls import callable_natively
from fusec.compiler import compile_module
from fusec.errors import InternalError
from fusec.frontend.dtypes import from_torch
from fusec.ir.core import Module
from fusec.ir.parser import parse_module
from fusec.options import Options
from fusec.passes.pipeline import Setting, run
from fusec.runtime.launcher_torch import Program, exported_shims
from fusec.runtime.plan import Drop, Make, Segment, plan_host
from fusec.runtime.shims import CREATE, DELETE
from fusec.runtime.tensors import TORCH_DTYPES
from fusec.target import resolve

MLP = """
    graph @mlp(%x: f32[s0, 64], %w: f32[64, 64]) -> (f32[s0, 64])
        symbols [s0]
        facts [0 <= s0] {
      %a = abs %x : f32[s0, 64]
      %h = extern %a, %w {target="aten.mm.default", arguments=($0, $1), keywords=()} : f32[s0, 64]
      %y = exp %h : f32[s0, 64]
      %z = extern %y, %w {target="aten.mm.default", arguments=($0, $1), keywords=()} : f32[s0, 64]
      %r = neg %z : f32[s0, 64]
      yield %r
    }
"""  # noqa: E501


def expected(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return -((x.abs() @ w).exp() @ w)


def lowered(text: str) -> Module:
    passes = ["lower_to_loops", "fuse", "lower_to_host", "assign_layouts"]
    setting = Setting(resolve(None), lambda op, dtype: True)
    return run(parse_module(dedent(text)), passes, setting)


def compiled(text: str, tmp_path: Path, **options: Any) -> Program:
    chosen = Options.from_mapping({"cache_dir": tmp_path, **options})
    return compile_module(lowered(text), chosen).program


def inputs(rows: int) -> list[torch.Tensor]:
    return [torch.randn(rows, 64) * 0.1, torch.randn(64, 64) * 0.1]


def test_launches_and_products_are_one_native_call() -> None:
    plan = plan_host(lowered(MLP).entry, callable_natively(exported_shims()))
    (segment,) = plan.segments
    assert [type(op).name for op in segment.ops] == [
        "launch", "extern", "launch", "extern", "launch",
    ]  # fmt: skip
    before = plan.steps[: plan.steps.index(segment)]
    assert all(isinstance(step, Make) for step in before)
    assert all(isinstance(step, (Make, Drop, Segment)) for step in plan.steps)


@pytest.mark.parametrize("rows", [0, 1, 7, 300])
def test_a_segment_computes_for_every_size(rows: int, tmp_path: Path) -> None:
    program = compiled(MLP, tmp_path)
    x, w = inputs(rows)
    (result,) = program([x, w])
    torch.testing.assert_close(result, expected(x, w))


def test_arguments_are_taken_from_the_list(tmp_path: Path) -> None:
    program = compiled(MLP, tmp_path)
    arguments = inputs(3)
    program(arguments)
    assert arguments == []
    with pytest.raises(InternalError, match="takes 2 arguments, not 1"):
        program(inputs(3)[:1])


def test_what_fails_in_a_segment_raises_as_torch_does(tmp_path: Path) -> None:
    """The error code of a native call becomes the message of the op's own."""
    text = """\
    host @f(%x: f32[2, 3], %y: f32[4, 5]) -> (f32[2, 5]) {
      %z = extern %x, %y {target="aten.mm.default", arguments=($0, $1), keywords=()} : f32[2, 5]
      yield %z
    }"""  # noqa: E501
    chosen = Options.from_mapping({"cache_dir": tmp_path})
    program = compile_module(parse_module(dedent(text)), chosen).program
    for _ in range(2):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            program([torch.ones(2, 3), torch.ones(4, 5)])


def test_a_profiler_sees_each_kernel_and_each_call(tmp_path: Path) -> None:
    program = compiled(MLP, tmp_path)
    x, w = inputs(5)
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu) as profile:
        (result,) = program([x, w])
    names = [event.name for event in profile.events() or ()]
    assert sum(name.startswith("fused_") for name in names) == 3
    assert names.count("aten::mm") == 2
    torch.testing.assert_close(result, expected(x, w))


def test_a_dispatch_mode_sees_each_call(tmp_path: Path) -> None:
    program = compiled(MLP, tmp_path)
    seen: list[str] = []

    class Log(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    x, w = inputs(5)
    with Log():
        (result,) = program([x, w])
    assert seen.count("aten.mm.default") == 2
    torch.testing.assert_close(result, expected(x, w))


def test_threads_follow_torch_or_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    run = Program._run

    def spied(self: Program, frame: Any) -> list[Any]:
        seen.append(frame.word)
        return run(self, frame)

    monkeypatch.setattr(Program, "_run", spied)
    follows, fixed = compiled(MLP, tmp_path), compiled(MLP, tmp_path, threads=3)
    before = torch.get_num_threads()
    x, w = inputs(400)
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results += [*follows([x, w]), *fixed([x, w])]
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 3, 2, 3]
    for result in results:
        torch.testing.assert_close(result, expected(x, w))


def test_results_do_not_depend_on_threads(tmp_path: Path) -> None:
    text = """\
    graph @total(%x: f32[999, 700]) -> (f32[999], f32[]) {
      %s = reduce_dims %x {dims=(1,), monoid=sum<f32>} : f32[999]
      %e = exp %s : f32[999]
      %t = reduce_dims %x {dims=(0, 1), monoid=sum<f32>} : f32[]
      yield %e, %t
    }"""
    x = torch.randn(999, 700)
    one, *others = (compiled(text, tmp_path, threads=n)([x]) for n in (1, 2, 3, 7))
    for other in others:
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("failing", range(6))
def test_a_tensor_that_cannot_be_made_leaks_no_other(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call runs from Python instead; handles made for it natively are freed."""
    real = dict(exported_shims())
    create = ctypes.CFUNCTYPE(
        ctypes.c_int32, *[ctypes.c_void_p] * 4, ctypes.c_int64,
        *[ctypes.c_int32] * 3, ctypes.POINTER(ctypes.c_void_p),
    )  # fmt: skip
    delete = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
    made: list[int] = []
    freed: list[int] = []

    @create
    def spied_create(*args: Any) -> int:
        if len(made) == failing:
            return 1
        status = create(real[CREATE])(*args)
        made.append(args[-1].contents.value)
        return status

    @delete
    def spied_delete(handle: int) -> int:
        freed.append(handle)
        return delete(real[DELETE])(handle)

    for name, spy in ((CREATE, spied_create), (DELETE, spied_delete)):
        real_address = ctypes.cast(spy, ctypes.c_void_p).value
        assert real_address is not None
        monkeypatch.setattr(build, "exported_shims", _with(name, real_address, build))
    program = compiled(MLP, tmp_path)
    x, w = inputs(5)
    (result,) = program([x, w])
    torch.testing.assert_close(result, expected(x, w))
    assert sorted(made) == sorted(freed)
    assert len(made) == failing


def _with(name: str, address: int, module: Any) -> Any:
    """What tells the shims, one of them replaced."""
    shims = {**module.exported_shims(), name: address}
    return lambda: shims


def test_dtypes_are_those_that_the_frontend_takes_in() -> None:
    known = [dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)]
    taken = {ours.name: dtype for dtype in known if (ours := from_torch(dtype))}
    assert taken == TORCH_DTYPES
