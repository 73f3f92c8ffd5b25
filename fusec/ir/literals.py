"""What values in the text of the IR mean: numbers, dims, indices, attributes by kind.

The grammar knows shapes only: `2*i + s0` is a sum, `(f32, i)` a tuple. What a name
stands for depends on where it is: in `[2*i + s0]`, inside of a region over `i`, the
first is an axis and the second a symbol; as an attribute of kind `DType`, `f32` is an
element type. So names stay plain `str` until a function of this module, which is told
what to expect, reads them; a string in quotes is a `Quoted`.

    >>> convert((int,), Tuple((1, 2)), {})
    (1, 2)
    >>> i = Axis("i", 4)
    >>> arithmetic("+", arithmetic("*", 2, "i", {"i": i}), "s0", {"i": i})
    Affine(terms=((Axis(i:4), 2),), const=s0)

What does not fit raises `Misfit`; who knows the place in the text reports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast

from fusec.ir import types
from fusec.ir.calls import Named, Slot
from fusec.ir.core import Affine, Monoid
from fusec.ir.dims import Dim, Expr, Symbol, dim_max, dim_min, fold, terms_of
from fusec.ir.dtypes import DType, parse_dtype
from fusec.ir.layout import Layout, on_known_axes, parse_layout
from fusec.ir.monoids import monoid
from fusec.ir.printer import RESERVED
from fusec.ir.types import Axis, Buffer, Points, Scalar, Tensor, Tile, Type

Axes = Mapping[str, Axis]
"""The axes in scope."""

LONGEST_NUMBER = 40
"""Digits of an integer: enough for 128 bits."""
LARGEST_DIM = 512
"""Terms and atoms of a dim: the polynomial of a short text may be very long."""
DEEPEST_TUPLE = 64


class Misfit(Exception):
    """A value that is not what its place calls for, and a hint how to mend it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Quoted:
    """A string literal."""

    text: str


@dataclass(frozen=True, slots=True)
class Tuple:
    """Values in parentheses, not yet read."""

    items: tuple[Any, ...]
    depth: int = 1

    @staticmethod
    def of(items: tuple[Any, ...]) -> Tuple:
        depth = 1 + max((i.depth for i in items if isinstance(i, Tuple)), default=0)
        if depth > DEEPEST_TUPLE:
            raise Misfit(f"more than {DEEPEST_TUPLE} nested tuples")
        return Tuple(items, depth)


# -------------------------------------------------------------------- numbers


def integer(digits: str) -> int:
    """The integer with these digits."""
    if len(digits) > LONGEST_NUMBER:
        raise Misfit(f"a number of more than {LONGEST_NUMBER} digits")
    return int(digits)


def arithmetic(sign: str, left: Any, right: Any, axes: Axes) -> Affine | Dim:
    """`left sign right`: a dim, or linear in axes."""
    x, y = linear(left, axes), linear(right, axes)
    if sign == "*" and isinstance(y, Affine):
        x, y = y, x
    if isinstance(y, Affine) and sign not in ("+", "-"):
        raise Misfit(f"no axis can stand on the right of {sign}", _LINEAR)
    if isinstance(x, Affine) and sign in ("//", "%"):
        raise Misfit(f"no axis can stand on the left of {sign}", _LINEAR)
    if sign == "*" and _terms(x) * _terms(y) > LARGEST_DIM:
        raise Misfit("this dim is too long", _SHORTER)
    try:
        return _bounded(_OPERATIONS[sign](x, y))
    except ZeroDivisionError:
        raise Misfit("division by 0") from None


def negative(value: Any, axes: Axes) -> Any:
    """`-value`."""
    if isinstance(value, float) or value in ("inf", "nan"):
        return -float(value)
    return arithmetic("*", value, -1, axes)


def call(name: str, arguments: tuple[Any, ...], axes: Axes) -> Any:
    """`max(…)` and `min(…)` of dims; `named("kind", "name")`."""
    if name == "named":
        if [type(a) for a in arguments] != [Quoted, Quoted]:
            raise Misfit("named takes two strings", 'as in named("dtype", "float32")')
        return Named(*(quoted.text for quoted in arguments))
    combine = {"max": dim_max, "min": dim_min}.get(name)
    if combine is None:
        raise Misfit(f"no function {short(name)}", "there are max, min and named")
    dims = [dim(argument, axes) for argument in arguments]
    if sum(map(_weight, dims)) > LARGEST_DIM:
        raise Misfit("this dim is too long", _SHORTER)
    return combine(*dims)


