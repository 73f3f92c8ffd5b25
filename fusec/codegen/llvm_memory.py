"""Tiles ↔ memory: addresses, and the instruction that fits how lanes lie apart.

    lanes 1 apart          vector load           lanes 0 apart     scalar load, splat
    lanes -1 apart         vector load, reverse  anything else     gather, or one by one

An address is the buffer, plus the offset, plus what the register's origin contributes:
strides that are known fold into the constant of the addressing mode, others cost one
addition for each distinct row of the tile, hoisted as far as their symbols allow.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from fusec.codegen.llvm_kernel import (
    Kernel,
    Register,
    constant_vector,
    dtype_of,
    hint_of,
)
from fusec.codegen.llvm_known import condition
from fusec.codegen.llvm_lanes import Lanes, element, memory_element
from fusec.codegen.llvm_mask import Bounds, Mask, both, constant_mask, known_lanes
from fusec.codegen.llvm_places import Places, moved
from fusec.errors import InternalError
from fusec.ir.core import Value
from fusec.ir.dims import Dim, terms_of
from fusec.ir.dtypes import DType
from fusec.ir.ops.tile import Access, LoadTile, StoreTile
from fusec.ir.ops.updating import ONE

LINE = 64
"""Bytes of a cache line."""


@dataclass(frozen=True, slots=True)
class Where:
    """The addresses of one tile access, register by register."""

    k: Kernel
    v: Lanes
    places: Places
    dtype: DType
    strides: tuple[Dim, ...]
    base: str
    index: tuple[Register, ...] | None = None
    """Offsets to add, lane by lane."""
    rows: tuple[Register, ...] | None = None
    """An offset to add for all lanes of each register."""
    exist: tuple[Mask, ...] | None = None
    """Whether there is something at all to read for each register."""

    @property
    def bytes(self) -> int:
        """Size of an element in memory."""
        return self.dtype.bits // 8

    @property
    def step(self) -> int | None:
        """How many elements apart neighbouring lanes are; None if that varies."""
        offsets = [self.offset(step) for step in self.places.steps]
        if self.index is not None:
            return None
        step = offsets[1] if len(offsets) > 1 else 1
        if not isinstance(step, int):
            return None
        return step if offsets == [step * n for n in range(len(offsets))] else None

    def split(self, register: int) -> tuple[Dim, int]:
        """The distance of a register from the base: what varies, and what is known."""
        distance = self.offset(self.places.origins[register])
        known = dict(terms_of(distance)).get((), 0)
        return distance - known, known

    def pointer(self, register: int, more: int = 0) -> str:
        """The address of lane 0, and `more` elements on."""
        varying, known = self.split(register)
        k, scalar = self.k, self.k.scalar_lanes("row")
        row = k.element_pointer(scalar, self.dtype, self.base, k.index(varying))
        if self.rows is not None:
            entry = self.rows[register] or "0"
            row = k.element_pointer(k.lanes(1, "row"), self.dtype, row, entry)
        # A constant stays beside its use, where an addressing mode takes it in.
        at = k.lanes(1, "at")
        pointer = k.element_pointer(at, self.dtype, row, str(known + more))
        exists = self.exist[register] if self.exist is not None else True
        if isinstance(exists, bool):
            return pointer
        return at.select("ptr", exists, pointer, k.nowhere)

    def only(self, register: int) -> str:
        """The address of the only lane."""
        pointer = self.pointer(register)
        if self.index is None:
            return pointer
        entry = self.index[register] or "0"
        return self.k.element_pointer(self.v, self.dtype, pointer, entry)

    def pointers(self, register: int) -> str:
        """The addresses of all lanes, where they are not in a row."""
        pointer, type_ = self.pointer(register), memory_element(self.dtype)
        wide, offsets = self.lane_offsets(register)
        vector = self.v.type(wide)
        return self.v.write(f"getelementptr {type_}, ptr {pointer}, {vector} {offsets}")

    def lane_offsets(self, register: int) -> tuple[str, str]:
        """Integer type and vector of how far each lane is from lane 0."""
        known, v = [0] * self.places.lanes, self.v.named("lane")
        total = ""
        for dim, stride in enumerate(self.strides):
            steps = [step[dim] for step in self.places.steps]
            if isinstance(stride, int):
                known = [n + s * stride for n, s in zip(known, steps, strict=True)]
            elif any(steps):
                distance = v.splat("i64", self.k.index(stride))
                part = v.op("mul", "i64", constant_vector("i64", steps), distance)
                total = v.op("add", "i64", total, part) if total else part
        if self.index is not None:
            entry = self.index[register] or v.constant("i64", 0)
            total = v.op("add", "i64", total, entry) if total else entry
        if not total:
            narrow = all(-(1 << 31) <= n < 1 << 31 for n in known)
            type_ = "i32" if narrow else "i64"
            return type_, constant_vector(type_, known)
        if any(known):
            total = v.op("add", "i64", total, constant_vector("i64", known))
        return "i64", total

    def offset(self, coords: tuple[int, ...]) -> Dim:
        """How far on from the base an element is."""
        total: Dim = 0
        for coordinate, stride in zip(coords, self.strides, strict=True):
            total = total + coordinate * stride
        return total


def load_tile(k: Kernel, op: LoadTile) -> None:
    """Read a tile, a register at a time."""
    where = _where(k, op, op.result, hint_of(op))
    bounds = Bounds(k, where.places, op.limits, where.dtype.bits)
    masks = op.mask
    if masks is not None and _are_rows(k, masks, where.places):
        # Where a register does not exist, something else is read in its place.
        found = _rows(k, masks, where.places)
        where = replace(where, exist=tuple(condition(k, masks, r) for r in found))
        masks = None
    others = None if op.other is None else k.registers(op.other)
    registers: list[Register] = []
    for r in range(len(where.places.origins)):
        exists = where.exist[r] if where.exist is not None else True
        mask = _mask(k, where.v, bounds, masks, r)
        other = others[r] if others else None
        read = other
        if mask is not False and exists is not False:
            read = _read(where, r, mask, other)
        if isinstance(exists, str) and read is not None and other is not None:
            read = _chosen(where, exists, read, other)
        registers.append(read)
    if op.prefetch != 0:
        _prefetch(where, op.prefetch)
    k.define(op.result, registers)


def store_tile(k: Kernel, op: StoreTile) -> None:
    """Write a tile, a register at a time."""
    where = _where(k, op, op.value, "lane")
    bounds = Bounds(k, where.places, op.limits, where.dtype.bits)
    full: list[int] = []
    values = [_to_memory(where, r) for r in k.present(op.value, where.v)]
    for r, value in enumerate(values):
        mask = _mask(k, where.v, bounds, op.mask, r)
        if op.combine not in ("", ONE):
            if mask is not False:
                _combine(where, r, value, mask, op.combine)
        elif mask is True and where.step == 1:
            full.append(r)
        elif mask is not False:
            _write(where, r, value, mask)
    _write_full(where, full, values, op.streaming)


def _mask(
    k: Kernel, v: Lanes, bounds: Bounds, masks: Value | None, register: int
) -> Mask:
    """The lanes of a register that exist and are wanted."""
    wanted = True if masks is None else condition(k, masks, register)
    return both(v, bounds.mask(register), wanted)


def _where(k: Kernel, op: Access, tile: Value, hint: str) -> Where:
    places, dtype = k.places(tile), dtype_of(tile)
    base = k.element_pointer(
        k.scalar_lanes(f"{op.buffer.hint or 'buffer'}_at"),
        dtype,
        k.scalar(op.buffer),
        k.scalar(op.offset),
    )
    v = k.lanes(places.lanes, hint)
    where = Where(k, v, places, dtype, op.strides, base)
    if op.index is None:
        return where
    if not _are_rows(k, op.index, places):
        return replace(where, index=k.registers(op.index))
    registers = k.registers(op.index)
    rows = tuple(registers[r] for r in _rows(k, op.index, places))
    return replace(where, rows=rows)


def _are_rows(k: Kernel, value: Value, places: Places) -> bool:
    """Whether a tile has one element for all lanes of each register of another."""
    held = k.places(value)
    if held.lanes == places.lanes and held.shape == places.shape:
        return False
    if held.lanes != 1:
        raise InternalError(f"the lanes of {value.type} are not those of its access")
    return True


def _rows(k: Kernel, value: Value, places: Places) -> list[int]:
    """The registers of such a tile, one for each register of the other."""
    held = k.places(value)
    repeated = [d for d, n in enumerate(held.shape) if n == 1]
    return [held.table[moved(origin, repeated)][0] for origin in places.origins]


def _chosen(where: Where, exists: str, read: str, other: str) -> str:
    """What was read where a register exists, all its lanes together."""
    v = where.v
    vector = v.type(element(where.dtype))
    return v.write(f"select i1 {exists}, {vector} {read}, {vector} {other}")


# ------------------------------------------------------------------- reading


def _read(where: Where, register: int, mask: Mask, other: Register) -> Register:
    v = where.v
    default = None if other is None else _to_memory(where, other)
    if where.index is not None and where.index[register] is None:
        return None
    if v.count == 1:
        raw = _read_one(where, register, mask, default)
    elif where.step == 1:
        raw = _read_run(where, where.pointer(register), mask, default)
    elif where.step == -1:
        raw = _read_reversed(where, register, mask, default)
    elif where.step == 0 and mask is True:
        raw = v.splat(_type(where), _load(where, where.pointer(register)))
    elif mask is True and not _gathers(where):
        raw = _read_each(where, register)
    else:
        raw = _gather(where, register, mask, default)
    return _from_memory(where, raw)


def _load(where: Where, pointer: str, count: int = 1) -> str:
    type_ = where.v.of(count).type(_type(where))
    return where.v.writer.read(
        f"load {type_}, ptr {pointer}, align {where.bytes}", where.v.hint
    )


def _read_run(where: Where, pointer: str, mask: Mask, default: str | None) -> str:
    if mask is True:
        return _load(where, pointer, where.v.count)
    if isinstance(mask, str) and mask[0] == "%" and not _masks(where):
        return _read_in_part(where, pointer, mask, default)
    return _masked_load(where, where.v, pointer, str(mask), default)


def _masks(where: Where) -> bool:
    """Whether the target has an instruction for masked loads of such elements."""
    target = where.v.target
    return target.has("avx512bw") or (target.has("avx") and where.bytes >= 4)


def _read_in_part(where: Where, pointer: str, mask: str, default: str | None) -> str:
    """All lanes, none, or one by one: most masks, as those of a concatenation, are all
    or nothing."""
    v, w = where.v, where.v.writer
    bits, one = f"i{v.count}", v.of(1)
    type_, other = v.type(_type(where)), default or "zeroinitializer"
    lanes = v.bits(mask)
    whole = w.open_arm(one.test("icmp eq", bits, lanes, "-1"), "whole")
    found = _load(where, pointer, v.count)
    (found,) = w.close_arm(whole, [(type_, found, other)])
    after = one.op("add", bits, lanes, "1")
    part = w.open_arm(one.test("icmp ugt", bits, after, "1"), "part")
    some = _masked_load(where, v, pointer, mask, default)
    return w.close_arm(part, [(type_, some, found)])[0]


def _masked_load(
    where: Where, v: Lanes, pointer: str, mask: str, default: str | None
) -> str:
    type_, name = _vector(v, _type(where)), f"v{v.count}{_mangled(where)}"
    masks = _vector(v, "i1")
    name = f"@llvm.masked.load.{name}.p0"
    v.writer.declare(f"{type_} {name}(ptr, {masks}, {type_})")
    return v.writer.read(
        f"call {type_} {name}(ptr align {where.bytes} {pointer}, {masks} {mask}, "
        f"{type_} {default or 'zeroinitializer'})",
        v.hint,
    )


def _read_one(where: Where, register: int, mask: Mask, default: str | None) -> str:
    v, pointer = where.v, where.only(register)
    if mask is True:
        return _load(where, pointer)
    condition = _in_vector(v, "i1", str(mask))
    other = None if default is None else _in_vector(v, _type(where), default)
    loaded = _masked_load(where, v, pointer, condition, other)
    return v.write(f"extractelement <1 x {_type(where)}> {loaded}, i64 0")


def _read_reversed(where: Where, register: int, mask: Mask, default: str | None) -> str:
    pointer = where.pointer(register, 1 - where.v.count)
    mask = mask if mask is True else backwards(where.v, str(mask))
    back = None if default is None else reverse(where.v, _type(where), default)
    return reverse(where.v, _type(where), _read_run(where, pointer, mask, back))


def _read_each(where: Where, register: int) -> str:
    """Scalar loads, put together."""
    v, type_ = where.v, _type(where)
    vector = "poison"
    for lane, pointer in enumerate(_lane_pointers(where, register)):
        loaded = _load(where, pointer)
        vector = v.write(
            f"insertelement {v.type(type_)} {vector}, {type_} {loaded}, i64 {lane}"
        )
    return vector


def _lane_pointers(where: Where, register: int) -> list[str]:
    v = where.v
    wide, offsets = where.lane_offsets(register)
    pointer = where.pointer(register)
    if where.index is None and not offsets.startswith("%"):
        steps = map(where.offset, where.places.steps)
        return [where.pointer(register, n) for n in steps if isinstance(n, int)]
    names: list[str] = []
    for lane in range(v.count):
        offset = v.write(f"extractelement {v.type(wide)} {offsets}, i64 {lane}")
        names.append(where.k.element_pointer(v, where.dtype, pointer, offset))
    return names


def _gathers(where: Where) -> bool:
    """Whether the target has an instruction for this gather."""
    v = where.v
    return v.target.has("avx2") and where.bytes >= 4 and v.count >= 4


def _gather(where: Where, register: int, mask: Mask, default: str | None) -> str:
    v, type_ = where.v, where.v.type(_type(where))
    pointers, masks = v.type("ptr"), v.type("i1")
    name = f"@llvm.masked.gather.v{v.count}{_mangled(where)}.v{v.count}p0"
    v.writer.declare(f"{type_} {name}({pointers}, {masks}, {type_})")
    at = f"{pointers} align {where.bytes} {where.pointers(register)}"
    return v.writer.read(
        f"call {type_} {name}({at}, {masks} {_mask_text(v, mask)}, "
        f"{type_} {default or 'zeroinitializer'})",
        v.hint,
    )


# ------------------------------------------------------------------- writing


def _write(where: Where, register: int, value: str, mask: Mask) -> None:
    v = where.v
    if v.count == 1:
        _write_one(where, register, value, mask)
    elif where.step == 1:
        _write_run(where, where.pointer(register), value, mask)
    elif where.step == -1:
        mask = mask if mask is True else backwards(v, str(mask))
        value = reverse(v, _type(where), value)
        _write_run(where, where.pointer(register, 1 - v.count), value, mask)
    else:
        _scatter(where, register, value, mask)


def _store_text(where: Where, pointer: str, value: str, align: int) -> str:
    return f"store {where.v.type(_type(where))} {value}, ptr {pointer}, align {align}"


def _write_run(where: Where, pointer: str, value: str, mask: Mask) -> None:
    v = where.v
    if mask is True:
        v.writer.effect(_store_text(where, pointer, value, where.bytes))
        return
    lanes = known_lanes(str(mask))
    if lanes is None or sum(lanes) != 1:
        _masked_store(where, v, pointer, value, str(mask))
        return
    # Of a masked store of one lane that was truncated, LLVM 22 writes all bits that the
    # lane had before, over its neighbours.
    type_, lane = _type(where), lanes.index(True)
    one = v.write(f"extractelement {v.type(type_)} {value}, i64 {lane}")
    at = where.k.element_pointer(v, where.dtype, pointer, str(lane))
    v.writer.effect(f"store {type_} {one}, ptr {at}, align {where.bytes}")


def _masked_store(where: Where, v: Lanes, pointer: str, value: str, mask: str) -> None:
    type_, masks = _vector(v, _type(where)), _vector(v, "i1")
    name = f"@llvm.masked.store.v{v.count}{_mangled(where)}.p0"
    v.writer.declare(f"void {name}({type_}, ptr, {masks})")
    v.writer.effect(
        f"call void {name}({type_} {value}, ptr align {where.bytes} {pointer}, "
        f"{masks} {mask})"
    )


def _write_one(where: Where, register: int, value: str, mask: Mask) -> None:
    v, pointer = where.v, where.only(register)
    if mask is True:
        v.writer.effect(_store_text(where, pointer, value, where.bytes))
        return
    vector = _in_vector(v, _type(where), value)
    _masked_store(where, v, pointer, vector, _in_vector(v, "i1", str(mask)))


def _scatter(where: Where, register: int, value: str, mask: Mask) -> None:
    v, type_ = where.v, where.v.type(_type(where))
    pointers, masks = v.type("ptr"), v.type("i1")
    name = f"@llvm.masked.scatter.v{v.count}{_mangled(where)}.v{v.count}p0"
    v.writer.declare(f"void {name}({type_}, {pointers}, {masks})")
    v.writer.effect(
        f"call void {name}({type_} {value}, {pointers} align {where.bytes} "
        f"{where.pointers(register)}, {masks} {_mask_text(v, mask)})"
    )


def _combine(where: Where, register: int, value: str, mask: Mask, how: str) -> None:
    """Combine lane by lane with what is there, which others may do as well. Lanes that
    are not wanted do so with what nobody reads."""
    v, type_ = where.v, _type(where)
    one, wide = v.of(1), v.type(type_)
    opcode = _ATOMIC.get((how, where.dtype.is_float))
    if opcode is None or where.bytes < 4:
        raise InternalError(f"the CPU has no {how} of {where.dtype.name} in memory")
    single = v.count == 1
    pointers = [where.only(register)] if single else _lane_pointers(where, register)
    for lane, pointer in enumerate(pointers):
        element = value
        if not single:
            element = v.write(f"extractelement {wide} {value}, i64 {lane}")
        if mask is not True:
            wanted = str(mask)
            if not single:
                masks = f"{v.type('i1')} {_mask_text(v, mask)}"
                wanted = v.write(f"extractelement {masks}, i64 {lane}")
            pointer = one.select("ptr", wanted, pointer, where.k.nowhere)
        v.writer.effect(
            f"atomicrmw {opcode} ptr {pointer}, {type_} {element} monotonic"
        )


_ATOMIC = {
    ("sum", True): "fadd",
    ("sum", False): "add",
    ("max", False): "max",
    ("min", False): "min",
}
"""LLVM's instruction, by how to combine and whether that is floats."""


