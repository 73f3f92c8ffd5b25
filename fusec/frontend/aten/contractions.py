"""Products of matrices and vectors.

Narrow floats are summed in f32 and rounded once, where what is added to the product is
in; integers wrap. ATen's libraries do the same, in an order of their own.
"""

from __future__ import annotations

from fusec.frontend.aten.registry import lowers
from fusec.frontend.aten.term import Emitter, Number, Term, where
from fusec.ir.dims import Expr
from fusec.ir.dtypes import i32
from fusec.ir.ops.contraction import Matmul, summed_in


@lowers("aten.mm.default", "aten.bmm.default")
def matmul(e: Emitter, x: Term, y: Term) -> Term:
    return (
        _product(x, y)
        if e.fast
        else Term(e, e.b(Matmul, x.value, y.value, dtype=x.dtype))
    )


@lowers("aten._int_mm.default")
def int_mm(e: Emitter, x: Term, y: Term) -> Term:
    """Bytes, summed up in 32 bits."""
    return Term(e, e.b(Matmul, x.value, y.value, dtype=i32))


@lowers("aten.mv.default")
def mv(e: Emitter, x: Term, vector: Term) -> Term:
    return _product(x, vector.unsqueeze(1)).reshape(x.shape[:1])


@lowers("aten.dot.default", "aten.vdot.default")
def dot(e: Emitter, x: Term, y: Term) -> Term:
    return _product(x.unsqueeze(0), y.unsqueeze(1)).reshape(())


@lowers("aten.addmm.default", "aten.baddbmm.default")
def addmm(
    e: Emitter, plus: Term, x: Term, y: Term, beta: Number = 1, alpha: Number = 1
) -> Term:
    return _plus(plus, _product(x, y), beta, alpha)


@lowers("aten.addmv.default")
def addmv(
    e: Emitter, plus: Term, x: Term, vector: Term, beta: Number = 1, alpha: Number = 1
) -> Term:
    product = _product(x, vector.unsqueeze(1)).reshape(x.shape[:1])
    return _plus(plus, product, beta, alpha)


@lowers("aten.addbmm.default")
def addbmm(
    e: Emitter, plus: Term, x: Term, y: Term, beta: Number = 1, alpha: Number = 1
) -> Term:
    """The products of a batch added up: one product over all of it."""
    batch, rows, inner = x.shape
    flat = batch * inner
    left = x.permute((1, 0, 2)).reshape((rows, flat))
    return _plus(plus, _product(left, y.reshape((flat, y.shape[2]))), beta, alpha)


def _product(x: Term, y: Term) -> Term:
    """The product in the dtype that it is summed up in."""
    return Term(x.e, x.e.b(Matmul, x.value, y.value, dtype=summed_in(x.dtype)))


def _plus(plus: Term, product: Term, beta: Number | Expr, alpha: Number) -> Term:
    """`beta` times what is added, which a beta of 0 does not even read."""
    if alpha != 1:
        product = product * alpha
    if beta == 0:
        return product
    added = plus.cast(product.dtype)
    if isinstance(beta, Expr):  # an open size
        whole = product + added * beta
        return where(product.e.size(beta).equals(0), product, whole)
    return product + (added if beta == 1 else added * beta)
