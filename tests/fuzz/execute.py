"""Programs in eager torch, step by step, with the trust that each value deserves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from fuzz.programs import NAME, Input, Program, Step
from fuzz.trust import RULES, Seen, Trust, Untrusted, kept_wide


class Execution:
    """The values of a program while it runs."""

    def __init__(self, mode: str = "direct", numerics: str = "eager") -> None:
        self.mode = mode
        self.numerics = numerics
        self.values: dict[str, torch.Tensor] = {}
        self.trusts: dict[str, Trust] = {}
        self._env: dict[str, Any] = {"torch": torch, "F": torch.nn.functional}

    def enter(self, given: Input) -> None:
        self._keep(given.name, given.tensor(), Trust())

    def execute(self, step: Step, at_most: int = 10**6) -> torch.Tensor:
        """The step's result. Raises `Untrusted` where no result can be relied on."""
        read = [self.values[name] for name in step.operands]
        trusts = [self.trusts[name] for name in step.operands]
        if step.rule == "written":
            self._check_written(step)
        if step.rule == "chosen" and self.mode == "backward":
            self._check_exact(step)
        try:
            made = eval(step.text, self._env)
        except Exception as error:
            raise Untrusted from error
        if (
            not isinstance(made, torch.Tensor)
            or made.numel() > at_most
            or made.dim() > 5
        ):
            raise Untrusted
        if overlaps(made) and _place(made) not in map(_place, read):
            raise Untrusted  # results that were written over one another
        with torch.no_grad():
            seen = Seen(
                [x.detach() for x in read], trusts, made.detach(), self._replayed(step)
            )
            self._keep(step.result, made, self._trust(step.rule, seen))
        if step.rule == "written":
            self._share(made, self.trusts[step.result])
        return made

    def _replayed(self, step: Step) -> Callable[[Sequence[torch.Tensor]], torch.Tensor]:
        """The step as a function of its operands."""

        def replay(operands: Sequence[torch.Tensor]) -> torch.Tensor:
            given = dict(zip(step.operands, operands, strict=True))
            return eval(step.text, {**self._env, **given})

        return replay

    def _trust(self, rule: str, seen: Seen) -> Trust:
        trust = RULES[rule](seen)
        return kept_wide(seen, trust) if self.numerics == "fast" else trust

    def _keep(self, name: str, value: torch.Tensor, trust: Trust) -> None:
        self.values[name] = self._env[name] = value
        self.trusts[name] = trust

    def _check_written(self, step: Step) -> None:
        """Before memory changes: a step that is refused must not have run.

        Of memory that is read elsewhere while it is written, eager promises nothing.
        """
        self._check_exact(step)
        read = [self.values[name] for name in NAME.findall(step.text)]
        places = [_place(value) for value in read]
        beside = [x for x in self.values.values() if _place(x) in places]
        if len(set(places)) < len(places) or any(map(overlaps, beside)):
            raise Untrusted

    def _check_exact(self, step: Step) -> None:
        """For a gradient goes to whichever element is chosen."""
        if not all(self.trusts[name].exact for name in step.operands):
            raise Untrusted

    def _share(self, written: torch.Tensor, trust: Trust) -> None:
        """What shares memory with a value that was written to is as good as it."""
        place = _place(written)
        for name, value in self.values.items():
            if _place(value) == place:
                old = self.trusts[name]
                signed = old.signed and trust.signed
                self.trusts[name] = Trust(max(old.error, trust.error), signed)


def _place(x: torch.Tensor) -> int:
    """What tensors in one memory have in common."""
    return x.untyped_storage().data_ptr()


def overlaps(x: torch.Tensor) -> bool:
    """Whether two elements of a tensor are in one place."""
    if _nested(x):
        return False
    room = x.untyped_storage().nbytes() // x.itemsize
    places = torch.arange(room).as_strided(x.shape, x.stride(), x.storage_offset())
    return places.unique().numel() < x.numel()


def _nested(x: torch.Tensor) -> bool:
    """Whether each stride is beyond all that smaller ones reach: no two meet then."""
    reach = 0
    for stride, extent in sorted(zip(x.stride(), x.shape, strict=True)):
        if extent > 1 and stride <= reach:
            return False
        reach += (extent - 1) * stride
    return True


def execute(program: Program) -> Execution:
    """A whole program. Raises `Untrusted` where it is no test of anything."""
    run = Execution(program.mode, program.numerics)
    for each in program.inputs:
        run.enter(each)
    for step in program.steps:
        if not set(step.operands) <= set(run.values):
            raise Untrusted
        run.execute(step)
    if not set(program.results) <= set(run.values):
        raise Untrusted
    return run
