"""Binding calls to torch: arguments, sizes, results that are not as traced."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fusec.errors import InternalError, UserError
from fusec.ir.calls import Named, Slot
from fusec.ir.core import Value
from fusec.ir.dims import Symbol
from fusec.ir.dtypes import f32, i64
from fusec.ir.ops.extern import Extern
from fusec.ir.types import Scalar, Tensor, Type
from fusec.runtime.extern import _with_strides, bind, resolve
from fusec.runtime.recipe import Call
from fusec.runtime.write import call_of

n = Symbol("n")


def call(
    target: str,
    arguments: tuple[Any, ...],
    *types: Type,
    keywords: tuple[Any, ...] = (),
    hints: tuple[str, ...] = (),
) -> Call:
    names = hints or ("",) * len(types)
    results = tuple(Value(t, h) for t, h in zip(types, names, strict=True))
    return call_of(Extern((), (target, arguments, keywords, types), (), results))


def test_operands_and_sizes_fill_the_arguments() -> None:
    x = torch.randn(3, 8)
    op = call(
        "aten.constant_pad_nd.default",
        (Slot(0), (0, n - 1), 2.5),
        Tensor(f32, (3, 7 + n)),
    )
    (result,) = bind(op, {})([x], {n: 4})
    torch.testing.assert_close(result, torch.nn.functional.pad(x, (0, 3), value=2.5))


def test_names_stand_for_what_torch_calls_so() -> None:
    keywords = (("dtype", Named("dtype", "int64")), ("device", Named("device", "cpu")))
    op = call("aten.zeros.default", ((2, n),), Tensor(i64, (2, n)), keywords=keywords)
    (result,) = bind(op, {})([], {n: 3})
    torch.testing.assert_close(result, torch.zeros(2, 3, dtype=torch.int64))


def test_lists_of_results_are_flat() -> None:
    types = (Tensor(f32, (2,)), Tensor(f32, (1,)))
    op = call("aten.split_copy.Tensor", (Slot(0), 2), *types)
    first, second = bind(op, {})([torch.arange(3.0)], {})
    assert (first.tolist(), second.tolist()) == ([0, 1], [2])


def test_views_become_copies() -> None:
    x = torch.arange(6.0).view(2, 3)
    op = call("aten.t.default", (Slot(0),), Tensor(f32, (3, 2)))
    (result,) = bind(op, {})([x], {})
    assert result.is_contiguous()
    result.zero_()
    assert x.sum() == 15


def test_results_define_symbols() -> None:
    op = call("aten.nonzero.default", (Slot(0),), Tensor(i64, (n, 1)))
    sizes: dict[Symbol, int] = {}
    bind(op, {})([torch.tensor([0, 3, 5])], sizes)
    assert sizes == {n: 2}
    item = call("aten.item.default", (Slot(0),), Scalar(i64), hints=("n",))
    bind(item, {})([torch.tensor(7)], sizes)
    assert sizes == {n: 7}


def test_strides_are_as_traced() -> None:
    transposed = Tensor(f32, (2, 3), (1, 2))
    op = call("aten.neg.default", (Slot(0),), transposed)
    (result,) = bind(op, {})([torch.ones(2, 3)], {})
    assert result.stride() == (1, 2)
    assert (result == -1).all()


def test_another_dtype_than_traced_is_a_bug() -> None:
    """Also one of the same width, whose bits would be taken for others."""
    op = call("aten.neg.default", (Slot(0),), Tensor(f32, (3,)))
    with pytest.raises(InternalError, match=r"int32\[3\], but was traced .* .*float32"):
        bind(op, {})([torch.arange(3, dtype=torch.int32)], {})


def test_an_op_of_the_user_that_gives_something_else_is_theirs_to_mend() -> None:
    op = call("mine.op.default", (Slot(0),), Tensor(f32, (3,)))
    with pytest.raises(UserError, match="register_fake"):
        bind(op, {"mine.op.default": torch.square})([torch.ones(3).int()], {})


def test_another_shape_than_traced_is_a_bug() -> None:
    op = call("aten.neg.default", (Slot(0),), Tensor(f32, (2,)))
    with pytest.raises(
        InternalError, match=r"float32\[3\], but was traced .*float32\[2\]"
    ):
        bind(op, {})([torch.ones(3)], {})


def test_callables_come_first() -> None:
    op = call("mine#0", (Slot(0),), Tensor(f32, (2,)))
    (result,) = bind(op, {"mine#0": lambda x: x + 1})([torch.ones(2)], {})
    assert result.tolist() == [2, 2]


def test_an_unregistered_operator_is_the_users_to_import() -> None:
    with pytest.raises(UserError, match=r"no operator nobody\.made\.this"):
        resolve("nobody.made.this", {})


def test_errors_of_an_op_are_torchs_own() -> None:
    op = call("aten.mm.default", (Slot(0), Slot(0)), Tensor(f32, (2, 3)))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        bind(op, {})([torch.ones(2, 3)], {})


def test_what_is_copied_for_its_strides_stays_on_its_device() -> None:
    x = torch.empty(3, 4, device="meta")
    turned = _with_strides(x, (1, 3))
    assert (turned.device, turned.stride()) == (x.device, (1, 3))
