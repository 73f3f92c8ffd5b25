"""What torch's fake tensors say about a node: types, strides, source lines."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg

from fusec.errors import Loc, Unsupported, UnsupportedError
from fusec.frontend.dtypes import from_torch
from fusec.frontend.shapes import Untranslatable, symbol_of, to_dim, to_dims
from fusec.frontend.torch_private import FakeScriptObject, FakeTensor
from fusec.ir.dims import Dim, Symbol, dim_max
from fusec.ir.dtypes import bool_, f64, i64
from fusec.ir.types import Opaque, Scalar, Tensor, Type

_SCALARS = (
    ((bool, torch.SymBool), bool_),
    ((int, torch.SymInt), i64),
    ((float, torch.SymFloat), f64),
)

_FRAME = re.compile(r'File "(?P<file>.+)", line (\d+), in (.+)\n?(.*)')
_TORCH = str(Path(torch.__file__).parent)


CPU = torch.device("cpu")


def home_of(metas: Iterable[Any]) -> torch.device:
    """The device that a graph's kernels run on: the one that most of its tensors are
    on, numbers left out, and of two with as many the one that is no CPU."""
    tensors = [x for meta in metas for x in leaves(meta) if isinstance(x, torch.Tensor)]
    counts = Counter(x.device for x in tensors if x.dim())
    if not counts:
        counts = Counter(x.device for x in tensors if x.device != CPU)
    return max(counts, key=lambda d: (counts[d], d != CPU), default=CPU)


def type_of(meta: Any, loc: Loc, home: torch.device) -> Type:
    """The type of what torch traced as `meta`: a fake tensor, a size, a number.

    What the IR cannot read is opaque, and so are tensors elsewhere than on the device
    `home`, and objects that calls to torch take, as the mesh of a distributed tensor.
    Raises `UnsupportedError` for a size that the IR lacks, and for what is none of
    these.
    """
    if isinstance(meta, torch.Tensor):
        readable = is_readable(meta) and meta.device == home
        return tensor_type(meta, loc) if readable else Opaque()
    for kinds, dtype in _SCALARS:
        if isinstance(meta, kinds):
            return Scalar(dtype)
    if isinstance(meta, (FakeScriptObject, torch.ScriptObject)):
        return Opaque()
    raise _unsupported(f"a value of type {type(meta).__name__}", "it is no tensor", loc)


def is_readable(tensor: torch.Tensor) -> bool:
    """Whether the IR has the dtype of a tensor, and its elements lie at strides."""
    strided = tensor.layout is torch.strided and not tensor.is_quantized
    return strided and from_torch(tensor.dtype) is not None


def tensor_type(tensor: torch.Tensor, loc: Loc) -> Tensor:
    """dtype, shape and strides; strides are None if the tensor is row-major.

    Raises `UnsupportedError` where the IR lacks a size.
    """
    dtype = from_torch(tensor.dtype)
    assert dtype is not None
    try:
        shape, strides = to_dims(tensor.shape), to_dims(tensor.stride())
    except Untranslatable as error:
        raise _unsupported("a tensor's size", str(error), loc) from error
    dense = strides == row_major(shape)
    return Tensor(dtype, shape, None if dense else strides)


def size_of(size: int | torch.SymInt, loc: Loc) -> Dim:
    """A size as a dim. Raises `UnsupportedError` for one that the IR lacks."""
    try:
        return to_dim(size)
    except Untranslatable as error:
        raise _unsupported("a size", str(error), loc) from error


def _unsupported(what: str, reason: str, loc: Loc) -> UnsupportedError:
    return UnsupportedError([Unsupported(what, reason, loc)])


def row_major(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """Dense strides as torch has them: an empty dimension counts as one."""
    strides: list[Dim] = []
    step: Dim = 1
    for size in reversed(shape):
        strides.append(step)
        # Of a symbolic size torch assumes that it is not empty, and so do we.
        step = step * (dim_max(size, 1) if isinstance(size, int) else size)
    return tuple(reversed(strides))


def traced(node: fx.Node) -> Any:
    """A node's value as torch traced it; None if it returns nothing.

    Of a node that torch inserted later and did not trace, these are the parts that are
    taken from it, as a tuple with None for others; or what it is traced to now.
    """
    meta = node.meta.get("val")
    used = [user for user in node.users if user.op != "output"]
    if meta is not None or not used:
        return meta
    if not all(map(_takes_a_part, used)):
        return _traced_now(node)
    taken: dict[Any, Any] = {user.args[1]: user.meta["val"] for user in used}
    return tuple(taken.get(k) for k in range(1 + max(taken)))


def _takes_a_part(node: fx.Node) -> bool:
    return node.target is operator.getitem and node.meta.get("val") is not None


def _traced_now(node: fx.Node) -> Any:
    """The call of a node on its fake operands. Raises `UnsupportedError`."""
    metas = [leaf for n in node.all_input_nodes for leaf in leaves(n.meta.get("val"))]
    fakes = [x for x in metas if isinstance(x, FakeTensor)]
    if not fakes or not callable(node.target):
        reason = "torch traced no type for what it returns"
        raise _unsupported(str(node.target), reason, loc_of(node))
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
    with fakes[0].fake_mode:
        return node.target(*args, **kwargs)


def leaves(meta: Any) -> Iterator[Any]:
    """The tensors and numbers in a node's value, in order, without None."""
    if isinstance(meta, (list, tuple)):
        for part in meta:
            yield from leaves(part)
    elif meta is not None:
        yield meta


def symints(meta: Any) -> Iterator[torch.SymInt]:
    """The symbolic sizes in a node's value."""
    for leaf in leaves(meta):
        sizes = (leaf,)
        if isinstance(leaf, torch.Tensor):
            dense = leaf.layout is torch.strided
            sizes = (*leaf.shape, *(leaf.stride() if dense else ()))
        yield from (size for size in sizes if isinstance(size, torch.SymInt))


def extents(meta: Any) -> Iterator[Symbol]:
    """The symbols that are an extent or a stride of a tensor in a node's value."""
    for leaf in leaves(meta):
        if isinstance(leaf, torch.Tensor):
            sizes = [n for n in symints(leaf) if isinstance(n, torch.SymInt)]
            yield from (symbol for n in sizes if (symbol := symbol_of(n)))


def loc_of(node: fx.Node) -> Loc:
    """The innermost line of the user's own that a node came from."""
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    if not frames:
        return Loc.UNKNOWN
    own = [frame for frame in frames if not frame["file"].startswith(_TORCH)]
    file, line, function, text = (own or frames)[-1].groups()
    return Loc(file, int(line), function, text.strip())
