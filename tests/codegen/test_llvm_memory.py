"""Tiles ↔ memory: every way that lanes lie apart, every kind of mask."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from fusec.codegen import llvm
from fusec.errors import InternalError
from fusec.ir.builder import Builder
from fusec.ir.core import Level, Value
from fusec.ir.dims import Dim, Symbol
from fusec.ir.dtypes import DType, bool_, f32, f64, i8, i32, i64, parse_dtype
from fusec.ir.layout import row_major, tile_layout
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.cast import Cast, convert
from fusec.ir.ops.tile import BroadcastTile, LoadTile, ProgramId, StoreTile
from fusec.ir.ops.updating import update
from fusec.ir.types import Buffer, Tile
from fusec.target import X86_64_V4

Run = Callable[..., None]
Array = np.ndarray[Any, Any]

N, S = Symbol("n"), Symbol("s")


def memory(dtype: DType, count: int = 4096) -> Buffer:
    return Buffer(dtype, row_major((count,), dtype.bits))


def tile(dtype: DType, rows: int, columns: int, lanes: int = 8) -> Tile:
    splits = [[("reg", rows)], [("reg", -(-columns // lanes)), ("lane", lanes)]]
    layout = tile_layout((rows, columns), splits)
    return Tile(dtype, (rows, columns), layout)


class Copy:
    """A kernel under construction: load a tile from x, store it densely into y."""

    def __init__(self, type_: Tile) -> None:
        self.type = type_
        self.b = Builder(Level.TILE)
        self.x = self.b.param(memory(type_.dtype), "x")
        self.y = self.b.param(memory(type_.dtype), "y")

    def load(self, strides: Sequence[Dim], *rest: Value, offset: Dim = 0, **how: Any):
        at = self.b.size(offset)
        type_ = self.type
        return self.b(
            LoadTile, self.x, at, *rest, type=type_, strides=tuple(strides), **how
        )

    def store(
        self,
        value: Value,
        strides: Sequence[Dim] = (),
        *rest: Value,
        offset: Value | None = None,
        limited: tuple[int, ...] = (),
        indirect: bool = False,
        masked: bool = False,
        streaming: bool = False,
        combine: str = "",
    ) -> None:
        at = self.b.size(0) if offset is None else offset
        strides = tuple(strides) or (self.type.shape[1], 1)
        attrs = (strides, limited, indirect, masked, streaming, combine)
        self.b.emit(StoreTile, (value, self.y, at, *rest), attrs)

    def function(self, *symbols: Symbol) -> Any:
        return self.b.function("copy", symbols=symbols)


def numbers(dtype: DType, count: int = 4096) -> Array:
    random = np.random.default_rng(0)
    if dtype.is_float and dtype.storage != dtype.carrier:
        return dtype.encode(random.standard_normal(count))
    if dtype.is_float:
        return random.standard_normal(count).astype(dtype.storage)
    top = 1 if dtype.is_bool else 100
    return random.integers(0, top, count, endpoint=True).astype(dtype.storage)


def view(x: Array, offset: int, shape: Sequence[int], strides: Sequence[int]) -> Array:
    bytes_ = [s * x.itemsize for s in strides]
    return np.lib.stride_tricks.as_strided(x[offset:], shape, bytes_)


STRIDES = [(64, 1), (1, 64), (64, -1), (40, 0), (0, 1), (5, 3), (100, 2)]


@pytest.mark.parametrize("lanes", [1, 2, 8, 16])
@pytest.mark.parametrize("strides", STRIDES, ids=str)
def test_loads_follow_strides(strides: tuple[int, int], lanes: int, run: Run) -> None:
    k = Copy(tile(f32, 3, 32, lanes))
    k.store(k.load(strides, offset=100))
    x, y = numbers(f32), np.zeros(4096, np.float32)
    run(k.function(), [x, y])
    assert (y[: 3 * 32].reshape(3, 32) == view(x, 100, (3, 32), strides)).all()
    assert (y[3 * 32 :] == 0).all()


@pytest.mark.parametrize("name", "bool i8 u16 i32 i64 f16 bf16 f32 f64".split())
@pytest.mark.parametrize("strides", [(40, 1), (40, -1), (1, 40), (40, 0)], ids=str)
def test_every_dtype_is_loaded_and_stored(
    name: str, strides: tuple[int, int], run: Run
) -> None:
    dtype = parse_dtype(name)
    k = Copy(tile(dtype, 2, 21, 8))
    n = k.b.const(19, i64)
    k.store(k.load(strides, n, offset=100, limited=(1,)), (21, 1), n, limited=(1,))
    x, y = numbers(dtype), np.zeros(4096, dtype.storage)
    run(k.function(), [x, y])
    expected = np.zeros((2, 21), dtype.storage)
    expected[:, :19] = view(x, 100, (2, 19), strides)
    assert (y[: 2 * 21].reshape(2, 21) == expected).all()


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("strides", [(N, 1), (1, N), (N, S), (N, S * 2 + N)], ids=str)
def test_strides_may_be_symbols(strides: tuple[Dim, Dim], lanes: int, run: Run) -> None:
    k = Copy(tile(f32, 3, 16, lanes))
    k.store(k.load(strides, offset=N + 3))
    x, y = numbers(f32), np.zeros(4096, np.float32)
    run(k.function(N, S), [x, y], symbols=(70, 9))
    known = {"n": 70, "s": 9, "1": 1, "n + 2*s": 88}
    expected = view(x, 73, (3, 16), [known[str(s)] for s in strides])
    assert (y[: 3 * 16].reshape(3, 16) == expected).all()


@pytest.mark.parametrize("strides", [(64, 1), (64, -1), (1, 64)], ids=str)
def test_run_time_limits_on_both_dimensions(strides: tuple[int, int], run: Run) -> None:
    # 21 columns in three registers of 8: the last one has padding as well.
    k = Copy(tile(f32, 3, 21))
    limits = [k.b.size(N - 64), k.b.size(S - 64)]
    loaded = k.load(strides, *limits, offset=200, limited=(0, 1))
    k.store(loaded, (21, 1), *limits, limited=(0, 1))
    function = k.function(N, S)
    x = numbers(f32)
    for rows in (-1, 0, 1, 2, 3, 9):
        for columns in (-5, 0, 1, 7, 8, 15, 16, 21, 50, 1 << 40):
            y = np.full(4096, 7, np.float32)
            run(function, [x, y], symbols=(rows + 64, columns + 64))
            expected = np.full((3, 21), 7, np.float32)
            there = np.s_[: max(rows, 0), : max(columns, 0)]
            expected[there] = view(x, 200, (3, 21), strides)[there]
            assert (y[: 3 * 21].reshape(3, 21) == expected).all()
            assert (y[3 * 21 :] == 7).all()


def test_elements_beyond_a_limit_are_not_touched(run: Run) -> None:
    # The tile ends where an unmapped page begins.
    page = mmap.PAGESIZE
    area = mmap.mmap(-1, 2 * page)
    whole = np.frombuffer(area, np.float32)
    start = whole.ctypes.data
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(start + page), page, 0) == 0
    try:
        x = whole[page // 4 - 13 : page // 4]
        x[:] = np.arange(13)
        for known in (True, False):
            k = Copy(tile(f32, 1, 16))
            n = k.b.const(13, i64) if known else k.b.size(N)
            k.store(k.load((0, 1), n, limited=(1,)), (), n, limited=(1,))
            y = np.zeros(16, np.float32)
            run(k.function(N), [x, y], symbols=(13,))
            assert (y[:13] == np.arange(13)).all()
    finally:
        libc.mprotect(ctypes.c_void_p(start + page), page, 3)


NARROWED = ["i32 i8", "i32 i16", "i64 i32", "i64 i8", "i16 u8", "f32 bf16", "f32 f16"]


@pytest.mark.parametrize("names", NARROWED)
@pytest.mark.parametrize("step", [1, -1])
def test_stores_of_what_was_narrowed_leave_their_neighbours(
    names: str, step: int, run: Run
) -> None:
    """Any number of lanes, none of which writes what it was before."""
    wide, narrow = map(parse_dtype, names.split())
    k = Copy(tile(wide, 1, 16, 8))
    made = k.b.param(memory(narrow), "narrow")
    x, y = -numbers(wide) - 1, np.full(4096, 7, narrow.storage)
    expected = y.copy()
    for count in range(1, 17):
        n, at = k.b.const(count, i64), k.b.const(100 * count, i64)
        value = k.b(Cast, k.load((0, 1), offset=16 * count), dtype=narrow)
        attrs = ((0, step), (1,), False, False, False, "")
        k.b.emit(StoreTile, (value, made, at, n), attrs)
        places = 100 * count + step * np.arange(count)
        expected[places] = narrowed(x[16 * count :][:count], wide, narrow)
    run(k.function(), [x, numbers(wide), y])
    assert (y == expected).all()


def narrowed(x: Array, wide: DType, narrow: DType) -> Array:
    made = convert(x, wide, narrow)
    return made if narrow.carrier == narrow.storage else narrow.encode(made)


@pytest.mark.parametrize("lanes", [1, 4, 8])
@pytest.mark.parametrize("name", ["f32", "i8", "f64"])
def test_indirect_loads_and_stores(name: str, lanes: int, run: Run) -> None:
    dtype = parse_dtype(name)
    k = Copy(tile(dtype, 2, 16, lanes))
    type_ = Tile(i64, k.type.shape, k.type.layout)
    index = k.b.param(memory(i64), "index")
    at = k.b(LoadTile, index, k.b.size(0), type=type_, strides=(16, 1))
    loaded = k.load((1000, 3), at, offset=5, indirect=True)
    k.store(loaded, (1000, 0), at, indirect=True)
    x, y = numbers(dtype), np.zeros(4096, dtype.storage)
    where = np.random.default_rng(1).permutation(900)[:32].astype(np.int64)
    run(k.function(), [x, y, where])
    rows, columns = np.divmod(np.arange(32), 16)
    expected = np.zeros_like(y)
    expected[where + 1000 * rows] = x[5 + where + 1000 * rows + 3 * columns]
    assert (y == expected).all()


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("combine", ["sum", "max", "min"])
@pytest.mark.parametrize("dtype", [i32, i64, f32, f64], ids=lambda d: d.name)
def test_elements_that_meet_are_combined(
    dtype: DType, combine: str, lanes: int, run: Run
) -> None:
    """Where a mask holds and as far as there are any, by indices and one by one."""
    k = Copy(tile(dtype, 2, 24, lanes))
    params = [k.b.param(memory(d), d.name) for d in (bool_, i64)]
    types = [Tile(d, k.type.shape, k.type.layout) for d in (bool_, i64)]
    mask, at = (
        k.b(LoadTile, param, k.b.size(0), type=type_, strides=(24, 1))
        for param, type_ in zip(params, types, strict=True)
    )
    n = k.b.size(N)
    loaded = k.load((24, 1))
    k.store(
        loaded, (0, 0), n, at, mask, limited=(1,), indirect=True, masked=True,
        combine=combine,
    )  # fmt: skip
    k.store(loaded, (0, 1), n, offset=k.b.size(100), limited=(1,), combine=combine)
    if dtype.is_float and combine != "sum":
        with pytest.raises(InternalError, match=f"no {combine} of {dtype.name}"):
            run(k.function(N), [], symbols=(21,))
        return
    x, y = np.round(numbers(dtype)), np.full(4096, 7, dtype.storage)
    random = np.random.default_rng(2)
    chosen = random.integers(0, 2, 48).astype(np.bool_)
    where = random.integers(0, 9, 48)
    run(k.function(N), [x, y, chosen, where], symbols=(21,))
    expected = np.full(4096, 7, dtype.storage)
    there = np.tile(np.arange(24) < 21, 2)
    columns = 100 + np.tile(np.arange(24), 2)
    for wanted, places in ((chosen & there, where), (there, columns)):
        update(combine, expected, places[wanted], x[:48][wanted])
    assert (y == expected).all()


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("strides", [(24, 1), (1, 24)], ids=str)
def test_masked_loads_and_stores(
    strides: tuple[int, int], lanes: int, run: Run
) -> None:
    k = Copy(tile(i32, 2, 24, lanes))
    source = k.b.param(memory(bool_), "mask")
    masks = Tile(bool_, k.type.shape, k.type.layout)
    mask = k.b(LoadTile, source, k.b.size(0), type=masks, strides=(24, 1))
    other = k.b(BroadcastTile, k.b.const(-7, i32), type=k.type)
    n = k.b.size(N)
    loaded = k.load(strides, n, mask, other, limited=(1,), masked=True)
    k.store(loaded, (24, 1), n, limited=(1,))
    flipped = k.b(ew.Not, mask)
    k.store(loaded, (24, 1), flipped, offset=k.b.size(100), masked=True)
    x, y = numbers(i32), np.zeros(4096, np.int32)
    chosen = np.random.default_rng(2).integers(0, 2, 48).astype(np.bool_)
    run(k.function(N), [x, y, chosen], symbols=(21,))
    grid = chosen.reshape(2, 24)
    expected = np.where(grid, view(x, 0, (2, 24), strides), -7)
    first = np.where(np.arange(24) < 21, expected, 0)
    assert (y[:48].reshape(2, 24) == first).all()
    second = y[100:148].reshape(2, 24)
    assert (second[:, :21] == np.where(grid, 0, -7)[:, :21]).all()


@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize("pitch", [32, 33])
@pytest.mark.parametrize("name", ["f32", "i8"])
def test_streaming_stores_at_any_alignment(
    name: str, pitch: int, shift: int, run: Run
) -> None:
    dtype = parse_dtype(name)
    k = Copy(tile(dtype, 2, 32, 16))
    row = k.b(ew.Mul, k.b(ProgramId), k.b.const(100, i64))
    at = k.b(ew.Add, row, k.b.size(N))
    k.store(k.load((32, 1)), (pitch, 1), offset=at, streaming=True)
    x = numbers(dtype)
    raw = np.zeros(5000, dtype.storage)
    y = raw[-raw.ctypes.data // raw.itemsize % 64 :][:4096]
    run(k.function(N), [x, y], grid=3, symbols=(shift,))
    expected = np.zeros_like(y)
    for program in range(3):
        for r in range(2):
            start = 100 * program + shift + r * pitch
            expected[start : start + 32] = x[r * 32 : r * 32 + 32]
    assert (y == expected).all()


def test_streaming_ends_with_a_fence() -> None:
    k = Copy(tile(f32, 2, 32, 16))
    k.store(k.load((32, 1)), streaming=True)
    text = llvm.emit(k.function(), X86_64_V4).text
    assert text.count("!nontemporal") == 4
    assert "call void @llvm.x86.sse.sfence()" in text


def test_registers_of_odd_sizes_do_not_stream() -> None:
    k = Copy(tile(i8, 2, 24, 8))
    k.store(k.load((32, 1)), streaming=True)
    assert "nontemporal" not in llvm.emit(k.function(), X86_64_V4).text


def test_one_prefetch_for_each_line(run: Run) -> None:
    k = Copy(tile(f32, 2, 32, 8))
    loaded = k.load((1024, 1), prefetch=2000)
    k.store(loaded)
    text = llvm.emit(k.function(), X86_64_V4).text
    assert text.count("call void @llvm.prefetch") == 4  # 2 rows of 128 bytes
    x, y = numbers(f32), np.zeros(64, np.float32)
    run(k.function(), [x, y])
    assert (y.reshape(2, 32) == view(x, 0, (2, 32), (1024, 1))).all()


def test_known_offsets_are_part_of_the_address() -> None:
    k = Copy(tile(f32, 2, 32, 16))
    k.store(k.load((100, 1), offset=7))
    text = llvm.emit(k.function(), X86_64_V4).text
    assert " mul " not in text
    assert "add i64" not in text.replace("add nsw i64 %program", "")
    assert "getelementptr float, ptr %x_at, i64 116" in text


def test_arithmetic_on_symbols_leaves_the_loop() -> None:
    k = Copy(tile(f32, 4, 16, 16))
    k.store(k.load((N * 3, 1)))
    entry, body = llvm.emit(k.function(N), X86_64_V4).text.split("program_loop:")
    assert entry.count(" mul ") == 3
    assert " mul " not in body
