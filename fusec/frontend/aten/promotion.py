"""torch's type promotion: in which dtype an op on mixed operands computes.

Operands come in three ranks: tensors with dimensions, tensors without, and numbers.
A lower rank matters only if its category (bool < integer < float) is higher:

    f16[4] + f64[]      → f16        the same category: the first rank decides
    i32[4] + 2.5        → f32        a float joins integers: the default float
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fusec.frontend.aten.term import Emitter, Operand, Term
from fusec.ir.dims import Expr
from fusec.ir.dtypes import DType, bool_, i64, promote


def common_dtype(e: Emitter, operands: Sequence[Operand]) -> DType:
    """The dtype that torch promotes these operands to.

    After `at::native::result_type`. Raises `TypeError` where torch has none.
    """
    found: DType | None = None
    for rank in (0, 1, 2):
        dtypes = [_dtype(e, x) for x in operands if _rank(x) == rank]
        if dtypes:
            found = _prevail(_promoted(dtypes), found)
    assert found is not None
    return found


def _rank(x: Operand) -> int:
    """0 for numbers, 1 for tensors of no dimensions, 2 for the others."""
    if not isinstance(x, Term) or x.is_scalar:
        return 0
    return 2 if x.rank else 1


def _dtype(e: Emitter, x: Operand) -> DType:
    if isinstance(x, Term):
        return e.default_float if x.is_scalar and x.dtype.is_float else x.dtype
    if isinstance(x, bool):
        return bool_
    return i64 if isinstance(x, (int, Expr)) else e.default_float


def _promoted(dtypes: Iterable[DType]) -> DType:
    first, *rest = dtypes
    for dtype in rest:
        first = promote(first, dtype)
    return first


def _prevail(higher: DType, lower: DType | None) -> DType:
    """What a rank makes of the ranks below it."""
    if lower is None or higher.is_float:
        return higher
    if higher.is_bool or lower.is_float:
        return promote(higher, lower)
    return higher
