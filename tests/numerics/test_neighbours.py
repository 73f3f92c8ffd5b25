"""The neighbour of a float is one of its own type, in the oracle as well."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusec.ir.dtypes import DType, bf16, f16, f32, f64
from fusec.ir.ops.encoding import Nextafter

SPECIAL = [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-40, 3.3895e38]
KINDS = {
    f64: torch.float64,
    f32: torch.float32,
    f16: torch.float16,
    bf16: torch.bfloat16,
}


@pytest.mark.parametrize("dtype", KINDS, ids=lambda dtype: dtype.name)
def test_of_all_pairs(dtype: DType) -> None:
    torch.manual_seed(0)
    points = torch.tensor([*torch.randn(200).tolist(), *SPECIAL, -1e-40, -3.3895e38])
    points = points.to(KINDS[dtype])
    x, y = torch.meshgrid(points, points, indexing="ij")
    wanted = torch.nextafter(x, y)
    carried = [each.to(torch.float32) if dtype is bf16 else each for each in (x, y)]
    got = Nextafter.reference(dtype, *(each.numpy() for each in carried))
    np.testing.assert_array_equal(got, wanted.to(carried[0].dtype).numpy())
    signs = np.signbit(got) == torch.signbit(wanted).numpy()
    assert (signs | np.isnan(got)).all()
