"""Reductions of a tile: over registers in a balanced tree, then over halves of lanes.

    4 registers of 16 lanes    (r0∘r1)∘(r2∘r3)            3 vector operations
    1 register of 16 lanes     x[:8]∘x[8:], then 4, 2, 1  4 steps of half the width

The order depends on the layout alone. It is not that of the coordinates, so the monoid
commutes. States of several components (an argmax) move through together.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusec.codegen.llvm_kernel import (
    Kernel,
    Register,
    constant_vector,
    dtype_of,
    hint_of,
)
from fusec.codegen.llvm_lanes import Lanes, element
from fusec.codegen.llvm_mask import Bounds
from fusec.codegen.llvm_places import Coords, Places, added, moved
from fusec.codegen.llvm_rows import computed
from fusec.errors import InternalError
from fusec.ir.core import Monoid
from fusec.ir.dtypes import DType
from fusec.ir.ops.reduction import ReduceTile

State = tuple[str, ...]
"""One register for each component of the monoid."""


def reduce_tile(k: Kernel, op: ReduceTile) -> None:
    """Combine along dimensions, which keep one coordinate."""
    if not op.monoid.commutative:
        raise InternalError(f"{op.monoid.name} does not commute: lanes cannot hold it")
    source, target = k.places(op.values[0]), k.places(op.results[0])
    v = k.lanes(source.lanes, hint_of(op))
    dtypes = tuple(dtype_of(value) for value in op.values)
    results: list[list[Register]] = [[None] * len(target.origins) for _ in dtypes]
    for origin, states in _by_origin(k, op, source, v).items():
        state = tree(v, op.monoid, states)
        groups = _groups(source, target, origin, op.dims)
        state = _across(v, op.monoid, dtypes, state, groups)
        register, _ = target.table[origin]
        for component, x in zip(results, state, strict=True):
            component[register] = x
    for value, registers in zip(op.results, results, strict=True):
        k.define(value, registers)


def tree(v: Lanes, monoid: Monoid, states: Sequence[State]) -> State:
    """All states combined, neighbours first."""
    while len(states) > 1:
        pairs = zip(states[::2], states[1::2], strict=False)
        odd = states[len(states) - len(states) % 2 :]
        states = [combine(v, monoid, a, b) for a, b in pairs] + list(odd)
    return states[0]


def combine(v: Lanes, monoid: Monoid, left: State, right: State) -> State:
    """The product of two states in every lane: the monoid's own ops."""
    return computed(v, monoid.combine.body, (*left, *right))


def _by_origin(
    k: Kernel, op: ReduceTile, source: Places, v: Lanes
) -> dict[Coords, list[State]]:
    """The states to combine, by the origin of the register they end in.

    Padding along a reduced dimension takes the identity.
    """
    bounds = Bounds(k, source, {}, 32)
    components = [k.registers(value) for value in op.values]
    found: dict[Coords, list[State]] = {}
    for r, origin in enumerate(source.origins):
        states = found.setdefault(moved(origin, op.dims), [])
        mask = bounds.mask(r)
        registers = [component[r] for component in components]
        if mask is False or None in registers:
            continue
        state = tuple(str(x) for x in registers)
        if mask is not True:
            state = _masked(v, op, state, mask)
        states.append(state)
    return {origin: states or [_identity(v, op)] for origin, states in found.items()}


def _identity(v: Lanes, op: ReduceTile) -> State:
    return tuple(
        v.number(dtype_of(value), number)
        for value, number in zip(op.values, op.monoid.identity, strict=True)
    )


def _masked(v: Lanes, op: ReduceTile, state: State, mask: str) -> State:
    return tuple(
        v.select(element(dtype_of(value)), mask, x, identity)
        for value, x, identity in zip(op.values, state, _identity(v, op), strict=True)
    )


def _groups(
    source: Places, target: Places, origin: Coords, dims: Sequence[int]
) -> list[list[int]]:
    """The lanes that become one, for each lane of the result."""
    groups: list[list[int]] = [[] for _ in range(target.lanes)]
    for lane, step in enumerate(source.steps):
        _, into = target.table[added(origin, moved(step, dims))]
        groups[into].append(lane)
    return groups


def _across(
    v: Lanes,
    monoid: Monoid,
    dtypes: Sequence[DType],
    state: State,
    groups: list[list[int]],
) -> State:
    """Combine the lanes of each group: halves of what is left, and an odd one apart.

    After each step, lane `n·len(groups) + g` holds the n-th member of group g.
    """
    apart: list[State] = []
    while len(groups[0]) > 1:
        half = len(groups[0]) // 2
        parts = [
            [group[part * half + n] for n in range(half) for group in groups]
            for part in range(2)
        ]
        if len(groups[0]) % 2:
            apart.append(_lanes(v, dtypes, state, [group[-1] for group in groups]))
        left, right = (_lanes(v, dtypes, state, lanes) for lanes in parts)
        v = v.of(half * len(groups))
        state = combine(v, monoid, left, right)
        width = len(groups)
        groups = [[n * width + g for n in range(half)] for g in range(width)]
    state = _lanes(v, dtypes, state, [group[0] for group in groups])
    return tree(v.of(len(groups)), monoid, [state, *apart])


def _lanes(
    v: Lanes, dtypes: Sequence[DType], state: State, lanes: Sequence[int]
) -> State:
    """Some lanes of each component."""
    return tuple(
        some_lanes(v, element(dtype), x, lanes)
        for dtype, x in zip(dtypes, state, strict=True)
    )


def some_lanes(v: Lanes, type_: str, x: str, lanes: Sequence[int]) -> str:
    if list(lanes) == list(range(v.count)):
        return x
    vector = v.type(type_)
    if len(lanes) == 1:
        return v.write(f"extractelement {vector} {x}, i64 {lanes[0]}")
    order = constant_vector("i32", lanes)
    return v.write(
        f"shufflevector {vector} {x}, {vector} poison, <{len(lanes)} x i32> {order}"
    )
