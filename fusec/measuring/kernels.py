"""Kernels that do one thing over and over, as LLVM assembly.

    chains      multiply and add in registers, twelve sums that do not wait for another
    read        read memory
    copy        read memory and write as much
    stream      the same, past the caches
    nothing     start and end

Each is a kernel like any other (see `runtime.launcher_cpu`). Its args are

    trips    of the loop, for each program
    mask     bytes of a program's part of memory, a power of two, less one
    source   what is read, a part for each program
    target   what is written, as much; 64 bytes for each program of what is not `copy`

so that a part which is walked again and again stays in the cache that holds it.
`launches(count, grid, threads)` launches `nothing` that often, without Python between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fusec.runtime.launcher_cpu import PARALLEL
from fusec.target import Target

CHAINS = 12
"""Sums: a multiply-add takes four cycles and two begin in one, on what there is."""
REGISTERS = 8
"""Registers that a trip reads."""

_KERNEL = """
define void @{name}(ptr %args, i64 %lo, i64 %hi) nounwind {{
entry:
  %mask.at = getelementptr i64, ptr %args, i64 1
  %source.at = getelementptr i64, ptr %args, i64 2
  %target.at = getelementptr i64, ptr %args, i64 3
  %count = load i64, ptr %args
  %mask = load i64, ptr %mask.at
  %source = load ptr, ptr %source.at
  %target = load ptr, ptr %target.at
  %part = add i64 %mask, 1
  br label %program

program:
  %p = phi i64 [ %lo, %entry ], [ %p.next, %end ]
  %first = mul i64 %p, %part
  br label %loop

loop:
  %i = phi i64 [ 0, %program ], [ %i.next, %loop ]
  {phis}
  %walked = mul i64 %i, {step}
  %within = and i64 %walked, %mask
  %at = add i64 %first, %within
  {body}
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %count
  br i1 %more, label %loop, label %end

end:
  {end}
  %p.next = add i64 %p, 1
  %others = icmp slt i64 %p.next, %hi
  br i1 %others, label %program, label %done

done:
  ret void
}}
"""

_LAUNCHES = f"""
declare i32 @{PARALLEL}(ptr, ptr, i64, i64)

define void @nothing(ptr %args, i64 %lo, i64 %hi) nounwind {{
  ret void
}}

define void @launches(i64 %count, i64 %grid, i64 %threads) {{
entry:
  br label %loop

loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %loop ]
  %status = call i32 @{PARALLEL}(ptr @nothing, ptr null, i64 %grid, i64 %threads)
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %count
  br i1 %more, label %loop, label %end

end:
  ret void
}}
"""


def text(target: Target) -> str:
    """All of them, for the vectors that a target has."""
    moves = [_copy("copy", target), _copy("stream", target, ", !nontemporal !0")]
    return "\n".join(
        [_chains(target), _read(target), *moves, _LAUNCHES, "!0 = !{i32 1}"]
    )


def bytes_of_trip(target: Target) -> int:
    """What a trip of `read` or `copy` reads."""
    return REGISTERS * target.vector_bits // 8


def _chains(target: Target) -> str:
    lanes = target.lanes(32)
    vector, half = f"<{lanes} x float>", "splat (float 5.0e-01)"
    body: list[str] = []
    for x in (f"%c{n}" for n in range(CHAINS)):
        if target.has("fma"):
            operands = f"{vector} {x}, {vector} {half}, {vector} {half}"
            body.append(f"{x}.n = call {vector} @llvm.fma.v{lanes}f32({operands})")
        else:
            body.append(f"{x}.m = fmul {vector} {x}, {half}")
            body.append(f"{x}.n = fadd {vector} {x}.m, {half}")
    firsts = [f"splat (float {n + 1:e})" for n in range(CHAINS)]
    declared = f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})"
    kernel = _kernel("chains", "c", vector, firsts, body, 0, "fadd")
    return f"{kernel}\n{declared}" if target.has("fma") else kernel


def _read(target: Target) -> str:
    vector, loads = _loads(target)
    body = [*loads, *(f"%c{n}.n = or {vector} %c{n}, %x{n}" for n in range(REGISTERS))]
    firsts = ["zeroinitializer"] * REGISTERS
    return _kernel("read", "c", vector, firsts, body, bytes_of_trip(target), "or")


def _copy(name: str, target: Target, how: str = "") -> str:
    vector, loads = _loads(target)
    stores: list[str] = []
    for n in range(REGISTERS):
        stores.append(f"%t{n} = getelementptr i8, ptr %target, i64 %at{n}")
        align = f"align {target.vector_bits // 8}"
        stores.append(f"store {vector} %x{n}, ptr %t{n}, {align}{how}")
    return _kernel(name, "c", vector, [], [*loads, *stores], bytes_of_trip(target), "")


def _loads(target: Target) -> tuple[str, list[str]]:
    """The type of a register, and what fills %x0 to %x7 from where the trip is."""
    width = target.vector_bits // 8
    vector = f"<{target.lanes(32)} x i32>"
    lines: list[str] = []
    for n in range(REGISTERS):
        lines.append(f"%at{n} = add i64 %at, {n * width}")
        lines.append(f"%s{n} = getelementptr i8, ptr %source, i64 %at{n}")
        lines.append(f"%x{n} = load {vector}, ptr %s{n}, align {width}")
    return vector, lines


def _kernel(
    name: str,
    carried: str,
    vector: str,
    firsts: Sequence[str],
    body: Iterable[str],
    step: int,
    joined: str,
) -> str:
    """A kernel that carries values %c0, … from trip to trip, the next ones %c0.n, …;
    in the end it joins them and writes down what comes of it, for else they were not
    computed."""
    names = [f"%{carried}{n}" for n in range(len(firsts))]
    phis = [
        f"{x} = phi {vector} [ {first}, %program ], [ {x}.n, %loop ]"
        for x, first in zip(names, firsts, strict=True)
    ]
    end: list[str] = []
    last = f"{names[0]}.n" if names else ""
    for x in names[1:]:
        end.append(f"{x}.all = {joined} {vector} {last}, {x}.n")
        last = f"{x}.all"
    if names:
        end.append("%place = mul i64 %p, 64")
        end.append("%result = getelementptr i8, ptr %target, i64 %place")
        end.append(f"store {vector} {last}, ptr %result")
    parts = {"phis": phis, "body": body, "end": end}
    joined_up = {key: "\n  ".join(lines) for key, lines in parts.items()}
    return _KERNEL.format(name=name, step=step, **joined_up)
