"""Element types: what the bits of one element mean, for any number of bits.

A type maps *codes* (unsigned integers below `2**bits`) to values, and back:

    >>> import numpy as np
    >>> fp4 = float_(2, 1)          # sign, 2 bits of exponent, 1 of mantissa, bias 1
    >>> fp4.decode(np.array([0b0101, 0b1001], np.uint8))    # 1.5 * 2**(2-1), -0.5
    array([ 3. , -0.5], dtype=float32)
    >>> fp4.encode([3.0, 3.5, 100.0])       # 3.5 ties to the even code; 100 saturates
    array([5, 6, 7], dtype=uint8)
    >>> fp4.to_bytes([3.0, 3.5, 100.0])     # four bits each, the first one lowest
    array([101,   7], dtype=uint8)

numpy has no fp4, so the reference interpreter holds its values in a wider *carrier*
(here float32) and calls `quantize` after each op.

Rounding is to the nearest value, ties to the even code, and happens once from
float64. What does not fit follows torch:

    integers       wrap (two's complement); a float truncates first, NaN and inf give 0
    IEEE floats    overflow to inf
    FN floats      saturate, inf included (torch >= 2.12; earlier releases gave NaN)
    FNUZ floats    overflow to NaN; -0.0 becomes 0.0
    FINITE floats  saturate, inf included; NaN becomes 0
    codebooks      the nearest entry; NaN becomes the entry nearest 0 if there is no NaN

A name says everything, and `parse_dtype` reads it back: `bool`, `i5`, `u3`, `f32`,
`bf16`, or `f<bits>e<exponent>m<mantissa>` and its special values, such as
`f8e4m3fn`. Special values go unsaid where they are the usual ones for the width:
FINITE below 8 bits (`f4e2m1`), IEEE from 8 bits up (`f8e5m2`).

Types are interned: one object for each type, compared by identity.
"""

# pyright: reportUnknownMemberType=false
# (numpy's stubs make Self unknown on an array of Any, so any .view or .reshape is.)

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


class Kind(Enum):
    """What sort of value a code stands for."""

    BOOL = "bool"
    SIGNED = "signed"
    UNSIGNED = "unsigned"
    FLOAT = "float"
    CODEBOOK = "codebook"


