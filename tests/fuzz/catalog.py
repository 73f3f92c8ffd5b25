"""The lines that programs are made of: text, what operands it takes, how it is judged.

    Line("torch.where({b}, {x}, {x})", "chosen")

A slot names a kind of operand: x any value, f floats, i integers, b bools, n numbers
(floats or integers); two slots of a kind may be the same value. {0} is what stands in
the first slot, once more. <dim>, <dims>, <shape> and so on are drawn to suit it.
{f:mk} takes the shape that `fuzz.fit` tells of, and the dtype of the first slot.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    rule: str
    weight: int = 1


def _lines(rule: str, *texts: str, weight: int = 2) -> list[Line]:
    return [Line(text, rule, weight) for text in texts]


EXACT = [
    *_lines("moved", "-{n}", "{n}.abs()", "{x}.clone()", "{x} * 1", "+{n}"),
    *_lines("moved", "torch.where({b}, {x}, {x})", weight=6),
    *_lines(
        "moved", "torch.where({b}, {n}, <number>)", "{n}.masked_fill({b}, <number>)"
    ),
    *_lines("rounded", "{n} + {n}", "{n} - {n}", weight=10),
    *_lines("rounded", "{n} + <number>", "{n} - <number>", "<number> - {n}", weight=3),
    *_lines("product", "{n} * {n}", weight=8),
    *_lines("product", "{n} * <number>", "{n}.square()", weight=3),
    *_lines("divided", "{f} / {f}", weight=6),
    *_lines("divided", "{n} / <number>", "{f}.reciprocal()", "1 / {f}"),
    *_lines("divided", "{f}.nan_to_num(1.0).signbit()"),
    *_lines("divided", "torch.copysign({f}, {f}.nan_to_num(1.0))"),
    *_lines("divided", "torch.fmod({n}, {n})", "torch.remainder({n}, {n})"),
    *_lines("divided", "{n} // {n}", "{n} // <number>", "{n} % <number>"),
    *_lines("divided", "torch.div({n}, {n}, rounding_mode='trunc')"),
    *_lines("chosen", "torch.maximum({n}, {n})", "torch.minimum({n}, {n})", weight=3),
    *_lines("chosen", "torch.fmax({f}, {f})", "torch.fmin({f}, {f})"),
    *_lines("chosen", "{n}.clamp(-2, 5)", "{n}.clamp(min=<number>)", "{n}.relu()"),
    *_lines("chosen", "F.relu6({f})", "F.leaky_relu({f}, 0.25)", "F.hardtanh({f})"),
    *_lines("jumps", "{f}.floor()", "{f}.ceil()", "{f}.trunc()", "{f}.round()"),
    *_lines("jumps", "{n}.sign()", "{f}.isnan()", "{f}.isinf()", "{f}.isfinite()"),
    *_lines("jumps", "{n} < {n}", "{n} <= {n}", "{n} == {n}", "{n} != {n}", weight=3),
    *_lines("jumps", "{n} > <number>", "{n} >= <number>", "{f} != {f}"),
    *_lines("jumps", "{i} & {i}", "{i} | {i}", "{i} ^ {i}", "~{i}", "{i} ** 2"),
    *_lines("jumps", "{i} << <small>", "{i} >> <small>", "torch.bitwise_not({i})"),
    *_lines("jumps", "{b} & {b}", "{b} | {b}", "{b} ^ {b}", "~{b}", weight=2),
    *_lines("jumps", "torch.logical_and({n}, {x})", "torch.logical_not({n})"),
    *_lines("jumps", "torch.nextafter({f}, {f})", "torch.heaviside({f}, {f})"),
    *_lines("jumps", "torch.nan_to_num({f}, 1.0, 2.0, -2.0)", "{f}.frac()"),
    *_lines("jumps", "torch.sgn({f})", "torch.isclose({f}, {f})"),
    *_lines("product", "torch.addcmul({f}, {f}, {f})", "torch.addcmul({i}, {i}, {i})"),
    *_lines("divided", "torch.addcdiv({f}, {f}, {f}, value=2)"),
    *_lines("product", "torch.lerp({f}, {f}, 0.25)"),
    *_lines("scaled", "torch.add({n}, {n}, alpha=3)"),
    *_lines("chosen", "F.threshold({f}, 0.5, 2)", "{n}.clamp({n}, {n})"),
    *_lines("jumps", "torch.bucketize({f}, torch.tensor([-2.0, 0.0, 1.5]))"),
    *_lines("jumps", "torch.logical_xor({n}, {x})", "torch.frexp({f})[1]"),
]
"""Exactly rounded, or rounded nowhere."""

CASTS = [
    *_lines("rounded", "{x}.to(torch.float32)", weight=4),
    *_lines("rounded", "{x}.to(torch.float64)", "{x}.double()"),
    *_lines("rounded", "{x}.to(torch.bfloat16)", "{x}.to(torch.float16)", weight=3),
    *_lines(
        "jumps", "{i}.to(torch.<int>)", "{b}.to(torch.<int>)", "{x}.bool()", weight=3
    ),
    *_lines("jumps", "{f}.nan_to_num(0, 9, -9).clamp(-100, 100).to(torch.int32)"),
    *_lines("jumps", "{f}.nan_to_num(0, 9, -9).clamp(0, 100).to(torch.<int>)"),
]

ROUGH = [
    *_lines(
        "curved", "{f}.sin()", "{f}.cos()", "{f}.tanh()", "{f}.sigmoid()", weight=2
    ),
    *_lines("curved", "{f}.atan()", "{f}.erf()", "F.silu({f})", "F.softplus({f})"),
    *_lines("cancelling", "F.gelu({f})", "F.gelu({f}, approximate='tanh')"),
    *_lines(
        "curved", "{f}.clamp(max=2).exp()", "{f}.clamp(max=2).expm1()", "F.elu({f})"
    ),
    *_lines("curved", "{f}.abs().log1p()", "{f}.asinh()", "F.mish({f})", "F.selu({f})"),
    *_lines("curved", "({f}.abs() + 1).log()", "({f}.abs() + 1).rsqrt()"),
    *_lines(
        "curved",
        "F.logsigmoid({f}.contiguous())",
        "F.hardswish({f})",
        "F.softsign({f})",
    ),
    *_lines("curved", "({f}.abs() + 1).sqrt()", "{f} / ({f}.abs() + 1)"),
    *_lines("curved_signed", "{f}.exp()", "{f}.log()", "{f}.log2()", "{f}.exp2()"),
    *_lines("curved_signed", "{f}.tan()", "{f}.asin()", "{f}.acosh()", "{f}.atanh()"),
    *_lines("curved_signed", "{f}.sinh()", "{f}.cosh()", "{f}.log10()", "{f}.erfc()"),
    *_lines("curved_signed", "torch.atan2({f}, {f})", "torch.hypot({f}, {f})"),
    *_lines(
        "curved_signed",
        "torch.pow({f}.abs(), 1.5)",
        "{f}.lgamma()",
        "{f}.sqrt()",
        "{f}.rsqrt()",
        "{f} ** 3",
    ),
    *_lines("curved_signed", "torch.xlogy({f}, {f})", "torch.logaddexp({f}, {f})"),
]

VIEWS = [
    *_lines("moved", "{x}.transpose(<dim>, <dim>)", "{x}.permute(<order>)", weight=5),
    *_lines("moved", "{x}.reshape(<shape>)", "{x}.flatten()", weight=6),
    *_lines("moved", "{x}.unsqueeze(<newdim>)", "{x}.squeeze()", "{x}.squeeze(<dim>)"),
    *_lines(
        "moved", "{x}.expand(<wider>)", "{x}.flip(<dims>)", "{x}.repeat(<repeats>)"
    ),
    *_lines("moved", "{x}.narrow(<dim, range>)", "{x}[<slices>]", weight=6),
    *_lines("moved", "{x}.select(<dim, index>)", "{x}.roll(<small>, <dim>)"),
    *_lines("moved", "{x}.unfold(<dim, window>)", "{x}.diagonal()", "{x}.contiguous()"),
    *_lines("moved", "{x}.movedim(<dim>, <dim>)", "{x}.unbind(<dim>)[<index>]"),
    *_lines("moved", "{x}.chunk(2, <dim>)[0]", "{x}.split(2, <dim>)[-1]"),
    *_lines("moved", "torch.tril({n})", "torch.triu({n}, 1)", "torch.rot90({x})"),
    *_lines(
        "moved", "torch.cat([{x}, {x}], <dim>)", "torch.stack([{x}, {x}], <newdim>)"
    ),
    *_lines("moved", "torch.cat([{x}, {x}, {x}], <dim>)", weight=3),
    *_lines("moved", "F.pad({n}, <pads>)", "F.pad({n}, <pads>, value=<number>)"),
    *_lines(
        "moved", "torch.broadcast_to({x}, <wider>)", "{x}.repeat_interleave(2, <dim>)"
    ),
    *_lines("moved", "{x}.view_as({x}.clone())", "torch.meshgrid({x}, {x})[0]"),
    *_lines("moved", "torch.cat([{x}[<slices>], {x}], <dim>)[<slices>]", weight=3),
    *_lines("moved", "torch.stack([{x}, {x}, {0}], <newdim>)[<slices>]"),
    *_lines("moved", "torch.cat([{x}, {0}.flip(0)])", "torch.hstack([{x}, {x}])"),
    *_lines("moved", "{x}.mT.flip(-1)", "{x}.flip(<dims>).mT", "{x}[::2].flip(0)"),
    *_lines("moved", "{n}.masked_fill({0}.amax(-1, keepdim=True) > 1, <number>)"),
    *_lines("moved", "torch.where({b}.unsqueeze(-1), {x}, {x})", weight=3),
    *_lines("moved", "torch.where({b}.unsqueeze(0), {x}, <number>)"),
    *_lines("moved", "F.pad({f}.unsqueeze(0), (1, 2), mode='<edge>')"),
    *_lines("moved", "{x}.contiguous().as_strided(<restride>)", "{x}.tile(<repeats>)"),
]

REDUCTIONS = [
    *_lines("summed", "{n}.sum()", "{n}.sum(<dims>)", weight=5),
    *_lines("summed", "{n}.sum(<dims>, keepdim=True)", "{b}.sum(<dim>)", weight=4),
    *_lines("chosen", "{n}.amax(<dims>)", "{n}.amin(<dims>, keepdim=True)", weight=4),
    *_lines(
        "chosen", "{n}.max()", "{n}.min()", "{n}.max(<dim>)[0]", "{n}.min(<dim>)[0]"
    ),
    *_lines(
        "jumps", "{n}.argmax(<dim>)", "{n}.argmin(<dim>)", "{n}.argmax()", weight=2
    ),
    *_lines(
        "jumps", "{n}.max(<dim>)[1]", "{x}.any(<dim>)", "{x}.all(<dim>)", "{b}.any()"
    ),
    *_lines(
        "jumps", "{i}.prod(<dim>)", "{n}.count_nonzero(<dim>)", "{i}.cumsum(<dim>)"
    ),
    *_lines("averaged", "{f}.mean(<dims>)", "{f}.mean(<dim>, keepdim=True)", weight=3),
    *_lines(
        "averaged", "{f}.var(<dims>, correction=0)", "{f}.std(<dim>)", "{f}.norm()"
    ),
    *_lines("averaged", "F.softmax({f}, <dim>)", "F.log_softmax({f}, <dim>)", weight=3),
    *_lines("averaged", "torch.logsumexp({f}, <dim>)", "{f}.norm(dim=<dim>)"),
    *_lines(
        "averaged",
        "F.layer_norm({f}, {f}.shape[-1:])",
        "F.rms_norm({f}, {f}.shape[-1:])",
    ),
    *_lines("summed", "torch.einsum('...i->...', {f})", "{n}.sum(0, keepdim=True)"),
    *_lines("averaged", "torch.var_mean({f}, <dim>)[0]", "{f}.std(<dims>)"),
    *_lines("averaged", "F.group_norm({f}.unsqueeze(0), 1)"),
    *_lines("averaged", "F.normalize({f}, dim=<dim>)", "{f}.norm(1, <dim>)"),
    *_lines("multiplied", "{n}.clamp(-1, 1).prod(<dim>)", "{n}.clamp(-1, 1).prod()"),
]

SCANS = [
    *_lines("scanned", "{n}.cumsum(<dim>)", "{b}.cumsum(<dim>)", weight=3),
    *_lines("scanned", "{n}.flip(-1).cumsum(-1).flip(-1)", "{n}.flip(0).cumsum(0)"),
    *_lines("scanned", "{n}.cumsum(<dim>).flip(0)", "{n}.mT.cumsum(<dim>)"),
    *_lines("multiplied", "{n}.clamp(-1, 1).cumprod(<dim>)"),
    *_lines("multiplied", "{n}.clamp(-1, 1).flip(0).cumprod(0).flip(0)"),
    *_lines("chosen", "{n}.cummax(<dim>)[0]", "{n}.cummin(<dim>)[0]"),
    *_lines("jumps", "{n}.cummax(<dim>)[1]", "{n}.cummin(<dim>)[1]"),
    *_lines("chosen", "{n}.flip(-1).cummax(-1)[0].flip(-1)"),
    *_lines("jumps", "{n}.flip(0).cummin(0)[1].flip(0)"),
    *_lines("averaged", "torch.logcumsumexp({f}, <dim>)"),
    *_lines("averaged", "{f}.flip(0).logcumsumexp(0).flip(0)"),
]

INDEXING = [
    *_lines("moved", "{x}.gather(<dim>, <indices of x>)", weight=4),
    *_lines("moved", "{x}.index_select(<dim>, <indices>)", "{x}[<indices>]", weight=4),
    *_lines(
        "moved", "{x}[:, <indices>]", "{x}[..., <indices>]", "{x}[<indices>, <indices>]"
    ),
    *_lines(
        "moved",
        "{x}.take(<indices>)",
        "torch.take_along_dim({x}, <indices of x>, <dim>)",
    ),
    *_lines("moved", "torch.select_scatter({x}, {x}.select(0, 0), <dim, index>)"),
    *_lines("moved", "torch.slice_scatter({x}, {x}[1:3].clone(), 0, 1, 3)"),
    *_lines("moved", "F.embedding(<rows>, {f})", "{x}[<rows>]", weight=4),
    *_lines("moved", "{x}.index_select(0, <rows>)", "{x}[<rows>].mT", "{x}.mT[<rows>]"),
    *_lines("moved", "{x}[<permutation>]", "{x}[<rows>][..., <indices>]"),
]

SCATTERS = [
    *_lines("moved", "{x}.index_copy(0, <permutation>, {x})"),
    *_lines("moved", "{x}.index_put((<permutation>,), {x})"),
    *_lines("moved", "{x}.scatter(<dim, permutation of x>, {x})"),
    *_lines("moved", "{n}.scatter(<dim>, <indices of x>, <number>)"),
    *_lines("moved", "{n}.index_fill(0, <rows>, <number>)"),
    *_lines("moved", "torch.diagonal_scatter({x}, {0}.diagonal().flip(-1))"),
    *_lines("accumulated", "{n}.scatter_add(<dim>, <indices of x>, {n})", weight=3),
    *_lines("accumulated", "{n}.index_add(0, <rows>, {n}[<rows>])", weight=3),
    *_lines(
        "accumulated",
        "{n}.index_put((<rows>,), {n}.select(0, 0), accumulate=True)",
        "{n}.index_put((<rows>, <rows>), {n}.select(0, 0)[0], accumulate=True)",
    ),
    *_lines("chosen", "{n}.scatter_reduce(<dim>, <indices of x>, {n}, 'amax')"),
    *_lines("chosen", "{n}.scatter_reduce(<dim>, <indices of x>, {n}, 'amin')"),
    *_lines("chosen", "{n}.index_reduce(0, <permutation>, {n}, 'amax')"),
]

FOREACH = [
    *_lines("rounded", "torch._foreach_add([{n}, {n}], [{n}, {n}])[1]"),
    *_lines("product", "torch._foreach_mul([{n}, {n}], <number>)[0]"),
    *_lines("product", "torch._foreach_addcmul([{f}], [{f}], [{f}])[0]"),
    *_lines("product", "torch._foreach_lerp([{f}, {f}], [{f}, {f}], 0.25)[1]"),
    *_lines("divided", "torch._foreach_div([{f}, {f}], [{f}, {f}])[0]"),
    *_lines("chosen", "torch._foreach_maximum([{n}, {n}], [{n}, {n}])[0]"),
    *_lines("moved", "torch.cat(torch._foreach_neg([{n}, {n}]))"),
    *_lines("curved", "torch._foreach_sqrt(torch._foreach_abs([{f}, {f}]))[1]"),
    *_lines("averaged", "torch.stack(torch._foreach_norm([{f}, {f}]))"),
]

CONTRACTIONS = [
    *_lines("contracted", "{n:mk} @ {n:kn}", weight=8),
    *_lines("contracted", "{n:mk} @ {n:nk}.mT", "{n:km}.mT @ {n:kn}", weight=4),
    *_lines("contracted", "{n:mk} @ {0}.mT", "{n:mm} @ {0}", "{f} @ {f}", "{i} @ {i}"),
    *_lines("contracted", "({f:mk} * 0.0625) @ {f:kn}", weight=6),
    *_lines("contracted", "torch.mm({n:mk}, {n:kn}).mT", "{n:mk}.mm({n:nk}.t())"),
    *_lines("contracted", "torch.mv({n:mk}, {n:k})", "{n:km}.t().mv({n:k})"),
    *_lines(
        "contracted", "torch.dot({n:k}, {n:k})", "{n:k} @ {n:kn}", "{n:mk} @ {n:k}"
    ),
    *_lines("contracted", "torch.outer({n:m}, {n:n})", "{n:m1} @ {n:1n}"),
    *_lines("contracted", "torch.inner({n:mk}, {n:nk})"),
    *_lines("contracted", "torch.bmm({n:bmk}, {n:bkn})", weight=4),
    *_lines("contracted", "torch.bmm({n:bmk}, {n:bnk}.mT)", "{n:bmk} @ {n:bkn} / 16"),
    *_lines("contracted", "{n:bmk} @ {n:kn}", "{n:mk} @ {n:bkn}", weight=3),
    *_lines("contracted", "{n:bmk} @ {n:1kn}", "{n:bmk} @ {n:k}", "{n:k} @ {n:bkn}"),
    *_lines("contracted", "{n:abmk} @ {n:bkn}", "{n:abmk} @ {n:a1kn}"),
    *_lines("contracted", "{n:a1mk} @ {n:1bkn}", "({f:abmk} / 8) @ {f:abnk}.mT"),
    *_lines("contracted", "F.linear({n:*k}, {n:nk})", weight=4),
    *_lines("contracted_twice", "F.linear({f:*k}, {f:nk}, {f:n})", weight=4),
    *_lines("contracted_twice", "F.linear({f:*k}, {f:nk}, {f:n}) * 0.125", weight=2),
    *_lines("contracted_twice", "torch.addmm({n:n}, {n:mk}, {n:kn})", weight=3),
    *_lines("contracted_twice", "torch.addmm({n:mn}, {n:mk}, {n:nk}.t())", weight=2),
    *_lines("contracted_twice", "torch.addmm({n:m1}, {n:mk}, {n:kn}, beta=3, alpha=2)"),
    *_lines("contracted_twice", "torch.addmm({f:1n}, {f:mk}, {f:kn}, alpha=0.25)"),
    *_lines("contracted_twice", "torch.addmm({f:mn}, {f:mk}, {f:kn}, beta=0)"),
    *_lines("contracted_twice", "torch.baddbmm({n:bmn}, {n:bmk}, {n:bkn})", weight=2),
    *_lines("contracted_twice", "torch.baddbmm({f:n}, {f:bmk}, {f:bkn}, alpha=0.125)"),
    *_lines("contracted_twice", "torch.baddbmm({n:b1n}, {n:bmk}, {n:bnk}.mT, beta=2)"),
    *_lines("contracted_twice", "torch.addmv({n:m}, {n:mk}, {n:k})"),
    *_lines("contracted_twice", "torch.addr({n:mn}, {n:m}, {n:n})"),
    *_lines("contracted_twice", "torch.addbmm({f:mn}, {f:bmk}, {f:bkn})"),
    *_lines("contracted_twice", "{f:mn} + {f:mk} @ {f:kn}", "{n:mk} @ {n:kn} @ {n:nj}"),
    *_lines("contracted", "torch.einsum('ik,kj->ij', {n:ik}, {n:kj})", weight=2),
    *_lines("contracted", "torch.einsum('ik,jk->ji', {n:ik}, {n:jk})"),
    *_lines("contracted", "torch.einsum('ki,kj->ij', {n:ki}, {n:kj})"),
    *_lines("contracted", "torch.einsum('bik,bjk->bij', {n:bik}, {n:bjk})"),
    *_lines("contracted", "torch.einsum('bik,kj->ibj', {n:bik}, {n:kj})"),
    *_lines("contracted", "torch.einsum('abc,bcd->ad', {n:abc}, {n:bcd})"),
    *_lines("contracted", "torch.einsum('abc,cd->abd', {n:abc}, {n:cd})"),
    *_lines("contracted", "torch.einsum('ij,ij->i', {n:ij}, {n:ij})"),
    *_lines("contracted", "torch.einsum('bij,bij->', {n:bij}, {n:bij})"),
    *_lines("contracted", "torch.einsum('ij,j->i', {n:ij}, {n:j})"),
    *_lines("contracted", "torch.einsum('i,j->ji', {n:i}, {n:j})"),
    *_lines("contracted", "torch.einsum('bhid,bhjd->bhij', {f:bhid}, {f:bhjd})"),
    *_lines("contracted", "torch.einsum('bij,bjd->bid', {f:bij}, {f:bjd})"),
    *_lines("contracted", "torch.einsum('...ik,kj->...ij', {n:*ik}, {n:kj})"),
    *_lines(
        "contracted_twice",
        "torch.einsum('ij,jk,kl->il', {n:ij}, {n:jk}, {n:kl})",
        "torch.einsum('bi,oij,bj->bo', {n:bi}, {n:oij}, {n:bj})",
    ),
    *_lines("contracted", "torch.tensordot({n:ajk}, {n:jkb}, 2)"),
    *_lines("contracted", "({n:mk}.unsqueeze(-1) * {n:kn}).sum(1)"),
    *_lines("contracted", "({n:mk}.unsqueeze(1) * {n:nk}).sum(-1)"),
]

UPDATES = [
    *_lines(
        "written", "{x}.add_({x})", "{n}.mul_(<number>)", "{x}.copy_({x})", weight=2
    ),
    *_lines(
        "written", "{x}[<slices>].copy_({x})", "{n}[<slices>].mul_(2)", "{f}.abs_()"
    ),
    *_lines("written", "{n}.select(<dim, index>).add_(1)", "{n}.t().sub_({n})"),
    *_lines(
        "written", "{x}.zero_()", "{n}.fill_(<number>)", "{n}.neg_()", "{f}.relu_()"
    ),
    *_lines(
        "written", "{x}.masked_fill_({b}, 0)", "{n}.transpose(<dim>, <dim>).add_({n})"
    ),
    *_lines(
        "written",
        "{x}.view(-1)[<slice0>].zero_()",
        "{x}.index_fill_(<dim>, <indices>, 1)",
    ),
    *_lines(
        "written",
        "{n}.index_add_(<dim>, <indices>, {n})",
        "{x}.swapaxes(0, -1).copy_({x})",
    ),
    *_lines("written", "torch._foreach_add_([{x}, {x}], [{x}, {x}])[0]"),
    *_lines("written", "torch._foreach_mul_([{n}, {n}], 2)[1]", "{x}.flip(0).zero_()"),
    *_lines("written", "{x}.scatter_(<dim>, <indices of x>, 1)", "{b}.logical_not_()"),
    *_lines("written", "{x}.index_put_((<permutation>,), {x})", "{n}.clamp_(-2, 5)"),
    *_lines("written", "{x}.diagonal().zero_()", "{x}.unsqueeze(0).add_({x})"),
    *_lines("written", "{x}.narrow(<dim, range>).copy_({x}.narrow(<dim, range>))"),
    *_lines("written", "{i:mn}.addmm_({i:mk}, {i:kn})"),
    *_lines("written", "{i}.cumsum_(<dim>)", "{x}.masked_fill_({b}.unsqueeze(-1), 1)"),
]
