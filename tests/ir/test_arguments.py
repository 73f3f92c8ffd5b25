"""Arguments for functions that were read: sizes that there is no memory for."""

from __future__ import annotations

import pytest
from texts import read

from fusec.errors import UserError
from fusec.ir.arguments import random_arguments


@pytest.mark.parametrize("shape", ["n, 3", "n, 0", "n, n", "0, n"])
@pytest.mark.parametrize("n", [1 << 33, 1 << 62, 1 << 70])
def test_too_many_elements_are_refused(shape: str, n: int) -> None:
    """Also where none of them exist: numpy counts dimensions."""
    text = f"graph @f(%x: f32[{shape}]) -> (f32[{shape}]) symbols [n] {{ yield %x }}"
    with pytest.raises(UserError, match="no memory for arguments"):
        random_arguments(read(text), sizes={"n": n})
    (x,) = random_arguments(read(text), sizes={"n": 5})
    assert x.size in (0, 15, 25)
