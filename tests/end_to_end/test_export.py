"""Programs of torch.export, compiled: closed graphs with weights and limits."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from end_to_end.conftest import Comparison
from torch import nn
from torch.export import Dim, export

Compare = Callable[..., Comparison]


class Model(nn.Module):
    """Weights, a buffer that is written to, a constant, and two forms of input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.steps = torch.arange(8.0)

    def forward(
        self, x: torch.Tensor, parts: dict[str, torch.Tensor]
    ) -> dict[str, Any]:
        self.seen.add_(1)
        y = self.norm(self.linear(x) + self.steps)
        return {"sum": (y * parts["a"]).softmax(-1), "rows": y[1:], "seen": self.seen}


def inputs(rows: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return torch.randn(rows, 8), {"a": torch.randn(rows, 8)}


ROWS = Dim("rows", min=3, max=64)
OPEN = ({0: ROWS}, {"a": {0: ROWS}})


def test_a_program_runs_compiled(compare: Compare) -> None:
    program = export(Model().eval(), inputs(5))
    run = compare(program.module())
    for _ in range(2):
        run(*inputs(5))


def test_open_sizes_stay_open(compare: Compare) -> None:
    program = export(Model().eval(), inputs(5), dynamic_shapes=OPEN)
    run = compare(program.module(), dynamic=True)
    for rows in (3, 64, 4):
        run(*inputs(rows))


def test_a_program_in_core_ops(compare: Compare) -> None:
    program = export(Model().eval(), inputs(5)).run_decompositions()
    compare(program.module())(*inputs(5))


def test_a_program_that_was_saved_and_loaded(compare: Compare) -> None:
    file = io.BytesIO()
    torch.export.save(export(Model().eval(), inputs(5), dynamic_shapes=OPEN), file)
    file.seek(0)
    compare(torch.export.load(file).module(), dynamic=True)(*inputs(9))


def test_a_program_for_training(compare: Compare) -> None:
    run = compare(export(Model(), inputs(5)).module())
    run(*inputs(5), backward=True)


class Branching(nn.Module):
    """Control flow that torch.export keeps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos() + 1, (x,))


def test_control_flow_in_a_program(compare: Compare) -> None:
    run = compare(export(Branching(), (torch.ones(4, 3),)).module())
    for x in (torch.ones(4, 3), -torch.ones(4, 3)):
        run(x)


@pytest.mark.parametrize("rows", [2, 65])
def test_limits_are_checked(rows: int) -> None:
    program = export(Model().eval(), inputs(5), dynamic_shapes=OPEN)
    torch._dynamo.reset()
    compiled = torch.compile(program.module(), backend="fusec")
    with pytest.raises((RuntimeError, AssertionError), match=r"Guard|expected|shape"):
        compiled(*inputs(rows))