class Specials(Enum):
    """Which codes of a float are not ordinary numbers. The value is the suffix."""

    IEEE = "ieee"
    """The largest exponent means inf (mantissa 0) or NaN."""
    FN = "fn"
    """No inf; NaN only where exponent and mantissa are all ones."""
    FNUZ = "fnuz"
    """No inf, no -0.0; its code is the only NaN. The bias is one larger."""
    FINITE = "finite"
    """Every code is a number."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DType:
    """An element type. Made by this module's constructors only, which intern it."""

    name: str
    """The spelling in the IR."""
    kind: Kind
    bits: int
    """Width in memory. A bool takes a byte there, as in torch; `u1` takes a bit."""
    exponent_bits: int = 0
    """Width of a float's exponent; 0 for other kinds."""
    mantissa_bits: int = 0
    """Width of a float's mantissa, hidden bit apart; 0 for other kinds."""
    specials: Specials | None = None
    """A float's special values; None for other kinds."""
    table: tuple[float, ...] = ()
    """A codebook's values in the order of their codes; empty for other kinds."""

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Callable[..., DType], tuple[Any, ...]]:
        """Copy and unpickle to the interned object."""
        if self.kind is Kind.CODEBOOK:
            return codebook, (self.name, self.table)
        return parse_dtype, (self.name,)

    @property
    def is_bool(self) -> bool:
        return self.kind is Kind.BOOL

    @property
    def is_int(self) -> bool:
        """Whether this is a signed or unsigned integer; bool is neither."""
        return self.kind in (Kind.SIGNED, Kind.UNSIGNED)

    @property
    def is_float(self) -> bool:
        """Whether values have exponent and mantissa. A codebook's do not."""
        return self.kind is Kind.FLOAT

    @property
    def is_signed(self) -> bool:
        """Whether some value is below zero."""
        return self.min < 0

    @property
    def itembytes(self) -> int:
        """Bytes of one element in a torch or numpy array; ValueError if none."""
        return self.storage.itemsize

    @property
    def carrier(self) -> np.dtype[Any]:
        """The numpy dtype that holds every value of this type exactly."""
        if self.is_bool:
            return np.dtype(np.bool_)
        if self.is_int:
            sign = "i" if self.kind is Kind.SIGNED else "u"
            return np.dtype(f"{sign}{_word_bytes(self.bits)}")
        if self.kind is Kind.CODEBOOK:
            return np.dtype(np.float32)
        return np.dtype(np.float16) if self is f16 else _float_carrier(self)

    @property
    def storage(self) -> np.dtype[Any]:
        """The numpy dtype of one element in memory: its code, or the native type.

        Raises ValueError for a width that only exists packed.
        """
        if self.bits not in (8, 16, 32, 64):
            raise ValueError(
                f"{self.name} has no array element of {self.bits} bits: elements are "
                "packed across bytes; use to_bytes and from_bytes"
            )
        return self.carrier if self in _NATIVE else _code_dtype(self)

    @property
    def min(self) -> bool | int | float:
        """The least finite value."""
        if self.is_float:
            return -self.max
        if self.kind is Kind.CODEBOOK:
            return min(v for v in self.table if not math.isnan(v))
        if self.is_bool:
            return False
        return -(1 << self.bits - 1) if self.kind is Kind.SIGNED else 0

    @property
    def max(self) -> bool | int | float:
        """The largest finite value."""
        if self.is_float:
            top = np.array([_codes(self).top], _code_dtype(self))
            return float(self.decode(top)[0])
        if self.kind is Kind.CODEBOOK:
            return max(v for v in self.table if not math.isnan(v))
        if self.is_bool:
            return True
        return (1 << self.bits - (self.kind is Kind.SIGNED)) - 1

    @property
    def eps(self) -> float:
        """The distance from 1.0 to the next float; TypeError for other kinds."""
        self._require_float("eps")
        return 2.0**-self.mantissa_bits

    @property
    def bias(self) -> int:
        """What to subtract from a float's exponent field; TypeError otherwise."""
        self._require_float("bias")
        half = 1 << self.exponent_bits - 1
        return half if self.specials is Specials.FNUZ else half - 1

    def _require_float(self, what: str) -> None:
        if not self.is_float:
            raise TypeError(f"{self.name} has no {what}: it is not a float")

    def decode(self, codes: Array) -> Array:
        """The values of `codes`, same shape, in the carrier.

        `codes` are unsigned integers. Raises TypeError for any other dtype and
        ValueError for a code that this type does not have.
        """
        _check_codes(self, codes)
        with np.errstate(all="ignore"):
            return _decode(self, np.atleast_1d(codes)).reshape(codes.shape)

    def encode(self, values: ArrayLike) -> Array:
        """The codes of `values`, rounded as the module says, in the least uint type.

        An integer beyond 2**53 is rounded to float64 first on its way into a float
        that is not native to numpy.
        """
        array = _numeric(values)
        with np.errstate(all="ignore"):
            return _encode(self, np.atleast_1d(array)).reshape(array.shape)

    def quantize(self, values: ArrayLike) -> Array:
        """The nearest value of this type to each of `values`, in the carrier.

        Equals `decode(encode(values))`, in one cast where numpy has the type. The
        result may be `values` itself.
        """
        array = _numeric(values)
        with np.errstate(all="ignore"):
            return _quantize(self, np.atleast_1d(array)).reshape(array.shape)

    def to_bytes(self, values: ArrayLike) -> NDArray[np.uint8]:
        """The memory image of `values` in C order, little-endian, densely packed.

        Element i is bits `[i * bits, (i + 1) * bits)`, where bit k is bit `k % 8` of
        byte `k // 8`. The last byte is filled up with zeros.
        """
        word = _little_endian(self)
        raw = np.ravel(self.encode(values)).astype(word, copy=False).view(np.uint8)
        if self.bits == 8 * word.itemsize:
            return raw
        words = np.reshape(raw, (-1, word.itemsize))
        lanes = np.unpackbits(words, axis=1, count=self.bits, bitorder="little")
        return np.packbits(lanes, bitorder="little")

    def from_bytes(self, raw: NDArray[np.uint8], shape: Sequence[int]) -> Array:
        """The values, in the carrier, of a memory image that `to_bytes` laid out.

        Raises ValueError unless `raw` has just the bytes that `shape` needs.
        """
        count = math.prod(shape)
        need = (count * self.bits + 7) // 8
        if raw.dtype != np.uint8 or raw.shape != (need,):
            raise ValueError(
                f"{count} elements of {self.name} take uint8[{need}], "
                f"not {raw.dtype}{list(raw.shape)}"
            )
        word = _little_endian(self)
        words = np.ascontiguousarray(raw)
        if self.bits < 8 * word.itemsize:
            words = _unpack(raw, count, self.bits, word.itemsize)
        codes: Array = words.view(word)
        return self.decode(np.reshape(codes, tuple(shape)))


