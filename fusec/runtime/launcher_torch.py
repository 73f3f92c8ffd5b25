"""Running a host function on torch tensors.

Every step of the plan (see `runtime.plan`) is turned into a closure once; a call runs
them in order on a frame, which has the tensors that torch owns, by number, and the
64-bit slots that native code reads:

    Make(%y)                            frame.tensors[2] = torch.empty_strided(…)
                                        frame.slots[3] = frame.tensors[2].data_ptr()
    Segment(launch @f, launch @g)       segment(frame.slots, threads)

What only kernels touch lives in an arena, one block for a call, at offsets that
tensors with separate lifetimes share. Everything else is an ordinary torch tensor.

The ops of a segment run one by one, from Python, where somebody watches, a profiler
or a dispatch mode, and from the op on that failed in a segment, to raise its error.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress, count
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import profiler

from fusec import lazy
from fusec.errors import InternalError
from fusec.ir.core import Function, Value
from fusec.ir.dims import Symbol
from fusec.ir.dtypes import DType
from fusec.ir.ops.cast import Cast
from fusec.ir.ops.checks import Raise
from fusec.ir.ops.constant import Const, SizeOf
from fusec.ir.ops.elementwise import Elementwise
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.host import CopyInto, Launch
from fusec.ir.ops.loop import View
from fusec.ir.types import Scalar, Tensor, strides_of
from fusec.runtime.extern import Sizes, bind, evaluated, number
from fusec.runtime.launcher_cpu import launch, slots
from fusec.runtime.memory import ADVISED_FROM, Arena, advise_huge
from fusec.runtime.plan import (
    ALIGNMENT,
    BASE_SLOT,
    FRAME,
    STATUS_SLOT,
    Drop,
    HostPlan,
    Make,
    Segment,
    Step,
    plan_host,
)
from fusec.runtime.shims import SYMBOLS

if TYPE_CHECKING:
    from fusec.ir.interpreter import elements
else:
    elements = lazy.module("fusec.ir.interpreter.elements")

# A ctypes prototype of this kind releases the GIL while the segment runs.
_SEGMENT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)


@dataclass(slots=True)
class Frame:
    """The state of one call."""

    tensors: list[Any]
    """Tensors and numbers, by the number of their value."""
    sizes: Sizes
    slots: Any
    """An array of int64: what native code reads."""
    threads: int


Action = Callable[[Frame], None]
"""A step of a plan, turned into a closure."""

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
    "f8e4m3fn": torch.float8_e4m3fn,
    "f8e4m3fnuz": torch.float8_e4m3fnuz,
    "f8e5m2": torch.float8_e5m2,
    "f8e5m2fnuz": torch.float8_e5m2fnuz,
}


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch dtype of an element type."""
    return TORCH_DTYPES[dtype.name]


