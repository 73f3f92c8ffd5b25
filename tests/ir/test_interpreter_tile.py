"""The tile level: programs of a grid, limits and poison, loops and scratch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusec.errors import Loc
from fusec.ir.builder import Builder
from fusec.ir.core import Function, Level, Value
from fusec.ir.dims import Dim, Symbol
from fusec.ir.dtypes import DType, bf16, bool_, f32, i8, i32, i64
from fusec.ir.interpreter import InterpretError, interpret, run_kernel
from fusec.ir.layout import LANE, REG, TIME, row_major, tile_layout
from fusec.ir.monoids import combine, monoid
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.elementwise import Add, Lt, Mul, Neg, Sub
from fusec.ir.ops.reduction import ReduceTile
from fusec.ir.ops.tile import (
    BroadcastTile,
    Convert,
    For,
    Guard,
    IotaTile,
    LoadTile,
    ProgramId,
    Scratch,
    StoreTile,
)
from fusec.ir.types import Buffer, Scalar, Space, Tile

N = Symbol("n")
T8 = Tile(f32, (8,))
ANY: Dim = Symbol("size")


class Kernel:
    """A builder with the ops of a kernel close at hand."""

    def __init__(self) -> None:
        self.b = Builder(Level.TILE)

    def buffer(self, name: str, dtype: DType = f32) -> Value:
        return self.b.param(Buffer(dtype, row_major((ANY,), dtype.bits)), name)

    def number(self, value: int) -> Value:
        return self.b.const(value, i64)

    def load(
        self, type_: Tile, buffer: Value, offset: Value, *rest: Value, **attrs: Any
    ) -> Value:
        attrs.setdefault("strides", _dense(type_))
        return self.b(LoadTile, buffer, offset, *rest, type=type_, **attrs)

    def store(
        self, value: Value, buffer: Value, offset: Value, *rest: Value, **attrs: Any
    ) -> None:
        assert isinstance(value.type, Tile)
        strides = attrs.pop("strides", _dense(value.type))
        limited = attrs.pop("limited", ())
        flags = (attrs.pop("indirect", False), attrs.pop("masked", False))
        combine = attrs.pop("combine", "")
        assert not attrs
        operands = (value, buffer, offset, *rest)
        self.b.emit(StoreTile, operands, (strides, limited, *flags, False, combine))

    def reduce(self, name: str, *tiles: Value, dims: tuple[int, ...]) -> Value:
        assert isinstance(tiles[0].type, Tile)
        m = monoid(name, tiles[0].type.dtype)
        return self.b.emit(ReduceTile, tiles, (dims, m))[0]

    def done(self, *symbols: Symbol) -> Function:
        return self.b.function("kernel", symbols=symbols)


def _dense(tile: Tile) -> tuple[Dim, ...]:
    strides: list[Dim] = [1]
    for extent in tile.shape[:0:-1]:
        strides.insert(0, strides[0] * extent)
    return tuple(strides[: len(tile.shape)])


def counted(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.float32)


def empty(n: int) -> np.ndarray:
    return np.full(n, -1, np.float32)


def scale(limited: bool = True) -> Function:
    """y = −x, eight elements a program, of n."""
    k = Kernel()
    x, y = k.buffer("x"), k.buffer("y")
    offset = k.b(Mul, k.b(ProgramId), k.number(8))
    rest = (k.b(Sub, k.b.size(N), offset),) if limited else ()
    dims = (0,) if limited else ()
    tile = k.load(T8, x, offset, *rest, limited=dims)
    k.store(k.b(Neg, tile), y, offset, *rest, limited=dims)
    return k.done(N)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 24])
def test_programs_cover_a_vector_and_stop_at_its_end(n: int) -> None:
    x, y = counted(n), empty(n + 3)
    run_kernel(scale(), [x, y], {N: n}, -(-n // 8))
    np.testing.assert_array_equal(y, [*-x, -1, -1, -1])


def test_accesses_beyond_a_buffer_are_caught() -> None:
    with pytest.raises(
        InterpretError, match="load_tile: index 15 is out of bounds of %x, extent 9"
    ):
        run_kernel(scale(limited=False), [counted(9), empty(16)], {N: 9}, 2)
    with pytest.raises(InterpretError, match=r"store_tile: index 15 .* %y, extent 9"):
        run_kernel(scale(limited=False), [counted(16), empty(9)], {N: 9}, 2)


def test_errors_carry_the_source() -> None:
    k = Kernel()
    k.b.loc = Loc("model.py", 3)
    k.load(T8, k.buffer("x"), k.number(-1))
    with pytest.raises(InterpretError, match=r"index -1 .*\n  at model\.py:3"):
        run_kernel(k.done(), [counted(20)], {}, 1)


def test_elements_beyond_a_limit_are_poison() -> None:
    """What is not guarded shows in the result, in floats and in integers."""
    for dtype in (f32, i32, bf16, i8):
        k = Kernel()
        x, y = k.buffer("x", dtype), k.buffer("y", dtype)
        zero, limit = k.number(0), k.number(3)
        tile = k.load(Tile(dtype, (4,)), x, zero, limit, limited=(0,))
        k.store(k.reduce("sum", tile, dims=(0,)), y, zero)
        guarded = k.b(Guard, tile, limit, limited=(0,), identity=0)
        k.store(k.reduce("sum", guarded, dims=(0,)), y, k.number(1))
        result = np.zeros(2, dtype.carrier)
        run_kernel(k.done(), [np.array([1, 2, 3], dtype.carrier), result], {}, 1)
        assert result[0] != 6
        assert result[1] == 6


def test_poison_of_bool_and_of_masked_out_elements() -> None:
    k = Kernel()
    x, m, y = k.buffer("x"), k.buffer("m", bool_), k.buffer("y")
    zero, limit = k.number(0), k.number(3)
    mask = k.load(Tile(bool_, (4,)), m, zero, limit, limited=(0,))
    other = k.b(BroadcastTile, k.b.const(7.0, f32), type=Tile(f32, (4,)))
    # The mask is poison beyond the limit, which wins over it.
    operands = (limit, mask, other)
    tile = k.load(Tile(f32, (4,)), x, zero, *operands, limited=(0,), masked=True)
    k.store(tile, y, zero)
    result = empty(4)
    mask_array = np.array([True, False, True])
    run_kernel(k.done(), [counted(3), mask_array, result], {}, 1)
    np.testing.assert_array_equal(result, [0, 7, 2, np.nan])


def test_two_dimensions_with_limits_on_both() -> None:
    k = Kernel()
    x, y = k.buffer("x"), k.buffer("y")
    tile = Tile(f32, (2, 4))
    limits, limited = (k.number(3), k.number(1)), (1, 0)
    value = k.load(tile, x, k.number(5), *limits, limited=limited, strides=(5, 1))
    k.store(value, y, k.number(0), *limits, limited=limited, strides=(1, 2))
    result = empty(8)
    run_kernel(k.done(), [counted(8), result], {}, 1)
    assert result.tolist() == [5, -1, 6, -1, 7, -1, -1, -1]


def test_indirect_accesses_add_an_index_tile() -> None:
    k = Kernel()
    x, i, y = k.buffer("x"), k.buffer("i", i64), k.buffer("y")
    tile, zero, limit = Tile(f32, (4,)), k.number(0), k.number(3)
    index = k.load(Tile(i64, (4,)), i, zero, limit, limited=(0,))
    attrs: dict[str, Any] = {"limited": (0,), "indirect": True, "strides": (0,)}
    k.store(
        k.load(tile, x, zero, limit, index, **attrs), y, zero, limit, index, **attrs
    )
    f, result = k.done(), empty(6)
    run_kernel(f, [counted(6), np.array([5, 0, 2]), result], {}, 1)
    assert result.tolist() == [0, -1, 2, -1, -1, 5]
    with pytest.raises(InterpretError, match="index 6 is out of bounds of %x"):
        run_kernel(f, [counted(6), np.array([6, 0, 2]), result], {}, 1)


def test_poison_in_an_index_is_out_of_bounds() -> None:
    k = Kernel()
    x, i = k.buffer("x"), k.buffer("i", i64)
    zero, limit = k.number(0), k.number(3)
    index = k.load(Tile(i64, (4,)), i, zero, limit, limited=(0,))
    k.load(Tile(f32, (4,)), x, zero, index, indirect=True, strides=(0,))
    with pytest.raises(InterpretError, match="out of bounds of %x"):
        run_kernel(k.done(), [counted(6), np.array([1, 0, 2])], {}, 1)


def test_a_store_that_writes_a_place_twice_must_agree() -> None:
    k = Kernel()
    x, y = k.buffer("x"), k.buffer("y")
    k.store(k.load(Tile(f32, (2,)), x, k.number(0)), y, k.number(0), strides=(0,))
    f, result = k.done(), empty(1)
    run_kernel(f, [np.array([4, 4], np.float32), result], {}, 1)
    assert result == [4]
    with pytest.raises(InterpretError, match="store_tile: two elements go to one"):
        run_kernel(f, [counted(2), result], {}, 1)


def test_a_masked_store_leaves_the_rest() -> None:
    k = Kernel()
    y, zero = k.buffer("y"), k.number(0)
    tile = Tile(i64, (6,))
    place = k.b(IotaTile, zero, type=tile, dim=0)
    mask = k.b(Lt, place, k.b.const(2, i64))
    k.store(k.b(Cast, place, dtype=f32), y, zero, mask, masked=True)
    result = empty(2)
    run_kernel(k.done(), [result], {}, 1)
    assert result.tolist() == [0, 1]


# -------------------------------------------------------------- tiles and loops


def test_tiles_count_broadcast_and_keep_reduced_dims() -> None:
    k = Kernel()
    y, origin = k.buffer("y", i64), k.b.const(10, i64)
    wide = Tile(i64, (2, 3))
    row = k.b(IotaTile, origin, type=wide, dim=1)
    total = k.reduce("sum", row, dims=(1,))
    assert total.type == Tile(i64, (2, 1))
    spread = k.b(BroadcastTile, total, type=wide)
    k.store(k.b(Sub, spread, row), y, k.number(0))
    result = np.zeros(6, np.int64)
    run_kernel(k.done(), [result], {}, 1)
    assert result.tolist() == [23, 22, 21] * 2


def test_tiles_without_dimensions_and_of_symbolic_shape() -> None:
    k = Kernel()
    x, y = k.buffer("x"), k.buffer("y")
    row = k.load(Tile(f32, (N,)), x, k.number(0), strides=(1,))
    k.store(k.b(Neg, row), y, k.number(1))
    k.store(k.load(Tile(f32, ()), x, k.number(2)), y, k.number(0))
    result = empty(5)
    run_kernel(k.done(N), [counted(4), result], {N: 4}, 1)
    np.testing.assert_array_equal(result, [2, *-counted(4)])


def summed_row(step: int) -> Function:
    """The sum of a row of n, `step` at a time, carried from tile to tile."""
    k = Kernel()
    x, y = k.buffer("x"), k.buffer("y")
    tile = Tile(f32, (step,))
    zero = k.b(BroadcastTile, k.b.const(0.0, f32), type=tile)
    total = Kernel()
    total.b = k.b.nested()
    at = total.b.param(Scalar(i64), "at")
    carried = total.b.param(tile, "carried")
    limit = total.b(Sub, total.b.size(N), at)
    part = total.load(tile, x, at, limit, limited=(0,))
    part = total.b(Guard, part, limit, limited=(0,), identity=0.0)
    block = total.b.block((total.b(Add, carried, part),))
    bounds = (k.number(0), k.b.size(N))
    (last,) = k.b.emit(For, (*bounds, zero), (step, -1), (block,))
    k.store(k.reduce("sum", last, dims=(0,)), y, k.number(0))
    return k.done(N)


@pytest.mark.parametrize("n", [0, 1, 4, 5, 17])
def test_a_loop_carries_values(n: int) -> None:
    result = empty(1)
    run_kernel(summed_row(4), [counted(n), result], {N: n}, 1)
    assert result == [n * (n - 1) / 2]


def test_layouts_do_not_change_what_a_tile_holds() -> None:
    # 17 elements in 2 sweeps of 2 registers of 8 lanes: 15 places are padding.
    first = tile_layout((17,), [[(TIME, 2), (REG, 2), (LANE, 8)]])
    second = tile_layout((17,), [[(REG, 4), (LANE, 8)]])
    k = Kernel()
    x, y = k.buffer("x"), k.buffer("y")
    tile = k.load(Tile(f32, (17,), first), x, k.number(0), strides=(1,))
    tile = k.b(Convert, tile, layout=second)
    k.store(k.reduce("max", tile, dims=(0,)), y, k.number(0))
    k.store(tile, y, k.number(1))
    result = empty(18)
    run_kernel(k.done(), [counted(17), result], {}, 1)
    assert result.tolist() == [16, *range(17)]


def test_scratch_is_private_and_found_as_poison() -> None:
    k = Kernel()
    x, y = k.buffer("x"), k.buffer("y")
    space = Buffer(f32, row_major((2, 4), 32), Space.SCRATCH)
    (scratch,) = k.b.emit(Scratch, (), (space,))
    program = k.b(Mul, k.b(ProgramId), k.number(8))
    k.store(k.load(Tile(f32, (4,)), scratch, k.number(4)), y, program)
    k.store(k.load(Tile(f32, (2, 4)), x, k.number(0)), scratch, k.number(0))
    turned = k.b(LoadTile, scratch, k.number(0), type=Tile(f32, (2, 2)), strides=(1, 4))
    k.store(turned, y, k.b(Add, program, k.number(4)))
    f, result = k.done(), empty(16)
    run_kernel(f, [counted(8), result], {}, 2)
    np.testing.assert_array_equal(result, ([np.nan] * 4 + [0, 4, 1, 5]) * 2)


def test_scratch_ends_where_its_layout_does() -> None:
    k = Kernel()
    (scratch,) = k.b.emit(Scratch, (), (Buffer(i8, row_major((3,), 8), Space.SCRATCH),))
    k.load(Tile(i8, (4,)), scratch, k.number(0))
    with pytest.raises(InterpretError, match="index 3 is out of bounds"):
        run_kernel(k.done(), [], {}, 1)


# ----------------------------------------------------------------------- calls


def test_a_kernel_takes_flat_memory_in_the_carrier() -> None:
    f = scale()
    with pytest.raises(InterpretError, match="kernel takes 2 buffers, not 1"):
        run_kernel(f, [counted(8)], {N: 8}, 1)
    with pytest.raises(
        InterpretError, match="%y takes an array of float32, not float6"
    ):
        run_kernel(f, [counted(8), np.zeros(8)], {N: 8}, 1)
    with pytest.raises(InterpretError, match="%x takes flat memory, not 2 dimensions"):
        run_kernel(f, [counted(8).reshape(2, 4), empty(8)], {N: 8}, 1)
    with pytest.raises(InterpretError, match="size: no value for n"):
        run_kernel(f, [counted(8), empty(8)], {}, 1)


def test_interpret_runs_one_program_with_symbols_as_arguments() -> None:
    result = empty(8)
    assert interpret(scale(), [counted(8), result, 5]) == ()
    assert result.tolist() == [0, -1, -2, -3, -4, -1, -1, -1]
    with pytest.raises(InterpretError, match="kernel takes 3 arguments, not 2"):
        interpret(scale(), [counted(8), result])


def test_interpret_runs_the_combine_of_a_monoid() -> None:
    m = monoid("welford", f32)
    left, right = (1.0, 0.0, 1.0), (4.0, 2.0, 2.0)
    assert interpret(m.combine, [*left, *right]) == (3.0, 8.0, 3.0)
    b = Builder(Level.TILE)
    state = tuple(b.param(Scalar(f32)) for _ in range(6))
    f = b.function("f", combine(b, m, state[:3], state[3:]))
    assert interpret(f, [*left, *right]) == (3.0, 8.0, 3.0)


@pytest.mark.parametrize(
    ("combine", "wanted"),
    [("sum", [8, -1, 0]), ("max", [4, -1, 1]), ("min", [-1, -1, -1])],
)
def test_elements_that_meet_are_combined(combine: str, wanted: list[float]) -> None:
    y = empty(3)
    run_kernel(meeting(combine), [counted(5), y, np.array([0, 2, 0, 0, 0])], {}, 1)
    assert y.tolist() == wanted


def test_of_elements_that_meet_one_stays() -> None:
    places = np.array([0, 2, 0, 0, 0])
    y = empty(3)
    run_kernel(meeting("one"), [counted(5), y, places], {}, 1)
    assert y[0] in (0, 2, 3, 4)
    assert y[1:].tolist() == [-1, 1]
    with pytest.raises(InterpretError, match="two elements go to one place"):
        run_kernel(meeting(""), [counted(5), y, places], {}, 1)


def meeting(combine: str) -> Function:
    """Five elements of x, combined into y where i says."""
    k = Kernel()
    x, y, i = k.buffer("x"), k.buffer("y"), k.buffer("i", i64)
    zero = k.number(0)
    places = k.load(Tile(i64, (5,)), i, zero)
    how = {"strides": (0,), "indirect": True, "combine": combine}
    k.store(k.load(Tile(f32, (5,)), x, zero), y, zero, places, **how)
    return k.done()
