"""Reductions and scans of blocks.

    %s = reduce_tile %x (sum)            s = tl.sum(x, 1)
    %m, %i = reduce_tile … (argmax)      m, i = tl.reduce((x, j), 1, combine_argmax)
    %c, %t = scan_tile %x, %s (sum)      part = tl.associative_scan(x, 0, combine_sum)
                                         c = combine_sum(tl.broadcast_to(s, …), part)

Single numbers of the plain kinds are reduced by Triton's own functions, all else by a
function that combines two states, which stands before the kernel.
"""

from __future__ import annotations

import re
from functools import partial

from fusec.codegen.triton_blocks import dims_of
from fusec.codegen.triton_kernel import Kernel
from fusec.codegen.triton_rows import bitcast, cast, named
from fusec.codegen.triton_text import bare, defined
from fusec.ir.core import Monoid
from fusec.ir.dtypes import DType, f32, f64, i32, i64, int_
from fusec.ir.ops.pointwise import dtype_of
from fusec.ir.ops.reduction import ReduceTile, ScanTile


def reduce_tile(k: Kernel, op: ReduceTile) -> None:
    """Dimension by dimension; single numbers of the plain kinds by Triton's own."""
    values = [k.names[v] for v in op.values]
    dtype, name = dtype_of(op.values[0]), op.monoid.name.partition("<")[0]
    dims = dims_of(op.values[0])
    reduced = [d for d in op.dims if d in dims]
    for d in reduced:
        axis = dims.index(d)
        dims.remove(d)
        if name == "sum" and dtype in (f32, f64, i32, i64):
            values = [f"tl.sum({values[0]}, {axis})"]
        elif name in ("any", "all"):
            of = "tl.max" if name == "any" else "tl.min"
            values = [f"({of}({values[0]}.to(tl.int32), {axis}) != 0)"]
        else:
            given = values[0] if len(values) == 1 else f"({', '.join(values)})"
            call = f"tl.reduce({given}, {axis}, {_combine(k, op.monoid)})"
            values = [k.fresh(v.hint or name) for v in op.results]
            k.line(f"{', '.join(values)} = {call}")
            if d == reduced[-1]:
                k.names.update(zip(op.results, values, strict=True))
                return
    for result, text in zip(op.results, values, strict=True):
        k.define(result, bare(text), name)


def scan_tile(k: Kernel, op: ScanTile) -> None:
    """The starts come before all of what is scanned; the totals are its last."""
    first, dim = op.values[0], int(op.dim)
    dims, combine = dims_of(first), _combine(k, op.monoid)
    parts = [k.names[v] for v in op.values]
    if dim in dims:
        given = parts[0] if len(parts) == 1 else f"({', '.join(parts)})"
        parts = [k.fresh("part") for _ in parts]
        axis = dims.index(dim)
        k.line(f"{', '.join(parts)} = tl.associative_scan({given}, {axis}, {combine})")
    starts = [k.aligned(v, dims) for v in op.starts]
    wide = [f"tl.broadcast_to({x}, {k.shape(first)})" if dims else x for x in starts]
    for value in op.scanned:
        k.names[value] = k.fresh(value.hint or "scanned")
    made = ", ".join(k.names[v] for v in op.scanned)
    k.line(f"{made} = {combine}({', '.join([*wide, *parts])})")
    for value, total in zip(op.scanned, op.totals, strict=True):
        if dim not in dims:
            k.names[total] = k.names[value]
            continue
        last = f"{k.place(dim, dims)} == {k.blocks[dim]} - 1"
        text = _picked(dtype_of(value), k.names[value], last, dims.index(dim))
        k.define(total, text, "total")


def _combine(k: Kernel, monoid: Monoid) -> str:
    """The name of a function that combines two states."""
    if monoid not in k.combines:
        base = re.sub(r"\W", "_", monoid.name.partition("<")[0])
        text = partial(_definition, k, monoid)
        k.combines[monoid] = k.others.name(f"combine_{base}", k.taken, text)
        k.taken.add(k.combines[monoid])
    return k.combines[monoid]


def _definition(k: Kernel, monoid: Monoid, name: str) -> str:
    """A function of two states, for reductions and scans."""
    inner = Kernel(monoid.combine, k.handlers)
    names = [inner.fresh(p.hint or "x") for p in monoid.combine.params]
    inner.names.update(zip(monoid.combine.params, names, strict=True))
    inner.block(monoid.combine.body)
    yields = ", ".join(inner.tensor(v) for v in monoid.combine.body.yields)
    lines = [defined(name, names), *inner.lines]
    return "\n".join([*lines, f"    return {yields}"])


def _picked(dtype: DType, x: str, where: str, axis: int) -> str:
    """The one element along a dimension that is there: the sum of its bits and zeros,
    for a sum of floats would lose the sign of a zero."""
    whole = int_(dtype.bits) if dtype.is_float else i32 if dtype.is_bool else dtype
    bits = cast(dtype, i32, x) if dtype.is_bool else bitcast(dtype, whole, x)
    text = f"tl.sum(tl.where({where}, {bits}, 0), {axis})"
    if dtype.is_bool:
        return f"{text} != 0"
    return bitcast(whole, dtype, f"{text}.to({named(whole)})")
