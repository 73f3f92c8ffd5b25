"""The door for torch: the backend that `torch.compile` calls.

    torch.compile(model, backend="fusec", options={"numerics": "fast"})

What a graph needs that is in torch's cache is loaded here; the compiler itself only
where there is something to compile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fusec import lazy
from fusec.calibration import target_of
from fusec.files import check_private
from fusec.frontend.capture import compile_dynamo_graph
from fusec.frontend.cudagraphs import Passes
from fusec.frontend.torch_private import (
    aot_cache_dir,
    forget_cuda_graphs,
    is_uncounted,
)
from fusec.logs import enable, forget_warnings, warn_once
from fusec.options import Options
from fusec.runtime.artifact import salt
from fusec.runtime.cache import cache_at
from fusec.runtime.gpus import facts_of
from fusec.target import host

if TYPE_CHECKING:
    from fusec import compiler
    from fusec.frontend import aten_graph
else:
    compiler = lazy.module("fusec.compiler")
    aten_graph = lazy.module("fusec.frontend.aten_graph")


_UNCOUNTED = """nothing is frozen of weights that were made in inference mode: torch
does not count writes to them
  help: make or load the model outside of torch.inference_mode()"""
_NOT_KEPT = """every process compiles anew, as torch's cache {} is not safe: {}
  help: set TORCHINDUCTOR_CACHE_DIR to a folder that is yours alone, or cache=0"""


class Backend:
    """What `torch.compile(backend="fusec")` calls. See `fusec.options` for options."""

    def __init__(self) -> None:
        self.__name__ = "fusec"

    def __call__(
        self,
        gm: torch.fx.GraphModule,
        example_inputs: Sequence[Any],
        *,
        mode: str | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Callable[..., Any]:
        """Compile one graph of Dynamo's.

        Raises `OptionError` for an option that fusec does not have.
        """
        chosen = Options.from_mapping(options, mode)
        enable(chosen.logs)
        if chosen.freeze and any(map(is_uncounted, example_inputs)):
            warn_once("graph", _UNCOUNTED)
            chosen = replace(chosen, freeze=False)
        compile = partial(_compile, options=chosen, passes=Passes())
        devices = _devices(gm, example_inputs)
        return compile_dynamo_graph(gm, example_inputs, compile, _salt(chosen, devices))

    def reset(self) -> None:
        """Called by `torch.compiler.reset`: fusec itself keeps nothing per model."""
        forget_warnings()
        forget_cuda_graphs()


backend = Backend()


def _compile(
    gm: torch.fx.GraphModule,
    example_inputs: Sequence[Any],
    role: str,
    options: Options,
    passes: Passes,
) -> Callable[[list[Any]], list[Any]]:
    program = partial(compiler.compile_graph, options=options)
    target = partial(compiler.target_at, options=options)
    return aten_graph.compile_aten_graph(
        gm,
        example_inputs,
        role,
        compile=program,
        options=options,
        target=target,
        passes=passes,
    )


def _devices(gm: torch.fx.GraphModule, inputs: Sequence[Any]) -> list[str]:
    """The devices of the tensors of a graph, but for the CPU."""
    graph = getattr(gm, "graph", None)
    nodes = graph.nodes if graph is not None else ()
    made = (node.meta.get("example_value") for node in nodes)
    tensors = (x for x in (*inputs, *made) if isinstance(x, torch.Tensor))
    return sorted({str(x.device) for x in tensors} - {"cpu"})


def _salt(options: Options, devices: Sequence[str] = ()) -> str | None:
    """For torch's cache of compiled graphs; None where it is not to be used."""
    if not options.cache or options.verify or not _is_kept():
        return None
    chosen = options.numerics, options.fallback, options.threads, options.freeze
    tuned = options.tune, options.tune_seconds
    facts = (
        chosen,
        options.cudagraphs,
        tuned,
        target_of(options),
        host(),
        torch.get_default_dtype(),
        metadata.version("llvmlite"),
        *(facts_of(device, options) for device in devices),
    )
    return salt(cache_at(options.cache_dir), *facts)


def _is_kept() -> bool:
    """Whether torch's cache, which it unpickles, is ours alone to write."""
    folder = Path(aot_cache_dir())
    try:
        check_private(folder)
    except (OSError, ValueError) as error:
        warn_once("cache", _NOT_KEPT.format(folder, error))
        return False
    return True
