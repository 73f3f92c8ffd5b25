"""Element types: every code of every width up to 16, against independent oracles."""

from __future__ import annotations

import bisect
import copy
import doctest
import functools
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusec.ir import dtypes
from fusec.ir.dtypes import (
    DType,
    Kind,
    Specials,
    bf16,
    bool_,
    codebook,
    f16,
    f32,
    f64,
    float_,
    from_numpy,
    i8,
    i16,
    i32,
    i64,
    int_,
    parse_dtype,
    promote,
    u8,
    u16,
    u32,
    u64,
    uint,
)

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

NATIVE = {
    bool_: np.bool_, i8: np.int8, i16: np.int16, i32: np.int32, i64: np.int64,
    u8: np.uint8, u16: np.uint16, u32: np.uint32, u64: np.uint64,
    f16: np.float16, f32: np.float32, f64: np.float64,
}  # fmt: skip
INTS = [make(bits) for bits in range(1, 17) for make in (int_, uint)]
SMALL_FLOATS = [
    float_(e, total - 1 - e, specials)
    for total in range(2, 9)
    for e in range(1, total)
    for specials in Specials
    if specials is not Specials.IEEE or total - 1 - e > 0
]
WIDE_FLOATS = [
    f16,
    bf16,
    float_(6, 9),
    float_(4, 11, Specials.FN),
    float_(8, 4, Specials.FNUZ),
    float_(10, 5, Specials.FINITE),
    float_(11, 4),
    float_(1, 14, Specials.FNUZ),
]
TRICKY = [0.0, -0.0, 1.0, -1.0, 1e-320, -1e-320, 1e308, math.inf, -math.inf]
NF4 = codebook(
    "nf4_test",
    [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500,
     0.0, 0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170,
     0.7229568, 1.0],
)  # fmt: skip
E8M0 = codebook("e8m0_test", [2.0 ** (i - 127) for i in range(255)] + [math.nan])


def named(dtype: DType) -> str:
    return dtype.name


def all_codes(dtype: DType) -> np.ndarray:
    width = next(w for w in (8, 16) if w >= dtype.bits)
    return np.arange(1 << dtype.bits, dtype=np.uint32).astype(f"u{width // 8}")


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal values, NaN for NaN, signs of zeros included."""
    signs = np.signbit(a) == np.signbit(b) if a.dtype.kind == "f" else True
    nan = np.isnan(a) & np.isnan(b)
    return a.shape == b.shape and bool(np.all(nan | ((a == b) & signs)))


def to_float64(values: np.ndarray) -> np.ndarray:
    """Without numpy's warning that a signalling NaN becomes quiet."""
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)


def spelled_out(dtype: DType, code: int) -> Fraction | float:
    """What one code of a float means, digit by digit, from the conventions alone."""
    e, m = dtype.exponent_bits, dtype.mantissa_bits
    sign = -1 if code >> (e + m) else 1
    field, mantissa = (code >> m) % 2**e, code % 2**m
    full = field == 2**e - 1
    if dtype.specials is Specials.IEEE and full:
        return math.nan if mantissa else sign * math.inf
    if dtype.specials is Specials.FN and full and mantissa == 2**m - 1:
        return math.nan
    if dtype.specials is Specials.FNUZ and code == 1 << (e + m):
        return math.nan
    bias = 2 ** (e - 1) - (dtype.specials is not Specials.FNUZ)
    if field == mantissa == 0:
        return sign * 0.0
    hidden = Fraction(1 if field else 0) + Fraction(mantissa, 2**m)
    return sign * hidden * Fraction(2) ** (max(field, 1) - bias)


@functools.cache
def numbers(dtype: DType) -> list[tuple[Fraction, int]]:
    """The magnitudes of a float with their codes, by value."""
    values = [(spelled_out(dtype, c), c) for c in range(1 << (dtype.bits - 1))]
    return sorted((Fraction(v), c) for v, c in values if math.isfinite(v))


