"""Making a failing program small, while it fails in the same way.

Each rule proposes simpler programs; the first that still fails is taken, until none
does. A program whose eager run raises, or that no longer says anything, does not fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from fuzz.execute import Execution, execute
from fuzz.programs import Input, Program, Step
from fuzz.trust import Untrusted

Fails = Callable[[Program], bool]
"""Whether a program fails, in the way that is looked for."""


def shrink(program: Program, fails: Fails, *, attempts: int = 400) -> Program:
    """The smallest program found in so many runs."""
    tried = {program}
    found = True
    while found:
        found = False
        for candidate in simpler(program):
            if candidate in tried or not _valid(candidate):
                continue
            if len(tried) > attempts:
                return program
            tried.add(candidate)
            if fails(candidate):
                program, found = candidate, True
                break
    return program


def simpler(program: Program) -> Iterator[Program]:
    """Programs that are a little less, the least first."""
    for rule in (
        called_once,
        one_result,
        cut_short,
        without_steps,
        results_of_operands,
        steps_as_inputs,
        plainer_modes,
        plainer_inputs,
        smaller_inputs,
    ):
        yield from rule(program)


def _valid(program: Program) -> bool:
    try:
        execute(program)
    except Untrusted:
        return False
    return True


def called_once(program: Program) -> Iterator[Program]:
    for again in (None, ()):
        if program.again not in (None, again):
            yield replace(program, again=again)


def one_result(program: Program) -> Iterator[Program]:
    if len(program.results) > 1:
        for name in program.results:
            yield replace(program, results=(name,)).live()
        for name in program.results:
            rest = tuple(r for r in program.results if r != name)
            yield replace(program, results=rest).live()


def cut_short(program: Program) -> Iterator[Program]:
    """The first half of the steps, and fewer."""
    for k in range(1, len(program.steps)):
        steps = program.steps[:k]
        yield replace(program, steps=steps, results=(steps[-1].result,)).live()


def without_steps(program: Program) -> Iterator[Program]:
    """Each step left out, what it read taking the place of what it made."""
    for k, step in enumerate(program.steps):
        for operand in step.operands:
            names = {step.result: operand}
            rest = tuple(each.reading(names) for each in program.steps[k + 1 :])
            results = tuple(dict.fromkeys(names.get(r, r) for r in program.results))
            steps = program.steps[:k] + rest
            yield replace(program, steps=steps, results=results).live()


def results_of_operands(program: Program) -> Iterator[Program]:
    made = {step.result: step for step in program.steps}
    for k, name in enumerate(program.results):
        for operand in made[name].operands if name in made else ():
            results = list(program.results)
            results[k] = operand
            yield replace(program, results=tuple(dict.fromkeys(results))).live()


def steps_as_inputs(program: Program) -> Iterator[Program]:
    """What a step makes given from outside, in the same shape and dtype."""
    try:
        run = execute(program)
    except Untrusted:
        return
    for k, step in reversed(list(enumerate(program.steps))):
        made = _as_input(step, k, run, program)
        names = {step.result: made.name}
        rest = tuple(each.reading(names) for each in program.steps[k + 1 :])
        results = tuple(names.get(r, r) for r in program.results)
        if set(results) == {made.name}:
            continue
        given = (*program.inputs, made)
        steps = program.steps[:k] + rest
        yield replace(program, inputs=given, steps=steps, results=results).live()


def _as_input(step: Step, k: int, run: Execution, program: Program) -> Input:
    value = run.values[step.result]
    number = 1 + max(int(each.name[1:]) for each in program.inputs)
    values = "normal" if value.is_floating_point() else "small"
    dtype = str(value.dtype).removeprefix("torch.")
    grad = value.requires_grad
    return Input(f"x{number}", tuple(value.shape), dtype, values=values, grad=grad)


def plainer_modes(program: Program) -> Iterator[Program]:
    if program.mode in ("dynamo", "dynamic"):
        yield replace(program, mode="direct")
    if program.numerics != "eager":
        yield replace(program, numerics="eager")
    if not program.verify:
        yield replace(program, verify=True)


def plainer_inputs(program: Program) -> Iterator[Program]:
    for k, each in enumerate(program.inputs):
        for changed in (
            replace(each, form="contiguous"),
            replace(each, values="small", seed=0),
            replace(each, seed=0),
            replace(each, values="normal"),
            replace(each, dtype="float32"),
        ):
            if changed != each:
                yield _with_input(program, k, changed)


def smaller_inputs(program: Program) -> Iterator[Program]:
    """One extent everywhere, or in one place, made less; or a dimension left out."""
    extents = sorted(
        {n for x in program.inputs for n in x.shape if n > 1}, reverse=True
    )
    for n in extents:
        for less in dict.fromkeys((2, 3, n // 2, n - 1)):
            if 1 < less < n:
                yield _resized(program, n, less)
    for k, each in enumerate(program.inputs):
        for d, n in enumerate(each.shape):
            shape = each.shape[:d] + each.shape[d + 1 :]
            yield _with_input(program, k, replace(each, shape=shape))
            if n > 1:
                less = (*each.shape[:d], 1, *each.shape[d + 1 :])
                yield _with_input(program, k, replace(each, shape=less))


def _resized(program: Program, n: int, less: int) -> Program:
    inputs = tuple(
        replace(x, shape=tuple(less if m == n else m for m in x.shape))
        for x in program.inputs
    )
    return replace(program, inputs=inputs)


def _with_input(program: Program, k: int, changed: Input) -> Program:
    inputs = (*program.inputs[:k], changed, *program.inputs[k + 1 :])
    return replace(program, inputs=inputs)
