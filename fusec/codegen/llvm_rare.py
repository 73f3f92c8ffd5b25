"""What few elements need: a branch around calls of a function apart.

    %some = …                                  # a lane of some register needs it
    br i1 %some, label %few, label %join

    few     store each register; call the function on it, with a bit for each lane that
            needs it; load what it made of the usual result
    join    %y = phi [ what was loaded ], [ the usual result ]

The function computes one lane after the other. So the block is compiled once, and for
scalars, however many registers and ops ask for it, and is far from what runs often.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusec.codegen.llvm_kernel import Kernel, Register, dtype_of, hint_of
from fusec.codegen.llvm_known import condition
from fusec.codegen.llvm_lanes import Lanes, element
from fusec.codegen.llvm_rows import computed, spelling
from fusec.codegen.llvm_text import Writer, symbol
from fusec.ir.core import Block
from fusec.ir.ops.rare import Rare
from fusec.ir.types import Scalar


def rare(k: Kernel, op: Rare) -> None:
    """The block's results in the lanes where the condition holds."""
    dtypes = tuple(dtype_of(x) for x in (*op.operands, op.result))
    if isinstance(op.result.type, Scalar):
        scalars = (k.scalar(x) for x in op.operands)
        chosen = spelling(op, dtypes)(k.scalar_lanes(hint_of(op)), *scalars)
        k.define(op.result, (chosen,))
        return
    places = k.places(op.result)
    v, count = k.lanes(places.lanes, hint_of(op)), len(places.origins)
    results = list(k.spread(op.usual, v, count))
    columns = [k.spread(x, v, count) for x in op.xs]
    masks: dict[int, str] = {}
    for r, row in enumerate(zip(results, *columns, strict=True)):
        mask = condition(k, op.cond, r)
        if mask is not False and None not in row:
            masks[r] = v.constant("i1", "true") if mask is True else mask
    if masks:
        arm = k.writer.open_arm(_any(v, list(masks.values())), "few")
        found = _call(k, v, op, results, columns, masks)
        type_ = v.type(element(dtypes[-1]))
        ways = [(type_, x, str(results[r])) for r, x in found.items()]
        for r, result in zip(found, k.writer.close_arm(arm, ways), strict=True):
            results[r] = result
    k.define(op.result, results)


def _any(v: Lanes, masks: Sequence[str]) -> str:
    """Whether a lane of one of the masks is set."""
    some, *rest = masks
    for mask in rest:
        some = v.op("or", "i1", some, mask)
    return v.of(1).test("icmp ne", f"i{v.count}", v.bits(some), "0")


def _call(
    k: Kernel,
    v: Lanes,
    op: Rare,
    usual: Sequence[Register],
    columns: Sequence[Sequence[Register]],
    masks: dict[int, str],
) -> dict[int, str]:
    """Each register that has a mask, as the function apart leaves it."""
    w = k.writer
    if op.body not in k.apart:
        k.apart[op.body] = _apart(k, op.body)
    name = symbol(k.apart[op.body].called)
    types = [v.type(element(dtype_of(x))) for x in (*op.xs, op.usual)]
    slots = [w.at_entry(f"alloca {type_}, align 64", "slot") for type_ in types]
    pointers = ", ".join(f"ptr {slot}" for slot in slots)
    found: dict[int, str] = {}
    for r, mask in masks.items():
        for type_, slot, column in zip(types, slots, (*columns, usual), strict=True):
            w.effect(f"store {type_} {column[r]}, ptr {slot}, align 64")
        lanes = v.of(1).cast("zext", f"i{v.count}", v.bits(mask), "i64")
        w.effect(f"call void {name}({pointers}, i64 {lanes})")
        found[r] = w.read(f"load {types[-1]}, ptr {slots[-1]}, align 64", v.hint)
    return found


def _apart(k: Kernel, block: Block) -> Writer:
    """`void(ptr %x0, …, ptr %out, i64 %lanes)`: the block, in memory, for the lanes
    that have a bit."""
    count = len(block.params)
    names = [f"%x{n}" for n in range(count)] + ["%out"]
    parameters = ", ".join([*(f"ptr {name}" for name in names), "i64 %lanes"])
    w = Writer(f"{k.function.name}_rare{len(k.apart)}", parameters, apart=True)
    v = Lanes(w, k.target, 1, "far")
    times = v.call("ctpop", "i64", "%lanes")
    loop = w.open_loop("0", times, 1, [("i64", "%lanes")], "turn")
    (rest,) = loop.names
    w.declare("i64 @llvm.cttz.i64(i64, i1)")
    lane = w.value(f"call i64 @llvm.cttz.i64(i64 {rest}, i1 true)", "lane")
    dtypes = [dtype_of(x) for x in (*block.params, *block.yields)]
    *places, out = (
        k.element_pointer(v, dtype, name, lane)
        for dtype, name in zip(dtypes, names, strict=True)
    )
    xs = [
        w.read(f"load {element(dtype)}, ptr {place}", "x")
        for dtype, place in zip(dtypes, places, strict=False)
    ]
    (far,) = computed(v, block, xs)
    w.effect(f"store {element(dtypes[-1])} {far}, ptr {out}")
    lower = v.op("sub", "i64", rest, "1")
    w.close_loop(loop, [v.op("and", "i64", rest, lower)])
    return w
