"""What fuzzing found, made small: each program once differed from eager torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from end_to_end.conftest import Agree

EMPTY = torch.empty(0, 2)
INDEX = torch.arange(33 * 33).reshape(33, 33)

FOUND: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "a flat view of nothing": (lambda x: x.exp().flatten(), (EMPTY,)),
    "nothing, repeated": (lambda x: x.flatten().repeat(1, 1), (EMPTY,)),
    "nothing, at the end": (
        lambda x: x.narrow(0, 2, 0).repeat_interleave(2, 0),
        (torch.ones(2),),
    ),
    "checks of a last, partial block": (
        lambda x: x.take((x % 33 - 5).flatten()) + x.take((x % 7).flatten()),
        (INDEX,),
    ),
}


@pytest.mark.parametrize("verify", [False, True], ids=["fast", "verified"])
@pytest.mark.parametrize("name", FOUND)
def test_what_fuzzing_found(agree: Agree, name: str, verify: bool) -> None:
    f, args = FOUND[name]
    agree(f, *args, options={"verify": verify})