class Program:
    """A host function bound to its kernels: call it with a list of arguments.

    `addresses` are those of the kernels and of the segments of its `plan`, by name;
    without a plan every launch is a call from Python.

    The list is emptied, so that arguments can be freed as soon as they are used.
    """

    def __init__(
        self,
        function: Function,
        addresses: Mapping[str, int],
        callables: Mapping[str, Callable[..., Any]],
        threads: int | None = None,
        plan: HostPlan | None = None,
    ) -> None:
        self.journey: Any = None
        """How the program came about, for those who ask."""
        self.code: Any = None
        """What holds the kernels' memory."""
        self.artifact: Any = None
        """The program as data, for whoever keeps it."""
        plan = plan or plan_host(function)
        binder = _Binder(plan, addresses, callables)
        self._name = function.name
        nbytes = plan.arena.nbytes
        self._arena = Arena(nbytes, ALIGNMENT) if nbytes else None
        self._threads = threads
        self._params = len(function.params)
        for value in function.params:
            binder.number(value)
        known = _defined(function)
        self._bindings = [
            _binding(function, s) for s in function.symbols if s.name not in known
        ]
        self._begin = binder.slots(function.params, [s for s, _ in self._bindings])
        self._steps = binder.steps()
        self._results = [binder.number(v) for v in function.body.yields]
        self.count = len(self._results)
        """How many results a call has."""
        self._blank = [None] * (len(binder.numbers) - self._params)
        self._slots = ctypes.c_int64 * plan.frame_size
        self._plan, self._addresses = plan, addresses

    @property
    def run(self) -> Callable[[list[Any]], list[Any]]:
        """The program as it is called with the least ado; made anew at each asking, so
        that nothing holds a program but its users."""
        if _is_straight(self._plan):
            return self._straight(self._plan, self._addresses)
        return self if self._steps or self.count else _nothing

    def __call__(self, arguments: list[Any]) -> list[Any]:
        """Run the program; the results in the order of the function's yields."""
        if len(arguments) != self._params:
            raise InternalError(
                f"{self._name} takes {self._params} arguments, not {len(arguments)}"
            )
        sizes = {symbol: get(arguments) for symbol, get in self._bindings}
        tensors = [*arguments, *self._blank]
        arguments.clear()
        threads = self._threads or torch.get_num_threads()
        frame = Frame(tensors, sizes, self._slots(), threads)
        if self._arena is None:
            return self._run(frame)
        with self._arena.checkout() as frame.slots[BASE_SLOT]:
            return self._run(frame)

    def _straight(
        self, plan: HostPlan, addresses: Mapping[str, int]
    ) -> Callable[[list[Any]], list[Any]]:
        """The program of one segment without sizes, in one function.

        A small graph takes as long to run as the steps around it; this leaves out what
        only others need. Whatever goes wrong, or is watched, is left to the steps.
        """
        (segment,) = plan.segments
        native = _SEGMENT(addresses[segment.name])
        known, new_slots, forced = plan.slots, self._slots, self._threads
        params = list(enumerate(plan.function.params))
        given = [(known[v], k) for k, v in params if v in known]
        made = [s.value for s in plan.steps if isinstance(s, Make)]
        makes = [(_maker(v.type), known.get(v)) for v in made]
        place = {v: k for k, v in enumerate((*plan.function.params, *made))}
        results = [place[v] for v in plan.function.body.yields]
        last, arena, count = plan.steps[-1], self._arena, self._params
        flags = slice(0, 0)
        if isinstance(last, Raise):
            first = known[last.flags]
            flags = slice(first, first + len(last.messages))

        def run(arguments: list[Any]) -> list[Any]:
            if len(arguments) != count or _is_watched():
                return self(arguments)
            slots = new_slots()
            for slot, k in given:
                slots[slot] = address = arguments[k].data_ptr()
                if not address:  # nothing, or zeros that are nowhere
                    return self(arguments)
            values = arguments.copy()
            for make, slot in makes:
                tensor = make()
                values.append(tensor)
                if slot is not None:
                    slots[slot] = tensor.data_ptr()
            threads = forced or torch.get_num_threads()
            if arena is None:
                native(slots, threads)
            else:
                with arena.checkout() as slots[BASE_SLOT]:
                    native(slots, threads)
            if slots[STATUS_SLOT] or any(slots[flags]):
                return self(arguments)
            arguments.clear()
            return [values[k] for k in results]

        return run

    def _run(self, frame: Frame) -> list[Any]:
        self._begin(frame)
        for step in self._steps:
            step(frame)
        return [frame.tensors[k] for k in self._results]


def in_memory(x: Any) -> Any:
    """A tensor that lies in memory; a gradient that is 0 everywhere may not."""
    if isinstance(x, torch.Tensor) and x._is_zerotensor():
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).zero_()
    return x


def _nothing(arguments: list[Any]) -> list[Any]:
    """A program without results: those of its graph are its arguments, or lie there."""
    arguments.clear()
    return []


def _is_straight(plan: HostPlan) -> bool:
    """Whether a plan makes tensors of known shapes, runs one segment on them that
    changes nothing else, and is done but for dropping them and raising flags."""
    kinds = [type(step) for step in plan.steps if not isinstance(step, Drop)]
    made = [step.value for step in plan.steps if isinstance(step, Make)]
    order = [Make] * len(made) + [Segment]
    replaces = any(k is not None for k in plan.function.returns_into)
    yields = {*plan.function.params, *made} >= {*plan.function.body.yields}
    known = all(_is_known(value.type) for value in made)
    plain = not plan.function.symbols and not replaces and yields and known
    return plain and kinds in (order, [*order, Raise])


def _is_known(type_: Any) -> bool:
    dims = (*type_.shape, *strides_of(type_))
    return all(isinstance(n, int) for n in dims)


