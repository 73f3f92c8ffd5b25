"""Threads, calls within calls, and children of a fork."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from end_to_end.conftest import Comparison
from torch.utils.data import DataLoader, Dataset

import fusec
from fusec import counters
from fusec.ir import expr
from fusec.ir.dims import Symbol

DEADLINE = 60
"""Seconds after which a thread or a child counts as hanging."""

W = torch.randn(12, 12, generator=torch.Generator().manual_seed(0)) * 0.3


def model(x: torch.Tensor) -> torch.Tensor:
    """Kernels and a product, with intermediates in the arena."""
    return ((x @ W).softmax(1) * x.exp()).sum(1)


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[..., Any]:
    """`compiled(f)`: f compiled by fusec, in a cache of the test's own."""
    torch._dynamo.reset()
    options = {"cache_dir": tmp_path}
    return lambda f: torch.compile(f, backend=fusec.backend, options=options)


def at_once(works: list[Callable[[], Any]]) -> list[Any]:
    """What these give, each in a thread, begun together; raises what one raises."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:
        start.wait(DEADLINE)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(run, work) for work in works]
        return [future.result(DEADLINE) for future in futures]


def test_threads_run_one_program_at_once(compiled: Callable[..., Any]) -> None:
    run = compiled(model)
    run(torch.randn(9, 12))

    def work() -> None:
        for _ in range(30):
            x = torch.randn(9, 12)
            torch.testing.assert_close(run(x), model(x))

    at_once([work] * 4)


def test_threads_compile_different_functions_at_once(
    compiled: Callable[..., Any],
) -> None:
    def work(power: int) -> None:
        def f(x: torch.Tensor) -> torch.Tensor:
            return (x**power + power).softmax(1).cumsum(0) * model(x)[:, None]

        run = compiled(f)
        for rows in (3, 8):
            x = torch.rand(rows, 12)
            torch.testing.assert_close(run(x), f(x))

    at_once([lambda power=power: work(power) for power in (2, 3, 4, 5)])


def test_threads_train_copies_at_once(compiled: Callable[..., Any]) -> None:
    """Backward passes are compiled and run on autograd's threads."""
    run = compiled(model)

    def work(seed: int) -> None:
        x = torch.linspace(-1, seed, 60).reshape(5, 12)
        grads: list[Any] = []
        for call in (run, model):
            leaf = x.clone().requires_grad_()
            call(leaf).square().sum().backward()
            grads.append(leaf.grad)
        # Differences of numbers up to some hundreds.
        torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-4)

    at_once([lambda seed=seed: work(seed) for seed in (1, 2, 3)])


def test_a_call_within_a_call_has_memory_of_its_own(
    compare: Callable[..., Comparison],
) -> None:
    """An operator of the user's calls the very program that is calling it."""
    inner: list[Any] = []

    @torch.library.custom_op("fusec_behaviour::again", mutates_args=())
    def again(x: torch.Tensor, depth: int) -> torch.Tensor:
        return inner[0](x, depth - 1) if depth else x.clone()

    @again.register_fake
    def _(x: torch.Tensor, depth: int) -> torch.Tensor:
        return torch.empty_like(x)

    def f(x: torch.Tensor, depth: int) -> torch.Tensor:
        y = (x @ W).tanh()
        z = (y @ W).sin()
        return again(z, depth) + y * 2

    run = compare(f, dynamic=True)
    for depth in (0, 1, 3):
        inner[:] = [f]
        wanted = f(W, depth)
        inner[:] = [run.ours]
        torch.testing.assert_close(run.ours(W, depth), wanted)
    run.assert_compiled()


def test_a_hook_calls_the_model_that_is_going_backward(
    compiled: Callable[..., Any],
) -> None:
    run = compiled(model)
    grads: list[Any] = []
    for call in (run, model):
        x = torch.linspace(-1, 1, 60).reshape(5, 12).requires_grad_()
        y = x * 2
        y.register_hook(lambda grad, call=call: grad + call(grad.detach())[:, None])
        call(y).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


class Rows(Dataset[torch.Tensor]):
    """Items that a compiled function makes, in whatever process asks."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.run(torch.full((6, 12), index / 8))


@pytest.mark.parametrize("compiled_before", [True, False], ids=["before", "in workers"])
def test_forked_workers_of_a_data_loader(
    compiled: Callable[..., Any], compiled_before: bool
) -> None:
    """Programs that were compiled before the fork, and ones compiled after it."""
    run = compiled(model)
    if compiled_before:
        run(torch.ones(6, 12))
        run(torch.randn(400, 12))  # on the threads that a child does not have
    loader = DataLoader(
        Rows(run),
        batch_size=2,
        num_workers=2,
        multiprocessing_context="fork",
        timeout=DEADLINE,
    )
    found = torch.cat(list(loader))
    wanted = torch.stack([model(torch.full((6, 12), k / 8)) for k in range(8)])
    torch.testing.assert_close(found, wanted)
    run(torch.ones(6, 12))


def _makes_new_dims_and_counts() -> None:
    assert str(Symbol("fresh_in_a_child") * 3 + 1) == "3*fresh_in_a_child + 1"
    counters.count(counters.Statistics(kernels=1))


def test_a_fork_while_a_thread_holds_our_locks() -> None:
    """As it may in the middle of a compilation."""
    held, stop = threading.Event(), threading.Event()

    def hold() -> None:
        with expr._interning, counters._counting:
            held.set()
            stop.wait(DEADLINE)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(DEADLINE)
    child = multiprocessing.get_context("fork").Process(
        target=_makes_new_dims_and_counts
    )
    try:
        child.start()
        child.join(DEADLINE)
        assert child.exitcode == 0
    finally:
        child.kill()
        stop.set()
        thread.join()


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
