"""`fusec opt`: passes on a file of IR."""

from __future__ import annotations

from argparse import Namespace
from functools import partial

from fusec.calibration import target_of
from fusec.cli.arguments import chosen
from fusec.cli.files import read_module
from fusec.cli.output import Output, progress, table, written
from fusec.codegen.backend import backend_of
from fusec.errors import UserError
from fusec.ir.arguments import symbol_values
from fusec.ir.printer import format_module
from fusec.options import Options
from fusec.passes import pipeline


def run(arguments: Namespace) -> Output:
    """List the passes, or run some."""
    if arguments.list:
        return _listed()
    if arguments.file is None:
        raise UserError(
            "no file given", fix="fusec opt FILE --passes NAME,…, or --list"
        )
    names = [name.strip() for name in arguments.passes.split(",") if name.strip()]
    target = target_of(Options.from_mapping(chosen(arguments)))
    module = read_module(arguments.file)
    sizes = dict(arguments.size)
    hints = symbol_values(module.entry, sizes) if sizes else {}
    supports = partial(backend_of(target).supports, target=target)
    with progress("running passes"):
        setting = pipeline.Setting(target, supports, hints)
        module = pipeline.run(module, names, setting)
    text = format_module(module)
    return Output(written(text, arguments.output), {"passes": names, "text": text})


def _listed() -> Output:
    passes = pipeline.PASSES
    rows = [(name, p.level.value, p.promise) for name, p in passes.items()]
    data = [dict(zip(("name", "level", "promise"), row, strict=True)) for row in rows]
    return Output(table(rows), {"passes": data})
