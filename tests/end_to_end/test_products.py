"""Products of matrices against float64: any shape, strides, dtype, and fusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import fusec
from fusec.counters import statistics
from fusec.target import host

Compiled = Callable[..., Any]
OPTIONS = {"fallback": False}


def compiled(
    f: Callable[..., Any], dynamic: bool | None = None, **options: Any
) -> Compiled:
    torch.compiler.reset()
    chosen = {**OPTIONS, **options}
    return torch.compile(
        f, backend="fusec", fullgraph=True, dynamic=dynamic, options=chosen
    )


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    if dtype.is_floating_point:
        return torch.randn(shape).to(dtype)
    return torch.randint(-5, 6, shape).to(dtype)


def bound(x: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
    """How far a blocked sum of products, rounded once, may be off (N. J. Higham, 2002:
    Accuracy and stability of numerical algorithms, section 3.1)."""
    terms = x.shape[-1]
    longest = min(terms, 800) + -(-terms // 256) + 2
    size = x.double().abs() @ y.double().abs()
    sums = torch.finfo(torch.float64 if dtype is torch.float64 else torch.float32).eps
    rounded = (x.double() @ y.double()).abs() * torch.finfo(dtype).eps
    return longest * sums * size + rounded + 1e-300


def check(x: Tensor, y: Tensor, f: Callable[[Tensor, Tensor], Tensor]) -> None:
    """f is the product, somehow."""
    got = compiled(f)(x, y)
    assert got.dtype is x.dtype
    wanted = x.double() @ y.double()
    assert got.shape == wanted.shape
    assert ((got.double() - wanted).abs() <= bound(x, y, x.dtype)).all()


SHAPES = [
    (1, 1, 1),
    (2, 3, 1),
    (5, 17, 3),
    (64, 64, 64),
    (33, 129, 65),
    (7, 300, 1031),
    (130, 9, 2050),
    (600, 40, 50),
    (3, 2100, 40),
    (1, 700, 300),
    (300, 1, 70),
]
LAID = {
    "plain": (lambda x: x, lambda y: y),
    "x turned": (lambda x: x.t().contiguous().t(), lambda y: y),
    "y turned": (lambda x: x, lambda y: y.t().contiguous().t()),
    "both turned": (
        lambda x: x.t().contiguous().t(),
        lambda y: y.t().contiguous().t(),
    ),
    "gaps": (
        lambda x: torch.stack([x, x], -1)[..., 0],
        lambda y: torch.cat([y, y], 1)[:, : y.shape[1]],
    ),
}


@pytest.mark.parametrize("laid", LAID)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_of_any_shape_and_strides(
    shape: tuple[int, int, int], laid: str
) -> None:
    torch.manual_seed(0)
    m, n, k = shape
    of_x, of_y = LAID[laid]
    check(of_x(drawn(m, k)), of_y(drawn(k, n)), torch.mm)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str
)
@pytest.mark.parametrize("shape", [(33, 50, 70), (128, 96, 600), (1, 90, 200)], ids=str)
def test_products_of_other_floats(
    shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    m, n, k = shape
    check(drawn(m, k, dtype=dtype), drawn(k, n, dtype=dtype), torch.mm)
    turned = drawn(n, k, dtype=dtype).t()
    check(drawn(m, k, dtype=dtype), turned, torch.mm)


@pytest.mark.parametrize(
    "dtype",
    [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64],
    ids=str,
)
def test_products_of_integers_wrap(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    limits = torch.iinfo(dtype)
    x, y = (
        torch.randint(limits.min, limits.max, shape, dtype=dtype)
        for shape in ((40, 70), (70, 33))
    )
    wanted = (x.long()[:, :, None] * y.long()[None]).sum(1).to(dtype)
    assert torch.equal(compiled(torch.mm)(x, y), wanted)


def test_products_of_bytes_are_summed_in_32_bits() -> None:
    torch.manual_seed(0)
    x, y = (torch.randint(-128, 128, s).to(torch.int8) for s in ((40, 72), (72, 48)))
    got = compiled(torch._int_mm)(x, y)
    assert got.dtype is torch.int32
    assert torch.equal(got, (x.long() @ y.long()).int())


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)], ids=str)
def test_products_of_nothing(shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    got = compiled(lambda x, y, b: torch.addmm(b, x, y))(
        drawn(m, k), drawn(k, n), torch.ones(n)
    )
    assert torch.equal(got, torch.ones(m, n))


def test_special_numbers_stay_in_their_rows_and_columns() -> None:
    """What lies beyond an edge, or is packed with zeros, makes nothing of an element
    that it is not part of."""
    torch.manual_seed(0)
    x, y = drawn(19, 37), drawn(37, 21)
    x[4, 3], x[18, 36], y[2, 20] = float("inf"), float("nan"), -float("inf")
    got, wanted = compiled(torch.mm)(x, y), x.double() @ y.double()
    assert torch.equal(got.isnan(), wanted.isnan())
    assert torch.equal(got.isinf(), wanted.isinf())
    finite = wanted.isfinite()
    torch.testing.assert_close(got[finite], wanted[finite].float())


def test_sums_over_several_axes_are_in_blocks_too() -> None:
    """Axes that memory does not hold as one, 6,400 places in all."""
    torch.manual_seed(0)
    x, y = drawn(160, 20, 40), drawn(160, 24, 40)
    got = compiled(lambda x, y: torch.einsum("abi,aci->bc", x, y))(x, y)
    flat = x.transpose(0, 1).reshape(20, -1), y.transpose(0, 1).reshape(24, -1).t()
    wanted = flat[0].double() @ flat[1].double()
    assert ((got.double() - wanted).abs() <= bound(*flat, torch.float32)).all()


EXPRESSIONS = [
    ("ij,jk->ik", (5, 6), (6, 7)),
    ("ij,kj->ki", (5, 6), (7, 6)),
    ("bij,bjk->bik", (3, 5, 6), (3, 6, 7)),
    ("bhqd,bhkd->bhqk", (2, 3, 9, 8), (2, 3, 11, 8)),
    ("bqhd,bkhd->bhqk", (2, 9, 3, 8), (2, 11, 3, 8)),
    ("xyij,yjk->kxyi", (3, 4, 5, 6), (4, 6, 7)),
    ("abc,bcd->ad", (4, 5, 6), (5, 6, 3)),
    ("i,j->ij", (5,), (6,)),
    ("i,i->", (50,), (50,)),
]


@pytest.mark.parametrize(("text", "left", "right"), EXPRESSIONS, ids=lambda v: str(v))
def test_einsums(text: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, y = drawn(*left), drawn(*right)
    got = compiled(lambda x, y: torch.einsum(text, x, y))(x, y)
    wanted = torch.einsum(text, x.double(), y.double())
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("beta", "alpha"), [(1, 1), (0.5, -2), (0, 3), (2, 0)])
def test_scaled_products_plus_something(beta: float, alpha: float) -> None:
    torch.manual_seed(0)
    plus, x, y = drawn(9), drawn(12, 8), drawn(8, 9)
    if beta == 0:
        plus[3] = float("nan")  # it is not even read
    got = compiled(lambda p, x, y: torch.addmm(p, x, y, beta=beta, alpha=alpha))
    wanted = alpha * (x.double() @ y.double()) + (beta * plus.double() if beta else 0)
    torch.testing.assert_close(got(plus, x, y).double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", [torch.addmm, torch.baddbmm, torch.addbmm])
def test_what_an_open_factor_leaves_unread(op: Callable[..., Tensor]) -> None:
    """A beta that is a size: 0 does not even read what else is added."""
    torch.manual_seed(0)
    few = 2 if op is torch.addmm else 3
    plus, x, y = drawn(3, 5), drawn(*(2, 3, 4)[-few:]), drawn(*(2, 4, 5)[-few:])
    plus[1] = float("nan")
    f = compiled(lambda beta: op(plus, x, y, beta=beta), dynamic=True)
    for beta in (0, 3, 0):
        torch.testing.assert_close(f(beta), op(plus, x, y, beta=beta), equal_nan=True)


def test_products_of_a_batch_added_up() -> None:
    torch.manual_seed(0)
    plus, x, y = drawn(5, 7), drawn(3, 5, 6), drawn(3, 6, 7)
    got = compiled(lambda p, x, y: torch.addbmm(p, x, y, beta=0.5, alpha=2))
    wanted = torch.addbmm(plus.double(), x.double(), y.double(), beta=0.5, alpha=2)
    torch.testing.assert_close(got(plus, x, y).double(), wanted, rtol=1e-5, atol=1e-5)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


Args = tuple[Tensor, Tensor, Tensor, Tensor]
FUSED: dict[str, Callable[..., Any]] = {
    "bias and gelu": lambda x, w, b, g: F.gelu(F.linear(x, w, b)),
    "residual": lambda x, w, b, g: F.linear(x, w, b) + (x @ w.t()).relu(),
    "activation before": lambda x, w, b, g: F.linear(F.silu(x) * g, w, b),
    "norm before": lambda x, w, b, g: F.linear(rms(x, g), w, b),
    "layer norm before": lambda x, w, b, g: F.linear(F.layer_norm(x, g.shape, g), w),
    "softmax before": lambda x, w, b, g: F.linear(x.softmax(-1), w, b),
    "two products": lambda x, w, b, g: (
        F.silu(F.linear(x, w)) * F.linear(x, w.flip(0), b)
    ),
    "norm and two products": lambda x, w, b, g: (
        F.silu(F.linear(rms(x, g), w)) * F.linear(rms(x, g), w * 2)
    ),
    "several results": lambda x, w, b, g: (
        (y := F.linear(x, w, b)).relu(),
        y.sigmoid().t(),
    ),
    "softmax after": lambda x, w, b, g: F.linear(x, w, b).softmax(-1),
    "residual and norm after": lambda x, w, b, g: (
        (y := F.linear(x, w, b) + F.linear(x, w)),
        rms(y, b),
    ),
    "layer norm after": lambda x, w, b, g: F.layer_norm(F.linear(x, w), b.shape, b),
    "columns summed after": lambda x, w, b, g: F.linear(x, w, b).relu().sum(0),
    "largest after": lambda x, w, b, g: F.linear(x, w, b).amax(-1),
    "all summed after": lambda x, w, b, g: F.linear(x, w, b).relu().sum(),
    "batches summed after": lambda x, w, b, g: (
        F.linear(x[:-1].unflatten(0, (-1, 1))[:, :1], w).relu().sum((0, 1))
    ),
    "norm of heads after": lambda x, w, b, g: rms(
        F.linear(x, w, b).unflatten(1, (-1, 10)), b[:10]
    ),
    "heads summed after": lambda x, w, b, g: (
        F.linear(x, w, b).unflatten(1, (-1, 10)).sum(1)
    ),
    "parts put together before": lambda x, w, b, g: F.linear(
        torch.cat([x[:, :8], x[:, 8:]], -1), w, b
    ),
    "padded before": lambda x, w, b, g: F.linear(F.pad(x[:, 2:-2], (2, 2)), w),
    "rows put together before": lambda x, w, b, g: F.linear(x, torch.cat([w, w * 2])),
    "indexed before": lambda x, w, b, g: x[:, torch.arange(len(g)).flip(0)] @ w.t(),
    "norms on both sides": lambda x, w, b, g: rms(F.linear(rms(x, g), w), b),
}


@pytest.mark.parametrize("shape", [(36, 50, 64), (7, 130, 1100), (1, 40, 70)], ids=str)
@pytest.mark.parametrize("name", FUSED)
def test_what_stands_around_a_product(name: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    m, n, k = shape
    args = drawn(m, k), drawn(n, k) / k**0.5, drawn(n), drawn(k)
    got = compiled(FUSED[name])(*args)
    wanted = FUSED[name](*(x.double() for x in args))
    for a, b in zip(*map(_several, (got, wanted)), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


STRIDED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "batches of parts": lambda x, w: (x[:, :-1] @ w.t()).relu().sum((0, 1)),
    "and the product": lambda x, w: (
        (y := (x.transpose(0, 1) @ w.t()).relu()),
        y.sum((0, 1)),
    ),
    "of batches": lambda x, w: (
        (y := x @ w.expand(4, -1, -1).mT) - y.amax((0, 2), keepdim=True)
    ),
    "over the batch": lambda x, w: (x @ w.t()).relu().sum(0),
    "of rows and columns": lambda x, w: (
        (y := x[0] @ w.t()).sum(0),
        y.sum(1),
        y.softmax(-1),
    ),
    "turned": lambda x, w: (x[0] @ w.t()).t().contiguous().softmax(0),
    "one after another": lambda x, w: ((x[0] @ w.t()).softmax(-1) @ w).softmax(-1),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", STRIDED)
def test_statistics_of_results_that_are_no_plain_matrices(
    name: str, dynamic: bool
) -> None:
    torch.manual_seed(0)
    x, w = drawn(4, 11, 24), drawn(40, 24)
    got = compiled(STRIDED[name], dynamic=dynamic)(x, w)
    wanted = STRIDED[name](x.double(), w.double())
    for a, b in zip(*map(_several, (got, wanted)), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


def test_statistics_across_what_is_summed_up_are_a_kernel_of_their_own() -> None:
    """A norm of rows, then a product along its columns."""
    torch.manual_seed(0)

    def mixed(x: Tensor, w: Tensor) -> Tensor:
        return F.linear(F.layer_norm(x, x.shape[-1:]).transpose(1, 2), w)

    x, w = drawn(4, 60, 48), drawn(32, 60)
    before = statistics().kernels
    got = compiled(mixed)(x, w)
    assert statistics().kernels - before == 2
    torch.testing.assert_close(
        got.double(), mixed(x.double(), w.double()), rtol=1e-4, atol=1e-5
    )


def test_products_without_a_common_factor_are_kernels_of_their_own() -> None:
    """The second adds what the first came to."""
    torch.manual_seed(0)
    x, v, y, w = drawn(40, 60), drawn(60, 48), drawn(40, 70), drawn(70, 48)

    def added(x: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return (x @ v + y @ w).relu()

    before = statistics().kernels
    got = compiled(added)(x, v, y, w)
    assert statistics().kernels - before == 2
    wanted = added(*(z.double() for z in (x, v, y, w)))
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4)


ONE = [
    "bias and gelu", "activation before", "norm before", "two products",
    "softmax after", "residual and norm after", "layer norm after",
    "columns summed after", "norms on both sides",
]  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_products_and_what_stands_around_them_are_one_kernel(name: str) -> None:
    args = drawn(64, 96), drawn(80, 96), drawn(80), drawn(96)
    before = statistics().kernels
    compiled(FUSED[name])(*args)
    assert statistics().kernels - before == 1


@pytest.mark.parametrize("name", ["bias and gelu", "norm before", "two products"])
def test_gradients(name: str) -> None:
    torch.manual_seed(0)
    args = [drawn(20, 30), drawn(40, 30) / 5, drawn(40), drawn(30)]
    found: list[Sequence[Tensor]] = []
    for f, dtype in (
        (compiled(FUSED[name]), torch.float32),
        (FUSED[name], torch.float64),
    ):
        given_ = [x.detach().to(dtype).requires_grad_() for x in args]
        f(*given_).square().sum().backward()
        found.append([x.grad for x in given_ if x.grad is not None])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-4, atol=2e-4)


def test_sizes_that_are_not_known() -> None:
    torch.manual_seed(0)
    f = compiled(lambda x, w, b: F.gelu(F.linear(x, w, b)), dynamic=True)
    for m, n, k in [(5, 7, 9), (64, 64, 64), (33, 100, 700), (1, 5, 3), (600, 70, 520)]:
        x, w, b = drawn(m, k), drawn(n, k) / k**0.5, drawn(n)
        wanted = F.gelu(F.linear(x.double(), w.double(), b.double()))
        torch.testing.assert_close(f(x, w, b).double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "shape", [(129, 70, 1100), (1, 3000, 500), (40, 40, 40)], ids=str
)
def test_products_are_the_same_on_any_number_of_threads(
    shape: tuple[int, int, int],
) -> None:
    torch.manual_seed(0)
    m, n, k = shape
    x, y = drawn(m, k), drawn(k, n)
    first, *others = (compiled(torch.mm, threads=t)(x, y) for t in (1, 2, 3, 8))
    assert all(torch.equal(first, other) for other in others)


def test_every_pass_keeps_the_meaning_of_products() -> None:
    torch.manual_seed(0)
    x, w, b, g = drawn(13, 40), drawn(21, 40), drawn(21), drawn(40)
    f = compiled(FUSED["norm and two products"], verify=True)
    f(x, w, b, g)
    compiled(lambda x, y: x @ y, verify=True)(drawn(9, 900), drawn(900, 20))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nothing_is_read_out_of_bounds(dtype: torch.dtype, dynamic: bool) -> None:
    """Squares that are packed are larger than what there is of small factors. The
    interpreter looks at each access."""
    torch.manual_seed(0)
    for left, right in ((True, False), (True, True), (False, True)):

        def product(x: Tensor, y: Tensor, left=left, right=right) -> Tensor:
            return (x.mT if left else x) @ (y.mT if right else y)

        f = compiled(product, verify=True, dynamic=dynamic)
        for m, n, k in ((12, 12, 2), (13, 9, 3), (2, 33, 2), (1, 9, 9), (3, 3, 3)):
            x = drawn(*((k, m) if left else (m, k)), dtype=dtype)
            y = drawn(*((n, k) if right else (k, n)), dtype=dtype)
            torch.testing.assert_close(f(x, y), product(x, y))
            if not dynamic:
                f = compiled(product, verify=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_library_that_is_faster_is_called(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product is a call, on a view; what stands around it is a kernel."""
    fast = replace(host(), library=(("f32", 50.0), ("bf16", 50.0)))
    monkeypatch.setattr("fusec.target.host", lambda: fast)
    torch.manual_seed(0)
    x, w, b = (drawn(*s, dtype=dtype) for s in ((300, 700), (500, 700), (500,)))
    before = statistics()
    f = compiled(lambda x, w, b: (torch.mm(x.relu(), w.t()) + b).sigmoid())
    got = f(x, w, b)
    assert statistics().externs - before.externs == 1
    wanted = torch.mm(x.relu().double(), w.t().double()).to(dtype) + b
    torch.testing.assert_close(
        got.double(), wanted.double().sigmoid(), rtol=1e-2, atol=2e-2
    )


