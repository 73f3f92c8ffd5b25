"""Op families. Importing this package registers every op."""

from fusec.ir.ops import (
    cast,
    constant,
    contraction,
    elementwise,
    extern,
    host,
    loop,
    rare,
    reduction,
    tile,
    view,
)

__all__ = [
    "cast",
    "constant",
    "contraction",
    "elementwise",
    "extern",
    "host",
    "loop",
    "rare",
    "reduction",
    "tile",
    "view",
]