def beyond(dtype: DType) -> Fraction:
    """The number that would follow the largest one, had the exponent a bit more."""
    top, code = numbers(dtype)[-1]
    field = max(code >> dtype.mantissa_bits, 1)
    return top + Fraction(2) ** (field - dtype.bias - dtype.mantissa_bits)


def nearest_by_search(dtype: DType, value: float) -> int:
    """The code that `encode` owes, by exact comparison with every neighbour."""
    sign = 1 << (dtype.bits - 1) if math.copysign(1, value) < 0 else 0
    top = numbers(dtype)[-1][1]
    past = {Specials.IEEE: top + 1, Specials.FNUZ: 1 << (dtype.bits - 1)}
    overflow = past.get(dtype.specials, top)
    if math.isinf(value):
        return sign | overflow
    candidates = [*numbers(dtype), (beyond(dtype), top + 1)]
    size = Fraction(abs(value))
    at = bisect.bisect_left(candidates, (size, 0))
    _, _, code = min(
        (abs(v - size), c % 2, c) for v, c in candidates[max(at - 1, 0) :][:2]
    )
    if code > top:
        return sign | overflow
    return code if code == 0 and dtype.specials is Specials.FNUZ else sign | code


# Names and identity


@pytest.mark.parametrize(
    "dtype", [*NATIVE, bf16, *INTS, *SMALL_FLOATS, *WIDE_FLOATS, NF4], ids=named
)
def test_a_name_parses_back_and_copies_are_the_type_itself(dtype: DType) -> None:
    assert parse_dtype(dtype.name) is dtype
    assert pickle.loads(pickle.dumps(dtype)) is dtype
    assert copy.deepcopy(dtype) is dtype
    assert repr(dtype) == dtype.name


def test_constructors_meet_in_one_object() -> None:
    assert float_(8, 23) is f32
    assert float_(5, 10) is f16
    assert float_(8, 7) is bf16
    assert float_(11, 52, Specials.IEEE) is f64
    assert int_(8) is i8
    assert uint(64) is u64
    assert float_(2, 1) is float_(2, 1, Specials.FINITE)
    assert codebook(NF4.name, NF4.table) is NF4
    assert len({int_(5), int_(5), uint(5), int_(6)}) == 3


