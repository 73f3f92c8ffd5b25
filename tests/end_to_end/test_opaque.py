"""Tensors that fusec cannot read, amid a graph that it compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from end_to_end.conftest import Agree

import fusec

X = torch.linspace(-3, 3, 64).reshape(4, 16)
Z = torch.complex(X, X.flip(0))


def rotary(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """As Llama's authors wrote it, with complex numbers."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2) + x


AMID: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "a spectrum": (lambda x: torch.fft.rfft(x).abs() + x.sum(), (X,)),
    "rotary": (rotary, (X, X[:, :8])),
    "an argument": (lambda z, x: (z * 2).real + x.exp() * 3, (Z, X)),
    "a result": (lambda x: (torch.complex(x + 1, x * 2), x.exp() - 1), (X,)),
    "both": (lambda z: (z * z).conj(), (Z,)),
    "itself": (lambda z, x: (z, x + 1), (Z, X)),
    "a copy": (lambda z, x: (z.clone(), x * 2), (Z, X)),
    "a view": (lambda z, x: (z[1:], x + 1), (Z, X)),
    "a conjugate": (lambda z, x: (z.conj(), x + 1), (Z, X)),
    "a conjugate argument": (lambda z: z.real * 2 + 1, (Z.conj(),)),
    "a copy that is not row-major": (lambda x: torch.fft.ifft(x, dim=0), (X,)),
    "a constant": (lambda x: x * torch.tensor([1j, 2]).abs().sum(), (X,)),
}


@pytest.mark.parametrize("name", AMID)
def test_what_fusec_cannot_read_goes_from_extern_to_extern(
    agree: Agree, name: str
) -> None:
    f, args = AMID[name]
    agree(f, *args, fullgraph=True)


def test_the_rest_of_the_graph_is_compiled() -> None:
    torch._dynamo.reset()
    text = fusec.jit(rotary).ir("fused", X, X[:, :8])
    assert ": opaque" in text
    assert text.count("region") >= 2
    torch._dynamo.reset()
    report = fusec.jit(rotary).explain(X, X[:, :8])
    assert "does not read complex" in report


def test_gradients_through_complex_numbers() -> None:
    grads: list[torch.Tensor] = []
    for f in (rotary, torch.compile(rotary, backend="fusec")):
        x = X.clone().requires_grad_()
        f(x, X[:, :8]).sin().sum().backward()
        assert x.grad is not None
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


def test_sizes_stay_open(agree: Agree) -> None:
    for rows in (2, 5, 3):
        x = torch.randn(rows, 16)
        agree(rotary, x, x[:, :8], dynamic=True)


def test_it_is_verified_too(agree: Agree) -> None:
    f, args = AMID["rotary"]
    agree(f, *args, options={"verify": True})


NEGATED = {
    "whole": lambda x: x,
    "a part": lambda x: x[1:4],
    "repeated": lambda x: x[:4, None].expand(4, 3),
    "nothing": lambda x: x[:0],
    "one": lambda x: x[2],
}


@pytest.mark.parametrize("name", NEGATED)
def test_arguments_that_are_lazy_negations(name: str) -> None:
    """torch negates the memory when it reads; a kernel does not."""
    torch._dynamo.reset()
    z = torch.complex(torch.arange(6.0), torch.arange(6.0) + 1)
    x = NEGATED[name](z.conj().imag)
    assert x.is_neg()

    def f(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x * 2, x.sin() + 1, x.sum(0), x.view_as(x)

    for got, want in zip(torch.compile(f, backend="fusec")(x), f(x), strict=True):
        torch.testing.assert_close(got, want)
    assert got.data_ptr() == x.data_ptr()


def test_gradients_of_lazy_negations() -> None:
    torch._dynamo.reset()
    found: list[list[torch.Tensor]] = []
    for wrap in (lambda f: f, lambda f: torch.compile(f, backend="fusec")):
        z = torch.complex(torch.arange(6.0), torch.ones(6)).requires_grad_()
        weight = torch.ones(6, requires_grad=True)
        wrap(lambda x, w: (x * w).sin())(z.conj().imag, weight).sum().backward()
        assert z.grad is not None
        assert weight.grad is not None
        found.append([z.grad, weight.grad])
    for want, got in zip(*found, strict=True):
        torch.testing.assert_close(got, want)
