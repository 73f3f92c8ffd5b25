"""Normalisations: statistics along some dimensions, then scale and shift.

Statistics are computed in f32 for f16 and bf16, as ATen does; the intake rounds the
results to their dtypes. A weight or bias may be absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusec.frontend.aten.functions import rsqrt
from fusec.frontend.aten.reductions import average, moments
from fusec.frontend.aten.registry import lowers
from fusec.frontend.aten.term import Emitter, Number, Term
from fusec.ir.dims import Dim


def _scaled(x: Term, weight: Term | None, bias: Term | None) -> Term:
    x = x if weight is None else x * weight.cast(x.dtype)
    return x if bias is None else x + bias.cast(x.dtype)


def _channels(x: Term, vector: Any) -> Any:
    """A vector over x's channels as a term that broadcasts with x; None for None."""
    if vector is None:
        return None
    wide = vector.cast(x.wide().dtype)
    return wide.reshape((1, *vector.shape, *(1,) * (x.rank - 2)))


@lowers("aten.native_layer_norm.default")
def layer_norm(
    e: Emitter,
    x: Term,
    normalized_shape: Sequence[Dim],
    weight: Term | None,
    bias: Term | None,
    eps: float,
) -> tuple[Term, Term, Term]:
    """(y, mean, 1/deviation); the statistics keep the normalised dimensions."""
    dims = range(x.rank - len(normalized_shape), x.rank)
    variance, mean = moments(x, dims)
    scale = rsqrt(variance + eps)
    y = (x.wide() - mean) * scale
    return _scaled(y, weight, bias), mean, scale


@lowers("aten._fused_rms_norm.default")
def rms_norm(
    e: Emitter,
    x: Term,
    normalized_shape: Sequence[Dim],
    weight: Term | None,
    eps: float | None,
) -> tuple[Term, Term]:
    """(y, 1/root mean square)."""
    wide = x.wide()
    dims = range(x.rank - len(normalized_shape), x.rank)
    epsilon = x.dtype.eps if eps is None else eps
    scale = rsqrt(average(wide * wide, dims, True) + epsilon)
    return _scaled(wide * scale, weight, None), scale


@lowers("aten.native_group_norm.default")
def group_norm(
    e: Emitter,
    x: Term,
    weight: Term | None,
    bias: Term | None,
    batch: Dim,
    channels: Dim,
    pixels: Dim,
    groups: int,
    eps: float,
) -> tuple[Term, Term, Term]:
    """(y, mean, 1/deviation), statistics per example and group of channels."""
    grouped = x.reshape((batch, groups, channels // groups, pixels))
    variance, mean = moments(grouped, (2, 3))
    scale = rsqrt(variance + eps)
    y = ((grouped.wide() - mean) * scale).reshape(x.shape)
    y = _scaled(y, _channels(x, weight), _channels(x, bias))
    return y, mean.reshape((batch, groups)), scale.reshape((batch, groups))


@lowers("aten._native_batch_norm_legit_no_training.default")
def batch_norm_inference(
    e: Emitter,
    x: Term,
    weight: Term | None,
    bias: Term | None,
    running_mean: Term,
    running_var: Term,
    momentum: float,
    eps: float,
) -> tuple[Term, Term, Term]:
    """(y, and two empty tensors where training has its statistics)."""
    wide = x.wide()
    running = (running_mean, running_var, weight, bias)
    mean, variance, scale, shift = (_channels(x, t) for t in running)
    y = _scaled((wide - mean) * rsqrt(variance + eps), scale, shift)
    none = e.const(0, e.results[1].dtype)
    return y, none, none


@lowers("aten._native_batch_norm_legit_functional.default")
def batch_norm_functional(
    e: Emitter,
    x: Term,
    weight: Term | None,
    bias: Term | None,
    running_mean: Term,
    running_var: Term,
    training: bool,
    momentum: float,
    eps: Number,
) -> tuple[Term, Term, Term, Term, Term] | None:
    """(y, mean, 1/deviation, and the running statistics, moved)."""
    if not training:
        return None
    y, mean, scale, variance = _batch_norm(x, weight, bias, eps)
    count = mean.like(x.count(_all_but_channels(x)))
    unbiased = variance * (count / (count - 1))
    running = [t.cast(mean.dtype) for t in (running_mean, running_var)]
    moved = [
        new * momentum + old * (1 - momentum)
        for old, new in zip(running, (mean, unbiased), strict=True)
    ]
    return y, mean, scale, moved[0], moved[1]


@lowers("aten._native_batch_norm_legit.no_stats")
def batch_norm_no_stats(
    e: Emitter,
    x: Term,
    weight: Term | None,
    bias: Term | None,
    training: bool,
    momentum: float,
    eps: Number,
) -> tuple[Term, Term, Term]:
    """(y, mean, 1/deviation)."""
    return _batch_norm(x, weight, bias, eps)[:3]


def _batch_norm(
    x: Term, weight: Term | None, bias: Term | None, eps: Number
) -> tuple[Term, Term, Term, Term]:
    """(y, mean, 1/deviation, variance), statistics per channel."""
    dims = _all_but_channels(x)
    variance, mean = moments(x, dims)
    scale = rsqrt(variance + eps)
    y = (x.wide() - mean) * scale
    y = _scaled(y, _channels(x, weight), _channels(x, bias))
    vector = (x.shape[1],)
    return y, mean.reshape(vector), scale.reshape(vector), variance.reshape(vector)


def _all_but_channels(x: Term) -> tuple[int, ...]:
    return tuple(d for d in range(x.rank) if d != 1)
