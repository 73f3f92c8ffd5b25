"""FX graphs of ATen ops, as AOTAutograd hands them over, become graph-level functions.

    def forward(self, x: "f32[8, 16]"):              graph @forward(%x: f32[8, 16]) {
        relu = torch.ops.aten.relu.default(x)    →     %0 = maximum %x (const 0.0)
        mm = torch.ops.aten.mm.default(relu, …)        %1 = extern "aten.mm.default" …
        return (mm,)                                   yield %1

Every op keeps the user's source line. What fusec has no op for is called through
torch, in place, and listed in `Imported.fallbacks`. The types that torch traced are
the truth: a result is cast and broadcast to its own, and one of another shape is a bug.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import torch
from torch import fx
from torch.fx.node import map_arg

from fusec.errors import Loc, Unsupported, UnsupportedError
from fusec.frontend.aten import HANDLERS
from fusec.frontend.aten.registry import Handler
from fusec.frontend.aten.symbolic import symbolic
from fusec.frontend.aten.term import Emitter, Term, Undecided
from fusec.frontend.dtypes import COMPUTED, from_torch
from fusec.frontend.externs import BY_DESIGN, Externs, Found, restrided
from fusec.frontend.meta import (
    CPU,
    extents,
    home_of,
    is_readable,
    leaves,
    loc_of,
    size_of,
    symints,
    tensor_type,
    traced,
    type_of,
)
from fusec.frontend.outputs import (
    Argument,
    Output,
    Replay,
    Size,
    View,
    Yielded,
    fills,
    is_absolute,
    offset_in,
    take_from_the_origin,
    view_bases,
    view_calls,
)
from fusec.frontend.shapes import Sizes, Untranslatable, symbol_of, to_dim
from fusec.frontend.torch_private import OpOverload
from fusec.ir.builder import Builder, without_dead_ops
from fusec.ir.calls import Named, Slot
from fusec.ir.core import Function, Level, Value
from fusec.ir.dims import Expr, Symbol, symbols
from fusec.ir.dtypes import bool_, f64, i64
from fusec.ir.ops.extern import Extern
from fusec.ir.types import IllTyped, Opaque, Scalar, Tensor, Type
from fusec.target import Target

Targets = Callable[[str], Target]
"""The target of a device, by torch's name of it."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A graph that was taken in.

    Parameter k of the function is placeholder k of the graph. Two yields never share
    memory with each other or with a parameter, but for `function.returns_into`.
    """

    function: Function
    hints: dict[Symbol, int]
    """The sizes of the call that was traced, where they were known."""
    callables: dict[str, Callable[..., Any]]
    """The externs that have no name in torch."""
    fallbacks: tuple[Unsupported, ...]
    """What runs through ATen though fusec would rather compile it."""
    outputs: tuple[Output, ...]
    """What each output of the graph is; yields that none names update a parameter."""
    device: str
    """Where its kernels run, as torch names it: cpu, cuda:0."""
    eager: Callable[..., Any]
    """The graph as traced, run by torch: what the function is compared with."""
    elsewhere: Unsupported | None = None
    """The first tensor that lies elsewhere than where kernels run, if any does."""

    def eager_yields(self, arguments: list[Any]) -> list[Any]:
        """What the function yields, as torch computes it. Arguments are overwritten."""
        results = self.eager(*arguments)
        function = self.function
        yields: list[Any] = [None] * len(function.body.yields)
        for output, result in zip(self.outputs, results, strict=True):
            if isinstance(output, int):
                yields[output] = result
        for k, param in enumerate(function.returns_into):
            if param is not None:
                yields[k] = arguments[param]
        return yields


def import_graph(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    name: str = "graph",
    numerics: str = "eager",
    frozen: Sequence[int] = (),
    target: Targets | None = None,
) -> Imported:
    """Take in a functional graph of ATen ops.

    `frozen` are placeholders that hold the same from call to call, unless the graph
    itself writes to them.
    `target` tells the target of a device: what it does well decides how some ops are
    taken in.
    `example_inputs` stand in where the graph's placeholders lack fake tensors.
    Raises `UnsupportedError` where the graph holds values that the IR cannot (complex
    or sparse tensors, mutation other than of inputs at the end).
    """
    intake = _Intake(gm, numerics, target)
    placeholders = gm.graph.find_nodes(op="placeholder")
    for node, example in zip(placeholders, example_inputs, strict=True):
        node.meta.setdefault("val", example)
    for node in gm.graph.nodes:
        if node.target in _IN_MEMORY and not take_from_the_origin(node):
            raise _unsupported(node, "it reads memory that holds another type")
        intake.take(node)
    return intake.finish(name, frozen)


class _Intake:
    """One sweep over a graph."""

    def __init__(
        self, gm: fx.GraphModule, numerics: str, target: Targets | None
    ) -> None:
        metas = [node.meta.get("val") for node in gm.graph.nodes]
        symbolic = [size for meta in metas for size in symints(meta)]
        self.sizes = Sizes.of(symbolic, {n for meta in metas for n in extents(meta)})
        default = from_torch(torch.get_default_dtype())
        assert default is not None
        builder = Builder(Level.GRAPH)
        home = home_of(metas)
        updates = target(str(home)).updates if target else ()
        self.e = Emitter(
            builder, self.sizes.facts, numerics == "fast", default, home, updates
        )
        self.gm = gm
        self.env: dict[fx.Node, Found] = {}
        self.arguments: dict[fx.Node, int] = {}
        self.bound: dict[Symbol, None] = {}
        """The symbols that arguments or, later, results of externs decide."""
        self.displaced: set[Symbol] = set()
        """Those of them that say where a view begins: what is copied begins at 0."""
        self.updates: dict[fx.Node, Term] = {}
        """What each overwritten placeholder holds in the end."""
        self.sources: dict[fx.Node, fx.Node] = {}
        """The node that each of them is overwritten with."""
        self.bases: dict[fx.Node, fx.Node] = {}
        """Outputs that are views, and of what."""
        self.moved: dict[fx.Node, Term] = {}
        """Numbers on the CPU, where kernels on another device can read them."""
        self.known: set[fx.Node] = set()
        """Those of them that the graph alone tells."""
        self.externs = Externs()
        self.fallbacks: list[Unsupported] = []
        self.outputs: tuple[Any, ...] = ()

    def take(self, node: fx.Node) -> None:
        """Take in one node, in the order of the graph."""
        self.e.b.loc = loc_of(node)
        if node.op == "output":
            self.outputs = tuple(node.args[0])  # pyright: ignore
        elif node.op == "placeholder":
            self.env[node] = self._placeholder(node)
        elif node.op == "get_attr":
            self.env[node] = self._attribute(node)
        else:
            self.env[node] = self._call(node)

    def _placeholder(self, node: fx.Node) -> Found:
        meta = node.meta["val"]
        self.arguments[node] = len(self.arguments)
        type_ = type_of(meta, loc_of(node), self.e.home)
        symbol = symbol_of(meta) if isinstance(meta, torch.SymInt) else None
        self.bound.update(dict.fromkeys(_symbols_of(meta)))
        value = self.e.b.param(type_, symbol.name if symbol else node.name)
        size = self._size(meta)
        return Term(self.e, value) if size is None else size

    def _attribute(self, node: fx.Node) -> Found:
        held = operator.attrgetter(str(node.target))(self.gm)
        if not isinstance(held, torch.Tensor):
            return held
        if self.e.home != CPU and _is_number(held):
            dtype = from_torch(held.dtype)
            assert dtype is not None
            self.known.add(node)
            self.moved[node] = self.e.full(held.item(), (), dtype)
        return self.externs.constant(self.e, node, held)

    def _call(self, node: fx.Node) -> Found:
        size = self._size(node.meta.get("val"))
        if size is not None and not _defines_symbol(node):
            return size
        if node.target is operator.getitem:
            found, index = self._known(node.args)
            if isinstance(found, tuple):
                return found[index]
        if node.target is torch.ops.aten.copy_.default:
            return self._update(node)
        if isinstance(node.target, OpOverload) and node.target._schema.is_mutable:
            raise _unsupported(node, "it writes to a tensor within the graph")
        if str(node.target) in _ONLY_FOR_TRACING:
            return None
        return self._compute(node)

    def _compute(self, node: fx.Node) -> Found:
        """By a handler if one can, else by a call to torch."""
        meta = traced(node)
        metas = list(leaves(meta))
        types = tuple(type_of(meta, loc_of(node), self.e.home) for meta in metas)
        results = tuple(t for t in types if isinstance(t, Tensor))
        e = self._at(node, results)
        handler = _handler(node)
        known = self._is_known(node, meta, handler)
        reason = "fusec has no such op"
        if not self.bound.keys() >= set(_symbols_of(meta)):
            reason = "how large its result is only the call finds out"
        elif strange := self._strange(node, metas, types):
            reason = strange
        elif handler is not None:
            found = self._handled(e, node, handler)
            if isinstance(found, (Term, tuple)):
                return found
            reason = found
        if _packet(node) not in BY_DESIGN and not _moves(node) and not known:
            self.fallbacks.append(Unsupported(str(node.target), reason, loc_of(node)))
        found = self.externs.call(e, node, self.env)
        self.bound.update(dict.fromkeys(_symbols_of(meta)))
        if _packet(node) == "aten.sym_storage_offset":
            self.displaced.update(_symbols_of(meta))
        size = self._size(meta)
        return found if size is None else size

    def _size(self, meta: Any) -> int | Expr | None:
        """A node's value as a dim, if it is an integer that is one."""
        if isinstance(meta, bool) or not isinstance(meta, (int, torch.SymInt)):
            return None
        try:
            dim = to_dim(meta)
        except Untranslatable:
            return None
        return dim if self.sizes.facts.divides_safely(dim) else None

    def _strange(
        self, node: fx.Node, metas: Sequence[Any], results: Sequence[Type]
    ) -> str:
        """What keeps kernels from a node: the type of an operand or result, or ""."""
        terms = {x: self._near(x) for x in node.all_input_nodes}
        found = [(x.meta.get("val"), t) for x, t in terms.items()]
        pairs = [(m, t.value.type) for m, t in found if isinstance(t, Term)]
        pairs += zip(metas, results, strict=True)
        types = [type_ for _, type_ in pairs]
        for meta, type_ in pairs:
            if isinstance(meta, torch.Tensor) and isinstance(type_, Opaque):
                where, home = meta.device, self.e.home
                if where != home:
                    return f"a tensor of it is on {where}, the kernels are on {home}"
        if any(isinstance(type_, Opaque) for type_ in types):
            return (
                "fusec does not read complex, sparse and quantized tensors, or objects"
            )
        dtypes = {type_.dtype for type_ in types if isinstance(type_, (Tensor, Scalar))}
        others = sorted(dtype.name for dtype in dtypes - COMPUTED)
        return f"fusec does not compute in {others[0]} yet" if others else ""

    def _near(self, node: fx.Node) -> Found:
        """What a node stands for, where kernels can read it: a tensor of one number on
        the CPU is copied to their device."""
        found, meta = self.env.get(node), node.meta.get("val")
        if self.e.home == CPU or not isinstance(found, Term) or not _is_number(meta):
            return found
        if node not in self.moved:
            dtype = from_torch(meta.dtype)
            assert dtype is not None
            to = (("device", Named("device", str(self.e.home))),)
            attrs = ("aten._to_copy.default", (Slot(0),), to, (Tensor(dtype, ()),))
            (value,) = self.e.b.emit(Extern, (found.value,), attrs)
            self.moved[node] = Term(self.e, value)
        return self.moved[node]

    def _is_known(self, node: fx.Node, meta: Any, handler: Handler | None) -> bool:
        """Whether the graph alone tells a number on the CPU: then kernels on another
        device have it at hand."""
        if self.e.home == CPU or handler is None or not _is_number(meta):
            return False
        if not self.known.issuperset(node.all_input_nodes):
            return False
        e = self._at(node, (tensor_type(meta, loc_of(node)),))
        found = self._handled(e, node, handler)
        if isinstance(found, Term):
            self.known.add(node)
            self.moved[node] = found
        return node in self.known

    def _at(self, node: fx.Node, results: tuple[Tensor, ...]) -> Emitter:
        """What a node's handler emits with."""
        return replace(self.e, results=results, whole=_is_whole(node))

    def _handled(
        self, e: Emitter, node: fx.Node, handler: Handler
    ) -> Term | tuple[Found, ...] | str:
        """What a handler returns, as torch types it; or why there is nothing."""
        try:
            args, kwargs = map_arg((node.args, node.kwargs), self._near)
            made = handler(e, *args, **kwargs)
            if made is None:
                return "fusec has this op for other arguments only"
            if isinstance(made, Term):
                return _settled(e, node, made, e.results[0] if e.results else None)
            return tuple(
                None if term is None else _settled(e, node, term, type_)
                for term, type_ in zip(made, e.results, strict=True)
            )
        except Undecided:
            return "fusec has this op for numbers that are known when it compiles"
        except IllTyped as error:
            if not self.sizes.facts.ranges:
                raise
            # Sizes that are equal only by what torch assumed of their symbols.
            return f"sizes: {error}"

    def _update(self, node: fx.Node) -> Found:
        """A copy_ into a placeholder: the function returns into that parameter."""
        target, source = node.args[:2]
        if target not in self.arguments or not isinstance(source, fx.Node):
            raise _unsupported(node, "it writes to something other than an input")
        old, new = self.env[target], self.env[source]
        if target.meta["val"].is_neg():
            raise _unsupported(node, "it writes to a tensor that is negated lazily")
        self.sources[target] = source
        if isinstance(old.value.type, Opaque):
            self.updates[target] = new
            return new
        self.updates[target] = new.cast(old.dtype).broadcast(old.shape)
        return self.updates[target]

    def _known(self, tree: Any) -> Any:
        """Arguments with nodes replaced by what they stand for."""
        return map_arg(tree, self.env.__getitem__)

    # ----------------------------------------------------------------- the end

    def finish(self, name: str, frozen: Sequence[int]) -> Imported:
        """The function, and what goes with it."""
        self.e.b.loc = Loc.UNKNOWN
        yields: list[Value] = []
        places: dict[fx.Node, int] = {}
        self.bases = view_bases(self.outputs, self.arguments, self.sources)
        outputs = tuple(self._output(x, yields, places) for x in self.outputs)
        returns: list[int | None] = [None] * len(yields)
        for target, term in self.updates.items():
            self.e.b.loc = loc_of(self.sources[target])
            yields.append(restrided(term, target.meta["val"]).value)
            returns.append(self.arguments[target])
        block = without_dead_ops(self.e.b.block(yields))
        symbols, facts = tuple(self.bound), self.sizes.facts
        same = tuple(
            k
            for k in frozen
            if k not in returns and isinstance(block.params[k].type, Tensor)
        )
        same = same if self.e.home == CPU else ()
        return Imported(
            Function(name, Level.GRAPH, block, symbols, facts, tuple(returns), same),
            {s: n for s, n in self.sizes.hints.items() if s in self.bound},
            self.externs.callables,
            tuple(self.fallbacks),
            outputs,
            str(self.e.home),
            self.gm.forward,
            next(self._elsewhere(), None),
        )

    def _elsewhere(self) -> Iterator[Unsupported]:
        """The tensors that a call makes or takes on other devices than its kernels'."""
        for node in self.env:
            if node in self.known and node not in self.outputs:
                continue
            for x in leaves(node.meta.get("val")):
                if isinstance(x, torch.Tensor) and x.device != self.e.home:
                    name = node.name if node.op == "placeholder" else node.target
                    reason = f"a tensor of it is on {x.device}"
                    yield Unsupported(str(name), reason, loc_of(node))

    def _output(
        self, output: Any, yields: list[Value], places: dict[fx.Node, int]
    ) -> Output:
        if output is None:
            return None
        if not isinstance(output, fx.Node):
            yields.append(_scalar(self.e, output).value)
            return len(yields) - 1
        if output in self.arguments:
            return Argument(self.arguments[output])
        if output.target is torch.ops.aten.copy_.default:
            return Argument(self.arguments[output.all_input_nodes[0]])
        if output in self.bases:
            return self._view(output, yields, places)
        if output not in places:
            found = self.env[output]
            self.e.b.loc = loc_of(output)
            term = found if isinstance(found, Term) else _scalar(self.e, found)
            places[output] = len(yields)
            yields.append(restrided(term, output.meta.get("val")).value)
        return places[output]

    def _view(
        self, node: fx.Node, yields: list[Value], places: dict[fx.Node, int]
    ) -> View | Replay:
        """An output in the memory of another; sizes that vary the program yields."""
        loc, base, meta = loc_of(node), self.bases[node], node.meta["val"]
        under = self._output(base, yields, places)
        assert isinstance(under, (int, Argument))
        absolute = is_absolute(node, base)
        start = meta.storage_offset()
        if not absolute:
            start = offset_in(node, base, self.sources)
        dims = [size_of(n, loc) for n in (*meta.shape, *meta.stride(), start)]
        known = self.bound.keys() - self.displaced
        if not all(symbols(dim) <= known for dim in dims):
            return Replay(under, self._replay(node, base, yields))
        *sizes, offset = (self._number(dim, yields) for dim in dims)
        rank = len(meta.shape)
        shape, strides = tuple(sizes[:rank]), tuple(sizes[rank:])
        return View(under, shape, strides, offset, absolute)

    def _replay(
        self, node: fx.Node, base: fx.Node, yields: list[Value]
    ) -> tuple[tuple[Any, ...], ...]:
        """The calls that make a view of its base, with what they are called with.

        Raises `UnsupportedError` where it is not made by views of its base alone.
        """
        calls = view_calls(node, (base, self.sources.get(base, base)))
        if calls is None:
            raise _unsupported(node, "data decide its place in its base")

        def number(x: fx.Node) -> Any:
            return self._number(self.env[x], yields)

        trees = [map_arg((call.args[1:], call.kwargs), number) for call in calls]
        return tuple((n.target, *tree) for n, tree in zip(calls, trees, strict=True))

    def _number(self, found: Found, yields: list[Value]) -> Size:
        """A number that the end of a call needs: known, or yielded by the program."""
        if isinstance(found, int):
            return found
        value = found.value if isinstance(found, Term) else self.e.size(found).value
        yields.append(value)
        return Yielded(len(yields) - 1)