def int_(bits: int) -> DType:
    """The two's-complement integer of `bits` bits, 1 to 64."""
    return _integer("i", Kind.SIGNED, bits)


def uint(bits: int) -> DType:
    """The unsigned integer of `bits` bits, 1 to 64."""
    return _integer("u", Kind.UNSIGNED, bits)


def float_(exponent: int, mantissa: int, specials: Specials | None = None) -> DType:
    """The float with a sign bit and so many bits of exponent and mantissa.

    `specials` defaults to FINITE below 8 bits in all, else to IEEE. Raises
    ValueError for a format with values beyond float64, and for IEEE without a
    mantissa, where inf and NaN would be one code.
    """
    bits = 1 + exponent + mantissa
    usual = Specials.FINITE if bits < 8 else Specials.IEEE
    specials = usual if specials is None else specials
    widest, least = (11, 1) if specials is Specials.IEEE else (10, 0)
    if not (1 <= exponent <= widest and least <= mantissa <= 52):
        raise ValueError(
            f"no {specials.name} float has {exponent} exponent and {mantissa} mantissa "
            f"bits: allowed are 1 to {widest} and {least} to 52"
        )
    name = f"f{bits}e{exponent}m{mantissa}"
    name += "" if specials is usual else specials.value
    name = _SHORT_NAMES.get(name, name)
    return _intern(DType(name, Kind.FLOAT, bits, exponent, mantissa, specials))


def codebook(name: str, values: Iterable[float]) -> DType:
    """The type whose code `i` stands for `values[i]`, such as nf4.

    Values are held as float32 and must differ; all are finite but for at most one
    NaN. A tie encodes as the lower value. Raises ValueError for a table or a name
    that will not do; the same name always means the same table.
    """
    with np.errstate(over="ignore"):
        table = tuple(float(np.float32(v)) for v in values)
    keys = {"nan" if math.isnan(v) else v for v in table}
    if not 2 <= len(table) <= 1 << 16:
        raise ValueError(f"a codebook has 2 to 65536 values; {name} has {len(table)}")
    if len(keys) != len(table) or keys & {math.inf, -math.inf}:
        raise ValueError(f"{name}: values must differ as float32 and be finite or NaN")
    if not name.isidentifier() or _NAME.fullmatch(name) or name in _BUILTIN:
        raise ValueError(f"{name!r} cannot name a codebook: use a free identifier")
    bits = (len(table) - 1).bit_length()
    made = _intern(DType(name, Kind.CODEBOOK, bits, table=table))
    if not np.array_equal(made.table, table, equal_nan=True):
        raise ValueError(f"codebook {name} already exists with other values")
    return made


def parse_dtype(name: str) -> DType:
    """The type that is spelled `name`; ValueError if there is none.

    Codebooks must have been made before.
    """
    if known := _INTERNED.get(name):
        return known
    match = _NAME.fullmatch(name)
    if not match:
        raise ValueError(f"no element type is called {name!r}; there are {_SPELLINGS}")
    sign, width, exponent, mantissa, suffix = match.groups()
    if sign:
        return int_(int(width)) if sign == "i" else uint(int(width))
    made = float_(int(exponent), int(mantissa), Specials(suffix) if suffix else None)
    if made.name != name:
        raise ValueError(f"{name!r} is spelled {made.name!r}")
    return made


def from_numpy(dtype: np.dtype[Any]) -> DType:
    """The type of a numpy array's elements; ValueError if fusec has none."""
    for native, ours in _NUMPY.items():
        if native == dtype:
            return ours
    known = ", ".join(str(native) for native in _NUMPY)
    raise ValueError(f"no element type for numpy's {dtype}; there are {known}")


