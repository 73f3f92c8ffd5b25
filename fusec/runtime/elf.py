"""Linking x86-64 ELF objects into one image.

An object is a file of sections: code, constants, variables; a table of symbols, and
tables of *relocations*, places in a section where a symbol's address goes once it is
known. Linking lays the sections out, then works the relocations off:

    call kernel        R_X86_64_PLT32      its distance from here, or that of a stub
    lea  kernel        R_X86_64_GOTPCREL…  the distance of a slot with its address
    vmovups .LCPI0_0   R_X86_64_PC32       its distance from here

Only what code of LLVM's small, position-independent model holds is known, without
variables; all else is refused. For the format see "System V Application Binary
Interface, AMD64 Architecture Processor Supplement", 4.4, and "ELF-64 Object File
Format", sections 3 to 6.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fusec.errors import InternalError
from fusec.runtime.image import Image

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_RELOCATABLE, _X86_64 = 1, 62
_SYMTAB, _RELA, _NOBITS = 2, 4, 8  # kinds of sections
_WRITE, _ALLOC, _EXECUTE = 1, 2, 4  # their flags
_KINDS = _WRITE | _ALLOC | _EXECUTE
_UNDEFINED = 0  # in place of the number of a section

_PC32, _PLT32 = 2, 4
_BY_SLOT = {9, 41, 42}  # GOTPCREL, GOTPCRELX, REX_GOTPCRELX
_WORD = 8
_FIELD = 4  # bytes of a distance

_JUMP = struct.Struct("<2si")  # through a slot, by its distance from the next byte
_JMP = b"\xff\x25"
_STUB_ROOM = 8

_DAMAGE = struct.error, IndexError, ValueError, OverflowError, MemoryError
"""What reading nonsense raises."""


def link(objects: Iterable[bytes], exports: Iterable[str]) -> Image:
    """Link objects into an image; `exports` are the functions that it is for.

    What no object defines is left to whoever loads the image. Raises `InternalError`
    where bytes are no such object, hold what this cannot link, or an export is absent.
    """
    try:
        return _Linker([_Object(data) for data in objects]).run(tuple(exports))
    except _DAMAGE as error:
        raise _refused(f"it is damaged ({error})") from error


def functions(data: bytes) -> list[str]:
    """The functions that an object gives to others; none where it cannot be read."""
    try:
        symbols = _Object(data).symbols
    except (*_DAMAGE, InternalError):
        return []
    return [s.name for s in symbols if not s.local and s.section != _UNDEFINED]


def _refused(why: str) -> InternalError:
    return InternalError(f"object code cannot be loaded: {why}")


Key = str | tuple[int, int, int]
"""A name, or a place of no name: the numbers of an object and a section, and where in
it."""


@dataclass(frozen=True, slots=True)
class _Section:
    name: bytes
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    """The table of strings of a table of symbols."""
    info: int
    """The section that a table of relocations is about."""
    align: int

    @property
    def is_loaded(self) -> bool:
        """Whether it is part of the program. Nothing unwinds through kernels."""
        return bool(self.flags & _ALLOC) and self.name != b".eh_frame"


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    local: bool
    section: int
    value: int


@dataclass(frozen=True, slots=True)
class _Relocation:
    kind: int
    where: tuple[int, int, int]
    """The numbers of an object and a section, and the place in it."""
    key: Key
    addend: int


class _Object:
    """One object, read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        kind, machine = struct.unpack_from("<HH", data, 0x10)
        if data[: len(_MAGIC)] != _MAGIC or (kind, machine) != (_RELOCATABLE, _X86_64):
            raise _refused("it is no x86-64 object")
        (table,) = struct.unpack_from("<Q", data, 0x28)
        width, count, names = struct.unpack_from("<HHH", data, 0x3A)
        places = [table + n * width for n in range(count)]
        rows = [struct.unpack_from("<IIQQQQIIQQ", data, at) for at in places]
        strings = rows[names][4]
        self.sections = [
            _Section(self.text(strings + n), kind, flags, at, size, link, info, align)
            for n, kind, flags, _, at, size, link, info, align, _ in rows
        ]
        self.symbols = list(self._symbols())

    def _symbols(self) -> Iterator[_Symbol]:
        for section in self.sections:
            if section.kind == _SYMTAB:
                strings = self.sections[section.link].offset
                for name, info, _, home, value, _ in self.entries("<IBBHQQ", section):
                    text = self.text(strings + name).decode()
                    yield _Symbol(text, info >> 4 == 0, home, value)

    def text(self, at: int) -> bytes:
        """A string, which ends with a zero."""
        return self.data[at : self.data.index(b"\0", at)]

    def entries(self, form: str, section: _Section) -> Iterator[tuple[int, ...]]:
        return struct.iter_unpack(form, self.content(section))

    def content(self, section: _Section) -> bytes:
        if section.kind == _NOBITS and section.size:
            raise _refused("it has variables")
        if section.offset + section.size > len(self.data):
            raise _refused("it is cut short")
        return self.data[section.offset : section.offset + section.size]


