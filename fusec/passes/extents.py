"""How far loops go: what is known of it, and the loops that follow.

    %x = load_tile : tile<[1000], 16:time 4:reg 16:lane>      loop by 64
        extent 1000, whole chunks until 960, a chunk that begins at 936 is whole too

An extent is a size, or a limit that a kernel came with or that a loop around left. How
small it may be, and what divides it, says which tails there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from math import gcd, lcm
from typing import Any

from fusec.analysis.sweeps import Loop, timed
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Value
from fusec.ir.dims import Dim, exact_div
from fusec.ir.dtypes import i64
from fusec.ir.layout import Layout
from fusec.ir.ops.elementwise import Maximum, Minimum, Mul, Sub, TruncDiv
from fusec.ir.ops.tile import For, LoadTile, StoreTile
from fusec.ir.types import Tile
from fusec.passes.chunks import Chunks, Scope, States


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an extent."""

    least: int = 0
    multiple: int = 1
    """What divides it."""


class Extents:
    """The extents of one kernel's loops."""

    def __init__(self, function: Function, chunks: Chunks, capped: bool = True) -> None:
        self.chunks = chunks
        self.capped = capped
        """Limits are no higher than chunks are long."""
        self.facts = function.facts
        self.layout = _widest(function)
        self.limits = _given_limits(function)
        self._known: dict[Value, Known] = {}

    def flat(self, top: Scope) -> Mapping[int, Value]:
        """Limits of the dimensions that fit one chunk: those that the kernel came with,
        and those that do not fill it."""
        return {**self._padding(top), **self._given(top)}

    def _padding(self, top: Scope) -> dict[int, Value]:
        """Limits of the dimensions that fit one chunk and do not fill it."""
        if self.layout is None:
            return {}
        return {
            d: top.builder.size(n)
            for d, (digits, n, padded) in enumerate(
                zip(
                    self.layout.dims,
                    self.layout.shape,
                    self.layout.padded_shape,
                    strict=True,
                )
            )
            if not timed(digits) and n != padded
        }

    def _given(self, top: Scope) -> dict[int, Value]:
        """Limits that the kernel came with, of dimensions that fit one chunk."""
        assert self.layout is not None or not self.limits
        flat = {
            d: limit
            for d, limit in self.limits.items()
            if self.layout is not None and not timed(self.layout.dims[d])
        }
        self.chunks.want(top, list(flat.values()))
        return {d: top[limit] for d, limit in flat.items()}

    def of(self, scope: Scope, loop: Loop) -> Value:
        """How many elements a loop walks here."""
        dim, around = loop.dim, scope.around(loop)
        if around is not None:
            limit = scope.limits.get(dim)
            return scope.builder.const(around.step, i64) if limit is None else limit
        if dim in self.limits:
            self.chunks.want(scope, [self.limits[dim]])
            return scope[self.limits[dim]]
        assert self.layout is not None
        size = self.layout.shape[dim]
        extent = scope.builder.size(size)
        least, _ = self.facts.range(size)
        multiple = self.known(scope, extent).multiple
        if exact_div(size, loop.step) is not None:
            multiple = lcm(multiple, loop.step)
        self._known[extent] = Known(max(0, least or 0), multiple)
        return extent

    def known(self, scope: Scope, extent: Value) -> Known:
        """What is known of an extent here."""
        number = scope.builder.constant(extent)
        if number is not None:
            return Known(int(number), int(number))
        return self._known.get(extent, Known())

    def whole(self, scope: Scope, loop: Loop, extent: Value) -> Value:
        """How many of its elements lie in whole chunks."""
        b = scope.builder
        if self.known(scope, extent).multiple % loop.step == 0:
            return extent
        if scope.around(loop) is None and loop.dim not in self.limits:
            assert self.layout is not None
            return b.size(self.layout.shape[loop.dim] // loop.step * loop.step)
        step = b.const(loop.step, i64)
        return b(Mul, b(TruncDiv, extent, step), step)

    def present(
        self, scope: Scope, loop: Loop, extent: Value, b: Builder, counter: Value
    ) -> Value | None:
        """How many elements there are of a chunk of any length; None if it is whole in
        any case."""
        known, step = self.known(scope, extent), loop.step
        if known.least > 0 and known.multiple % step == 0:
            return None
        limit = b(Sub, extent, counter)
        if not self.capped:
            return limit
        limit = b(Minimum, limit, b.const(step, i64))
        divisor = gcd(known.multiple, step)
        least = min(known.least, divisor)
        number = b.constant(extent)
        if number:
            least = (int(number) - 1) % step + 1
        self._known[limit] = Known(least, divisor)
        return limit

    def left(self, loop: Loop, extent: Value, b: Builder, counter: Value) -> Value:
        """How many elements come after the current chunk."""
        rest = b(Sub, b(Sub, extent, counter), b.const(loop.step, i64))
        return b(Maximum, rest, b.const(0, i64))

    def each(
        self, scope: Scope, loops: list[Loop], once: Callable[[Scope], None]
    ) -> None:
        """Some loops over all their chunks, the last ones as if they were whole:
        scratch memory has room for that."""
        if not loops:
            once(scope)
            return
        loop, *rest = loops

        def trip(b: Builder, origin: Value, carried: States) -> States:
            self.each(scope.open(loop, origin, None, b, carried), rest, once)
            return carried

        bounds = scope.builder.const(0, i64), self.of(scope, loop)
        counted(scope.builder, bounds, loop.step, {}, trip)


def counted(
    b: Builder,
    bounds: tuple[Value, Value],
    step: int,
    states: States,
    trip: Callable[[Builder, Value, States], States],
    along: int = -1,
) -> States:
    """A loop whose body `trip` emits, from the counter and the carried states."""
    body = b.nested()
    counter = body.param(bounds[0].type, "k")
    inner = {op: tuple(body.param(v.type) for v in vs) for op, vs in states.items()}
    after = trip(body, counter, inner)
    yields = [v for op in states for v in after[op]]
    operands = (*bounds, *(v for values in states.values() for v in values))
    results = iter(b.emit(For, operands, (step, along), (body.block(yields),)))
    return {op: tuple(islice(results, len(vs))) for op, vs in states.items()}


def at_most_once(
    b: Builder,
    bounds: tuple[Value, Value],
    states: States,
    once: Callable[[Builder, States], States],
) -> States:
    """What `once` emits, run if the lower bound is below the upper one, which it then
    is by 1; what the states have come to."""
    lo, hi = map(b.constant, bounds)
    if lo is not None and hi is not None:
        return once(b, states) if lo < hi else states
    return counted(b, bounds, 1, states, lambda body, _, held: once(body, held))


def _widest(function: Function) -> Layout | None:
    """A layout that has every dimension of the kernel's tiles."""
    dims: dict[int, tuple[Any, Dim]] = {}
    rank = 0
    for op in function.body.ops:
        for value in op.results:
            if not isinstance(value.type, Tile) or value.type.layout is None:
                continue
            layout = value.type.layout
            rank = layout.rank
            for d, (digits, n) in enumerate(
                zip(layout.dims, layout.shape, strict=True)
            ):
                if n != 1:
                    dims[d] = (digits, n)
    if not dims:
        return None
    empty: tuple[Any, Dim] = ((), 1)
    known = [dims.get(d, empty) for d in range(rank)]
    return Layout([digits for digits, _ in known], [n for _, n in known])


def _given_limits(function: Function) -> dict[int, Value]:
    """The limits that accesses came with, by dimension."""
    found: dict[int, Value] = {}
    for op in function.body.ops:
        if isinstance(op, (LoadTile, StoreTile)):
            found.update(op.limits)
    return found