def promote(a: DType, b: DType) -> DType:
    """The type in which torch computes on tensors of `a` and `b`, equal in rank.

    bool < integers < floats; within a category the wider one, u8 and i8 give i16,
    f16 and bf16 give f32. Raises TypeError where torch refuses, and for what torch
    does not have: u16, u32, u64 and the integers of other widths mix with floats
    only, and floats other than f16, bf16, f32, f64 with nothing, nor do codebooks.
    """
    if a is b:
        return a
    pair = {a, b}
    if pair == {u8, i8}:
        return i16
    if pair == {f16, bf16}:
        return f32
    for ladder in (_MIXING_INTS, _MIXING_FLOATS):
        if pair <= set(ladder):
            return max(a, b, key=ladder.index)
    for number, other in ((a, b), (b, a)):
        if number in _MIXING_FLOATS and (other.is_int or other.is_bool):
            return number
    raise TypeError(f"{a.name} and {b.name} have no common type; cast one of them")


def _decode(dtype: DType, codes: Array) -> Array:
    if dtype.is_bool:
        return codes != 0
    if dtype.is_int:
        return _decode_int(dtype, codes)
    if dtype.kind is Kind.CODEBOOK:
        return np.array(dtype.table, dtype.carrier)[codes]
    if dtype in _NATIVE:
        return codes.astype(_code_dtype(dtype)).view(dtype.carrier)
    if dtype is bf16:
        return (codes.astype(np.uint32) << 16).view(np.float32)
    return _decode_float(dtype, codes)


def _encode(dtype: DType, array: Array) -> Array:
    if dtype.is_bool:
        return (array != 0).astype(np.uint8)
    if dtype.is_int:
        return _encode_int(dtype, array)
    if dtype.kind is Kind.CODEBOOK:
        return _encode_codebook(dtype, array)
    if dtype in _NATIVE:
        return _cast_float(dtype, array, copy=True).view(_code_dtype(dtype))
    if dtype is bf16 and _fits_float32(array):
        return (_round_to_bf16(array) >> 16).astype(np.uint16)
    return _encode_float(dtype, array)


def _quantize(dtype: DType, array: Array) -> Array:
    if dtype in _NATIVE and dtype.is_float:
        return _cast_float(dtype, array, copy=False)
    if dtype in _NATIVE and array.dtype.kind in "biu":
        return array.astype(dtype.carrier, copy=False)
    if dtype is bf16 and _fits_float32(array):
        return _round_to_bf16(array).view(np.float32)
    return _decode(dtype, _encode(dtype, array))


class _Codes(NamedTuple):
    """Where a float's special codes are, the sign bit apart unless it is FNUZ."""

    top: int
    """The largest finite magnitude."""
    overflow: int
    """What a larger magnitude becomes."""
    nan: int
    """What NaN becomes."""


def _codes(dtype: DType) -> _Codes:
    ones = (1 << dtype.bits - 1) - 1
    if dtype.specials is Specials.FINITE:
        return _Codes(ones, ones, 0)
    if dtype.specials is Specials.FNUZ:
        return _Codes(ones, ones + 1, ones + 1)
    if dtype.specials is Specials.FN:
        return _Codes(ones - 1, ones - 1, ones)
    inf = ones >> dtype.mantissa_bits << dtype.mantissa_bits
    return _Codes(inf - 1, inf, inf | 1 << dtype.mantissa_bits - 1)


def _decode_int(dtype: DType, codes: Array) -> Array:
    """Sign-extend by shifting the sign bit to the top of the carrier and back."""
    carrier = dtype.carrier
    spare = 8 * carrier.itemsize - dtype.bits
    return (codes.astype(_code_dtype(dtype)) << spare).view(carrier) >> spare


def _encode_int(dtype: DType, array: Array) -> Array:
    """Exact modulo 2**bits, for floats far outside of int64 too."""
    if array.dtype.kind == "f":
        finite = np.where(np.isfinite(array), array, 0).astype(np.float64)
        whole = np.fmod(np.trunc(finite), 2.0**64)
        size = np.abs(whole).astype(np.uint64)
        array = np.where(whole < 0, ~size + np.uint64(1), size)
    return (array.astype(np.uint64) & _mask(dtype)).astype(_code_dtype(dtype))


