"""Random programs of torch ops as data: text to run, to show, and to take apart.

def f(x0, x1):
    v0 = x0 + x1
    v1 = v0.sum(1)
    return v1,
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from fuzz import inputs

NAME = re.compile(r"\b[xv]\d+\b")


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that a program takes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    form: str = "contiguous"
    values: str = "small"
    seed: int = 0
    grad: bool = False

    def tensor(self) -> torch.Tensor:
        return inputs.tensor(
            self.shape,
            getattr(torch, self.dtype),
            self.form,
            self.values,
            self.seed,
            self.grad,
        )

    def text(self) -> str:
        told = f"{self.form!r}, {self.values!r}, {self.seed}, {self.grad}"
        return f"tensor({self.shape}, torch.{self.dtype}, {told})"


@dataclass(frozen=True, slots=True)
class Step:
    """A line of a program. `rule` says how errors go through it, by `fuzz.trust`."""

    result: str
    text: str
    rule: str

    @property
    def operands(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(NAME.findall(self.text)))

    def reading(self, names: dict[str, str]) -> Step:
        """The step with the values that it reads renamed."""
        text = NAME.sub(lambda m: names.get(m.group(), m.group()), self.text)
        return replace(self, text=text)


@dataclass(frozen=True, slots=True)
class Program:
    """A function, what to call it with, and how."""

    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    results: tuple[str, ...]
    mode: str = "direct"
    """direct, dynamo, dynamic, or backward."""
    numerics: str = "eager"
    verify: bool = True
    """Whether every stage is interpreted, too."""
    again: tuple[tuple[int, int], ...] | None = None
    """The extents, as they were and as they are, of a second call of what was
    compiled, with other numbers; None where one call is all."""

    def source(self) -> str:
        lines = [f"    {step.result} = {step.text}" for step in self.steps]
        names = ", ".join(each.name for each in self.inputs)
        results = ", ".join(self.results)
        return "\n".join([f"def f({names}):", *lines, f"    return {results},\n"])

    def function(self) -> Callable[..., Any]:
        env: dict[str, Any] = {"torch": torch, "F": torch.nn.functional}
        exec(self.source(), env)
        return env["f"]

    def arguments(self) -> list[torch.Tensor]:
        return [each.tensor() for each in self.inputs]

    def calls(self) -> tuple[Program, ...]:
        """The program by each call, with the inputs of that call."""
        if self.again is None:
            return (self,)
        extents = dict(self.again)
        later = tuple(
            replace(
                each,
                shape=tuple(extents.get(n, n) for n in each.shape),
                seed=each.seed + 1,
            )
            for each in self.inputs
        )
        return self, replace(self, inputs=later)

    def options(self) -> dict[str, Any]:
        """What fusec is told to do."""
        return {"verify": self.verify, "numerics": self.numerics}

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Program:
        data = json.loads(text)
        made = [Input(**{**x, "shape": tuple(x["shape"])}) for x in data["inputs"]]
        steps = tuple(Step(**x) for x in data["steps"])
        pairs = data["again"]
        again = None if pairs is None else tuple((a, b) for a, b in pairs)
        parts = {"inputs": tuple(made), "steps": steps, "again": again}
        return Program(**{**data, **parts, "results": tuple(data["results"])})

    def live(self) -> Program:
        """Without the steps and inputs that no result depends on.

        A step that writes in place is kept.
        """
        needed = set(self.results)
        kept: list[Step] = []
        for step in reversed(self.steps):
            if step.result in needed or step.rule == "written":
                needed.update(step.operands)
                kept.append(step)
        used = tuple(x for x in self.inputs if x.name in needed)
        return replace(self, steps=tuple(reversed(kept)), inputs=used or self.inputs)

    def names(self) -> Iterator[str]:
        yield from (x.name for x in self.inputs)
        yield from (x.result for x in self.steps)


def snippet(program: Program, why: str) -> str:
    """A file that shows a program fail by itself; `fusec dump FILE:f` takes it too."""
    told = "\n".join(f"# {line}" for line in why.strip().splitlines())
    calls = [
        "\n".join(f"        {each.text()}," for each in call.inputs)
        for call in program.calls()
    ]
    parts = [
        told,
        inspect.getsource(inputs).split('"""', 2)[2].strip(),
        program.source().replace("F.", "torch.nn.functional.").strip(),
        f"def f_inputs():\n    return (\n{calls[0]}\n    )",
        *[f"def f_later():\n    return (\n{later}\n    )" for later in calls[1:]],
        _COMPARED.format(
            dynamic=", dynamic=True" if program.mode == "dynamic" else "",
            options={**program.options(), "fallback": False},
            inputs="f_inputs, f_later" if calls[1:] else "f_inputs,",
            seen=_GRADS if program.mode == "backward" else "results, arguments",
        ),
    ]
    return "\n\n\n".join(parts)


_GRADS = """results, torch.autograd.grad(
        sum(x.sum() for x in results if x.requires_grad),
        [x for x in arguments if x.requires_grad],
        allow_unused=True,
    )"""
_COMPARED = """\
def call(g, inputs):
    arguments = inputs()
    results = g(*arguments)
    return {seen}


if __name__ == "__main__":
    options = {options}
    compiled = torch.compile(f, backend="fusec", options=options{dynamic})
    for inputs in ({inputs}):
        made, wanted = call(compiled, inputs), call(f, inputs)
        torch.testing.assert_close(made, wanted, equal_nan=True)
"""
