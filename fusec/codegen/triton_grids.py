"""Kernels that run several grids, one part after the other.

    def joined_0(x, y, z, BLOCK_I_0: tl.constexpr):
        pid = tl.program_id(0).to(tl.int64)
        if pid < 4:
            part(pid, x, y, BLOCK_I_0)
        else:
            part(pid - 4, y, z, BLOCK_I_0)

Parts that are the same but for names and extents share a function.
"""

from __future__ import annotations

from dataclasses import replace

from fusec.codegen.triton_kernel import Handlers, Kernel
from fusec.codegen.triton_text import bare
from fusec.ir.core import Block, Function, walk
from fusec.ir.ops.tile import Part
from fusec.ir.sizes import used_symbols


class Grids(Kernel):
    """The source of a kernel that runs several grids: a function for each distinct one,
    which gets the number of its program."""

    def __init__(self, function: Function, handlers: Handlers) -> None:
        empty = replace(function, body=replace(function.body, ops=()))
        super().__init__(empty, handlers)
        self.parts = parts_of(function)
        self.told_of: dict[tuple[str, tuple[int, ...]], list[str]] = {}
        """The names of a part's constants, by its function and their values."""
        self.values: dict[str, int] = {}

    @property
    def constants(self) -> tuple[tuple[str, int], ...]:
        return tuple(self.values.items())

    def body(self) -> None:
        pid = self.fresh("pid")
        self.line(f"{pid} = tl.program_id(0).to(tl.int64)")
        for k, op in enumerate(self.parts):
            end = bare(self.size(op.first + op.programs))
            last = k == len(self.parts) - 1
            test = "else" if last else f"{'elif' if k else 'if'} {pid} < {end}"
            self.line(f"{test}:")
            first = self.size(op.first)
            number = pid if first == "0" else f"{pid} - {first}"
            self.lines.append(f"        {self.call(op, number)}")

    def call(self, op: Part, number: str) -> str:
        """The call of a part's function."""
        used = {v for inner in walk(op.body) for v in inner.operands}
        params = [p for p in self.function.params if p in used]
        body = replace(op.body, params=(*op.body.params, *params))
        symbols = used_symbols(Block(tuple(params), op.body.ops, ()))
        own = replace(self.function, body=body, symbols=symbols)
        inner = Kernel(own, self.handlers, self.others)
        name = self.others.name("part", self.taken, inner.definition())
        self.taken.add(name)
        given = [number, *(self.names[p] for p in params)]
        given += [self.sizes[symbol] for symbol in symbols]
        return f"{name}({', '.join([*given, *self.told_as(name, inner)])})"

    def told_as(self, name: str, inner: Kernel) -> list[str]:
        """What the constants of a part are called here."""
        values = tuple(value for _, value in inner.constants)
        key = name, values
        if key not in self.told_of:
            names = [self.fresh(f"{n}_{len(self.told_of)}") for n, _ in inner.constants]
            self.told_of[key] = names
            self.values.update(zip(names, values, strict=True))
        return self.told_of[key]


def parts_of(function: Function) -> list[Part]:
    """The grids of a kernel that runs several."""
    return [op for op in function.body.ops if isinstance(op, Part)]
