"""Running a host function on torch tensors.

Every op of the host function is turned into a step once, a closure over the slots of a
frame; a call runs the steps in order:

    %y = alloc f32[4096, 1000]          frame[2] = torch.empty_strided(…)
    launch @fused_exp_0 (%x, %y)        launch(address, (x.data_ptr(), y.data_ptr()), …)

What only kernels touch lives in an arena, one block for a call, at offsets that
tensors with separate lifetimes share. Everything else is an ordinary torch tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fusec.errors import InternalError
from fusec.ir.core import Function, Op, Value
from fusec.ir.dims import Dim, Symbol, evaluate, product
from fusec.ir.dtypes import DType
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.elementwise import Elementwise
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.host import Alloc, CopyInto, Free, Launch, Raise
from fusec.ir.ops.loop import View
from fusec.ir.types import Scalar, Tensor, strides_of
from fusec.runtime.extern import bind
from fusec.runtime.launcher_cpu import launch, slots
from fusec.runtime.memory import Arena, advise_huge
from fusec.runtime.plan import ArenaPlan, plan_arena

Sizes = dict[Symbol, int]


@dataclass(slots=True)
class Frame:
    """The state of one call."""

    slots: list[Any]
    sizes: Sizes
    threads: int
    base: int = 0
    """The address of the arena block."""


Step = Callable[[Frame], None]

TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "bool": torch.bool,
    "i8": torch.int8,
    "i16": torch.int16,
    "i32": torch.int32,
    "i64": torch.int64,
    "u8": torch.uint8,
    "u16": torch.uint16,
    "u32": torch.uint32,
    "u64": torch.uint64,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f32": torch.float32,
    "f64": torch.float64,
}


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch dtype of an element type."""
    return TORCH_DTYPES[dtype.name]


class Program:
    """A host function bound to its kernels: call it with a list of arguments.

    The list is emptied, so that arguments can be freed as soon as they are used.
    """

    def __init__(
        self,
        function: Function,
        addresses: Mapping[str, int],
        callables: Mapping[str, Callable[..., Any]],
        threads: int | None = None,
    ) -> None:
        self.journey: Any = None
        """How the program came about, for those who ask."""
        self.code: Any = None
        """What holds the kernels' memory."""
        self._function = function
        self._number: dict[Value, int] = {}
        self._plan: ArenaPlan = plan_arena(function)
        self._arena = Arena(self._plan.nbytes) if self._plan.nbytes else None
        self._threads = threads
        for value in function.params:
            self._slot(value)
        known = _defined(function)
        self._bindings = [
            _binding(function, s) for s in function.symbols if s.name not in known
        ]
        binder = _Binder(self, addresses, callables)
        self._steps = binder.steps(function)
        self._results = [self._slot(v) for v in function.body.yields]
        self._params = len(function.params)
        self._count = len(self._number)

    def __call__(self, arguments: list[Any]) -> list[Any]:
        """Run the program; the results in the order of the function's yields."""
        if len(arguments) != self._params:
            raise InternalError(
                f"{self._function.name} takes {self._params} arguments,"
                f" not {len(arguments)}"
            )
        sizes = {symbol: get(arguments) for symbol, get in self._bindings}
        values = [*arguments, *[None] * (self._count - self._params)]
        arguments.clear()
        frame = Frame(values, sizes, self._threads or torch.get_num_threads())
        if self._arena is None:
            return self._run(frame)
        with self._arena.checkout() as frame.base:
            return self._run(frame)

    def _run(self, frame: Frame) -> list[Any]:
        for step in self._steps:
            step(frame)
        return [frame.slots[k] for k in self._results]

    def _slot(self, value: Value) -> int:
        return self._number.setdefault(value, len(self._number))


