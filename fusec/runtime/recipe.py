"""A host function as data: what a process does to run it, step by step.

    host function ─plan_host─▶ HostPlan ─write─▶ Recipe ─Program─▶ closures

A recipe has numbers in place of values, and names in place of dtypes and kernels. It
can be pickled, and read where the compiler is not imported: nothing here refers to ops.
Its parts are named tuples, which are made in a third of the time that dataclasses take:
this module is imported wherever a program runs.

A call has *tensors*, and numbers among them, one for each value that Python code reads:
first the parameters. What native code reads are 64-bit slots, the *frame*: the address
of the arena block, what op is under way, then addresses of torch tensors and sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, count
from typing import Any, NamedTuple, TypeVar

from fusec.errors import CHECK_ERRORS, Loc
from fusec.ir.dims import Dim, Symbol

T = TypeVar("T")

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""

CACHE_LINE = 128
"""Bytes: those of a GPU, and at whose multiples it wants tensor descriptors."""

WORD = 8
"""Bytes of a slot."""

VECTOR = 16
"""Bytes at whose multiples buffers begin on a GPU, which can read as many at once."""

BASE_SLOT = 0
"""The slot of the address of the arena block."""

STATUS_SLOT = 1
"""The slot where a segment tells which of its ops failed, counted from 1, or 0."""

FLAGS_SLOT = 2
"""The slot of the address of the flags of checks, where a device has a place of its own
for them."""

FIRST_SLOT = 3
"""The first of those that a plan gives away."""

FRAME = -1
"""In place of a slot: the tensor lies in the frame itself."""


# A program for a GPU is told of its kernels by a table of words.

STREAM_WORD, LAUNCH_WORD, ENTER_WORD, LEAVE_WORD, CONTEXT_WORD, TABLE = range(6)
"""Where the table has the stream; the driver's functions that launch, that make a
context current and that make the one before current again; the context; its rows."""

KERNEL_WORDS = 3
"""Words of a row: the kernel's function, its threads, its bytes of shared memory."""

MOST_PROGRAMS = 2**31 - 1
"""Of a launch, along the one axis of its grid."""

HIDDEN = 2
"""Parameters that Triton's kernels have besides their own: memory for the descriptors
of all programs, and for what profilers note."""


def hidden(scratch_at: int | None, arguments: Sequence[T]) -> tuple[T | int, ...]:
    """What those are, where one of the arguments is memory for descriptors."""
    return (0 if scratch_at is None else arguments[scratch_at], 0)


class Form(NamedTuple):
    """The element type of a tensor, by its name, and its dims; strides in elements."""

    dtype: str
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]

    @property
    def is_known(self) -> bool:
        """Whether it is the same in each call."""
        return all(isinstance(n, int) for n in (*self.shape, *self.strides))


class Place(NamedTuple):
    """Where a tensor begins: `offset` bytes after the address in a slot."""

    slot: int
    offset: Dim


class Counted(NamedTuple):
    """A result that is a number: the value of a symbol, where it is called so."""

    name: str


Result = Form | Counted | None
"""What a call of torch gives; None is opaque to us."""


class Call(NamedTuple):
    """A call of a function of torch's, or of a callable of this process.

    Arguments are written as `ir.calls` tells; a result is as its form says.
    """

    target: str
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]
    results: tuple[Result, ...]
    loc: Loc


class Tell(NamedTuple):
    """Write to slots: addresses of tensors, and sizes."""

    tensors: tuple[tuple[int, int], ...] = ()
    """A slot, and the number of the tensor."""
    sizes: tuple[tuple[int, Symbol], ...] = ()
    """A slot, and what is written to it."""


# ---------------------------------------------------------------------- steps


class Make(NamedTuple):
    """Memory for a tensor that torch owns, whose address a slot may hold."""

    at: int
    form: Form
    slot: int | None


class Drop(NamedTuple):
    """Tensors that no later step needs."""

    at: tuple[int, ...]


class View(NamedTuple):
    """A tensor in the memory of another, from `offset` elements on."""

    source: int
    at: int
    form: Form
    offset: Dim


class CopyInto(NamedTuple):
    """Overwrite a tensor with the elements of another."""

    source: int
    target: int


class Raise(NamedTuple):
    """Fail with `messages[k]` and `errors[k]` for the first nonzero slot k of some."""

    slot: int
    messages: tuple[str, ...]
    errors: tuple[str, ...]

    def failure(self, raised: Sequence[int]) -> Exception:
        """The error of the first of these flags that is up."""
        k = next(compress(count(), raised))
        return CHECK_ERRORS[self.errors[k]](self.messages[k])


class Number(NamedTuple):
    """A constant, or a size."""

    at: int
    value: Dim | float | bool


class Compute(NamedTuple):
    """Arithmetic on numbers, as the interpreter does it.

    The one step that needs the compiler: `op` is its own.
    """

    op: Any
    sources: tuple[int, ...]
    at: int


class Ask(NamedTuple):
    """A call of torch on tensors; some of what it gives native code is told."""

    call: Call
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    tell: Tell


class Launch(NamedTuple):
    """`grid` programs of a kernel, on tensors at places; part of a segment."""

    kernel: str
    arguments: tuple[Place, ...]
    sizes: tuple[Dim, ...]
    grid: Dim


class AskAt(NamedTuple):
    """A call of torch on tensors at places, which gives one; part of a segment."""

    call: Call
    sources: tuple[tuple[Place, Form], ...]
    target: tuple[Place, Form]


class Segment(NamedTuple):
    """What one native function runs, or Python op by op."""

    name: str
    ops: tuple[Launch | AskAt, ...]


Step = Make | Drop | View | CopyInto | Raise | Number | Compute | Ask | Segment


# --------------------------------------------------------------------- recipe


class Binding(NamedTuple):
    """Where a symbol's value is found: a parameter that is a number, or an extent."""

    symbol: Symbol
    param: int
    dim: int | None


class Recipe(NamedTuple):
    """A host function, in the order it runs."""

    name: str
    params: int
    values: int
    """Tensors and numbers of a call, the parameters with them."""
    bindings: tuple[Binding, ...]
    begin: Tell
    """What native code is told of the parameters."""
    steps: tuple[Step, ...]
    results: tuple[int, ...]
    arena: int
    """Bytes of the arena block."""
    frame: int
    """Slots of the frame."""
    flags: int
    """Words of the flags of checks, where they lie apart from the frame."""
    overwritten: tuple[int, ...]
    """The parameters that it writes to: then it cannot be tried twice."""

    def steps_of(self, kind: type) -> Sequence[Any]:
        """The steps of one kind."""
        return [step for step in self.steps if isinstance(step, kind)]