def _decode_float(dtype: DType, codes: Array) -> Array:
    """`1.mantissa * 2**(field - bias)`, or `0.mantissa * 2**(1 - bias)` for field 0."""
    signless = np.uint64((1 << dtype.bits - 1) - 1)
    magnitude = (codes.astype(np.uint64) & signless).astype(np.int64)
    field = magnitude >> dtype.mantissa_bits
    hidden = (field > 0).astype(np.int64)
    significand = magnitude - ((field - hidden) << dtype.mantissa_bits)
    exponent = np.maximum(field, 1) - dtype.bias - dtype.mantissa_bits
    value = np.ldexp(significand.astype(np.float64), exponent)
    value = np.where(codes == magnitude, value, -value)
    return _with_specials(dtype, codes, magnitude, value).astype(dtype.carrier)


def _with_specials(dtype: DType, codes: Array, magnitude: Array, value: Array) -> Array:
    """`value` with inf and NaN where the code stands for them."""
    top, overflow, nan = _codes(dtype)
    if dtype.specials is Specials.FNUZ:
        return np.where(codes == nan, np.nan, value)
    special = np.full_like(value, np.nan)
    if dtype.specials is Specials.IEEE:
        special = np.where(magnitude == overflow, np.copysign(np.inf, value), special)
    return np.where(magnitude > top, special, value)


def _encode_float(dtype: DType, array: Array) -> Array:
    """Sign and magnitude apart, then what the special-value convention says."""
    values = array.astype(np.float64)
    top, overflow, nan = _codes(dtype)
    magnitude = _round_magnitude(dtype, np.abs(values))
    fits = np.isfinite(values) & (magnitude <= top)
    magnitude = np.where(fits, magnitude, overflow)
    magnitude = np.where(np.isnan(values), nan, magnitude)
    sign = np.signbit(values)
    if dtype.specials is Specials.FNUZ:
        sign = sign & (magnitude != 0)
    signs = sign.astype(np.uint64) << np.uint64(dtype.bits - 1)
    return (magnitude.astype(np.uint64) | signs).astype(_code_dtype(dtype))


def _round_magnitude(dtype: DType, size: Array) -> Array:
    """The int64 code of the number nearest to each `size`, as if there were no top.

    Codes of magnitudes are ordered as their values, and the code after the largest
    mantissa of one exponent is the next exponent's least. So the significand, in
    units of the last place, is added to the exponent's code and may carry into it.
    """
    size = np.where(np.isfinite(size), size, 0)
    least = 1 - dtype.bias
    exponent = np.where(size > 0, np.frexp(size)[1] - 1, least).astype(np.int64)
    exponent = np.maximum(exponent, least)
    significand = np.ldexp(size, dtype.mantissa_bits - exponent)
    whole = np.floor(significand)
    code = ((exponent - least) << dtype.mantissa_bits) + whole.astype(np.int64)
    rest = significand - whole
    return code + ((rest > 0.5) | ((rest == 0.5) & (code % 2 == 1)))


def _encode_codebook(dtype: DType, array: Array) -> Array:
    """Search among the midpoints of the sorted table."""
    values = array.astype(np.float64)
    table = np.array(dtype.table)
    order = np.argsort(table)  # NaN last
    numbers = order[: np.count_nonzero(~np.isnan(table))]
    middles = (table[numbers][1:] + table[numbers][:-1]) / 2
    codes = numbers[np.searchsorted(middles, np.where(np.isnan(values), 0, values))]
    if len(numbers) < len(table):
        codes = np.where(np.isnan(values), order[-1], codes)
    return codes.astype(_code_dtype(dtype))


def _cast_float(dtype: DType, array: Array, copy: bool) -> Array:
    """numpy's cast to f16, f32 or f64, rounded once.

    An integer goes to float16 by way of float32, which has every integer that
    float16 does not overflow on.
    """
    return array.astype(dtype.carrier, copy=copy)


def _fits_float32(array: Array) -> bool:
    return np.can_cast(array.dtype, np.float32, "safe")


