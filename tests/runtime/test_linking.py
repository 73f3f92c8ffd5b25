"""Object code → images, by our linker and by LLVM's."""

from __future__ import annotations

import ctypes
import gc
import math
import pickle
import platform
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusec.codegen.llvm_object import compile_object, host_cpu, host_features
from fusec.errors import InternalError
from fusec.runtime import elf, jitlink
from fusec.runtime.image import Image

OURS = sys.platform == "linux" and platform.machine() == "x86_64"
ours = pytest.mark.skipif(not OURS, reason="objects are not x86-64 ELF here")

LINKERS = [
    pytest.param(elf.link, marks=ours, id="elf"),
    pytest.param(jitlink.link, id="llvm"),
]
linkers = pytest.mark.parametrize("link", LINKERS)
Link = Callable[..., Any]

TABLE = """
@table = internal constant [4 x i64] [i64 10, i64 20, i64 30, i64 40]
@wide = internal constant [8 x float] [
  float 1.0, float 2.0, float 3.0, float 4.0, float 5.0, float 6.0, float 7.0, float 8.0
], align 64

define i64 @look(i64 %k) {
  %at = getelementptr i64, ptr @table, i64 %k
  %x = load i64, ptr %at
  ret i64 %x
}

define float @total(float %x) {
  %w = load <8 x float>, ptr @wide, align 32
  %s = call reassoc float @llvm.vector.reduce.fadd(float %x, <8 x float> %w)
  ret float %s
}
declare float @llvm.vector.reduce.fadd(float, <8 x float>)
"""

CALLER = """
declare i64 @look(i64)
declare double @cos(double)
define internal i64 @hidden(i64 %k) noinline {
  %x = call i64 @look(i64 %k)
  %y = add i64 %x, 1
  ret i64 %y
}
define i64 @caller(i64 %k) {
  %x = call i64 @hidden(i64 %k)
  ret i64 %x
}
define i64 @where() { ret i64 ptrtoint (ptr @look to i64) }
define i64 @libm() { ret i64 ptrtoint (ptr @cos to i64) }
define double @cosine(double %x) {
  %y = call double @cos(double %x)
  ret double %y
}
"""

OFFSET = """
declare float @sinf(float)
declare float @offset(float)
define float @f(float %x) {
  %s = call float @sinf(float %x)
  %y = call float @offset(float %s)
  ret float %y
}
"""


@cache
def compiled(text: str) -> bytes:
    return compile_object(text, host_cpu(), host_features())


def function(code: Any, name: str, result: Any, *kinds: Any) -> Any:
    return ctypes.CFUNCTYPE(result, *kinds)(code[name])


@linkers
def test_objects_call_one_another_and_the_process(link: Link) -> None:
    names = ["look", "total", "caller", "where", "libm", "cosine"]
    for objects in ([TABLE, CALLER], [CALLER, TABLE]):
        code = link(map(compiled, objects), names).load({})
        i64, double = ctypes.c_int64, ctypes.c_double
        caller = function(code, "caller", i64, i64)
        assert [caller(k) for k in range(4)] == [11, 21, 31, 41]
        assert function(code, "where", i64)() == code["look"]
        assert function(code, "cosine", double, double)(1.0) == math.cos(1.0)
        libm = ctypes.CFUNCTYPE(double, double)(function(code, "libm", i64)())
        assert libm(2.0) == math.cos(2.0)
        total = function(code, "total", ctypes.c_float, ctypes.c_float)
        assert total(0.5) == 36.5


@linkers
def test_imports_come_before_the_process(link: Link) -> None:
    kind = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float)
    offset, sine = kind(lambda x: x + 10), kind(lambda x: 2 * x)
    imports = {
        name: ctypes.cast(f, ctypes.c_void_p).value
        for name, f in (("offset", offset), ("sinf", sine))
    }
    program = link([compiled(OFFSET)], ["f"])
    given = program.load(imports)
    assert kind(given["f"])(1.0) == 12
    code = program.load({"offset": imports["offset"]})
    assert kind(code["f"])(1.0) == pytest.approx(10 + math.sin(1.0))


@linkers
def test_a_program_can_be_kept_and_loaded_many_times(link: Link) -> None:
    program = pickle.loads(pickle.dumps(link([compiled(TABLE)], ["look"])))
    loaded = [program.load({}) for _ in range(3)]
    assert len({code["look"] for code in loaded}) == 3
    look = [function(code, "look", ctypes.c_int64, ctypes.c_int64) for code in loaded]
    assert [f(2) for f in look] == [30, 30, 30]


