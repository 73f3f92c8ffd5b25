"""What a process compiles, and what a later one should find already compiled.

Run as a program, with the names of cases: prints for each how often torch's cache was
hit and missed, how many graphs fusec compiled, and the results, and what the process
imported for it, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._dynamo.utils import counters

import fusec

Case = Callable[[Callable[..., Any]], Any]
"""Computes with what compiles a function; gives tensors."""


def inputs(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pointwise(compile: Callable[..., Any]) -> Any:
    return compile(lambda x: (x.exp() + 1).softmax(-1))(inputs(7, 33))


def one_kernel(compile: Callable[..., Any]) -> Any:
    return compile(lambda x: x.sin() * 2)(inputs(64))


def training(compile: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 4)
    )
    x = inputs(5, 16).requires_grad_()
    compile(net)(x).square().mean().backward()
    return [x.grad, *(p.grad for p in net.parameters())]


def twice_backward(compile: Callable[..., Any]) -> Any:
    x = inputs(4, 4).requires_grad_()
    loss = compile(lambda x: (x.sigmoid() * x.exp()).sum())(x)
    loss.backward(retain_graph=True)
    loss.backward()
    return x.grad


def growing(compile: Callable[..., Any]) -> Any:
    run = compile(lambda x: torch.cat([x.relu(), x]).sum(0) * x.shape[0], dynamic=True)
    return [run(inputs(n, 6, seed=n)) for n in (3, 8, 11)]


class Counting(nn.Module):
    """Writes to a buffer and to its argument."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add_(1)
        x.mul_(2)
        return x[1:] + self.seen


def mutation(compile: Callable[..., Any]) -> Any:
    net, x = Counting(), inputs(4, 3)
    run = compile(net)
    return [run(x), run(x), x, net.seen]


def views(compile: Callable[..., Any]) -> Any:
    def f(x: torch.Tensor) -> Any:
        y = x.exp()
        return x[1:], y, y.t(), x

    x = inputs(4, 5)
    first, y, turned, same = compile(f)(x)
    first.zero_()
    turned[0].zero_()
    assert same is x
    return x, y


def gather(compile: Callable[..., Any]) -> Any:
    return compile(lambda table, at: table[at].tanh())(
        inputs(9, 4), torch.tensor([0, 8, 3])
    )


def constants(compile: Callable[..., Any]) -> Any:
    run = compile(lambda x: x + torch.tensor([1.0, 2.0, 3.0]))
    return run(inputs(2, 3))


def products(compile: Callable[..., Any]) -> Any:
    return compile(lambda a, b: (a @ b).relu().sort(-1).values)(
        inputs(5, 6), inputs(6, 7)
    )


def frozen(compile: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    net, x = nn.Linear(16, 32), inputs(20, 16)
    run = compile(net, options={"freeze": True})
    with torch.no_grad():
        first = run(x)
        net.weight.mul_(2)
        return [first, run(x)]


def branches(compile: Callable[..., Any]) -> Any:
    """What runs in the branches has no name, so this is compiled each time."""

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,)) * 2

    return compile(f)(inputs(3, 3))


def doubled(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    first.mul_(2)
    return second + 1


def overlapping(compile: Callable[..., Any]) -> Any:
    x = inputs(9)
    return [compile(doubled)(x[:5], x[2:7]), x]


def side_by_side(compile: Callable[..., Any]) -> Any:
    x = inputs(10)
    return [compile(doubled)(x[:5], x[5:]), x]


def apart(compile: Callable[..., Any]) -> Any:
    x, y = inputs(5), inputs(5, seed=1)
    return [compile(doubled)(x, y), x, y]


def apart_at_first(compile: Callable[..., Any]) -> Any:
    def f(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        first.mul_(3)
        second.add_(1)
        return first + second

    run, x = compile(f, dynamic=True), inputs(12)
    return [run(x[:5], x[5:10]), run(x[:6], x[6:]), run(x[:5], x[2:7]), x]


KEPT: dict[str, Case] = {
    f.__name__: f
    for f in (
        pointwise,
        one_kernel,
        training,
        twice_backward,
        growing,
        mutation,
        views,
        gather,
        constants,
        products,
        frozen,
    )
}
CASES: dict[str, Case] = {**KEPT, "branches": branches}
SHARING: dict[str, Case] = {
    f.__name__: f for f in (overlapping, side_by_side, apart, apart_at_first)
}


HEAVY = ("fusec.compiler", "fusec.ir.core", "fusec.runtime.elf", "llvmlite")
"""What a process that compiles nothing does without."""


def listed(result: Any) -> Any:
    if isinstance(result, torch.Tensor):
        return result.tolist()
    return [listed(part) for part in result]


def run(case: Case) -> dict[str, Any]:
    torch._dynamo.reset()
    counters.clear()
    before = compilations()

    def compile(f: Any, **how: Any) -> Any:
        return torch.compile(f, backend=fusec.backend, **how)

    results = listed(case(compile))
    hits = counters["aot_autograd"]["autograd_cache_hit"]
    return {"results": results, "hits": hits, "compiled": compilations() - before}


def compilations() -> int:
    """How many there were in this process, of whose compiler nothing may be there."""
    ours = sys.modules.get("fusec.counters")
    return ours.statistics().compilations if ours else 0


def main(names: list[str]) -> None:
    """Run cases, each compiled anew."""
    cases = CASES | SHARING
    found = {name: run(cases[name]) for name in names}
    eager = {name: listed(cases[name](lambda f, **_: f)) for name in names}
    imported = [name for name in HEAVY if name in sys.modules]
    print(json.dumps({"found": found, "eager": eager, "imported": imported}))


if __name__ == "__main__":
    main(sys.argv[1:])
