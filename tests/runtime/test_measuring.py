"""Races: fair, wary of luck, and none is lost but who crashes or hangs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import pytest

from fusec.codegen.llvm_launcher import TEXT as LAUNCHER
from fusec.codegen.llvm_object import compile_object
from fusec.runtime.measuring import (
    Code,
    Drawn,
    Inputs,
    Measuring,
    NativeCode,
    Place,
    interleaved,
    race,
)
from fusec.runtime.workers import Lost

Times = Callable[[], float]


def samples(*candidates: Times) -> Callable[[int], float]:
    return lambda k: candidates[k]()


def always(seconds: float) -> Times:
    return lambda: seconds


def lost() -> float:
    raise Lost("gone")


def alternating(*values: float) -> Times:
    ticks = count()
    return lambda: values[next(ticks) % len(values)]


def test_the_fastest_wins_with_its_gain() -> None:
    verdict = race(samples(always(2.0), always(1.0), always(1.2)), 3)
    assert (verdict.best, verdict.gain) == (1, 2.0)
    assert verdict.seconds == (2.0, 1.0, 1.2)


@pytest.mark.parametrize(
    "other",
    [
        always(1.0),
        always(3.0),
        always(0.99),  # too little to be worth it
        alternating(0.5, 0.9, 1.4, 0.7),  # ahead by less than it spreads
        alternating(*[0.5] * 3, *[2.0] * 11),  # lucky in the heats alone
    ],
)
def test_the_default_stays_where_nothing_is_surely_faster(other: Times) -> None:
    verdict = race(samples(always(1.0), other), 2, rounds=3, final=11)
    assert (verdict.best, verdict.gain) == (0, 1.0)


def test_who_is_lost_drops_out_alone() -> None:
    verdict = race(samples(always(2.0), lost, always(1.0)), 3)
    assert (verdict.best, verdict.seconds) == (2, (2.0, None, 1.0))
    fails_in_the_final = iter([0.5] * 3)
    broken = samples(always(2.0), lambda: next(fails_in_the_final, None) or lost())
    assert race(broken, 2, rounds=3).best == 0


def test_without_a_default_there_is_no_verdict() -> None:
    with pytest.raises(Lost, match="default does not run"):
        race(samples(lost, always(1.0)), 2)


def test_each_round_begins_with_another_and_the_hopeless_run_once() -> None:
    calls: list[int] = []

    def sample(k: int) -> float:
        calls.append(k)
        return 9.0 if k == 2 else 1.0

    found = interleaved(sample, range(3), 3)
    assert calls == [0, 1, 2, 1, 0, 0, 1]
    assert [len(found[k]) for k in range(3)] == [3, 3, 1]


# In a worker

KERNEL = """
define void @kernel(ptr %args, i64 %lo, i64 %hi) {{
entry:
  %x = load ptr, ptr %args
  %slot = getelementptr i64, ptr %args, i64 1
  %n = load i64, ptr %slot
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %at = getelementptr float, ptr %x, i64 %i
  {body}
  %next = add i64 %i, {step}
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}}
declare void @llvm.trap()
"""
TURN = "%v = load volatile float, ptr %at\n  store volatile float %v, ptr %at"


@pytest.fixture(scope="module")
def launcher() -> bytes:
    return compile_object(LAUNCHER, "x86-64", "")


def code(launcher: bytes, body: str = TURN, step: int = 1) -> Code:
    text = KERNEL.format(body=body, step=step)
    return NativeCode("kernel", (compile_object(text, "x86-64", ""), launcher), grid=2)


INPUTS = Inputs((Drawn("f32", 4096, 16384),), (4096,))


def raced(codes: Sequence[Code], patience: float = 30.0) -> tuple[float | None, ...]:
    with Measuring(Place(threads=1), patience) as measuring:
        found = measuring.race(INPUTS, codes).seconds
        again = measuring.race(INPUTS, codes[:1]).seconds  # on other buffers
    assert again[0] is not None
    return found


def test_a_kernel_that_crashes_or_hangs_loses_itself_only(launcher: bytes) -> None:
    trap = code(launcher, body="call void @llvm.trap()")
    endless = code(launcher, step=0)
    broken = NativeCode("kernel", (b"no object", launcher), grid=1)
    codes = [code(launcher), trap, broken, endless, code(launcher, step=64)]
    seconds = raced(codes, patience=2.0)
    assert seconds[1:4] == (None, None, None)
    assert seconds[0] is not None
    assert seconds[4] is not None
    assert min(seconds[0], seconds[4]) > 0


def test_buffers_of_every_kind_are_drawn(launcher: bytes) -> None:
    kinds = ("f32", "f16", "bf16", "f64", "f8e5m2", "i8", "i64", "u16", "bool", "u4")
    buffers = tuple(Drawn(name, 64, 512, below=3) for name in kinds)
    with Measuring(Place(threads=1)) as measuring:
        inputs = Inputs(buffers, ())
        text = "define void @kernel(ptr %args, i64 %lo, i64 %hi) { ret void }"
        made = NativeCode("kernel", (compile_object(text, "x86-64", ""), launcher), 1)
        assert measuring.race(inputs, [made]).best == 0