def _is_whole(node: fx.Node) -> bool:
    """Whether a node's first operand fills its memory, in row-major order."""
    first = node.args[0] if node.args else None
    meta = first.meta.get("val") if isinstance(first, fx.Node) else None
    if not isinstance(meta, torch.Tensor) or not is_readable(meta):
        return False
    return fills(first) and tensor_type(meta, loc_of(node)).strides is None  # type: ignore


def _is_number(meta: Any) -> TypeGuard[torch.Tensor]:
    """Whether a value is a tensor of one number, on the CPU."""
    if not isinstance(meta, torch.Tensor) or meta.device != CPU or meta.dim():
        return False
    return is_readable(meta)


def _moves(node: fx.Node) -> bool:
    """Whether a node only brings a tensor from one device to another."""
    if node.target is not torch.ops.aten._to_copy.default:
        return False
    devices = {x.meta["val"].device for x in (node, *node.all_input_nodes)}
    return len(devices) > 1


_IN_MEMORY = (
    torch.ops.aten.as_strided.default,
    torch.ops.aten.as_strided_copy.default,
)

_ONLY_FOR_TRACING = frozenset(
    f"aten.sym_constrain_range{suffix}.default" for suffix in ("", "_for_size")
)
"""What tells the tracer about a size, and does nothing when run."""


