"""The host level: memory, views, launches, copies, externs."""

from __future__ import annotations

import numpy as np
import pytest

from fusec.ir.builder import Builder
from fusec.ir.calls import Slot
from fusec.ir.core import Function, Level, Module, Op, Value
from fusec.ir.dims import Symbol, ceil_div
from fusec.ir.dtypes import f32, i64
from fusec.ir.interpreter import InterpretError, interpret
from fusec.ir.layout import row_major
from fusec.ir.ops.checks import Raise
from fusec.ir.ops.elementwise import Add, Mul, Neg, Sub
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.host import Alloc, CopyInto, Free, Launch
from fusec.ir.ops.loop import View
from fusec.ir.ops.tile import LoadTile, ProgramId, StoreTile
from fusec.ir.types import Buffer, Tensor, Tile

N, M = Symbol("n"), Symbol("m")
VECTOR = Tensor(f32, (N,))
FOUR = Tensor(f32, (4,))


def negate() -> Function:
    """A kernel: y = −x for m elements, four a program."""
    b = Builder(Level.TILE)
    memory = Buffer(f32, row_major((M,), 32))
    x, y = b.param(memory, "x"), b.param(memory, "y")
    offset = b(Mul, b(ProgramId), b.const(4, i64))
    limit = b(Sub, b.size(M), offset)
    tile = Tile(f32, (4,))
    value = b(LoadTile, x, offset, limit, type=tile, strides=(1,), limited=(0,))
    operands = (b(Neg, value), y, offset, limit)
    b.emit(StoreTile, operands, ((1,), (0,), False, False, False, ""))
    return b.function("negate", symbols=(M,))


class Host:
    """A host function under construction."""

    def __init__(self) -> None:
        self.b = Builder(Level.HOST)

    def alloc(self, type_: Tensor, escapes: bool = True, zeroed: bool = False) -> Value:
        (value,) = self.b.emit(Alloc, (), (type_, escapes, zeroed), hints=("a",))
        return value

    def launch(self, x: Value, y: Value, name: str = "negate") -> None:
        self.b.emit(Launch, (x, y), (name, ceil_div(N, 4), (N,)))

    def view(self, x: Value, type_: Tensor, offset: int) -> Value:
        (value,) = self.b.emit(View, (x,), (type_, offset), hints=("v",))
        return value

    def free(self, x: Value) -> None:
        self.b.emit(Free, (x,))

    def module(self, *yields: Value) -> Module:
        return Module((self.b.function("main", yields), negate()))


def run(module: Module, *arguments: np.ndarray) -> tuple[np.ndarray, ...]:
    return interpret(module.entry, arguments, module=module)


def counted(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.float32)


@pytest.mark.parametrize("n", [0, 1, 4, 9])
def test_a_program_launches_kernels_over_memory_of_its_own(n: int) -> None:
    host = Host()
    x = host.b.param(VECTOR, "x")
    between, y = host.alloc(VECTOR, escapes=False), host.alloc(VECTOR)
    host.launch(x, between)
    host.launch(between, y)
    host.free(between)
    (result,) = run(host.module(y), counted(n))
    np.testing.assert_array_equal(result, counted(n))


def test_memory_is_found_as_poison_unless_zeroed() -> None:
    host = Host()
    anything, zeros = run(host.module(host.alloc(FOUR), host.alloc(FOUR, zeroed=True)))
    assert np.isnan(anything).all()
    assert zeros.tolist() == [0, 0, 0, 0]


def test_the_first_raised_flag_fails_the_program() -> None:
    host = Host()
    flags = host.b.param(Tensor(i64, (3,)), "flags")
    errors = ("RuntimeError", "IndexError", "RuntimeError")
    host.b.emit(Raise, (flags,), (("first", "second", "third"), errors))
    module = host.module()
    assert run(module, np.zeros(3, np.int64)) == ()
    with pytest.raises(IndexError, match="second"):
        run(module, np.array([0, 1, 1]))
    with pytest.raises(RuntimeError, match="third"):
        run(module, np.array([0, 0, 1]))


def test_use_after_free_is_caught() -> None:
    host = Host()
    x, y = host.b.param(VECTOR, "x"), host.alloc(VECTOR)
    whole = host.view(y, VECTOR, 0)
    host.free(y)
    host.launch(x, whole)
    with pytest.raises(InterpretError, match="launch: this memory was freed"):
        run(host.module(), counted(4))


