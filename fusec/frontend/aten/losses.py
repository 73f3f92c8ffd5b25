"""Losses of two tensors, element by element, in the steps that ATen's kernels round.

`reduction` is torch's: 0 leaves the elements, 1 takes their mean, 2 their sum; each
element has its share of the gradient.
"""

from __future__ import annotations

from fusec.frontend.aten.functions import absolute
from fusec.frontend.aten.reductions import mean_all, sum_all
from fusec.frontend.aten.registry import lowers
from fusec.frontend.aten.term import Emitter, Number, Term, where
from fusec.ir.dims import Dim, product
from fusec.ir.dtypes import bf16, f16

MEAN, SUM = 1, 2


@lowers("aten.mse_loss.default")
def mse_loss(e: Emitter, x: Term, y: Term, reduction: int = MEAN) -> Term:
    gap = _gap(e, x, y)
    return _reduced(e, gap * gap, reduction)


@lowers("aten.mse_loss_backward.default")
def mse_loss_backward(e: Emitter, grad: Term, x: Term, y: Term, reduction: int) -> Term:
    gap = _gap(e, x, y)
    return _share(e, gap, reduction, 2) * gap * grad


@lowers("aten.huber_loss.default")
def huber_loss(
    e: Emitter, x: Term, y: Term, reduction: int = MEAN, delta: Number = 1.0
) -> Term:
    """ATen's kernel computes wide in f16, but not in bf16."""
    gap = absolute(_gap(e, x, y, wide=e.dtype is f16))
    bound = e.term(delta, gap.dtype)
    loss = where(gap < bound, gap * 0.5 * gap, bound * (gap - bound * 0.5))
    return _reduced(e, loss.cast(e.dtype), reduction)


@lowers("aten.huber_loss_backward.default")
def huber_loss_backward(
    e: Emitter, grad: Term, x: Term, y: Term, reduction: int, delta: Number
) -> Term:
    gap = _gap(e, x, y)
    share, bound = _share(e, gap, reduction), e.term(delta, gap.dtype)
    end = share * grad * bound
    inner = where(gap >= bound, end, share * gap * grad)
    return where(gap <= -bound, -end, inner)


@lowers("aten.smooth_l1_loss.default")
def smooth_l1_loss(
    e: Emitter, x: Term, y: Term, reduction: int = MEAN, beta: Number = 1.0
) -> Term:
    """ATen's kernel computes wide in bf16, but not in f16."""
    gap = absolute(_gap(e, x, y, wide=e.dtype is bf16))
    bound = e.term(beta, gap.dtype)
    loss = where(gap < bound, gap * 0.5 * gap / bound, gap - bound * 0.5)
    return _reduced(e, loss.cast(e.dtype), reduction)


@lowers("aten.smooth_l1_loss_backward.default")
def smooth_l1_loss_backward(
    e: Emitter, grad: Term, x: Term, y: Term, reduction: int, beta: Number
) -> Term:
    grad, gap = grad.wide(), _gap(e, x, y, wide=True)
    share, bound = _share(e, gap, reduction), e.term(beta, gap.dtype)
    end = share * grad
    inner = where(gap >= bound, end, gap / bound * share * grad)
    return where(gap <= -bound, -end, inner)


def _gap(e: Emitter, x: Term, y: Term, wide: bool = False) -> Term:
    x, y = x.cast(e.dtype), y.cast(e.dtype)
    return x.wide() - y.wide() if wide else x - y


def _reduced(e: Emitter, loss: Term, reduction: int) -> Term:
    if reduction == MEAN:
        return mean_all(e, loss)
    return sum_all(e, loss) if reduction == SUM else loss


def _share(e: Emitter, gap: Term, reduction: int, factor: int = 1) -> Term:
    """What an element's gradient has of the loss's, times `factor`."""
    count: Dim = product(gap.shape) if reduction == MEAN else 1
    if isinstance(count, int):
        return e.term(factor / count if count else 0.0, gap.dtype)
    return e.term(factor, gap.dtype) / e.term(count, gap.dtype)
