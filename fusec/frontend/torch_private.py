"""What the frontend imports of torch beyond its public interface, in one place.

These names move between releases: what breaks with a new torch breaks here, or in
`runtime.launcher_torch`, which asks torch's dispatcher and profiler who is watching.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch._decomp import core_aten_decompositions
from torch._dynamo.utils import counters, flatten_graph_inputs
from torch._functorch import config as functorch_config
from torch._functorch._aot_autograd.autograd_cache import BypassAOTAutogradCache
from torch._functorch._aot_autograd.schemas import SerializableAOTDispatchCompiler
from torch._functorch.aot_autograd import aot_module_simplified
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._guards import TracingContext
from torch._inductor import codecache, cudagraph_utils, utils
from torch._inductor.output_code import OutputCode
from torch._inductor.runtime.cache_dir_utils import cache_dir as aot_cache_dir
from torch._library.fake_class_registry import FakeScriptObject
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.fx.experimental.symbolic_shapes import ShapeEnv

__all__ = [
    "BypassAOTAutogradCache",
    "CudaGraphs",
    "FakeScriptObject",
    "FakeTensor",
    "HigherOrderOperator",
    "OpOverload",
    "OpOverloadPacket",
    "OutputCode",
    "SerializableAOTDispatchCompiler",
    "ShapeEnv",
    "TracingContext",
    "all_overloads",
    "aot_cache_dir",
    "aot_module_simplified",
    "core_aten_decompositions",
    "counters",
    "cuda_graphs",
    "flatten_graph_inputs",
    "forget_cuda_graphs",
    "functorch_config",
    "is_uncounted",
    "keys_of_ours",
    "min_cut_rematerialization_partition",
    "part_of",
    "quiet_about_fakes",
    "returned_by_forward",
    "static_inputs",
    "symbol_hint",
    "unset_fake_temporarily",
    "view_of",
]


def is_uncounted(x: object) -> bool:
    """Whether an input is a parameter or a buffer of a module, to which torch does not
    count writes."""
    if not isinstance(x, torch.Tensor) or not x.is_inference():
        return False
    return isinstance(x, torch.nn.Parameter) or hasattr(x, "_dynamo_static_input_type")


def static_inputs() -> tuple[int, ...]:
    """The inputs of the graph under compilation that are parameters and buffers of
    modules, by number: the same objects in each call, but for what is written to them.
    """
    context = TracingContext.try_get()
    if context is None or context.fw_metadata is None:
        return ()
    return tuple(context.fw_metadata.static_input_indices)


def returned_by_forward() -> int:
    """How many results of the forward pass under compilation are for its caller; those
    behind them are for the backward pass."""
    context = TracingContext.get()
    assert context.fw_metadata is not None
    return context.fw_metadata.num_forward_returns


class CudaGraphs(NamedTuple):
    """What torch has for the capture of CUDA graphs: Inductor's trees of them, which
    share memory."""

    captured: Callable[..., Callable[[list[Any]], list[Any]]]
    """Of a boxed callable, its arguments and the numbers of those that are static: one
    that warms up, is captured, and is replayed, in one thread."""
    holder: Callable[[int], Any]
    """What has the graphs of a device, for this thread and the backward passes that it
    starts, with their `tree_manager`; None for a thread that cannot have any."""
    placeholders: Callable[[Any], Sequence[Any]]
    """What torch tells of a graph's arguments in its messages."""
    incompatible: Callable[[Any], Any]
    """The first node of a graph that cannot be captured, or None."""
    skips_open_sizes: bool
    """The user's setting of torch's: capture nothing where sizes are symbols."""


_TOLD = {
    "device_index",
    "is_backward",
    "is_inference",
    "stack_traces",
    "placeholders",
    "mutated_input_idxs",
}
"""What `captured` is told by name."""


@cache
def _trees() -> Any:
    try:
        # It loads Inductor, which takes long.
        from torch._inductor import cudagraph_trees
    except ImportError:
        return None
    return cudagraph_trees


def _holder(get: Callable[[int], Any], device: int) -> Any:
    try:
        return get(device)
    except AssertionError:  # before 2.13, in threads that torch did not start
        return None


def cuda_graphs() -> CudaGraphs | None:
    """None where this torch has another interface than is known here."""
    trees = _trees()
    try:
        if not inspect.signature(trees.cudagraphify).parameters.keys() >= _TOLD:
            return None
        return CudaGraphs(
            trees.cudagraphify_impl,
            partial(_holder, trees.get_container),
            cudagraph_utils.get_placeholder_info,
            utils.get_first_incompatible_cudagraph_node,
            bool(trees.config.triton.cudagraph_skip_dynamic_graphs),
        )
    except AttributeError:
        return None


def forget_cuda_graphs() -> None:
    """Free what was captured, as torch does of itself from 2.13 on."""
    trees = sys.modules.get("torch._inductor.cudagraph_trees")
    if trees is not None:
        with suppress(AssertionError):  # as in `_holder`: then there is nothing to free
            trees.reset_cudagraph_trees()


_keys_are_ours: ContextVar[bool] = ContextVar("keys_are_ours", default=False)


@contextmanager
def keys_of_ours() -> Iterator[None]:
    """Let this thread make keys for torch's cache without Inductor's code generators.

    To ask them for custom passes, torch imports all of them, which takes longer than
    all else that finding an entry does. What fusec compiles depends on none.
    """
    token = _keys_are_ours.set(True)
    try:
        yield
    finally:
        _keys_are_ours.reset(token)


def _unless_ours(register: Callable[[], None]) -> Callable[[], None]:
    return lambda: None if _keys_are_ours.get() else register()


if hasattr(codecache, "init_backend_registration"):
    _register = codecache.init_backend_registration  # pyright: ignore
    codecache.init_backend_registration = _unless_ours(_register)  # pyright: ignore


@contextmanager
def quiet_about_fakes() -> Iterator[None]:
    """Keep torch from logging why it could not trace an op: the error says it too."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def view_of(
    x: torch.Tensor, shape: Sequence[int], strides: Sequence[int], offset: int
) -> torch.Tensor:
    """A view of a tensor, `offset` elements on; torch knows what it is a view of."""
    return x.as_strided(shape, strides, x.storage_offset() + offset)


_guards: Any = getattr(torch._C, "_dynamo").guards  # noqa: B009
part_of = getattr(_guards, "_reinterpret_tensor", view_of)
"""The same as a tensor of its own in that memory: torch's way around its dispatcher, as
Inductor takes it."""


def all_overloads() -> list[str]:
    """Every overload that torch knows: "aten::add.Tensor"; those without a name end
    in the op's."""
    return torch._C._dispatch_get_all_op_names()


def symbol_hint(env: ShapeEnv, symbol: Any) -> int | None:
    """The value of a size symbol in the call that was traced; None if it had none."""
    # torch 2.12 renamed the table.
    name = "backed_var_to_val" if hasattr(env, "backed_var_to_val") else "var_to_val"
    value = getattr(env, name).get(symbol)
    return None if value is None else int(value)