def test_names_say_specials_only_where_unusual() -> None:
    spellings = {
        "f4e2m1": (2, 1, Specials.FINITE),
        "f4e2m1ieee": (2, 1, Specials.IEEE),
        "f8e5m2": (5, 2, Specials.IEEE),
        "f8e4m3": (4, 3, Specials.IEEE),
        "f8e4m3fn": (4, 3, Specials.FN),
        "f8e4m3fnuz": (4, 3, Specials.FNUZ),
        "f8e4m3finite": (4, 3, Specials.FINITE),
    }
    for name, parts in spellings.items():
        assert float_(*parts).name == name
        assert parse_dtype(name) is float_(*parts)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("float32", "no element type is called 'float32'; there are bool, i1..i64"),
        ("i05", "no element type"),
        ("f8", "no element type"),
        ("f8e4m3fnu", "no element type"),
        ("i8\n", "no element type"),
        ("i65", "no integer has 65 bits: allowed are 1 to 64"),
        ("f7e4m3", "'f7e4m3' is spelled 'f8e4m3'"),
        ("f32e8m23", "is spelled 'f32'"),
        ("f4e2m1finite", "is spelled 'f4e2m1'"),
        ("f5e4m0ieee", "allowed are 1 to 11 and 1 to 52"),
    ],
)
def test_parse_says_what_is_wrong(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_dtype(name)


def test_constructors_say_what_is_allowed() -> None:
    for bits in (0, 65, -1):
        with pytest.raises(ValueError, match="allowed are 1 to 64"):
            int_(bits)
        with pytest.raises(ValueError, match="allowed are 1 to 64"):
            uint(bits)
    for e, m, specials in [(0, 3, None), (12, 3, None), (8, 53, None), (3, -1, None)]:
        with pytest.raises(ValueError, match="allowed are"):
            float_(e, m, specials)
    with pytest.raises(ValueError, match="allowed are 1 to 10"):
        float_(11, 4, Specials.FN)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("one_value", [1.0], "2 to 65536 values; one_value has 1"),
        ("twice", [1.0, 1.0 + 1e-12], "differ as float32"),
        ("zeros", [0.0, -0.0], "differ"),
        ("two_nans", [1.0, math.nan, math.nan], "differ"),
        ("too_large", [1.0, 1e300], "finite or NaN"),
        ("u4", [1.0, 2.0], "free identifier"),
        ("bf16", [1.0, 2.0], "free identifier"),
        ("f4e2m1", [1.0, 2.0], "free identifier"),
        ("two words", [1.0, 2.0], "free identifier"),
        ("nf4_test", [1.0, 2.0], "already exists"),
    ],
)
def test_codebook_refuses(name: str, values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codebook(name, values)


# Facts


@pytest.mark.parametrize("dtype", NATIVE, ids=named)
def test_native_types_are_numpys(dtype: DType) -> None:
    ours = np.dtype(NATIVE[dtype])
    assert from_numpy(ours) is dtype
    assert dtype.carrier == dtype.storage == ours
    assert dtype.itembytes == ours.itemsize
    if ours.kind == "b":
        return
    info = np.finfo(ours) if ours.kind == "f" else np.iinfo(ours)
    assert (dtype.min, dtype.max) == (info.min, info.max)
    if isinstance(info, np.finfo):
        assert dtype.eps == info.eps
        assert (dtype.exponent_bits, dtype.mantissa_bits) == (info.nexp, info.nmant)


def test_from_numpy_refuses_what_fusec_lacks() -> None:
    for dtype in ("complex64", "datetime64[s]", ">f4"):
        with pytest.raises(ValueError, match="there are bool, int8"):
            from_numpy(np.dtype(dtype))


def test_carriers_and_storage() -> None:
    assert bf16.carrier == np.float32
    assert bf16.storage == np.uint16
    assert int_(4).carrier == np.int8
    assert int_(12).carrier == np.int16
    assert uint(33).carrier == np.uint64
    assert float_(4, 3).carrier == np.float32
    assert float_(4, 3).storage == np.uint8
    assert float_(9, 6).carrier == np.float64
    assert float_(8, 4, Specials.FN).carrier == np.float64
    for packed in (int_(4), float_(2, 1), int_(24), float_(3, 2), NF4):
        with pytest.raises(ValueError, match="to_bytes and from_bytes"):
            _ = packed.storage
        with pytest.raises(ValueError, match=f"{packed.name} has no array element"):
            _ = packed.itembytes


def test_kinds_part_the_types() -> None:
    for dtype in [*NATIVE, bf16, *INTS, *SMALL_FLOATS, NF4]:
        assert dtype.is_bool == (dtype.kind is Kind.BOOL)
        assert dtype.is_int == (dtype.kind in (Kind.SIGNED, Kind.UNSIGNED))
        assert dtype.is_float == (dtype.kind is Kind.FLOAT)
    assert i8.is_signed
    assert f32.is_signed
    assert not u8.is_signed
    assert not bool_.is_signed


def test_only_floats_have_eps_and_bias() -> None:
    assert (bf16.eps, bf16.bias) == (2.0**-7, 127)
    assert float_(4, 3, Specials.FNUZ).bias == 8
    for dtype in (i8, bool_, NF4):
        with pytest.raises(TypeError, match="it is not a float"):
            _ = dtype.eps
        with pytest.raises(TypeError, match="it is not a float"):
            _ = dtype.bias


@pytest.mark.parametrize("dtype", [*INTS, *SMALL_FLOATS, *WIDE_FLOATS, NF4], ids=named)
def test_bounds_are_the_extremes_of_the_table(dtype: DType) -> None:
    values = dtype.decode(all_codes(dtype))
    finite = values[np.isfinite(values)]
    assert (dtype.min, dtype.max) == (finite.min(), finite.max())


# Decoding


@pytest.mark.parametrize("dtype", [*SMALL_FLOATS, *WIDE_FLOATS], ids=named)
def test_every_float_code_means_what_its_digits_say(dtype: DType) -> None:
    codes = all_codes(dtype)
    expected = np.array([float(spelled_out(dtype, int(c))) for c in codes])
    decoded = dtype.decode(codes)
    assert decoded.dtype == dtype.carrier
    assert same(to_float64(decoded), expected)


@pytest.mark.parametrize("dtype", INTS, ids=named)
def test_every_int_code_is_twos_complement(dtype: DType) -> None:
    codes = all_codes(dtype)
    half = 1 << (dtype.bits - 1) if dtype.kind is Kind.SIGNED else 1 << dtype.bits
    expected = [c - (1 << dtype.bits) if c >= half else c for c in codes.tolist()]
    assert dtype.decode(codes).dtype == dtype.carrier
    assert dtype.decode(codes).tolist() == expected


@pytest.mark.parametrize(
    "dtype", [*INTS, *SMALL_FLOATS, *WIDE_FLOATS, NF4, E8M0], ids=named
)
def test_encode_undoes_decode(dtype: DType) -> None:
    codes = all_codes(dtype)
    values = dtype.decode(codes)
    number = ~np.isnan(values)
    encoded = dtype.encode(values)
    assert encoded.dtype == codes.dtype
    assert np.array_equal(encoded[number], codes[number])
    assert np.all(np.isnan(dtype.decode(encoded[~number])))
    assert same(dtype.quantize(values), values)


@pytest.mark.parametrize("dtype", [int_(24), uint(33), int_(63), i64, u64], ids=named)
@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=30)
def test_wide_ints_round_trip(dtype: DType, seed: int) -> None:
    code = seed % (1 << dtype.bits)
    codes = np.array([code], dtypes.np.uint64)
    signed = dtype.kind is Kind.SIGNED and code >> (dtype.bits - 1)
    values = dtype.decode(codes)
    assert int(values[0]) == code - (1 << dtype.bits if signed else 0)
    assert int(dtype.encode(values)[0]) == code


