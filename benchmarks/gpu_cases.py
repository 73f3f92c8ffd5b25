"""Fused kernels of every kind, for what is said of GPU code in general.

A case is a function and what makes its arguments, for m rows and n columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F


def _cross_entropy(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return -x.log_softmax(-1).gather(1, t[:, None]).mean()


def _masked(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    return x.masked_fill(m, float("-inf")).softmax(-1)


def _norms(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = x + w
    return y, F.rms_norm(y, (y.shape[-1],), w)


def _swiglu(x: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.silu(x @ w.t()) * (x @ v.t())


def _rotated(x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * c - b, b * c + a], -1)


Maker = Callable[[int, int], tuple[torch.Tensor, ...]]


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(shape)


KERNELS: dict[str, tuple[Callable[..., Any], Maker]] = {
    "pointwise": (lambda x, w: F.gelu(x * w), lambda m, n: (rand(m, n), rand(n))),
    "softmax": (lambda x: x.softmax(-1), lambda m, n: (rand(m, n),)),
    "softmax of columns": (lambda x: x.softmax(0), lambda m, n: (rand(m, n),)),
    "masked softmax": (_masked, lambda m, n: (rand(m, n), rand(m, n) > 0)),
    "layer norm": (
        lambda x, w: F.layer_norm(x, (x.shape[-1],), w, w),
        lambda m, n: (rand(m, n), rand(n)),
    ),
    "residual and norm": (_norms, lambda m, n: (rand(m, n), rand(n))),
    "cross entropy": (
        _cross_entropy,
        lambda m, n: (rand(m, n), torch.randint(0, n, (m,))),
    ),
    "embedding": (
        lambda t, w: F.embedding(t, w) + 1,
        lambda m, n: (torch.randint(0, n, (m,)), rand(n, 5)),
    ),
    "rows added": (
        lambda x, i, y: x.index_add(0, i, F.gelu(y)),
        lambda m, n: (rand(900, n), torch.randint(0, 900, (m + 40,)), rand(m + 40, n)),
    ),
    "places filled": (
        lambda x, i, y: x.index_put((i[0], i[1] - 70), y),
        lambda m, n: (rand(90, 70), torch.randperm(70).repeat(2, 1), rand(70)),
    ),
    "largest of places": (
        lambda x, i, y: x.scatter_reduce(1, i, y, "amax"),
        lambda m, n: (rand(m, 999), torch.randint(0, 999, (m, n)), rand(m, n)),
    ),
    "running sum": (lambda x: x.cumsum(-1), lambda m, n: (rand(m, n),)),
    "running sum of columns": (lambda x: x.cumsum(0), lambda m, n: (rand(m, n),)),
    "running maximum": (lambda x: x.cummax(-1).values, lambda m, n: (rand(m, n),)),
    "largest and its place": (
        lambda x: (x.argmax(-1), x.amax(-1)),
        lambda m, n: (rand(m, n),),
    ),
    "variance": (
        lambda x: torch.var_mean(x, 0, correction=0),
        lambda m, n: (rand(m, n),),
    ),
    "any and all": (
        lambda x: ((x > 1).any(-1), (x < 2).all(-1)),
        lambda m, n: (rand(m, n),),
    ),
    "sum of all": (lambda x: (x * x).mean(), lambda m, n: (rand(m, n),)),
    "turned": (lambda x: (x + 1).t().contiguous(), lambda m, n: (rand(m, n),)),
    "flipped": (lambda x: x.flip(0, 1) * x, lambda m, n: (rand(m, n),)),
    "concatenated": (
        lambda x, y: torch.cat([x, y.exp()], 1),
        lambda m, n: (rand(m, n), rand(m, 7)),
    ),
    "rotated": (_rotated, lambda m, n: (rand(m, 2 * n), rand(n))),
    "integers": (
        lambda x: (x // 3, x % 5, x << 2, x >> 1, x ^ 7),
        lambda m, n: (torch.randint(-99, 99, (m, n)),),
    ),
    "narrow floats": (
        lambda x: (x * 3 + 1).float().sum(-1),
        lambda m, n: (rand(m, n).bfloat16(),),
    ),
    "product": (
        lambda x, w: F.gelu(x @ w),
        lambda m, n: (rand(m, 33), rand(33, n)),
    ),
    "products of batches": (
        lambda x, y: (x @ y.mT) * 0.5,
        lambda m, n: (rand(3, m, 20), rand(3, n, 20)),
    ),
    "gated products": (_swiglu, lambda m, n: (rand(m, 24), rand(n, 24), rand(n, 24))),
    "product of halves": (
        lambda x, w: (x @ w).relu(),
        lambda m, n: (rand(m, 48).bfloat16(), rand(48, n).bfloat16()),
    ),
    "product of doubles": (
        lambda x, w: x @ w,
        lambda m, n: (rand(m, 20).double(), rand(20, n).double()),
    ),
    "product of integers": (
        lambda x, y: torch.ops.aten._int_mm(x, y).float() * 0.5,
        lambda m, n: (
            torch.randint(-100, 100, (m + 17, 40), dtype=torch.int8),
            torch.randint(-100, 100, (40, n - n % 8), dtype=torch.int8),
        ),
    ),
    "product of a norm": (
        lambda x, w: F.rms_norm(x, (x.shape[-1],)) @ w,
        lambda m, n: (rand(m, n), rand(n, 40)),
    ),
}
