"""What ATen ops mean in the IR, one file per family. Importing it registers all."""

from fusec.frontend.aten import (
    activations,
    contractions,
    factories,
    indexing,
    losses,
    norms,
    pointwise,
    reductions,
    scans,
    scatter,
    special,
    views,
)
from fusec.frontend.aten.registry import HANDLERS

__all__ = [
    "HANDLERS",
    "activations",
    "contractions",
    "factories",
    "indexing",
    "losses",
    "norms",
    "pointwise",
    "reductions",
    "scans",
    "scatter",
    "special",
    "views",
]