@dataclass(slots=True)
class _Binder:
    """Turns ops into steps."""

    program: Program
    addresses: Mapping[str, int]
    callables: Mapping[str, Callable[..., Any]]

    def steps(self, function: Function) -> list[Step]:
        """The steps of all ops, and what lets go of arguments and views between."""
        done = _borrowed_until(function)
        steps: list[Step | None] = []
        for op in function.body.ops:
            steps.append(self.step(op))
            slots = [self.slot(v) for v in done.get(op, ())]
            steps.append(_let_go(slots) if slots else None)
        return [step for step in steps if step is not None]

    def step(self, op: Op) -> Step | None:
        """The step of an op; None where there is nothing to do."""
        match op:
            case Alloc():
                return self.alloc(op)
            case Free():
                return self.free(op)
            case Launch():
                return self.launch(op)
            case View():
                return self.view(op)
            case CopyInto():
                return self.copy_into(op)
            case Raise():
                return self.raise_(op)
            case Extern():
                return self.extern(op)
            case Const() | SizeOf():
                return self.scalar(op)
            case Elementwise():
                return self.arithmetic(op)
            case _:
                raise InternalError(f"the host cannot run {op.name}")

    def slot(self, value: Value) -> int:
        return self.program._slot(value)

    def alloc(self, op: Alloc) -> Step | None:
        if op.result in self.program._plan.offsets:
            return None
        at, type_ = self.slot(op.result), op.type
        dtype = torch_dtype(type_.dtype)
        make = _shaper(type_, dtype)
        if op.zeroed:
            make = _zeroed(make)

        def step(frame: Frame) -> None:
            frame.slots[at] = make(frame.sizes)

        return step

    def free(self, op: Free) -> Step | None:
        if op.x in self.program._plan.offsets:
            return None
        at = self.slot(op.x)

        def step(frame: Frame) -> None:
            frame.slots[at] = None

        return step

    def launch(self, op: Launch) -> Step:
        address = self.addresses[op.kernel]
        pointers = [self.pointer(v) for v in op.arguments]
        symbols, grid = op.sizes, op.grid

        def step(frame: Frame) -> None:
            sizes = frame.sizes
            programs = grid if isinstance(grid, int) else evaluate(grid, sizes)
            if programs == 0:
                return
            values = [get(frame) for get in pointers]
            values += [sizes[symbol] for symbol in symbols]
            launch(address, slots(values), programs, frame.threads)

        return step

    def pointer(self, value: Value) -> Callable[[Frame], int]:
        """What gives the address of a tensor."""
        offset = self.program._plan.offsets.get(value)
        if offset is not None:
            return lambda frame: frame.base + offset
        at = self.slot(value)
        return lambda frame: frame.slots[at].data_ptr()

    def view(self, op: View) -> Step:
        source, at = self.slot(op.x), self.slot(op.result)
        type_, offset = op.type, op.offset

        def step(frame: Frame) -> None:
            x, sizes = frame.slots[source], frame.sizes
            shape = _evaluated(type_.shape, sizes)
            strides = _evaluated(strides_of(type_), sizes)
            start = x.storage_offset() + _evaluated((offset,), sizes)[0]
            frame.slots[at] = x.as_strided(shape, strides, start)

        return step

    def copy_into(self, op: CopyInto) -> Step:
        source, target = self.slot(op.x), self.slot(op.target)

        def step(frame: Frame) -> None:
            frame.slots[target].copy_(frame.slots[source])

        return step

    def raise_(self, op: Raise) -> Step:
        at, messages = self.slot(op.flags), op.messages

        def step(frame: Frame) -> None:
            raised = frame.slots[at].nonzero().flatten().tolist()
            if raised:
                raise IndexError(messages[raised[0]])

        return step

    def extern(self, op: Extern) -> Step:
        call = bind(op, self.callables)
        sources = [self.slot(v) for v in op.operands]
        targets = [self.slot(v) for v in op.results]

        def step(frame: Frame) -> None:
            values = frame.slots
            results = call([values[k] for k in sources], frame.sizes)
            for at, result in zip(targets, results, strict=True):
                values[at] = result

        return step

    def scalar(self, op: Const | SizeOf) -> Step:
        at = self.slot(op.result)
        dim: Any = op.value if isinstance(op, Const) else op.dim

        def step(frame: Frame) -> None:
            known = not isinstance(op, SizeOf) or isinstance(dim, int)
            frame.slots[at] = dim if known else evaluate(dim, frame.sizes)

        return step

    def arithmetic(self, op: Elementwise) -> Step:
        sources = [self.slot(v) for v in op.operands]
        at = self.slot(op.result)
        dtype = op.result.type.dtype  # type: ignore[union-attr]

        def step(frame: Frame) -> None:
            operands = [frame.slots[k] for k in sources]
            frame.slots[at] = dtype.quantize(op.numpy(*operands)).item()

        return step


