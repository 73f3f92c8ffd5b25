"""Sizes left open: one program for all of them, and the limits that users set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from end_to_end.conftest import Comparison

Compare = Callable[..., Comparison]

WEIGHT = torch.randn(16, 16) * 0.1


def block(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Norms, products, views and sizes as numbers."""
    y = F.layer_norm(x, x.shape[-1:]) @ WEIGHT
    scaled = (y / x.shape[0]).softmax(0)
    return scaled.reshape(-1, 8).sum(1), torch.cat([x, y])[x.shape[0] - 1 :], y.t()


@pytest.mark.parametrize("backward", [False, True], ids=["inference", "training"])
def test_dynamic_compiles_once_for_all_sizes(compare: Compare, backward: bool) -> None:
    f = compare(block, dynamic=True, fullgraph=True)
    for rows in (5, 2, 64, 333):
        f(torch.randn(rows, 16, requires_grad=backward), backward=backward)
    assert f.compilations == 1 + backward


def test_the_second_size_makes_sizes_open(compare: Compare) -> None:
    f = compare(block)
    for rows in (5, 6, 7, 100):
        f(torch.randn(rows, 16))
    assert f.compilations == 2


@pytest.mark.parametrize("backward", [False, True], ids=["inference", "training"])
def test_marked_dimensions_stay_open_within_their_limits(
    compare: Compare, backward: bool
) -> None:
    f = compare(block, fullgraph=True)
    for rows in (4, 17, 64):
        x = torch.randn(rows, 16, requires_grad=backward)
        torch._dynamo.mark_dynamic(x, 0, min=4, max=64)
        f(x, backward=backward)
    assert f.compilations == 1 + backward


def test_a_size_beyond_its_limits_is_compiled_anew(compare: Compare) -> None:
    f = compare(block, fullgraph=True)
    for rows, count in ((8, 1), (64, 1), (65, 2), (3, 2)):
        x = torch.randn(rows, 16)
        if rows == 8:
            torch._dynamo.mark_dynamic(x, 0, min=4, max=64)
        f(x)
        assert f.compilations == count, rows


def test_marked_static_sizes_are_constants(compare: Compare) -> None:
    f = compare(lambda x: x * x.shape[0] + x.shape[1], dynamic=True)
    for rows in (3, 4):
        x = torch.randn(rows, 5)
        torch._dynamo.mark_static(x, 0)
        f(x)
    assert f.compilations == 2


UNBACKED: dict[str, Callable[[torch.Tensor], Any]] = {
    "pointwise": lambda x: x.sin() * 2 + 1,
    "row sums": lambda x: (x * 3).sum(1),
    "column sums": lambda x: x.exp().sum(0),
    "softmax": lambda x: x.softmax(-1),
    "product": lambda x: (x @ WEIGHT).relu(),
    "concatenated": lambda x: torch.cat([x, x + 1]),
    "size": lambda x: x + x.shape[0],
    "padded": lambda x: F.pad(x, (0, 0, 1, 2)) * 2,
}


@pytest.mark.parametrize("name", UNBACKED)
def test_sizes_of_which_nothing_is_known(compare: Compare, name: str) -> None:
    """One program for any size, 0 and 1 among them."""
    f = compare(UNBACKED[name], fullgraph=True)
    for rows in (7, 1, 0, 2, 40):
        x = torch.randn(rows, 16)
        torch._dynamo.decorators.mark_unbacked(x, 0)
        f(x)
    assert f.compilations == 1


def test_declared_facts_about_unbacked_sizes(compare: Compare) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        torch._check(x.shape[0] % 4 == 0)
        return x.reshape(-1, 4, 16).sum(1) * 2

    run = compare(f, fullgraph=True)
    for rows in (8, 4, 40):
        x = torch.randn(rows, 16)
        torch._dynamo.decorators.mark_unbacked(x, 0)
        run(x)
    assert run.compilations == 1


def counted(x: torch.Tensor) -> int:
    return int((x > 0).sum().item())


TOLD: dict[str, Callable[[torch.Tensor], Any]] = {
    "number": lambda x: x * counted(x),
    "size": lambda x: (x * 2, torch.zeros(counted(x)) + 1),
    "both": lambda x: (x * counted(x), torch.zeros(counted(x)) + 1, x.nonzero()),
    "of another tensor": lambda x: (x * x.nonzero().shape[0], x.sum(0)),
    "of a kernel's": lambda x: (x.exp().sum(0), x.exp() * counted(x.exp() - 1)),
}


@pytest.mark.parametrize("name", TOLD)
@torch._dynamo.config.patch(
    capture_scalar_outputs=True, capture_dynamic_output_shape_ops=True
)
def test_numbers_that_data_tell_are_read_after_they_are_told(
    compare: Compare, name: str
) -> None:
    """What reads one is not fused into what it comes from."""
    run = compare(TOLD[name], fullgraph=True)
    for end in (1.0, 3.0, 0.0, -0.5):
        run(torch.linspace(-1, end, 9))


SEVERAL: dict[str, Callable[..., Any]] = {
    "outer": lambda x, y: x[:, None] * y[None, :] + x.shape[0],
    "concatenated": lambda x, y: torch.cat([x, y, x]) * y.shape[0],
    "repeated": lambda x, y: x.repeat(y.shape[0]).reshape(y.shape[0], -1).sum(0),
    "windows": lambda x, y: x.unfold(0, 2, 1).sum(1).sum() + y,
    "strides": lambda x, y: (x[:, None] + y).t() * 2,
    "mean": lambda x, y: (x.mean() + y.var(correction=0)) / (x.shape[0] + y.shape[0]),
    "sizes": lambda x, y: (x.shape[0] * y.shape[0] // 2, x + 1),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_open_sizes(compare: Compare, name: str) -> None:
    f = compare(SEVERAL[name], dynamic=True, fullgraph=True)
    for m, n in ((5, 7), (7, 5), (3, 30), (12, 4)):
        f(torch.randn(m), torch.randn(n))
    assert f.compilations == 1


def test_equal_sizes_do_not_stay_equal(compare: Compare) -> None:
    f = compare(lambda x, y: (x * 2, y.exp(), x.shape[0] + y.shape[0]), dynamic=True)
    for m, n in ((5, 5), (5, 6), (9, 4)):
        f(torch.randn(m), torch.randn(n))
    assert f.compilations == 2


def test_strides_of_arguments_may_vary(compare: Compare) -> None:
    f = compare(lambda x: (x * 2 + x.sum(0), x.t().reshape(-1)), dynamic=True)
    base = torch.randn(24, 30)
    for x in (base, base.t(), base[:, ::2], base[3:, 1:], base[::3, :7].t()):
        f(x)


def test_a_module_in_training_on_varying_batches(compare: Compare) -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 12), torch.nn.BatchNorm1d(12), torch.nn.GELU()
    )
    run = compare(model, dynamic=True)
    for rows in (4, 9, 31):
        run(torch.randn(rows, 6), backward=True)
    assert run.compilations == 2
