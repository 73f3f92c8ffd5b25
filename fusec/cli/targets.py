"""From the TARGET of a command line to the graphs of a call.

model.py:mlp    →    mlp, mlp_inputs    →    record(mlp, inputs)
"""

from __future__ import annotations

import pkgutil
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from fusec.cli.arguments import chosen
from fusec.cli.output import progress
from fusec.compiler import CPU, compile_graph, setting_of, target_at
from fusec.errors import FusecError, Loc, UserError
from fusec.frontend.record import Inputs, Recorded, Recording, record, with_arrays
from fusec.ir.arguments import load_npz
from fusec.options import Options
from fusec.passes.journey import Journey, lower
from fusec.target import Target

_FORM = "write file.py:name or module:name"


@dataclass(frozen=True, slots=True)
class Call:
    """A callable and what to call it with."""

    function: Callable[..., Any]
    inputs: Inputs


def recording(arguments: Namespace) -> Recording:
    """The graphs of a call, or the one that is asked for. Raises `UserError`."""
    options = Options.from_mapping(chosen(arguments))
    with progress(f"loading {arguments.target}"):
        call = resolve(arguments.target)
    if arguments.inputs:
        arrays = load_npz(arguments.inputs)
        call = Call(call.function, with_arrays(call.function, call.inputs, arrays))
    with progress(f"running {arguments.target}"):
        return _picked(_record(call, options, arguments), arguments)


def lowered(recorded: Recorded, arguments: Namespace) -> Journey:
    """A graph at every stage."""
    options, imported = Options.from_mapping(chosen(arguments)), recorded.imported
    # A target that is named need not be here.
    device = CPU if options.target else imported.device
    with progress("lowering"):
        return lower(imported.function, setting_of(options, imported.hints, device))


def _record(call: Call, options: Options, arguments: Namespace) -> Recording:
    # The call runs here, whatever machine the code that is shown is for.
    own = Options.from_mapping({**chosen(arguments), "target": None})
    if options.target is not None:  # what is measured here says nothing of it
        own = replace(own, tune=False)
    compile = partial(compile_graph, options=own)

    def target(device: str) -> Target:
        """Of the code that is shown. Whatever it is, it runs on a CPU as well."""
        return target_at(CPU if options.target else device, options)

    with _users_code(arguments.target):
        return record(
            call.function,
            call.inputs,
            compile,
            options,
            target=target,
            dynamic=arguments.dynamic,
            backward=arguments.backward,
        )


def _picked(found: Recording, arguments: Namespace) -> Recording:
    if not found.graphs:
        lost = "".join(f"; {each}" for each in found.lost)
        nothing = "it computes nothing on tensors, or all of it runs through ATen"
        raise UserError(
            f"{arguments.target} gave fusec no graph: {lost[2:] or nothing}"
        )
    number = arguments.graph
    if number is None:
        return found
    if not 0 <= number < len(found.graphs):
        raise UserError(
            f"there is no graph {number}",
            fix=f"the call has {len(found.graphs)}:"
            f" --graph 0 to {len(found.graphs) - 1}",
        )
    return Recording([found.graphs[number]], found.lost)


def resolve(target: str) -> Call:
    """What `file.py:name` or `module:name` names. Raises `UserError`."""
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name:
        raise UserError(f"{target!r} does not name a function", fix=_FORM)
    with _users_code(target):
        module = _module(where)
        found = _attribute(module, name, target)
        return _call(found, name, module, target)


def _module(where: str) -> Any:
    if not where.endswith(".py") and "/" not in where:
        # Modules of the folder that one stands in count, as with `python -m`.
        sys.path.insert(0, str(Path.cwd()))
        return pkgutil.resolve_name(where)
    path = Path(where)
    if not path.is_file():
        raise UserError(f"there is no file {where}", fix=_FORM)
    # Files beside it can be imported from it, as when Python runs it.
    sys.path.insert(0, str(path.parent.resolve()))
    # A file may be called as a module that is loaded already is.
    name = f"fusec_target_{path.stem}" if path.stem in sys.modules else path.stem
    spec = spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"{where} is no Python file", fix=_FORM)
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _attribute(module: ModuleType, name: str, target: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UserError(f"{target}: no {name!r} there", fix=_guess(module, name))
        found = getattr(found, part)
    return found


def _guess(module: ModuleType, name: str) -> str:
    """What can be called there, that which was meant first."""
    known = sorted(k for k, x in vars(module).items() if _is_target(k, x, module))
    close = get_close_matches(name, known, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"{meant}it has {', '.join(known) or 'nothing to call'}"


def _is_target(name: str, x: Any, module: ModuleType) -> bool:
    """Whether something in a file may be a target: its own, not what it imports."""
    if name.startswith("_") or name.endswith("_inputs") or isinstance(x, type):
        return False
    if isinstance(x, tuple):
        return len(x) == 2 and callable(x[0])
    has_inputs = hasattr(x, "example_inputs") or hasattr(module, f"{name}_inputs")
    own = isinstance(x, FunctionType) and x.__module__ == module.__name__
    return callable(x) and (has_inputs or own)


def _call(found: Any, name: str, module: ModuleType, target: str) -> Call:
    inputs: Any = None
    if isinstance(found, tuple) and len(found) == 2:
        found, inputs = found
    else:
        companion = getattr(module, f"{name}_inputs", None)
        inputs = getattr(found, "example_inputs", companion)
    if not callable(found):
        raise UserError(
            f"{target} is a {type(found).__name__}, which cannot be called",
            fix="name a function, a module, or a tuple (callable, inputs)",
        )
    if inputs is None:
        raise UserError(
            f"nothing says what to call {target} with",
            fix=f"define {name}_inputs beside it, a tuple of arguments; or name a tuple"
            f" in a file of your own, as call = ({name}, inputs)",
        )
    given = inputs() if callable(inputs) else inputs
    return Call(found, Inputs.of(given, f"the inputs of {target}"))


@contextmanager
def _users_code(target: str) -> Iterator[None]:
    """Whatever the user's own code raises becomes a `UserError` with its line."""
    try:
        yield
    except FusecError:
        raise
    except Exception as error:
        raise _failure(target, error) from error


def _failure(target: str, error: Exception) -> UserError:
    # torch wraps what a backend raises.
    inner = getattr(error, "inner_exception", None)
    if isinstance(inner, FusecError):
        return UserError(f"{target}: {inner}")
    frames = getattr(error, "real_stack", None)  # of what Dynamo traced
    frames = frames or traceback.extract_tb(error.__traceback__)
    own = Path(__file__).parents[1]
    places = [
        Loc(frame.filename, frame.lineno or 0, frame.name, frame.line or "")
        for frame in frames
        if "site-packages" not in frame.filename
        and not Path(frame.filename).is_relative_to(own)
        and not frame.filename.startswith("<")
        and "/lib/python" not in frame.filename
    ]
    reason = _reason(error)
    summary = str(reason).strip().splitlines() or [""]
    what = f"{target} failed: {type(reason).__name__}: {summary[0]}"
    return UserError(what, places[-1] if places else Loc.UNKNOWN)


def _reason(error: BaseException) -> BaseException:
    """What an error of Dynamo's wraps, if it wraps one."""
    while type(error).__module__.startswith("torch._dynamo"):
        wrapped = error.__cause__ or error.__context__
        if wrapped is None:
            return error
        error = wrapped
    return error
