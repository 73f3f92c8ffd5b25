"""A bug of ours, as a program that shows it again.

    torch.manual_seed(0)
    arguments = [strided((8, 16), (16, 1), torch.float32)]
    torch.compile(Graph(), backend="fusec", options={"fallback": False})(*arguments)

It holds the graph's code, its arguments' forms and the trace of the error: none of the
numbers in the user's tensors.
"""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import fx

from fusec.files import make_private, write_private
from fusec.frontend.shapes import likely

_TEMPLATE = '''"""A graph that fusec failed on.

{trace}"""

import torch
from torch import device, inf, nan

import fusec


class Graph(torch.nn.Module):
    def __init__(self):
        super().__init__()
{attributes}

{forward}


def strided(shape, strides, dtype):
    room = 1 + sum((n - 1) * s for n, s in zip(shape, strides) if n > 0)
    numbers = torch.rand(room) if dtype.is_floating_point else torch.zeros(room)
    return numbers.to(dtype).as_strided(shape, strides)


torch.manual_seed(0)
arguments = [
{arguments}
]
with torch.no_grad():
    torch.compile(Graph(), backend="fusec", options={{"fallback": False}})(*arguments)
'''


def write_reproducer(
    gm: fx.GraphModule, example_inputs: Sequence[Any], folder: Path, error: Exception
) -> Path:
    """Write the program into `folder`/reproducers; the same bug overwrites itself."""
    trace = "".join(traceback.format_exception(error)).replace("\\", "\\\\")
    text = _TEMPLATE.format(
        trace=trace.replace('"""', "'''"),
        attributes="\n".join(_attributes(gm)) or "        pass",
        forward=textwrap.indent(gm.code.strip(), "    "),
        arguments="\n".join(f"    {_argument(x)}," for x in example_inputs),
    )
    make_private(folder)
    make_private(folder / "reproducers")
    name = f"{sha256(text.encode()).hexdigest()[:16]}.py"
    write_private(folder / "reproducers" / name, text.encode())
    return folder / "reproducers" / name


def _attributes(gm: fx.GraphModule) -> list[str]:
    """What the graph holds: tensors by their form; modules are left out."""
    lines: list[str] = []
    for node in gm.graph.find_nodes(op="get_attr"):
        held = getattr(gm, node.target, None)
        shown = _argument(held) if isinstance(held, torch.Tensor) else "None"
        lines.append(f"        self.{node.target} = {shown}")
    return lines


def _argument(example: Any) -> str:
    """An expression for an argument like this one, sizes as they were when traced."""
    if isinstance(example, torch.SymInt):
        return str(likely(example))
    if not isinstance(example, torch.Tensor):
        return repr(example)
    shape = tuple(map(likely, example.shape))
    strides = tuple(map(likely, example.stride()))
    return f"strided({shape}, {strides}, {example.dtype})"
