"""Running tile functions on this machine, for each target that it can run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from fusec.codegen import llvm
from fusec.codegen.llvm_launcher import TEXT as LAUNCHER
from fusec.codegen.llvm_object import compile_object
from fusec.ir.core import Function
from fusec.passes.expand import expand
from fusec.runtime.image import Code
from fusec.runtime.launcher_cpu import PARALLEL, Launcher, link, load, slots
from fusec.target import TARGETS, Target, host

RUNNABLE = [
    target for target in TARGETS.values() if {*target.features} <= {*host().features}
]

Run = Callable[..., None]


@pytest.fixture(params=RUNNABLE, ids=lambda target: target.name)
def target(request: pytest.FixtureRequest) -> Target:
    return request.param


def build(function: Function, target: Target) -> Code:
    """The function as native code."""
    closed = expand(function, partial(llvm.supports, target=target))
    text = llvm.emit(closed, target).text
    kind = target.cpu, target.feature_string
    objects = [compile_object(each, *kind) for each in (text, LAUNCHER)]
    return load(link(objects, [function.name, PARALLEL]))


@pytest.fixture
def run(target: Target) -> Run:
    """`run(function, arrays, grid=1, symbols=())`: the kernel on these arrays."""
    built: dict[Function, Launcher] = {}

    def go(
        function: Function,
        arrays: Sequence[np.ndarray[Any, Any]],
        grid: int = 1,
        symbols: Sequence[int] = (),
    ) -> None:
        if function not in built:
            built[function] = Launcher(build(function, target))
        arguments = slots([*(a.ctypes.data for a in arrays), *symbols])
        built[function](function.name, arguments, grid, 1)

    return go
