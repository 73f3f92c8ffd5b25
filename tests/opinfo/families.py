"""What kind of op each entry of torch's database is about.

The database's own classes say it of most; a table says it of the rest. What is in
neither is `OTHER`.
"""

from __future__ import annotations

from typing import Any

from torch.testing._internal.opinfo.core import (
    BinaryUfuncInfo,
    ReductionOpInfo,
    ShapeFuncInfo,
    SpectralFuncInfo,
    UnaryUfuncInfo,
)

UNARY, BINARY, REDUCTION = "pointwise unary", "pointwise binary", "reduction"
POINTWISE, SCAN, VIEW, INDEX, PAD = "pointwise", "scan", "view", "index", "pad"
CREATION, RANDOM, NORM, LOSS = "creation", "random", "normalisation", "loss"
WINDOW, SORT, CONTRACTION = "window", "sort", "contraction"
LINEAR_ALGEBRA, SPECTRAL, MODULE = "linear algebra", "spectral", "module"
COMPLEX, OTHER = "complex", "other"

CLASSES = {
    UnaryUfuncInfo: UNARY,
    BinaryUfuncInfo: BINARY,
    ReductionOpInfo: REDUCTION,
    ShapeFuncInfo: VIEW,
    SpectralFuncInfo: SPECTRAL,
}

