"""How near a compiled program has to come to eager torch, value by value.

Elementwise ops that are exactly rounded agree in every bit, and so does all that only
moves numbers: their error is 0. Transcendental functions and sums of fractions have an
error, and what is computed from them inherits it, enlarged by how steep the op is. Ops
that jump (comparisons, rounding, casts to integers) take exact operands only, for a
small error would become a large one. A program that asks for more is `Untrusted`: it
is no test of anything.

    y = x0 + x1        exact, for floats of any size
    e = torch.exp(y)   4 units of its dtype's last place at its largest element
    e > 1              Untrusted
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

LARGEST = 1e4
"""Values with an error stay below it: products of larger ones say little."""
ALLOWED = {torch.float64: 1e-10, torch.float32: 2e-5}
"""The largest error that is still a test; `verify` allows a few times as much."""
LAST_PLACES = 4


class Untrusted(Exception):
    """The step has no result that two correct programs have to agree on."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a correct value may be from eager's. `signed`: zeros have their sign."""

    error: float = 0.0
    signed: bool = True

    @property
    def exact(self) -> bool:
        return self.error == 0


def sizes(x: torch.Tensor) -> float:
    """The largest finite magnitude among the elements."""
    if not x.numel() or not (x.is_floating_point() or x.dtype.is_signed):
        return 255.0 if x.numel() else 0.0
    finite = x[x.isfinite()] if x.is_floating_point() else x
    return float(finite.double().abs().max()) if finite.numel() else 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A step in execution: what it read and what it made."""

    operands: Sequence[Any]
    trusts: Sequence[Trust]
    result: torch.Tensor
    replay: Callable[[Sequence[torch.Tensor]], torch.Tensor]
    """The step as a function of its operands."""

    @property
    def error(self) -> float:
        return sum(trust.error for trust in self.trusts)

    @property
    def exact(self) -> bool:
        return all(trust.exact for trust in self.trusts)

    @property
    def signed(self) -> bool:
        return all(trust.signed for trust in self.trusts)

    @property
    def rounding(self) -> float:
        """What rounding the result costs."""
        if not self.result.is_floating_point():
            return 0.0
        place = torch.finfo(self.result.dtype).eps
        return LAST_PLACES * place * max(sizes(self.result), 1e-3)

    def within(self, error: float, *, signed: bool = False) -> Trust:
        """The trust in a result that has an error. Raises `Untrusted`."""
        dtype = self.result.dtype
        if not dtype.is_floating_point or sizes(self.result) > LARGEST:
            raise Untrusted
        if error > ALLOWED.get(dtype, 64 * torch.finfo(dtype).eps):
            raise Untrusted
        return Trust(error, signed)


def moved(seen: Seen) -> Trust:
    """Views, selections, changes of sign: each element comes from one of an operand."""
    if seen.exact:
        return Trust(signed=seen.signed)
    return seen.within(max(t.error for t in seen.trusts), signed=seen.signed)


def chosen(seen: Seen) -> Trust:
    """As `moved`, but a zero of either sign may win."""
    return Trust(moved(seen).error, signed=False)


def rounded(seen: Seen) -> Trust:
    """Sums and differences of two: exactly rounded."""
    if seen.exact:
        return Trust(signed=seen.signed)
    return seen.within(seen.error + seen.rounding)


def product(seen: Seen) -> Trust:
    if seen.exact:
        return Trust(signed=seen.signed)
    largest = max((sizes(x) for x in seen.operands), default=1.0)
    return seen.within(seen.error * max(largest, 3.0) + seen.rounding)


def scaled(seen: Seen) -> Trust:
    """x + 3·y: of narrow floats ATen rounds the product too, but in some lanes only."""
    trust = product(seen)
    if seen.result.dtype not in (torch.float16, torch.bfloat16):
        return trust
    return seen.within(trust.error + seen.rounding)


def divided(seen: Seen) -> Trust:
    """Exactly rounded functions that tell the signs of zeros apart."""
    if not (seen.exact and seen.signed):
        raise Untrusted
    return Trust()


def jumps(seen: Seen) -> Trust:
    """Comparisons, roundings, integers: no error may come in."""
    if not seen.exact:
        raise Untrusted
    return Trust(signed=seen.signed)


def curved(seen: Seen) -> Trust:
    """Smooth functions, no steeper than 1 or than their own result."""
    steep = max(1.0, sizes(seen.result)) if seen.error else 0.0
    return seen.within(seen.error * steep + seen.rounding)


def cancelling(seen: Seen) -> Trust:
    """Smooth functions in which terms as large as their operands may cancel."""
    place = torch.finfo(seen.result.dtype).eps
    largest = max((sizes(x) for x in seen.operands), default=0.0)
    return seen.within(curved(seen).error + LAST_PLACES * place * largest)


def curved_signed(seen: Seen) -> Trust:
    """Functions that differ at the two zeros."""
    if not (seen.exact and seen.signed):
        raise Untrusted
    return curved(seen)


def summed(seen: Seen) -> Trust:
    """Sums in some order: exact where all partial sums are whole and small."""
    x, y = seen.operands[0], seen.result
    if not y.is_floating_point():
        return jumps(seen)
    if seen.exact and _whole_sums(x, y.dtype):
        return Trust(signed=False)
    terms = max(1, x.numel() // max(1, y.numel()))
    place = torch.finfo(y.dtype).eps
    partial = sizes(x) * terms
    if partial > LARGEST:
        raise Untrusted
    accumulated = min(place, torch.finfo(torch.float32).eps) * partial * 4
    return seen.within(seen.error * terms + accumulated + seen.rounding)


def _whole_sums(x: torch.Tensor, dtype: torch.dtype) -> bool:
    if not x.is_floating_point():
        return True
    finite = x[x.isfinite()].double()
    limit = 1 / torch.finfo(dtype).eps
    return bool((finite == finite.round()).all()) and float(finite.abs().sum()) < limit


def scanned(seen: Seen) -> Trust:
    """Sums of what lies before, accumulated in a wider dtype where there is one."""
    x, y = seen.operands[0], seen.result
    if not y.is_floating_point():
        return jumps(seen)
    if seen.exact and _whole_sums(x, y.dtype):
        return Trust(signed=False)
    terms = max(x.shape, default=1)
    roundings = terms**0.5 if y.dtype is torch.float64 else 2
    return seen.within(seen.error * terms + roundings * seen.rounding)


def multiplied(seen: Seen) -> Trust:
    """Products of elements that are at most 1."""
    x, y = seen.operands[0], seen.result
    if not y.is_floating_point():
        return jumps(seen)
    whole = not x.is_floating_point() or bool((x == x.round()).all())
    if seen.exact and whole:
        return Trust(signed=False)
    terms = max(1, x.numel() // max(1, y.numel()), *x.shape)
    return seen.within(terms * (seen.error + torch.finfo(y.dtype).eps))


def accumulated(seen: Seen) -> Trust:
    """Elements of the others added to those of the first, in some order."""
    target, *others = [x for x in seen.operands if x.dtype is seen.result.dtype]
    y, source = seen.result, others[-1] if others else target
    if not y.is_floating_point():
        return jumps(seen)
    both = torch.cat([target.flatten(), source.flatten()])
    if seen.exact and _whole_sums(both, y.dtype):
        return Trust(signed=False)
    if not both.isfinite().all():
        raise Untrusted
    partial = sizes(target) + float(source.double().abs().sum())
    added = max(1, source.numel()) * seen.error
    return seen.within(added + 4 * torch.finfo(y.dtype).eps * partial)


def kept_wide(seen: Seen, trust: Trust) -> Trust:
    """The trust where narrow floats need not be rounded, nor overflow."""
    y = seen.result
    if y.dtype not in (torch.float16, torch.bfloat16):
        return trust
    if not y.isfinite().all():
        raise Untrusted
    return seen.within(max(trust.error, seen.rounding))


def averaged(seen: Seen) -> Trust:
    """Means, norms and normalisations; a norm may be larger than what it is made from,
    and has as much more rounding."""
    largest = max(1.0, sizes(seen.operands[0]))
    if largest > 64:
        raise Untrusted
    read = [x for x in (*seen.operands, seen.result) if x.is_floating_point()]
    place = max((torch.finfo(x.dtype).eps for x in read), default=0.0)
    grown = max(1.0, sizes(seen.result) / largest)
    spread = 64 * place * largest**2 * grown
    return seen.within(4 * seen.error * largest + spread)


def contracted(seen: Seen) -> Trust:
    """Sums of products, in some order.

    The step is done again with magnitudes: no partial sum is larger than what comes
    out, and no result is further off than it grows by the operands' errors.
    """
    y = seen.result
    if not y.is_floating_point():
        return jumps(seen)
    if not all(bool(x.isfinite().all()) for x in seen.operands):
        raise Untrusted
    magnitudes = [x.double().abs() for x in seen.operands]
    sums = seen.replay(magnitudes)
    partial = sizes(sums)
    place = torch.finfo(y.dtype).eps
    whole = all(bool((x == x.round()).all()) for x in (*magnitudes, sums, y))
    if seen.exact and whole and partial < 1 / place:
        return Trust(signed=False)
    if partial > LARGEST:
        raise Untrusted
    widened = [x + t.error for x, t in zip(magnitudes, seen.trusts, strict=True)]
    inherited = sizes(seen.replay(widened) - sums)
    accumulated = min(place, torch.finfo(torch.float32).eps) * partial * 4
    return seen.within(inherited + accumulated + seen.rounding)


def contracted_twice(seen: Seen) -> Trust:
    """As `contracted`, with a sum that may be rounded before more is done to it."""
    trust = contracted(seen)
    if trust.exact:
        return trust
    between = sizes(seen.replay([x.double().abs() for x in seen.operands]))
    return seen.within(trust.error + torch.finfo(seen.result.dtype).eps * between)


def written(seen: Seen) -> Trust:
    """An update in place, of exact values by exactly rounded ops.

    A float that is no number of an integer's range may be cast to any.
    """
    if not seen.result.is_floating_point() and not all(
        map(_cast_safely, seen.operands)
    ):
        raise Untrusted
    return Trust(jumps(seen).error, signed=False)


def _cast_safely(x: torch.Tensor) -> bool:
    """Whether every integer dtype holds the elements, rounded."""
    return not x.is_floating_point() or bool(((x >= 0) & (x < 128)).all())


RULES: Mapping[str, Callable[[Seen], Trust]] = {
    rule.__name__: rule
    for rule in (
        moved,
        chosen,
        rounded,
        product,
        scaled,
        divided,
        jumps,
        curved,
        cancelling,
        curved_signed,
        summed,
        scanned,
        multiplied,
        accumulated,
        averaged,
        contracted,
        contracted_twice,
        written,
    )
}
