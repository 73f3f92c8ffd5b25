"""Arguments for a function that was read from a file: from an .npz, or at random.

    save_npz("in.npz", {"x": x})
    matched(function, load_npz("in.npz"))          # by name
    random_arguments(function, seed=0)             # the same on every machine

Arguments are what `interpret` takes: arrays in the carriers of their dtypes, numbers
for scalars, None for tokens.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from fusec.errors import UserError
from fusec.ir.core import Function, Level, Value
from fusec.ir.dims import Dim, Symbol, evaluate, symbols
from fusec.ir.dtypes import Array, DType
from fusec.ir.printer import format_type
from fusec.ir.types import Buffer, Opaque, Scalar, Tensor, Token
from fusec.logs import counted

MOST_ELEMENTS = 1 << 32
"""Of an array that is drawn at random; numpy counts empty dimensions, too."""
USUAL_SIZE = 8
"""What a symbol is worth where nothing else is said: small, and not 1."""


def load_npz(path: str) -> dict[str, Array]:
    """The arrays of a file that `numpy.savez` wrote. Nothing in it is unpickled.

    Raises `UserError` for a file that cannot be read as one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"cannot read arrays from {path}: {error}",
            fix="write it with numpy.savez(path, name=array, …), without objects",
        ) from None


def save_npz(path: str, arrays: Mapping[str, Any]) -> None:
    """Write arrays and numbers under their names. Raises `UserError` if it cannot."""
    try:
        np.savez(path, allow_pickle=False, **arrays)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def matched(function: Function, arrays: Mapping[str, Array]) -> list[Any]:
    """The argument of each parameter: the array of its name (see `chosen_arrays`).

    A scalar that is the value of a symbol follows from the shapes of the arrays.
    Raises `UserError` where an array is missing, or not of the dtype or shape.
    """
    names = names_of(function)
    what = f"@{function.name} takes {counted(len(names), 'array')}"
    chosen = chosen_arrays(list(names.values()), arrays, what)
    found = {param: arrays[name] for param, name in zip(names, chosen, strict=True)}
    values = _seen(found)
    fitting = {
        param: _fitting(param, arrays[name], name, values)
        for param, name in zip(names, chosen, strict=True)
    }
    return [
        fitting[param] if param in fitting else values.get(param.hint)
        for param in function.params
    ]


def chosen_arrays(
    names: Sequence[str], arrays: Mapping[str, Array], what: str
) -> list[str]:
    """Which arrays of a file stand for `names`: those of the same names.

    Where the file was written without names, so that numpy called them `arr_0` and so
    on, its arrays stand in their order. Raises `UserError`, which begins with `what`
    takes them.
    """
    if set(names) <= set(arrays):
        return list(names)
    unnamed = all(re.fullmatch(r"arr_\d+", name) for name in arrays)
    if unnamed and len(arrays) == len(names):
        return list(arrays)
    has = f"the file has {len(arrays)} ({', '.join(arrays)})"
    raise UserError(
        f"{what} ({', '.join(names)}); {has}",
        fix="write one array for each under those names, numpy.savez(path, name=array,"
        " …), or all without names in that order, numpy.savez(path, array, …)",
    )


def names_of(function: Function) -> dict[Value, str]:
    """A name for each parameter that takes an array: its hint, made unique."""
    symbols = {symbol.name for symbol in function.symbols}
    names: dict[Value, str] = {}
    for k, param in enumerate(function.params):
        size = isinstance(param.type, Scalar) and param.hint in symbols
        if not isinstance(param.type, Token) and not size:
            known = param.hint and param.hint not in names.values()
            names[param] = param.hint if known else f"arg{k}"
    return names


def _check_shape(
    param: Value, array: Array, name: str, values: Mapping[str, int]
) -> None:
    """Raises `UserError` where an array has not the shape that is declared."""
    type_ = param.type
    if not isinstance(type_, Tensor):
        return
    sizes = {Symbol(symbol): n for symbol, n in values.items()}
    known = [
        evaluate(dim, sizes) if sizes.keys() >= symbols(dim) else None
        for dim in type_.shape
    ]
    fits = len(known) == array.ndim and all(
        n in (None, m) for n, m in zip(known, array.shape, strict=True)
    )
    if not fits:
        raise UserError(
            f"%{param.hint} is declared {format_type(type_)}, but the array {name!r}"
            f" has the shape {array.shape}"
        )