def _round_to_bf16(array: Array) -> Array:
    """The float32 bits, as uint32, of `array` rounded to the upper half-words.

    Adding 0x7fff, or 0x8000 to an odd half-word, carries just when the nearest (or
    even) one is above;
    the carry out of the largest mantissa gives the next exponent, or inf. NaN keeps
    its sign and becomes quiet.
    """
    words = array.astype(np.float32, copy=False).view(np.uint32)
    odd = (words >> np.uint32(16)) & np.uint32(1)
    rounded = words + (odd + np.uint32(0x7FFF))
    nan = (words & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    rounded = np.where(nan, words | np.uint32(0x00400000), rounded)
    return rounded & np.uint32(0xFFFF0000)


def _unpack(
    raw: NDArray[np.uint8], count: int, bits: int, size: int
) -> NDArray[np.uint8]:
    """The packed elements of `raw`, each at the start of `size` bytes of its own."""
    lanes = np.unpackbits(raw, count=count * bits, bitorder="little")
    lanes = np.reshape(lanes, (count, bits))
    held = np.packbits(lanes, axis=1, bitorder="little")
    words = np.zeros((count, size), np.uint8)
    words[:, : held.shape[1]] = held
    return words


@cache
def _float_carrier(dtype: DType) -> np.dtype[Any]:
    """float32 if it has every value, subnormals included; else float64."""
    largest = (_codes(dtype).top >> dtype.mantissa_bits) - dtype.bias
    smallest = 1 - dtype.bias - dtype.mantissa_bits
    narrow = largest <= 127 and smallest >= -149 and dtype.mantissa_bits <= 23
    return np.dtype(np.float32 if narrow else np.float64)


def _numeric(values: ArrayLike) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"expected bools, integers or floats, not {array.dtype}")
    return array


def _check_codes(dtype: DType, codes: Array) -> None:
    if codes.dtype.kind != "u":
        raise TypeError(f"codes are unsigned integers, not {codes.dtype}")
    last = len(dtype.table) - 1 if dtype.table else int(_mask(dtype))
    if codes.size and int(codes.max()) > last:
        raise ValueError(f"{dtype.name} has no code {codes.max()}; the last is {last}")


def _mask(dtype: DType) -> np.uint64:
    return np.uint64((1 << dtype.bits) - 1)


def _code_dtype(dtype: DType) -> np.dtype[Any]:
    return np.dtype(f"u{_word_bytes(dtype.bits)}")


def _little_endian(dtype: DType) -> np.dtype[Any]:
    """The code dtype as it lies in memory images, whatever the host's order."""
    return np.dtype(f"<u{_word_bytes(dtype.bits)}")


@cache
def _word_bytes(bits: int) -> int:
    """Bytes of the least machine word that has `bits` bits."""
    return next(size for size in (1, 2, 4, 8) if 8 * size >= bits)


def _integer(sign: str, kind: Kind, bits: int) -> DType:
    if not 1 <= bits <= 64:
        raise ValueError(f"no integer has {bits} bits: allowed are 1 to 64")
    return _intern(DType(f"{sign}{bits}", kind, bits))


def _intern(dtype: DType) -> DType:
    """The first type of that name; `setdefault` keeps it one object across threads."""
    return _INTERNED.setdefault(dtype.name, dtype)


_INTERNED: dict[str, DType] = {}
_SHORT_NAMES = {
    "f16e5m10": "f16",
    "f16e8m7": "bf16",
    "f32e8m23": "f32",
    "f64e11m52": "f64",
}
_NAME = re.compile(
    "([iu])([1-9][0-9]?)|f[0-9]+e([0-9]{1,2})m([0-9]{1,2})(fn|fnuz|ieee|finite)?"
)
_SPELLINGS = (
    "bool, i1..i64, u1..u64, f16, bf16, f32, f64, f<bits>e<exponent>m<mantissa> "
    "with fn, fnuz, ieee, finite or nothing after it, and codebooks made before"
)

bool_ = _intern(DType("bool", Kind.BOOL, 8))
i8, i16, i32, i64 = int_(8), int_(16), int_(32), int_(64)
u8, u16, u32, u64 = uint(8), uint(16), uint(32), uint(64)
f16, bf16, f32, f64 = float_(5, 10), float_(8, 7), float_(8, 23), float_(11, 52)

_BUILTIN = frozenset(_INTERNED)
_NUMPY = {
    np.dtype(native): parse_dtype(name)
    for name, native in {
        "bool": "?", "i8": "i1", "i16": "i2", "i32": "i4", "i64": "i8",
        "u8": "u1", "u16": "u2", "u32": "u4", "u64": "u8",
        "f16": "f2", "f32": "f4", "f64": "f8",
    }.items()
}  # fmt: skip
_NATIVE = frozenset(_NUMPY.values())
_MIXING_INTS = (bool_, u8, i8, i16, i32, i64)
_MIXING_FLOATS = (f16, bf16, f32, f64)
