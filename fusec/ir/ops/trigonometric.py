"""Circular functions and their inverses, in radians."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusec.ir.ops.pointwise import Binary, Unary, floating, in_double


class Sin(Unary, name="sin"):
    """sin x: −0 at −0, NaN at ±inf."""

    takes = staticmethod(floating)
    aten = ("aten.sin.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.sin, x)


class Cos(Unary, name="cos"):
    """cos x: NaN at ±inf."""

    takes = staticmethod(floating)
    aten = ("aten.cos.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.cos, x)


class Tan(Unary, name="tan"):
    """tan x: −0 at −0, NaN at ±inf."""

    takes = staticmethod(floating)
    aten = ("aten.tan.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.tan, x)


class Asin(Unary, name="asin"):
    """The angle in [−π/2, π/2] whose sine is x; NaN beyond ±1."""

    takes = staticmethod(floating)
    aten = ("aten.asin.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.arcsin, x)


class Acos(Unary, name="acos"):
    """The angle in [0, π] whose cosine is x; NaN beyond ±1."""

    takes = staticmethod(floating)
    aten = ("aten.acos.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.arccos, x)


class Atan(Unary, name="atan"):
    """The angle in [−π/2, π/2] whose tangent is x; ±π/2 at ±inf."""

    takes = staticmethod(floating)
    aten = ("aten.atan.default",)

    @staticmethod
    def numpy(x: Any) -> Any:
        return in_double(np.arctan, x)


class Atan2(Binary, name="atan2"):
    """The angle in [−π, π] of the point (y, x), operands in this order: atan2(x, y)
    of the point with ordinate x and abscissa y. Signs of zeros choose the quadrant.
    """

    takes = staticmethod(floating)
    aten = ("aten.atan2.default",)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return in_double(np.arctan2, x, y)


class Hypot(Binary, name="hypot"):
    """√(x² + y²) without overflow on the way; inf beside a NaN too."""

    takes = staticmethod(floating)
    aten = ("aten.hypot.default",)

    @staticmethod
    def numpy(x: Any, y: Any) -> Any:
        return in_double(np.hypot, x, y)