def _defines_symbol(node: fx.Node) -> bool:
    """Whether the node finds out a size, rather than computing it from others."""
    is_op = isinstance(node.target, OpOverload)
    return is_op and _packet(node) not in ("aten.sym_size", "aten.sym_stride")


def _handler(node: fx.Node) -> Handler | None:
    if isinstance(node.target, OpOverload):
        return HANDLERS.get(str(node.target))
    meta = node.meta.get("val")
    if node.op != "call_function" or not isinstance(meta, _NUMBERS):
        return None
    type_ = type_of(meta, loc_of(node), CPU)
    assert isinstance(type_, Scalar)
    target: Any = node.target
    return lambda e, *operands: symbolic(e, type_.dtype, target, *operands)


_NUMBERS = (bool, float, int, torch.SymBool, torch.SymFloat, torch.SymInt)


def _packet(node: fx.Node) -> str:
    return str(node.target).rpartition(".")[0]


def _scalar(e: Emitter, number: Any) -> Term:
    """A number or dim that a graph returns."""
    if isinstance(number, Expr):
        return e.size(number)
    dtype = bool_ if isinstance(number, bool) else i64
    return e.const(number, f64 if isinstance(number, float) else dtype)


def _settled(e: Emitter, node: fx.Node, term: Term, type_: Tensor | None) -> Term:
    """A handler's result with the dtype and shape that torch says it has."""
    if type_ is None:
        return term
    term = term.cast(type_.dtype)
    if term.is_scalar:
        return term.broadcast(type_.shape)
    if term.shape != type_.shape:
        raise IllTyped(f"{node.target} gives {term.shape}, torch says {type_.shape}")
    return term


def _symbols_of(meta: Any) -> list[Symbol]:
    """The symbols in the sizes of a node's value."""
    named: set[Symbol] = set()
    for size in symints(meta):
        with suppress(Untranslatable):  # a number, but no size of a tensor
            named |= symbols(to_dim(size))
    return sorted(named, key=lambda symbol: symbol.name)


def _unsupported(node: fx.Node, reason: str) -> UnsupportedError:
    return UnsupportedError([Unsupported(str(node.target), reason, loc_of(node))])