def linear(value: Any, axes: Axes) -> Affine | Dim:
    """A value as a number: an axis is its coordinate, another name a symbol."""
    if not isinstance(value, str):
        if isinstance(value, (int, Expr, Affine)):
            return value
        raise Misfit(f"expected a dim, not {describe(value)}")
    if value in axes:
        return Affine(((axes[value], 1),))
    if value in RESERVED:
        raise Misfit(f"expected a dim, not {value}")
    return Symbol(str(value))


def dim(value: Any, axes: Axes) -> Dim:
    """A value as a dim."""
    read = linear(value, axes)
    if isinstance(read, Affine):
        raise Misfit("expected a dim, which has no axes", _LINEAR)
    return read


def entry(value: Any, axes: Axes) -> Affine | Slot:
    """A value as one dimension of an index."""
    if isinstance(value, Slot):
        return value
    read = linear(value, axes)
    return read if isinstance(read, Affine) else Affine((), read)


_LINEAR = "an index is a sum of axes, each times a dim"
_SHORTER = f"at most {LARGEST_DIM} terms; name a part of it by a symbol"
_PLAIN: dict[str, type[types.Token] | type[types.Opaque]] = {
    "token": types.Token,
    "opaque": types.Opaque,
}

_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda x, y: x + y if isinstance(x, Affine) else y + x,
    "-": lambda x, y: x + y * -1 if isinstance(x, Affine) else y * -1 + x,
    "*": lambda x, y: x * y,
    "//": lambda x, y: x // y,
    "%": lambda x, y: x % y,
}


def _terms(value: Affine | Dim) -> int:
    if isinstance(value, Affine):
        return len(value.terms) + 1
    return len(terms_of(value))


def _bounded(value: Affine | Dim) -> Affine | Dim:
    if _weight(value) > LARGEST_DIM:
        raise Misfit("this dim is too long", _SHORTER)
    return value


def _weight(value: Affine | Dim) -> int:
    """How long the text of a dim is, in terms and atoms."""
    if isinstance(value, Affine):
        strides = sum(1 + _weight(stride) for _, stride in value.terms)
        return strides + _weight(value.const)
    if isinstance(value, int):
        return 1 if value.bit_length() <= 128 else LARGEST_DIM + 1
    return fold(value, lambda _, operands: 1 + sum(operands), _sum_weight)


def _sum_weight(value: Dim, atoms: Mapping[Any, int]) -> int:
    return sum(
        _weight(coefficient) + sum(atoms[atom] for atom in monomial)
        for monomial, coefficient in terms_of(value)
    )


# ------------------------------------------------------------ attributes by kind


def convert(kind: Any, value: Any, axes: Axes) -> Any:
    """A value as an attribute of this kind (see `opdef.attr`)."""
    if not isinstance(kind, tuple):
        return _KINDS[kind](value, axes)
    item = cast("tuple[Any]", kind)[0]
    if not isinstance(value, Tuple):
        raise Misfit(
            f"expected a tuple, not {describe(value)}", "write (a, b), (a,) or ()"
        )
    return tuple(_KINDS[item](each, axes) for each in value.items)


def number(value: Any, axes: Axes) -> float | int | bool:
    """A value as a constant."""
    if type(value) in (int, float):
        return value
    known = _WORDS.get(value) if isinstance(value, str) else None
    if known is None:
        raise Misfit(f"expected a number, not {describe(value)}")
    return known


def whole(value: Any, axes: Axes) -> int:
    """A value as an integer that is known."""
    if type(value) is not int:
        raise Misfit(f"expected an integer, not {describe(value)}")
    return value


def element(value: Any, axes: Axes) -> DType:
    """A value as an element type."""
    if not isinstance(value, str):
        raise Misfit(f"expected a dtype, not {describe(value)}")
    try:
        return parse_dtype(str(value))
    except ValueError as error:
        raise Misfit(str(error)) from None


