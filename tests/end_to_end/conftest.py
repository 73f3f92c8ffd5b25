"""Through the whole compiler and back: a call, compared with eager torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

import fusec

Agree = Callable[..., Any]


@pytest.fixture
def agree(tmp_path: Path) -> Agree:
    """`agree(f, *args, …)`: f compiled by fusec does what f does; its result.

    Results are compared, what became of the arguments, and who shares memory. No graph
    may have run through ATen for a bug of ours. `f` is a function or a module; `exact`
    compares every bit, `options` are fusec's, others torch.compile's.
    """
    torch._dynamo.reset()

    def run(
        f: Any,
        *args: Any,
        exact: bool = False,
        options: dict[str, Any] | None = None,
        **compile: Any,
    ) -> Any:
        chosen = {"cache_dir": tmp_path, **(options or {})}
        ours = torch.compile(f, backend=fusec.backend, options=chosen, **compile)
        expected_args, actual_args = copy.deepcopy(args), copy.deepcopy(args)
        expected = f(*expected_args)
        result = ours(*actual_args)
        bugs = [path.read_text() for path in tmp_path.glob("reproducers/*")]
        assert not bugs, bugs[0]
        same(result, expected, exact=exact)
        same(actual_args, expected_args, exact=exact)
        shared = memory((result, actual_args)), memory((expected, expected_args))
        for ours, theirs in zip(*shared, strict=True):
            assert ours <= theirs, "results share memory that eager's do not"
        count = len(pytree.tree_leaves(args))
        for ours, theirs in zip(*(s[-count:] for s in shared), strict=True):
            assert ours == theirs, "a view of an argument is a copy, or the reverse"
        return result

    return run


def same(got: Any, want: Any, *, exact: bool = False) -> None:
    """Equal or close, in values, dtypes and strides."""
    close = {"rtol": 0, "atol": 0} if exact else {}
    leaves, wanted = pytree.tree_leaves(got), pytree.tree_leaves(want)
    assert len(leaves) == len(wanted)
    for a, b in zip(leaves, wanted, strict=True):
        if not isinstance(b, torch.Tensor):
            assert a == b
            continue
        torch.testing.assert_close(a, b, equal_nan=True, **close)
        if b.numel():
            assert a.stride() == b.stride()


def memory(tree: Any) -> list[set[int]]:
    """For each tensor of a tree, which of them lie in the same memory."""
    leaves = pytree.tree_leaves(tree)
    storages = [
        x.untyped_storage() if isinstance(x, torch.Tensor) else None for x in leaves
    ]
    places = [s.data_ptr() if s is not None and s.nbytes() else None for s in storages]
    return [
        {k for k, other in enumerate(places) if other == place} if place else set()
        for place in places
    ]