@linkers
def test_what_is_missing_is_an_error(link: Link) -> None:
    with pytest.raises(InternalError, match="cannot be loaded"):
        link([compiled(OFFSET)], ["f"]).load({})
    with pytest.raises(InternalError, match="cannot be loaded"):
        link([compiled(TABLE)], ["look", "absent"]).load({})


@linkers
@pytest.mark.parametrize("size", [0, 10, 200])
def test_bytes_that_are_no_object_are_refused(link: Link, size: int) -> None:
    with pytest.raises(InternalError, match="cannot be loaded"):
        link([compiled(TABLE)[:size]], ["look"]).load({})


@ours
def test_all_that_is_missing_is_named() -> None:
    text = """
declare void @vanished(i64)
declare float @sinf(float)
@lost = external global i64
define void @f() {
  %x = load i64, ptr @lost
  call void @vanished(i64 %x)
  call float @sinf(float 1.0)
  ret void
}
"""
    with pytest.raises(InternalError, match="unresolved: lost, vanished\n"):
        elf.link([compiled(text)], ["f"]).load({})
    with pytest.raises(InternalError, match="absent"):
        elf.link([compiled(TABLE)], ["look", "absent"])


@ours
def test_two_functions_of_one_name_are_refused() -> None:
    with pytest.raises(InternalError, match="look is defined twice"):
        elf.link([compiled(TABLE)] * 2, ["look"])


@ours
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("@v = global i64 7\ndefine ptr @f() { ret ptr @v }", "section"),
        ("@v = global i64 0\ndefine ptr @f() { ret ptr @v }", "section"),
        (
            "@v = thread_local global i64 7\n"
            "define i64 @f() { %x = load i64, ptr @v ret i64 %x }",
            "relocation",
        ),
    ],
)
def test_what_cannot_be_linked_is_refused(text: str, why: str) -> None:
    with pytest.raises(InternalError, match=f"cannot be loaded: it .*{why}"):
        elf.link([compiled(text)], ["f"])


@ours
@given(st.data())
def test_a_damaged_object_is_refused_or_linked(data: st.DataObject) -> None:
    """Whatever is flipped, nothing but `InternalError` comes of it."""
    image = bytearray(compiled(TABLE if data.draw(st.booleans()) else CALLER))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(image) - 1))
        image[at] = data.draw(st.integers(0, 255))
    kept = image[: data.draw(st.sampled_from([len(image), len(image) // 2]))]
    with suppress(InternalError):
        assert len(elf.link([bytes(kept)], []).data) < 1 << 20


@ours
def test_a_patch_beyond_its_section_is_refused() -> None:
    data = bytearray(compiled(CALLER))
    unit = elf._Object(bytes(data))
    tables = [s for s in unit.sections if s.kind == elf._RELA]
    (table, *_) = [t for t in tables if unit.sections[t.info].is_loaded]
    struct.pack_into("<Q", data, table.offset, unit.sections[table.info].size - 3)
    with pytest.raises(InternalError, match="patched beyond its end"):
        elf.link([bytes(data)], ["caller"])


@ours
def test_constants_are_no_functions() -> None:
    text = "@numbers = constant [4 x i64] zeroinitializer"
    with pytest.raises(InternalError, match="it has no numbers"):
        elf.link([compiled(text)], ["numbers"])


@ours
def test_code_cannot_be_written_and_constants_not_run() -> None:
    image = elf.link([compiled(TABLE)], ["look"])
    code = image.load({})
    base = code["look"] - image.exports["look"]
    found = {
        kind
        for line in Path("/proc/self/maps").read_text().splitlines()
        for start, end in [[int(x, 16) for x in line.split()[0].split("-")]]
        for kind in [line.split()[1][:3]]
        if start < base + len(image.data) and end > base
    }
    assert found == {"r-x", "r--"}


@ours
def test_collected_code_is_unmapped() -> None:
    def mappings() -> int:
        return len(Path("/proc/self/maps").read_text().splitlines())

    image: Image = elf.link([compiled(TABLE)], ["look"])
    before = mappings()
    loaded = [image.load({}) for _ in range(50)]
    assert mappings() >= before + 50
    del loaded
    gc.collect()
    assert mappings() < before + 50
