"""Larger, smaller, sign: choices that come down to comparing and selecting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusec.ir.core import Value
from fusec.ir.ops.formula import Term
from fusec.ir.ops.pointwise import (
    Binary,
    Unary,
    dtype_of,
    is_number,
    keep,
    numeric,
    ordered,
)


class Maximum(Binary, name="maximum"):
    """The larger; NaN if either is NaN. Of two zeros either one, as torch."""

    cost = 3.0
    takes = staticmethod(ordered)
    commutes = True
    aten = ("aten.maximum.default",)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.maximum(x, y)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # maximum(x, x) -> x
        if x is y:
            return x
        # maximum(x, the least) -> x
        worst = -math.inf if dtype_of(x).is_float else dtype_of(x).min
        return keep(x, xs) if is_number(b, y, worst) else None

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        x, y = (Term(b, v) for v in xs)
        wins = x > y
        if x.dtype.is_float:
            wins = wins | x.is_nan()
        return wins.select(x, y).value


class Minimum(Binary, name="minimum"):
    """The smaller; NaN if either is NaN. Of two zeros either one, as torch."""

    cost = 3.0
    takes = staticmethod(ordered)
    commutes = True
    aten = ("aten.minimum.default",)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.minimum(x, y)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # minimum(x, x) -> x
        if x is y:
            return x
        # minimum(x, the largest) -> x
        worst = math.inf if dtype_of(x).is_float else dtype_of(x).max
        return keep(x, xs) if is_number(b, y, worst) else None

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        x, y = (Term(b, v) for v in xs)
        wins = x < y
        if x.dtype.is_float:
            wins = wins | x.is_nan()
        return wins.select(x, y).value


class Fmax(Binary, name="fmax"):
    """The larger; the other one where one is NaN. Of two zeros either one."""

    cost = 4.0
    takes = staticmethod(ordered)
    commutes = True
    aten = ("aten.fmax.default",)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.fmax(x, y)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # fmax(x, x) -> x
        if x is y:
            return x
        return None

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        x, y = (Term(b, v) for v in xs)
        wins = x >= y
        if x.dtype.is_float:
            wins = wins | y.is_nan()
        return wins.select(x, y).value


class Fmin(Binary, name="fmin"):
    """The smaller; the other one where one is NaN. Of two zeros either one."""

    cost = 4.0
    takes = staticmethod(ordered)
    commutes = True
    aten = ("aten.fmin.default",)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return np.fmin(x, y)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        x, y = xs
        # fmin(x, x) -> x
        if x is y:
            return x
        return None

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        x, y = (Term(b, v) for v in xs)
        wins = x <= y
        if x.dtype.is_float:
            wins = wins | y.is_nan()
        return wins.select(x, y).value


class Sign(Unary, name="sign"):
    """−1, 0 or 1; 0 for ±0 and, as torch, for NaN."""

    cost = 5.0
    takes = staticmethod(numeric)
    aten = ("aten.sign.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        x = np.asarray(x)
        return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)

    @classmethod
    def expand(cls, b: Any, *xs: Value) -> Value | None:
        x = Term(b, xs[0])
        return ((x > 0).cast(x.dtype) - (x < 0).cast(x.dtype)).value
