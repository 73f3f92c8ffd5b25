"""The regions of a loop function, each read once, and who reads what they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

from fusec.analysis.affine import axes_of, index_axes
from fusec.analysis.cost import weigh
from fusec.analysis.roles import Reduction, reductions
from fusec.ir.core import Affine, Block, Function, Op, Value, walk
from fusec.ir.dims import Dim, Symbol
from fusec.ir.ops.elementwise import Elementwise
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.loop import Load, Region, Store, Update
from fusec.ir.ops.reduction import Reduce, Scan
from fusec.ir.ops.updating import ONE
from fusec.ir.products import summed_products
from fusec.ir.sizes import dims_of, used_symbols
from fusec.ir.types import Axis, Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What the analysis needs to know of one region, read off once."""

    op: Region
    loads: tuple[tuple[Value, Load], ...]
    """The tensor of the function that each load reads."""
    stores: Mapping[Value, tuple[Affine, ...]]
    """Where each result is stored."""
    updates: Mapping[Value, Update]
    """How each other result is updated."""
    reduced: tuple[Axis, ...]
    scanned: tuple[Axis, ...]
    axes: tuple[Axis, ...]
    ops: int
    weights: Mapping[frozenset[Axis], float]
    """Arithmetic per point of each space, in simple operations."""
    reductions: tuple[Reduction, ...]

    @property
    def swept(self) -> tuple[Axis, ...]:
        """The axes that one program has to walk."""
        return (*self.reduced, *self.scanned)

    @property
    def is_product(self) -> bool:
        """Whether it sums up products of matrices."""
        return any(each.is_product for each in self.reductions)

    @property
    def work(self) -> float:
        """Instructions for one point, loads and stores included."""
        return self.ops + sum(self.weights.values())

    @property
    def starts(self) -> tuple[Value, ...]:
        """The tensors that updated results begin as."""
        return tuple(self.op.starts.values())

    def written(self, value: Value) -> tuple[Sequence[Affine], tuple[Dim, ...]]:
        """Where in what shape the elements of a result go: all of its own, or the
        points that it is updated at."""
        if value in self.stores:
            return self.stores[value], shape_of(value)
        axes = self.updates[value].axes
        return [Affine.of(axis) for axis in axes], tuple(axis.extent for axis in axes)

    def of(self, op: Region) -> Summary:
        """The summary of another region that shares the block."""
        outer = _outer(op)
        loads = tuple((outer[load.buffer], load) for _, load in self.loads)
        named = dict(zip(self.op.results, op.results, strict=True))
        stores = {named[value]: index for value, index in self.stores.items()}
        updates = {named[value]: each for value, each in self.updates.items()}
        return replace(self, op=op, loads=loads, stores=stores, updates=updates)


def summarise(op: Region) -> Summary:
    """Read a region once."""
    outer = _outer(op)
    loads: list[tuple[Value, Load]] = []
    stores: dict[Value, tuple[Affine, ...]] = {}
    updates: dict[Value, Update] = {}
    reduced: dict[Axis, None] = {}
    scanned: dict[Axis, None] = {}
    axes: dict[Axis, None] = {}
    weights: dict[frozenset[Axis], float] = {}
    products = summed_products(op.body)
    ops, multiplied = 0, {*products.values()}
    reduces: list[Reduce] = []
    for inner in walk(op.body):
        ops += 1
        if isinstance(inner, Load):
            loads.append((outer[inner.buffer], inner))
            axes.update(index_axes(inner.index))
        elif isinstance(inner, Store):
            stores[outer[inner.buffer]] = inner.index
            axes.update(index_axes(inner.index))
        elif isinstance(inner, Update):
            updates[outer[inner.buffer]] = inner
            axes.update(dict.fromkeys(inner.axes))
        elif isinstance(inner, Reduce):
            reduces.append(inner)
            reduced.update(dict.fromkeys(inner.axes))
        elif isinstance(inner, Scan):
            scanned[inner.axis] = None
        weight = weigh(inner)
        if weight and inner not in multiplied:  # one instruction multiplies and adds
            space = computed_at(inner)
            weights[space] = weights.get(space, 0.0) + weight
    axes.update(reduced | scanned)
    swept = tuple(reduced), tuple(scanned)
    found = tuple(reductions(reduces, products).values())
    written = tuple(loads), stores, updates
    return Summary(op, *written, *swept, tuple(axes), ops, weights, found)


def computed_at(op: Op) -> frozenset[Axis]:
    """The axes of the points that an op computes at, those it combines included."""
    values = (*op.operands, *op.results)
    own = (*op.axes,) if isinstance(op, (Reduce, Update)) else ()
    return frozenset(axis for value in values for axis in axes_of(value)).union(own)


