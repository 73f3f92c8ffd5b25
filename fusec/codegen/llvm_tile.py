"""Ops that move elements among registers and lanes, or combine them.

Each is driven by the tables of the two layouts: for every lane of a result, where its
element lies in the operand. Renaming registers is free; the rest are shuffles.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusec.codegen.llvm_exchange import bit_permutation, exchange
from fusec.codegen.llvm_kernel import (
    Kernel,
    Register,
    Table,
    constant_vector,
    dtype_of,
    hint_of,
)
from fusec.codegen.llvm_lanes import Lanes, element
from fusec.codegen.llvm_mask import Bounds
from fusec.codegen.llvm_places import Place, Places, layout_of, moved
from fusec.errors import InternalError
from fusec.ir.core import Value
from fusec.ir.layout import convert as conversion
from fusec.ir.ops.tile import BroadcastTile, Convert, Guard, IotaTile, Scratch
from fusec.ir.types import Buffer, Scalar


def broadcast_tile(k: Kernel, op: BroadcastTile) -> None:
    """A scalar in every lane, or registers named again and lanes repeated."""
    target = k.places(op.result)
    if isinstance(op.x.type, Scalar):
        v = k.lanes(target.lanes, hint_of(op))
        register = v.splat(element(dtype_of(op.x)), k.scalar(op.x))
        k.define(op.result, [register] * len(target.origins))
        return
    source = k.places(op.x)
    v = k.lanes(target.lanes, hint_of(op))
    pick = Picker(v, element(dtype_of(op.x)), k.registers(op.x), source.lanes)
    registers = range(len(target.origins))
    rows = [wanted(source, target, r) for r in registers]
    table = k.table(op.x)
    if table is not None:
        known = tuple(tuple(_known(table, p) for p in row) for row in rows)
        k.define_table(op.result, known)
        return
    k.define(op.result, [pick(row) for row in rows])


def convert(k: Kernel, op: Convert) -> None:
    """The elements in other places; of copies, those that are near."""
    v, type_ = k.lanes(k.width(op.result), hint_of(op)), element(dtype_of(op.x))
    lanes, registers = k.places(op.x).lanes, k.registers(op.x)
    moves = conversion(layout_of(op.x.type), layout_of(op.result.type)).moves
    permutation = bit_permutation(moves, len(registers), lanes)
    present = [x for x in registers if x is not None]
    if permutation is not None and len(present) == len(registers):
        k.define(op.result, exchange(v, type_, present, permutation))
        return
    pick = Picker(v, type_, registers, lanes)
    k.define(op.result, [pick(row) for row in moves])


def iota_tile(k: Kernel, op: IotaTile) -> None:
    """Coordinates: one vector of lane numbers, plus a scalar for each register."""
    places = k.places(op.result)
    v = k.lanes(places.lanes, hint_of(op))
    lanes = constant_vector("i64", [step[op.dim] for step in places.steps])
    registers: list[Register] = []
    dim: int = op.dim
    first = k.number(op.origin)
    if first is not None:
        rows = (places.lane_coords(r, dim) for r in range(len(places.origins)))
        table = tuple(tuple(int(first) + c for c in row) for row in rows)
        k.define_table(op.result, table)
        return
    for origin in places.origins:
        first = _sum(k, op.origin, origin[dim])
        registers.append(v.op("add", "i64", lanes, v.splat("i64", first)))
    k.define(op.result, registers)


def _sum(k: Kernel, x: Value, more: int) -> str:
    """An integer scalar and a constant."""
    known = k.number(x)
    if known is not None:
        return str(int(known) + more)
    return k.scalar_lanes("first").op("add", "i64", k.scalar(x), str(more))


def guard(k: Kernel, op: Guard) -> None:
    """The identity where an element does not exist."""
    dtype, places = dtype_of(op.x), k.places(op.x)
    v = k.lanes(places.lanes, hint_of(op))
    limits: dict[int, Value] = dict(zip(op.limited, op.limits, strict=True))
    bounds = Bounds(k, places, limits, dtype.bits)
    identity = v.number(dtype, op.identity)
    registers: list[Register] = []
    for r, x in enumerate(k.registers(op.x)):
        mask = bounds.mask(r)
        if mask is False or x is None:
            registers.append(identity)
        elif mask is True:
            registers.append(x)
        else:
            registers.append(v.select(element(dtype), mask, x, identity))
    k.define(op.result, registers)


STACK = 16 << 10
"""Bytes of scratch on the stack; what is larger comes from the heap, since whoever
calls a kernel may have little stack left."""


def scratch(k: Kernel, op: Scratch) -> None:
    """Memory of the kernel, not of the program: programs run one by one."""
    type_ = op.result.type
    if not isinstance(type_, Buffer):
        raise InternalError(f"scratch of {type_}")
    bits = type_.layout.span("mem") + type_.dtype.bits - 1
    size = -(-bits // 8)
    if size <= STACK:
        slot = k.writer.at_entry(f"alloca [{size} x i8], align 64", hint_of(op))
    else:
        slot = k.from_heap(size, hint_of(op))
    k.define(op.result, (slot,))


# ---------------------------------------------------------------- rearranging


def wanted(source: Places, target: Places, register: int) -> list[Place | None]:
    """Where the elements of a register come from; None for padding."""
    repeated = [d for d, n in enumerate(source.shape) if n == 1]
    found: list[Place | None] = []
    for lane in range(target.lanes):
        coords = moved(target.coords(register, lane), repeated)
        inside = all(c < n for c, n in zip(coords, source.shape, strict=True))
        found.append(source.table[coords] if inside else None)
    return found


def _known(table: Table, place: Place | None) -> int:
    """The constant at a place; any where there is none."""
    return table[place[0]][place[1]] if place else 0


class Picker:
    """Gathers lanes out of `registers` of `lanes` lanes into registers as wide as
    those of `v`."""

    def __init__(
        self, v: Lanes, type_: str, registers: Sequence[Register], lanes: int
    ) -> None:
        self._v = v
        self._from = v.of(lanes)
        self._type = type_
        self._registers = registers

    def __call__(self, wanted: Sequence[Place | None]) -> Register:
        """The register whose lane k is what lies at the k-th place."""
        places = [
            p if p and self._registers[p[0]] is not None else None for p in wanted
        ]
        used = list(dict.fromkeys(p[0] for p in places if p))
        if not used:
            return None
        if len(used) == 1 and self._is_renaming(places):
            return self._registers[used[0]]
        if self._v.count == 1:
            return self._extract(*[p for p in places if p])
        if self._from.count == 1:
            return self._put_together(used, places)
        return self._shuffle(used, places)

    def _is_renaming(self, places: Sequence[Place | None]) -> bool:
        same = all(p is None or p[1] == lane for lane, p in enumerate(places))
        return same and len(places) == self._from.count

    def _operand(self, register: int) -> str:
        operand = self._registers[register]
        assert operand is not None
        return operand

    def _extract(self, place: Place) -> str:
        register, lane = place
        vector = f"{self._from.type(self._type)} {self._operand(register)}"
        return self._v.write(f"extractelement {vector}, i64 {lane}")

    def _put_together(self, used: list[int], places: Sequence[Place | None]) -> str:
        v, type_ = self._v, self._v.type(self._type)
        if len(used) == 1:
            return v.splat(self._type, self._operand(used[0]))
        vector = "poison"
        for lane, place in enumerate(places):
            if place is not None:
                scalar = f"{self._type} {self._operand(place[0])}"
                vector = v.write(
                    f"insertelement {type_} {vector}, {scalar}, i64 {lane}"
                )
        return vector

    def _shuffle(self, used: list[int], places: Sequence[Place | None]) -> str:
        """Two registers at once, then one more at a time."""
        first, second = used[0], used[1] if len(used) > 1 else None
        at = {first: 0, second: self._from.count}
        other = "poison" if second is None else self._operand(second)
        lanes = [at[p[0]] + p[1] if p and p[0] in at else None for p in places]
        result = self._two(self._from, self._operand(first), other, lanes)
        for register in used[2:]:
            lanes = [p[1] if p and p[0] == register else None for p in places]
            more = self._two(self._from, self._operand(register), "poison", lanes)
            merged = [
                k + self._v.count if lane is not None else k
                for k, lane in enumerate(lanes)
            ]
            result = self._two(self._v, result, more, merged)
        return result

    def _two(self, source: Lanes, x: str, y: str, lanes: Sequence[int | None]) -> str:
        vector = source.type(self._type)
        order = ["poison" if lane is None else lane for lane in lanes]
        if x == y == "poison":
            return x
        return self._v.write(
            f"shufflevector {vector} {x}, {vector} {y}, "
            f"<{len(order)} x i32> {_shuffle_mask(order)}"
        )


def _shuffle_mask(order: Sequence[int | str]) -> str:
    return "<" + ", ".join(f"i32 {lane}" for lane in order) + ">"
