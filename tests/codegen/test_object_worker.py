"""Object code that is compiled in processes apart is the same, and LLVM may refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusec.build import Objects
from fusec.codegen.llvm_launcher import TEXT as LAUNCHER
from fusec.codegen.llvm_object import compile_object
from fusec.runtime.cache import cache_at
from fusec.target import X86_64, resolve

SMALL = "define i64 @double(i64 %x) { %y = shl i64 %x, 1  ret i64 %y }"
ABORTS = """
declare <16 x float> @llvm.x86.avx512.rcp14.ps.512(<16 x float>, <16 x float>, i16)
define <16 x float> @f(<16 x float> %x) {
  %y = call <16 x float> @llvm.x86.avx512.rcp14.ps.512(
    <16 x float> %x, <16 x float> %x, i16 -1)
  ret <16 x float> %y
}
"""
"""An intrinsic that the processor lacks ends the process."""


def test_objects_are_those_of_this_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    objects = Objects(cache_at(tmp_path), resolve("x86-64"))
    wanted = [compile_object(t, X86_64.cpu, "+sse2") for t in (SMALL, LAUNCHER)]
    first, refused, aborted, last = objects.of_all(
        [SMALL, "define nonsense", ABORTS, LAUNCHER]
    )
    assert [first, last] == wanted
    assert refused is None
    assert aborted is None
    told = [record.getMessage() for record in caplog.records]
    assert any("LLVM cannot parse the module" in line for line in told)
    assert any("its process ended with" in line for line in told)