def test_decode_refuses_what_is_not_a_code() -> None:
    with pytest.raises(ValueError, match="u3 has no code 8; the last is 7"):
        uint(3).decode(np.array([8], np.uint8))
    with pytest.raises(TypeError, match="unsigned integers, not int64"):
        uint(3).decode(np.array([1]))
    ternary = codebook("ternary_test", [-1, 0, 1])
    with pytest.raises(ValueError, match="the last is 2"):
        ternary.decode(np.array([3], np.uint8))


# Encoding


@pytest.mark.parametrize("dtype", SMALL_FLOATS, ids=named)
def test_rounding_at_and_beside_every_midpoint(dtype: DType) -> None:
    """Numbers, midpoints, and the float64 neighbours of both, the overflow's too."""
    grid = np.array([*(float(v) for v, _ in numbers(dtype)), float(beyond(dtype))])
    points = np.concatenate([grid, (grid[1:] + grid[:-1]) / 2])
    near = [points, np.nextafter(points, np.inf), np.nextafter(points, 0)]
    probes = np.concatenate([*near, *(-p for p in near)])
    expected = [nearest_by_search(dtype, v) for v in probes.tolist()]
    assert dtype.encode(probes).tolist() == expected


@given(
    dtype=st.sampled_from(SMALL_FLOATS),
    value=st.floats(allow_nan=False) | st.floats(-20, 20),
)
@settings(max_examples=400)
def test_any_float64_rounds_to_the_nearest(dtype: DType, value: float) -> None:
    assert int(dtype.encode(np.array(value))) == nearest_by_search(dtype, value)


@given(value=st.floats(allow_nan=False), e=st.integers(1, 10), m=st.integers(0, 52))
@settings(max_examples=200)
def test_quantize_is_idempotent_and_monotone(value: float, e: int, m: int) -> None:
    dtype = float_(e, m, Specials.FINITE)
    once = dtype.quantize(value)
    assert same(dtype.quantize(once), once)
    assert dtype.quantize(math.nextafter(value, -math.inf)) <= once
    assert dtype.min <= once <= dtype.max