def type_(value: Any, axes: Axes) -> Type:
    """A value as a type; a lone name is a scalar, `token` or `opaque`."""
    if isinstance(value, str):
        plain = _PLAIN.get(str(value))
        return plain() if plain else Scalar(element(value, axes))
    if not isinstance(value, (Tensor, Points, Tile, Buffer)):
        raise Misfit(f"expected a type, not {describe(value)}")
    return value


def axis(value: Any, axes: Axes) -> Axis:
    """A value as an axis in scope."""
    if not isinstance(value, str) or value not in axes:
        hint = f"there are {listing(axes)}" if axes else "declare it: `over i:4`"
        raise Misfit(f"expected an axis, not {describe(value)}", hint)
    return axes[value]


def layout(text: str) -> Layout:
    """The layout in the one-line notation."""
    try:
        return on_known_axes(parse_layout(text))
    except Exception as error:
        # Text, dims and digits refuse what does not fit together each in its own way.
        raise Misfit(f"no layout: {error}") from None


def monoid_of(name: str, dtype: str) -> Monoid:
    """The monoid `name<dtype>`."""
    try:
        return monoid(str(name)[:LONGEST_NUMBER], element(dtype, {}))
    except (ValueError, TypeError) as error:
        raise Misfit(str(error)) from None


def _bool(value: Any, axes: Axes) -> bool:
    if not isinstance(value, str) or value not in ("true", "false"):
        raise Misfit(f"expected true or false, not {describe(value)}")
    return value == "true"


def _string(value: Any, axes: Axes) -> str:
    if not isinstance(value, Quoted):
        raise Misfit(f"expected a string, not {describe(value)}")
    return value.text


def _monoid(value: Any, axes: Axes) -> Monoid:
    if not isinstance(value, Monoid):
        raise Misfit(f"expected a monoid, not {describe(value)}", "as sum<f32>")
    return value


def _tree(value: Any, axes: Axes) -> Any:
    if isinstance(value, Tuple):
        return tuple(_tree(item, axes) for item in value.items)
    if isinstance(value, Quoted):
        return value.text
    if isinstance(value, str):
        return _WORDS[value] if value in _WORDS else dim(value, axes)
    if isinstance(value, (int, float, Expr, Slot, Named)):
        return value
    raise Misfit(f"{describe(value)} is no argument of a call")


_WORDS = {
    "true": True,
    "false": False,
    "none": None,
    "inf": float("inf"),
    "nan": float("nan"),
}
_KINDS: dict[Any, Callable[[Any, Axes], Any]] = {
    int: whole,
    bool: _bool,
    str: _string,
    "number": number,
    Dim: dim,
    "dim": dim,
    DType: element,
    Type: type_,
    Axis: axis,
    Monoid: _monoid,
    Layout: lambda value, axes: layout(_string(value, axes)),
    "index": entry,
    "tree": _tree,
}


# ------------------------------------------------------------------- messages


def describe(value: Any) -> str:
    """What a value is, for messages."""
    if isinstance(value, (str, int, float, Expr)):
        return short(value) if isinstance(value, str) else str(value)
    return next((word for cls, word in _CALLED if isinstance(value, cls)), "a type")


_CALLED: tuple[tuple[type, str], ...] = (
    (Affine, "an index"),
    (Monoid, "a monoid"),
    (Named, "a named constant"),
    (Quoted, "a string"),
    (Slot, "the place of an operand"),
    (Tuple, "a tuple"),
)


def short(text: str) -> str:
    """Text in quotes, cut where it is long."""
    return repr(str(text) if len(text) <= LONGEST_NUMBER else text[:37] + "...")


def listing(words: Iterable[str], last: str = "and") -> str:
    """`a, b and c`."""
    *most, final = words
    return f"{', '.join(most)} {last} {final}" if most else final


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at what was meant; "" where nothing is near."""
    near = get_close_matches(name[:LONGEST_NUMBER], list(known)[-1000:], n=3)
    return f"did you mean {listing(near, 'or')}?" if near else ""
