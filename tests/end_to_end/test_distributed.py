"""Two processes that train together: collectives, DDP and FSDP, compiled.

The processes talk by gloo over this machine's loopback, and meet at a file. A case is a
function of a process's number, which runs in both; what it gives is compared with the
same in eager torch.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import fusec
from fusec.counters import statistics

WORLD = 2
DEADLINE = 100
"""Seconds after which a process that waits for another gives up."""

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()),
    reason="this torch has no gloo",
)

Compile = Callable[..., Any]
Case = Callable[[int, Compile], Any]


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def batch(rank: int, width: int = 8) -> torch.Tensor:
    """Another one in each process."""
    return torch.randn(6, width, generator=torch.Generator().manual_seed(rank))


def train(
    model: nn.Module, call: Callable[..., Any], rank: int, width: int = 8
) -> list[Any]:
    """Three steps; the losses, and the weights in the end."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses: list[Any] = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = call(batch(rank, width)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [*losses, *(_full(p) for p in model.parameters())]


def _full(weight: Any) -> torch.Tensor:
    return getattr(weight, "full_tensor", weight.clone)().detach()


def seeded(count: int = 2, width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(Block(width) for _ in range(count)))


def collectives(rank: int, compile: Compile) -> Any:
    import torch.distributed._functional_collectives as functional

    def f(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x.exp() + 1
        total = functional.all_reduce(y * 2, "sum", dist.group.WORLD)
        rows = functional.all_gather_tensor(y.sum(1), 0, dist.group.WORLD)
        part = functional.reduce_scatter_tensor(y, "avg", 0, dist.group.WORLD)
        return total.softmax(1), rows * 3, part.sin()

    return compile(f, fullgraph=True)(batch(rank))


def plain_collectives(rank: int, compile: Compile) -> Any:
    """In the form that writes to its argument."""

    def f(x: torch.Tensor) -> torch.Tensor:
        y = x.sin()
        dist.all_reduce(y)
        return y * x

    return compile(f)(batch(rank))


def gradients_of_collectives(rank: int, compile: Compile) -> Any:
    import torch.distributed._functional_collectives as functional

    def f(x: torch.Tensor) -> torch.Tensor:
        group = dist.group.WORLD
        rows = functional.all_gather_tensor_autograd(x.exp(), 0, group)
        part = functional.reduce_scatter_tensor_autograd(rows.sin(), "sum", 0, group)
        return (part * x).sum()

    x = batch(rank).requires_grad_()
    compile(f)(x).backward()
    return x.grad


def ddp(rank: int, compile: Compile) -> Any:
    model = nn.parallel.DistributedDataParallel(seeded())
    return train(model, compile(model), rank)


def ddp_in_buckets(rank: int, compile: Compile) -> Any:
    """A block fills one, and Dynamo splits the graph where it ends."""
    model = nn.parallel.DistributedDataParallel(seeded(3, 256), bucket_cap_mb=1)
    return train(model, compile(model), rank, 256)


def fsdp(rank: int, compile: Compile) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (WORLD,))
    model = seeded()
    for block in model:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return train(model, compile(model), rank)


def fsdp_by_block(rank: int, compile: Compile) -> Any:
    """Blocks are compiled, and torch shards and gathers around them."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (WORLD,))
    model = seeded()
    for k, block in enumerate(model):
        model[k] = compile(block)
        fully_shard(model[k], mesh=mesh)
    fully_shard(model, mesh=mesh)
    return train(model, model, rank)


def tensor_parallel(rank: int, compile: Compile) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    mesh = init_device_mesh("cpu", (WORLD,))
    model = seeded(1)
    plan = {"0.up": ColwiseParallel(), "0.down": RowwiseParallel()}
    parallelize_module(model, mesh, plan)
    return compile(model)(batch(0)).detach()


CASES: dict[str, Case] = {
    case.__name__: case
    for case in (
        collectives,
        plain_collectives,
        gradients_of_collectives,
        ddp,
        ddp_in_buckets,
        fsdp,
        fsdp_by_block,
        tensor_parallel,
    )
}


def process(rank: int, names: list[str], folder: str) -> None:
    """One of the two: each case in eager torch, then compiled."""
    os.environ["FUSEC_CACHE_DIR"] = f"{folder}/cache{rank}"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=WORLD,
        timeout=datetime.timedelta(seconds=DEADLINE),
    )
    try:
        for name in names:
            _check(name, rank)
            dist.barrier()
    finally:
        dist.destroy_process_group()


def _check(name: str, rank: int) -> None:
    torch._dynamo.reset()
    wanted = CASES[name](rank, lambda f, **options: f)
    before = statistics().compilations
    found = CASES[name](
        rank, lambda f, **options: torch.compile(f, backend=fusec.backend, **options)
    )
    assert statistics().compilations > before, f"{name} was not compiled"
    torch.testing.assert_close(found, wanted, msg=lambda text: f"{name}: {text}")
    bugs = list(Path(os.environ["FUSEC_CACHE_DIR"]).glob("reproducers/*"))
    assert not bugs, bugs[0].read_text()


def run_in_both(names: list[str], folder: Path) -> None:
    """Run cases in two new processes; fails, and ends both, where one does or hangs."""
    context = mp.start_processes(
        process, (names, str(folder)), WORLD, join=False, start_method="spawn"
    )
    end = datetime.datetime.now() + datetime.timedelta(seconds=4 * DEADLINE)
    try:
        while not context.join(timeout=1):
            assert datetime.datetime.now() < end, "the processes hang"
    finally:
        for child in context.processes:
            child.kill()
            child.join()


def test_processes_that_talk_to_each_other(tmp_path: Path) -> None:
    run_in_both(["collectives"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_way_to_train_together(name: str, tmp_path: Path) -> None:
    run_in_both([name], tmp_path)
