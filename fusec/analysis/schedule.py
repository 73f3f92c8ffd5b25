"""How the axes of a region are spread over programs, loops, registers and lanes.

    %y = region(%x) over i:4096, j:1000 { … reduce j … store %y [i, j] }

    grid   i                    one program for each row
    tile   j = time 16 × reg 4 × lane 16      a program sweeps its row 64 at a time

The choices are made in `choices`, for products of matrices in `blocking`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fusec.analysis.accesses import Accesses
from fusec.analysis.contraction import Contraction
from fusec.analysis.instructions import DotInstruction
from fusec.ir.core import Value
from fusec.ir.dims import Dim, ceil_div, format_dim, product
from fusec.ir.types import Axis
from fusec.logs import counted

Ahead = tuple[Axis, Dim]
"""What lies so many elements further along an axis."""


@dataclass(frozen=True, slots=True)
class Split:
    """One dimension of a tile: `extent` elements as time × registers × lanes."""

    axis: Axis
    extent: Dim
    """How many elements of the axis a program has; the last one may have fewer."""
    registers: int = 1
    lanes: int = 1
    run: int | None = None
    """How many elements an inner loop walks at a time, where two share the axis."""

    @property
    def blocks(self) -> Dim:
        """How many programs share the axis."""
        return ceil_div(self.axis.extent, self.extent) if self.blocked else 1

    @property
    def blocked(self) -> bool:
        """Whether programs share the axis."""
        return self.extent != self.axis.extent

    @property
    def chunk(self) -> int:
        """Elements that one trip of the loop handles."""
        return self.registers * self.lanes

    @property
    def trips(self) -> Dim:
        return ceil_div(self.extent, self.chunk)

    @property
    def loops(self) -> tuple[Dim, ...]:
        """The trips of the loops that walk the program's part, the outer one first."""
        if self.run is None:
            return (self.trips,)
        return (ceil_div(self.extent, self.run), ceil_div(self.run, self.chunk))

    def __str__(self) -> str:
        loops = [("time", n) for n in self.loops]
        parts = (*loops, ("reg", self.registers), ("lane", self.lanes))
        digits = [f"{format_dim(n)}:{axis}" for axis, n in parts if n != 1]
        size = format_dim(self.extent)
        return f"{self.axis.name}:{size} = {' '.join(digits) or '1'}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """The whole choice for one region."""

    grid: tuple[Axis, ...]
    """Axes with a program for each point, outermost first."""
    tile: tuple[Split, ...]
    """Dimensions of the tile of a program, outermost first."""
    ahead: Ahead | None = None
    """What is brought near from far memory while something is computed."""
    streaming: bool = False
    """Results bypass the caches."""
    warps: int = 0
    """How many warps share out the blocks of a program; 0 where one core has it."""
    stages: int = 1
    """How many trips of a loop are under way at a time: loads run ahead by the rest."""
    nest: tuple[tuple[int, int], ...] = ()
    """Loops from the outermost, each a dimension of the tile and which of its loops;
    by default those of one dimension after the other."""
    dot: Contraction | None = None
    """The products that are summed up as one op each."""
    accesses: Accesses | None = None
    """Those of the region, where the schedule has split axes of theirs."""
    descriptors: bool = False
    """Factors of products are brought by tensor descriptors, those that can be (see
    `analysis.descriptors`)."""
    instruction: DotInstruction | None = None
    """What multiplies their factors, if not the instruction that multiplies and adds
    elements of the sum's own dtype."""
    packing: Mapping[Value, tuple[Split, ...]] = field(default_factory=dict)  # type: ignore[type-arg]
    """How factors of it are computed and packed, before they are read: by a tile of the
    same dimensions. Others are read as they lie."""

    @property
    def programs(self) -> Dim:
        """How many programs a launch runs."""
        return product(
            (*(axis.extent for axis in self.grid), *(s.blocks for s in self.tile))
        )

    @property
    def grid_text(self) -> str:
        """The grid for people: `i:64, j:4096 in 1024s = 256 programs`."""
        if self.programs == 1:
            return "one program"
        axes = [f"{a.name}:{format_dim(a.extent)}" for a in self.grid]
        axes += [
            f"{s.axis.name}:{format_dim(s.axis.extent)} in {format_dim(s.extent)}s"
            for s in self.tile
            if s.blocked
        ]
        return f"{', '.join(axes)} = {format_dim(self.programs)} programs"

    @property
    def tile_text(self) -> str:
        """The tile for people: `j:1000 = 16:time 4:reg 16:lane; prefetched`."""
        marks = {
            "prefetched": self.ahead is not None,
            "stores bypass the caches": self.streaming,
            f"by {self.instruction.name}" if self.instruction else "": bool(
                self.instruction
            ),
            **{f"{_called(v)} packed": True for v in self.packing},
            counted(self.warps, "warp"): bool(self.warps),
            f"{self.stages} stages": self.stages > 1,
            "by descriptors": self.descriptors,
        }
        tile = ", ".join(map(str, self.tile)) or "one element"
        return "; ".join([tile, *(text for text, holds in marks.items() if holds)])

    def __str__(self) -> str:
        return f"grid {self.grid_text}; tile {self.tile_text}"


def _called(value: Value) -> str:
    return f"%{value.hint}" if value.hint else "a factor"
