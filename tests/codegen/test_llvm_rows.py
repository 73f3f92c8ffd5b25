"""Every row of the LLVM backend against the numpy reference of its op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusec.ir.builder import Builder
from fusec.ir.core import Level
from fusec.ir.dtypes import DType, bool_, f32, i64, int_, parse_dtype
from fusec.ir.layout import row_major, tile_layout
from fusec.ir.opdef import REGISTRY
from fusec.ir.ops import elementwise as ew
from fusec.ir.ops.cast import Bitcast, Cast, convert
from fusec.ir.ops.tile import LoadTile, ProgramId, StoreTile
from fusec.ir.types import Buffer, Tile
from fusec.target import Target

Array = np.ndarray[Any, Any]

NATIVE = [
    parse_dtype(name)
    for name in "bool i8 i16 i32 i64 u8 u16 u32 u64 f16 bf16 f32 f64".split()
]
SIZE = 48
LAYOUT = tile_layout((SIZE,), [[("reg", 6), ("lane", 8)]])

OPS = [
    op
    for op in REGISTRY.values()
    if isinstance(op, type) and issubclass(op, ew.Elementwise)
]
# A backend may be off by the last place, and computes these in f32 and f64 alone.
ROUNDED = "exponential hyperbolic special trigonometric".split()
EXACT = [op for op in OPS if op.__module__.split(".")[-1] not in ROUNDED]
ELEMENTARY = [op for op in OPS if op not in EXACT]


def samples(dtype: DType, seed: int) -> Array:
    """Values in the carrier: the special ones in all orders, then random ones."""
    random = np.random.default_rng(seed)
    if dtype.is_bool:
        return random.integers(0, 2, SIZE).astype(np.bool_)
    if dtype.is_int:
        info = np.iinfo(dtype.carrier)
        special = [0, 1, 2, 3, 7, info.min, info.max, info.max - 1]
        special += [-1, -2, -7] if dtype.is_signed else []
        special = np.array(special, dtype.carrier)
        rest = random.integers(info.min, info.max, SIZE, dtype.carrier, endpoint=True)
        small = random.integers(0, 20, SIZE).astype(dtype.carrier)
        rest = np.where(random.integers(0, 2, SIZE) == 0, rest, small)
    else:
        tiny = 2.0 ** (1 - dtype.bias - dtype.mantissa_bits)
        special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5]
        special += [dtype.max, dtype.min, tiny, -tiny, tiny * 3]
        scale = 2.0 ** random.integers(-12, 12, SIZE)
        rest = random.standard_normal(SIZE) * scale
    values = dtype.quantize(np.where(random.random(SIZE) < 0.4, 0, rest))
    picked = dtype.quantize(random.choice(special, SIZE))
    return np.where(values == 0, picked, values)


def stored(dtype: DType, values: Array) -> Array:
    """As the elements lie in memory."""
    if values.dtype == dtype.storage:
        return np.ascontiguousarray(values)
    return dtype.encode(values).view(dtype.storage)


def carried(dtype: DType, elements: Array) -> Array:
    return elements if dtype.carrier == dtype.storage else dtype.decode(elements)


def same(dtype: DType, got: Array, expected: Array) -> Array:
    """Equal in every bit, any NaN for a NaN, any zero for a zero."""
    if not dtype.is_float:
        return got == expected
    return (got == expected) | (np.isnan(got) & np.isnan(expected))


def buffer(dtype: DType) -> Buffer:
    return Buffer(dtype, row_major((SIZE,), dtype.bits))


def store(b: Builder, value: Any, hint: str) -> None:
    out = b.param(buffer(value.type.dtype), hint)
    b.emit(StoreTile, (value, out, b.size(0)), ((1,), (), False, False, False, ""))


def load(b: Builder, dtype: DType, hint: str) -> Any:
    source = b.param(buffer(dtype), hint)
    return b(
        LoadTile, source, b.size(0), type=Tile(dtype, (SIZE,), LAYOUT), strides=(1,)
    )


def operand_dtypes(op: Any, dtype: DType) -> list[DType]:
    if op is ew.Select:
        return [bool_, dtype, dtype]
    if op is ew.Ldexp:
        return [dtype, int_(dtype.bits)]
    return [dtype] * len(op.operand_fields)


def computes(op: Any, dtype: DType) -> bool:
    """Whether the op computes its reference exactly on that dtype.

    In 16 bits, ops that round on the way do so in f32, their references as numpy does.
    """
    narrow = dtype.is_float and dtype.bits == 16
    rounds_twice = op in (ew.Fma, ew.Rsqrt, ew.TruncDiv, ew.FloorDiv, ew.Nextafter)
    return op.takes(dtype) and not (narrow and rounds_twice)


def signs_matter(op: Any) -> bool:
    """Whether the sign of a zero is specified."""
    return op not in (ew.Maximum, ew.Minimum, ew.Fmax, ew.Fmin)


class Outcome:
    """Ops on shared operands, each with its result and its reference."""

    def __init__(self, ops: list[Any], dtype: DType) -> None:
        self.b = Builder(Level.TILE)
        self.inputs: list[Array] = []
        self.operands: dict[tuple[DType, int], tuple[Any, Array]] = {}
        self.dtypes = {op: operand_dtypes(op, dtype) for op in ops}
        for kinds in self.dtypes.values():
            for k, kind in enumerate(kinds):
                self._load(kind, k)
        self.gives = {op: op.gives or dtype for op in ops}
        self.outputs: dict[Any, Array] = {}
        for op in ops:
            result = self.b(op, *(x for x, _ in self._operands(op)))
            store(self.b, result, f"out_{op.name}")
            self.outputs[op] = np.zeros(SIZE, self.gives[op].storage)

    def run(self, run: Callable[..., None]) -> None:
        arrays = [*self.inputs, *self.outputs.values()]
        run(self.b.function("ops"), arrays)

    def got(self, op: Any) -> Array:
        return carried(self.gives[op], self.outputs[op])

    def expected(self, op: Any) -> Array:
        with np.errstate(all="ignore"):
            result = op.numpy(*(values for _, values in self._operands(op)))
            return self.gives[op].quantize(np.asarray(result))

    def report(self, op: Any, equal: Array) -> str:
        """The first results that are wrong."""
        got, expected = self.got(op), self.expected(op)
        xs = [values for _, values in self._operands(op)]
        return f"{op.name}: " + "; ".join(
            f"{[x[i] for x in xs]} -> {got[i]}, not {expected[i]}"
            for i in np.flatnonzero(~equal)[:3]
        )

    def _operands(self, op: Any) -> list[tuple[Any, Array]]:
        return [self.operands[kind, k] for k, kind in enumerate(self.dtypes[op])]

    def _load(self, kind: DType, k: int) -> None:
        if (kind, k) not in self.operands:
            values = samples(kind, 10 * k + 1)
            x = load(self.b, kind, f"in{len(self.inputs)}")
            self.operands[kind, k] = x, values
            self.inputs.append(stored(kind, values))


@pytest.mark.parametrize("dtype", NATIVE, ids=str)
def test_exact_ops_compute_the_reference(
    dtype: DType, run: Callable[..., None], target: Target
) -> None:
    fused = dtype is f32 and not target.has("fma")  # through f64, rounding twice
    ops = [op for op in EXACT if computes(op, dtype) and not (fused and op is ew.Fma)]
    outcome = Outcome(ops, dtype)
    outcome.run(run)
    for op in ops:
        got, expected = outcome.got(op), outcome.expected(op)
        equal = same(outcome.gives[op], got, expected)
        if outcome.gives[op].is_float and signs_matter(op):
            zero = (got == 0) & (expected == 0)
            equal &= ~zero | (np.signbit(got) == np.signbit(expected))
        assert equal.all(), outcome.report(op, equal)


@pytest.mark.parametrize("op", ELEMENTARY, ids=lambda op: op.name)
def test_elementary_functions_are_near_the_reference(
    op: Any, run: Callable[..., None], target: Target
) -> None:
    if not target.has("fma") and op not in (ew.Exp, ew.Log, ew.Tanh, ew.Sin):
        pytest.skip("the rows are the same, and compile slowly without FMA")
    outcome = Outcome([op], f32)
    outcome.run(run)
    got, expected = outcome.got(op), outcome.expected(op)
    equal = np.isclose(got, expected, 1e-6, 1e-44, equal_nan=True)
    assert equal.all(), outcome.report(op, equal)


@pytest.mark.parametrize("source", NATIVE, ids=str)
def test_casts_compute_the_reference(source: DType, run: Callable[..., None]) -> None:
    values = samples(source, 3)
    b = Builder(Level.TILE)
    x = load(b, source, "x")
    outputs: list[Array] = []
    for dtype in NATIVE:
        store(b, b(Cast, x, dtype=dtype), dtype.name)
        outputs.append(np.zeros(SIZE, dtype.storage))
    run(b.function("casts"), [stored(source, values), *outputs])
    for dtype, out in zip(NATIVE, outputs, strict=True):
        fits = np.ones(SIZE, np.bool_)
        if source.is_float and dtype.is_int:
            wide = values.astype(np.float64)
            fits = (wide > float(dtype.min) - 1) & (wide < float(dtype.max) + 1)
        with np.errstate(all="ignore"):
            expected = convert(np.where(fits, values, 0), source, dtype)
        got = carried(dtype, out)
        equal = same(dtype, got, expected) | ~fits
        where = np.flatnonzero(~equal)[:3]
        assert equal.all(), f"to {dtype.name}: " + "; ".join(
            f"{values[i]} -> {got[i]}, not {expected[i]}" for i in where
        )


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_every_narrow_float_survives_f32(name: str, run: Callable[..., None]) -> None:
    dtype = parse_dtype(name)
    codes = np.arange(1 << 16, dtype=np.uint16)
    b = Builder(Level.TILE)
    x, wide, back = (
        b.param(Buffer(d, row_major((1 << 16,), d.bits)), hint)
        for d, hint in ((dtype, "x"), (f32, "wide"), (dtype, "back"))
    )
    at = b(ew.Mul, b(ProgramId), b.const(64, i64))
    tile = Tile(dtype, (64,), tile_layout((64,), [[("reg", 4), ("lane", 16)]]))
    value = b(Cast, b(LoadTile, x, at, type=tile, strides=(1,)), dtype=f32)
    attrs = ((1,), (), False, False, False, "")
    b.emit(StoreTile, (value, wide, at), attrs)
    b.emit(StoreTile, (b(Cast, value, dtype=dtype), back, at), attrs)
    got, again = np.zeros(1 << 16, np.float32), np.zeros(1 << 16, np.uint16)
    run(b.function("widen"), [codes, got, again], grid=1024)
    assert same(f32, got, dtype.decode(codes).astype(np.float32)).all()
    number = ~np.isnan(got)
    assert (again[number] == codes[number]).all()
    assert np.isnan(dtype.decode(again[~number])).all()


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_narrowing_rounds_to_nearest_even(name: str, run: Callable[..., None]) -> None:
    # Halfway between neighbours, and one unit of the last place to either side.
    dtype = parse_dtype(name)
    codes = np.random.default_rng(5).integers(0, 1 << 15, SIZE // 3).astype(np.uint16)
    codes = np.where(np.isfinite(dtype.decode(codes + np.uint16(1))), codes, 0)
    low = dtype.decode(codes.astype(np.uint16)).astype(np.float64)
    high = dtype.decode((codes + 1).astype(np.uint16)).astype(np.float64)
    middle = ((low + high) / 2).astype(np.float32)
    beside = [np.nextafter(middle, np.float32(s * np.inf)) for s in (-1, 1)]
    values = np.concatenate([middle, *beside])
    b = Builder(Level.TILE)
    store(b, b(Cast, load(b, f32, "x"), dtype=dtype), "y")
    out = np.zeros(SIZE, np.uint16)
    run(b.function("narrow"), [values, out])
    assert same(f32, dtype.decode(out), dtype.quantize(values)).all()


def test_bits_are_kept_by_bitcast(run: Callable[..., None]) -> None:
    b = Builder(Level.TILE)
    x = load(b, f32, "x")
    bits = b(Bitcast, x, dtype=int_(32))
    store(b, b(Bitcast, bits, dtype=f32), "y")
    store(b, bits, "bits")
    values = samples(f32, 7)
    again, codes = np.zeros(SIZE, np.float32), np.zeros(SIZE, np.int32)
    run(b.function("bitcasts"), [values, again, codes])
    assert (codes == values.view(np.int32)).all()
    assert (again.view(np.int32) == codes).all()