def _write_full(
    where: Where, registers: list[int], values: list[str], streaming: bool
) -> None:
    """Stores of whole registers in a row; around the caches if asked to and able to.

    Whether memory is aligned as such stores need is asked when the kernel runs: one
    branch for all registers, which always goes the same way.
    """
    pointers = [where.pointer(r) for r in registers]
    pairs = list(zip(pointers, (values[r] for r in registers), strict=True))
    plain = [_store_text(where, p, x, where.bytes) for p, x in pairs]
    roots = _stream_roots(where, registers) if streaming else []
    if not roots:
        for text in plain:
            where.v.writer.effect(text)
        return
    align = min(LINE, where.v.count * where.bytes)
    streamed = [f"{_store_text(where, p, x, align)}, !nontemporal !0" for p, x in pairs]
    where.k.streams = True
    where.v.writer.choose(_aligned(where, roots, align), streamed, plain)


def _stream_roots(where: Where, registers: list[int]) -> list[int]:
    """A register for each row, whose alignment is that of the row's others.

    None where registers are no vectors of 16, 32 or n·64 bytes, where rows are uneven,
    or do not fill lines: what is written in parts takes longer than through the caches.
    """
    size = where.v.count * where.bytes
    if not where.v.target.nontemporal or (size not in (16, 32) and size % LINE):
        return []
    rows: dict[Dim, list[int]] = {}
    roots: list[int] = []
    for r in registers:
        varying, known = where.split(r)
        offsets = rows.setdefault(varying, [])
        if not offsets:
            roots.append(r)
        offsets.append(known * where.bytes)
    for offsets in rows.values():
        if any((at - offsets[0]) % min(size, LINE) for at in offsets):
            return []
        written = Counter((at - offsets[0]) // LINE for at in offsets)
        if any(count * size < LINE for count in written.values()):
            return []
    return roots


def _aligned(where: Where, registers: list[int], align: int) -> str:
    v = where.k.scalar_lanes("aligned")
    bits = "0"
    for r in registers:
        address = v.write(f"ptrtoint ptr {where.pointer(r)} to i64")
        bits = address if bits == "0" else v.op("or", "i64", bits, address)
    return v.test("icmp eq", "i64", v.op("and", "i64", bits, str(align - 1)), "0")


def _prefetch(where: Where, distance: Dim) -> None:
    """Ask for each line that the tile covers, `distance` elements further on."""
    v = where.k.scalar_lanes("ahead")
    v.writer.declare("void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    span = where.v.count * where.bytes if where.step in (1, -1) else 1
    asked: set[Any] = set()
    for r in range(len(where.places.origins)):
        varying, known = where.split(r)
        first = known - (where.v.count - 1 if where.step == -1 else 0)
        for start in range(0, span, LINE):
            line = (varying, (first * where.bytes + start) // LINE)
            if line in asked:
                continue
            asked.add(line)
            near = where.pointer(r, first - known + start // where.bytes)
            ahead = where.k.element_pointer(
                v, where.dtype, near, where.k.index(distance)
            )
            wanted = f"ptr {ahead}, i32 0, i32 {where.k.fetched_into}, i32 1"
            v.writer.effect(f"call void @llvm.prefetch.p0({wanted})")


# ------------------------------------------------------------------- elements


def reverse(v: Lanes, type_: str, x: str) -> str:
    """The lanes from last to first."""
    vector = v.type(type_)
    order = constant_vector("i32", range(v.count)[::-1])
    return v.write(
        f"shufflevector {vector} {x}, {vector} poison, <{v.count} x i32> {order}"
    )


def backwards(v: Lanes, mask: str) -> str:
    """A mask from the last lane to the first; a constant stays one."""
    lanes = known_lanes(mask)
    return reverse(v, "i1", mask) if lanes is None else constant_mask(lanes[::-1])


def _type(where: Where) -> str:
    return memory_element(where.dtype)


def _mangled(where: Where) -> str:
    return where.v.of(1).mangled(_type(where))


def _mask_text(v: Lanes, mask: Mask) -> str:
    return v.constant("i1", "true") if mask is True else str(mask)


def _vector(v: Lanes, type_: str) -> str:
    """The type as a vector, of one lane too: masked intrinsics know no scalars."""
    return f"<{v.count} x {type_}>"


def _in_vector(v: Lanes, type_: str, x: str) -> str:
    return v.write(f"insertelement <1 x {type_}> poison, {type_} {x}, i64 0")


def _to_memory(where: Where, x: str) -> str:
    """Bool becomes a byte."""
    return where.v.cast("zext", element(where.dtype), x, _type(where))


def _from_memory(where: Where, x: str) -> str:
    if not where.dtype.is_bool:
        return x
    return where.v.test("icmp ne", "i8", x, where.v.constant("i8", 0))
