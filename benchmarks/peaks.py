"""The peak of this very run: chains of independent multiply-adds in registers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import harness

from fusec.codegen.llvm_object import compile_object
from fusec.runtime.launcher_cpu import link, load
from fusec.target import host

CHAINS, TURNS = 12, 20_000_000


@cache
def _multiply_adds() -> Callable[[int], float]:
    """Runs independent chains of multiply-adds for so many turns."""
    target = host()
    lanes = target.lanes(32)
    vector = f"<{lanes} x float>"
    names = [f"%c{n}" for n in range(CHAINS)]
    lines = ["define float @chains(i64 %n) {", "entry:", "  br label %loop", "loop:"]
    lines.append("  %i = phi i64 [ 0, %entry ], [ %next, %loop ]")
    for n, name in enumerate(names):
        first = f"splat (float {float(n + 1):e})"
        lines.append(
            f"  {name} = phi {vector} [ {first}, %entry ], [ {name}.n, %loop ]"
        )
    half = "splat (float 5.000000e-01)"
    for name in names:
        operands = f"{vector} {name}, {vector} {half}, {vector} {half}"
        call = f"call {vector} @llvm.fma.v{lanes}f32({operands})"
        lines.append(f"  {name}.n = {call}")
    lines += ["  %next = add i64 %i, 1", "  %more = icmp slt i64 %next, %n"]
    lines.append("  br i1 %more, label %loop, label %end")
    lines.append("end:")
    total = f"{names[0]}.n"
    for n, name in enumerate(names[1:]):
        lines.append(f"  %t{n} = fadd {vector} {total}, {name}.n")
        total = f"%t{n}"
    lines.append(f"  %r = extractelement {vector} {total}, i64 0")
    lines += ["  ret float %r", "}"]
    lines.append(
        f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})"
    )
    image = compile_object("\n".join(lines), target.cpu, target.feature_string)
    code = load(link([image], ["chains"]))
    call = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64)(code["chains"])
    call.code = code  # type: ignore[attr-defined]
    return call


def peak(threads: int) -> float:
    """Operations per second of f32 multiply-adds on so many threads, the best of 3."""
    chains, lanes = _multiply_adds(), host().lanes(32)
    with ThreadPoolExecutor(threads) as pool:

        def all_threads() -> object:
            return list(pool.map(chains, [TURNS] * threads))

        best = min(harness.seconds(all_threads, 1) for _ in range(3))
    return 2.0 * lanes * CHAINS * TURNS * threads / best
