"""LLVM text → object code: what is refused, and for which machine code is made."""

from __future__ import annotations

import platform

import pytest

from fusec.codegen.llvm_object import (
    assembly,
    compile_object,
    host_cpu,
    host_features,
)
from fusec.errors import InternalError

DOUBLE = "define i64 @double(i64 %x) {\n  %y = shl i64 %x, 1\n  ret i64 %y\n}"

x86_only = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="names x86 CPUs and registers"
)


def compile_here(text: str) -> bytes:
    return compile_object(text, host_cpu(), host_features())


def test_the_same_text_gives_the_same_bytes() -> None:
    code = compile_here(DOUBLE)
    assert b"double" in code
    assert compile_here(DOUBLE) == code


@pytest.mark.parametrize("opt", [0, 1, 2, 3])
def test_each_codegen_level_defines_the_function(opt: int) -> None:
    text = assembly(DOUBLE, host_cpu(), host_features(), opt)
    assert "double:" in text


@x86_only
def test_the_cpu_chooses_the_registers() -> None:
    text = (
        "define void @f(ptr %p) {\n"
        "  %x = load <16 x float>, ptr %p, align 4\n"
        "  %y = fadd <16 x float> %x, %x\n"
        "  store <16 x float> %y, ptr %p, align 4\n"
        "  ret void\n"
        "}"
    )
    assert "zmm" in assembly(text, "skylake-avx512", "")
    assert "ymm" in assembly(text, "x86-64", "+avx2")
    assert "xmm" in assembly(text, "x86-64", "")


@x86_only
def test_default_alignment_is_the_targets_not_that_of_llvm() -> None:
    # Without a data layout LLVM would align an i128 to 8 bytes: offset 8, not 16.
    text = (
        "define ptr @field(ptr %p) {\n"
        "  %q = getelementptr { i8, i128 }, ptr %p, i64 0, i32 1\n"
        "  ret ptr %q\n"
        "}"
    )
    assert "16(%rdi)" in assembly(text, "x86-64", "")


@pytest.mark.parametrize(
    ("text", "reason", "quote"),
    [
        (DOUBLE.replace("%x, 1", "%z, 1"), "undefined value '%z'", "line 2: %y = shl"),
        ("define void @f( {", "expected type", "line 1: define void @f( {"),
        (DOUBLE.removesuffix("}"), "found end of file", "line 3: ret i64 %y"),
    ],
)
def test_text_that_does_not_parse_is_shown(text: str, reason: str, quote: str) -> None:
    with pytest.raises(InternalError) as caught:
        compile_here(text)
    assert reason in str(caught.value)
    assert quote in str(caught.value)


def test_the_verifier_s_instructions_are_shown_with_their_lines() -> None:
    text = (
        "define i32 @f(i1 %c, i32 %x) {\n"
        "  br i1 %c, label %then, label %join\n"
        "then:\n"
        "  %a = add i32 %x, 1\n"
        "  br label %join\n"
        "join:\n"
        "  %b = add i32 %a, 1\n"
        "  ret i32 %b\n"
        "}"
    )
    with pytest.raises(InternalError, match="does not dominate") as caught:
        compile_here(text)
    assert "line 4: %a = add i32 %x, 1" in str(caught.value)
    assert "line 7: %b = add i32 %a, 1" in str(caught.value)


def test_an_unknown_intrinsic_is_refused() -> None:
    text = "\ndeclare float @llvm.sqroot.f32(float)\n" + DOUBLE
    with pytest.raises(InternalError, match=r"no intrinsic named llvm\.sqroot") as e:
        compile_here(text)
    assert "line 2: declare float @llvm.sqroot.f32(float)" in str(e.value)


def test_known_intrinsics_and_other_declarations_pass() -> None:
    text = (
        "declare <4 x float> @llvm.fma.v4f32(<4 x float>, <4 x float>, <4 x float>)\n"
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)\n"
        "declare float @expf(float)\n"
    )
    assert compile_here(text + DOUBLE)
