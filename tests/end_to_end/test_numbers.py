"""Numbers that only the call knows: arguments, elements of tensors, sizes found out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from end_to_end.conftest import Agree

X = torch.linspace(-2, 2, 50).reshape(10, 5)


@pytest.fixture(autouse=True)
def capture_numbers() -> Iterator[None]:
    names = ("capture_scalar_outputs", "capture_dynamic_output_shape_ops")
    with torch._dynamo.config.patch(dict.fromkeys(names, True)):
        yield


ITEMS = {
    "factor": (lambda x, n: x * n.item() + 1, torch.tensor(2.5)),
    "whole factor": (lambda x, n: x * n.item() + 1, torch.tensor(-3)),
    "alpha": (lambda x, n: torch.add(x, x, alpha=n.item()), torch.tensor(2.5)),
    "sub alpha": (lambda x, n: torch.sub(x, x + 1, alpha=n.item()), torch.tensor(3)),
    "clamp": (lambda x, n: x.clamp(max=n.item()), torch.tensor(0.5)),
    "condition": (lambda x, n: torch.where(x > 0, x, float(n.item())), torch.tensor(1)),
    "arithmetic": (lambda x, n: x * (n.item() * 2 + 1) / n.item(), torch.tensor(2.5)),
    "fill": (lambda x, n: torch.full((3,), n.item()) + x[0, :3], torch.tensor(0.1)),
    "pad": (lambda x, n: torch.constant_pad_nd(x, (1, 2), n.item()), torch.tensor(7.0)),
    "returned": (lambda x, n: (x + 1, n.item() * 3), torch.tensor(5)),
    "slice": (lambda x, n: x[: n.item()] * 2, torch.tensor(4)),
    "zeros": (lambda x, n: torch.zeros(n.item()) + x[0, 0], torch.tensor(4)),
    "narrow": (lambda x, n: torch.narrow(x, 0, n.item(), 3) * 2, torch.tensor(2)),
    "narrow from the end": (lambda x, n: torch.narrow(x, 0, n, 3), torch.tensor(-5)),
    "split": (lambda x, n: [y * 2 for y in torch.tensor_split(x, n)],
              torch.tensor([2, 5])),
    "views": (lambda x, n: [*torch.tensor_split(x, n), x[n[0].item():]],
              torch.tensor([2, 5])),
    "take": (lambda x, n: torch.take(x, n) + 1, torch.tensor([2, 5, 49])),
    "nonzero": (lambda x, n: (x > n).nonzero() * 2, torch.tensor(0.0)),
    "mask": (lambda x, n: x[x > n].exp().sum(), torch.tensor(0.5)),
    "unique": (lambda x, n: torch.unique((x > n).int()) + 1, torch.tensor(0.0)),
}  # fmt: skip


if torch.__version__ >= "2.13":  # before, torch wants to know whether n is 1
    ITEMS["power"] = (lambda x, n: x.abs() ** n.item(), torch.tensor(1.5))


@pytest.mark.parametrize("name", ITEMS)
def test_elements_of_tensors(agree: Agree, name: str) -> None:
    f, n = ITEMS[name]
    agree(f, X, n, fullgraph=True)


def test_an_element_that_is_not_a_number_of_its_dtype(agree: Agree) -> None:
    for n in (float("nan"), float("inf"), -0.0):
        agree(lambda x, n: 1 / (x * 0 + n.item()), X, torch.tensor(n))


ARGUMENTS = {
    "sum": lambda x, n: (x * n).sum() + n,
    "full": lambda x, n: torch.full((3,), n) + x[0, :3],
    "alone": lambda x, n: (x + 1, n * 2),
    "size and number": lambda x, n: x * x.shape[0] + n / x.shape[1],
    "comparison": lambda x, n: x if n > 2 else -x,
}


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize(
    "numbers", [(3, 5, -4), (2.5, 0.5, -1.25)], ids=["int", "float"]
)
def test_arguments_that_vary(agree: Agree, name: str, numbers: Any) -> None:
    for n in numbers:
        agree(ARGUMENTS[name], X, n, dynamic=True)


NEGATIVE = {
    "quotients": lambda x, n: x + n // 2 + n % 3,
    "divisors": lambda x, n: x * (7 // n) + 9 % n,
    "row": lambda x, n: x[n] * 2,
    "rows from": lambda x, n: x[n:] * 2,
    "rows to": lambda x, n: x[:n].exp(),
    "written row": lambda x, n: torch.select_scatter(x, x[0] * 0, 0, n),
    "written rows": lambda x, n: torch.slice_scatter(x, x[:2] * 0, 0, n, n + 2),
    "diagonal": lambda x, n: torch.tril(x, n) + 1,
    "rolled": lambda x, n: x.roll(n, 0),
}


@pytest.mark.parametrize("name", NEGATIVE)
def test_whole_numbers_of_either_sign(agree: Agree, name: str) -> None:
    for n in (-7, 5, -3, 2):
        agree(NEGATIVE[name], X, n, dynamic=True)


PLACED = {
    "rows": lambda x, n: torch.narrow(x, 0, n, 2),
    "beside a result": lambda x, n: (torch.narrow(x, 0, n, 2), x + 1),
    "a view of a view": lambda x, n: torch.narrow(x.t(), 1, n, 2)[1:],
    "one row": lambda x, n: x[n.item()],
    "a part of one": lambda x, n: x.t().select(1, n.item())[2:],
}


@pytest.mark.parametrize("name", PLACED)
def test_views_that_begin_where_data_says(agree: Agree, name: str) -> None:
    """They are views of the argument still, not copies."""
    for n in (3, -6, 0):
        agree(PLACED[name], X, torch.tensor(n), fullgraph=True)