def _let_go(slots: list[int]) -> Step:
    def step(frame: Frame) -> None:
        for at in slots:
            frame.slots[at] = None

    return step


def _borrowed_until(function: Function) -> dict[Op, list[Value]]:
    """After which op the function needs each parameter and each view no more."""
    borrowed = {v for v in function.params if isinstance(v.type, Tensor)}
    last: dict[Value, Op] = {}
    for op in function.body.ops:
        if isinstance(op, View):
            borrowed.add(op.result)
            last[op.result] = op
        last.update((v, op) for v in op.operands if v in borrowed)
    done: dict[Op, list[Value]] = {}
    for value, op in last.items():
        if value not in function.body.yields:
            done.setdefault(op, []).append(value)
    return done


def _shaper(type_: Tensor, dtype: torch.dtype) -> Callable[[Sizes], torch.Tensor]:
    """What allocates a tensor of a type, on huge pages where it is large."""
    shape, strides = type_.shape, strides_of(type_)
    width = dtype.itemsize

    def make(sizes: Sizes) -> torch.Tensor:
        tensor = torch.empty_strided(
            _evaluated(shape, sizes), _evaluated(strides, sizes), dtype=dtype
        )
        advise_huge(tensor.data_ptr(), tensor.untyped_storage().nbytes())
        return tensor

    if not all(isinstance(n, int) for n in (*shape, *strides)):
        return make
    small = product(shape)
    if isinstance(small, int) and small * width < 4 << 20:
        return lambda sizes: torch.empty_strided(shape, strides, dtype=dtype)
    return make


def _zeroed(make: Callable[[Sizes], torch.Tensor]) -> Callable[[Sizes], torch.Tensor]:
    return lambda sizes: make(sizes).zero_()


def _evaluated(dims: Sequence[Dim], sizes: Sizes) -> tuple[int, ...]:
    return tuple(n if isinstance(n, int) else evaluate(n, sizes) for n in dims)


def _defined(function: Function) -> set[str]:
    """The symbols whose values externs find out (see `runtime.extern`)."""
    found: set[str] = set()
    for op in function.body.ops:
        if isinstance(op, Extern):
            found.update(value.hint for value in op.results if value.hint)
            types = [v.type for v in op.results if isinstance(v.type, Tensor)]
            extents = [n for type_ in types for n in type_.shape]
            found.update(n.name for n in extents if isinstance(n, Symbol))
    given = [v.type.shape for v in function.params if isinstance(v.type, Tensor)]
    names = {n.name for shape in given for n in shape if isinstance(n, Symbol)}
    return found - names - {param.hint for param in function.params}


def _binding(
    function: Function, symbol: Symbol
) -> tuple[Symbol, Callable[[list[Any]], int]]:
    """Where a symbol's value is found among the arguments."""
    for k, param in enumerate(function.params):
        if isinstance(param.type, Scalar) and param.hint == symbol.name:
            return symbol, lambda arguments, k=k: int(arguments[k])
    for k, param in enumerate(function.params):
        if isinstance(param.type, Tensor):
            for d, extent in enumerate(param.type.shape):
                if extent is symbol:
                    return symbol, lambda arguments, k=k, d=d: arguments[k].shape[d]
    raise InternalError(f"no argument of {function.name} tells the size {symbol}")
