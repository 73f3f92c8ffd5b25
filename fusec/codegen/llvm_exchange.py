"""Transposes: register and lane numbers change bits, in as few shuffles as that takes.

An element's place is a number, lane bits below register bits. Where a conversion only
permutes these bits, each bit that moves between the two is one exchange: for registers
that differ in bit j, of lanes that differ in bit i,

    a: a0 a1 a2 a3        a0 b0 a2 b2
    b: b0 b1 b2 b3   →    a1 b1 a3 b3        lane bit 0 against the bit of a and b

which is a shuffle of two registers into each. Transposing 8 registers of 8 lanes takes
3 exchanges, 24 shuffles (J. O. Eklundh, 1972: a fast method for matrix transposing);
put together lane by lane it takes 104.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusec.codegen.llvm_kernel import constant_vector
from fusec.codegen.llvm_lanes import Lanes
from fusec.codegen.llvm_places import Place

Moves = Sequence[Sequence[Place | None]]
"""For each register and lane of the result, where its element lies."""


def bit_permutation(moves: Moves, registers: int, lanes: int) -> list[int] | None:
    """For each bit of a place in the result, which bit of the source it was.

    None where the places do not correspond so: registers or lanes that are no powers
    of two or not as many as before, elements that are copies or none.
    """
    width = lanes.bit_length() - 1
    count = registers * lanes
    same = len(moves) == registers and all(len(row) == lanes for row in moves)
    if not same or lanes != 1 << width or count & (count - 1):
        return None
    places = [place for row in moves for place in row]
    if any(place is None for place in places):
        return None
    sources = [(p[0] << width) | p[1] for p in places if p is not None]
    bits = [sources[1 << b].bit_length() - 1 for b in range(count.bit_length() - 1)]
    if sorted(bits) != list(range(len(bits))):
        return None
    moved = [
        sum(1 << bits[b] for b in range(len(bits)) if at >> b & 1)
        for at in range(count)
    ]
    return bits if sources == moved else None


def exchange(
    v: Lanes, type_: str, registers: Sequence[str], permutation: list[int]
) -> list[str]:
    """The registers with the bits of their places permuted.

    What changes among the lanes alone goes into the shuffles of the last exchange.
    """
    width = v.count.bit_length() - 1
    swaps, held = _swaps(permutation, width)
    lanes = _permuted(v.count, [held.index(b) for b in permutation[:width]])
    current = list(registers)
    for n, (lane_bit, register_bit) in enumerate(swaps, start=1):
        order = lanes if n == len(swaps) else list(range(v.count))
        current = _swap(v, type_, current, lane_bit, register_bit, order)
    if not swaps and lanes != list(range(v.count)):
        current = [_shuffle(v, type_, x, "poison", lanes) for x in current]
    order = _permuted(
        len(current), [held.index(b) - width for b in permutation[width:]]
    )
    return [current[r] for r in order]


def _swaps(
    permutation: Sequence[int], width: int
) -> tuple[list[tuple[int, int]], list[int]]:
    """The exchanges of a lane's and a register's bit that bring every bit to its kind,
    and which bit of the source each bit of a place is after them."""
    held = list(range(len(permutation)))
    swaps: list[tuple[int, int]] = []
    moving = True
    while moving:
        moving = False
        for lane_bit in range(width):
            at = held.index(permutation[lane_bit])
            if at >= width:
                swaps.append((lane_bit, at - width))
                held[lane_bit], held[at] = held[at], held[lane_bit]
                moving = True
    return swaps, held


def _swap(
    v: Lanes,
    type_: str,
    registers: list[str],
    lane_bit: int,
    register_bit: int,
    order: Sequence[int],
) -> list[str]:
    """One exchange, for every pair of registers; of the results, the lanes in order."""
    result = list(registers)
    step, far = 1 << lane_bit, 1 << register_bit
    lanes = range(v.count)
    low = [n if not n & step else v.count + (n ^ step) for n in lanes]
    high = [n | step if not n & step else v.count + n for n in lanes]
    for r, x in enumerate(registers):
        if not r & far:
            y = registers[r | far]
            result[r] = _shuffle(v, type_, x, y, [low[n] for n in order])
            result[r | far] = _shuffle(v, type_, x, y, [high[n] for n in order])
    return result


def _permuted(count: int, bits: list[int]) -> list[int]:
    """The numbers below `count` with bit b of each taken to bit `bits[b]`."""
    return [
        sum(1 << to for b, to in enumerate(bits) if n >> b & 1) for n in range(count)
    ]


def _shuffle(v: Lanes, type_: str, x: str, y: str, lanes: Sequence[int]) -> str:
    vector, order = v.type(type_), constant_vector("i32", lanes)
    return v.write(
        f"shufflevector {vector} {x}, {vector} {y}, <{len(lanes)} x i32> {order}"
    )