def _outer(op: Region) -> dict[Value, Value]:
    """What each parameter of a region's block stands for."""
    return dict(zip(op.body.params, (*op.inputs, *op.results), strict=True))


def _summaries(function: Function) -> dict[int, Summary]:
    """The summary of each region, by its position; each block is read once."""
    known: dict[Block, Summary] = {}
    found: dict[int, Summary] = {}
    for k, op in enumerate(function.body.ops):
        if isinstance(op, Region):
            first = known.get(op.body)
            found[k] = first.of(op) if first else summarise(op)
            known.setdefault(op.body, found[k])
    return found


class Regions:
    """The ops of a loop function by their positions, and the values between them."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.ops = function.body.ops
        self.summaries = _summaries(function)
        self.maker = {v: k for k, op in enumerate(self.ops) for v in op.results}
        self.readers = _readers(function)
        self.returned = set(function.body.yields)

    def update(self, value: Value) -> Update | None:
        """How a region updates a result, if it does."""
        k = self.maker.get(value)
        return self.summaries[k].updates.get(value) if k in self.summaries else None

    def is_read(self, value: Value) -> bool:
        """Whether an op reads a value, or the function returns it."""
        return value in self.readers or value in self.returned

    def values(self, members: Iterable[int]) -> list[Value]:
        """All that some ops read and make, in their order."""
        ops = [self.ops[k] for k in members]
        return [value for op in ops for value in (*op.operands, *op.results)]

    def needs(self) -> list[set[int]]:
        """The ops that each op waits for: what makes its operands, and what finds out
        its sizes. Those with effects keep their order."""
        needs = [
            {self.maker[v] for v in op.operands if v in self.maker} for op in self.ops
        ]
        tellers = _tellers(self.function)
        for k, op in enumerate(self.ops if tellers else ()):
            told = [tellers[s] for s in used_symbols(Block((), (op,))) if s in tellers]
            needs[k].update(teller for teller in told if teller < k)
        effects = [k for k, op in enumerate(self.ops) if _has_effect(op)]
        for earlier, later in pairwise(effects):
            needs[later].add(earlier)
        return needs

    def described(self, members: Iterable[int]) -> str:
        """Ops by what they compute last, and by the line that says so; an extern by
        what it calls."""
        places = sorted(members, reverse=True)
        op = self.ops[places[0]]
        if isinstance(op, Extern):
            return op.target
        bodies = (self.summaries[k].op.body for k in places if k in self.summaries)
        inner = (pair for body in bodies for pair in reversed(called(body)))
        kinds = Elementwise, Reduce, Scan, Update
        computing = (pair for pair in inner if isinstance(pair[0], kinds))
        last = list(islice(computing, 3))
        names = " ".join(name for _, name in reversed(last)) or "copy"
        loc = last[0][0].loc if last and last[0][0].loc.file else op.loc
        return f"{names} at {loc}" if loc.file else names


def called(block: Block) -> list[tuple[Op, str]]:
    """The ops of a block, and what they are to its reader: a reduction is its monoid, a
    scan runs it, and a sum of products is one thing, whose product stands for nothing.
    """
    products = {
        total: mul
        for total, mul in summed_products(block).items()
        if {*axes_of(mul.x)} != {*axes_of(mul.y)}
    }
    multiplied = {*products.values()}
    return [
        (op, MATMUL if op in products else _name(op))
        for op in walk(block)
        if op not in multiplied
    ]


MATMUL = "matmul"


def _name(op: Op) -> str:
    if isinstance(op, Scan):
        return f"cum{op.monoid.name.partition('<')[0]}"
    if isinstance(op, Update):
        return "scatter" if op.combine == ONE else f"scatter_{op.combine}"
    return op.monoid.name.partition("<")[0] if isinstance(op, Reduce) else op.name


def shape_of(value: Value) -> tuple[Dim, ...]:
    """The shape of a tensor."""
    assert isinstance(value.type, Tensor)
    return value.shape


def _has_effect(op: Op) -> bool:
    return not isinstance(op, Region) and not op.pure


def _tellers(function: Function) -> dict[Symbol, int]:
    """The first extern to find out each symbol that no argument tells."""
    given = {n for x in function.params for n in dims_of(x.type)}
    named = {x.hint for x in function.params}
    found: dict[Symbol, int] = {}
    for k, op in enumerate(function.body.ops):
        for symbol in op.told - given if isinstance(op, Extern) else ():
            if symbol.name not in named:
                found.setdefault(symbol, k)
    return found


def _readers(function: Function) -> dict[Value, tuple[int, ...]]:
    found: dict[Value, list[int]] = {}
    for k, op in enumerate(function.body.ops):
        for value in dict.fromkeys(op.operands):
            found.setdefault(value, []).append(k)
    return {value: tuple(ks) for value, ks in found.items()}
