"""Reading IR from files."""

from __future__ import annotations

import sys
from pathlib import Path

from fusec.errors import UserError
from fusec.ir.core import Module
from fusec.ir.parser import parse_module
from fusec.ir.verifier import verify


def read_module(path: str) -> Module:
    """The module in a file, `-` for standard input, parsed and verified.

    Raises `UserError`, `ParseError` or `VerificationError`.
    """
    module = parse_module(_read(path), "<stdin>" if path == "-" else path)
    verify(module)
    return module


def _read(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read()
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path} is not text", fix="give a file that `fusec dump` wrote"
        ) from None
