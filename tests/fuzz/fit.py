"""Operands that suit one another: a value, or a view of it, of the shape that a slot
asks for.

    {f:mk} @ {f:kn}   →   v3 @ x1.mT

A pattern names extents: a letter is the same extent in all slots of a line, 1 is 1,
and a * in front stands for any dimensions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations
from math import prod

Bound = dict[str, int]
"""The extents that letters stand for so far."""
MOST = 1 << 21
"""Points that a line's letters may span: so much work can a product be."""


def fit(
    draw: random.Random,
    values: Mapping[str, Sequence[int]],
    pattern: str,
    bound: Bound,
    extents: Sequence[int],
) -> tuple[str, str] | None:
    """The name of one of `values`, by their shapes, and how to write what suits.

    `bound` learns the extents of new letters, which are drawn from `extents` where no
    value has to be taken as it is. None where nothing suits.
    """
    found = _fit(draw, values, pattern, bound, extents)
    return found if prod(bound.values()) <= MOST else None


def _fit(
    draw: random.Random,
    values: Mapping[str, Sequence[int]],
    pattern: str,
    bound: Bound,
    extents: Sequence[int],
) -> tuple[str, str] | None:
    names = draw.sample([*values], len(values))
    ways: list[Callable[..., Iterator[tuple[str, Bound]]]] = [_as_it_is, _permuted]
    if draw.random() < 0.5:
        ways.reverse()
    if draw.random() < 0.8:
        for way in ways:
            for name in names:
                for text, learnt in way(draw, name, values[name], pattern, bound):
                    bound.update(learnt)
                    return name, text
    shape = _drawn(draw, pattern, bound, extents)
    for name in names:
        text = _made(draw, name, values[name], shape)
        if text is not None:
            return name, text
    return None


def unified(pattern: str, shape: Sequence[int], bound: Bound) -> Bound | None:
    """What a pattern's letters are for a shape; None where it does not match."""
    letters = pattern.removeprefix("*")
    front = len(shape) - len(letters)
    if front < 0 or (front and letters == pattern):
        return None
    learnt: Bound = {"1": 1, **bound}
    for letter, extent in zip(letters, shape[front:], strict=True):
        if learnt.setdefault(letter, extent) != extent:
            return None
    return learnt


def _as_it_is(
    _: random.Random, name: str, shape: Sequence[int], pattern: str, bound: Bound
) -> Iterator[tuple[str, Bound]]:
    learnt = unified(pattern, shape, bound)
    if learnt is not None:
        yield name, learnt


def _permuted(
    draw: random.Random, name: str, shape: Sequence[int], pattern: str, bound: Bound
) -> Iterator[tuple[str, Bound]]:
    if not 2 <= len(shape) <= 4:
        return
    orders = list(permutations(range(len(shape))))[1:]
    for order in draw.sample(orders, len(orders)):
        learnt = unified(pattern, [shape[d] for d in order], bound)
        if learnt is not None:
            swapped = order == (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
            yield f"{name}.mT" if swapped else f"{name}.permute{order}", learnt


def _drawn(
    draw: random.Random, pattern: str, bound: Bound, extents: Sequence[int]
) -> tuple[int, ...]:
    """A shape of a pattern; now and then an extent is 1, or there are no elements."""
    bound["1"] = 1
    for letter in pattern.removeprefix("*"):
        if letter not in bound:
            choices = (0,) if draw.random() < 0.08 else (*extents, *extents, 1)
            bound[letter] = draw.choice(choices)
    front = draw.choice(((), (2,), (1, 3))) if pattern[0] == "*" else ()
    return (*front, *(bound[letter] for letter in pattern.removeprefix("*")))


def _made(
    draw: random.Random, name: str, had: Sequence[int], shape: Sequence[int]
) -> str | None:
    """A tensor of a shape out of the first elements of a value."""
    count, elements = prod(shape), prod(had)
    if count == elements:
        return f"{name}.reshape({tuple(shape)})"
    if count < elements:
        start = draw.choice((0, elements - count))
        part = f"{name}.flatten()[{start}:{start + count}]"
        return f"{part}.reshape({tuple(shape)})"
    last = shape[-1] if shape else 1
    row = last if last <= elements else 1
    return f"{name}.flatten()[:{row}].expand({tuple(shape)})" if elements else None