@pytest.mark.parametrize("dtype", [*SMALL_FLOATS, *WIDE_FLOATS, f32, f64], ids=named)
def test_special_values(dtype: DType) -> None:
    inf, minus_inf, nan, zero = dtype.quantize([math.inf, -math.inf, math.nan, -0.0])
    if dtype.specials is Specials.IEEE:
        assert (inf, minus_inf) == (math.inf, -math.inf)
    elif dtype.specials is Specials.FNUZ:
        assert np.isnan([inf, minus_inf]).all()
    else:
        assert (inf, minus_inf) == (dtype.max, dtype.min)
    assert nan == 0 if dtype.specials is Specials.FINITE else np.isnan(nan)
    assert zero == 0
    assert np.signbit(zero) == (dtype.specials is not Specials.FNUZ)


@given(
    bits=st.integers(1, 64),
    value=st.floats(allow_nan=False, allow_infinity=False) | st.floats(-300, 300),
)
def test_a_float_truncates_then_wraps_into_an_int(bits: int, value: float) -> None:
    assert int(uint(bits).encode(value)) == int(value) % (1 << bits)
    wrapped = int(int_(bits).quantize(value))
    assert wrapped % (1 << bits) == int(value) % (1 << bits)
    assert int_(bits).min <= wrapped <= int_(bits).max


@given(bits=st.integers(1, 64), value=st.integers(-(2**63), 2**64 - 1))
def test_an_int_wraps_into_an_int(bits: int, value: int) -> None:
    array = np.array(value)
    assert int(uint(bits).quantize(array)) == value % (1 << bits)
    assert int(int_(bits).quantize(array)) % (1 << bits) == value % (1 << bits)


def test_not_numbers_as_ints_and_bools() -> None:
    strange = np.array([math.nan, math.inf, -math.inf])
    for dtype in (i8, i64, u64, int_(5)):
        assert dtype.quantize(strange).tolist() == [0, 0, 0]
    truths = bool_.quantize([0.0, -0.0, 0.5, math.nan]).tolist()
    assert truths == [False, False, True, True]
    for wrong in (np.array([1j]), ["one"], np.array([None])):
        with pytest.raises(TypeError, match="expected bools, integers or floats"):
            f32.encode(wrong)


def test_codebook_takes_the_nearest_and_the_lower_of_two() -> None:
    steps = codebook("steps_test", [4.0, -1.0, 1.0, 2.0])
    probes = [-9, -1, 0, 0.1, 1.5, 1.6, 3.0, 3.1, math.inf, -math.inf, math.nan]
    expected = [-1, -1, -1, 1, 1, 2, 2, 4, 4, -1, -1]
    assert steps.quantize(probes).tolist() == expected
    assert np.isnan(E8M0.quantize([math.nan, 1.0])).tolist() == [True, False]


@pytest.mark.parametrize(
    "dtype", [*NATIVE, bf16, int_(5), float_(2, 1), NF4], ids=named
)
def test_quantize_is_decode_of_encode_from_every_source(dtype: DType) -> None:
    for source in NATIVE.values():
        values = np.array([0, 1, 2, 3, 100, 127]).astype(source)
        if values.dtype.kind == "f":
            values = np.append(values, np.array([-0.0, np.inf, np.nan], source))
        expected = dtype.decode(dtype.encode(values))
        assert dtype.quantize(values).dtype == dtype.carrier
        assert same(dtype.quantize(values), expected)


def test_shapes_are_kept() -> None:
    for dtype in [*NATIVE, bf16, int_(5), float_(4, 3), NF4]:
        for shape in [(), (0,), (2, 3), (4, 1, 2)]:
            values = np.ones(shape, np.float32)
            codes = dtype.encode(values)
            assert isinstance(codes, np.ndarray)
            assert codes.shape == shape
            assert dtype.decode(codes).shape == shape
            assert dtype.quantize(values).shape == shape
        strided = np.arange(12.0).reshape(3, 4).T[::2]
        expected = dtype.quantize(strided.copy())
        assert np.array_equal(dtype.quantize(strided), expected)


# Packing