class _Binder:
    """Turns the steps of a plan into closures."""

    def __init__(
        self,
        plan: HostPlan,
        addresses: Mapping[str, int],
        callables: Mapping[str, Callable[..., Any]],
    ) -> None:
        self.plan = plan
        self.addresses = addresses
        self.callables = callables
        self.numbers: dict[Value, int] = {}

    def number(self, value: Value) -> int:
        """Where the tensors of a frame have a value."""
        return self.numbers.setdefault(value, len(self.numbers))

    def steps(self) -> list[Action]:
        return [self.step(step) for step in self.plan.steps]

    def step(self, step: Step) -> Action:
        match step:
            case Segment():
                return self.segment(step)
            case Make():
                return self.make(step)
            case Drop():
                return _let_go([self.number(v) for v in step.values])
            case View():
                return self.view(step)
            case Extern():
                return self.extern(step)
            case CopyInto():
                return self.copy_into(step)
            case Raise():
                return self.raise_(step)
            case Const() | SizeOf():
                return self.scalar(step)
            case Cast() | Elementwise():
                return self.arithmetic(step)
            case _:
                raise InternalError(f"the host cannot run {step}")

    def slots(self, values: Sequence[Value], symbols: Collection[Symbol]) -> Action:
        """What tells native code the addresses of tensors and sizes."""
        known = self.plan.slots
        tensors = [(known[v], self.number(v)) for v in values if v in known]
        sizes = [(known[symbol], symbol) for symbol in symbols if symbol in known]

        def step(frame: Frame) -> None:
            for slot, at in tensors:
                address = frame.tensors[at].data_ptr()
                if not address:  # nothing, or zeros that are nowhere
                    frame.tensors[at] = in_memory(frame.tensors[at])
                    address = frame.tensors[at].data_ptr()
                frame.slots[slot] = address
            for slot, symbol in sizes:
                frame.slots[slot] = frame.sizes[symbol]

        return step

    def make(self, op: Make) -> Action:
        at, type_ = self.number(op.value), op.value.type
        assert isinstance(type_, Tensor)
        make = _shaper(type_, torch_dtype(type_.dtype))
        slot = self.plan.slots.get(op.value)

        def step(frame: Frame) -> None:
            frame.tensors[at] = made = make(frame.sizes)
            if slot is not None:
                frame.slots[slot] = made.data_ptr()

        return step

    def view(self, op: View) -> Action:
        source, at = self.number(op.x), self.number(op.result)
        type_, offset = op.type, op.offset

        def step(frame: Frame) -> None:
            x, sizes = frame.tensors[source], frame.sizes
            shape = evaluated(type_.shape, sizes)
            strides = evaluated(strides_of(type_), sizes)
            start = x.storage_offset() + evaluated((offset,), sizes)[0]
            frame.tensors[at] = x.as_strided(shape, strides, start)

        return step

    def copy_into(self, op: CopyInto) -> Action:
        source, target = self.number(op.x), self.number(op.target)

        def step(frame: Frame) -> None:
            frame.tensors[target].copy_(frame.tensors[source])

        return step

    def raise_(self, op: Raise) -> Action:
        first = self.plan.slots[op.flags]
        flags = slice(first, first + len(op.messages))

        def step(frame: Frame) -> None:
            raised = frame.slots[flags]
            if any(raised):
                raise op.failure(next(compress(count(), raised)))

        return step

    def extern(self, op: Extern) -> Action:
        call = bind(op, self.callables)
        sources = [self.number(v) for v in op.operands]
        targets = [self.number(v) for v in op.results]
        tell = self.slots(op.results, op.told)

        def step(frame: Frame) -> None:
            tensors = frame.tensors
            results = call([tensors[k] for k in sources], frame.sizes)
            for at, result in zip(targets, results, strict=True):
                tensors[at] = result
            tell(frame)

        return step

    def scalar(self, op: Const | SizeOf) -> Action:
        at = self.number(op.result)
        dim: Any = op.value if isinstance(op, Const) else op.dim

        def step(frame: Frame) -> None:
            known = not isinstance(op, SizeOf) or isinstance(dim, int)
            frame.tensors[at] = dim if known else number(dim, frame.sizes)

        return step

    def arithmetic(self, op: Cast | Elementwise) -> Action:
        sources = [(v, self.number(v)) for v in op.operands]
        at = self.number(op.result)

        def step(frame: Frame) -> None:
            operands = [elements.scalar(v, frame.tensors[k]) for v, k in sources]
            frame.tensors[at] = elements.compute(op, operands).item()

        return step

    # ---------------------------------------------------------------- segments

    def segment(self, segment: Segment) -> Action:
        """One native call, or one call from Python for each op."""
        steps = [self.watched(op) for op in segment.ops]
        address = self.addresses.get(segment.name)
        if address is None:
            return _one_by_one(steps)
        native = _SEGMENT(address)

        def step(frame: Frame) -> None:
            if _is_watched():
                _one_by_one(steps)(frame)
                return
            native(frame.slots, frame.threads)
            failed = frame.slots[STATUS_SLOT]
            if failed:
                _one_by_one(steps[failed - 1 :])(frame)

        return step

    def watched(self, op: Launch | Extern) -> Action:
        """An op of a segment as a call from Python."""
        return self.launch(op) if isinstance(op, Launch) else self.call(op)

    def launch(self, op: Launch) -> Action:
        address, name = self.addresses[op.kernel], op.kernel
        pointers = [self.pointer(v) for v in op.arguments]
        sizes, grid = op.sizes, op.grid

        def step(frame: Frame) -> None:
            (programs,) = evaluated((grid,), frame.sizes)
            if programs == 0:
                return
            values = [get(frame) for get in pointers]
            values += evaluated(sizes, frame.sizes)
            with _range(name):
                launch(address, slots(values), programs, frame.threads)

        return step

    def call(self, op: Extern) -> Action:
        """A call whose operands and result may lie in the arena."""
        call = bind(op, self.callables)
        sources = [self.tensor(v) for v in op.operands]
        (target,) = [self.tensor(v) for v in op.results]

        def step(frame: Frame) -> None:
            (result,) = call([get(frame) for get in sources], frame.sizes)
            target(frame).copy_(result)

        return step

    def pointer(self, value: Value) -> Callable[[Frame], int]:
        """What gives the address of a tensor."""
        slot, offset = self.plan.places[value].slot, self.plan.places[value].offset
        if slot == FRAME:
            assert isinstance(offset, int)
            return lambda frame: ctypes.addressof(frame.slots) + offset
        if isinstance(offset, int):
            return lambda frame: frame.slots[slot] + offset
        return lambda frame: frame.slots[slot] + number(offset, frame.sizes)

    def tensor(self, value: Value) -> Callable[[Frame], torch.Tensor]:
        """What makes a torch tensor of the memory at a place."""
        pointer, type_ = self.pointer(value), value.type
        assert isinstance(type_, Tensor)
        dtype = torch_dtype(type_.dtype)

        def make(frame: Frame) -> torch.Tensor:
            shape = evaluated(type_.shape, frame.sizes)
            strides = evaluated(strides_of(type_), frame.sizes)
            if 0 in shape:
                return torch.empty_strided(shape, strides, dtype=dtype)
            last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
            memory = (ctypes.c_char * ((last + 1) * dtype.itemsize)).from_address(
                pointer(frame)
            )
            return torch.frombuffer(memory, dtype=dtype).as_strided(shape, strides)

        return make


