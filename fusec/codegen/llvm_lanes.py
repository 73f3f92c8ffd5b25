"""Instructions on one register: a vector of lanes, or a scalar where there is one.

    v = Lanes(writer, target, 16, "y")
    v.op("fadd", "float", a, b)             %y = fadd <16 x float> %a, %b
    v.call("sqrt", "float", a)              llvm.sqrt.v16f32, declared on the way
    v.number(f32, 1.5)                      splat (float 0x3FF8000000000000)

How an element type is held: floats and integers as LLVM's own; bool as i1 (a byte in
memory); f16 and bf16 as their bits, an i16, since baseline CPUs have no instructions
for them and LLVM's own types would call functions that nobody provides.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fusec.codegen.llvm_text import Writer
from fusec.errors import InternalError
from fusec.ir.builder import representable
from fusec.ir.dtypes import DType, f32, f64
from fusec.target import Target

_INTEGER = re.compile(r"(?:splat \(i\d+ )?(-?\d+)\)?")
_MANGLED = {"float": "f32", "double": "f64"}


def element(dtype: DType) -> str:
    """LLVM's type of one element in a register."""
    if dtype is f32:
        return "float"
    if dtype is f64:
        return "double"
    if dtype.is_bool:
        return "i1"
    if dtype.bits not in (8, 16, 32, 64):
        raise InternalError(f"{dtype.name} reached the LLVM backend without unpacking")
    return f"i{dtype.bits}"


def memory_element(dtype: DType) -> str:
    """LLVM's type of one element in memory."""
    return "i8" if dtype.is_bool else element(dtype)


def literal(dtype: DType, number: float | int | bool) -> str:
    """A constant of that type; `number` is rounded to it."""
    if dtype.is_bool:
        return "true" if number else "false"
    if dtype.is_int:
        return str(int(number))
    if dtype is f32 or dtype is f64:
        value = float(representable(number, dtype))
        return f"0x{struct.pack('>d', value).hex().upper()}"
    return str(int(dtype.encode(number).item()))


@dataclass(frozen=True, slots=True)
class Lanes:
    """Writes pure instructions on `count` elements; results are named after `hint`."""

    writer: Writer
    target: Target
    count: int
    hint: str = "v"
    hoist: bool = False
    """Scalars that depend on no loop move out of it; vectors would cost registers."""

    def named(self, hint: str) -> Lanes:
        return replace(self, hint=hint)

    def of(self, count: int) -> Lanes:
        """The same with another number of lanes."""
        return replace(self, count=count, hoist=False)

    def type(self, element: str) -> str:
        return element if self.count == 1 else f"<{self.count} x {element}>"

    def constant(self, element: str, literal: str | int) -> str:
        return str(literal) if self.count == 1 else f"splat ({element} {literal})"

    def number(self, dtype: DType, number: float | int | bool) -> str:
        """A constant in every lane."""
        return self.constant(element(dtype), literal(dtype, number))

    def zero(self, dtype: DType) -> str:
        return self.number(dtype, 0)

    def known(self, x: str) -> int | None:
        """The integer that an operand is in every lane, if it is a constant."""
        found = _INTEGER.fullmatch(x)
        return int(found[1]) if found else None

    def write(self, text: str) -> str:
        return self.writer.value(text, self.hint, self.hoist)

    def op(self, opcode: str, element: str, *xs: str) -> str:
        """An instruction whose operands all have the type of the result."""
        made = self.write(f"{opcode} {self.type(element)} {', '.join(xs)}")
        return self.cleaned(made, xs) if element == "float" else made

    def cleaned(self, x: str, sources: Sequence[str] = ()) -> str:
        """x, known to be clean where all that hardware computes it from is so: a NaN
        is that of an operand, or the processor's own."""
        clean = self.writer.clean
        if all(source in clean or source[0] != "%" for source in sources):
            clean.add(x)
        return x

    def test(self, predicate: str, element: str, x: str, y: str) -> str:
        """A comparison: `fcmp olt`, `icmp eq`."""
        return self.op(predicate, element, x, y)

    def bits(self, mask: str) -> str:
        """A mask as an integer of as many bits as lanes, the first lane lowest."""
        return self.write(f"bitcast {self.type('i1')} {mask} to i{self.count}")

    def select(self, element: str, condition: str, x: str, y: str) -> str:
        type_ = self.type(element)
        made = self.write(
            f"select {self.type('i1')} {condition}, {type_} {x}, {type_} {y}"
        )
        return self.cleaned(made, (x, y)) if element == "float" else made

    def cast(self, opcode: str, source: str, x: str, target: str) -> str:
        """A conversion: `zext`, `fptosi`, `bitcast`. Nothing if the types agree."""
        if source == target:
            return x
        return self.write(f"{opcode} {self.type(source)} {x} to {self.type(target)}")

    def call(self, intrinsic: str, element: str, *xs: str) -> str:
        """An intrinsic whose operands all have the type of the result."""
        type_ = self.type(element)
        name = f"@llvm.{intrinsic}.{self.mangled(element)}"
        self.writer.declare(f"{type_} {name}({', '.join([type_] * len(xs))})")
        operands = ", ".join(f"{type_} {x}" for x in xs)
        made = self.write(f"call {type_} {name}({operands})")
        return self.cleaned(made, xs) if element == "float" else made

    def mangled(self, element: str) -> str:
        """The type as names of intrinsics spell it."""
        scalar = _MANGLED.get(element, element)
        return scalar if self.count == 1 else f"v{self.count}{scalar}"

    def splat(self, element: str, scalar: str) -> str:
        """A scalar in every lane."""
        if self.count == 1:
            return scalar
        if not scalar.startswith("%"):
            return self.constant(element, scalar)
        type_ = self.type(element)
        first = self.write(f"insertelement {type_} poison, {element} {scalar}, i64 0")
        return self.write(
            f"shufflevector {type_} {first}, {type_} poison, "
            f"<{self.count} x i32> zeroinitializer"
        )
