"""Calls to what fusec does not compile, through the callable that the run was given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fusec.ir.core import Value
from fusec.ir.dims import Expr
from fusec.ir.dtypes import Array
from fusec.ir.interpreter.frame import Frame, Given, InterpretError, bind
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.types import Opaque, Scalar, Token


def call(frame: Frame, op: Extern, inputs: Sequence[Any]) -> Iterable[Array | None]:
    """The results of an extern, checked, in their carriers; None for tokens.

    Symbols that its results define get their values.
    """
    if frame.context.extern is None:
        raise InterpretError(f"calls {op.target}, but no `extern` was given to run it")
    passed = tuple(map(_passed, op.inputs, inputs))
    arguments, keywords = _sized(frame, op.arguments), dict(_sized(frame, op.keywords))
    made = frame.context.extern(op.target, arguments, keywords, passed)
    wanted = [v for v in op.results if not isinstance(v.type, Token)]
    if len(made) != len(wanted):
        raise InterpretError(f"{op.target} gave {len(made)} results of {len(wanted)}")
    given = [
        Given(v, x if isinstance(v.type, Opaque) else np.asarray(x))
        for v, x in zip(wanted, made, strict=True)
    ]
    bind(frame.sizes, frame.function.symbols, given)
    return _with_tokens(op.results, iter(given))


def _passed(value: Value, held: Any) -> Any:
    return held.item() if isinstance(value.type, Scalar) else held


def _sized(frame: Frame, tree: Any) -> Any:
    """Arguments of a call with the values of dims in place of them."""
    if isinstance(tree, tuple):
        return tuple(_sized(frame, part) for part in tree)  # type: ignore[reportUnknownVariableType]
    return frame.size(tree) if isinstance(tree, Expr) else tree


def _with_tokens(
    results: Iterable[Value], given: Iterator[Given]
) -> Iterator[Array | None]:
    for value in results:
        if isinstance(value.type, Token):
            yield None
        elif isinstance(value.type, Opaque):
            yield next(given).array
        else:
            yield dtype_of(value).quantize(next(given).array)
