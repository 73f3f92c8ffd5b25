"""What fuzzing found, made small: each program once differed from eager torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from end_to_end.conftest import Agree
from torch.nn import functional as F

EMPTY = torch.empty(0, 2)
X = torch.tensor([0, 5, 11])
INDEX = torch.arange(33 * 33).reshape(33, 33)

FOUND: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "a flat view of nothing": (lambda x: x.exp().flatten(), (EMPTY,)),
    "nothing, repeated": (lambda x: x.flatten().repeat(1, 1), (EMPTY,)),
    "nothing, at the end": (
        lambda x: x.narrow(0, 2, 0).repeat_interleave(2, 0),
        (torch.ones(2),),
    ),
    "checks of a last, partial block": (
        lambda x: x.take((x % 33 - 5).flatten()) + x.take((x % 7).flatten()),
        (INDEX,),
    ),
    "a call on numbers that were computed": (
        lambda x, y: (x + 1) // y,
        (torch.tensor(3), torch.tensor(True)),
    ),
    "the sum of what is expanded and what is not, in memory": (
        lambda x, y: ((x + y).take(torch.tensor([0, 5, 9])), (x + y).exp()),
        (torch.randn(1, 4).expand(3, 4), torch.randn(3, 4)),
    ),
    "a cast of elements that overlap, in memory": (
        lambda x: (x.double().take(torch.tensor([0, 3])), x.half().take(X)),
        (torch.arange(6.0).as_strided((3, 4), (1, 1)),),
    ),
    "a view that an expanded argument has": (
        lambda x: torch.meshgrid(x, x, indexing="ij")[0].reshape(64, 1) * 2,
        (torch.ones(1).expand(8),),
    ),
    "elements by their place in memory": (
        lambda x: (
            x.repeat(2, 1).contiguous().as_strided((2, 12), (1, 2)),
            x.reshape(4, 3).t().contiguous().as_strided((4, 3), (3, 1)) + 1,
        ),
        (torch.arange(12.0),),
    ),
    "zeros within a bound": (
        lambda x: (x.relu(), x.clamp(min=0), x.clamp(max=-0.0), F.relu6(x), -x.relu()),
        (torch.tensor([-0.0, 0.0, math.nan, -math.inf, math.inf, 1, -1]),),
    ),
    "a choice among equals, whose condition nobody reads then": (
        lambda x: x.scatter(1, torch.tensor([0]).reshape(1, 1, 1), x),
        (torch.randn(1, 1, 6)[..., 2:-3],),
    ),
    "nothing, repeated beside itself": (
        lambda x: torch.cat([x, x.repeat_interleave(2, -1)], 0),
        (torch.empty(0),),
    ),
    "rows of a scan, gathered another at each step": (
        lambda x, i: (
            x.cummin(1)[0].gather(0, i),
            x.cumsum(1).diagonal() * 2,
            x.cumsum(0).gather(1, i) + 1,
            x.exp().cumprod(1)[i[0], torch.arange(6)],
        ),
        (torch.randn(6, 6), torch.arange(36).reshape(6, 6) * 7 % 5),
    ),
    "rows of a reduction, gathered another at each step": (
        lambda x, i: (
            x - x.amax(1).take(i),
            x.softmax(1).gather(0, i),
            (x - x.mean(0)).diagonal(),
        ),
        (torch.randn(6, 6), torch.arange(36).reshape(6, 6) * 7 % 5),
    ),
    "a scan from the end, handed to a call": (
        lambda x: x.flip(1).cummax(1)[0].flip(1).sort(1)[0],
        (torch.randn(3, 5),),
    ),
    "nothing over nothing": (
        lambda x: (torch.div(x, x, rounding_mode="trunc"), x // x, x.remainder(x)),
        (torch.empty(0, dtype=torch.int8),),
    ),
    "a choice among equals, amid others": (
        lambda x: (
            torch.cat([x.masked_fill(x.amax(-1, True) > 1, -1.25), x, x.roll(0, 0)])[3],
            x.scatter_reduce(-1, torch.arange(3) % 3, x, "amin"),
        ),
        (torch.arange(3.0),),
    ),
}


@pytest.mark.parametrize("verify", [False, True], ids=["fast", "verified"])
@pytest.mark.parametrize("name", FOUND)
def test_what_fuzzing_found(agree: Agree, name: str, verify: bool) -> None:
    f, args = FOUND[name]
    agree(f, *args, options={"verify": verify})


def test_a_flip_of_open_sizes_is_no_strided_view(agree: Agree) -> None:
    """Whose strides would be below zero by a symbol."""
    options = {"verify": True}

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.rot90(x).reshape(13, 27, 3, 1)

    agree(f, torch.randn(13, 9, 9), dynamic=True, options=options)


def test_clamped_zeros_keep_their_signs(agree: Agree) -> None:
    x = torch.tensor([-0.0, 0.0])
    y = agree(lambda x: torch.stack([x.relu(), x.clamp(min=0), x.clamp(max=-0.0)]), x)
    assert y.signbit().tolist() == [[True, False]] * 3


@torch.library.custom_op("found::in_memory_order", mutates_args=())
def in_memory_order(x: torch.Tensor) -> torch.Tensor:
    assert x.is_contiguous()
    return torch.as_strided(x, (x.numel(),), (1,)).clone()


@in_memory_order.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.numel())


def test_custom_ops_get_the_strides_that_torch_promised(agree: Agree) -> None:
    x = torch.arange(12.0).reshape(3, 4)
    agree(lambda x: in_memory_order(x.t().contiguous()) + 1, x)
    agree(lambda x: in_memory_order(x[:1].repeat(5, 1)) * 2, x)
