"""Tensors of every form that programs meet. Imports torch only: reproducers hold it.

x = tensor((4, 3), torch.float32, form="flipped", values="special", seed=7)
"""

import random

import torch

FORMS = (
    "contiguous",
    "transposed",
    "expanded",
    "strided",
    "sliced",
    "offset",
    "overlapping",
    "reversed dims",
)
VALUES = ("small", "normal", "special")
PERIOD = 2003

SPECIAL = [float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 1.0, -1.0, 0.5]


def tensor(shape, dtype, form="contiguous", values="small", seed=0, grad=False):
    """A tensor of a shape, by how it lies in memory and what numbers it holds."""
    made = laid_out(tuple(shape), dtype, form)
    fill(made, values, seed)
    return made.requires_grad_(grad)


def laid_out(shape, dtype, form):
    """Uninitialised memory in which a tensor lies as `form` says."""
    rank = len(shape)
    if form == "transposed" and rank >= 2:
        return torch.empty(shape[:-2] + shape[:-3:-1], dtype=dtype).mT
    if form == "reversed dims":
        return torch.empty(shape[::-1], dtype=dtype).permute(
            tuple(reversed(range(rank)))
        )
    if form == "expanded" and rank >= 1:
        return torch.empty((1, *shape[1:]), dtype=dtype).expand(shape)
    if form == "strided" and rank >= 1:
        return torch.empty((*shape[:-1], 3 * shape[-1]), dtype=dtype)[..., 1::3]
    if form == "sliced" and rank >= 2:
        return torch.empty((*shape[:-1], shape[-1] + 5), dtype=dtype)[..., 2:-3]
    if form == "offset":
        room = torch.empty(7 + torch.Size(shape).numel(), dtype=dtype)
        return room[7:].view(shape)
    if form == "overlapping" and rank >= 2 and 0 not in shape:
        room = torch.empty(sum(shape), dtype=dtype)
        return room.as_strided(shape, (1,) * rank)
    return torch.empty(shape, dtype=dtype)


def fill(made, values, seed):
    """Overwrite the memory under a tensor with numbers drawn from `seed`.

    A great many repeat, after a prime number of them.
    """
    size = made.untyped_storage().nbytes() // made.itemsize
    memory = torch.empty(0, dtype=made.dtype).set_(made.untyped_storage(), 0, (size,))
    drawn = numbers(min(size, PERIOD), made.dtype, values, seed)
    times = -(-size // PERIOD)
    memory.copy_(torch.tensor(drawn, dtype=made.dtype).repeat(times)[:size])


def numbers(count, dtype, values, seed):
    """Numbers that the dtype holds exactly, or nearly."""
    draw = random.Random(seed)
    if dtype is torch.bool:
        return [draw.random() < 0.5 for _ in range(count)]
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        low, high = max(-8, info.min), 8
        edges = [info.min, info.max, info.max - 1] if values == "special" else []
        return [
            draw.choice(edges)
            if edges and draw.random() < 0.2
            else draw.randint(low, high)
            for _ in range(count)
        ]
    if values == "small":
        return [float(draw.randint(-8, 8)) for _ in range(count)]
    special = SPECIAL if values == "special" else []
    return [
        draw.choice(special) if special and draw.random() < 0.3 else draw.gauss(0, 2)
        for _ in range(count)
    ]
