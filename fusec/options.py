"""Options: what a user can choose, from Python or from the environment.

Every option has one name in three places, and the first that is given wins:

    torch.compile(model, backend="fusec", options={"numerics": "fast"})
    FUSEC_NUMERICS=fast python train.py
    what mode="max-autotune" stands for, and the default below

An option is that of one compile; but `logs`, once given, is that of the process.

The environment is read here and nowhere else, when `Options.from_mapping` is called.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

from fusec.errors import OptionError
from fusec.logs import CATEGORIES, logger

Read = Callable[[object], object]
"""Reads an option's value; raises ValueError with what it should have been."""


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {
        "1": True,
        "true": True,
        "on": True,
        "0": False,
        "false": False,
        "off": False,
    }
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError("True or False (in the environment, 1 or 0)")


def _choice(*names: str) -> Read:
    def read(value: object) -> str:
        if isinstance(value, str) and value in names:
            return value
        raise ValueError(" or ".join(repr(name) for name in names))

    return read


def _count(value: object) -> int | None:
    if value is None:
        return None
    digits = str(value) if isinstance(value, str | int) else ""
    if digits.isdecimal() and int(digits) > 0:
        return int(digits)
    raise ValueError("a number of threads above zero")


def _seconds(value: object) -> float:
    """Not NaN, and not below zero."""
    with suppress(TypeError, ValueError):
        if not isinstance(value, bool) and (number := float(value)) >= 0:  # type: ignore[arg-type]
            return number
    raise ValueError("a number of seconds")


def _name(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise ValueError("the name of a target, such as 'x86-64-v3'")


def _folder(value: object) -> Path:
    if isinstance(value, str | Path) and str(value):
        return Path(os.path.expanduser(value))
    raise ValueError("the path of a folder")


def _categories(value: object) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if isinstance(names, Iterable):
        chosen = tuple(str(name).strip() for name in names if str(name).strip())
        if all(name in CATEGORIES for name in chosen):
            return chosen
    raise ValueError(f"names among {', '.join(CATEGORIES)}, separated by commas")


def _default_cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    if not os.path.isabs(base):  # a user without a home, as in some containers
        return Path(tempfile.gettempdir(), f"fusec-{os.getuid()}")
    return Path(base, "fusec")


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose. Immutable; raises `OptionError` for a value out of range."""

    numerics: Literal["eager", "fast"] = "eager"
    """Round where eager torch rounds; or, when fast, keep more precision and
    reassociate wherever that is quicker."""
    verify: bool = False
    """Check the program against the reference interpreter after every pass. Slow."""
    fallback: bool = True
    """Run what fusec does not compile through ATen; False refuses instead."""
    threads: int | None = None
    """Threads per kernel; None follows torch."""
    target: str | None = None
    """The name of a target (see `fusec.target`); None is the machine itself."""
    freeze: bool = False
    """In inference, compute what depends on a model's parameters alone once, and keep
    it: the weights of products packed. See `docs/freezing.md`."""
    cudagraphs: bool = False
    """On a GPU, capture the launches of a call as a CUDA graph, and replay it in later
    calls; as mode="reduce-overhead" does. See `docs/cudagraphs.md`."""
    tune: bool = False
    """Choose schedules by measuring the best candidates on this machine, and keep what
    was found in the cache; as mode="max-autotune" does. See `docs/tuning.md`."""
    tune_seconds: float = 60.0
    """About how long that may take for a graph; what is left then has the default."""
    cache: bool = True
    """Keep compiled code on disk."""
    cache_dir: Path = field(default_factory=_default_cache_dir)
    """Where to keep it."""
    logs: tuple[str, ...] = ()
    """Categories of `fusec.logs` to show, from then on and for the whole process."""

    def __post_init__(self) -> None:
        for name in NAMES:
            value = getattr(self, name)
            if _read(name, value, name) != value:
                raise OptionError(f"option {name}={value!r} has the wrong type")

    @classmethod
    def from_mapping(
        cls, options: Mapping[str, object] | None = None, mode: str | None = None
    ) -> Options:
        """What `torch.compile(backend="fusec", options=…, mode=…)` asks for.

        Raises `OptionError` for an unknown option or mode, or a value out of range.
        """
        given = options or {}
        for name in given:
            if name not in NAMES:
                raise _unknown("option", str(name), NAMES)
        own = {k: _read(k, v, k) for k, v in given.items()}
        return cls(**(_of_mode(mode) | _environment() | own))


_READERS: Mapping[str, Read] = {
    "numerics": _choice("eager", "fast"),
    "verify": _switch,
    "fallback": _switch,
    "threads": _count,
    "target": _name,
    "freeze": _switch,
    "cudagraphs": _switch,
    "tune": _switch,
    "tune_seconds": _seconds,
    "cache": _switch,
    "cache_dir": _folder,
    "logs": _categories,
}
NAMES = tuple(_READERS)
"""The names of all options."""


def environment_of_workers() -> dict[str, str]:
    """The variables of a process that compiles for this one: with its import path, and
    without what has Triton interpret kernels instead."""
    own = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return {**own, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def launches_block() -> bool:
    """Whether each launch on a GPU is to be waited for: torch's own switch."""
    return os.environ.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0")


_PREFIX = "FUSEC_"


def variable(name: str) -> str:
    """The environment variable of an option."""
    return f"{_PREFIX}{name.upper()}"


@cache
def _say_unknown(name: str) -> None:
    """Warn, once, of a variable that looks like ours: it may be another program's."""
    known = [variable(option) for option in NAMES]
    error = _unknown("environment variable", name, known, _PREFIX)
    logger("graph").warning("%s", error)


def _environment() -> dict[str, Any]:
    """The options that the environment sets. An empty variable sets nothing."""
    known = [variable(name) for name in NAMES]
    for name in os.environ:
        if name.startswith(_PREFIX) and name not in known:
            _say_unknown(name)
    given = {name: os.environ.get(variable(name), "") for name in NAMES}
    return {n: _read(n, text, variable(n)) for n, text in given.items() if text}


def _read(name: str, value: object, shown: str) -> Any:
    try:
        return _READERS[name](value)
    except ValueError as error:
        raise OptionError(
            f"{shown}={value!r} is not allowed", fix=f"give {error}"
        ) from None


_MODES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "reduce-overhead": {"cudagraphs": True},
    "max-autotune": {"cudagraphs": True, "tune": True},
    "max-autotune-no-cudagraphs": {"tune": True},
}
"""The modes of torch.compile, and the options that each stands for."""


def _of_mode(mode: str | None) -> dict[str, Any]:
    """The options that a mode stands for, which others win over."""
    if mode is not None and mode not in _MODES:
        raise _unknown("mode", mode, tuple(_MODES))
    return dict(_MODES[mode]) if mode else {}


def _unknown(
    kind: str, name: str, known: Sequence[str], prefix: str = ""
) -> OptionError:
    """The error, with what was meant; a prefix that all have makes nothing alike."""
    bare = [each.removeprefix(prefix) for each in known]
    found = get_close_matches(name.removeprefix(prefix), bare, n=2)
    close = [prefix + each for each in found]
    guess = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    listed = f"the {kind}s are {', '.join(known)}"
    return OptionError(f"fusec has no {kind} {name!r}", fix=guess + listed)
