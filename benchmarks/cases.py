"""What models spend memory bandwidth on: the cases of the cpu_fused benchmark.

Each case is a function as its author would write it, the shapes that it meets (one
within the caches of one core, one beyond those of most machines) and how its inputs are
drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adamw import adamw

Shape = tuple[int, ...]
Draw = Callable[[Shape, torch.dtype], list[Tensor]]
Moved = tuple[int, int]
"""Bytes that a function has to read and to write, at least."""

MATRICES: tuple[Shape, Shape] = ((64, 1000), (4096, 4096))
TALL: tuple[Shape, Shape] = ((1000, 64), (4096, 4096))
IMAGES: tuple[Shape, Shape] = ((1, 64, 32, 32), (16, 64, 128, 128))
HEADS: tuple[Shape, Shape] = ((1, 8, 128, 64), (4, 32, 2048, 64))
TOKENS: tuple[Shape, Shape] = ((1, 64, 1000), (4, 1024, 4096))
WEIGHTS: tuple[Shape, Shape] = ((40, 64), (512, 1024))
LAYERS = 25
"""How many weights, each with a bias, the optimizer takes a step for."""


@dataclass(frozen=True)
class Case:
    """A function of tensors, or of lists of them, whose time memory decides."""

    function: Callable[..., Any]
    shapes: tuple[Shape, Shape]
    draw: Draw
    trains: bool = True
    """Whether a forward and backward pass is a row of its own."""
    saves: bool = True
    """Whether the backward pass has to see the inputs again, as nonlinear ones do."""
    moved: Callable[[list[Tensor], list[Tensor]], Moved] | None = None
    """From inputs and outputs; each of them once unless told otherwise."""


def each_once(inputs: list[Tensor], outputs: list[Tensor]) -> Moved:
    return sum(x.nbytes for x in inputs), sum(x.nbytes for x in outputs)


def drawn(*kinds: str) -> Draw:
    """Normal numbers: of the whole shape (`full`), its last or its second dimension."""

    def draw(shape: Shape, dtype: torch.dtype) -> list[Tensor]:
        sizes = {"full": shape, "row": shape[-1:], "channel": shape[1:2]}
        return [torch.randn(sizes[kind], dtype=dtype) for kind in kinds]

    return draw


# Chains of elementwise operations.


def gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(x * weight + bias)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def masked_gelu(x: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    return F.gelu(x + bias).masked_fill(mask, 0.0) * 1.25


def masked(shape: Shape, dtype: torch.dtype) -> list[Tensor]:
    x, bias = drawn("full", "row")(shape, dtype)
    return [x, bias, torch.rand(shape) < 0.2]


def rotary(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


def rotations(shape: Shape, dtype: torch.dtype) -> list[Tensor]:
    _, _, length, width = shape
    frequencies = 10_000.0 ** -(torch.arange(0, width, 2) / width)
    angles = torch.outer(torch.arange(length), frequencies).repeat(1, 2)
    x = torch.randn(shape, dtype=dtype)
    return [x, angles.cos().to(dtype), angles.sin().to(dtype)]


def batch_norm(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    return F.batch_norm(x, mean, variance, weight, bias)


def statistics(shape: Shape, dtype: torch.dtype) -> list[Tensor]:
    x, mean, variance, weight, bias = drawn("full", *["channel"] * 4)(shape, dtype)
    return [x, mean, variance.abs(), weight, bias]


# Rows: reduced, normalised, scanned.


def layernorm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias)


def rmsnorm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight)


def residual_norm(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    total = x + residual
    return total, F.rms_norm(total, weight.shape, weight)


def softmax(x: Tensor) -> Tensor:
    return x.softmax(dim=-1)


def nll(x: Tensor, target: Tensor) -> Tensor:
    return F.nll_loss(x.log_softmax(dim=-1), target)


def targets(shape: Shape, dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(shape, dtype=dtype), torch.randint(shape[1], shape[:1])]


def embedding_norm(
    tokens: Tensor, table: Tensor, positions: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    return F.layer_norm(
        F.embedding(tokens, table) + positions, bias.shape, weight, bias
    )


def embeddings(shape: Shape, dtype: torch.dtype) -> list[Tensor]:
    batch, length, width = shape
    tables = [torch.randn(n, width, dtype=dtype) for n in (4 * batch * length, length)]
    vectors = torch.randn(2, width, dtype=dtype)
    return [torch.randint(len(tables[0]), (batch, length)), *tables, *vectors]


def gathered(inputs: list[Tensor], outputs: list[Tensor]) -> Moved:
    """Of the table only as many rows as there are tokens."""
    read, written = each_once(inputs, outputs)
    return read - inputs[1].nbytes + outputs[0].nbytes, written


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.var_mean(x, dim=1)


def argmax(x: Tensor) -> Tensor:
    return x.argmax(dim=-1)


def cumsum(x: Tensor) -> Tensor:
    return x.cumsum(dim=-1)


def cumsum_rows(x: Tensor) -> Tensor:
    return x.cumsum(dim=0)


def cummax(x: Tensor) -> Tensor:
    return x.cummax(dim=-1).values


def logcumsumexp(x: Tensor) -> Tensor:
    return x.logcumsumexp(dim=-1)


# Everything reduced.


def mean_square(x: Tensor) -> Tensor:
    return x.square().mean()


def column_sum(x: Tensor) -> Tensor:
    return x.sum(dim=0)


def largest(x: Tensor) -> Tensor:
    return x.abs().amax()


# Moved about.


def transposed(x: Tensor, y: Tensor) -> Tensor:
    return x.t() * 2 + y


def squares(shape: Shape, dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(shape[::-1], dtype=dtype), torch.randn(shape, dtype=dtype)]


def interleaved(x: Tensor, y: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    halves = torch.cat((x[:, half:].relu(), y[:, :half].neg()), dim=-1)
    return torch.stack((halves, x + y), dim=-1).flatten(-2)


# The optimizer.


def adamw_step(
    weights: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    steps: list[Tensor],
) -> None:
    adamw(
        weights,
        gradients,
        means,
        squares,
        max_exp_avg_sqs=[],
        state_steps=steps,
        foreach=True,
        capturable=torch.compiler.is_compiling(),
        amsgrad=False,
        beta1=0.9,
        beta2=0.999,
        lr=1e-3,
        weight_decay=1e-2,
        eps=1e-8,
        maximize=False,
    )


def moments(shape: Shape, dtype: torch.dtype) -> list[Any]:
    def tensors(draw: Callable[..., Tensor]) -> list[Tensor]:
        shapes = [shape, shape[:1]] * LAYERS
        return [draw(size, dtype=dtype) for size in shapes]

    zeros = [torch.zeros(()) for _ in range(2 * LAYERS)]
    return [*map(tensors, (torch.randn, torch.randn, torch.randn, torch.rand)), zeros]


def updated(inputs: list[Tensor], outputs: list[Tensor]) -> Moved:
    """All is read, and all but the gradients written."""
    count = 2 * LAYERS
    read = sum(x.nbytes for x in inputs)
    return read, read - sum(x.nbytes for x in inputs[count : 2 * count])


CASES: dict[str, Case] = {
    "gelu(x*w+b)": Case(gelu, MATRICES, drawn("full", "row", "row")),
    "layernorm": Case(layernorm, MATRICES, drawn("full", "row", "row")),
    "rmsnorm": Case(rmsnorm, MATRICES, drawn("full", "row")),
    "residual+rmsnorm": Case(residual_norm, MATRICES, drawn("full", "full", "row")),
    "softmax": Case(softmax, MATRICES, drawn("full")),
    "log-softmax+nll": Case(nll, MATRICES, targets),
    "swiglu": Case(swiglu, MATRICES, drawn("full", "full")),
    "rotary": Case(rotary, HEADS, rotations, trains=False),
    "adamw": Case(adamw_step, WEIGHTS, moments, trains=False, moved=updated),
    "bias+gelu+mask+scale": Case(masked_gelu, MATRICES, masked),
    "batch norm": Case(batch_norm, IMAGES, statistics, trains=False),
    "var+mean of channels": Case(channel_statistics, IMAGES, drawn("full")),
    "cumsum": Case(cumsum, MATRICES, drawn("full"), saves=False),
    "cumsum of columns": Case(cumsum_rows, MATRICES, drawn("full"), saves=False),
    "cummax": Case(cummax, MATRICES, drawn("full"), trains=False),
    "logcumsumexp": Case(logcumsumexp, MATRICES, drawn("full"), trains=False),
    "argmax": Case(argmax, MATRICES, drawn("full"), trains=False),
    "embedding+add+norm": Case(
        embedding_norm, TOKENS, embeddings, trains=False, moved=gathered
    ),
    "cat+stack": Case(interleaved, MATRICES, drawn("full", "full")),
    "transposed": Case(transposed, TALL, squares, saves=False),
    "mean of squares": Case(mean_square, MATRICES, drawn("full")),
    "largest": Case(largest, MATRICES, drawn("full"), trains=False),
    "sum of columns": Case(column_sum, MATRICES, drawn("full"), saves=False),
}
