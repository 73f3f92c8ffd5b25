"""The tile level: blocks of elements, memory, and the loops that sweep them.

A kernel is one program of a grid, run for every `program_id`:

    tile @scale(%x: buffer<f32 …>, %y: buffer<f32 …>) {
      %p = program_id                            # which 64 columns
      %o = mul %p, 64
      %n = sub 1000, %o                          # how many of them exist
      %t = load_tile %x, %o, %n  limited=(0,) strides=(1,) : tile<f32 [64]>
      %e = exp %t
      store_tile %e, %y, %o, %n  limited=(0,) strides=(1,)
    }

The address of the element at tile coordinate c is `offset + Σ c[d]·strides[d]`, in
elements, plus the element of an index tile where one is given. A `limit` operand for
dimension d says that only coordinates c[d] < limit exist: other elements are not
touched in memory and hold nothing in particular in registers until a `guard` gives
them a value.
"""

from __future__ import annotations

from typing import Any

from fusec.ir.core import Block, Level, Op, Value, Values
from fusec.ir.dims import Dim
from fusec.ir.dtypes import DType, bool_, i64
from fusec.ir.layout import Layout
from fusec.ir.opdef import attr, block, operand, operands
from fusec.ir.ops.space import check_dims
from fusec.ir.ops.updating import check_way
from fusec.ir.types import Buffer, IllTyped, Scalar, Tile, Type

TILE = (Level.TILE,)


class ProgramId(Op, name="program_id", levels=TILE):
    """Which program of the launch this is, from 0, as i64."""

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return (Scalar(i64),)


class BlockExtent(Op, name="block_extent", levels=TILE):
    """How many elements a block has along a dimension of tiles that a compiler of the
    target's own shares out. Code may leave the number open, to be told it later."""

    dim = attr(int)
    extent = attr(int)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return (Scalar(i64),)


class BlockCount(Op, name="block_count", levels=TILE):
    """How many blocks a size has along a dimension, the last one perhaps in part: in a
    program that runs, one at least."""

    dim = attr(int)
    extent = attr(int)
    size = attr(Dim)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return (Scalar(i64),)


class Access(Op):
    """What loading and storing a tile share: where each element lies."""

    buffer: Value
    offset: Value
    rest: Values
    strides: tuple[Dim, ...]
    limited: tuple[int, ...]
    indirect: bool
    masked: bool

    @property
    def limits(self) -> dict[int, Value]:
        """The number of existing coordinates, for each limited dimension."""
        count = len(self.limited)
        return dict(zip(self.limited, self.rest[:count], strict=True))

    @property
    def index(self) -> Value | None:
        """A tile of i64 offsets to add to the address of each element; dimensions of
        extent 1 are repeated."""
        return self.rest[len(self.limited)] if self.indirect else None

    @property
    def mask(self) -> Value | None:
        """A tile of bool: which elements exist; dimensions of extent 1 are repeated."""
        return self.rest[len(self.limited) + self.indirect] if self.masked else None


class LoadTile(Access, name="load_tile", levels=TILE):
    """Read a tile. Operands after the offset: limits, then index, mask and other.

    `other` is the tile of elements to give where the mask is false. `prefetch` asks
    for the element so many places further on to be brought near; 0 for none.
    """

    buffer = operand()
    offset = operand()
    rest = operands()
    type = attr(Type)
    strides = attr((Dim,))
    limited = attr((int,), default=())
    indirect = attr(bool, default=False)
    masked = attr(bool, default=False)
    prefetch = attr(Dim, default=0)

    @property
    def other(self) -> Value | None:
        return self.rest[-1] if self.masked else None

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        type_, strides, limited, indirect, masked, _ = attrs
        tile = _check_access(operands[0].type, type_, strides)
        _check_number("the offset", operands[1].type)
        tiles = (i64,) * indirect + (bool_, tile.dtype) * masked
        _check_rest(cls.name, operands[2:], tile, limited, tiles)
        return (tile,)


DESCRIPTOR = 128
"""Bytes of scratch memory that a tensor descriptor takes, at a multiple of as many."""


