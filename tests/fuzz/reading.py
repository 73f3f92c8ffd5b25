"""What becomes of a text: refused with a place, or IR that prints, reads and runs.

    judge(text)   →   Reading("ok" | "refused" | "slow" | a kind of failure)

Whatever the text says, the parser gives a module or a `ParseError`, the verifier
nothing or a `VerificationError`, and what it lets pass runs, or ends in an error of
ours. A program may take long, as long as it likes; reading it may not.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fuzz.mutants import corpus, mutant
from fuzz.pool import READY

from fusec.errors import CHECK_ERRORS, FusecError, ParseError, VerificationError
from fusec.ir.arguments import random_arguments
from fusec.ir.core import Level, Module, walk
from fusec.ir.interpreter import interpret, run_kernel
from fusec.ir.ops.extern import Extern
from fusec.ir.parser import parse_module
from fusec.ir.printer import format_module
from fusec.ir.verifier import verify

READING = 5.0
"""Seconds of the processor after which reading a text counts as hanging."""
MEMORY = 8 << 30
"""Bytes of addresses that a worker may use: texts ask for any amount."""
RUNNING = 1.0
"""Seconds after which a program that runs is left alone."""


@dataclass(frozen=True, slots=True)
class Reading:
    kind: str
    message: str = ""


class _Late(BaseException):
    """The time is up. No handler for errors catches it."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raises `_Late` in the block when it takes longer."""

    def late(*_: object) -> None:
        raise _Late

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def judge(text: str) -> Reading:
    """Read a text, and run what it says."""
    try:
        with limit(READING):
            module = _read(text)
    except (ParseError, VerificationError) as refused:
        str(refused)
        return Reading("refused")
    except _Late:
        return Reading("hang", f"not read in {READING} s")
    except Exception as error:
        kind = f"read {type(error).__name__}"
        return Reading(kind, "".join(traceback.format_exception(error)))
    return _run(module)


def _read(text: str) -> Module:
    module = parse_module(text)
    printed = format_module(module)
    again = format_module(parse_module(printed))
    if again != printed:
        raise AssertionError(f"printed as\n{printed}\nand read as\n{again}")
    verify(module)
    return module


def _run(module: Module) -> Reading:
    """Interpret a module, calls to torch excepted."""
    entry = module.entry
    if any(isinstance(op, Extern) for op in walk(entry.body)):
        return Reading("ok")
    try:
        with limit(RUNNING):
            values = random_arguments(entry)
            if entry.level is Level.TILE:
                count = len(entry.params)
                sizes = dict(zip(entry.symbols, values[count:], strict=True))
                run_kernel(entry, values[:count], sizes, 1)
            else:
                interpret(entry, values, module=module)
    except _Late:
        return Reading("slow")
    except (FusecError, *CHECK_ERRORS.values()) as error:
        str(error)
        return Reading("refused")
    except Exception as error:
        kind = f"ran {type(error).__name__}"
        return Reading(kind, "".join(traceback.format_exception(error)))
    return Reading("ok")


def main() -> None:
    """A worker: {"seed": 7} or {"text": …} to {"kind": …, "message": …}."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(READY, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        text = question.get("text")
        found = judge(mutant(question["seed"], corpus()) if text is None else text)
        print(json.dumps({"kind": found.kind, "message": found.message}), flush=True)


if __name__ == "__main__":
    main()
