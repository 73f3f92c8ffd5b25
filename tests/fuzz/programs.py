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

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Program:
        data = json.loads(text)
        made = [Input(**{**x, "shape": tuple(x["shape"])}) for x in data["inputs"]]
        steps = tuple(Step(**x) for x in data["steps"])
        return Program(tuple(made), steps, tuple(data["results"]), data["mode"])

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
    arguments = "\n".join(f"        {each.text()}," for each in program.inputs)
    parts = [
        told,
        inspect.getsource(inputs).split('"""', 2)[2].strip(),
        program.source().replace("F.", "torch.nn.functional.").strip(),
        f"def f_inputs():\n    return (\n{arguments}\n    )",
        _COMPARED.format(
            dynamic=", dynamic=True" if program.mode == "dynamic" else "",
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
def call(g):
    arguments = f_inputs()
    results = g(*arguments)
    return {seen}


if __name__ == "__main__":
    options = {{"verify": True, "fallback": False}}
    compiled = torch.compile(f, backend="fusec", options=options{dynamic})
    torch.testing.assert_close(call(compiled), call(f), equal_nan=True)
"""
