"""LLVM assembly → object code for one CPU.

The LLVM backend emits vectors of the width it wants, already unrolled and scheduled
breadth-first, so LLVM's own IR passes have little left to win and take most of the
compile time. This file therefore only parses, verifies, selects instructions and
allocates registers (code generation level 1):

    text = "define i64 @double(i64 %x) { %y = shl i64 %x, 1  ret i64 %y }"
    code = compile_object(text, host_cpu(), host_features())   # for the launcher
    print(assembly(text, "x86-64", ""))                        # for people

    double:
            leaq    (%rdi,%rdi), %rax
            retq

Whatever LLVM rejects is a bug of ours and raises `InternalError` with the line. Two
mistakes LLVM does not report by itself:

- An unknown `llvm.*` intrinsic is taken for an ordinary function and would surface as a
  missing symbol when loaded. It is refused here.
- An intrinsic that the chosen CPU lacks makes instruction selection **abort the
  process**, and code for another CPU dies of an illegal instruction. Ask
  `target.check_runs_here` before running code; put `cpu`, `features` and `VERSION` in
  every cache key.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from fusec.errors import InternalError
from fusec.runtime.llvm import llvm, machine


def compile_object(text: str, cpu: str, features: str, opt: int = 1) -> bytes:
    """Relocatable object code (ELF on Linux) of the module `text`.

    `cpu` and `features` are LLVM's names (`"znver5"`, `"+avx512f,-amx-tile"`); `opt` is
    the code generation level, 0 to 3. Raises `InternalError` on text LLVM rejects.
    """
    made_by = machine(cpu, features, opt)
    return made_by.emit_object(_parse(text, made_by))


def assembly(text: str, cpu: str, features: str, opt: int = 1) -> str:
    """The target's assembly for `text`: what `compile_object` would encode."""
    made_by = machine(cpu, features, opt)
    return made_by.emit_assembly(_parse(text, made_by))


@lru_cache(maxsize=1)
def host_cpu() -> str:
    """LLVM's name of this machine's CPU, such as `"znver5"`."""
    return llvm.get_host_cpu_name()


@lru_cache(maxsize=1)
def host_features() -> str:
    """Every feature LLVM knows for this CPU, `+present` or `-absent`, by name.

    The absent ones matter: a virtual machine may mask features its CPU's name implies.
    """
    return llvm.get_host_cpu_features().flatten()


def _parse(text: str, made_by: Any) -> Any:
    # The parser settles default alignments from the data layout, so it has to come
    # first; on the text's own first line it leaves LLVM's line numbers right.
    header = (
        f'target datalayout = "{made_by.target_data}" '
        f'target triple = "{made_by.triple}" '
    )
    try:
        module = llvm.parse_assembly(header + text)
    except RuntimeError as error:
        raise InternalError(_parse_failure(str(error), text)) from error
    try:
        module.verify()
    except RuntimeError as error:
        raise InternalError(_verify_failure(str(error), text)) from error
    _refuse_unknown_intrinsics(module, text)
    return module


def _refuse_unknown_intrinsics(module: Any, text: str) -> None:
    for function in module.functions:
        # LLVM's printer is the only door llvmlite leaves to its table of intrinsics.
        if function.name.startswith("llvm.") and "; Unknown intrinsic" in str(function):
            raise InternalError(
                f"LLVM knows no intrinsic named {function.name}"
                + _quote(text, _line_of(text, f"@{function.name}("))
            )


def _parse_failure(message: str, text: str) -> str:
    found = re.search(r"<string>:(\d+):\d+: error: (.*)", message)
    if found is None:
        return f"LLVM cannot parse the module: {message}"
    return f"LLVM cannot parse the module: {found[2]}" + _quote(text, int(found[1]))


def _verify_failure(message: str, text: str) -> str:
    """The verifier's message with the line of each instruction that it prints."""
    reason, *printed = message.rstrip().splitlines()
    lines = (_line_of(text, instruction.strip()) for instruction in printed)
    quotes = [_quote(text, line) for line in lines if line is not None]
    details = "".join(quotes) or "".join(f"\n  {line.strip()}" for line in printed)
    return f"LLVM's verifier refuses the module: {reason}{details}"


def _line_of(text: str, fragment: str) -> int | None:
    """The first line, counted from 1, that holds `fragment`."""
    for number, line in enumerate(text.splitlines(), start=1):
        if fragment in line:
            return number
    return None


def _quote(text: str, number: int | None) -> str:
    lines = text.splitlines()
    if number is None or not lines:
        return ""
    number = min(
        number, len(lines)
    )  # LLVM points past the end of text that stops short
    return f"\n  line {number}: {lines[number - 1].strip()}"