class FetchTile(Access, name="fetch_tile", levels=TILE):
    """Read a tile by a tensor descriptor: hardware copies the block of a matrix, and
    puts zeros where there is none.

    Operands after the scratch memory, where every program makes a descriptor of its
    own: limits, then how far on the tile begins along the `walked` dimensions, as the
    descriptor does not change from block to block. The element at tile coordinate c
    lies at `offset + Σ (c[d] + place[d])·strides[d]`, and exists where
    c[d] + place[d] < limit[d].
    """

    indirect = False
    masked = False

    buffer = operand()
    offset = operand()
    scratch = operand()
    rest = operands()
    type = attr(Type)
    strides = attr((Dim,))
    limited = attr((int,))
    walked = attr((int,), default=())

    @property
    def places(self) -> dict[int, Value]:
        """Where the tile begins, along each dimension that is walked."""
        return dict(zip(self.walked, self.rest[len(self.limited) :], strict=True))

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        type_, strides, limited, walked = attrs
        tile = _check_access(operands[0].type, type_, strides)
        _check_number("the offset", operands[1].type)
        if not isinstance(operands[2].type, Buffer):
            raise IllTyped(f"scratch memory is a buffer, not {operands[2].type}")
        check_dims(cls.name, walked, len(tile.shape))
        places = len(operands) - len(walked)
        _check_rest(cls.name, operands[3:places], tile, limited, ())
        for value in operands[places:]:
            _check_number("a place", value.type)
        return (tile,)


class StoreTile(Access, name="store_tile", levels=TILE):
    """Write a tile. Operands after the offset: limits, then index and mask.

    `streaming` marks memory that nobody reads soon: the store may bypass the caches.
    No two elements go to one place, unless `combine` says how they are combined there
    and with what is there (see `updating`), whatever programs do it at once.
    """

    pure = False

    value = operand()
    buffer = operand()
    offset = operand()
    rest = operands()
    strides = attr((Dim,))
    limited = attr((int,), default=())
    indirect = attr(bool, default=False)
    masked = attr(bool, default=False)
    streaming = attr(bool, default=False)
    combine = attr(str, default="")

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        strides, limited, indirect, masked, _, combine = attrs
        if combine:
            check_way(combine)
        tile = _check_access(operands[1].type, operands[0].type, strides)
        _check_number("the offset", operands[2].type)
        tiles = (i64,) * indirect + (bool_,) * masked
        _check_rest(cls.name, operands[3:], tile, limited, tiles)
        return ()


class IotaTile(Op, name="iota_tile", levels=TILE):
    """`origin` + the coordinate along `dim`, as i64."""

    origin = operand()
    type = attr(Type)
    dim = attr(int)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        tile = _tile(attrs[0])
        _check_number("the origin", operands[0].type)
        check_dims(cls.name, (attrs[1],), len(tile.shape))
        if tile.dtype is not i64:
            raise IllTyped(f"coordinates are i64, not {tile.dtype.name}")
        return (tile,)


class BroadcastTile(Op, name="broadcast_tile", levels=TILE):
    """A scalar, or a tile whose dimensions of extent 1 are repeated, as `type`."""

    x = operand()
    type = attr(Type)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        source, target = operands[0].type, _tile(attrs[0])
        if isinstance(source, Scalar):
            return (target,)
        if not isinstance(source, Tile) or not _repeats(source, target):
            raise IllTyped(f"cannot broadcast {source} to {target}")
        return (target,)

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        # broadcast_tile x : its own type -> x
        return operands if operands[0].type == attrs[0] else None


class Convert(Op, name="convert", levels=TILE):
    """The same tile under another layout: registers and lanes change places."""

    x = operand()
    layout = attr(Layout)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        x = _tile(operands[0].type)
        return (Tile(x.dtype, x.shape, attrs[0]),)

    @classmethod
    def simplify(
        cls, builder: Any, operands: Values, attrs: tuple[Any, ...]
    ) -> Values | None:
        # convert x : its own layout -> x
        return operands if _tile(operands[0].type).layout == attrs[0] else None


class Stage(Op, name="stage", levels=TILE):
    """The same tile, by way of scratch memory: made once for the loops that it lacks.

    Loops that walk other dimensions find it packed there. What it is computed from is
    laid out by a `spread` of its own, that memory is read and written well in.
    """

    x = operand()
    type = attr(Type)
    spread = attr(Layout)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        x, type_ = _tile(operands[0].type), _tile(attrs[0])
        if (x.dtype, x.shape) != (type_.dtype, type_.shape):
            raise IllTyped(f"cannot stage {x} as {type_}")
        return (type_,)


