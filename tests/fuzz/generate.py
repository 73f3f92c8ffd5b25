"""A random program from a seed: the same on every machine, and one that eager runs.

Lines are drawn, run in eager torch at once, and kept if they neither raise nor ask for
more precision than there is. So a program is meaningful by construction.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fuzz import catalog
from fuzz.catalog import Line
from fuzz.execute import Execution, execute
from fuzz.fit import Bound, fit
from fuzz.inputs import FORMS
from fuzz.programs import Input, Program, Step
from fuzz.trust import Untrusted

EXTENTS = (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 33, 64, 65, 100)
LARGEST = 6000
"""Elements of a value."""
LONG = (1 << 15, 65537, 100_003)
"""Extents that reductions are split along."""
FLOATS = ("float32",) * 5 + ("float64", "bfloat16", "bfloat16", "float16")
INTEGERS = ("int64", "int64", "int32", "int16", "int8", "uint8")
KINDS = {"x": "bfi", "n": "fi", "f": "f", "i": "i", "b": "b"}
TRIES = 12

_SLOT = re.compile(r"\{([a-z]|\d)(?::([a-z1*]+))?\}")
_PARAMETER = re.compile(r"<([^<>=]+)>")


def program(seed: int) -> Program:
    """The program of a seed."""
    return Generator(random.Random(seed)).program()


@dataclass
class Generator:
    draw: random.Random
    extents: tuple[int, ...] = ()
    largest: int = LARGEST
    run: Execution = field(default_factory=Execution)

    def program(self) -> Program:
        """A program, and how it is to be called."""
        draw = self.draw
        modes = {"direct": 72, "dynamo": 3, "dynamic": 10, "backward": 15}
        (mode,) = draw.choices([*modes], [*modes.values()])
        numerics = "fast" if draw.random() < 0.1 else "eager"
        self.run = Execution(mode, numerics)
        made = self.body(mode)
        # The interpreter is the dearer half of a case, and a stranger to memory.
        cheap = numerics == "eager" and self.largest == LARGEST
        verify = cheap and draw.random() < 0.25
        made = replace(made, numerics=numerics, verify=verify).live()
        return made if verify else self.called_again(made)

    def called_again(self, program: Program) -> Program:
        """Called once more; at other sizes where sizes are open."""
        resized = [
            tuple((n, self.draw.choice(EXTENTS)) for n in set(self.extents) if n > 1)
            for _ in range(6 if program.mode == "dynamic" else 0)
        ]
        for again in (*resized, ()):
            twice = replace(program, again=again)
            try:
                execute(twice.calls()[1])
            except Untrusted:
                continue
            return twice
        return program

    def body(self, mode: str) -> Program:
        """What is computed, of what."""
        draw = self.draw
        self.extents = tuple(draw.choice(EXTENTS) for _ in range(3))
        if draw.random() < 0.06:
            self.extents = (0, *self.extents[1:])
        elif draw.random() < 0.03:
            self.extents = (draw.choice(LONG), draw.choice((1, 2, 3)))
            self.largest = 40 * LARGEST
        inputs = [self.input(k, mode) for k in range(draw.randint(1, 4))]
        for each in inputs:
            self.run.enter(each)
        lines = _weighted(draw, mode)
        steps: list[Step] = []
        for _ in range(draw.choice((1, 2, 3, 4, 6, 8, 12, 16, 25, 40))):
            if self.largest > LARGEST and len(steps) == 6:
                break
            step = self.step(lines, len(steps))
            if step is not None:
                steps.append(step)
        return Program(tuple(inputs), tuple(steps), self.results(steps), mode)

    def input(self, k: int, mode: str) -> Input:
        draw = self.draw
        kind = draw.choices("fib", (75, 18, 7))[0]
        if mode == "backward" and k == 0:
            kind = "f"
        dtype = {"f": draw.choice(FLOATS), "i": draw.choice(INTEGERS), "b": "bool"}[
            kind
        ]
        shape = [
            draw.choice((*self.extents, 1))
            for _ in range(draw.choice((0, 1, 2, 2, 2, 3, 3, 4)))
        ]
        while _count(shape) > self.largest:
            shape.pop()
        grad = mode == "backward" and kind == "f" and dtype in ("float32", "float64")
        form = draw.choice(("contiguous", *FORMS))
        values = (
            "normal"
            if grad
            else draw.choices(("small", "normal", "special"), (4, 3, 3))[0]
        )
        return Input(
            f"x{k}", tuple(shape), dtype, form, values, draw.randrange(1000), grad
        )

    def results(self, steps: Sequence[Step]) -> tuple[str, ...]:
        """Mostly values that no step reads, and any others."""
        made = [step.result for step in steps] or list(self.run.values)
        read = {name for step in steps for name in step.operands}
        unread = [name for name in made if name not in read]
        count = min(len(made), self.draw.choice((0, 0, 1, 2)))
        others = self.draw.sample(made, count)
        last = unread[-self.draw.choice((4, 4, 12)) :]
        return tuple(dict.fromkeys((made[-1], *last, *others)))

    def step(self, lines: Callable[[], Line], k: int) -> Step | None:
        """A line that runs, of a few that are tried."""
        for _ in range(TRIES):
            line = lines()
            try:
                step = Step(f"v{k}", self.filled(line.text), line.rule)
                made = self.run.execute(step, at_most=self.largest)
            except (Untrusted, _Misfit):
                continue
            assert made is not None
            return step
        return None

    def filled(self, text: str) -> str:
        """A line with its slots and parameters filled in."""
        names: list[str] = []
        taken: list[str] = []
        bound: Bound = {}

        def operand(match: re.Match[str]) -> str:
            kind, pattern = match.groups()
            if kind.isdigit():
                return taken[int(kind)]
            like = self.run.values[names[0]] if names else None
            if pattern:
                name, suited = self.suited(KINDS[kind], pattern, bound, like)
            else:
                name = suited = self.pick(KINDS[kind], like)
            names.append(name)
            taken.append(suited)
            return suited

        text = _SLOT.sub(operand, text)
        shape = tuple(self.run.values[names[0]].shape)

        def parameter(match: re.Match[str]) -> str:
            return PARAMETERS[match.group(1)](self, shape)

        return _PARAMETER.sub(parameter, text)

    def pick(self, kinds: str, like: object = None) -> str:
        """A value of some kinds, rather a recent one, of the shape of another."""
        values = [n for n, x in self.run.values.items() if _kind(x) in kinds]
        if not values:
            raise _Misfit
        shape = getattr(like, "shape", None)
        if shape is not None and self.draw.random() < 0.7:
            same = [n for n in values if self.run.values[n].shape == shape]
            values = same or values
        if self.draw.random() < 0.5:
            values = values[-4:]
        return self.draw.choice(values)

    def suited(
        self, kinds: str, pattern: str, bound: Bound, like: object = None
    ) -> tuple[str, str]:
        """A value of some kinds, of the dtype of another, and a view that suits."""
        dtype = getattr(like, "dtype", None)
        shapes = {
            name: tuple(x.shape)
            for name, x in self.run.values.items()
            if _kind(x) in kinds and dtype in (None, x.dtype)
        }
        if self.draw.random() < 0.5:
            shapes = dict([*shapes.items()][-3:])
        found = fit(self.draw, shapes, pattern, bound, self.extents)
        if found is None:
            raise _Misfit
        return found

    # ------------------------------------------------------------ parameters

    def index(self, extent: int) -> int:
        return self.draw.randint(-extent, extent - 1) if extent else _refuse()

    def dim(self, shape: Sequence[int]) -> int:
        return self.index(len(shape))

    def dims(self, shape: Sequence[int]) -> str:
        count = self.draw.randint(1, max(1, len(shape)))
        dims = range(len(shape))
        return str(tuple(self.draw.sample(dims, min(count, len(shape)))))

    def reshaped(self, shape: Sequence[int]) -> str:
        count = _count(shape)
        if not count:
            return "(0, -1)" if self.draw.random() < 0.2 else str((*shape, 1))
        made: list[int] = []
        while count > 1 and len(made) < 3:
            factor = self.draw.choice(
                [n for n in range(1, count + 1) if count % n == 0]
            )
            made.append(factor)
            count //= factor
        return str((*made, count))

    def wider(self, shape: Sequence[int]) -> str:
        extents = [self.draw.choice(self.extents) if n == 1 else n for n in shape]
        front = [self.draw.choice((2, 3))] if self.draw.random() < 0.4 else []
        return str((*front, *extents))

    def sliced(self, extent: int) -> str:
        start, stop = (self.draw.randint(-extent - 1, extent + 1) for _ in range(2))
        step = self.draw.choice(("", "", ":2", ":3"))
        return self.draw.choice(
            (f"{start}:", f":{stop}", f"{min(start, 0)}:{stop}{step}")
        )

    def slices(self, shape: Sequence[int]) -> str:
        parts = [
            self.draw.choice((":", self.sliced(n), self.sliced(n), "None"))
            for n in shape
        ]
        return ", ".join(parts) or _refuse()

    def range(self, shape: Sequence[int], dim: int) -> str:
        start = self.draw.randint(0, shape[dim])
        return f"{start}, {self.draw.randint(0, shape[dim] - start)}"

    def indices(self, shape: Sequence[int], like: Sequence[int]) -> str:
        """A constant of indices, or one that values make."""
        extent = min(shape, default=0) or _refuse()
        drawn = [
            self.draw.randrange(extent) for _ in range(self.draw.choice((1, 2, 5)))
        ]
        if not like:
            made = [
                n for n, x in self.run.values.items() if str(x.dtype) == "torch.int64"
            ]
            if made and self.draw.random() < 0.5:
                return f"({self.draw.choice(made)} % {extent}).flatten()"
            return f"torch.tensor({drawn})"
        return f"torch.arange({_count(like)}).reshape({tuple(like)}) % {extent}"

    def rows(self, shape: Sequence[int]) -> str:
        """Indices along the first dimension, as many as there are or fewer or more."""
        extent = shape[0] if shape else 0
        if not extent:
            _refuse()
        count = self.draw.choice((1, 2, 5, 8, min(extent, 64)))
        drawn = [self.draw.randrange(extent) for _ in range(count)]
        made = f"torch.tensor({drawn})"
        return made + self.draw.choice(("", "", ".unsqueeze(0)", ".unsqueeze(1)"))

    def permutation(self, extent: int) -> str:
        if not 0 < extent <= 100:
            _refuse()
        return f"torch.tensor({self.draw.sample(range(extent), extent)})"

    def restride(self, shape: Sequence[int]) -> str:
        if len(shape) < 2 or not _count(shape):
            _refuse()
        return f"({shape[0]}, {shape[1]}), (1, {shape[0]})"


def _dim_of(g: Generator, shape: Sequence[int]) -> str:
    return str(g.dim(shape))


def _narrowed(g: Generator, shape: Sequence[int]) -> str:
    """`<dim>, <range>` belong together."""
    dim = g.dim(shape)
    start = g.draw.randint(0, shape[dim])
    return f"{dim}, {start}, {g.draw.randint(0, shape[dim] - start)}"


def _selected(g: Generator, shape: Sequence[int]) -> str:
    dim = g.dim(shape)
    return f"{dim}, {g.index(shape[dim])}"


def _windowed(g: Generator, shape: Sequence[int]) -> str:
    dim = g.dim(shape)
    return f"{dim}, {g.draw.randint(1, max(1, shape[dim]))}, {g.draw.choice((1, 2, 3))}"


def _permuted(g: Generator, shape: Sequence[int]) -> str:
    dim = g.draw.randrange(len(shape)) if shape else _refuse()
    along = [n if d == dim else 1 for d, n in enumerate(shape)]
    made = g.permutation(shape[dim])
    return f"{dim}, {made}.reshape({along}).expand({list(shape)})"


PARAMETERS: Mapping[str, Callable[[Generator, Sequence[int]], str]] = {
    "number": lambda g, _: g.draw.choice(("2", "-3", "0", "0.5", "-1.25", "7", "1e-3")),
    "small": lambda g, _: str(g.draw.randint(0, 6)),
    "int": lambda g, _: g.draw.choice(INTEGERS),
    "dim": _dim_of,
    "dim, range": _narrowed,
    "dim, index": _selected,
    "dim, window": _windowed,
    "newdim": lambda g, shape: str(g.index(len(shape) + 1)),
    "dims": lambda g, shape: g.dims(shape),
    "order": lambda g, shape: str(tuple(g.draw.sample(range(len(shape)), len(shape)))),
    "shape": lambda g, shape: g.reshaped(shape),
    "wider": lambda g, shape: g.wider(shape),
    "repeats": lambda g, shape: str(
        tuple(g.draw.choice((1, 1, 2)) for _ in (*shape, 1))
    ),
    "slices": lambda g, shape: g.slices(shape),
    "slice0": lambda g, shape: g.sliced(shape[0] if shape else 0),
    "index": lambda g, shape: str(g.index(min(shape, default=0))),
    "pads": lambda g, shape: str(
        tuple(
            g.draw.randint(-1, 3)
            for _ in range(2 * min(len(shape), g.draw.choice((1, 2))))
        )
    ),
    "indices": lambda g, shape: g.indices(shape, ()),
    "indices of x": lambda g, shape: g.indices(shape, shape or _refuse()),
    "rows": lambda g, shape: g.rows(shape),
    "permutation": lambda g, shape: g.permutation(shape[0] if shape else 0),
    "dim, permutation of x": _permuted,
    "edge": lambda g, _: g.draw.choice(("replicate", "reflect", "circular")),
    "restride": lambda g, shape: g.restride(shape),
}
"""What stands for a parameter, for an operand of a shape."""


class _Misfit(Exception):
    """A line that no value suits."""


def _refuse() -> int:
    raise _Misfit


def _kind(x: object) -> str:
    dtype = x.dtype  # type: ignore[attr-defined]
    if dtype.is_floating_point:
        return "f"
    return "b" if str(dtype) == "torch.bool" else "i"


def _count(shape: Sequence[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def _weighted(draw: random.Random, mode: str) -> Callable[[], Line]:
    """Draws lines; each program has its own taste for families of them."""
    families = [
        (catalog.EXACT, 6),
        (catalog.CASTS, 2),
        (catalog.ROUGH, 3),
        (catalog.VIEWS, 6),
        (catalog.REDUCTIONS, 5),
        (catalog.SCANS, 2),
        (catalog.INDEXING, 2),
        (catalog.SCATTERS, 1),
        (catalog.FOREACH, 1),
        (catalog.CONTRACTIONS, 3),
        (catalog.UPDATES, 0 if mode == "backward" else 2),
    ]
    weights = [weight * draw.choice((0, 1, 1, 3)) for _, weight in families]
    weights[0] += 1

    def line() -> Line:
        (family,) = draw.choices([lines for lines, _ in families], weights)
        return draw.choices(family, [each.weight for each in family])[0]

    return line
