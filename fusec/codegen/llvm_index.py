"""Sizes as arithmetic: a `Dim` → i64 instructions, as far out as its symbols allow."""

from __future__ import annotations

from collections.abc import Mapping

from fusec.codegen.llvm_lanes import Lanes
from fusec.errors import InternalError
from fusec.ir.dims import (
    Atom,
    Dim,
    Facts,
    FloorDiv,
    Max,
    Min,
    Mod,
    Symbol,
    fold,
    terms_of,
)


class Index:
    """Emits dims. `symbols` are the registers that hold them, `v` scalar lanes."""

    def __init__(self, v: Lanes, symbols: Mapping[Symbol, str], facts: Facts) -> None:
        self._v = v
        self._symbols = symbols
        self._facts = facts

    def __call__(self, dim: Dim) -> str:
        """An i64 with the value of `dim`."""
        return str(dim) if isinstance(dim, int) else fold(dim, self._atom, self._sum)

    def _sum(self, dim: Dim, known: Mapping[Atom, str]) -> str:
        total = "0"
        for monomial, coefficient in terms_of(dim):
            term = str(coefficient)
            for atom in monomial:
                term = self._combine("mul", known[atom], term, neutral="1")
            total = self._combine("add", term, total, neutral="0")
        return total

    def _combine(self, opcode: str, x: str, y: str, neutral: str) -> str:
        if neutral in (x, y):
            return y if x == neutral else x
        return self._v.op(opcode, "i64", x, y)

    def _atom(self, atom: Atom, operands: list[str]) -> str:
        if isinstance(atom, Symbol):
            if atom not in self._symbols:
                raise InternalError(f"the kernel does not know the size {atom.name}")
            return self._symbols[atom]
        if isinstance(atom, (Max, Min)):
            return self._extreme("smax" if isinstance(atom, Max) else "smin", operands)
        low, _ = self._facts.range(atom.operands[0])
        return self._divide(atom, low is not None and low >= 0, *operands)

    def _extreme(self, name: str, operands: list[str]) -> str:
        result = operands[0]
        for operand in operands[1:]:
            result = self._v.call(name, "i64", result, operand)
        return result

    def _divide(self, atom: Atom, positive: bool, x: str, y: str) -> str:
        """Round down; the divisor is positive, by the convention of dims, and 0 must
        not trap in a launch of no programs."""
        v = self._v
        if y.startswith("%"):
            y = v.call("smax", "i64", y, "1")
        opcode = {FloorDiv: "div", Mod: "rem"}[type(atom)]  # type: ignore[index]
        if positive:
            return v.op(f"u{opcode}", "i64", x, y)
        rest = v.op("srem", "i64", x, y)
        below = v.test("icmp slt", "i64", rest, "0")
        if isinstance(atom, Mod):
            return v.select("i64", below, v.op("add", "i64", rest, y), rest)
        quotient = v.op("sdiv", "i64", x, y)
        return v.select("i64", below, v.op("sub", "i64", quotient, "1"), quotient)