@given(bits=st.integers(1, 64), values=st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_bytes_hold_elements_at_their_bit_offsets(bits: int, values: list[int]) -> None:
    dtype = uint(bits)
    codes = [v % (1 << bits) for v in values]
    raw = dtype.to_bytes(np.array(codes, np.uint64))
    image = sum(code << (i * bits) for i, code in enumerate(codes))
    assert raw.tobytes() == image.to_bytes((len(codes) * bits + 7) // 8, "little")
    assert dtype.from_bytes(raw, [len(codes)]).tolist() == codes


@pytest.mark.parametrize(
    "dtype", [*INTS, *SMALL_FLOATS, *WIDE_FLOATS, NF4, bool_, f32, f64], ids=named
)
def test_bytes_round_trip(dtype: DType) -> None:
    values = dtype.quantize(np.linspace(-40, 40, 21).reshape(3, 7))
    raw = dtype.to_bytes(values)
    assert len(raw) == math.ceil(21 * dtype.bits / 8)
    assert same(dtype.from_bytes(raw, (3, 7)), values)


@pytest.mark.parametrize("dtype", NATIVE, ids=named)
def test_bytes_of_native_types_are_numpys(dtype: DType) -> None:
    values = np.array([0, 1, 1, 0]).astype(NATIVE[dtype])
    assert dtype.to_bytes(values).tobytes() == values.tobytes()


@pytest.mark.parametrize("dtype", [*NATIVE, bf16, int_(5)], ids=named)
def test_codes_and_bytes_are_copies(dtype: DType) -> None:
    values = np.ones(4, dtype.carrier)
    codes, raw = dtype.encode(values), dtype.to_bytes(values)
    decoded, read = dtype.decode(codes), dtype.from_bytes(raw, (4,))
    values[:], codes[:], raw[:] = 0, 0, 0
    assert decoded.tolist() == read.tolist() == [1] * 4
    assert not any(np.shares_memory(values, other) for other in (codes, raw))


def test_from_bytes_checks_the_size() -> None:
    with pytest.raises(ValueError, match=r"3 elements of i5 take uint8\[2\]"):
        int_(5).from_bytes(np.zeros(3, np.uint8), (3,))


# Outside oracles

ML_DTYPES = {
    "float4_e2m1fn": float_(2, 1),
    "float6_e2m3fn": float_(2, 3),
    "float6_e3m2fn": float_(3, 2),
    "float8_e3m4": float_(3, 4),
    "float8_e4m3": float_(4, 3),
    "float8_e4m3fn": float_(4, 3, Specials.FN),
    "float8_e4m3fnuz": float_(4, 3, Specials.FNUZ),
    "float8_e5m2": float_(5, 2),
    "float8_e5m2fnuz": float_(5, 2, Specials.FNUZ),
    "float8_e8m0fnu": E8M0,
    "bfloat16": bf16,
    "int2": int_(2),
    "int4": int_(4),
    "uint2": uint(2),
    "uint4": uint(4),
}


@pytest.mark.parametrize("name", ML_DTYPES)
def test_decode_agrees_with_ml_dtypes(name: str) -> None:
    theirs = np.dtype(getattr(pytest.importorskip("ml_dtypes"), name))
    dtype = ML_DTYPES[name]
    codes = all_codes(dtype)
    expected = codes.view(theirs).astype(np.float32)
    assert same(dtype.decode(codes).astype(np.float32), expected)


@pytest.mark.parametrize(
    "name", [n for n in ML_DTYPES if "float" in n and "m0" not in n]
)
def test_encode_agrees_with_ml_dtypes(name: str) -> None:
    theirs = np.dtype(getattr(pytest.importorskip("ml_dtypes"), name))
    dtype = ML_DTYPES[name]
    random = np.random.default_rng(0)
    values = random.normal(size=20000) * np.exp2(random.uniform(-20, 10, 20000))
    values = values[np.abs(values) <= dtype.max].astype(np.float32)
    expected = values.astype(theirs).view(dtype.storage if dtype.bits > 7 else np.uint8)
    assert np.array_equal(dtype.encode(values), expected)


def every_bf16_boundary() -> np.ndarray:
    """Each bf16 number, each midpoint, and the float32 on either side of both."""
    high = np.arange(1 << 16, dtype=np.uint32) << 16
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return (high[:, None] | low).view(np.float32)


def test_bf16_by_bits_is_bf16_by_arithmetic_and_torchs() -> None:
    values = every_bf16_boundary()
    quick = bf16.quantize(values)
    assert same(quick, bf16.quantize(to_float64(values)))
    torch = pytest.importorskip("torch")
    theirs = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    nan = np.isnan(values)
    assert same(quick[~nan], theirs[~nan])
    assert np.isnan(quick[nan]).all()


def test_bf16_rounds_float64_once() -> None:
    tie = 1 + 2.0**-8
    assert bf16.quantize(tie) == 1.0
    assert bf16.quantize(tie + 2.0**-40) == 1 + 2.0**-7
    assert bf16.quantize(np.int64(2**40 + 2**32 + 1)) == 2.0**40 + 2.0**33
    assert f16.quantize(np.int32(2049 * 16 + 1)) == 2050 * 16


def test_native_floats_agree_with_the_general_codec() -> None:
    values = every_bf16_boundary().ravel()[::7]
    values = np.concatenate([values[~np.isnan(values)], TRICKY])
    for dtype in (f16, f32, f64):
        with np.errstate(all="ignore"):  # as the public methods do
            codes = dtypes._encode_float(dtype, values)
            decoded = dtypes._decode_float(dtype, codes)
        assert np.array_equal(codes, dtype.encode(values))
        assert same(decoded, dtype.quantize(values))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("float8_e4m3fn", float_(4, 3, Specials.FN)),
        ("float8_e5m2", float_(5, 2)),
        ("float8_e4m3fnuz", float_(4, 3, Specials.FNUZ)),
        ("float8_e5m2fnuz", float_(5, 2, Specials.FNUZ)),
    ],
)
def test_float8_casts_are_torchs(name: str, dtype: DType) -> None:
    torch = pytest.importorskip("torch")
    values = every_bf16_boundary().ravel()
    values = values[~np.isnan(values)]
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13):
        values = values[np.abs(values) <= dtype.max]  # it did not saturate yet
    theirs = torch.from_numpy(values).to(getattr(torch, name)).view(torch.uint8)
    ours, theirs = dtype.encode(values), theirs.numpy()
    assert same(dtype.decode(ours), dtype.decode(theirs))