NAMES = {
    POINTWISE: """
        addcdiv addcmul clamp lerp logaddexp2 masked.logaddexp
        masked_fill nn.functional.gelu nn.functional.glu nn.functional.hardswish
        nn.functional.leaky_relu to where
        zero_ native_dropout_backward
    """,
    REDUCTION: """
        allclose aminmax dist equal logsumexp max.reduction_no_dim
        max.reduction_with_dim min.reduction_no_dim min.reduction_with_dim
        norm norm.fro norm.inf std_mean std_mean.unbiased trace trapezoid trapz
        var_mean var_mean.unbiased
    """,
    SCAN: """
        cummax cummin cumprod cumsum cumulative_trapezoid logcumsumexp masked.cumprod
        masked.cumsum
    """,
    VIEW: """
        H T alias_copy as_strided as_strided.partial_views as_strided_copy atleast_1d
        atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to cartesian_prod
        cat chunk clone column_stack contiguous diag diag_embed diagonal diagonal_copy
        diagflat diff dsplit dstack expand expand_as expand_copy fft.fftshift
        fft.ifftshift flatten flip fliplr flipud gradient hsplit hstack
        linalg.diagonal mH mT meshgrid.list_of_tensors meshgrid.variadic_tensors
        movedim narrow narrow_copy nn.functional.channel_shuffle
        nn.functional.pixel_shuffle nn.functional.pixel_unshuffle permute
        permute_copy ravel repeat_interleave reshape reshape_as resolve_conj
        resolve_neg roll rot90 select slice split split.list_args split_with_sizes
        split_with_sizes_copy squeeze squeeze.multiple squeeze_copy stack
        sum_to_size swapaxes t t_copy tensor_split transpose transpose_copy tril triu
        unbind unbind_copy unflatten unfold unfold_copy unsafe_chunk unsafe_split
        unsqueeze unsqueeze_copy view view_as view_copy vsplit vstack _chunk_cat
    """,
    INDEX: """
        __getitem__ as_strided_scatter bucketize diagonal_scatter gather index_add
        index_copy index_fill index_put index_reduce.amax index_reduce.amin
        index_reduce.mean index_reduce.prod index_select masked_scatter
        nn.functional.embedding nn.functional.one_hot put scatter scatter_add
        scatter_reduce.amax scatter_reduce.amin scatter_reduce.mean
        scatter_reduce.prod scatter_reduce.sum select_scatter slice_scatter take
        take_along_dim unravel_index _unsafe_masked_index
        _unsafe_masked_index_put_accumulate
    """,
    PAD: """
        constant_pad_nd nn.functional.pad.circular nn.functional.pad.constant
        nn.functional.pad.reflect nn.functional.pad.replicate
        nn.functional.pad.replicate_negative
    """,
    CREATION: """
        arange empty empty_like empty_permuted empty_strided eye full full_like linspace
        linspace.tensor_overload logspace logspace.tensor_overload new_empty
        new_empty_strided new_full new_ones new_zeros ones ones_like scalar_tensor
        signal.windows.bartlett signal.windows.blackman signal.windows.cosine
        signal.windows.exponential signal.windows.gaussian
        signal.windows.general_cosine signal.windows.general_hamming
        signal.windows.hamming signal.windows.hann signal.windows.kaiser
        signal.windows.nuttall tril_indices triu_indices zeros zeros_like
    """,
    RANDOM: """
        bernoulli cauchy exponential geometric log_normal multinomial
        nn.functional.alpha_dropout nn.functional.dropout nn.functional.dropout2d
        nn.functional.dropout3d nn.functional.feature_alpha_dropout.with_train
        nn.functional.feature_alpha_dropout.without_train normal normal.in_place
        normal.number_mean rand_like randint randint_like randn randn_like uniform
    """,
    NORM: """
        _batch_norm_with_update _native_batch_norm_legit _softmax_backward_data
        log_softmax log_softmax.with_dtype masked.log_softmax masked.normalize
        masked.softmax masked.softmin native_batch_norm native_group_norm
        native_layer_norm nn.functional.batch_norm
        nn.functional.batch_norm.without_cudnn nn.functional.cosine_similarity
        nn.functional.group_norm nn.functional.instance_norm nn.functional.layer_norm
        nn.functional.local_response_norm nn.functional.normalize
        nn.functional.rms_norm nn.functional.softmin nn.functional.softmin.with_dtype
        renorm softmax softmax.with_dtype torch.ops.aten._safe_softmax.default
    """,
    LOSS: """
        nn.functional.binary_cross_entropy
        nn.functional.binary_cross_entropy_with_logits
        nn.functional.cosine_embedding_loss nn.functional.cross_entropy
        nn.functional.gaussian_nll_loss nn.functional.hinge_embedding_loss
        nn.functional.huber_loss nn.functional.kl_div nn.functional.l1_loss
        nn.functional.margin_ranking_loss nn.functional.mse_loss
        nn.functional.multi_margin_loss nn.functional.multilabel_margin_loss
        nn.functional.multilabel_soft_margin_loss nn.functional.nll_loss
        nn.functional.pairwise_distance nn.functional.poisson_nll_loss
        nn.functional.smooth_l1_loss nn.functional.soft_margin_loss
        nn.functional.triplet_margin_loss
        nn.functional.triplet_margin_with_distance_loss
    """,
    WINDOW: """
        _upsample_bilinear2d_aa grid_sampler_2d grid_sampler_3d
        max_pool2d_with_indices_backward nn.functional.grid_sample
        nn.functional.unfold nn.functional.upsample_bilinear
        nn.functional.upsample_nearest
    """,
    SORT: """
        argsort kthvalue median mode msort nanmedian nanquantile quantile searchsorted
        sort topk unique unique_consecutive masked.median
    """,
    CONTRACTION: """
        __rmatmul__ addbmm addmm addmm.decomposed addmv addr baddbmm bmm corrcoef cov
        dot einsum inner kron linalg.multi_dot linalg.vecdot matmul mm mv
        nn.functional.bilinear nn.functional.linear
        nn.functional.linear_cross_entropy
        nn.functional.linear_cross_entropy.chunked
        nn.functional.linear_cross_entropy.chunked_none
        nn.functional.multi_head_attention_forward
        nn.functional.scaled_dot_product_attention outer tensordot vdot
    """,
    LINEAR_ALGEBRA: """
        cholesky cholesky_inverse cholesky_solve geqrf linalg.cross cross logdet lu
        lu_solve lu_unpack matrix_exp norm.nuc ormqr pca_lowrank pinverse qr svd
        svd_lowrank triangular_solve
    """,
    SPECTRAL: "istft stft",
    # Their results are complex, which fusec hands from call to call of ATen.
    COMPLEX: "cdouble cfloat chalf complex polar view_as_complex view_as_real",
}

PREFIXES = {
    "linalg.": LINEAR_ALGEBRA,
    "nn.functional.adaptive_": WINDOW,
    "nn.functional.avg_pool": WINDOW,
    "nn.functional.conv": WINDOW,
    "nn.functional.fractional_max_pool": WINDOW,
    "nn.functional.interpolate": WINDOW,
    "nn.functional.max_pool": WINDOW,
    "nn.functional.max_unpool": WINDOW,
}

FAMILY_OF = {name: family for family, names in NAMES.items() for name in names.split()}


def family_of(op: Any, name: str) -> str:
    """The family of an OpInfo, whose name includes its variant's."""
    if name in FAMILY_OF:
        return FAMILY_OF[name]
    for class_, family in CLASSES.items():
        if isinstance(op, class_):
            return family
    return next((f for p, f in PREFIXES.items() if name.startswith(p)), OTHER)