def _one_by_one(steps: Sequence[Action]) -> Action:
    def run(frame: Frame) -> None:
        for step in steps:
            step(frame)

    return run


def _is_watched() -> bool:
    """Somebody wants to see each kernel and each call to torch."""
    return profiler._is_profiler_enabled or torch._C._len_torch_dispatch_stack() > 0


def _range(name: str) -> AbstractContextManager[Any]:
    """A named range in the trace, if there is a profiler."""
    watched = profiler._is_profiler_enabled
    return profiler.record_function(name) if watched else nullcontext()


@lru_cache(maxsize=1)
def exported_shims() -> Mapping[str, int]:
    """The addresses of the C functions of `runtime.shims` that this torch has."""
    # A handle's dependencies are searched too: libtorch_cpu, by whatever file name.
    library = ctypes.CDLL(torch._C.__file__)
    found = {name: getattr(library, name, None) for name in SYMBOLS}
    casts = {n: ctypes.cast(f, ctypes.c_void_p).value for n, f in found.items() if f}
    return {name: address for name, address in casts.items() if address}


def _let_go(numbers: list[int]) -> Action:
    def step(frame: Frame) -> None:
        for at in numbers:
            frame.tensors[at] = None

    return step


def _shaper(type_: Tensor, dtype: torch.dtype) -> Callable[[Sizes], torch.Tensor]:
    """What allocates a tensor of a type, on huge pages where it is large."""
    if _is_known(type_):
        make = _maker(type_)
        return lambda sizes: make()
    shape, strides = type_.shape, strides_of(type_)
    return lambda sizes: _large(
        evaluated(shape, sizes), evaluated(strides, sizes), dtype
    )


def _maker(type_: Any) -> Callable[[], torch.Tensor]:
    """The same for known extents."""
    shape, strides = evaluated(type_.shape, {}), evaluated(strides_of(type_), {})
    dtype = torch_dtype(type_.dtype)
    if math.prod(shape) * dtype.itemsize >= ADVISED_FROM:
        return lambda: _large(shape, strides, dtype)
    return lambda: empty_strided(shape, strides, dtype)


def _large(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    tensor = torch.empty_strided(shape, strides, dtype=dtype)
    advise_huge(tensor.data_ptr(), tensor.untyped_storage().nbytes())
    return tensor


def _plain_empty_strided(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    return torch.empty_strided(shape, strides, dtype=dtype)


_guards: Any = getattr(torch._C, "_dynamo").guards  # noqa: B009
empty_strided = getattr(_guards, "_empty_strided_cpu", _plain_empty_strided)
"""Torch's own way around its dispatcher, a third of the time."""


def _defined(function: Function) -> set[str]:
    """The symbols whose values externs find out."""
    externs = [op for op in function.body.ops if isinstance(op, Extern)]
    found = {symbol.name for op in externs for symbol in op.told}
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
