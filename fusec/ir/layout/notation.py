"""The one-line notation of layouts; `parser` reads it back.

    (64:grid@1, 4:time 4:reg 16:lane < 229) * 2:warp@4 ^ 3:mem@10>7 + mem@64

    layout  = "(" [dim {"," dim}] ")" ["*" digits] {"^" shear} {"+" NAME "@" number}
    dim     = (digits | number) ["<" number]
    digits  = digit {digit}
    digit   = number ":" NAME ["@" number]            extent, axis, stride
    shear   = INT ":" NAME "@" INT ">" INT            width, axis, source, target
    number  = INT | "{" dim of fusec.ir.dims "}"

A stride of 1 is not written. A bare number is a dimension without digits: one place
for that many coordinates. `< 229` is the logical extent, where the digits count more.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusec.ir.dims import Dim
from fusec.ir.layout.digits import Digit, Digits, Shear, extent


def spell(
    dims: Sequence[Digits],
    shape: Sequence[Dim],
    replicas: Digits,
    offset: Sequence[tuple[str, Dim]],
    xor: Sequence[Shear],
) -> str:
    """The notation of a layout with these parts."""
    sized = zip(dims, shape, strict=True)
    parts = ["(" + ", ".join(_dim(digits, size) for digits, size in sized) + ")"]
    if replicas:
        parts.append("* " + _digits(replicas))
    parts += [f"^ {s.width}:{s.axis}@{s.source}>{s.target}" for s in xor]
    parts += [f"+ {axis}@{_number(value)}" for axis, value in offset]
    return " ".join(parts)


def _dim(digits: Digits, size: Dim) -> str:
    if not digits:
        return _number(size)
    bound = "" if extent(digits) == size else f" < {_number(size)}"
    return _digits(digits) + bound


def _digits(digits: Digits) -> str:
    return " ".join(map(_digit, digits))


def _digit(digit: Digit) -> str:
    stride = "" if digit.stride == 1 else f"@{_number(digit.stride)}"
    return f"{_number(digit.extent)}:{digit.axis}{stride}"


def _number(dim: Dim) -> str:
    return str(dim) if isinstance(dim, int) else "{" + str(dim) + "}"
