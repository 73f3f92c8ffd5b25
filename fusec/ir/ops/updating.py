"""How elements that meet in one place of memory are combined there, in any order.

    one        one of them stays, whichever
    sum        they are added to what is there
    max, min   the extreme stays; NaN over all

    update("sum", memory, [0, 2, 0], [1, 1, 1])      memory += [2, 0, 1]

All commute, so that programs may do it at once: floats that are added round in the
order in which they came. Scatters, updates and stores of tiles name one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from fusec.ir.dtypes import Array
from fusec.ir.types import IllTyped

ONE = "one"
_COMBINED: Mapping[str, np.ufunc] = MappingProxyType(
    {"sum": np.add, "max": np.maximum, "min": np.minimum}
)
WAYS = (ONE, *_COMBINED)


def check_way(name: str) -> None:
    """Raise `IllTyped` for what is no way to combine."""
    if name not in WAYS:
        raise IllTyped(f"no way {name!r} to combine; there are {', '.join(WAYS)}")


def update(way: str, memory: Array, place: Array, values: Array) -> None:
    """Combine values with the elements of flat memory at these places, one by one."""
    if way == ONE:
        memory[place] = values
    else:
        _COMBINED[way].at(memory, place, values)
