"""Read a GGUF file: the metadata, and the tensors as they are stored.

A GGUF file is a header, key-value metadata, a table of tensors, and their data:

    "GGUF"  version  #tensors  #entries  entry…  (name, shape, format, offset)…  data

Most formats store *blocks*: 32 numbers that share a scale. Q4_1, for one, keeps
`scale`, `low` and 32 codes of four bits, and each number is `scale * code + low`.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Format:
    """How numbers are stored: `size` of them in each `block`."""

    size: int
    block: np.dtype[Any]
    decode: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


@dataclass(frozen=True)
class Stored:
    """One tensor as the file holds it; `blocks` is a view of the mapped file."""

    shape: tuple[int, ...]
    format: Format
    blocks: npt.NDArray[Any]

    def dequantise(self) -> Floats:
        """The numbers as float32, row-major in `shape`."""
        return self.format.decode(self.blocks).astype(np.float32).reshape(self.shape)


@dataclass(frozen=True)
class GGUF:
    metadata: dict[str, Any]
    tensors: dict[str, Stored]


def decode_q4_1(blocks: npt.NDArray[Any]) -> Floats:
    codes = blocks["codes"]
    # The low nibbles are the first half of a block, the high ones the second.
    nibbles = np.concatenate([codes & 15, codes >> 4], axis=-1)
    scale = blocks["scale"].astype(np.float32)[:, None]
    return scale * nibbles + blocks["low"].astype(np.float32)[:, None]


def decode_q8_0(blocks: npt.NDArray[Any]) -> Floats:
    return blocks["scale"].astype(np.float32)[:, None] * blocks["codes"]


def itself(blocks: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return blocks


Q4_1 = np.dtype([("scale", "<f2"), ("low", "<f2"), ("codes", "u1", 16)])
Q8_0 = np.dtype([("scale", "<f2"), ("codes", "i1", 32)])

FORMATS = {
    0: Format(1, np.dtype("<f4"), itself),
    1: Format(1, np.dtype("<f2"), itself),
    3: Format(32, Q4_1, decode_q4_1),
    8: Format(32, Q8_0, decode_q8_0),
}

# The metadata's types by number; 8 is a string and 9 an array.
SCALARS = dict(zip([0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12], "BbHhIif?Qqd", strict=True))
STRING, ARRAY = 8, 9


class Reader:
    """Reads little-endian values one after the other."""

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        self.data = data.data
        self.at = 0

    def unpack(self, codes: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{codes}", self.data, self.at)
        self.at += struct.calcsize(f"<{codes}")
        return values

    def scalar(self, code: str) -> Any:
        return self.unpack(code)[0]

    def string(self) -> str:
        length = self.scalar("Q")
        self.at += length
        return bytes(self.data[self.at - length : self.at]).decode()

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.scalar(SCALARS[kind])
        kind, count = self.unpack("IQ")
        if kind in SCALARS:
            return list(self.unpack(f"{count}{SCALARS[kind]}"))
        return [self.value(kind) for _ in range(count)]


def read(path: Path) -> GGUF:
    """The contents of a GGUF file of version 2 or 3, mapped rather than copied.

    Raises ValueError for another file, or a tensor in a format not in `FORMATS`.
    """
    data = np.memmap(path, np.uint8, mode="r")
    reader = Reader(data)
    magic, version, tensors, entries = reader.unpack("4sIQQ")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"{path} is no GGUF file of version 2 or 3")
    metadata = {}
    for _ in range(entries):
        key = reader.string()
        metadata[key] = reader.value(reader.scalar("I"))
    table = [read_entry(reader) for _ in range(tensors)]
    align = metadata.get("general.alignment", 32)
    start = -(-reader.at // align) * align
    return GGUF(
        metadata,
        {
            name: stored(data[start + offset :], name, shape, format)
            for name, shape, format, offset in table
        },
    )


def read_entry(reader: Reader) -> tuple[str, tuple[int, ...], int, int]:
    """A tensor's name, shape, format and offset into the data."""
    name = reader.string()
    shape = reader.unpack(f"{reader.scalar('I')}Q")
    format, offset = reader.unpack("IQ")
    # GGUF names the innermost dimension first.
    return name, shape[::-1], format, offset


def stored(
    data: npt.NDArray[np.uint8], name: str, shape: tuple[int, ...], number: int
) -> Stored:
    if number not in FORMATS:
        raise ValueError(f"'{name}' is in GGUF format {number}, which is unsupported")
    format = FORMATS[number]
    size = int(np.prod(shape)) // format.size * format.block.itemsize
    return Stored(shape, format, data[:size].view(format.block))
