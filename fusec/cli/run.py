"""`fusec run`: the results of a function in a file of IR."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from fusec.cli.arguments import chosen
from fusec.cli.files import read_module
from fusec.cli.loading import load
from fusec.cli.output import Output, progress
from fusec.errors import CHECK_ERRORS, UserError
from fusec.ir.arguments import (
    load_npz,
    matched,
    random_arguments,
    save_npz,
    symbol_values,
)
from fusec.ir.core import Level, Module, Value, walk
from fusec.ir.interpreter import interpret, run_kernel
from fusec.ir.ops.extern import Extern
from fusec.ir.ops.tile import StoreTile
from fusec.ir.printer import format_type
from fusec.ir.types import Token
from fusec.options import Options


def run(arguments: Namespace) -> Output:
    """Read, run, print."""
    options = Options.from_mapping(chosen(arguments))
    module = read_module(arguments.file)
    values = _arguments(module, arguments)
    how = _how(module, options, arguments.interpret)
    with progress(f"running {arguments.file}"):
        try:
            results = _results(module, values, arguments, options, how)
        except tuple(CHECK_ERRORS.values()) as error:  # a check of the program's own
            raise UserError(f"the program failed: {error}") from error
    if arguments.save:
        save_npz(arguments.save, {name: x for name, _, x in results})
    return Output(_text(results), _data(results, how))


def _how(module: Module, options: Options, interpret: bool) -> str:
    level = module.entry.level
    if level is Level.HOST and not interpret:
        return "compiled"
    return "verified" if level is Level.GRAPH and options.verify else "interpreted"


Results = list[tuple[str, Value, Any]]
"""Name, value and what it holds, for each result."""


def _results(
    module: Module,
    values: list[Any],
    arguments: Namespace,
    options: Options,
    how: str,
) -> Results:
    if module.entry.level is Level.TILE:
        return _kernel(module, values, arguments.grid)
    if how == "compiled":
        return _named(module, load("native").run_compiled(module, values, options))
    if how == "verified":
        return _named(module, load("native").run_verified(module, values, options))
    return _interpreted(module, values)


def _arguments(module: Module, arguments: Namespace) -> list[Any]:
    function, sizes = module.entry, dict(arguments.size)
    if arguments.inputs is None:
        return random_arguments(function, arguments.seed, sizes)
    values = matched(function, load_npz(arguments.inputs))
    if function.level is Level.TILE:
        values += symbol_values(function, sizes).values()
    return values


def _interpreted(module: Module, values: list[Any]) -> Results:
    function = module.entry
    calls = any(isinstance(op, Extern) for op in function.body.ops)
    extern = load("native").extern_calls(function, values) if calls else None
    return _named(module, interpret(function, values, module=module, extern=extern))


def _kernel(module: Module, values: list[Any], grid: int) -> Results:
    """What a tile function stored, after so many of its programs."""
    function = module.entry
    count = len(function.params)
    sizes = dict(zip(function.symbols, values[count:], strict=True))
    run_kernel(function, values[:count], sizes, grid)
    stored = {op.buffer for op in walk(function.body) if isinstance(op, StoreTile)}
    named = enumerate(zip(function.params, values, strict=False))
    return [(p.hint or f"buffer{k}", p, x) for k, (p, x) in named if p in stored]


def _named(module: Module, results: tuple[Any, ...]) -> Results:
    named: Results = []
    for k, (value, x) in enumerate(zip(module.entry.body.yields, results, strict=True)):
        taken = {name for name, _, _ in named}
        name = value.hint if value.hint not in ("", *taken) else f"result{k}"
        if not isinstance(value.type, Token):
            named.append((name, value, x))
    return named


def _text(results: Results) -> str:
    """Each result's name and type, and below it its elements, the middle left out."""
    return "\n".join(
        f"%{name} : {format_type(value.type)}\n{x}" for name, value, x in results
    )


def _data(results: Results, how: str) -> dict[str, Any]:
    shown = [
        {
            "name": name,
            "type": format_type(value.type),
            "values": x.tolist() if hasattr(x, "tolist") else x,
        }
        for name, value, x in results
    ]
    return {"how": how, "results": shown}
