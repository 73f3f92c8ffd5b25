"""The state of emitting one kernel: which registers hold which values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fusec.codegen.llvm_index import Index
from fusec.codegen.llvm_lanes import Lanes, element, literal, memory_element
from fusec.codegen.llvm_places import Places, places_of
from fusec.codegen.llvm_text import Loop, Writer, module
from fusec.errors import InternalError
from fusec.ir.core import Block, Function, Op, Value, walk
from fusec.ir.dims import Symbol
from fusec.ir.dtypes import DType
from fusec.ir.intervals import Interval
from fusec.ir.ops.contraction import DotTile
from fusec.ir.types import Buffer, Scalar, Tile
from fusec.target import Target

Register = str | None
"""An operand of LLVM's. None: no element of the register exists, so nobody asks."""

Table = tuple[tuple[int, ...], ...]
"""The elements of a tile of integers or bools: lanes by registers."""

FROM_FIRST, FROM_SECOND = 3, 2
"""LLVM's localities of what is fetched into the first cache, and the second."""

ABI = "ptr %args, i64 %lo, i64 %hi"


class Kernel:
    """One kernel under construction.

    A tile is held as a tuple of registers, a scalar as one, a buffer as its pointer.
    Constants are literals, so that they cost no instruction.
    """

    def __init__(self, function: Function, target: Target) -> None:
        self.function = function
        self.target = target
        self.writer = Writer(function.name, ABI)
        self.streams = False
        """Some store bypasses the caches: the kernel ends with a fence."""
        multiplies = any(isinstance(op, DotTile) for op in walk(function.body))
        self.fetched_into = FROM_SECOND if multiplies else FROM_FIRST
        """Where what is fetched ahead waits: what is multiplied meanwhile takes all of
        the first-level cache."""
        self.apart: dict[Block, Writer] = {}
        """Functions beside the kernel, by what they compute."""
        self._borrowed: list[str] = []
        self._nowhere: str | None = None
        self._held: dict[Value, tuple[Register, ...]] = {}
        self._numbers: dict[Value, float | int | bool] = {}
        self._tables: dict[Value, Table] = {}
        self.spans: dict[Value, tuple[Interval, ...]] = {}
        """Where the integers of each register are (see `llvm_spans`)."""
        self.index = Index(
            self.scalar_lanes("n"), self._load_arguments(), function.facts
        )
        self.programs: Loop = self.writer.open_loop("%lo", "%hi", 1, (), "program")

    # ------------------------------------------------------------------- values

    def define(self, value: Value, registers: Iterable[Register]) -> None:
        """Hold a value in registers. A body that is written again defines anew: what
        was a constant in one piece of a loop need not be in another."""
        self._held[value] = tuple(registers)
        self._numbers.pop(value, None)
        self._tables.pop(value, None)
        self.spans.pop(value, None)

    def define_number(self, value: Value, number: float | int | bool) -> None:
        """The value is a constant."""
        self.define(value, (literal(dtype_of(value), number),))
        self._numbers[value] = number

    def define_table(self, value: Value, table: Table) -> None:
        """All elements of a tile are constants."""
        type_, dtype = element(dtype_of(value)), dtype_of(value)
        rows = ([literal(dtype, n) for n in lanes] for lanes in table)
        self.define(value, (constant_vector(type_, row) for row in rows))
        self._tables[value] = table

    def table(self, value: Value) -> Table | None:
        """The elements of a tile, if all are constants."""
        return self._tables.get(value)

    def registers(self, value: Value) -> tuple[Register, ...]:
        return self._held[value]

    def spread(self, value: Value, v: Lanes, count: int) -> tuple[Register, ...]:
        """The `count` registers of a value; a scalar in every lane of each."""
        if not isinstance(value.type, Scalar):
            return self.registers(value)
        return (v.splat(element(dtype_of(value)), self.scalar(value)),) * count

    def scalar(self, value: Value) -> str:
        """The register of a scalar or the pointer of a buffer."""
        (register,) = self._held[value]
        assert register is not None
        return register

    def number(self, value: Value) -> float | int | bool | None:
        """What a constant is; None for other values."""
        return self._numbers.get(value)

    def present(self, value: Value, lanes: Lanes) -> list[str]:
        """The registers of a value, zeros where no element exists."""
        zero = lanes.zero(dtype_of(value))
        return [zero if r is None else r for r in self._held[value]]

    # ---------------------------------------------------------------- emission

    def lanes(self, count: int, hint: str) -> Lanes:
        return Lanes(self.writer, self.target, count, hint)

    def scalar_lanes(self, hint: str) -> Lanes:
        return Lanes(self.writer, self.target, 1, hint, hoist=True)

    def places(self, value: Value) -> Places:
        """Where the elements of a tile lie."""
        if not isinstance(value.type, Tile):
            raise InternalError(f"expected a tile, not {value.type}")
        return places_of(value.type)

    def width(self, value: Value) -> int:
        """Lanes of each register of a value."""
        return self.places(value).lanes if isinstance(value.type, Tile) else 1

    def element_pointer(self, v: Lanes, dtype: DType, base: str, offset: str) -> str:
        """The address of the element `offset` after `base`."""
        if offset == "0":
            return base
        type_ = memory_element(dtype)
        return v.write(f"getelementptr {type_}, ptr {base}, i64 {offset}")

    def from_heap(self, size: int, hint: str) -> str:
        """Memory at a multiple of 64 bytes, that `give_back` frees."""
        w = self.writer
        w.declare("ptr @malloc(i64)")
        block = w.at_entry(f"call ptr @malloc(i64 {size + 63})", hint)
        self._borrowed.append(block)
        last = w.at_entry(f"getelementptr i8, ptr {block}, i64 63", "last")
        number = w.at_entry(f"ptrtoint ptr {last} to i64", "number")
        aligned = w.at_entry(f"and i64 {number}, -64", "aligned")
        return w.at_entry(f"inttoptr i64 {aligned} to ptr", hint)

    @property
    def nowhere(self) -> str:
        """Memory to read where there is nothing to read: a vector's worth of it."""
        if self._nowhere is None:
            self._nowhere = self.writer.at_entry(
                "alloca [64 x i8], align 64", "nowhere"
            )
        return self._nowhere

    def give_back(self) -> None:
        """Free what came from the heap; no loop is open any more."""
        for block in self._borrowed:
            self.writer.declare("void @free(ptr)")
            self.writer.effect(f"call void @free(ptr {block})")

    def text(self) -> str:
        """The module: the kernel and what stands beside it."""
        return module([self.writer, *self.apart.values()])

    def comment(self, op: Op) -> None:
        operands = [self._shown(value) for value in op.operands]
        self.writer.comment(" ".join([type(op).name, *operands]))

    def _shown(self, value: Value) -> str:
        first = self._held[value][0]
        if first is None or first.startswith("%"):
            return f"%{value.hint}" if value.hint else first or "-"
        return first

    def _load_arguments(self) -> dict[Symbol, str]:
        """Read the slots: pointers in the order of parameters, then symbols."""
        params, symbols = self.function.params, self.function.symbols
        for slot, param in enumerate(params):
            if not isinstance(param.type, Buffer):
                raise InternalError(f"parameter {param} of a kernel is no buffer")
            self.define(param, (self._argument(slot, "ptr", param.hint or "buffer"),))
        return {
            symbol: self._argument(len(params) + k, "i64", symbol.name)
            for k, symbol in enumerate(symbols)
        }

    def _argument(self, slot: int, type_: str, hint: str) -> str:
        w = self.writer
        place = w.at_entry(f"getelementptr i64, ptr %args, i64 {slot}", "slot")
        return w.at_entry(f"load {type_}, ptr {place}, align 8", hint)


def dtype_of(value: Value) -> DType:
    """The element type of a tile, a scalar or a buffer."""
    if not isinstance(value.type, (Tile, Scalar, Buffer)):
        raise InternalError(f"no elements in {value.type}")
    return value.type.dtype


def hint_of(op: Op) -> str:
    """A name for what an op computes."""
    return next((r.hint for r in op.results if r.hint), type(op).name)


def constant_vector(type_: str, values: Sequence[Any]) -> str:
    """`<i32 0, i32 1, …>`; the value itself where there is one."""
    if len(values) == 1:
        return str(values[0])
    return "<" + ", ".join(f"{type_} {value}" for value in values) + ">"