class _Linker:
    """Sections in one array of bytes, and what is known of where things are."""

    def __init__(self, objects: Sequence[_Object]) -> None:
        self.objects = objects
        self.memory = bytearray()
        self.places: dict[tuple[int, int], int] = {}
        """Of a section, by the numbers of its object and of itself."""
        self.globals: dict[str, tuple[int, int, int]] = {}
        self.slots: dict[Key, int] = {}
        self.stubs: dict[Key, int] = {}

    def run(self, exports: Sequence[str]) -> Image:
        self.define()
        absent = [name for name in exports if not self.is_function(name)]
        if absent:
            raise _refused(f"it has no {', '.join(absent)}")
        relocations = list(self.relocations())
        self.place(_ALLOC | _EXECUTE)
        self.make_stubs(relocations)
        self.room(0, mmap.PAGESIZE)
        code = len(self.memory)
        self.place(_ALLOC)
        self.make_slots(relocations)
        self.room(0, mmap.PAGESIZE)
        for relocation in relocations:
            self.relocate(relocation)
        found = {name: self.at(self.globals[name]) for name in exports}
        slots = tuple((at, self.target(key)) for key, at in self.slots.items())
        return Image(bytes(self.memory), code, found, slots)

    def define(self) -> None:
        """Find the names that all objects know."""
        for k, unit in enumerate(self.objects):
            for symbol in unit.symbols:
                if symbol.local or symbol.section == _UNDEFINED:
                    continue
                if symbol.name in self.globals:
                    raise _refused(f"{symbol.name} is defined twice")
                self.globals[symbol.name] = k, symbol.section, symbol.value

    def is_function(self, name: str) -> bool:
        """Whether an object has a place in code by that name."""
        if name not in self.globals:
            return False
        unit, number, value = self.globals[name]
        section = self.objects[unit].sections[number]
        return bool(section.flags & _EXECUTE) and value < section.size

    def make_stubs(self, relocations: Sequence[_Relocation]) -> None:
        """Make room for what calls jump to whose target may be far away."""
        for r in relocations:
            if r.kind == _PLT32 and self.is_foreign(r.key) and r.key not in self.stubs:
                self.stubs[r.key] = self.room(_STUB_ROOM, _STUB_ROOM)

    def make_slots(self, relocations: Sequence[_Relocation]) -> None:
        """Make room for addresses, and let the stubs jump to theirs."""
        for key in (*self.stubs, *(r.key for r in relocations if r.kind in _BY_SLOT)):
            if key not in self.slots:
                self.slots[key] = self.room(_WORD, _WORD)
        for key, at in self.stubs.items():
            _JUMP.pack_into(self.memory, at, _JMP, self.slots[key] - at - _JUMP.size)

    def place(self, flags: int) -> None:
        """Lay out the sections of one kind."""
        for k, unit in enumerate(self.objects):
            for n, section in enumerate(unit.sections):
                if section.is_loaded and section.flags & _KINDS == flags:
                    content = unit.content(section)
                    at = self.room(len(content), section.align)
                    self.memory[at:] = content
                    self.places[k, n] = at

    def room(self, nbytes: int, align: int) -> int:
        """Where as many zeros begin as asked for."""
        if align > mmap.PAGESIZE:
            raise _refused(f"it is aligned to {align} bytes")
        at = -(-len(self.memory) // max(1, align)) * max(1, align)
        self.memory.extend(bytes(at + nbytes - len(self.memory)))
        return at

    def relocations(self) -> Iterator[_Relocation]:
        """Those of all sections that are loaded."""
        for k, unit in enumerate(self.objects):
            for table in unit.sections:
                if table.kind != _RELA or not unit.sections[table.info].is_loaded:
                    continue
                for offset, info, addend in unit.entries("<QQq", table):
                    if offset + _FIELD > unit.sections[table.info].size:
                        raise _refused("it is patched beyond its end")
                    symbol = unit.symbols[info >> 32]
                    place = k, symbol.section, symbol.value
                    key = place if symbol.local else symbol.name
                    where = k, table.info, offset
                    yield _Relocation(info & 0xFFFFFFFF, where, key, addend)

    def relocate(self, r: _Relocation) -> None:
        """Write where a symbol is, seen from a place."""
        here = self.at(r.where)
        if r.kind in _BY_SLOT:
            target = self.slots[r.key]
        elif r.kind == _PLT32 and r.key in self.stubs:
            target = self.stubs[r.key]
        elif r.kind in (_PC32, _PLT32) and not self.is_foreign(r.key):
            target = self.at(self.place_of(r.key))
        else:
            raise _refused(f"it needs {r.key}, by relocation {r.kind}")
        struct.pack_into("<i", self.memory, here, target + r.addend - here)

    def is_foreign(self, key: Key) -> bool:
        """Whether a name is left to whoever loads the image."""
        return isinstance(key, str) and key not in self.globals

    def target(self, key: Key) -> str | int:
        """What a slot holds the address of."""
        return str(key) if self.is_foreign(key) else self.at(self.place_of(key))

    def place_of(self, key: Key) -> tuple[int, int, int]:
        return self.globals[key] if isinstance(key, str) else key

    def at(self, place: tuple[int, int, int]) -> int:
        unit, section, offset = place
        if (unit, section) not in self.places:
            raise _refused(f"it refers to its section {section}, which is not loaded")
        return self.places[unit, section] + offset
