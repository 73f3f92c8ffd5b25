"""Rounding floats to whole numbers. ±inf, NaN and the sign of zero pass through."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusec.ir.core import Value
from fusec.ir.ops.pointwise import Unary, floating


class Rounding(Unary):
    takes = staticmethod(floating)

    @classmethod
    def rules(cls, b: Any, *xs: Value) -> Value | None:
        # floor(round(x)) -> round(x), and so on: whole already
        return xs[0] if isinstance(b.definition(xs[0]), Rounding) else None


class Floor(Rounding, name="floor"):
    """The largest whole number not above x."""

    aten = ("aten.floor.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.floor(x)


class Ceil(Rounding, name="ceil"):
    """The smallest whole number not below x."""

    aten = ("aten.ceil.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.ceil(x)


class Trunc(Rounding, name="trunc"):
    """The whole number next to x toward zero."""

    aten = ("aten.trunc.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.trunc(x)


class Round(Rounding, name="round"):
    """The nearest whole number, halves to the even one."""

    aten = ("aten.round.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.rint(x)
