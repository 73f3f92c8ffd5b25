"""Scans of a tile: within each register by doubling steps, then register by register.

    1 register of 8 lanes     x ∘ (x one lane on), then two, then four: 3 steps
    4 registers of 8 lanes    each on its own; then each after the totals before it

The totals of registers are combined apart from what came before the tile, so that a
loop over tiles waits for one combination a trip. Where lanes lie along another
dimension, each register is combined with the one before it, and with what came before
the tile at once or, where that rounds, in the end. What has to be combined one by one
has its lanes there, or is one lane wide.
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
from fusec.codegen.llvm_lanes import element
from fusec.codegen.llvm_places import Coords, Places, moved
from fusec.codegen.llvm_reduce import State, combine, some_lanes
from fusec.errors import InternalError
from fusec.ir.dtypes import DType
from fusec.ir.ops.reduction import ScanTile


def scan_tile(k: Kernel, op: ScanTile) -> None:
    """Combine along a dimension, keeping what each place has come to."""
    scan = _Scan(k, op)
    starts = [k.registers(value) for value in op.starts]
    scanned: list[list[Register]] = [
        [None] * len(scan.source.origins) for _ in op.values
    ]
    totals: list[list[Register]] = [list(registers) for registers in starts]
    for origin, chain in scan.chains().items():
        register, _ = scan.target.table[origin]
        state = tuple(_present(held[register]) for held in starts)
        found, state = scan.run(chain, state)
        for component, results in zip(scanned, zip(*found, strict=True), strict=True):
            for r, x in zip(chain, results, strict=True):
                component[r] = x
        for held, x in zip(totals, state, strict=True):
            held[register] = x
    for value, registers in zip(op.results, (*scanned, *totals), strict=True):
        k.define(value, registers)


def _present(register: Register) -> str:
    assert register is not None
    return register


class _Scan:
    """One scan of a tile."""

    def __init__(self, k: Kernel, op: ScanTile) -> None:
        self.op = op
        self.monoid = op.monoid
        self.dtypes: tuple[DType, ...] = tuple(map(dtype_of, op.values))
        self.source: Places = k.places(op.values[0])
        self.target: Places = k.places(op.totals[0])
        self.wide = k.lanes(self.source.lanes, hint_of(op))
        self.narrow = self.wide.of(self.target.lanes)
        self.held = [k.registers(value) for value in op.values]
        self.lanes: dict[Coords, int] = {
            step: lane for lane, step in enumerate(self.source.steps)
        }
        dim: int = op.dim
        places = {step[dim] for step in self.source.steps}
        self.along = len(places)
        """Lanes of a register along the dimension; they are its minor digits."""
        if places != set(range(self.along)):
            raise InternalError(f"the lanes of {op.values[0].type} skip elements")

    def chains(self) -> dict[Coords, list[int]]:
        """Registers that follow one another along the dimension, by where they end."""
        found: dict[Coords, list[int]] = {}
        dim: int = self.op.dim
        for r, origin in enumerate(self.source.origins):
            if all(held[r] is not None for held in self.held):
                found.setdefault(moved(origin, (dim,)), []).append(r)
        places = [origin[dim] for origin in self.source.origins]
        for chain in found.values():
            chain.sort(key=places.__getitem__)
        return found

    def run(self, chain: Sequence[int], start: State) -> tuple[list[State], State]:
        """The scanned registers of a chain, and what they come to."""
        states = [tuple(_present(held[r]) for held in self.held) for r in chain]
        if self.along == 1:
            found = self.chained(states, start)
            return found, found[-1]
        local = [self.doubled(state) for state in states]
        before: State | None = None
        found: list[State] = []
        for state in local:
            ahead = start if before is None else self.joined(start, before)
            found.append(combine(self.wide, self.monoid, self.broadcast(ahead), state))
            total = self.last(state)
            before = total if before is None else self.joined(before, total)
        assert before is not None
        return found, self.joined(start, before)

    def chained(self, states: Sequence[State], start: State) -> list[State]:
        """Each state after those before it. Where that rounds, they are combined among
        themselves first, so that a long chain has one link for all of them; but not
        where order matters."""
        apart = self.monoid.rounds and not self.monoid.ordered
        found: list[State] = []
        for state in states:
            before = found[-1] if found else None if apart else start
            found.append(state if before is None else self.after(before, state))
        return [self.after(start, state) for state in found] if apart else found

    def after(self, left: State, right: State) -> State:
        return combine(self.wide, self.monoid, left, right)

    def joined(self, left: State, right: State) -> State:
        return combine(self.narrow, self.monoid, left, right)

    def doubled(self, state: State) -> State:
        """The scan of one register."""
        step = 1
        while step < self.along:
            shifted = tuple(
                self.shifted(dtype, x, identity, step)
                for dtype, x, identity in zip(
                    self.dtypes, state, self.monoid.identity, strict=True
                )
            )
            state = combine(self.wide, self.monoid, shifted, state)
            step *= 2
        return state

    def shifted(self, dtype: DType, x: str, identity: float, step: int) -> str:
        """The lanes `step` places on; the identity comes in."""
        v, dim = self.wide, self.op.dim
        order: list[int] = []
        for coords in self.source.steps:
            behind = tuple(c - step * (d == dim) for d, c in enumerate(coords))
            order.append(self.lanes.get(behind, v.count))
        vector = v.type(element(dtype))
        return v.write(
            f"shufflevector {vector} {x}, {vector} {v.number(dtype, identity)}, "
            f"<{v.count} x i32> {constant_vector('i32', order)}"
        )

    def last(self, state: State) -> State:
        """The last lane along the dimension, for each of the others."""
        ends = [
            tuple(self.along - 1 if d == self.op.dim else c for d, c in enumerate(step))
            for step in self.target.steps
        ]
        lanes = [self.lanes[end] for end in ends]
        return tuple(
            some_lanes(self.wide, element(dtype), x, lanes)
            for dtype, x in zip(self.dtypes, state, strict=True)
        )

    def broadcast(self, state: State) -> State:
        """A state of the totals, for every lane that comes after it."""
        at = {step: lane for lane, step in enumerate(self.target.steps)}
        lanes = [at[moved(step, (self.op.dim,))] for step in self.source.steps]
        return tuple(
            self.wide.splat(element(dtype), x)
            if self.narrow.count == 1
            else some_lanes(self.narrow, element(dtype), x, lanes)
            for dtype, x in zip(self.dtypes, state, strict=True)
        )
