"""A plan, which speaks of ops and values, written down as a recipe.

Segment(launch @f, …)      Segment("host.segment_0", (Launch("f", (Place(2, 0), …
Make(%y)                   Make(3, Form("f32", (64,), (1,)), slot 5)
"""

from __future__ import annotations

from collections.abc import Iterable

from fusec.errors import InternalError
from fusec.ir.core import Function, Op, Value
from fusec.ir.dims import Symbol
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.checks import Raise
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.elementwise import Elementwise
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.host import CopyInto, Launch
from fusec.ir.ops.loop import View
from fusec.ir.types import Opaque, Scalar, Tensor, Type, strides_of
from fusec.runtime import plan, recipe
from fusec.runtime.plan import HostPlan
from fusec.runtime.recipe import Binding, Call, Form, Recipe, Tell


def write(host: HostPlan) -> Recipe:
    """What a process does to run a host function."""
    return _Writer(host).run()


def call_of(op: Extern) -> Call:
    """The call of an extern, without its operands."""
    results = tuple(_result(value) for value in op.results)
    return Call(op.target, op.arguments, op.keywords, results, op.loc)


class _Writer:
    """Gives values their numbers."""

    def __init__(self, host: HostPlan) -> None:
        self.plan = host
        self.numbers: dict[Value, int] = {}
        for value in host.function.params:
            self.number(value)

    def run(self) -> Recipe:
        function = self.plan.function
        told = _told(function)
        given = [s for s in function.symbols if s.name not in told]
        bindings = [_binding(function, s) for s in given]
        begin = self.tell(function.params, given)
        steps = tuple(map(self.step, self.plan.steps))
        results = tuple(map(self.number, function.body.yields))
        return Recipe(
            function.name,
            len(function.params),
            len(self.numbers),
            tuple(bindings),
            begin,
            steps,
            results,
            self.plan.arena.nbytes,
            self.plan.frame_size,
            self.plan.apart,
            tuple(sorted({k for k in function.returns_into if k is not None})),
        )

    def number(self, value: Value) -> int:
        """Where a call has a value."""
        return self.numbers.setdefault(value, len(self.numbers))

    def all(self, values: Iterable[Value]) -> tuple[int, ...]:
        return tuple(map(self.number, values))

    def tell(self, values: Iterable[Value], symbols: Iterable[Symbol]) -> Tell:
        """Those of values and symbols that native code reads."""
        slots = self.plan.slots
        tensors = ((slots[v], self.number(v)) for v in values if v in slots)
        sizes = ((slots[s], s) for s in symbols if s in slots)
        return Tell(tuple(tensors), tuple(sizes))

    def step(self, step: plan.Step) -> recipe.Step:
        match step:
            case plan.Segment(name, ops):
                return recipe.Segment(name, tuple(map(self.part, ops)))
            case plan.Make(value):
                slot = self.plan.slots.get(value)
                return recipe.Make(self.number(value), _form(value.type), slot)
            case plan.Drop(values):
                return recipe.Drop(self.all(values))
            case View():
                source, at = self.all((step.x, step.result))
                return recipe.View(source, at, _form(step.type), step.offset)
            case Extern():
                sources, targets = self.all(step.operands), self.all(step.results)
                tell = self.tell(step.results, sorted(step.told, key=str))
                return recipe.Ask(call_of(step), sources, targets, tell)
            case CopyInto():
                return recipe.CopyInto(*self.all((step.x, step.target)))
            case Raise():
                first = self.plan.slots[step.flags]
                return recipe.Raise(first, step.messages, step.errors)
            case Const():
                return recipe.Number(self.number(step.result), step.value)
            case SizeOf():
                return recipe.Number(self.number(step.result), step.dim)
            case Cast() | Elementwise():
                sources = self.all(step.operands)
                return recipe.Compute(_alone(step), sources, self.number(step.result))
            case _:
                raise InternalError(f"the host cannot run {step}")

    def part(self, op: Launch | Extern) -> recipe.Launch | recipe.AskAt:
        """An op of a segment."""
        places = self.plan.places
        if isinstance(op, Launch):
            arguments = tuple(places[value] for value in op.arguments)
            return recipe.Launch(op.kernel, arguments, op.sizes, op.grid)
        sources = tuple((places[v], _form(v.type)) for v in op.operands)
        (result,) = op.results
        return recipe.AskAt(call_of(op), sources, (places[result], _form(result.type)))


def _form(type_: Type) -> Form:
    assert isinstance(type_, Tensor)
    return Form(type_.dtype.name, type_.shape, strides_of(type_))


def _result(value: Value) -> recipe.Result:
    if isinstance(value.type, Scalar):
        return recipe.Counted(value.hint)
    return None if isinstance(value.type, Opaque) else _form(value.type)


def _alone(op: Op) -> Op:
    """An op on values that nothing else has: kept, it takes no graph along."""
    operands = tuple(Value(v.type, v.hint) for v in op.operands)
    results = tuple(Value(v.type, v.hint) for v in op.results)
    return type(op)(operands, op.attrs, (), results)


def _told(function: Function) -> set[str]:
    """The names of the symbols whose values externs find out."""
    externs = [op for op in function.body.ops if isinstance(op, Extern)]
    found = {symbol.name for op in externs for symbol in op.told}
    given = [v.type.shape for v in function.params if isinstance(v.type, Tensor)]
    names = {n.name for shape in given for n in shape if isinstance(n, Symbol)}
    return found - names - {param.hint for param in function.params}


def _binding(function: Function, symbol: Symbol) -> Binding:
    """Where a symbol's value is found among the arguments."""
    for k, param in enumerate(function.params):
        if isinstance(param.type, Scalar) and param.hint == symbol.name:
            return Binding(symbol, k, None)
    for k, param in enumerate(function.params):
        if isinstance(param.type, Tensor) and symbol in param.type.shape:
            return Binding(symbol, k, param.type.shape.index(symbol))
    raise InternalError(f"no argument of {function.name} tells the size {symbol}")