def test_memory_is_freed_once() -> None:
    host = Host()
    y = host.alloc(FOUR)
    host.free(y)
    host.free(y)
    with pytest.raises(InterpretError, match="free: %a was freed before"):
        run(host.module())


def test_only_memory_that_escapes_is_returned() -> None:
    host = Host()
    with pytest.raises(InterpretError, match="%a is returned, but its memory does not"):
        run(host.module(host.alloc(FOUR, escapes=False)))


def test_views_share_the_memory_of_strided_tensors() -> None:
    host = Host()
    x = host.b.param(Tensor(f32, (2, 3), (1, 2)), "x")
    row = host.view(x, Tensor(f32, (3,), (2,)), 1)
    flat = host.view(x, Tensor(f32, (4,)), 2)
    row_array, flat_array = run(host.module(row, flat), counted(6).reshape(2, 3))
    assert row_array.tolist() == [3, 4, 5]
    assert flat_array.tolist() == [1, 4, 2, 5]


def test_views_stay_within_their_storage() -> None:
    host = Host()
    host.view(host.b.param(FOUR, "x"), FOUR, 1)
    with pytest.raises(
        InterpretError, match="view: index 4 is out of bounds of the st"
    ):
        run(host.module(), counted(4))


def test_a_kernel_reaches_no_further_than_its_view() -> None:
    host = Host()
    x, y = host.b.param(VECTOR, "x"), host.alloc(VECTOR)
    host.launch(host.view(x, Tensor(f32, (3,)), 0), y)
    with pytest.raises(
        InterpretError, match=r"load_tile: index 3 is out of .* extent 3"
    ):
        run(host.module(), counted(4))


def test_a_launch_must_fit_its_kernel() -> None:
    host = Host()
    x = host.b.param(VECTOR, "x")
    host.launch(x, x, "affirm")
    with pytest.raises(InterpretError, match="there is no kernel 'affirm'"):
        run(host.module(), counted(4))
    for operands, sizes, message in (
        ("x", "n", "negate takes 2 arguments, not 1"),
        ("xx", "", "negate takes 1 sizes, not 0"),
    ):
        host = Host()
        x = host.b.param(VECTOR, "x")
        host.b.emit(Launch, [x for _ in operands], ("negate", 1, (N,) * len(sizes)))
        with pytest.raises(InterpretError, match=message):
            run(host.module(), counted(4))


def test_parameters_are_written_by_copies_and_kernels() -> None:
    host = Host()
    x, y, z = (host.b.param(VECTOR, name) for name in "xyz")
    host.launch(x, y)
    host.b.emit(CopyInto, (y, z))
    arrays = counted(5), np.zeros(5, np.float32), np.zeros(10, np.float32)[::2]
    arrays[0].flags.writeable = False
    assert run(host.module(), *arrays) == ()
    np.testing.assert_array_equal(arrays[1], -counted(5))
    np.testing.assert_array_equal(arrays[2], -counted(5))


def test_sizes_are_computed_beside_memory() -> None:
    host = Host()
    host.b.param(VECTOR, "x")
    total = host.b(Add, host.b.size(N), host.b.const(1, i64))
    assert run(host.module(total), counted(4)) == (5,)


def test_externs_read_views_and_give_strided_tensors() -> None:
    host = Host()
    x = host.b.param(Tensor(f32, (2, 2)), "x")
    turned = host.view(x, Tensor(f32, (2, 2), (1, 2)), 0)
    column_major = Tensor(f32, (2, 2), (1, 2))
    attrs = ("aten.twice", (Slot(0),), (), (column_major,))
    (y,) = host.b.emit(Extern, (turned,), attrs)
    module = host.module(y, host.view(y, FOUR, 0))
    seen: list[str] = []

    def observe(op: Op, results: tuple[object, ...]) -> None:
        seen.append(type(op).name)

    twice, memory = interpret(
        module.entry,
        [counted(4).reshape(2, 2)],
        module=module,
        extern=lambda *call: (call[3][0] * 2,),
        observe=observe,
    )
    assert twice.tolist() == [[0, 4], [2, 6]]
    assert memory.tolist() == [0, 2, 4, 6]
    assert seen == ["view", "extern", "view"]
