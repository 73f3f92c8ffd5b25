"""Whatever schedule is chosen of those worth trying, a program means the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from analysis.test_contraction import PRODUCT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import arguments, graphs
from texts import read

from fusec.analysis.accesses import accesses
from fusec.analysis.candidates import Choice, candidates, described
from fusec.ir.core import Function, Module
from fusec.ir.interpreter import interpret
from fusec.ir.verifier import verify
from fusec.passes.assign_layouts import assign_layouts
from fusec.passes.copy_updated import copy_updated
from fusec.passes.fuse import fuse
from fusec.passes.lower_to_host import Lowered, lower_to_host
from fusec.passes.lower_to_loops import lower_to_loops
from fusec.passes.pipeline import stripmined
from fusec.target import SM_90, X86_64_V3, X86_64_V4, Target

SMALL = {"l1_bytes": 512, "l2_bytes": 1 << 10, "llc_bytes": 2 << 10}
"""Caches that small tensors are far beyond."""
TARGETS = [X86_64_V4, replace(X86_64_V3, **SMALL), replace(X86_64_V4, **SMALL), SM_90]

thorough = settings(
    max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None
)


def same(before: Any, after: Any) -> None:
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def drawn(data: Any, loops: Function, target: Target) -> dict[str, Choice]:
    """A candidate for every kernel."""
    choices: dict[str, Choice] = {}
    for kernel in lower_to_host(loops, target, {}).kernels.values():
        found = accesses(kernel.region)
        _, *others = candidates(found, target, {})
        if others:
            schedule = data.draw(st.sampled_from(others)).schedule
            text = described(schedule, found)
            choices[kernel.fingerprint.text] = Choice(text, 1.0)
    return choices


def lowered(data: Any, loops: Function, target: Target) -> Lowered:
    """The program by such a choice."""
    choices = drawn(data, loops, target)
    made = lower_to_host(loops, target, {}, choices.get)
    for kernel in made.kernels.values():
        assert kernel.choice is choices.get(kernel.fingerprint.text)
    return made


def mined(program: Lowered, target: Target) -> Module:
    kernels = (assign_layouts(k.function) for k in program.kernels.values())
    return Module((program.host, *(stripmined(k, target) for k in kernels)))


@thorough
@given(st.data(), st.sampled_from(TARGETS))
def test_any_candidates_keep_the_meaning(data: Any, target: Target) -> None:
    graph = data.draw(graphs(6))
    values = arguments(data.draw, graph)
    loops = copy_updated(fuse(lower_to_loops(graph), target, {}))
    program = lowered(data, loops, target)
    verify(program.module)
    wanted = interpret(graph, values)
    same(wanted, interpret(program.host, values, module=program.module))
    module = mined(program, target)
    verify(module)
    same(wanted, interpret(program.host, values, module=module))


SIZES = st.sampled_from([1, 3, 16, 17, 40, 70])


@thorough
@given(st.data(), SIZES, SIZES, SIZES, st.booleans(), st.sampled_from(TARGETS))
def test_any_candidates_give_the_same_product(
    data: Any, m: int, n: int, k: int, turned: bool, target: Target
) -> None:
    """Of small integers, whose sums are exact in any order."""
    y = f"f32[{n}, {k}]" if turned else f"f32[{k}, {n}]"
    shapes = {"x": f"f32[{m}, {k}]", "y": y, "z": f"f32[{m}, {n}]"}
    index = {"ik": "i, k", "kj": "j, k" if turned else "k, j", "monoid": "sum"}
    loops = read(PRODUCT.format(**shapes, **index, m=m, n=n, k=k))
    values = arguments(data.draw, loops)
    program = lowered(data, loops, target)
    module = mined(program, target)
    verify(module)
    same(interpret(loops, values), interpret(program.host, values, module=module))


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_native_code_of_any_candidates_gives_the_same(data: Any) -> None:
    pytest.importorskip("torch")
    import torch

    from fusec.build import CpuBuild
    from fusec.compiler import setting_of
    from fusec.options import Options
    from fusec.passes.journey import lower, scheduled_anew

    options = Options.from_mapping({"cache": False})
    setting = setting_of(options)
    target = replace(setting.target, **SMALL)
    setting = replace(setting, target=target)
    graph = data.draw(graphs(6))
    values = arguments(data.draw, graph)
    journey = lower(graph, setting)
    choices = drawn(data, journey.loops, target)
    tuned = scheduled_anew(journey, replace(setting, choices=choices.get))
    artifact, code = CpuBuild(options, target).artifact(tuned.module, {})
    results = artifact.bound(code)([torch.from_numpy(v.copy()) for v in values])
    same(interpret(graph, values), [r.numpy() for r in results])
