"""The steps of a recipe as closures, each made once and run in every call.

    Make(2, f32[64], slot 3)            frame.tensors[2] = torch.empty_strided(…)
                                        frame.slots[3] = frame.tensors[2].data_ptr()
    Segment("host.segment_0", …)        segment(frame.slots, threads)

The ops of a segment run one by one, from Python, where somebody watches, a profiler
or a dispatch mode, and from the op on that failed in a segment, to raise its error.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import profiler

from fusec import lazy
from fusec.runtime.devices import Device
from fusec.runtime.extern import Sizes, bind, evaluated, number
from fusec.runtime.image import Code
from fusec.runtime.launcher_cpu import slots
from fusec.runtime.recipe import (
    FRAME,
    STATUS_SLOT,
    Ask,
    AskAt,
    Compute,
    CopyInto,
    Drop,
    Form,
    Launch,
    Make,
    Number,
    Place,
    Raise,
    Segment,
    Step,
    Tell,
    View,
)
from fusec.runtime.tensors import copied, in_memory, part, torch_dtype

if TYPE_CHECKING:
    from fusec.ir.interpreter import elements
else:
    elements = lazy.module("fusec.ir.interpreter.elements")

# A ctypes prototype of this kind releases the GIL while the segment runs.
SEGMENT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)


@dataclass(slots=True)
class Frame:
    """The state of one call."""

    tensors: list[Any]
    """Tensors and numbers, by the number of their value."""
    sizes: Sizes
    slots: Any
    """An array of int64: what native code reads."""
    word: int
    """What native code is told besides (see `devices`)."""
    moved: dict[int, tuple[torch.Tensor, torch.Tensor]]
    """What kernels cannot read where it lies, by its number, and copies in its place.
    """


Action = Callable[[Frame], None]
"""A step of a recipe, turned into a closure."""


def is_watched() -> bool:
    """Somebody wants to see each kernel and each call to torch."""
    return profiler._is_profiler_enabled or torch._C._len_torch_dispatch_stack() > 0


class Binder:
    """Turns steps into closures on the code of this process; the flags of checks may
    lie `apart` from the frame."""

    def __init__(
        self,
        code: Code,
        callables: Mapping[str, Callable[..., Any]],
        device: Device,
        apart: bool,
    ) -> None:
        self.code = code
        self.callables = callables
        self.device = device
        self.launcher = device.launcher(code)
        self.apart = apart

    def step(self, step: Step) -> Action:
        """A step as a closure."""
        match step:
            case Segment():
                return self.segment(step)
            case Make():
                return _make(step, self.device)
            case Drop():
                return _drop(step)
            case View():
                return _view(step)
            case Ask():
                return self.ask(step)
            case CopyInto():
                return _copy_into(step)
            case Raise():
                return self.settle() if self.apart else _raise(step)
            case Number():
                return _number(step)
            case Compute():
                return _compute(step)

    def settle(self) -> Action:
        settle = self.device.settle
        return lambda frame: settle()

    def ask(self, step: Ask) -> Action:
        call, told = bind(step.call, self.callables), tell(step.tell, self.device)
        sources, targets = step.sources, step.targets

        def run(frame: Frame) -> None:
            tensors = frame.tensors
            results = call([tensors[k] for k in sources], frame.sizes)
            for at, result in zip(targets, results, strict=True):
                tensors[at] = result
            told(frame)

        return run

    def segment(self, segment: Segment) -> Action:
        """One native call, or one call from Python for each op."""
        steps = [self.watched(op) for op in segment.ops]
        native = SEGMENT(self.code[segment.name])

        def run(frame: Frame) -> None:
            if is_watched():
                _one_by_one(steps)(frame)
                return
            native(frame.slots, frame.word)
            failed = frame.slots[STATUS_SLOT]
            if failed:
                _one_by_one(steps[failed - 1 :])(frame)

        return run

    def watched(self, op: Launch | AskAt) -> Action:
        """An op of a segment as a call from Python."""
        return self.launch(op) if isinstance(op, Launch) else self.ask_at(op)

    def launch(self, op: Launch) -> Action:
        launch, kernel = self.launcher, op.kernel
        pointers = [_pointer(place) for place in op.arguments]
        sizes, grid = op.sizes, op.grid

        def run(frame: Frame) -> None:
            (programs,) = evaluated((grid,), frame.sizes)
            if programs == 0:
                return
            values = [get(frame) for get in pointers]
            values += evaluated(sizes, frame.sizes)
            with _range(kernel):
                launch(kernel, slots(values), programs, frame.word)

        return run

    def ask_at(self, op: AskAt) -> Action:
        """A call whose operands and result may lie in the arena."""
        call = bind(op.call, self.callables)
        sources = [_tensor(*source) for source in op.sources]
        target = _tensor(*op.target)

        def run(frame: Frame) -> None:
            (result,) = call([get(frame) for get in sources], frame.sizes)
            target(frame).copy_(result)

        return run


def tell(step: Tell, device: Device) -> Action:
    """What tells native code the addresses of tensors and sizes."""
    tensors, sizes, beyond = step.tensors, step.sizes, device.alignment - 1

    def run(frame: Frame) -> None:
        for slot, at in tensors:
            address = frame.tensors[at].data_ptr()
            if not address:  # nothing, or zeros that are nowhere
                frame.tensors[at] = in_memory(frame.tensors[at])
                address = frame.tensors[at].data_ptr()
            if address & beyond:
                given = frame.tensors[at]
                frame.tensors[at] = copy = copied(given)
                frame.moved[at] = given, copy
                address = copy.data_ptr()
            frame.slots[slot] = address
        for slot, symbol in sizes:
            frame.slots[slot] = frame.sizes[symbol]

    return run


def make(form: Form, device: Device) -> Callable[[], torch.Tensor]:
    """What allocates a tensor of a form that is known."""
    shape, strides = evaluated(form.shape, {}), evaluated(form.strides, {})
    return device.maker(shape, strides, torch_dtype(form.dtype))


def _shaper(form: Form, device: Device) -> Callable[[Sizes], torch.Tensor]:
    """What allocates a tensor of any form."""
    if form.is_known:
        known = make(form, device)
        return lambda sizes: known()
    shape, strides, dtype = form.shape, form.strides, torch_dtype(form.dtype)

    def shaped(sizes: Sizes) -> torch.Tensor:
        return device.made(evaluated(shape, sizes), evaluated(strides, sizes), dtype)

    return shaped


def _make(step: Make, device: Device) -> Action:
    at, slot, shaped = step.at, step.slot, _shaper(step.form, device)

    def run(frame: Frame) -> None:
        frame.tensors[at] = tensor = shaped(frame.sizes)
        if slot is not None:
            frame.slots[slot] = tensor.data_ptr()

    return run


def _drop(step: Drop) -> Action:
    def run(frame: Frame) -> None:
        for at in step.at:
            frame.tensors[at] = None

    return run


def _view(step: View) -> Action:
    form = step.form

    def run(frame: Frame) -> None:
        x, sizes = frame.tensors[step.source], frame.sizes
        shape, strides = evaluated(form.shape, sizes), evaluated(form.strides, sizes)
        frame.tensors[step.at] = part(x, shape, strides, number(step.offset, sizes))

    return run


def _copy_into(step: CopyInto) -> Action:
    def run(frame: Frame) -> None:
        frame.tensors[step.target].copy_(frame.tensors[step.source])

    return run


def _raise(step: Raise) -> Action:
    flags = slice(step.slot, step.slot + len(step.messages))

    def run(frame: Frame) -> None:
        raised = frame.slots[flags]
        if any(raised):
            raise step.failure(raised)

    return run


def _number(step: Number) -> Action:
    at, value = step.at, step.value
    if isinstance(value, (int, float)):

        def known(frame: Frame) -> None:
            frame.tensors[at] = value

        return known

    def run(frame: Frame) -> None:
        frame.tensors[at] = number(value, frame.sizes)

    return run


def _compute(step: Compute) -> Action:
    sources = list(zip(step.op.operands, step.sources, strict=True))

    def run(frame: Frame) -> None:
        operands = [elements.scalar(v, frame.tensors[k]) for v, k in sources]
        frame.tensors[step.at] = elements.compute(step.op, operands).item()

    return run


def _pointer(place: Place) -> Callable[[Frame], int]:
    """What gives the address of a tensor."""
    slot, offset = place.slot, place.offset
    if slot == FRAME:
        return lambda frame: ctypes.addressof(frame.slots) + number(offset, frame.sizes)
    if isinstance(offset, int):
        return lambda frame: frame.slots[slot] + offset
    return lambda frame: frame.slots[slot] + number(offset, frame.sizes)


def _tensor(place: Place, form: Form) -> Callable[[Frame], torch.Tensor]:
    """What makes a torch tensor of the memory at a place."""
    pointer, dtype = _pointer(place), torch_dtype(form.dtype)

    def run(frame: Frame) -> torch.Tensor:
        shape = evaluated(form.shape, frame.sizes)
        strides = evaluated(form.strides, frame.sizes)
        if 0 in shape:
            return torch.empty_strided(shape, strides, dtype=dtype, device="cpu")
        last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        memory = (ctypes.c_char * ((last + 1) * dtype.itemsize)).from_address(
            pointer(frame)
        )
        return torch.frombuffer(memory, dtype=dtype).as_strided(shape, strides)

    return run


def _one_by_one(steps: Sequence[Action]) -> Action:
    def run(frame: Frame) -> None:
        for step in steps:
            step(frame)

    return run


def _range(name: str) -> AbstractContextManager[Any]:
    """A named range in the trace, if there is a profiler."""
    watched = profiler._is_profiler_enabled
    return profiler.record_function(name) if watched else nullcontext()
