"""Every elementwise op, from the family files beside this one.

arithmetic      + − · / fma √ |x|: what processors have
division        remainders, floor division, reciprocals
extremes        maximum, minimum, sign
comparison      = ≠ < ≤ > ≥, select
bitwise         and, or, xor, not, shifts
rounding        floor, ceil, trunc, round
encoding        the bits of a float: NaN, sign, scaling by 2ⁿ, neighbours
exponential     exponentials, logarithms, powers
trigonometric   circular functions and their inverses
hyperbolic      hyperbolic functions and their inverses
special         erf and its relatives, lgamma
"""

from fusec.ir.ops.arithmetic import (
    Abs,
    Add,
    Div,
    Fma,
    Mul,
    Neg,
    Sqrt,
    Sub,
    TruncDiv,
)
from fusec.ir.ops.bitwise import (
    And,
    Not,
    Or,
    Shl,
    Shr,
    Xor,
)
from fusec.ir.ops.comparison import (
    Eq,
    Ge,
    Gt,
    Le,
    Lt,
    Ne,
    Select,
)
from fusec.ir.ops.division import (
    FloorDiv,
    Fmod,
    Reciprocal,
    Rem,
    Rsqrt,
)
from fusec.ir.ops.encoding import (
    Copysign,
    IsInf,
    IsNan,
    Ldexp,
    Nextafter,
    SignBit,
)
from fusec.ir.ops.exponential import (
    Exp,
    Exp2,
    Expm1,
    Log,
    Log1p,
    Log2,
    Log10,
    Pow,
    Sigmoid,
)
from fusec.ir.ops.extremes import (
    Fmax,
    Fmin,
    Maximum,
    Minimum,
    Sign,
)
from fusec.ir.ops.hyperbolic import (
    Acosh,
    Asinh,
    Atanh,
    Cosh,
    Sinh,
    Tanh,
)
from fusec.ir.ops.pointwise import (
    LEVELS,
    Binary,
    Comparison,
    Elementwise,
    Unary,
    any_dtype,
    bitwise,
    floating,
    integral,
    numeric,
)
from fusec.ir.ops.rounding import (
    Ceil,
    Floor,
    Round,
    Trunc,
)
from fusec.ir.ops.special import (
    Erf,
    Erfc,
    Erfinv,
    Lgamma,
)
from fusec.ir.ops.trigonometric import (
    Acos,
    Asin,
    Atan,
    Atan2,
    Cos,
    Hypot,
    Sin,
    Tan,
)

__all__ = [
    "LEVELS",
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atan2",
    "Atanh",
    "Binary",
    "Ceil",
    "Comparison",
    "Copysign",
    "Cos",
    "Cosh",
    "Div",
    "Elementwise",
    "Eq",
    "Erf",
    "Erfc",
    "Erfinv",
    "Exp",
    "Exp2",
    "Expm1",
    "Floor",
    "FloorDiv",
    "Fma",
    "Fmax",
    "Fmin",
    "Fmod",
    "Ge",
    "Gt",
    "Hypot",
    "IsInf",
    "IsNan",
    "Ldexp",
    "Le",
    "Lgamma",
    "Log",
    "Log1p",
    "Log2",
    "Log10",
    "Lt",
    "Maximum",
    "Minimum",
    "Mul",
    "Ne",
    "Neg",
    "Nextafter",
    "Not",
    "Or",
    "Pow",
    "Reciprocal",
    "Rem",
    "Round",
    "Rsqrt",
    "Select",
    "Shl",
    "Shr",
    "Sigmoid",
    "Sign",
    "SignBit",
    "Sin",
    "Sinh",
    "Sqrt",
    "Sub",
    "Tan",
    "Tanh",
    "Trunc",
    "TruncDiv",
    "Unary",
    "Xor",
    "any_dtype",
    "bitwise",
    "floating",
    "integral",
    "numeric",
]
