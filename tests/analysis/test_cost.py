"""The cost model: more work never takes less time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusec.analysis.cost import MIDDLING, Work, likely, seconds
from fusec.ir.dims import Symbol
from fusec.target import X86_64_V3, X86_64_V4, Target

SIZES = st.integers(0, 1 << 34)
WORK = st.builds(Work, SIZES, SIZES, SIZES.map(float), st.integers(1, 1 << 12))
targets = pytest.mark.parametrize("target", [X86_64_V3, X86_64_V4])


@targets
@given(work=WORK, more=SIZES)
def test_more_work_takes_no_less_time(target: Target, work: Work, more: int) -> None:
    """Rounding apart: where memory decides, operations change nothing."""
    now = seconds(work, target)
    for name in ("read", "written", "operations"):
        larger = replace(work, **{name: getattr(work, name) + more})
        assert seconds(larger, target) >= now * (1 - 1e-9)


@targets
@given(work=WORK, more=st.integers(0, 1 << 12))
def test_more_programs_take_no_more_time(target: Target, work: Work, more: int) -> None:
    shared = replace(work, programs=work.programs + more)
    assert seconds(shared, target) <= seconds(work, target) * (1 + 1e-9)


@targets
def test_nothing_takes_a_launch(target: Target) -> None:
    assert seconds(Work(0, 0, 0.0, 1), target) == target.launch


def test_a_size_is_what_is_hinted() -> None:
    n, m = Symbol("n"), Symbol("m")
    assert likely(7, {}) == 7
    assert likely(2 * n + m, {n: 5}) == 10 + MIDDLING
