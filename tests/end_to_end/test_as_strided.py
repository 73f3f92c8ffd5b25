"""as_strided counts places in memory: of its operand's, from where that begins."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

X = torch.arange(24.0).reshape(4, 6)

TAKEN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gaps": lambda x: x.as_strided((3, 2), (8, 2)) * 2,
    "of what is computed": lambda x: (x * 2).as_strided((2, 2), (1, 6), 3),
    "of another order": lambda x: (x.t() + 1).as_strided((2, 3), (1, 6), 2) * 2,
    "of a row": lambda x: x[1:].as_strided((2, 2), (1, 6), 3) + 1,
    "of a row, from there": lambda x: x[1:].as_strided((2, 2), (1, 6)) + 1,
    "of a computed row": lambda x: (x * 2)[1:].as_strided((2, 2), (1, 6), 3),
    "of a computed row, from there": lambda x: (x * 2)[1:].as_strided((2,), (5,)) + 1,
    "of a transposed part": lambda x: (x + 1)[1:, 2:].t().as_strided((2, 2), (6, 1), 2),
    "twice": lambda x: x.as_strided((3, 2), (8, 2), 1).as_strided((2,), (5,), 3) * 2,
    "twice, computed": lambda x: (
        (x + 1).as_strided((3, 2), (8, 2), 1).as_strided((2,), (5,))
    ),
    "one of several": lambda x: (x * 2).split(2)[1].as_strided((2,), (5,)) + 1,
    "copied": lambda x: torch.as_strided_copy((x + 1)[1:], (2, 2), (1, 6), 3),
    "overlapping": lambda x: x.as_strided((3, 3), (1, 1), 1) * 2,
    "written to": lambda x: (y := x * 2).as_strided((2,), (7,), 3).fill_(7) + y[0, 0],
}

ARGUMENTS = {
    "whole": X,
    "part of a memory": torch.arange(40.0)[7:31].view(4, 6),
    "with gaps": torch.arange(60.0).as_strided((4, 6), (13, 2), 1),
    "transposed": torch.arange(24.0).view(6, 4).t(),
}


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_places_in_memory(argument: str, verify: bool) -> None:
    x = ARGUMENTS[argument]

    def f(x: torch.Tensor) -> list[torch.Tensor]:
        return [take(x) for take in TAKEN.values()]

    torch._dynamo.reset()
    compiled = torch.compile(f, backend="fusec", options={"verify": verify})
    for name, got, want in zip(TAKEN, compiled(x), f(x), strict=True):
        assert torch.equal(got, want), name
        assert got.stride() == want.stride(), name


VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "from the beginning": lambda x: x.as_strided((3,), (1,), 1),
    "a part of that": lambda x: x.as_strided((3,), (1,), 1)[1:],
    "from there": lambda x: x[1:].as_strided((3,), (1,)),
    "both": lambda x: x[1:].as_strided((3,), (1,), 2)[1:].as_strided((1,), (1,)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_an_argument_wherever_it_begins(name: str) -> None:
    """One program serves arguments that begin at any place in their memory."""
    base, f = torch.arange(20.0), VIEWS[name]
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: (f(x), x + 1), backend="fusec")
    for start in (3, 6, 0):
        x = base[start : start + 5]
        (got, _), want = compiled(x), f(x)
        assert torch.equal(got, want)
        assert got.data_ptr() == want.data_ptr()


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.float64])
def test_places_in_memory_of_another_type(argument: str, dtype: torch.dtype) -> None:
    """What fills its memory is read; a part of one is left to ATen, with a warning."""
    x = ARGUMENTS[argument]
    if dtype.itemsize != x.itemsize and (x.stride(-1) != 1 or x.storage_offset() % 2):
        pytest.skip("torch has no such view")

    def f(x: torch.Tensor) -> torch.Tensor:
        y = x.view(dtype)
        return y.as_strided((3, 2), (2, 1)) + y.as_strided((3, 2), (1, 2), 1)

    torch._dynamo.reset()
    assert torch.equal(torch.compile(f, backend="fusec")(x), f(x))