def _seen(found: Mapping[Value, Array]) -> dict[str, int]:
    """The symbols that are an extent of some array, by name."""
    return {
        dim.name: extent
        for param, array in found.items()
        if isinstance(param.type, Tensor)
        for dim, extent in zip(param.type.shape, array.shape, strict=False)
        if isinstance(dim, Symbol)
    }


def random_arguments(
    function: Function, seed: int = 0, sizes: Mapping[str, int] | None = None
) -> list[Any]:
    """Arguments drawn from `seed`: normal floats, integers from 0 to 7, coin flips.

    `sizes` gives symbols their values by name; others are `USUAL_SIZE`, or as near to
    it as the function's facts allow. Raises `UserError` for a symbol it does not have.
    """
    values = symbol_values(function, sizes or {})
    random = np.random.default_rng(seed)
    made = [_random(param, values, random) for param in function.params]
    tile = function.level is Level.TILE
    return made + [values[s] for s in function.symbols] if tile else made


def symbol_values(function: Function, sizes: Mapping[str, int]) -> dict[Symbol, int]:
    """A value for every symbol of a function, by `sizes` or by its facts."""
    known = {symbol.name for symbol in function.symbols}
    for name in sizes:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise UserError(
                f"@{function.name} has no symbol {name!r}", fix=f"it has {listed}"
            )
    return {s: sizes.get(s.name, _usual(function, s)) for s in function.symbols}


def _usual(function: Function, symbol: Symbol) -> int:
    low, high = function.facts.range(symbol)
    step = max(1, function.facts.divisor(symbol))
    value = -(-max(USUAL_SIZE, low or 0) // step) * step
    return value if high is None else min(value, high // step * step)


def _random(
    param: Value, values: Mapping[Symbol, int], random: np.random.Generator
) -> Any:
    match param.type:
        case Token():
            return None
        case Scalar(dtype):
            named = {symbol.name: n for symbol, n in values.items()}
            known = named.get(param.hint) if dtype.is_int else None
            return _draw(dtype, (), random).item() if known is None else known
        case Tensor(dtype, shape):
            return _draw(dtype, tuple(_value(n, values) for n in shape), random)
        case Buffer(dtype, layout):
            last = sum(
                (_value(digit.extent, values) - 1) * _value(digit.stride, values)
                for digits in layout.dims
                for digit in digits
            )
            return _draw(dtype, (last // dtype.bits + 1,), random)
        case Opaque():
            raise UserError(
                f"%{param.hint} is opaque: there is no data for it",
                fix="run the program through torch.compile",
            )
        case _:
            raise TypeError(f"no argument has the type {param.type}")


def _value(dim: Dim, values: Mapping[Symbol, int]) -> int:
    return dim if isinstance(dim, int) else evaluate(dim, values)


def _draw(dtype: DType, shape: Sequence[int], random: np.random.Generator) -> Array:
    """Raises `UserError` for more elements than there is memory for."""
    if any(n < 0 for n in shape):
        raise UserError(
            f"no argument has the shape {tuple(shape)}",
            fix="give symbols other sizes: --size NAME=N",
        )
    try:
        if math.prod(max(n, 1) for n in shape) > MOST_ELEMENTS:
            raise MemoryError
        return _drawn(dtype, shape, random)
    except MemoryError:
        raise UserError(
            f"there is no memory for arguments of shape {tuple(shape)}",
            fix="give symbols smaller sizes: --size NAME=N",
        ) from None


def _drawn(dtype: DType, shape: Sequence[int], random: np.random.Generator) -> Array:
    if dtype.is_bool:
        return random.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_int:
        largest = min(7, int(dtype.max))
        return random.integers(0, largest + 1, shape).astype(dtype.carrier)
    return dtype.quantize(random.standard_normal(shape))


def _fitting(param: Value, array: Array, name: str, values: Mapping[str, int]) -> Any:
    """An array in the carrier of its parameter's dtype, a number for a scalar."""
    type_ = param.type
    assert _has_elements(type_)
    carrier = type_.dtype.carrier
    if not np.can_cast(array.dtype, carrier, "same_kind"):
        raise UserError(
            f"%{param.hint} takes {type_.dtype.name}, but the array {name!r} is"
            f" {array.dtype}",
            fix=f"save it as {carrier}",
        )
    if isinstance(type_, Scalar):
        if array.size != 1:
            raise UserError(f"%{param.hint} takes one number, not {array.shape}")
        return array.astype(carrier).item()
    _check_shape(param, array, name, values)
    return np.array(type_.dtype.quantize(array), order="C")


def _has_elements(type_: object) -> TypeGuard[Tensor | Buffer | Scalar]:
    return isinstance(type_, (Tensor, Buffer, Scalar))