def test_explain_tells_what_a_library_would_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = replace(host(), library=(("f32", 0.01),))
    monkeypatch.setattr("fusec.target.host", lambda: slow)
    text = fusec.jit(torch.mm).explain(drawn(64, 64), drawn(64, 64))
    assert "as a call to torch's library: predicted" in text


sizes = st.integers(1, 40)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_chains_of_products(data: st.DataObject) -> None:
    """A chain of products and what stands between them, in any order of evaluation."""
    extents = data.draw(st.lists(sizes, min_size=3, max_size=5))
    between = [torch.relu, torch.tanh, torch.neg, lambda x: x, lambda x: x.t().t() * 2]
    steps = data.draw(
        st.lists(st.sampled_from(between), min_size=len(extents), max_size=len(extents))
    )
    turned = data.draw(st.lists(st.booleans(), min_size=5, max_size=5))
    pairs = zip(pairwise(extents), turned, strict=False)
    parts = [drawn(b, a).t() if t else drawn(a, b) for (a, b), t in pairs]
    scaled = [x / x.shape[0] ** 0.5 for x in parts]

    def chain(*matrices: Tensor) -> Tensor:
        total = matrices[0]
        for matrix, step in zip(matrices[1:], steps, strict=False):
            total = step(total) @ matrix
        return total

    got = compiled(chain)(*scaled)
    wanted = chain(*(x.double() for x in scaled))
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4)


def _several(x: Any) -> Sequence[Tensor]:
    return x if isinstance(x, (list, tuple)) else [x]