# Promotion

TORCH = {
    "bool": bool_, "int8": i8, "int16": i16, "int32": i32, "int64": i64,
    "uint8": u8, "uint16": u16, "uint32": u32, "uint64": u64,
    "float16": f16, "bfloat16": bf16, "float32": f32, "float64": f64,
    "float8_e4m3fn": float_(4, 3, Specials.FN), "float8_e5m2": float_(5, 2),
}  # fmt: skip


def promotion(of: object) -> DType | None:
    try:
        return of()  # type: ignore[operator]
    except (TypeError, RuntimeError):
        return None


@pytest.mark.parametrize("a", TORCH)
def test_promotion_is_torchs(a: str) -> None:
    torch = pytest.importorskip("torch")

    def theirs(b: str) -> DType:
        result = torch.promote_types(getattr(torch, a), getattr(torch, b))
        return TORCH[str(result).removeprefix("torch.")]

    for b in TORCH:
        ours = promotion(lambda b=b: promote(TORCH[a], TORCH[b]))
        assert ours is promotion(lambda b=b: theirs(b)), b


def test_promotion_of_what_torch_lacks() -> None:
    assert promote(int_(5), f16) is f16
    assert promote(bf16, uint(3)) is bf16
    assert promote(NF4, NF4) is NF4
    for a, b in [(int_(5), i8), (bool_, uint(3)), (NF4, f32), (float_(2, 1), i8)]:
        with pytest.raises(TypeError, match="no common type; cast one"):
            promote(a, b)


def test_the_worked_example_holds() -> None:
    result = doctest.testmod(dtypes)
    assert result.attempted > 3
    assert result.failed == 0
