"""Figures that `fusec calibrate` measured on a machine, instead of a target's defaults.

    machine = this_cpu()                            model, instruction sets, cores
    keep(Calibration(machine, figures), folder)     <cache_dir>/calibration-<key>.json
    target_of(options)                              this machine, with those figures

A file holds what one machine measured, as JSON that people can read: homes are shared
among machines, so a machine takes the file with its key, and only if it says so inside.
What is damaged, another user's, or out of range is ignored, with a line in the log.
Figures decide what code is generated; as they are fields of the target, they are part
of whatever key it is part of. A target that is named has its defaults everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from fusec.errors import UserError
from fusec.files import make_private, read_private, remove, write_private
from fusec.logs import logger
from fusec.options import Options
from fusec.target import Target, cpu_says, host, resolve

VERSION = 2
"""Of the file, and of how figures are measured."""

Figures = Mapping[str, Any]
"""Fields of a target by their names; `library` is a mapping, as in JSON."""

_RATES = 1e8, 1e14
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "hertz": (2e8, 1e10),
        "l2_rate": _RATES,
        "llc_rate": _RATES,
        "dram_rate": _RATES,
        "dram_rate_all": _RATES,
        "launch": (1e-8, 1e-4),
    }
)
"""What a figure may be. On a machine that is busy with other work launches take
milliseconds, as threads wait for their turn."""
TIMES_F32 = 1e-3, 1e3
"""What a library may do of a dtype for each multiply-add of f32's peak."""
SLACK = 1.25
"""How far memory may seem faster than what lies nearer."""

_IGNORED = """ignored %s: %s
  help: `fusec calibrate` makes it anew, `fusec calibrate --forget` removes it"""


@dataclass(frozen=True, slots=True)
class Machine:
    """What figures are true of."""

    name: str
    """The model, as its maker has it."""
    features: str
    """Its instruction sets, or the capability of a GPU."""
    cores: int

    @property
    def key(self) -> str:
        """The same for equal machines."""
        text = json.dumps([VERSION, self.name, self.features, self.cores])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured, where and when."""

    machine: Machine
    figures: Figures
    when: str = field(
        default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds")
    )

    @property
    def text(self) -> str:
        """As it is kept."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n"


@cache
def this_cpu() -> Machine:
    """The processor, and as many of its cores as we may use."""
    flags = " ".join(sorted(cpu_says("flags").split()))
    return Machine(cpu_says("model name"), flags, host().cores)


def target_of(options: Options) -> Target:
    """The target that was chosen; this machine with what was measured of it.

    Raises `OptionError` for a name that no target has.
    """
    target = resolve(options.target)
    if options.target is not None:
        return target
    return calibrated(target, this_cpu(), options.cache_dir)


def calibrated(target: Target, machine: Machine, folder: Path) -> Target:
    """The target with what was measured of the machine that it is."""
    found = kept(target, machine, folder)
    return with_figures(target, found.figures) if found else target


def with_figures(target: Target, figures: Figures) -> Target:
    """The target with these in place of its own; of its library, those that are there.

    Raises ValueError, with what is wrong, unless a device may have them.
    """
    for name, value in figures.items():
        if name == "library":
            for dtype, rate in _mapping(value).items():
                _check(f"library {dtype}", rate, TIMES_F32)
        elif name == "nontemporal":
            if not isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}, neither true nor false")
        elif name in RANGES:
            _check(name, value, RANGES[name])
        else:
            raise ValueError(f"{name!r} is no figure that is measured")
    library = {**dict(target.library), **figures.get("library", {})}
    made = replace(target, **{**figures, "library": tuple(library.items())})
    _check_order(made)
    return made


def _check(name: str, value: object, between: tuple[float, float]) -> None:
    least, most = between
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= cast(float, value) <= most:
        raise ValueError(f"{name} is {value!r}, not between {least:g} and {most:g}")


def _check_order(target: Target) -> None:
    """What lies farther away is not faster."""
    all_cores = target.cores * SLACK
    for near, far, share in (
        ("l2_rate", "llc_rate", SLACK),
        ("llc_rate", "dram_rate_all", all_cores),
        ("dram_rate", "dram_rate_all", all_cores),
    ):
        less, more = getattr(target, near), getattr(target, far)
        if more > less * share:
            cores = f" on each of {target.cores} cores" if share == all_cores else ""
            raise ValueError(f"{far} is {more:g}, but {near} {less:g}{cores}")


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is no JSON object")
    return cast(dict[str, Any], value)


# On disk.


def path_of(machine: Machine, folder: Path) -> Path:
    """Where what was measured of a machine is kept."""
    return folder / f"calibration-{machine.key}.json"


def keep(found: Calibration, folder: Path) -> Path:
    """Keep it, for processes that start from now on and for this one.

    Raises `UserError` where the folder cannot be written to, or is not ours alone.
    """
    path = path_of(found.machine, folder)
    try:
        make_private(folder)
        write_private(path, found.text.encode())
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot keep what was measured in {folder}: {error}",
            fix="set cache_dir (FUSEC_CACHE_DIR) to a folder that is yours alone",
        ) from error
    kept.cache_clear()
    return path


def forget(machine: Machine, folder: Path) -> bool:
    """Remove what was measured; whether there was something."""
    gone = remove(path_of(machine, folder))
    kept.cache_clear()
    return gone


@cache
def kept(target: Target, machine: Machine, folder: Path) -> Calibration | None:
    """What was measured of a machine, or None; read once in a process."""
    path = path_of(machine, folder)
    try:
        found = _read(read_private(path), machine)
        with_figures(target, found.figures)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        logger("cache").warning(_IGNORED, path, error)
        return None
    return found


def _read(content: bytes, machine: Machine) -> Calibration:
    """A calibration of that machine. Raises ValueError, with what is wrong."""
    data = _mapping(json.loads(content))
    if data.get("version") != VERSION:
        raise ValueError(f"it is of version {data.get('version')!r}, not {VERSION}")
    if data.get("machine") != asdict(machine):
        raise ValueError("it was measured on another machine")
    return Calibration(machine, _mapping(data.get("figures")), str(data.get("when")))
