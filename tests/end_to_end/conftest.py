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
from fusec.counters import statistics
from fusec.logs import forget_warnings

Agree = Callable[..., Any]


class Comparison:
    """A function or module, and the same compiled by fusec, to be called alike.

    Every call compares results, what became of the arguments and of the module's
    weights, who shares memory, and gradients where `backward` is asked for. No graph
    may have run through ATen as a whole, nor anything have been warned of.
    """

    def __init__(
        self,
        f: Any,
        folder: Path,
        warnings: Callable[[], list[str]],
        before: int,
        options: dict[str, Any] | None = None,
        **compile: Any,
    ) -> None:
        chosen = {"cache_dir": folder, **(options or {})}
        self.theirs, self.mine = copy.deepcopy(f), copy.deepcopy(f)
        self.ours = torch.compile(
            self.mine, backend=fusec.backend, options=chosen, **compile
        )
        self._folder = folder
        self._warnings = warnings
        self._before = before

    @property
    def compilations(self) -> int:
        """The graphs that fusec compiled in this test."""
        return statistics().compilations - self._before

    def __call__(self, *args: Any, exact: bool = False, backward: bool = False) -> Any:
        """Call both; fusec's result. `exact` compares every bit."""
        expected_args, actual_args = copy.deepcopy(args), copy.deepcopy(args)
        expected = _run(self.theirs, expected_args, backward)
        result = _run(self.ours, actual_args, backward)
        self.assert_compiled()
        same(result, expected, exact=exact)
        same(actual_args, expected_args, exact=exact)
        same(_state(self.mine, actual_args), _state(self.theirs, expected_args))
        _assert_shared(args, (result, actual_args), (expected, expected_args))
        return result

    def assert_compiled(self) -> None:
        """fusec compiled something, and nothing went wrong."""
        bugs = [path.read_text() for path in self._folder.glob("reproducers/*")]
        assert not bugs, bugs[0]
        assert not self._warnings(), self._warnings()[0]
        assert self.compilations > 0


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same numbers, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What fusec has warned of in this test."""
    forget_warnings()

    def found() -> list[str]:
        records = [r for r in caplog.records if r.name.startswith("fusec")]
        return [r.getMessage() for r in records if r.levelname == "WARNING"]

    return found


@pytest.fixture
def compare(
    tmp_path: Path, warnings: Callable[[], list[str]]
) -> Callable[..., Comparison]:
    """`compare(f, …)`: a `Comparison` of f. `options` are fusec's, others compile's."""
    torch._dynamo.reset()
    before = statistics().compilations
    return lambda f, **settings: Comparison(f, tmp_path, warnings, before, **settings)


@pytest.fixture
def agree(compare: Callable[..., Comparison]) -> Agree:
    """`agree(f, *args, …)`: f compiled by fusec does what f does; its result."""

    def run(
        f: Any, *args: Any, exact: bool = False, backward: bool = False, **settings: Any
    ) -> Any:
        return compare(f, **settings)(*args, exact=exact, backward=backward)

    return run


def _run(f: Any, args: Any, backward: bool) -> Any:
    """Call, and go backward from every result that has a gradient."""
    torch.manual_seed(0)
    result = f(*args)
    if backward:
        leaves = [x for x in pytree.tree_leaves(result) if isinstance(x, torch.Tensor)]
        roots = [x for x in leaves if x.requires_grad]
        assert roots, "no result depends on what requires a gradient"
        torch.autograd.backward(roots, [torch.randn_like(x) for x in roots])
    return result


def _state(f: Any, args: Any) -> list[Any]:
    """The gradients of arguments, and a module's weights, buffers and gradients."""
    tensors = [x for x in pytree.tree_leaves(args) if isinstance(x, torch.Tensor)]
    own: list[Any] = []
    if isinstance(f, torch.nn.Module):
        tensors += f.parameters()
        own = [*f.parameters(), *f.buffers()]
    return [*own, *(x.grad for x in tensors if x.is_leaf)]


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
        assert a.requires_grad == b.requires_grad
        if b.numel():
            assert a.stride() == b.stride()


def _assert_shared(args: Any, ours: Any, theirs: Any) -> None:
    """Results share memory only where eager's do; with arguments, exactly there."""
    shared = memory(ours), memory(theirs)
    for mine, eager in zip(*shared, strict=True):
        assert mine <= eager, "results share memory that eager's do not"
    count = len(pytree.tree_leaves(args))
    for mine, eager in zip(*(s[-count:] for s in shared), strict=True):
        assert mine == eager, "a view of an argument is a copy, or the reverse"


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