class Guard(Op, name="guard", levels=TILE):
    """`identity` wherever a limited coordinate does not exist, x elsewhere."""

    x = operand()
    limits = operands()
    limited = attr((int,))
    identity = attr("number")

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        tile = _tile(operands[0].type)
        _check_rest(cls.name, operands[1:], tile, attrs[0], ())
        return (tile,)


class For(Op, name="for", levels=TILE):
    """Run the block for `lo`, `lo + step`, … below `hi`.

    The block receives the counter (i64) and the carried values, and yields their next
    ones; the results are the last. No trip: the results are the initial values. Bounds
    that are computed make a condition of it: `for 0 to %c` of a %c that is 0 or 1.
    `along` is the dimension whose blocks it walks, where their extent may be left open.
    """

    pure = False

    lo = operand()
    hi = operand()
    inits = operands()
    step = attr(int)
    along = attr(int, default=-1)
    body = block()

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        carried = [p.type for p in blocks[0].params[1:]]
        if carried != [v.type for v in operands[2:]]:
            raise IllTyped("for: initial and carried values differ in type")
        if carried != [v.type for v in blocks[0].yields]:
            raise IllTyped("for: carried and yielded values differ in type")
        return tuple(carried)


class Part(Op, name="part", levels=TILE):
    """The grid of one kernel within that of several: `programs` programs, from number
    `first` on, run the block, which receives their number from 0."""

    pure = False

    first = attr(Dim)
    programs = attr(Dim)
    body = block()

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        (body,) = blocks
        if [p.type for p in body.params] != [Scalar(i64)] or body.yields:
            raise IllTyped("part: the block takes a program's number and yields none")
        return ()


class Scratch(Op, name="scratch", levels=TILE):
    """Memory for the time of one program."""

    pure = False

    type = attr(Type)

    @classmethod
    def infer(
        cls, operands: Values, attrs: tuple[Any, ...], blocks: tuple[Block, ...]
    ) -> tuple[Type, ...]:
        return (attrs[0],)


def _tile(type_: Type) -> Tile:
    if not isinstance(type_, Tile):
        raise IllTyped(f"expected a tile, not {type_}")
    return type_


def _check_access(buffer: Type, tile: Type, strides: tuple[Dim, ...]) -> Tile:
    tile = _tile(tile)
    if not isinstance(buffer, Buffer) or buffer.dtype is not tile.dtype:
        raise IllTyped(f"{tile} does not lie in {buffer}")
    if len(strides) != len(tile.shape):
        raise IllTyped(f"{len(strides)} strides for a tile of {len(tile.shape)} dims")
    return tile


def _check_number(what: str, type_: Type) -> None:
    if type_ != Scalar(i64):
        raise IllTyped(f"{what} is {type(type_).__name__}, not an i64")


def _check_rest(
    name: str,
    rest: Values,
    tile: Tile,
    limited: tuple[int, ...],
    dtypes: tuple[DType, ...],
) -> None:
    """What an op on a tile takes last: its limits, then tiles of some dtypes."""
    expected = len(limited) + len(dtypes)
    if len(rest) != expected:
        raise IllTyped(f"{name}: {len(rest)} operands where {expected} belong")
    check_dims(name, limited, len(tile.shape))
    for limit in rest[: len(limited)]:
        _check_number("a limit", limit.type)
    for value, dtype in zip(rest[len(limited) :], dtypes, strict=True):
        beside = _tile(value.type)
        if beside.dtype is not dtype or not _repeats(beside, tile):
            found = f"{beside.dtype.name}{list(beside.shape)}"
            raise IllTyped(
                f"{name}: {found} where {dtype.name}{list(tile.shape)} belongs"
            )


def _repeats(tile: Tile, target: Tile) -> bool:
    """Whether a tile has the extents of another, or 1, in each dimension."""
    return len(tile.shape) == len(target.shape) and all(
        a in (1, b) for a, b in zip(tile.shape, target.shape, strict=True)
    )
