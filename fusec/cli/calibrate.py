"""`fusec calibrate`: measure what this machine does in a second, for the cost model."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

from fusec.calibration import (
    Calibration,
    Figures,
    Machine,
    forget,
    keep,
    this_cpu,
    with_figures,
)
from fusec.cli.arguments import chosen
from fusec.cli.output import Output, progress, table
from fusec.errors import OptionError, UserError
from fusec.measuring import cpu, gpu
from fusec.measuring.timing import alone
from fusec.options import Options
from fusec.target import Target, host


class Measurable(NamedTuple):
    """A processor or a GPU of this machine."""

    machine: Machine
    target: Target
    """With its defaults."""
    measure: Callable[[], Figures]


def run(arguments: Namespace) -> Output:
    """Measure and keep, or only measure, or forget."""
    options = Options.from_mapping(chosen(arguments))
    if options.target is not None:
        raise OptionError(
            f"target={options.target!r} cannot be measured, but this machine can",
            fix="leave the target out: one that is named has its figures everywhere",
        )
    here = measurable()
    if arguments.forget:
        return _forgotten(here, options)
    found = [_calibration(each) for each in here]
    kept = [None if arguments.dry_run else keep(c, options.cache_dir) for c in found]
    texts = [
        _text(each.target, calibration, f"kept in {path}" if path else "not kept")
        for each, calibration, path in zip(here, found, kept, strict=True)
    ]
    data = [
        {**asdict(calibration), "kept": str(path) if path else None}
        for calibration, path in zip(found, kept, strict=True)
    ]
    return Output("\n\n".join(texts), {"calibrations": data})


def measurable() -> list[Measurable]:
    """What there is here to measure."""
    here = [Measurable(this_cpu(), host(), partial(cpu.measured, host()))]
    gpus = gpu.gpus()
    return here + [
        Measurable(g.machine, g.target, partial(gpu.measured, g)) for g in gpus
    ]


def _calibration(each: Measurable) -> Calibration:
    """Raises `UserError` where what was measured cannot be."""
    with progress(f"measuring {each.machine.name}"):
        figures = _rounded(each.measure())
    try:
        with_figures(each.target, figures)
    except ValueError as error:
        raise UserError(
            f"what was measured of {each.machine.name} cannot be right: {error}",
            fix=alone(),
        ) from error
    return Calibration(each.machine, figures)


def _forgotten(here: list[Measurable], options: Options) -> Output:
    gone = [e.machine.name for e in here if forget(e.machine, options.cache_dir)]
    names = ", ".join(gone)
    text = f"forgot what was measured of {names}" if gone else "nothing was kept"
    return Output(text, {"forgotten": gone})


def _rounded(value: Any) -> Any:
    """Four digits, which is more than can be measured."""
    if isinstance(value, Mapping):
        return {name: _rounded(each) for name, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _text(target: Target, found: Calibration, where: str) -> str:
    """Each figure beside the target's default."""
    rows = [("", "measured", "default")]
    for name, value in found.figures.items():
        if name == "library":
            defaults = dict(target.library)
            rows += [
                (f"library {n}", _times(v), _times(defaults[n]))
                for n, v in value.items()
            ]
        else:
            rows.append(
                (name, _shown(name, value), _shown(name, getattr(target, name)))
            )
    return f"{found.machine.name}: {where}\n{table(rows, indent='  ')}"


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "launch":
        return f"{value * 1e6:.2f} µs"
    unit = "GHz" if name == "hertz" else "GB/s"
    return f"{value / 1e9:.3g} {unit}"


def _times(rate: float) -> str:
    return f"{rate:.3g} × f32"
