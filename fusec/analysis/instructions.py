"""Dot instructions: facts, and how their operands lie in registers.

    vpdpbf16ps   c[l] += x[2l]·y[2l] + x[2l+1]·y[2l+1]      16 lanes of c, 32 of x and y

    y, a tile of 2 places of the sum by 16 columns     (2:lane, 16:lane@2)
    x, the same places of one row, in every column     (2:lane, 1)
    c                                                  (1, 16:lane)

Which instruction computes a product is what the layouts of its tiles can be divided by;
`blocking` chooses layouts that the fastest one divides. Another instruction is another
row here, and its spelling in the table of the backend.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusec.ir.dtypes import DType, bf16, f16, f32, i8, i16, i32
from fusec.ir.layout import LANE, Digit, Layout
from fusec.target import Target


@dataclass(frozen=True, slots=True)
class DotInstruction:
    """Adds up products of narrow factors in each lane of a wider sum."""

    name: str
    factor: DType
    sum: DType
    depth: int
    """Places of the sum that one lane adds up."""
    features: frozenset[str]
    """What the target must have, by LLVM's names."""
    vector_bits: frozenset[int]
    """The widths of registers that it comes in."""
    operations: int = 1
    """Vector operations that it takes, additions included."""

    def exists(self, target: Target) -> bool:
        """Whether a target has it, for its own width of registers."""
        fits = target.vector_bits in self.vector_bits
        return fits and all(map(target.has, self.features))

    def columns(self, rank: int, place: int, column: int, lanes: int) -> Layout:
        """How one register of y lies in a tile of `rank` dimensions: its places of the
        sum along one of them, its columns along another."""
        dims: list[tuple[Digit, ...]] = [()] * rank
        dims[place] = (Digit(self.depth, 1, LANE),)
        dims[column] = (Digit(lanes, self.depth, LANE),)
        return Layout(dims)

    def row(self, rank: int, place: int) -> Layout:
        """How a register of x lies, which is repeated for each column."""
        dims: list[tuple[Digit, ...]] = [()] * rank
        dims[place] = (Digit(self.depth, 1, LANE),)
        return Layout(dims)


def _row(
    name: str,
    factor: DType,
    sum_: DType,
    depth: int,
    features: str,
    bits: tuple[int, ...],
    operations: int = 1,
) -> DotInstruction:
    own = frozenset(features.split())
    return DotInstruction(name, factor, sum_, depth, own, frozenset(bits), operations)


# A GPU's tensor cores take blocks, of which Triton knows the layouts: for us they add
# up single places.
DOTS = (
    _row("vdpbf16ps", bf16, f32, 2, "avx512bf16", (512,)),
    _row("vpdpwssd", i16, i32, 2, "avx512vnni", (512,)),
    _row("vpdpwssd", i16, i32, 2, "avxvnni", (256,)),
    _row("vpmaddwd", i16, i32, 2, "avx512bw", (512,), 2),
    _row("vpmaddwd", i16, i32, 2, "avx2", (256,), 2),
    _row("pmaddwd", i16, i32, 2, "sse2", (128,), 2),
    _row("mma", bf16, f32, 1, "mma", (1024, 2048)),
    _row("mma", f16, f32, 1, "mma", (1024, 2048)),
    _row("mma", i8, i32, 1, "mma", (1024, 2048)),
)
"""Every dot instruction that is known, the better ones first."""


def instructions(factor: DType, sum_: DType, target: Target) -> list[DotInstruction]:
    """Those of a target that multiply factors of a dtype, which may be held in a wider
    one, for a sum of another."""
    return [
        each
        for each in DOTS
        if each.exists(target) and each.sum is sum_ and holds(each.factor, factor)
    ]


def holds(wide: DType, narrow: DType) -> bool:
    """Whether a dtype has every number of another one."""
    if wide is narrow:
        return True
    both = wide.is_int and narrow.is_int and not narrow.is_bool
    return both and wide.is_signed and wide.bits > narrow.bits
