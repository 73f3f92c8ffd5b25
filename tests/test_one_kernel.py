"""What a model says in many ops runs as one kernel: softmax, its loss, layer norm.

Through the door that users take, nothing left to ATen, results against float64.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fusec.counters import statistics

ROWS, COLUMNS = 37, 1003
Tensors = tuple[Any, ...]


def softmax_of_primitives(x: Any) -> Any:
    e = torch.exp(x - torch.amax(x, dim=-1, keepdim=True))
    return e / e.sum(dim=-1, keepdim=True)


def softmax(x: Any) -> Any:
    return F.softmax(x, dim=-1)


def nll_of_primitives(x: Any, target: Any) -> Any:
    shifted = x - torch.amax(x, dim=-1, keepdim=True)
    log_probability = shifted - torch.log(torch.exp(shifted).sum(dim=-1, keepdim=True))
    return -log_probability.gather(1, target.unsqueeze(1)).squeeze(1)


def nll(x: Any, target: Any) -> Any:
    return F.nll_loss(F.log_softmax(x, dim=-1), target, reduction="none")


def cross_entropy(x: Any, target: Any) -> Any:
    return F.cross_entropy(x, target, reduction="none")


def layer_norm_of_primitives(x: Any, weight: Any, bias: Any) -> Any:
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred * centred).mean(dim=-1, keepdim=True)
    return centred * torch.rsqrt(variance + 1e-5) * weight + bias


def layer_norm(x: Any, weight: Any, bias: Any) -> Any:
    return F.layer_norm(x, (x.shape[-1],), weight, bias)


def scores() -> Tensors:
    return (torch.randn(ROWS, COLUMNS) * 4,)


def scores_and_targets() -> Tensors:
    return *scores(), torch.randint(0, COLUMNS, (ROWS,))


def rows_and_parameters() -> Tensors:
    return *scores(), torch.randn(COLUMNS), torch.randn(COLUMNS)


CASES: dict[Callable[..., Any], Callable[[], Tensors]] = {
    softmax_of_primitives: scores,
    softmax: scores,
    nll_of_primitives: scores_and_targets,
    nll: scores_and_targets,
    cross_entropy: scores_and_targets,
    layer_norm_of_primitives: rows_and_parameters,
    layer_norm: rows_and_parameters,
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
def test_it_is_one_kernel(
    function: Callable[..., Any], dynamic: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    arguments = CASES[function]()
    torch.compiler.reset()
    compiled = torch.compile(
        function,
        backend="fusec",
        options={"fallback": False, "cache_dir": str(tmp_path)},
        dynamic=dynamic,
        fullgraph=True,
    )
    before = statistics()
    result = compiled(*arguments)
    after = statistics()
    assert after.regions - before.regions > 1
    assert after.kernels - before.kernels == 1
    assert after.externs == before.externs
    exact = function(*(x.double() if x.is_floating_point() else x for x in arguments))
    torch.testing.assert_close(result.double(), exact, rtol=2e-5, atol=2e-5)


def test_what_products_give_is_not_copied(tmp_path: Path) -> None:
    """Logits and gradients of weights are what the product made, in another shape."""
    torch.manual_seed(0)
    torch.compiler.reset()
    options = {"fallback": False, "cache_dir": str(tmp_path)}
    layer, x = torch.nn.Linear(8, 50, bias=False), torch.randn(4, 6, 8)
    compiled = torch.compile(layer, backend="fusec", options=options)
    before = statistics()
    logits = compiled(x.requires_grad_())
    logits.backward(torch.ones_like(logits))
    assert statistics().kernels - before.kernels == 3
    assert statistics().externs == before.externs
    torch.testing.assert_close(logits, x @ layer.weight.t())
    assert layer.weight.grad is not None
    wanted = torch.ones(24, 50).t() @ x.detach().reshape(24, 8)
    torch.testing.assert_close(layer.weight.grad, wanted)
    assert layer.weight.grad.is_contiguous()
